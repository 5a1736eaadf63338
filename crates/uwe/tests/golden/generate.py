"""Writes the golden fixtures of this folder.

    python generate.py [FOLDER_WITH_ENCODERS]
    python generate.py --model FOLDER

Always: tiny-bert and tiny-mpnet, two encoders with random weights and a vocabulary of their own, with the
reference's numbers beside them. With a folder that holds all-MiniLM-L6-v2 and all-mpnet-base-v2: their
numbers, as <name>.safetensors. With --model FOLDER: the numbers of that model alone. Made with torch 2.15, transformers 5.23, sentence-transformers 6.2 (CPU, f32).
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file
from sentence_transformers import SentenceTransformer
from transformers import BertConfig, BertModel, MPNetConfig, MPNetModel

HERE = Path(__file__).parent
TEXTS = [
    "pastry chef",
    "bake bread and pastries",
    "Registered Nurse (Intensive Care)",
    "provide nursing care",
    "You will weld pipes, read technical drawings and work at height.",
    "MIG/MAG welding",
    "C++ and C# developer",
    "naïve façade — Über-Mechaniker",
    "电工 électricien",
    "a",
    "",
    "Drive articulated lorries, plan routes, secure loads, check the vehicle before departure and after "
    "arrival, keep records of driving and rest times, handle dangerous goods papers, refuel, wash, and help "
    "colleagues in the warehouse with loading, unloading, labelling and counting whenever the schedule allows it",
]
QUERIES, TARGETS = [0, 2, 4, 6, 9, 10], [1, 3, 5, 7, 8, 11]
MAX_TOKENS = 64


def states_of(model, folder):
    """Token ids, token states and pooled vectors of TEXTS, each text alone."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids, states, pooled = [], [], []
    for text in TEXTS:
        batch = tokenizer(text, truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
        with torch.no_grad():
            out = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
        ids.append(batch["input_ids"][0].numpy().astype(np.int64))
        states.append(out.last_hidden_state[0].numpy())
        pooled.append(states[-1].mean(axis=0))
    return ids, states, np.stack(pooled)


def softmax(x, axis):
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def score_matrices(states, pooled):
    """Every scorer, written as its formula, in double precision."""
    double = [s.astype(np.float64) for s in states]
    pooled = pooled.astype(np.float64)

    def matrix(score):
        return np.array([[score(q, t) for t in TARGETS] for q in QUERIES], dtype=np.float32)

    def two_sided(tau, cosine_logits, axis, special):
        def score(q, t):
            a, b = (double[q], double[t]) if special else (double[q][1:-1], double[t][1:-1])
            if not len(a) or not len(b):
                return 0.0
            cosines = unit(a) @ unit(b).T
            logits = cosines if cosine_logits else a @ b.T
            weighted = softmax(logits / tau, axis) * cosines
            return weighted.sum() / (len(a) if axis == 1 else len(b))

        return matrix(score)

    def pooled_target(tau, kind):
        def score(q, t):
            cosines = unit(double[q]) @ unit(pooled[t])
            logits = {"raw": double[q] @ pooled[t], "unit": double[q] @ unit(pooled[t]), "cos": cosines}[kind]
            return (softmax(logits / tau, 0) * cosines).sum()

        return matrix(score)

    out = {
        "cosine": matrix(lambda q, t: unit(pooled[q]) @ unit(pooled[t])),
        "maxsim": matrix(lambda q, t: (unit(double[q]) @ unit(double[t]).T).max(axis=1).sum()),
    }
    for tau in (0.1, 1.0):
        out[f"soft_raw_target_{tau}"] = two_sided(tau, False, 1, True)
        out[f"soft_cos_target_{tau}"] = two_sided(tau, True, 1, True)
        out[f"soft_raw_query_{tau}"] = two_sided(tau, False, 0, True)
        out[f"soft_raw_both_{tau}"] = (out[f"soft_raw_target_{tau}"] + out[f"soft_raw_query_{tau}"]) / 2
        out[f"soft_raw_target_{tau}_content"] = two_sided(tau, False, 1, False)
        for kind in ("raw", "unit", "cos"):
            out[f"pooled_{kind}_{tau}"] = pooled_target(tau, kind)
    return out


def write(file, folder, model):
    ids, states, pooled = states_of(model, folder)
    lengths = [len(x) for x in ids]
    tensors = {
        "input_ids": np.concatenate(ids),
        "offsets": np.cumsum([0] + lengths).astype(np.int64),
        "token_embeddings": np.concatenate(states).astype(np.float32),
        "pooled": pooled.astype(np.float32),
    }
    tensors |= {f"score.{key}": value for key, value in score_matrices(states, pooled).items()}
    metadata = {
        "texts": json.dumps(TEXTS),
        "queries": json.dumps(QUERIES),
        "targets": json.dumps(TARGETS),
        "max_tokens": str(MAX_TOKENS),
        "made_with": f"torch {torch.__version__}, CPU, f32",
    }
    save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, file, metadata)


def vocabulary(first):
    """Special tokens, single characters, and some words and word parts."""
    characters = [chr(c) for c in range(ord("a"), ord("z") + 1)] + list("0123456789,.()/+#-—")
    words = "and the of bake bread pastry chef nurse weld pipe drive work care read plan check load".split()
    parts = ["##" + c for c in characters[:26]] + ["##ing", "##er", "##s", "##ed", "##ies"]
    return first + characters + words + parts


def tiny(name, kind):
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    folder = HERE / name
    folder.mkdir(exist_ok=True)
    mpnet = kind is MPNetModel
    special = ["<s>", "<pad>", "</s>", "[UNK]", "<mask>"] if mpnet else ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokens = vocabulary(special)
    tokenizer = Tokenizer(models.WordPiece({t: i for i, t in enumerate(tokens)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    start, end = ("<s>", "</s>") if mpnet else ("[CLS]", "[SEP]")
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}", special_tokens=[(start, tokens.index(start)), (end, tokens.index(end))]
    )
    tokenizer.add_special_tokens(special)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": special[0 if not mpnet else 1]})
    )
    common = dict(
        vocab_size=len(tokens), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48
    )
    torch.manual_seed(7)
    if mpnet:
        config = MPNetConfig(**common, max_position_embeddings=130, initializer_range=0.3)
        model = MPNetModel(config, add_pooling_layer=False).eval()
    else:
        config = BertConfig(**common, max_position_embeddings=128, initializer_range=0.3)
        model = BertModel(config, add_pooling_layer=False).eval()
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if "LayerNorm" in parameter_name or "bias" in parameter_name:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    # Half-precision weights are exact in each of the three types that are read, so one reference serves all.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.to(torch.bfloat16).float())
    model.save_pretrained(folder)
    base = "sentence_transformers.models." if mpnet else "sentence_transformers.sentence_transformer.modules."
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": base + "Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": base + "Pooling"},
        {"idx": 2, "name": "2", "path": "2_Normalize", "type": base + "Normalize"},
    ]
    (folder / "modules.json").write_text(json.dumps(modules, indent=1))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    pooling = {"pooling_mode_mean_tokens": True} if mpnet else {"embedding_dimension": 32, "pooling_mode": "mean"}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    write(HERE / f"{name}.safetensors", folder, model)


def encoder(folder):
    return SentenceTransformer(str(folder), device="cpu")[0].auto_model.eval().float()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--model"]:
        folder = Path(sys.argv[2]).resolve()
        write(HERE / f"{folder.name}.safetensors", folder, encoder(folder))
        sys.exit()
    tiny("tiny-bert", BertModel)
    tiny("tiny-mpnet", MPNetModel)
    if len(sys.argv) > 1:
        for name in ("all-MiniLM-L6-v2", "all-mpnet-base-v2"):
            folder = Path(sys.argv[1]) / name
            write(HERE / f"{name}.safetensors", folder, encoder(folder))
