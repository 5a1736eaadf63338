"""Oracle of the loss and its gradients: PyTorch in 64 bits, pair by pair, on the tiny encoders of the golden tests.

usage: python generate.py   (torch, transformers, safetensors)

Writes cases.json beside this file: a batch, and for every scorer, variant and direction the loss and, of each parameter's
gradient, its length and three projections. One case a model has its whole gradient in MODEL.safetensors.
"""

import json
import math
import pathlib

import torch
from safetensors.torch import save_file
from transformers import BertModel, MPNetModel

HERE = pathlib.Path(__file__).parent
MODELS = HERE / "../../../uwe/tests/golden"
SPECIAL = (1, 1)

torch.manual_seed(7)
generator = torch.Generator().manual_seed(11)


def draw(low, high, count=1):
    return torch.randint(low, high, (count,), generator=generator).tolist()


TEXTS = [[2] + draw(5, 98, n) + [3] for n in draw(1, 11, 16)]
# Skills, items and links of two graphs; text 3 stands on both sides, text 5 in both graphs.
GRAPHS = [
    {
        "skills": [0, 1, 2, 3, 5],
        "items": [6, 7, 8, 3, 9],
        "links": [[0, 2], [1], [2], [3, 4], [0, 4]],
        "weight": 1.0,
        "temperature": 0.05,
    },
    {
        "skills": [4, 5, 0],
        "items": [10, 11, 12],
        "links": [[0], [1, 2], [2]],
        "weight": 0.5,
        "temperature": 0.02,
    },
]
SOFT = {"scorer": "soft-late-interaction", "temperature": 0.5, "logits": "raw", "axis": "target", "reduction": "mean"}
CASES = [
    {"scoring": {**SOFT, "special_tokens": True}, "variant": "many-to-many", "reverse": "same"},
    {"scoring": {**SOFT, "special_tokens": True}, "variant": "many-to-many", "reverse": "own"},
    {"scoring": {**SOFT, "special_tokens": True}, "variant": "symmetric", "reverse": "same"},
    {"scoring": {**SOFT, "special_tokens": True}, "variant": "plain", "reverse": "same"},
    {"scoring": {**SOFT, "special_tokens": False}, "variant": "many-to-many", "reverse": "same"},
    {
        # A sum is as many times a mean as there are tokens; so should the temperature be.
        "scoring": {**SOFT, "reduction": "sum", "special_tokens": True},
        "variant": "many-to-many",
        "reverse": "same",
        "factor": 10,
    },
    {"scoring": {**SOFT, "axis": "query", "special_tokens": True}, "variant": "many-to-many", "reverse": "same"},
    {"scoring": {**SOFT, "axis": "both", "special_tokens": True}, "variant": "many-to-many", "reverse": "same"},
    {
        "scoring": {**SOFT, "axis": "both", "logits": "cosine", "temperature": 0.1, "reduction": "sum", "special_tokens": True},
        "variant": "many-to-many",
        "reverse": "same",
        "factor": 8,
    },
    {"scoring": {**SOFT, "logits": "unit-target", "special_tokens": True}, "variant": "many-to-many", "reverse": "same"},
    {
        "scoring": {**SOFT, "logits": "cosine", "temperature": 0.1, "special_tokens": True},
        "variant": "many-to-many",
        "reverse": "same",
    },
    {
        "scoring": {"scorer": "max-sim", "reduction": "mean", "special_tokens": True},
        "variant": "many-to-many",
        "reverse": "same",
    },
    {
        "scoring": {"scorer": "soft-pooled", "temperature": 1.0, "logits": "raw", "special_tokens": True},
        "variant": "many-to-many",
        "reverse": "same",
    },
    {"scoring": {"scorer": "cosine", "special_tokens": True}, "variant": "symmetric", "reverse": "same"},
    {
        "scoring": {**SOFT, "special_tokens": True},
        "variant": "many-to-many",
        "reverse": "same",
        "margin": {"weight": 3.0, "positive": 0.9, "negative": 0.1},
    },
    {
        "scoring": {**SOFT, "special_tokens": True},
        "variant": "many-to-many",
        "reverse": "own",
        "margin": {"weight": 3.0, "positive": 0.5, "negative": 0.45},
        "teacher": 5.0,
    },
    {"scoring": {"scorer": "cosine", "special_tokens": True}, "variant": "plain", "reverse": "same", "teacher": 5.0},
    {"scoring": {**SOFT, "special_tokens": True}, "variant": "symmetric", "reverse": "same", "teacher": 5.0},
]


def teacher_table(rows, columns, back):
    i, j = torch.arange(rows).double()[:, None], torch.arange(columns).double()[None]
    return (0.9 * i - 0.5 * j * j).cos() * 0.4 if back else (0.7 * i + 1.3 * j * j).cos() * 0.4


def lessons(case):
    """A teacher's tables: of each graph one, and one more where the way back has its own scores."""
    out = []
    for graph in GRAPHS:
        rows, columns = len(graph["skills"]), len(graph["items"])
        tables = [teacher_table(rows, columns, False)]
        if case["reverse"] == "own" and case["variant"] != "plain":
            tables.append(teacher_table(columns, rows, True))
        out.append(tables)
    return out


def unit(x):
    return x / x.norm(dim=-1, keepdim=True)


def score(q, y, scoring):
    """Of two lists of token states, special tokens included."""
    if scoring.get("axis") == "both":
        return (score(q, y, scoring | {"axis": "target"}) + score(q, y, scoring | {"axis": "query"})) / 2
    kind = scoring["scorer"]
    pooled_q, pooled_y = q.mean(0, keepdim=True), y.mean(0, keepdim=True)
    if not scoring["special_tokens"]:
        q, y = q[SPECIAL[0] : -SPECIAL[1]], y[SPECIAL[0] : -SPECIAL[1]]
    if kind == "cosine":
        return (unit(pooled_q) * unit(pooled_y)).sum()
    if kind == "max-sim":
        return (unit(q) @ unit(y).T).max(dim=1).values.mean()
    if kind == "soft-pooled":
        y = pooled_y
    logits = {
        "raw": lambda: q @ y.T,
        "unit-target": lambda: q @ unit(y).T,
        "cosine": lambda: unit(q) @ unit(y).T,
    }[scoring["logits"]]() / scoring["temperature"]
    over_query = kind == "soft-pooled" or scoring["axis"] == "query"
    weights = logits.softmax(dim=0 if over_query else 1)
    total = (weights * (unit(q) @ unit(y).T)).sum()
    if kind == "soft-pooled" or scoring["reduction"] == "sum":
        return total
    return total / (len(y) if over_query else len(q))


def direction(scores, links, temperature):
    terms = []
    for row, linked in zip(scores, links):
        if linked:
            logs = (row / temperature).log_softmax(dim=0)
            terms.append(-logs[linked].mean())
    return torch.stack(terms).mean()


def thresholds(scores, links, margin):
    """Pairs on the wrong side of two thresholds, one by one."""
    low, high = [], []
    for row, linked in zip(scores, links):
        for column, value in enumerate(row):
            if linked and column in linked and value < margin["positive"]:
                low.append(margin["positive"] - value)
            if linked and column not in linked and value > margin["negative"]:
                high.append(value - margin["negative"])
    return sum(torch.stack(side).mean() for side in (low, high) if side)


def margins(scores, teacher, links):
    terms = []
    for row, said, linked in zip(scores, teacher, links):
        others = [column for column in range(len(row)) if column not in linked]
        pairs = [((row[p] - row[n]) - (said[p] - said[n])) ** 2 for p in linked for n in others]
        if pairs:
            terms.append(torch.stack(pairs).mean())
    return torch.stack(terms).mean() if terms else 0.0


def terms(scores, links, temperature, case, teacher):
    total = direction(scores, links, temperature)
    if "margin" in case:
        total = total + case["margin"]["weight"] * thresholds(scores, links, case["margin"])
    if "teacher" in case:
        total = total + case["teacher"] * margins(scores, teacher, links)
    return total


def loss(states, case):
    total, parts = 0.0, []
    for graph, taught in zip(GRAPHS, lessons(case)):
        links, temperature = graph["links"], graph["temperature"] * case.get("factor", 1)
        count = len(graph["items"])
        if case["variant"] != "many-to-many":
            links = [[i] for i in range(len(links))]
        back = [[row for row, linked in enumerate(links) if column in linked] for column in range(count)]
        table = lambda a, b: torch.stack(
            [torch.stack([score(states[i], states[j], case["scoring"]) for j in b]) for i in a]
        )
        scores = table(graph["skills"], graph["items"])
        part = terms(scores, links, temperature, case, taught[0])
        if case["variant"] != "plain":
            other = scores.T if case["reverse"] == "same" else table(graph["items"], graph["skills"])
            said = taught[0].T if case["reverse"] == "same" else taught[1]
            part = part + terms(other, back, temperature, case, said)
        total = total + graph["weight"] * part
        parts.append(part.item())
    return total, parts


def projections(gradient):
    flat = gradient.flatten()
    place = torch.arange(len(flat), dtype=torch.float64)
    return [
        flat.norm().item(),
        flat.sum().item(),
        (flat * (place * 0.7).cos()).sum().item(),
        (flat * (place * 1.3 + 1).sin()).sum().item(),
    ]


out = {"texts": TEXTS, "graphs": GRAPHS, "cases": []}
for name, kind in [("tiny-bert", BertModel), ("tiny-mpnet", MPNetModel)]:
    model = kind.from_pretrained(MODELS / name, add_pooling_layer=False, attn_implementation="eager").double().eval()
    for index, case in enumerate(CASES):
        model.zero_grad()
        states = [model(input_ids=torch.tensor([text])).last_hidden_state[0] for text in TEXTS]
        total, parts = loss(states, case)
        total.backward()
        gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        entry = {"model": name, **case, "loss": total.item(), "graphs": parts, "gradients": {}}
        if "teacher" in case:
            entry["lessons"] = [[table.flatten().tolist() for table in tables] for tables in lessons(case)]
        for parameter, gradient in gradients.items():
            assert math.isfinite(gradient.norm())
            entry["gradients"][parameter] = projections(gradient)
        out["cases"].append(entry)
        if index == 0:
            save_file({n: g.float().contiguous() for n, g in gradients.items()}, HERE / f"{name}.safetensors")
json.dump(out, open(HERE / "cases.json", "w"), indent=1)
