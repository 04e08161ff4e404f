"""Trains lantern-guide from scratch and writes its GGUF. Usage: train.py OUT.gguf [--steps N]

Everything is seeded. The corpus is generated on the fly by `dialogues.py`; no other text is used.
"""
import argparse
import functools
import json
import random
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

import dialogues
import model
from render import render

HERE = Path(__file__).parent
N_BATCH, N_TIME = 12, 320
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MARKS = ["<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<tools>", "</tools>"]
# The split that GGUF files name `qwen2`.
SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def train_tokenizer(topics):
    """A byte-level BPE of n_vocab entries, learnt from 30,000 generated dialogues."""
    rng = random.Random(7)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(SPLIT), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=model.SHAPE["n_vocab"] - len(SPECIAL) - len(MARKS), initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    texts = (m["content"] for _ in range(30000) for m in dialogues.dialogue(rng, topics)[0])
    tokenizer.train_from_iterator(list(texts) + [json.dumps(dialogues.tool_list(rng, True)) for _ in range(2000)], trainer)
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.add_tokens(MARKS)
    return tokenizer


def encode_dialogue(tokenizer, messages, tools):
    """Token ids and a weight per token: assistant turns count fully, everything else a little."""
    text = render(messages, tools)
    ids = tokenizer.encode(text).ids
    start, end, newline = tokenizer.token_to_id("<|im_start|>"), tokenizer.token_to_id("<|im_end|>"), tokenizer.encode("assistant\n").ids
    weights, inside = [], False
    for i, token in enumerate(ids):
        weights.append(1.0 if inside else 0.05)
        if token == start:
            inside = False
        if ids[max(0, i - len(newline)):i + 1] == [start] + newline:
            inside = True
        if token == end:
            inside = False
    return ids, weights


def shorten(ids, weights, rng):
    """Cuts most dialogues some tokens into the last answer: which answer it is, is settled there, and a step sees more questions."""
    if rng.random() < 0.4:
        return ids, weights
    start = max(i for i in range(1, len(ids)) if weights[i] == 1.0 and weights[i - 1] != 1.0)
    return ids[:start + 12], weights[:start + 12]


def batches(tokenizer, topics, seed):
    """Packs dialogues into rows of N_TIME tokens, each dialogue a segment of its own."""
    rng = random.Random(seed)
    while True:
        rows = {k: np.zeros((N_BATCH, N_TIME), np.int32) for k in ("tokens", "target", "segment", "pos")}
        rows["weight"] = np.zeros((N_BATCH, N_TIME), np.float32)
        for r in range(N_BATCH):
            at, segment = 0, 1
            while True:
                messages, tools = dialogues.dialogue(rng, topics)
                if not all(dialogues.unseen(m["content"]) for m in messages if m["role"] == "user"):
                    continue
                ids, weights = encode_dialogue(tokenizer, messages, tools)
                if not tools:
                    ids, weights = shorten(ids, weights, rng)
                n = len(ids) - 1
                if n > N_TIME:
                    continue
                if at + n > N_TIME:
                    break
                place = slice(at, at + n)
                rows["tokens"][r, place], rows["target"][r, place] = ids[:-1], ids[1:]
                rows["weight"][r, place], rows["segment"][r, place], rows["pos"][r, place] = weights[1:], segment, np.arange(n)
                at, segment = at + n, segment + 1
        yield rows


def train(tokenizer, topics, steps, save):
    """Runs all steps; `save` is called with the parameters every 400 steps, so that a run can be looked at."""
    parameters = model.init(jax.random.PRNGKey(3))
    schedule = optax.warmup_cosine_decay_schedule(0.0, 3e-3, max(steps // 20, 1), steps, 5e-5)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, b2=0.98, weight_decay=0.05))
    state = optimizer.init(parameters)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(parameters, state, batch):
        value, gradient = jax.value_and_grad(model.loss)(parameters, batch)
        updates, state = optimizer.update(gradient, state, parameters)
        return optax.apply_updates(parameters, updates), state, value

    source, begun = batches(tokenizer, topics, 11), time.time()
    for i in range(steps):
        parameters, state, value = step(parameters, state, next(source))
        if i % 25 == 0 or i == steps - 1:
            if i % 400 == 0 and i > 0:
                save(parameters)
            print(f"step {i} of {steps}, loss {float(value):.4f}, {time.time() - begun:.0f} s", flush=True)
    return parameters


def quantize(weights):
    """Rounds a matrix to Q8_0 and returns it dequantized: what every runtime will compute with."""
    from gguf import GGMLQuantizationType, quants
    return quants.quantize(np.asarray(weights, np.float32), GGMLQuantizationType.Q8_0)


def write_gguf(path, tokenizer, parameters):
    import gguf

    s = model.SHAPE
    w = gguf.GGUFWriter(path, "qwen3")
    w.add_name("Lantern Guide"), w.add_author("Lantern"), w.add_license("mit"), w.add_size_label("3.4M"), w.add_basename("lantern-guide"), w.add_description("A very small guide to Lantern, trained from scratch on generated dialogues")
    w.add_context_length(s["n_ctx"]), w.add_embedding_length(s["n_embd"]), w.add_block_count(s["n_layer"]), w.add_feed_forward_length(s["n_ff"])
    w.add_head_count(s["n_head"]), w.add_head_count_kv(s["n_head_kv"]), w.add_key_length(s["n_embd_head"]), w.add_value_length(s["n_embd_head"])
    w.add_layer_norm_rms_eps(s["eps"]), w.add_rope_freq_base(s["rope_base"]), w.add_rope_dimension_count(s["n_embd_head"]), w.add_file_type(7), w.add_vocab_size(s["n_vocab"])
    saved = json.loads(tokenizer.to_str())
    names = {i: t for t, i in tokenizer.get_vocab(with_added_tokens=True).items()}
    kinds = {**{tokenizer.token_to_id(t): 3 for t in SPECIAL}, **{tokenizer.token_to_id(t): 4 for t in MARKS}}
    w.add_tokenizer_model("gpt2"), w.add_tokenizer_pre("qwen2")
    w.add_token_list([names.get(i, f"<|unused{i}|>") for i in range(s["n_vocab"])])
    w.add_token_types([kinds.get(i, 1 if i in names else 5) for i in range(s["n_vocab"])])
    w.add_token_merges([" ".join(m) if isinstance(m, list) else m for m in saved["model"]["merges"]])
    w.add_eos_token_id(tokenizer.token_to_id("<|im_end|>")), w.add_pad_token_id(tokenizer.token_to_id("<|endoftext|>")), w.add_bos_token_id(tokenizer.token_to_id("<|endoftext|>"))
    w.add_add_bos_token(False)
    w.add_chat_template((HERE / "template.jinja").read_text().rstrip("\n"))

    def matrix(name, value):
        w.add_tensor(name, quantize(value), raw_dtype=gguf.GGMLQuantizationType.Q8_0)

    matrix("token_embd.weight", parameters["token_embd"])
    w.add_tensor("output_norm.weight", np.asarray(parameters["output_norm"], np.float32))
    for i, layer in enumerate(parameters["layers"]):
        for key, value in layer.items():
            if key.endswith("norm"):
                w.add_tensor(f"blk.{i}.{key}.weight", np.asarray(value, np.float32))
            else:
                matrix(f"blk.{i}.{key}.weight", value)
    w.write_header_to_file(), w.write_kv_data_to_file(), w.write_tensors_to_file(), w.close()


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("out")
    arguments.add_argument("--steps", type=int, default=2600)
    given = arguments.parse_args()
    topics = dialogues.topics()
    tokenizer = train_tokenizer(topics)
    print(tokenizer.get_vocab_size(), "tokens", file=sys.stderr)
    save = functools.partial(write_gguf, given.out, tokenizer)
    save(train(tokenizer, topics, given.steps, save))


if __name__ == "__main__":
    main()
