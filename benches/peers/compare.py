#!/usr/bin/env python3
"""Measures `uwe` against sentence-transformers, ONNX Runtime and PyTorch, on the same work in one run.

    benches/peers/compare.py --encoders FOLDER [--only NAME ...] [--out benches/results/NAME.json]

FOLDER holds all-MiniLM-L6-v2 and all-mpnet-base-v2. Needs the packages of requirements.txt in the Python that
runs it, and a release build (`cargo build --release --examples --bins`). Engines take turns round by round,
so that what else the machine does falls on all of them. The texts are the starter taxonomy's.
"""

import argparse
import csv
import datetime
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
ENCODERS = ["all-MiniLM-L6-v2", "all-mpnet-base-v2"]


def corpus(folder):
    """14,000 short strings, 1,000 sentences, 338 queries and one query of 12 tokens, as files of lines."""
    read = lambda name: list(csv.DictReader(open(ROOT / "starter" / name, encoding="utf-8")))
    short = []
    for row in read("skills.csv") + read("job_titles.csv"):
        short += [row["label"]] + row["alternative_labels"].split(" | ")
    prefixes = ["", "experienced ", "basic ", "certified "]
    short = list(dict.fromkeys(prefix + text for prefix in prefixes for text in short))[:14000]
    sentences = [row["sentence"] for row in read("sentences.csv")]
    sentences = (sentences + [row["description"] for row in read("skills.csv")])[:1000]
    parts = {
        "short": short, "sentences": sentences, "queries": sentences[:338], "ones": short[:200],
        "query": ["nurse in intensive care with experience of night work"],
    }
    paths = {}
    for name, texts in parts.items():
        paths[name] = str(Path(folder) / f"{name}.txt")
        Path(paths[name]).write_text("\n".join(texts) + "\n", encoding="utf-8")
    return paths, {name: len(texts) for name, texts in parts.items()}


def ask(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{command}\n{done.stderr}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def peer(**arguments):
    return ask([sys.executable, "-W", "ignore", str(HERE / "peers.py"), json.dumps(arguments)])


def own(*arguments):
    return ask([str(ROOT / "target/release/examples/measure"), *map(str, arguments)])


def turns(rounds, engines):
    """Runs each engine in turn; gathers wall and processor seconds."""
    found = {name: {"wall": [], "cpu": []} for name in engines}
    for _ in range(rounds):
        for name, engine in engines.items():
            result = engine()
            for key, value in result.items():
                if key in ("wall", "cpu"):
                    found[name][key] += value
                else:
                    found[name][key] = value
    return found


def encoding(paths, folder, graph, what, rounds):
    measured = {f"uwe {p}": lambda p=p: own("encode", folder, p, 1, paths[what], 1) for p in precisions()}
    for engine in ("onnxruntime", "sentence-transformers"):
        measured[f"{engine} f32"] = lambda engine=engine: peer(
            do="encode", engine=engine, folder=folder, graph=graph, threads=1, texts=paths[what], rounds=1)
    return turns(rounds, measured)


def latency(paths, folder, graph, count):
    measured = {f"uwe {p}": lambda p=p: own("one", folder, p, 1, paths["ones"], count) for p in precisions()}
    for engine in ("onnxruntime", "sentence-transformers"):
        measured[f"{engine} f32"] = lambda engine=engine: peer(
            do="one", engine=engine, folder=folder, graph=graph, threads=1, texts=paths["ones"], rounds=count)
    return turns(3, measured)


def scoring(paths, folder, scorer, queries, rounds):
    measured = {"uwe": lambda: own("score", folder, scorer, 2, paths["short"], paths[queries], rounds)}
    for engine in ("plain", "tuned"):
        measured[f"torch {engine}"] = lambda engine=engine: peer(
            do="score", engine=engine, folder=folder, scorer=scorer, threads=2, targets=paths["short"],
            queries=paths[queries], rounds=rounds)
    return turns(3 if rounds > 1 else 1, measured)


def precisions():
    text = subprocess.run(
        [str(ROOT / "target/release/uwe"), "model", "info", "--model", ENCODER_FOLDER], capture_output=True, text=True)
    line = next(line for line in text.stdout.splitlines() if line.startswith("precision"))
    return line.split("this processor: ")[1].rstrip(")").split(", ")


def starting(paths, folder, graph, scratch):
    """Whole processes: wall time and peak resident memory from nothing to the first hits."""
    space = str(Path(scratch) / f"{Path(folder).name}.space")
    uwe = str(ROOT / "target/release/uwe")
    subprocess.run([uwe, "space", "build", paths["short"], "-o", space, "-m", folder], check=True, capture_output=True)
    cache = str(Path(scratch) / f"{Path(folder).name}.npy")
    make = "import sys, numpy; from sentence_transformers import SentenceTransformer as S; " \
        "numpy.save(sys.argv[2], S(sys.argv[1], device='cpu').encode(open(sys.argv[3]).read().splitlines()))"
    subprocess.run([sys.executable, "-c", make, folder, cache, paths["short"]], check=True, capture_output=True)
    query = open(paths["query"], encoding="utf-8").read().strip()
    commands = {"uwe f32": [uwe, "rank", "-m", folder, "-s", space, "-f", "json", query]}
    for engine in ("onnxruntime", "sentence-transformers"):
        arguments = dict(do="start", engine=engine, folder=folder, graph=graph, cache=cache, text=query)
        commands[f"{engine} f32"] = [sys.executable, "-W", "ignore", str(HERE / "peers.py"), json.dumps(arguments)]
    found = {name: {"wall": [], "resident_mb": []} for name in commands}
    for _ in range(5):
        for name, command in commands.items():
            started = time.perf_counter()
            child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            _, status, usage = os.wait4(child.pid, 0)
            assert status == 0, command
            found[name]["wall"].append(time.perf_counter() - started)
            found[name]["resident_mb"].append(usage.ru_maxrss / 1024)
    return found, {"uwe": own("open", space, 50)}


def machine():
    name = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
    return f"{name}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}"


def report(result):
    """A table for people: medians, and ratios to the peers."""
    out = [f"# Measured {result['date']}", "", f"{result['machine']}; {result['commit']}", ""]
    for name, engines in result["measured"].items():
        out += [f"## {name}", "", "| engine | median | best | per processor second | times ONNX Runtime | times the slowest |", "|---|---|---|---|---|---|"]
        count = result["counts"].get(name.split(", ")[-1].split()[-1], 1) if name.startswith("encode") else None
        key = "cpu" if count else "wall"
        middle = {engine: statistics.median(found[key]) for engine, found in engines.items()}
        slowest = max(middle.values())
        for engine, found in engines.items():
            seconds = middle[engine]
            rate = f"{count / seconds:,.0f} texts" if count else ""
            onnx = f"{middle['onnxruntime f32'] / seconds:.2f}" if "onnxruntime f32" in middle else ""
            best = min(found[key])
            memory = f" ({statistics.median(found['resident_mb']):.0f} MB)" if "resident_mb" in found else ""
            out.append(f"| {engine} | {seconds * 1e3:,.2f} ms{memory} | {best * 1e3:,.2f} ms | {rate} | {onnx} | {slowest / seconds:.2f} |")
        out.append("")
    return "\n".join(out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoders", required=True)
    parser.add_argument("--only", nargs="*", default=["encode", "one", "score", "start"])
    parser.add_argument("--models", nargs="*", default=ENCODERS)
    parser.add_argument("--out", default=str(ROOT / "benches/results/latest.json"))
    options = parser.parse_args()
    ENCODER_FOLDER = str(Path(options.encoders) / ENCODERS[0])
    commit = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    result = {
        "date": datetime.date.today().isoformat(), "machine": machine(), "commit": commit.stdout.strip(),
        "peers": open(HERE / "requirements.txt").read().split(), "measured": {},
    }
    with tempfile.TemporaryDirectory() as scratch:
        paths, result["counts"] = corpus(scratch)
        for name in options.models:
            folder = str(Path(options.encoders) / name)
            graph = str(Path(scratch) / f"{name}.onnx")
            checked = peer(do="export", folder=folder, out=graph)
            print(f"{name}: ONNX graph equals PyTorch to {checked['largest_difference']:.1e}", file=sys.stderr)
            small = name == ENCODERS[0]
            measured = {}
            if "one" in options.only:
                measured[f"one text, {name}"] = latency(paths, folder, graph, 300 if small else 60)
            if "encode" in options.only:
                measured[f"encode, {name}, 1,000 sentences"] = encoding(paths, folder, graph, "sentences", 5 if small else 1)
                if small:
                    measured[f"encode, {name}, 14,000 short"] = encoding(paths, folder, graph, "short", 1)
            if "score" in options.only:
                for scorer in ("soft", "soft-pooled"):
                    for queries, rounds in (("query", 15), ("queries", 1)):
                        label = "one query" if queries == "query" else "338 queries"
                        found = scoring(paths, folder, scorer, queries, rounds)
                        firsts = [engine["first"] for engine in found.values()]
                        assert all(set(first[:5]) & set(firsts[0][:5]) for first in firsts), firsts
                        measured[f"score, {scorer}, {label}, {name}"] = found
            if "start" in options.only:
                started, opened = starting(paths, folder, graph, scratch)
                measured[f"start to first hit, {name}"] = started
                measured[f"open a space of 14,000, {name}"] = opened
            result["measured"].update(measured)
            Path(options.out).write_text(json.dumps(result, indent=1))
            Path(options.out).with_suffix(".md").write_text(report(result))
    print(report(result))
