"""Vectors of a server against the same model in double precision: compare.py FOLDER http://host:port NAME=COSINE..."""
import json
import math
import sys
import time
import urllib.request
from pathlib import Path

import numpy
import tokenizers
import weights

folder, host = Path(sys.argv[1]), sys.argv[2]
config = json.load(open(folder / "config.json"))
tensors = {name: values.astype(numpy.float64) for name, values in weights.read(folder / "model.safetensors").items()}
tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
tokenizer.no_truncation()
tokenizer.no_padding()
SENTENCES = [
    "A man is eating food.", "Ein Mann isst etwas.", "The price of electricity rose by 12.5 % in 2024!", "hello",
    "Größe, naïve café, Straße", "x" * 150, "The quick brown fox jumps over the lazy dog. " * 40, "日本語のテキスト", "a", "",
    "SELECT * FROM users WHERE id = 42; -- comment", "Two lines\nand a tab\tin one text.",
]


def norm(x, name):
    x = x - x.mean(-1, keepdims=True)
    return x / numpy.sqrt((x * x).mean(-1, keepdims=True) + config["layer_norm_eps"]) * tensors[f"{name}.weight"] + tensors[f"{name}.bias"]


def dense(x, name):
    return x @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"]


def vector(ids):
    n_head = config["num_attention_heads"]
    x = tensors["embeddings.word_embeddings.weight"][ids] + tensors["embeddings.position_embeddings.weight"][: len(ids)]
    x = norm(x + tensors["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
    heads = lambda v: v.reshape(len(ids), n_head, -1).transpose(1, 0, 2)
    gelu = numpy.vectorize(lambda v: 0.5 * v * (1 + math.erf(v / math.sqrt(2))))
    for i in range(config["num_hidden_layers"]):
        at = f"encoder.layer.{i}"
        q, k, v = (heads(dense(x, f"{at}.attention.self.{part}")) for part in ("query", "key", "value"))
        scores = q @ k.transpose(0, 2, 1) / math.sqrt(q.shape[-1])
        scores = numpy.exp(scores - scores.max(-1, keepdims=True))
        seen = (scores / scores.sum(-1, keepdims=True)) @ v
        x = norm(x + dense(seen.transpose(1, 0, 2).reshape(len(ids), -1), f"{at}.attention.output.dense"), f"{at}.attention.output.LayerNorm")
        x = norm(x + dense(gelu(dense(x, f"{at}.intermediate.dense")), f"{at}.output.dense"), f"{at}.output.LayerNorm")
    mean = x.mean(0)
    return mean / numpy.linalg.norm(mean)


def ask(path, body):
    request = urllib.request.Request(host + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    return json.load(urllib.request.urlopen(request))


ids = [tokenizer.encode(text).ids for text in SENTENCES]
expected = [vector(i) for i in ids]
for wish in sys.argv[3:]:
    name, least = wish.split("=")
    reply = ask("/api/embed", {"model": name, "input": SENTENCES})
    assert reply["prompt_eval_count"] == sum(map(len, ids)), (reply["prompt_eval_count"], sum(map(len, ids)))
    cosines = [float(numpy.dot(a, b)) for a, b in zip(reply["embeddings"], expected)]
    print(f"{name}: cosine with the reference at least {min(cosines):.7f} over {len(cosines)} texts of {min(map(len, ids))} to {max(map(len, ids))} tokens")
    assert min(cosines) >= float(least), f"{name}: {min(cosines)} is below {least}: {cosines}"
    texts = [f"The quick brown fox jumps over the lazy dog number {i}. " * 6 for i in range(64)]
    best = 0
    for _ in range(4):
        begun = time.monotonic()
        n_tokens = ask("/api/embed", {"model": name, "input": texts})["prompt_eval_count"]
        best = max(best, n_tokens / (time.monotonic() - begun))
    print(f"{name}: {best:.0f} tokens/s, the best of four requests of {len(texts)} texts and {n_tokens} tokens")
