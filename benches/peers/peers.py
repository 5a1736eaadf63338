"""The peers: one measurement a process. `compare.py` starts them; each prints one JSON object."""

import json
import os
import sys
import time


def timed(rounds, work, warm_up=None):
    (warm_up or work)()
    wall, cpu = [], []
    for _ in range(rounds):
        started, used = time.perf_counter(), time.process_time()
        work()
        wall.append(time.perf_counter() - started)
        cpu.append(time.process_time() - used)
    return {"wall": wall, "cpu": cpu}


def lines(path):
    with open(path, encoding="utf-8") as file:
        return file.read().splitlines()


def export(folder, out):
    """An ONNX graph with token states, compared with PyTorch's before anything is timed; then fused."""
    import numpy as np
    import onnxruntime
    import torch
    from onnxruntime.transformers import optimizer
    from transformers import AutoModel, AutoTokenizer

    model = AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    batch = tokenizer(["machine learning engineer", "nurse"], padding=True, return_tensors="pt")

    class States(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, input_ids, attention_mask):
            return self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state

    axes = {0: torch.export.Dim("batch", min=1, max=4096), 1: torch.export.Dim("length", min=2, max=512)}
    inputs = (batch["input_ids"], batch["attention_mask"])
    torch.onnx.export(
        States().eval(), inputs, out, dynamo=True, dynamic_shapes={"input_ids": axes, "attention_mask": axes},
        input_names=["input_ids", "attention_mask"], output_names=["states"],
    )
    fused = optimizer.optimize_model(
        out, model_type="bert", num_heads=model.config.num_attention_heads, hidden_size=model.config.hidden_size,
        opt_level=1,
    )
    fused.save_model_to_file(out, use_external_data_format=True)
    session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
    states = session.run(None, {key: batch[key].numpy() for key in ("input_ids", "attention_mask")})[0]
    with torch.no_grad():
        expected = model(**batch).last_hidden_state.numpy()
    mask = batch["attention_mask"].numpy()[..., None]
    difference = float(np.abs((states - expected) * mask).max())
    assert difference < 1e-4, difference
    return {"largest_difference": difference}


def onnx(folder, graph, threads):
    """A function from texts to the mean-pooled unit vectors, batched by length as sentence-transformers does."""
    import numpy as np
    import onnxruntime
    from tokenizers import Tokenizer

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    tokenizer = Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
    tokenizer.enable_truncation(64)
    tokenizer.enable_padding(
        pad_id=tokenizer.token_to_id("[PAD]") or tokenizer.token_to_id("<pad>") or 0, pad_token="[PAD]"
    )

    def encode(texts, size=32):
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        out = [None] * len(texts)
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            batch = tokenizer.encode_batch([texts[index] for index in chosen])
            ids = np.array([encoding.ids for encoding in batch], dtype=np.int64)
            mask = np.array([encoding.attention_mask for encoding in batch], dtype=np.int64)
            states = session.run(None, {"input_ids": ids, "attention_mask": mask})[0]
            pooled = (states * mask[..., None]).sum(axis=1) / mask.sum(axis=1, keepdims=True)
            pooled /= np.linalg.norm(pooled, axis=1, keepdims=True)
            for index, vector in zip(chosen, pooled):
                out[index] = vector
        return out

    return encode


def sentence_transformers(folder, threads):
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(threads)
    model = SentenceTransformer(folder, device="cpu")
    model.max_seq_length = 64
    return lambda texts: model.encode(texts, batch_size=32, show_progress_bar=False)


def encode(engine, folder, graph, threads, texts, rounds):
    texts = lines(texts)
    work = onnx(folder, graph, threads) if engine == "onnxruntime" else sentence_transformers(folder, threads)
    return timed(rounds, lambda: work(texts), lambda: work(texts[:64]))


def one(engine, folder, graph, threads, texts, rounds):
    texts = lines(texts)
    work = onnx(folder, graph, threads) if engine == "onnxruntime" else sentence_transformers(folder, threads)
    wall = []
    for index in range(rounds + 20):
        started = time.perf_counter()
        work([texts[index % len(texts)]])
        wall.append(time.perf_counter() - started)
    return {"wall": wall[20:]}


def score(engine, folder, scorer, threads, targets, queries, rounds):
    """The same scores in PyTorch: `plain` is a padded, batched einsum; `tuned` a flat product by length."""
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    model = SentenceTransformer(folder, device="cpu")
    model.max_seq_length = 64
    encode = lambda texts: [state.float() for state in model.encode(
        texts, output_value="token_embeddings", convert_to_tensor=True, show_progress_bar=False)]
    # Encoded by the first call, kept for the next ones.
    kept = f"{targets}.{os.path.basename(folder)}.pt"
    if not os.path.exists(kept):
        torch.save(encode(lines(targets)), kept)
    queries, targets = encode(lines(queries)), torch.load(kept)
    lengths = torch.tensor([len(target) for target in targets])
    unit = torch.nn.functional.normalize
    tau = 1.0
    pooled = torch.stack([target.mean(0) for target in targets])
    unit_pooled = unit(pooled, dim=1)
    if engine == "plain":
        padded = torch.nn.utils.rnn.pad_sequence(targets, batch_first=True)
        unit_padded = unit(padded, dim=2)
        mask = torch.arange(padded.shape[1])[None] >= lengths[:, None]
    groups = []
    for length in lengths.unique().tolist():
        members = (lengths == length).nonzero()[:, 0]
        flat = torch.cat([targets[index] for index in members.tolist()])
        groups.append((members, length, flat, 1 / flat.norm(dim=1)))

    def two_sided_plain(query):
        scores = []
        for start in range(0, len(targets), 1024):
            part = slice(start, start + 1024)
            logits = torch.einsum("qd,nld->nql", query, padded[part]) / tau
            weights = logits.masked_fill(mask[part][:, None], float("-inf")).softmax(2)
            cosines = torch.einsum("qd,nld->nql", unit(query, dim=1), unit_padded[part])
            scores.append((weights * cosines).sum((1, 2)) / len(query))
        return torch.cat(scores)

    def two_sided_tuned(query):
        scores = torch.empty(len(targets))
        inverse = 1 / query.norm(dim=1)
        for members, length, flat, norms in groups:
            dots = flat @ query.T
            weights = (dots / tau).view(-1, length, len(query)).softmax(1)
            cosines = dots.mul_(norms[:, None]).mul_(inverse).view(-1, length, len(query))
            scores[members] = torch.linalg.vecdot(weights.flatten(1), cosines.flatten(1)) / len(query)
        return scores

    def pooled_plain(query):
        weights = (torch.einsum("qd,nd->nq", query, pooled) / tau).softmax(1)
        return (weights * torch.einsum("qd,nd->nq", unit(query, dim=1), unit_pooled)).sum(1)

    norms = pooled.norm(dim=1)

    def pooled_tuned(query):
        dots = pooled @ query.T
        weights = (dots / tau).softmax(1)
        cosines = dots.mul_(1 / query.norm(dim=1))
        return torch.linalg.vecdot(weights, cosines) / norms

    chosen = {
        ("soft", "plain"): two_sided_plain, ("soft", "tuned"): two_sided_tuned,
        ("soft-pooled", "plain"): pooled_plain, ("soft-pooled", "tuned"): pooled_tuned,
    }[scorer, engine]
    result = timed(
        rounds, lambda: [chosen(query).topk(100) for query in queries], lambda: chosen(queries[0]))
    result["first"] = chosen(queries[0]).topk(10).indices.tolist()
    return result


def start(engine, folder, graph, cache, text):
    """From nothing to the first hit against cached target vectors: what a command in Python would do."""
    import numpy as np

    work = onnx(folder, graph, 2) if engine == "onnxruntime" else sentence_transformers(folder, 2)
    scores = np.load(cache, mmap_mode="r") @ np.asarray(work([text])[0])
    return {"first": np.argsort(-scores)[:10].tolist()}


if __name__ == "__main__":
    arguments = json.loads(sys.argv[1])
    print(json.dumps(globals()[arguments.pop("do")](**arguments)))
