#!/usr/bin/env python3
"""Writes metrics.json and lexical.json beside this file, with the public toolkit WorkRB as the oracle.

    python3 -m venv venv && venv/bin/pip install -r requirements.txt && venv/bin/python generate.py

metrics.json: random score matrices, small enough to read; with and without ties, with queries that have no relevant
target, with one label and with grades. WorkRB sorts ties by an unstable sort, so where there are ties it is handed the
ranks of the documented order (score descending, then index ascending) instead of the scores.

lexical.json: queries of the starter taxonomy against some of its skills, with the best targets of each baseline.
"""

import csv
import json
from pathlib import Path

import numpy as np
from workrb.metrics.ranking import calculate_ranking_metrics
from workrb.models.lexical_baselines import BM25Model, EditDistanceModel, TfIdfModel

HERE = Path(__file__).resolve().parent
STARTER = HERE.parents[3] / "starter"
METRICS = ["map", "mrr", "rp@1", "rp@5", "rp@10", "recall@3", "recall@10", "hit@1", "hit@5", "ndcg", "ndcg@5"]


def documented_order(scores):
    """Ranks as scores: no two are equal, and they sort as the documented rule says."""
    replaced = np.empty_like(scores)
    for row, out in zip(scores, replaced):
        order = np.lexsort((np.arange(len(row)), -row))
        out[order] = -np.arange(len(row), dtype=scores.dtype)
    return replaced


def case(generator, kind):
    queries, targets = int(generator.integers(1, 6)), int(generator.integers(2, 24))
    if kind == "ties":
        scores = generator.integers(-2, 3, (queries, targets)).astype(np.float32)
    else:
        scores = np.round(generator.normal(size=(queries, targets)), 4).astype(np.float32)
    relevant = []
    for _ in range(queries):
        most = 1 if kind == "single" else min(targets, int(generator.integers(0, 9)))
        relevant.append(sorted(int(t) for t in generator.choice(targets, most, replace=False)))
    if not any(relevant):
        relevant[0] = [0]
    grades = None
    if kind == "graded":
        grades = [[float(generator.integers(0, 4)) for _ in labels] for labels in relevant]
    tied = any(len(set(row.tolist())) < targets for row in scores)
    values = calculate_ranking_metrics(documented_order(scores) if tied else scores, relevant, METRICS, grades)
    return {"kind": kind, "tied": tied, "scores": [[float(f"{x:.4f}") for x in row] for row in scores.tolist()],
            "relevant": relevant, "grades": grades, "values": {k: float(v) for k, v in values.items()}}


def column(name, field):
    with open(STARTER / name, encoding="utf-8") as file:
        return [row[field] for row in csv.DictReader(file)]


def lexical():
    targets = column("skills.csv", "label")[::3]
    queries = column("job_titles.csv", "label")[::16] + column("sentences.csv", "sentence")[::60]
    queries += ["Café-Bar_Leiter  №2", "ＮＵＲＳＥ", "and and the", "zzz"]
    models = {"bm25": BM25Model(), "tfidf-words": TfIdfModel(), "tfidf-characters": TfIdfModel(tokenization="char"),
              "edit-distance": EditDistanceModel()}
    best = {}
    for name, model in models.items():
        scores = model._compute_rankings(queries, targets).numpy()
        best[name] = []
        for row in scores:
            order = np.lexsort((np.arange(len(row)), -row))[:20]
            best[name].append([[int(t), float(row[t])] for t in order])
    return {"queries": queries, "targets": targets, "best": best}


def write(name, value):
    (HERE / name).write_text(json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    generator = np.random.default_rng(7)
    kinds = ["plain", "ties", "single", "graded"]
    write("metrics.json", [case(generator, kinds[i % 4]) for i in range(240)])
    write("lexical.json", lexical())
