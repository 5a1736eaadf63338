#!/usr/bin/env python3
"""Compares a lexical run, query by query, with the Python implementation that WorkRB uses.

    uwe bench run --data DATA --output RUN --system bm25 --only jobnorm.test --sample 500
    venv/bin/python compare_lexical.py RUN

Every query's hits must be the same targets in the same order; scores may differ by the last bit of a 32-bit number.
"""

import json
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
from workrb.models.lexical_baselines import BM25Model, EditDistanceModel, TfIdfModel

MODELS = {
    "bm25": lambda: BM25Model(), "tfidf-words": lambda: TfIdfModel(),
    "tfidf-characters": lambda: TfIdfModel(tokenization="char"), "edit-distance": lambda: EditDistanceModel(),
}

failed = 0
for folder in map(Path, sys.argv[1:]):
    name = json.loads((folder / "run.json").read_text())["system"]["name"]
    for path in sorted((folder / "sets").glob("*.queries.parquet")):
        table = parquet.read_table(path).to_pydict()
        targets = parquet.read_table(str(path).replace(".queries.", ".targets."))["target"].to_pylist()
        scores = MODELS[name]()._compute_rankings(table["query"], targets).numpy()
        wrong, largest = [], 0.0
        for place, (row, hits, own) in enumerate(zip(scores, table["hits"], table["hit_scores"])):
            order = np.lexsort((np.arange(len(row)), -row))[: len(hits)]
            largest = max(largest, float(np.max(np.abs(row[order] - np.array(own, dtype=np.float32)) / np.maximum(1, np.abs(row[order])))))
            if order.tolist() != hits:
                wrong.append(place)
        failed += len(wrong)
        print(f"{name} {path.name}: {len(scores)} queries, {len(wrong)} differ {wrong[:5]}, "
              f"depth {len(hits)}, largest relative difference of a score {largest:.1e}")
sys.exit(1 if failed else 0)
