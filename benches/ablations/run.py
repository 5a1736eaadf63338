#!/usr/bin/env python3
"""Short trainings that differ in one thing, each with several seeds.

    python3 benches/ablations/run.py onet-titles --data DATA > runs/onet-titles.json
    python3 benches/ablations/run.py train --uwe target/release/uwe --model models/all-MiniLM-L6-v2 \
        --graph graphs/full --data DATA --runs runs/ablations --set runs/onet-titles.json
    python3 benches/ablations/run.py table > benches/results/ablations/table.md

`onet-titles` makes a set whose targets no graph without O*NET holds: alternate titles against the titles of its occupations.
`train` runs seed after seed, so that whatever is there when it is stopped can be compared; what is done is left out the next
time. Only the recipe and the log of a run, and its MAP on the sets given besides, are kept, under benches/results/ablations. `table`
makes Markdown of them: for each variant the mean over its seeds, and the difference from the base of the same seed with its 95 %
interval (Student's t).
"""

import argparse
import csv
import hashlib
import json
import math
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

RESULTS = Path(__file__).resolve().parents[1] / "results" / "ablations"

SOFT = {"scorer": "soft-late-interaction", "temperature": 16.0, "logits": "raw", "axis": "target", "reduction": "mean"}
JOB, SENTENCE, ALTERNATIVE = "job", "sentence", "alternative"
GRAPHS = {
    JOB: {"weight": 0.8, "temperature": 0.05, "batch": 128},
    SENTENCE: {"weight": 0.7, "temperature": 0.02, "batch": 64},
    ALTERNATIVE: {"weight": 0.7, "temperature": 0.02, "batch": 96},
    "occupation": {
        "of": ALTERNATIVE,
        "sources": ["onet-titles", "esco-occupations", "written-occupation-titles", "jobbert"],
        "weight": 0.5,
        "temperature": 0.03,
        "batch": 96,
    },
}
SOURCES = {"esco-occupation-descriptions": 0.25, "onet-tasks": 0.1, "onet-technology": 0.0}
# Everything of data/written, left out.
WRITTEN = {
    f"written-{kind}": 0.0
    for kind in (
        "sentences",
        "annotated",
        "trade-sentences",
        "skill-names",
        "job-titles",
        "occupation-titles",
        "duties",
        "title-skills",
        "occupation-title-skills",
    )
} | {"onet-skills": 0.0, "skillspan": 0.0}
# Everything that knows titles of O*NET.
ONET = {"onet-tasks": 0.0, "onet-titles": 0.0, "onet-skills": 0.0}
# Queries of the set of O*NET's titles.
MOST_QUERIES = 4000


def graphs(*kinds):
    """The parts of these graphs; other names of occupations belong to those of skills."""
    return {name: options for name, options in GRAPHS.items() if options.get("of", name) in kinds}


# What each variant changes of the base.
VARIANTS = {
    "base": {},
    "plain": {"variant": "plain"},
    "symmetric": {"variant": "symmetric"},
    "cosine": {"scoring": {"scorer": "cosine"}},
    "max-sim": {"scoring": {"scorer": "max-sim", "reduction": "mean"}},
    "soft-pooled": {"scoring": {"scorer": "soft-pooled", "temperature": 16.0, "logits": "raw"}},
    # Symmetric: the way back has no score of its own.
    "both-axes": {"scoring": SOFT | {"axis": "both"}, "reverse": "same"},
    "temperature-1": {"scoring": SOFT | {"temperature": 1.0}},
    "temperature-64": {"scoring": SOFT | {"temperature": 64.0}},
    # Sums are about as many times as large as a text has tokens.
    "sum": {"scoring": SOFT | {"reduction": "sum"}, "loss_temperature": 8.0},
    # Soft scores of a query lie closer together than cosines of pooled vectors.
    "loss-temperature-half": {"loss_temperature": 0.5},
    "loss-temperature-double": {"loss_temperature": 2.0},
    "reverse-same": {"reverse": "same"},
    "without-written": {"sources": SOURCES | WRITTEN},
    "without-tagged": {"sources": SOURCES | {"vacancies": 0.0}},
    "only-job": {"graphs": graphs(JOB)},
    "only-sentence": {"graphs": graphs(SENTENCE)},
    "only-alternative": {"graphs": graphs(ALTERNATIVE)},
    "job-and-sentence": {"graphs": graphs(JOB, SENTENCE)},
    "job-and-alternative": {"graphs": graphs(JOB, ALTERNATIVE)},
    "sentence-and-alternative": {"graphs": graphs(SENTENCE, ALTERNATIVE)},
    "without-onet": {"sources": SOURCES | ONET},
}


def value(thing):
    return json.dumps(thing)


def recipe(name, seed, steps):
    """The recipe of a variant as TOML."""
    change = VARIANTS[name]
    scoring = change.get("scoring", SOFT) | {"special_tokens": True}
    lines = [
        f"name = {value(f'{name}-{seed}')}",
        f"seed = {seed}",
        f"steps = {steps}",
        "batch = 96",
        f"variant = {value(change.get('variant', 'many-to-many'))}",
        f"reverse = {value(change.get('reverse', 'own'))}",
        "join_sentences = 0.5",
        "[scoring]",
        *(f"{key} = {value(given)}" for key, given in scoring.items()),
    ]
    for graph, options in change.get("graphs", GRAPHS).items():
        options = dict(options, temperature=options["temperature"] * change.get("loss_temperature", 1.0))
        lines += [f"[graphs.{graph}]", *(f"{key} = {value(given)}" for key, given in options.items())]
    lines += ["[sources]", *(f"{key} = {value(given)}" for key, given in change.get("sources", SOURCES).items())]
    lines += ["[optimizer]", "learning_rate = 1.5e-4", "warm_up = 0.1", 'schedule = "linear"', "averaging = 0.97"]
    lines += ["[validation]", f"every = {steps}", "queries = 500", f"checkpoint_every = {steps}"]
    return "\n".join(lines) + "\n"


def train(arguments):
    names = arguments.only or list(VARIANTS)
    for seed in arguments.seeds:
        for name in names:
            kept = RESULTS / name / str(seed)
            if (kept / "log.jsonl").exists():
                continue
            run = arguments.runs / f"{name}-{seed}"
            shutil.rmtree(run, ignore_errors=True)
            run.parent.mkdir(parents=True, exist_ok=True)
            given = run.parent / f"{name}-{seed}.toml"
            given.write_text(recipe(name, seed, arguments.steps))
            command = [arguments.uwe, "train", given, "--model", arguments.model, "--graph", arguments.graph]
            command += ["--data", arguments.data, "--output", run]
            print(f"{name}, seed {seed}", flush=True)
            subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)
            kept.mkdir(parents=True, exist_ok=True)
            sets = {given.stem: measured(arguments, run, given) for given in arguments.set}
            (kept / "sets.json").write_text(json.dumps(sets) + "\n")
            # The log comes last: it says that the run is done.
            shutil.copy(run / "recipe.toml", kept)
            shutil.copy(run / "log.jsonl", kept)
            shutil.rmtree(run)


def measured(arguments, run, given):
    """MAP of a run's model on a set of one's own, in percent."""
    output = run / given.stem
    command = [arguments.uwe, "bench", "run", "--model", run / "last", "--data", arguments.data, "--set", given]
    command += ["--only", f"{given.stem}*", "--spaces", run, "--output", output]
    subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)
    (result,) = json.loads((output / "results.json").read_text())["sets"]
    return next(100 * metric["mean"] for metric in result["metrics"] if metric["metric"] == "map")


def onet_titles(arguments):
    """Alternate titles of O*NET against the titles of its occupations; those drawn are the first by a hash."""

    def rows(name):
        with open(arguments.data / "onet" / name, newline="") as file:
            yield from csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)

    targets = [(row["O*NET-SOC Code"], row["Title"]) for row in rows("Occupation Data.txt")]
    place = {code: index for index, (code, _) in enumerate(targets)}
    relevant = {}
    for row in rows("Alternate Titles.txt"):
        relevant.setdefault(row["Alternate Title"].strip(), set()).add(place[row["O*NET-SOC Code"]])
    names = {title.lower() for _, title in targets}
    queries = [title for title in relevant if title.lower() not in names]
    queries = sorted(queries, key=lambda title: hashlib.sha256(title.encode()).digest())[:MOST_QUERIES]
    json.dump(
        {
            "queries": queries,
            "targets": [title for _, title in targets],
            "relevance": [sorted(relevant[title]) for title in queries],
        },
        sys.stdout,
        indent=0,
    )


def outcome(log):
    """The last validation of a run: macro average and sets, in percent."""
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    last = [row for row in rows if "validated" in row][-1]
    sets = {name: 100 * score for name, score in last["sets"].items()}
    extraction = [sets.pop(name) for name in sorted(sets) if name.startswith("skillextract")]
    besides = log.with_name("sets.json")
    others = json.loads(besides.read_text()) if besides.exists() else {}
    return {"mean": 100 * last["mean"], **sets, "extraction": statistics.mean(extraction), **others}


# Two-sided 95 % quantiles of Student's t by degrees of freedom.
QUANTILES = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}


def difference(own, base):
    """Mean difference over the seeds that both have, with the half width of its 95 % interval."""
    seeds = sorted(own.keys() & base.keys())
    gaps = [own[seed]["mean"] - base[seed]["mean"] for seed in seeds]
    if len(gaps) < 2:
        return statistics.mean(gaps) if gaps else math.nan, math.nan
    half = QUANTILES.get(len(gaps) - 1, 1.96) * statistics.stdev(gaps) / math.sqrt(len(gaps))
    return statistics.mean(gaps), half


def outcomes():
    """The last validation of every run that is kept, by variant and seed."""
    found = {}
    for name in VARIANTS:
        logs = {path.parent.name: path for path in (RESULTS / name).glob("*/log.jsonl")}
        if logs:
            found[name] = {seed: outcome(path) for seed, path in logs.items()}
    if "base" not in found:
        sys.exit("error: there is no run of `base`\nhint: `train` makes them")
    return found


def table(_):
    found = outcomes()
    columns = ["mean", "job2skill", "skill2job", "jobnorm", "skillnorm", "extraction", "onet-titles"]
    print("| variant | seeds | " + " | ".join(columns) + " | mean against base |")
    print("|---" * (len(columns) + 3) + "|")
    for name, seeds in found.items():
        cells = [f"{statistics.mean(run.get(column, math.nan) for run in seeds.values()):.2f}" for column in columns]
        gap, half = difference(seeds, found["base"])
        # An interval over two seeds says nothing.
        against = f"{gap:+.2f} ± {half:.2f}" if name != "base" and len(seeds) >= 3 else ""
        print(f"| {name} | {len(seeds)} | " + " | ".join(cells) + f" | {against} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    begin = commands.add_parser("train")
    for option in ("uwe", "model", "graph", "data", "runs"):
        begin.add_argument(f"--{option}", type=Path, required=True)
    begin.add_argument("--steps", type=int, default=50)
    begin.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    begin.add_argument("--only", nargs="+", choices=list(VARIANTS), metavar="VARIANT")
    begin.add_argument("--set", type=Path, nargs="*", default=[], help="sets to measure besides")
    begin.set_defaults(run=train)
    titles = commands.add_parser("onet-titles")
    titles.add_argument("--data", type=Path, required=True)
    titles.set_defaults(run=onet_titles)
    commands.add_parser("table").set_defaults(run=table)
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
