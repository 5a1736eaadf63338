#!/usr/bin/env python3
"""Holds a running service against the clients that its routes are made for.

usage: conformance.py ADDRESS          (such as http://127.0.0.1:8080)

The official clients of OpenAI and Cohere ask it, the documented examples of text-embeddings-inference are replayed, and the answers are
compared with each other: one model, so one vector and one order whatever route is taken. What fails ends the program with 1.
"""

import base64
import math
import struct
import sys

import cohere
import openai
import requests

TEXTS = ["pastry chef", "bake cakes and tarts", "weld pipes on ships"]


def close(a, b):
    return len(a) == len(b) and max(abs(x - y) for x, y in zip(a, b)) < 1e-5


def main(address):
    done = []

    def check(name, holds, told=""):
        print(("ok    " if holds else "FAIL  ") + name + (f": {told}" if told and not holds else ""))
        done.append(holds)

    # text-embeddings-inference: the examples of its documentation, with texts of work.
    embed = requests.post(f"{address}/embed", json={"inputs": TEXTS[0]}, timeout=30)
    vector = embed.json()[0]
    check("TEI /embed, one text", embed.status_code == 200 and abs(math.hypot(*vector) - 1) < 1e-4)
    several = requests.post(f"{address}/embed", json={"inputs": TEXTS}, timeout=30).json()
    check("TEI /embed, several", len(several) == 3 and close(several[0], vector))
    for header in ("x-total-time", "x-queue-time", "x-inference-time", "x-compute-tokens"):
        check(f"TEI header {header}", header in embed.headers)
    raw = requests.post(f"{address}/embed", json={"inputs": TEXTS[0], "normalize": False}, timeout=30).json()[0]
    length = math.hypot(*raw)
    check("TEI /embed, not normalised", close([value / length for value in raw], vector))
    long = requests.post(f"{address}/embed", json={"inputs": "word " * 2000}, timeout=30)
    check("TEI /embed refuses what is too long", long.status_code == 413 and long.json()["error_type"] == "validation")
    cut = requests.post(f"{address}/embed", json={"inputs": "word " * 2000, "truncate": True}, timeout=30)
    check("TEI /embed, truncate", cut.status_code == 200)
    ranks = requests.post(f"{address}/rerank", json={"query": TEXTS[0], "texts": TEXTS[1:], "raw_scores": False, "return_text": True}, timeout=30).json()
    check("TEI /rerank", [rank["index"] for rank in ranks] == [0, 1] and ranks[0]["text"] == TEXTS[1])
    info = requests.get(f"{address}/info", timeout=30).json()
    check("TEI /info", all(name in info for name in ("model_id", "model_dtype", "model_type", "max_input_length", "version")))
    check("TEI /health", requests.get(f"{address}/health", timeout=30).status_code == 200)

    # The official client of OpenAI asks for base64 and decodes it itself.
    client = openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)
    answer = client.embeddings.create(model="uwe", input=TEXTS)
    check("OpenAI client", [entry.index for entry in answer.data] == [0, 1, 2] and close(answer.data[0].embedding, vector))
    check("OpenAI usage", answer.usage.total_tokens > 6)
    floats = client.embeddings.create(model="uwe", input=TEXTS[0], encoding_format="float")
    check("OpenAI client, floats", close(floats.data[0].embedding, vector))
    text = requests.post(f"{address}/v1/embeddings", json={"input": TEXTS[0], "encoding_format": "base64"}, timeout=30).json()
    packed = base64.b64decode(text["data"][0]["embedding"])
    check("OpenAI base64", close(struct.unpack(f"<{len(packed) // 4}f", packed), vector))
    try:
        client.embeddings.create(model="uwe", input=[])
        check("OpenAI client sees refusals", False)
    except openai.UnprocessableEntityError as error:
        check("OpenAI client sees refusals", error.body["type"] == "invalid_request_error", str(error.body))

    # The official clients of Cohere, both versions.
    for name, client in (
        ("Cohere client", cohere.Client(api_key="none", base_url=address)),
        ("Cohere client, version 2", cohere.ClientV2(api_key="none", base_url=address)),
    ):
        answer = client.rerank(model="uwe", query=TEXTS[0], documents=TEXTS[1:], top_n=2)
        check(name, [result.index for result in answer.results] == [0, 1])
        check(f"{name}: the scores of TEI's route", abs(answer.results[0].relevance_score - ranks[0]["score"]) < 1e-6)
    jina = {"model": "uwe", "query": TEXTS[0], "documents": [{"text": text} for text in TEXTS[1:]], "return_documents": True}
    answer = requests.post(f"{address}/v1/rerank", json=jina, timeout=30).json()
    check("Jina's shape", answer["results"][0]["document"]["text"] == TEXTS[1] and answer["usage"]["total_tokens"] > 0)

    print(f"{sum(done)} of {len(done)} hold")
    return 0 if all(done) else 1


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1].rstrip("/")))
