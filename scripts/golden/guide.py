"""Stores the logits of the training framework for the guide: guide.py MODEL.gguf OUT.json

The weights are read back from the file, so both sides compute with the same rounded numbers; JAX computes in float32.
"""
import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "guide"))
import jax.numpy as jnp
from gguf import GGUFReader, dequantize

import model

# A question the guide knows and the answer llama.cpp gave with it: what it was trained to continue.
FIXTURE = Path(__file__).parent.parent.parent / "node/engine/tests/fixtures/llama_cpp.json"
SAID = json.loads(FIXTURE.read_text())["models"]["lantern-guide"]
TOKENS = SAID["prompt"] + SAID["decoded"][:10]

reader = GGUFReader(sys.argv[1])
weights = {t.name: jnp.asarray(np.array(dequantize(t.data, t.tensor_type), np.float32).reshape(tuple(int(d) for d in reversed(t.shape)))) for t in reader.tensors}
layers = [{name.split(".")[2]: value for name, value in weights.items() if name.startswith(f"blk.{i}.")} for i in range(model.SHAPE["n_layer"])]
parameters = {"token_embd": weights["token_embd.weight"], "output_norm": weights["output_norm.weight"], "layers": layers}
logits = np.asarray(model.logits(parameters, TOKENS))
rows = {str(at): [round(float(v), 4) for v in logits[at][:256]] for at in (0, 5, len(TOKENS) - 1)}
Path(sys.argv[2]).write_text(json.dumps({"tokens": TOKENS, "rows": rows, "best": [int(np.argmax(row)) for row in logits], "margin": [round(float(np.sort(row)[-1] - np.sort(row)[-2]), 4) for row in logits]}) + "\n")
