"""The training step of `crates/uwe-train/examples/step.rs` in PyTorch, on the same batches.

usage: python train_step.py MODEL BATCHES.json

transformers' BertModel or MPNetModel with scaled-dot-product attention, texts sorted by length and encoded in padded chunks of
128; two-sided soft late interaction from one product of all tokens a graph, its softmax over a padded view; AdamW. Prints JSON:
seconds of each step and losses.
"""

import json
import sys
import time

import torch
from transformers import AutoModel

CHUNK = 128
TAU = 0.1


def encode(model, ids):
    """Token states of all texts, one after the other, and where each text's stand."""
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    states, places, start = [], [None] * len(ids), 0
    for first in range(0, len(order), CHUNK):
        chunk = order[first : first + CHUNK]
        longest = max(len(ids[i]) for i in chunk)
        tokens = torch.zeros(len(chunk), longest, dtype=torch.long)
        mask = torch.zeros(len(chunk), longest, dtype=torch.long)
        for row, i in enumerate(chunk):
            tokens[row, : len(ids[i])] = torch.tensor(ids[i])
            mask[row, : len(ids[i])] = 1
        found = model(input_ids=tokens, attention_mask=mask).last_hidden_state
        states.append(found[mask.bool()])
        for i in chunk:
            places[i] = (start, start + len(ids[i]))
            start += len(ids[i])
    return torch.cat(states), places


def scores(states, places, queries, items):
    rows = torch.cat([torch.arange(*places[i]) for i in queries])
    owner = torch.cat([torch.full((places[i][1] - places[i][0],), n) for n, i in enumerate(queries)])
    longest = max(places[i][1] - places[i][0] for i in items)
    columns = torch.zeros(len(items), longest, dtype=torch.long)
    mask = torch.zeros(len(items), longest, dtype=torch.bool)
    for n, i in enumerate(items):
        length = places[i][1] - places[i][0]
        columns[n, :length] = torch.arange(*places[i])
        mask[n, :length] = True
    q, y = states[rows], states[columns.flatten()]
    dots = (q @ y.T).view(len(rows), len(items), longest)
    cosines = dots / q.norm(dim=1)[:, None, None] / y.norm(dim=1).view(1, len(items), longest)
    weights = (dots / TAU).masked_fill(~mask, float("-inf")).softmax(dim=-1)
    tokens = (weights * cosines).sum(-1)
    lengths = torch.bincount(owner, minlength=len(queries)).clamp(min=1)
    return torch.zeros(len(queries), len(items)).index_add(0, owner, tokens) / lengths[:, None]


def direction(scores, positives, temperature):
    logs = (scores / temperature).log_softmax(dim=1)
    counts = positives.sum(1)
    return (-(logs * positives).sum(1) / counts.clamp(min=1))[counts > 0].mean()


def main():
    folder, file = sys.argv[1:]
    torch.set_num_threads(2)
    model = AutoModel.from_pretrained(folder, attn_implementation="sdpa").eval()
    optimizer = torch.optim.AdamW(model.parameters(), lr=8e-5, weight_decay=0.01)
    batches = json.load(open(file))
    warm_up = -(-len(batches) // 10)
    seconds, losses = [], []
    for number, batch in enumerate(batches):
        started = time.perf_counter()
        share = (number + 1) / warm_up if number < warm_up else (len(batches) - number) / max(len(batches) - warm_up, 1)
        optimizer.param_groups[0]["lr"] = 8e-5 * share
        optimizer.zero_grad()
        states, places = encode(model, batch["ids"])
        total = 0.0
        for graph in batch["graphs"]:
            found = scores(states, places, graph["skills"], graph["items"])
            positives = torch.zeros_like(found)
            for row, columns in enumerate(graph["links"]):
                positives[row, columns] = 1
            part = direction(found, positives, graph["temperature"]) + direction(found.T, positives.T, graph["temperature"])
            total = total + graph["weight"] * part
        total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        seconds.append(time.perf_counter() - started)
        losses.append(total.item())
    print(json.dumps({"seconds": seconds, "losses": losses}))


main()
