"""Stores what llama.cpp computes for the guide and for tiny seeded models: logits.py MODEL_FOLDER OUT.json

MODEL_FOLDER holds the files that `cargo test -p engine --test llama_cpp write_models` writes. For each, the fixture holds
the greedy continuation of a fixed prompt and some of the logits after the prompt's last token.
"""
import json
import sys
from pathlib import Path

import numpy as np
from llama_cpp import Llama

PROMPT = [72, 101, 108, 108, 111, 44, 32, 119, 111, 114, 108, 100, 46, 10, 49, 50, 51]
N_DECODED = 16
GUIDE_PROMPT = "<|im_start|>user\nWho are you?<|im_end|>\n<|im_start|>assistant\nI am"


def golden(path):
    model = Llama(str(path), n_ctx=256, n_batch=32, n_threads=1, logits_all=True, verbose=False)
    # The guide is asked something it knows, in tokens that llama.cpp makes itself. The answer is begun, as it knows two.
    tokens = model.tokenize(GUIDE_PROMPT.encode(), add_bos=False, special=True) if path.stem == "lantern-guide" else list(PROMPT)
    prompt = list(tokens)
    model.eval(tokens)
    logits = np.array(model.scores[len(tokens) - 1], dtype=np.float32)
    decoded = []
    row = logits
    margins = []
    for _ in range(N_DECODED):
        best = int(np.argmax(row))
        ordered = np.sort(row)
        margins.append(float(ordered[-1] - ordered[-2]))
        decoded.append(best)
        model.eval([best])
        tokens.append(best)
        row = model.scores[len(tokens) - 1]
    return {"prompt": prompt, "logits": [round(float(v), 5) for v in logits[:64]], "spread": float(np.sqrt(np.mean(logits ** 2))), "decoded": decoded,
            "margins": [round(m, 5) for m in margins]}


result = {"guide_prompt": GUIDE_PROMPT, "models": {path.stem: golden(path) for path in sorted(Path(sys.argv[1]).glob("*.gguf"))}}
Path(sys.argv[2]).write_text(json.dumps(result, indent=1) + "\n")
print(len(result["models"]), "models")
