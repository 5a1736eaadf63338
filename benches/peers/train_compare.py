"""Times the training step of this project against PyTorch's on the same batches, and writes both as JSON.

usage: python train_compare.py MODEL GRAPH BATCH STEPS OUT.json

Builds `crates/uwe-train/examples/step.rs`, runs it and `train_step.py` one after the other with this Python, each as a process of
its own. Times are of the steps, the first aside (memory is new then); memory is the process's largest.
"""

import json
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]


def run(command):
    """Its JSON, and its largest memory in MB."""
    found = subprocess.run(["/usr/bin/time", "-f", "%M", *map(str, command)], capture_output=True, text=True)
    if found.returncode:
        sys.exit(found.stderr)
    return json.loads(found.stdout), int(found.stderr.strip().splitlines()[-1]) / 1000


def main():
    model, graph, batch, steps, out = sys.argv[1:]
    build = ["cargo", "build", "--release", "--quiet", "-p", "uwe-train", "--example", "step"]
    subprocess.run(build, check=True, cwd=ROOT)
    with tempfile.TemporaryDirectory() as folder:
        batches = pathlib.Path(folder) / "batches.json"
        own, own_memory = run([ROOT / "target/release/examples/step", model, graph, batch, steps, batches])
        peer, peer_memory = run([sys.executable, ROOT / "benches/peers/train_step.py", model, batches])
    median = lambda seconds: statistics.median(seconds[1:] or seconds)
    result = {
        "model": pathlib.Path(model).name,
        "batch": int(batch),
        "tokens": own["tokens"],
        "machine": f"{platform.machine()}, 2 threads",
        "uwe": {"seconds": own["seconds"], "losses": own["losses"], "memory_mb": own_memory},
        "pytorch": {"seconds": peer["seconds"], "losses": peer["losses"], "memory_mb": peer_memory},
        "median_seconds": {"uwe": median(own["seconds"]), "pytorch": median(peer["seconds"])},
        "pytorch_over_uwe": median(peer["seconds"]) / median(own["seconds"]),
    }
    pathlib.Path(out).write_text(json.dumps(result, indent=1) + "\n")
    print(f"batch {batch}: uwe {result['median_seconds']['uwe']:.2f} s and {own_memory:.0f} MB, "
          f"PyTorch {result['median_seconds']['pytorch']:.2f} s and {peer_memory:.0f} MB, "
          f"ratio {result['pytorch_over_uwe']:.2f}; "
          f"largest difference of losses {max(abs(a - b) for a, b in zip(own['losses'], peer['losses'])):.1e}")


main()
