//! The forward pass of encoders: every token sees every other, and each layer norms what it has added. BERT turns values with
//! GELU and adds learnt positions; Nomic's has rope and a gate instead.
//!
//! Their values have outliers that 8 bits do not serve well: with MiniLM as Q8_0 the cosine of the worst of twelve texts with the
//! reference was 0.9982, of which the weights cost 0.0004. So quantized weights meet each input in two parts, what 8 bits hold and
//! what they leave, which brings it to that of the weights (`scripts/minilm`).

use kernels::{Activations, Attention, Gate, Heads, Input, LayerNorm, Pool, Turn, attend, gate_rows, gelu};

use crate::hyperparams::Hyperparams;
use crate::matrix::{Group, Matrix};
use crate::session::Session;

/// Weights of a whole encoder.
pub(crate) struct Encoder {
    pub(crate) embedding: Matrix,
    /// Added to every token: the type of a first text.
    pub(crate) token_type: Option<Vec<f32>>,
    /// A row for each position.
    pub(crate) positions: Option<Matrix>,
    pub(crate) norm: LayerNorm,
    pub(crate) layers: Vec<EncoderLayer>,
}

/// Weights of one layer.
pub(crate) struct EncoderLayer {
    pub(crate) qkv: Group,
    pub(crate) qkv_bias: Option<Vec<f32>>,
    pub(crate) attn_output: Group,
    pub(crate) attn_output_bias: Option<Vec<f32>>,
    pub(crate) attn_norm: LayerNorm,
    pub(crate) feed_forward: FeedForward,
    pub(crate) ffn_down: Group,
    pub(crate) ffn_down_bias: Option<Vec<f32>>,
    pub(crate) output_norm: LayerNorm,
}

/// How a layer widens its values.
pub(crate) enum FeedForward {
    Gelu { up: Group, bias: Vec<f32> },
    Gated { gate_up: Group },
}

impl Encoder {
    /// The last values of all tokens, `(n_tokens, n_embd)`. The session lends its memory for keys and values.
    pub(crate) fn forward(&self, h: &Hyperparams, session: &mut Session, tokens: &[u32], pool: &Pool) -> Vec<f32> {
        let mut x = self.embed(h, tokens);
        self.norm.apply(pool, &mut x);
        let frequencies = h.ropes.first().map_or(&[][..], |rope| &rope.frequencies);
        let turn = |pos: usize| frequencies.iter().map(move |frequency| Turn::new(pos, *frequency, 1.0));
        let turns: Vec<Turn> = (0..tokens.len()).flat_map(turn).collect();
        let (mut forms, mut wide, mut added) = (Activations::default(), Vec::new(), Vec::new());
        let (mut q, mut attended) = (vec![0.0; tokens.len() * h.n_embd_q()], vec![0.0; tokens.len() * h.n_embd_q()]);
        for (index, layer) in self.layers.iter().enumerate() {
            apply(&layer.qkv, &x, tokens.len(), pool, &mut forms, &mut wide);
            let heads = Heads {
                bias: layer.qkv_bias.as_deref(),
                q_norm: None,
                k_norm: None,
                rms_epsilon: h.norm_epsilon,
                turns: &turns,
                rope_pairs: h.rope_pairs,
                n_head: h.n_head,
                n_head_kv: h.n_head_kv,
                n_embd_head: h.n_embd_head,
                pos: 0,
            };
            heads.place(pool, &mut wide, &mut q, &mut session.kv.planes_mut(index));
            let attention = Attention {
                q: &q,
                kv: session.kv.planes(index),
                pos: 0,
                causal: false,
                window: None,
                scale: h.attention_scale,
                cap: None,
                n_head: h.n_head,
                n_head_kv: h.n_head_kv,
                n_embd_head: h.n_embd_head,
            };
            attend(pool, &attention, &mut attended);
            apply(&layer.attn_output, &attended, tokens.len(), pool, &mut forms, &mut added);
            add(&mut x, &added, layer.attn_output_bias.as_deref());
            layer.attn_norm.apply(pool, &mut x);
            layer.feed_forward(&x, tokens.len(), pool, &mut forms, &mut wide, &mut added);
            add(&mut x, &added, layer.ffn_down_bias.as_deref());
            layer.output_norm.apply(pool, &mut x);
        }
        x
    }

    /// Tokens, their type and their positions: `(n_tokens, n_embd)`.
    fn embed(&self, h: &Hyperparams, tokens: &[u32]) -> Vec<f32> {
        let mut x = vec![0f32; tokens.len() * h.n_embd];
        let mut position = vec![0f32; h.n_embd];
        for (pos, (token, row)) in tokens.iter().zip(x.chunks_exact_mut(h.n_embd)).enumerate() {
            self.embedding.weights().dequantize_row(*token as usize, row);
            if let Some(positions) = &self.positions {
                positions.weights().dequantize_row(pos, &mut position);
                row.iter_mut().zip(&position).for_each(|(x, p)| *x += p);
            }
            if let Some(kind) = &self.token_type {
                row.iter_mut().zip(kind).for_each(|(x, k)| *x += k);
            }
        }
        x
    }
}

impl EncoderLayer {
    fn feed_forward(
        &self,
        x: &[f32],
        n_rows: usize,
        pool: &Pool,
        forms: &mut Activations,
        wide: &mut Vec<f32>,
        added: &mut Vec<f32>,
    ) {
        match &self.feed_forward {
            FeedForward::Gelu { up, bias } => {
                apply(up, x, n_rows, pool, forms, wide);
                gelu(pool, wide, bias);
            }
            FeedForward::Gated { gate_up } => {
                apply(gate_up, x, n_rows, pool, forms, added);
                wide.resize(added.len() / 2, 0.0);
                gate_rows(pool, Gate::Silu, added, wide.len() / n_rows, wide);
            }
        }
        apply(&self.ffn_down, wide, n_rows, pool, forms, added);
    }

    /// The matrices, in the order they are used.
    pub(crate) fn groups(&self) -> [&Group; 4] {
        let (FeedForward::Gelu { up: widening, .. } | FeedForward::Gated { gate_up: widening }) = &self.feed_forward;
        [&self.qkv, &self.attn_output, widening, &self.ffn_down]
    }
}

/// `x · Wᵀ` of `n_rows` rows, with what rounding the inputs to 8 bits leaves in a second product of the same pass.
fn apply(group: &Group, x: &[f32], n_rows: usize, pool: &Pool, forms: &mut Activations, y: &mut Vec<f32>) {
    let block_len = group.block_len();
    if block_len == 1 {
        return group.apply(n_rows, Input::Rows(x), pool, forms, y);
    }
    let mut parts = Vec::with_capacity(2 * x.len());
    parts.extend_from_slice(x);
    parts.extend_from_slice(x);
    let (held, left) = parts.split_at_mut(x.len());
    for (held, left) in held.chunks_exact_mut(block_len).zip(left.chunks_exact_mut(block_len)) {
        let largest = held.iter().fold(0f32, |largest, v| largest.max(v.abs()));
        // The factor the product will choose, so that what is held is rounded to itself.
        let step = half::f16::from_f32(largest / 127.0).to_f32();
        if step > 0.0 && step.is_finite() {
            for (held, left) in held.iter_mut().zip(left) {
                *held = (*held / step).round() * step;
                *left -= *held;
            }
        } else {
            left.fill(0.0);
        }
    }
    group.apply(2 * n_rows, Input::Rows(&parts), pool, forms, y);
    let half = y.len() / 2;
    let (sums, rest) = y.split_at_mut(half);
    sums.iter_mut().zip(rest).for_each(|(sum, rest)| *sum += *rest);
    y.truncate(half);
}

/// Adds rows, and to each of them the bias.
fn add(x: &mut [f32], added: &[f32], bias: Option<&[f32]>) {
    x.iter_mut().zip(added).for_each(|(x, a)| *x += a);
    if let Some(bias) = bias {
        x.chunks_exact_mut(bias.len()).for_each(|row| row.iter_mut().zip(bias).for_each(|(x, b)| *x += b));
    }
}
