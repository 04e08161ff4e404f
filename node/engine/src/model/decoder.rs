//! The forward pass of the Llama shape: norm, attention, norm, gated feed-forward. Qwen2 adds biases to q, k and v, Qwen3
//! normalises each head of q and k; the weights a file has say which.

use std::ops::Range;

use candle_core::{Device, Result, Tensor};
use kernels::{Attention, Pool, attend, rms_norm, rope, silu_mul};

use crate::hyperparams::Hyperparams;
use crate::kv_cache::KvCache;
use crate::matrix::{Group, Matrix, map_rows};

/// Weights of a whole model.
pub(crate) struct Decoder {
    pub(crate) embedding: Matrix,
    pub(crate) layers: Vec<Layer>,
    pub(crate) output_norm: Vec<f32>,
    pub(crate) output: Group,
}

/// Weights of one layer.
pub(crate) struct Layer {
    pub(crate) attn_norm: Vec<f32>,
    pub(crate) qkv: Group,
    pub(crate) qkv_bias: Option<Vec<f32>>,
    pub(crate) q_norm: Option<Vec<f32>>,
    pub(crate) k_norm: Option<Vec<f32>>,
    pub(crate) attn_output: Group,
    pub(crate) ffn_norm: Vec<f32>,
    pub(crate) gate_up: Group,
    pub(crate) ffn_down: Group,
}

/// The rows of one session in a batch: where they stand, at which position they begin, and where their keys go.
pub(crate) struct SessionRows<'a> {
    pub(crate) rows: Range<usize>,
    pub(crate) pos: usize,
    pub(crate) kv: &'a mut KvCache,
}

impl Decoder {
    /// Runs `tokens`, the rows of all `sessions` one after the other, through every layer. Returns the logits of the rows
    /// in `wanted`, `(wanted.len(), n_vocab)`, or `None` when no row wants them.
    pub(crate) fn forward(
        &self,
        h: &Hyperparams,
        tokens: &[u32],
        sessions: &mut [SessionRows],
        wanted: &[u32],
        pool: &Pool,
    ) -> Result<Option<Tensor>> {
        let mut x = self.embed(h, tokens)?;
        for (index, layer) in self.layers.iter().enumerate() {
            let last = index + 1 == self.layers.len();
            let qkv = layer.qkv.apply(&normed(&x, &layer.attn_norm, h.rms_epsilon)?, pool)?;
            let mut attention = map_rows(&qkv, h.n_embd_q(), |qkv, out| layer.attention(h, index, qkv, sessions, pool, out))?;
            if last {
                if wanted.is_empty() {
                    return Ok(None);
                }
                // Nothing after the last keys and values is needed for rows whose logits nobody asked for.
                let rows = Tensor::new(wanted, &Device::Cpu)?;
                (x, attention) = (x.index_select(&rows, 0)?, attention.index_select(&rows, 0)?);
            }
            x = (x + layer.attn_output.apply(&attention, pool)?)?;
            let gate_up = layer.gate_up.apply(&normed(&x, &layer.ffn_norm, h.rms_epsilon)?, pool)?;
            let gated = map_rows(&gate_up, h.n_ff, |gate_up, out| gated(h, gate_up, pool, out))?;
            x = (x + layer.ffn_down.apply(&gated, pool)?)?;
        }
        let x = normed(&x, &self.output_norm, h.rms_epsilon)?;
        self.output.apply(&x, pool).map(Some)
    }

    /// The embedding rows of `tokens`, dequantized from the mapping one by one: `(n_rows, n_embd)`.
    fn embed(&self, h: &Hyperparams, tokens: &[u32]) -> Result<Tensor> {
        let weights = self.embedding.weights();
        let mut x = vec![0f32; tokens.len() * h.n_embd];
        for (token, row) in tokens.iter().zip(x.chunks_exact_mut(h.n_embd)) {
            weights.dequantize_row(*token as usize, row);
        }
        Tensor::from_vec(x, (tokens.len(), h.n_embd), &Device::Cpu)
    }
}

impl Layer {
    /// The matrices, in the order they are used.
    pub(crate) fn groups(&self) -> [&Group; 4] {
        [&self.qkv, &self.attn_output, &self.gate_up, &self.ffn_down]
    }

    /// From the rows of q, k and v side by side to the attention of each row: bias, head norms, rope, keys and values into
    /// the cache, then attention session by session.
    fn attention(&self, h: &Hyperparams, index: usize, qkv: &[f32], sessions: &mut [SessionRows], pool: &Pool, out: &mut [f32]) {
        let (n_q, n_kv) = (h.n_embd_q(), h.n_embd_kv());
        let n_row = n_q + 2 * n_kv;
        let mut row = vec![0f32; n_row];
        let mut q = vec![0f32; out.len()];
        for session in sessions {
            for (i, at) in session.rows.clone().enumerate() {
                row.copy_from_slice(&qkv[at * n_row..(at + 1) * n_row]);
                if let Some(bias) = &self.qkv_bias {
                    row.iter_mut().zip(bias).for_each(|(value, bias)| *value += bias);
                }
                let (q_row, kv_row) = row.split_at_mut(n_q);
                let (k_row, v_row) = kv_row.split_at_mut(n_kv);
                for (heads, norm) in [(&mut *q_row, &self.q_norm), (&mut *k_row, &self.k_norm)] {
                    if let Some(norm) = norm {
                        rms_norm(heads, norm, h.rms_epsilon);
                    }
                    rope(heads, h.n_embd_head, session.pos + i, &h.rope, h.rope_pairs);
                }
                session.kv.write(index, session.pos + i, k_row, v_row);
                q[at * n_q..(at + 1) * n_q].copy_from_slice(q_row);
            }
            let rows = session.rows.start * n_q..session.rows.end * n_q;
            let attention = Attention {
                q: &q[rows.clone()],
                kv: session.kv.planes(index),
                pos: session.pos,
                n_head: h.n_head,
                n_head_kv: h.n_head_kv,
                n_embd_head: h.n_embd_head,
            };
            attend(pool, &attention, &mut out[rows]);
        }
    }
}

fn normed(x: &Tensor, weight: &[f32], epsilon: f32) -> Result<Tensor> {
    map_rows(x, weight.len(), |x, y| {
        y.copy_from_slice(x);
        rms_norm(y, weight, epsilon);
    })
}

/// `silu(gate) · up`, rows shared out over the pool.
fn gated(h: &Hyperparams, gate_up: &[f32], pool: &Pool, out: &mut [f32]) {
    pool.run_rows(out, h.n_ff, |row, out| {
        silu_mul(pool.level(), &gate_up[row * 2 * h.n_ff..(row + 1) * 2 * h.n_ff], h.n_ff, out)
    });
}
