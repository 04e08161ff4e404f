"""The Qwen3 forward pass of lantern-guide in JAX, written from the published architecture: RMS norms, grouped-query
attention with normalised queries and keys, rotary positions (half-split pairs), SwiGLU, tied embeddings."""
from functools import partial

import jax
import jax.numpy as jnp

SHAPE = dict(n_vocab=4096, n_embd=256, n_layer=4, n_head=4, n_head_kv=2, n_embd_head=64, n_ff=512, n_ctx=2048, rope_base=10000.0, eps=1e-6)


def init(key, s=SHAPE):
    """Normal weights of standard deviation 0.02; output projections are scaled down by depth."""
    def normal(i, rows, columns, std=0.02):
        return std * jax.random.normal(jax.random.fold_in(key, i), (rows, columns), jnp.float32)

    out = 0.02 / (2 * s["n_layer"]) ** 0.5
    layers = []
    for i in range(s["n_layer"]):
        at = 100 * (i + 1)
        q, kv = s["n_head"] * s["n_embd_head"], s["n_head_kv"] * s["n_embd_head"]
        layers.append(dict(
            attn_norm=jnp.ones(s["n_embd"]), ffn_norm=jnp.ones(s["n_embd"]),
            attn_q_norm=jnp.ones(s["n_embd_head"]), attn_k_norm=jnp.ones(s["n_embd_head"]),
            attn_q=normal(at, q, s["n_embd"]), attn_k=normal(at + 1, kv, s["n_embd"]), attn_v=normal(at + 2, kv, s["n_embd"]),
            attn_output=normal(at + 3, s["n_embd"], q, out), ffn_gate=normal(at + 4, s["n_ff"], s["n_embd"]),
            ffn_up=normal(at + 5, s["n_ff"], s["n_embd"]), ffn_down=normal(at + 6, s["n_embd"], s["n_ff"], out)))
    return dict(token_embd=normal(0, s["n_vocab"], s["n_embd"]), output_norm=jnp.ones(s["n_embd"]), layers=layers)


def norm(x, w, eps):
    return x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + eps) * w


def rope(x, pos, base):
    """Rotates pairs (i, i + half) of the last axis; x is (batch, time, heads, width)."""
    half = x.shape[-1] // 2
    angle = pos[..., None, None] * base ** (-jnp.arange(half) / half)
    a, b = x[..., :half], x[..., half:]
    return jnp.concatenate([a * jnp.cos(angle) - b * jnp.sin(angle), b * jnp.cos(angle) + a * jnp.sin(angle)], -1)


def hidden(p, tokens, segment, pos, s=SHAPE):
    """Last hidden states (batch, time, n_embd); tokens see earlier ones of their own segment."""
    b, t = tokens.shape
    mask = (segment[:, :, None] == segment[:, None, :]) & (jnp.arange(t)[:, None] >= jnp.arange(t)[None, :])
    x = p["token_embd"][tokens]
    groups = s["n_head"] // s["n_head_kv"]
    for l in p["layers"]:
        h = norm(x, l["attn_norm"], s["eps"])
        q = (h @ l["attn_q"].T).reshape(b, t, s["n_head"], s["n_embd_head"])
        k = (h @ l["attn_k"].T).reshape(b, t, s["n_head_kv"], s["n_embd_head"])
        v = (h @ l["attn_v"].T).reshape(b, t, s["n_head_kv"], s["n_embd_head"])
        q = rope(norm(q, l["attn_q_norm"], s["eps"]), pos, s["rope_base"]).reshape(b, t, s["n_head_kv"], groups, s["n_embd_head"])
        k = rope(norm(k, l["attn_k_norm"], s["eps"]), pos, s["rope_base"])
        score = jnp.einsum("bqhgd,bkhd->bhgqk", q, k) / s["n_embd_head"] ** 0.5
        weight = jax.nn.softmax(jnp.where(mask[:, None, None], score, -1e30), -1)
        x = x + jnp.einsum("bhgqk,bkhd->bqhgd", weight, v).reshape(b, t, -1) @ l["attn_output"].T
        h = norm(x, l["ffn_norm"], s["eps"])
        x = x + (jax.nn.silu(h @ l["ffn_gate"].T) * (h @ l["ffn_up"].T)) @ l["ffn_down"].T
    return norm(x, p["output_norm"], s["eps"])


def logits(p, tokens, s=SHAPE):
    """Logits (time, n_vocab) of one sequence of tokens."""
    t = len(tokens)
    x = hidden(p, jnp.asarray(tokens)[None], jnp.zeros((1, t), jnp.int32), jnp.arange(t)[None], s)
    return x[0] @ p["token_embd"].T


def loss(p, batch, s=SHAPE):
    """Mean negative log likelihood over the weighted target tokens of a packed batch."""
    x = hidden(p, batch["tokens"], batch["segment"], batch["pos"], s)
    score = x @ p["token_embd"].T
    picked = jnp.take_along_axis(score, batch["target"][..., None], -1)[..., 0]
    nll = jax.nn.logsumexp(score, -1) - picked
    return jnp.sum(nll * batch["weight"]) / jnp.sum(batch["weight"])
