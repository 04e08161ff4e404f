"""Converts a BERT of the sentence-transformers layout to GGUF: convert.py FOLDER F32|F16|Q8_0 FILE"""
import json
import sys
from pathlib import Path

import gguf
import numpy
import weights

folder, kind, target = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
config = json.load(open(folder / "config.json"))
pooling = json.load(open(folder / "1_Pooling/config.json"))
tensors = weights.read(folder / "model.safetensors")

out = gguf.GGUFWriter(target, "bert")
out.add_name("all-MiniLM-L6-v2")
out.add_license("apache-2.0")
out.add_context_length(config["max_position_embeddings"])
out.add_embedding_length(config["hidden_size"])
out.add_feed_forward_length(config["intermediate_size"])
out.add_block_count(config["num_hidden_layers"])
out.add_head_count(config["num_attention_heads"])
out.add_layer_norm_eps(config["layer_norm_eps"])
out.add_causal_attention(False)
out.add_pooling_type(gguf.PoolingType.MEAN if pooling["pooling_mode_mean_tokens"] else gguf.PoolingType.CLS)
out.add_file_type({"F32": 0, "F16": 1, "Q8_0": 7}[kind])

# A piece that begins a word is marked, one that goes on is bare: the other way round than in vocab.txt.
words = (folder / "vocab.txt").read_text(encoding="utf-8").split("\n")[: config["vocab_size"]]
special = {"[PAD]": 3, "[UNK]": 2, "[CLS]": 3, "[SEP]": 3, "[MASK]": 3}
marked = [w if w in special else w[2:] if w.startswith("##") else "▁" + w for w in words]
out.add_tokenizer_model("bert")
out.add_tokenizer_pre("default")
out.add_token_list(marked)
out.add_token_types([special.get(w, 1) for w in words])
out.add_token_type_count(config["type_vocab_size"])
for role, word in [("unk", "[UNK]"), ("sep", "[SEP]"), ("pad", "[PAD]"), ("bos", "[CLS]"), ("mask", "[MASK]")]:
    getattr(out, f"add_{role}_token_id")(words.index(word))

PARTS = {
    "attention.self.query": "attn_q", "attention.self.key": "attn_k", "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output", "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up", "output.dense": "ffn_down", "output.LayerNorm": "layer_output_norm",
}
NAMES = {"embeddings.word_embeddings": "token_embd", "embeddings.position_embeddings": "position_embd",
         "embeddings.token_type_embeddings": "token_types", "embeddings.LayerNorm": "token_embd_norm"}
for i in range(config["num_hidden_layers"]):
    NAMES |= {f"encoder.layer.{i}.{theirs}": f"blk.{i}.{ours}" for theirs, ours in PARTS.items()}
for name, values in tensors.items():
    base, _, last = name.rpartition(".")
    if base not in NAMES:
        continue
    values = values.astype(numpy.float32)
    # Vectors, and what is only looked up, keep their precision.
    wanted = gguf.GGMLQuantizationType.F32 if values.ndim == 1 or base.endswith(("type_embeddings", "position_embeddings")) else gguf.GGMLQuantizationType[kind]
    out.add_tensor(f"{NAMES[base]}.{last}", gguf.quants.quantize(values, wanted), raw_dtype=wanted)
out.write_header_to_file()
out.write_kv_data_to_file()
out.write_tensors_to_file()
out.close()
