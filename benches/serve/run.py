#!/usr/bin/env python3
"""Load on `uwe serve`, and on the service that people write first; raw results as JSON lines.

    python3 benches/serve/run.py --uwe target/release/uwe --load target/release/examples/load --model models/uwe-mini \\
        --space esco.space --peer PYTHON --output benches/results/serve/NAME.jsonl

PYTHON has requirements.txt of this folder; without `--peer` the comparison is left out. Client and service share the machine: what
the client takes is missing to the service. Needs nothing beyond Python's standard library.
"""

import argparse
import http.client
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PORT = 8091
PEER_PORT = 8092


def wait(port, path="/readyz"):
    for _ in range(600):
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", path)
            if connection.getresponse().status in (200, 404):
                return
        except OSError:
            pass
        time.sleep(0.1)
    sys.exit(f"nothing answers on port {port}")


class Service:
    def __init__(self, arguments, limits=""):
        self.folder = tempfile.TemporaryDirectory()
        config = Path(self.folder.name) / "uwe.toml"
        config.write_text(f'listen = "127.0.0.1:{PORT}"\ndata = "{self.folder.name}/data"\n[limits]\n{limits}')
        command = [arguments.uwe, "serve", "--model", arguments.model, "--config", config]
        command += ["--space", f"esco={arguments.space}", *arguments.flag]
        environment = dict(os.environ, UWE_LOG="warn")
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
        wait(PORT)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        assert self.process.poll() is None, "the service has ended by itself"
        self.process.terminate()
        assert self.process.wait(30) == 0
        self.folder.cleanup()

    def resident(self):
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024

    def metric(self, name):
        connection = http.client.HTTPConnection("127.0.0.1", PORT)
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        return float(re.search(rf"^{name} (\S+)$", text, re.M)[1])


def load(arguments, port, *options):
    command = [arguments.load, f"127.0.0.1:{port}", "--space", "esco", *map(str, options)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def parts(arguments, count=400):
    """Where the time of one new title goes: the service's own clock."""
    connection = http.client.HTTPConnection("127.0.0.1", PORT)
    seen = {}
    for number in range(count):
        body = json.dumps({"texts": [f"senior pastry chef {number}"], "space": "esco", "top": 10})
        start = time.perf_counter()
        connection.request("POST", "/v1/rank", body, {"content-type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        took = (time.perf_counter() - start) * 1e3
        timing = dict(re.findall(r"(\w+);dur=([\d.]+)", answer.getheader("server-timing")))
        for name, value in {**timing, "client": took}.items():
            seen.setdefault(name, []).append(float(value))
    return {name: sorted(values)[len(values) // 2] for name, values in seen.items()}


def cancelled(arguments):
    """Two thousand requests wait; a thousand clients go. What of theirs was computed?"""
    limits = "requests = 4000\nconnections = 4000\nqueue_texts = 100000\nqueue_ms = 600000\n"
    limits += "request_ms = 600000\n"
    with Service(arguments, limits) as service:
        sockets = []
        for number in range(2000):
            texts = [f"{number} {index} senior pastry chef of the night shift" for index in range(4)]
            body = json.dumps({"texts": texts, "space": "esco", "top": 10})
            head = f"POST /v1/rank HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
            connection = socket.create_connection(("127.0.0.1", PORT))
            connection.sendall((head + body).encode())
            sockets.append(connection)
        before = service.metric("uwe_queue_duration_seconds_count")
        for connection in sockets[::2]:
            connection.close()
        answered = 0
        for connection in sockets[1::2]:
            connection.settimeout(300)
            answered += connection.recv(15).startswith(b"HTTP/1.1 200")
        while service.metric("uwe_texts_waiting") > 0:
            time.sleep(0.05)
        gone = service.metric("uwe_requests_gone_total")
        return {"waiting": 2000, "begun_before": before, "cancelled": 1000, "dropped_unworked": gone, "stayed_and_answered": answered}


def memory(arguments):
    """Resident memory over 100,000 mixed requests, after the cache of queries is full: 64 MB are some 5,000 short texts."""
    with Service(arguments) as service:
        def loads(requests):
            statuses = {}
            while sum(statuses.values()) < requests:
                seen = load(arguments, PORT, "--route", "mixed", "--clients", 8, "--seconds", 30)
                for status, count in seen["statuses"].items():
                    statuses[status] = statuses.get(status, 0) + count
            return statuses

        warm = loads(15_000)
        before = service.resident()
        statuses = loads(100_000)
        return {"warm_up": warm, "requests": sum(statuses.values()), "statuses": statuses, "resident_mb": [before, service.resident()]}


def service_alone(arguments, note):
    seconds = arguments.seconds
    with Service(arguments) as service:
        note("parts of one new title", lambda: parts(arguments))
        for route in ("/v1/rank", "/embed"):
            for clients in (1, 2, 8, 32):
                options = ("--route", route, "--clients", clients, "--seconds", seconds)
                note(f"{route}, {clients} clients", lambda: load(arguments, PORT, *options))
        note("memory with one space", lambda: {"resident_mb": service.resident()})
    for route in ("/v1/rank", "/embed"):
        def overload():
            with Service(arguments):
                calm = load(arguments, PORT, "--route", route, "--clients", 1, "--seconds", seconds)
                full = load(arguments, PORT, "--route", route, "--clients", 8, "--seconds", seconds)
                rate = 10 * full["answers_a_second"]
                wild = load(arguments, PORT, "--route", route, "--clients", 400, "--rate", rate, "--seconds", 60)
                after = load(arguments, PORT, "--route", route, "--clients", 1, "--seconds", 5)
                return {"unloaded": calm, "saturated": full, "asked_a_second": rate, "overloaded": wild, "afterwards": after}
        note(f"{route}, ten times the capacity", overload)
    note("cancelled", lambda: cancelled(arguments))


def peer(arguments, note):
    """The same route of both services, in turns."""
    here = Path(__file__).parent
    command = [arguments.peer, "-m", "uvicorn", "fastapi_peer:app", "--port", str(PEER_PORT), "--log-level", "warning"]
    environment = dict(os.environ, MODEL=str(Path(arguments.model).resolve()), THREADS="2")
    process = subprocess.Popen(command, cwd=here, env=environment)
    try:
        wait(PEER_PORT, "/docs")
        with Service(arguments):
            for clients in (1, 4, 8, 16, 32):
                options = ("--route", "/embed", "--clients", clients, "--seconds", arguments.seconds)
                # In turns, each alone at its work.
                note(f"FastAPI /embed, {clients} clients", lambda: load(arguments, PEER_PORT, *options))
                note(f"uwe /embed, {clients} clients", lambda: load(arguments, PORT, *options))
    finally:
        process.terminate()
        process.wait(30)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("uwe", "load", "model", "space", "output"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--peer")
    parser.add_argument("--flag", action="append", default=[], help="a flag for uwe serve, such as --precision=int16")
    parser.add_argument("--only", choices=["service", "memory", "peer"], help="leave out the rest")
    parser.add_argument("--seconds", type=float, default=20)
    arguments = parser.parse_args()
    Path(arguments.output).parent.mkdir(parents=True, exist_ok=True)

    def note(name, make):
        line = {"what": name, "flags": arguments.flag, **make()}
        print(json.dumps(line), flush=True)
        with open(arguments.output, "a") as file:
            file.write(json.dumps(line) + "\n")

    if arguments.only in (None, "service"):
        service_alone(arguments, note)
    if arguments.only in (None, "memory"):
        note("100,000 mixed requests", lambda: memory(arguments))
    if arguments.peer and arguments.only in (None, "peer"):
        peer(arguments, note)


if __name__ == "__main__":
    main()
