//! The forward pass of the Llama shape: norm, attention, norm, gated feed-forward. Qwen2 adds biases to q, k and v, Qwen3
//! normalises each head of q and k; the weights a file has say which.

use std::cell::RefCell;
use std::ops::Range;

use kernels::{Attention, Pool, attend, rms_norm, rope, silu_mul};

use crate::hyperparams::Hyperparams;
use crate::kv_cache::KvCache;
use crate::matrix::{Group, Matrix};

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

/// The values between the operators, rows side by side. They keep their memory from step to step.
#[derive(Default)]
struct Buffers {
    /// `(n_rows, n_embd)`: what each layer adds to.
    x: Vec<f32>,
    normed: Vec<f32>,
    /// The outputs of a group of matrices: q, k and v, or gate and up.
    wide: Vec<f32>,
    /// `(n_rows, n_embd_q)`: queries with their positions.
    q: Vec<f32>,
    /// What attention or the gate makes of `wide`.
    narrow: Vec<f32>,
    /// `(n_rows, n_embd)`: what is added.
    added: Vec<f32>,
}

thread_local! {
    static BUFFERS: RefCell<Buffers> = RefCell::default();
}

impl Decoder {
    /// Runs `tokens`, the rows of all `sessions` one after the other, through every layer. Returns the logits of the rows
    /// in `wanted`, which ascend: `(wanted.len(), n_vocab)`.
    pub(crate) fn forward(
        &self,
        h: &Hyperparams,
        tokens: &[u32],
        sessions: &mut [SessionRows],
        wanted: &[usize],
        pool: &Pool,
    ) -> Vec<f32> {
        BUFFERS.with_borrow_mut(|buffers| {
            let Buffers { x, normed, wide, q, narrow, added } = buffers;
            self.embed(h, tokens, x);
            for (index, layer) in self.layers.iter().enumerate() {
                norm(x, &layer.attn_norm, h.rms_epsilon, pool, normed);
                layer.qkv.apply(normed, pool, wide);
                narrow.resize(tokens.len() * h.n_embd_q(), 0.0);
                layer.attention(h, index, wide, q, sessions, pool, narrow);
                if index + 1 == self.layers.len() {
                    if wanted.is_empty() {
                        return Vec::new();
                    }
                    // Nothing after the last keys and values is needed for rows whose logits nobody asked for.
                    keep_rows(x, h.n_embd, wanted);
                    keep_rows(narrow, h.n_embd_q(), wanted);
                }
                layer.attn_output.apply(narrow, pool, added);
                add(x, added);
                norm(x, &layer.ffn_norm, h.rms_epsilon, pool, normed);
                layer.gate_up.apply(normed, pool, wide);
                narrow.resize(wide.len() / 2, 0.0);
                gated(h, wide, pool, narrow);
                layer.ffn_down.apply(narrow, pool, added);
                add(x, added);
            }
            norm(x, &self.output_norm, h.rms_epsilon, pool, normed);
            let mut logits = Vec::new();
            self.output.apply(normed, pool, &mut logits);
            logits
        })
    }

    /// The embedding rows of `tokens`, dequantized from the mapping one by one: `(n_rows, n_embd)`.
    fn embed(&self, h: &Hyperparams, tokens: &[u32], x: &mut Vec<f32>) {
        let weights = self.embedding.weights();
        x.resize(tokens.len() * h.n_embd, 0.0);
        for (token, row) in tokens.iter().zip(x.chunks_exact_mut(h.n_embd)) {
            weights.dequantize_row(*token as usize, row);
        }
    }
}

impl Layer {
    /// The matrices, in the order they are used.
    pub(crate) fn groups(&self) -> [&Group; 4] {
        [&self.qkv, &self.attn_output, &self.gate_up, &self.ffn_down]
    }

    /// From the rows of q, k and v side by side to the attention of each row: bias, head norms, rope, keys and values into
    /// the cache, then attention session by session. What `qkv` holds is used up.
    #[expect(clippy::too_many_arguments, reason = "buffers of the one caller")]
    fn attention(
        &self,
        h: &Hyperparams,
        index: usize,
        qkv: &mut [f32],
        q: &mut Vec<f32>,
        sessions: &mut [SessionRows],
        pool: &Pool,
        out: &mut [f32],
    ) {
        let (n_q, n_kv) = (h.n_embd_q(), h.n_embd_kv());
        let n_row = n_q + 2 * n_kv;
        q.resize(out.len(), 0.0);
        for session in sessions {
            for (i, at) in session.rows.clone().enumerate() {
                let row = &mut qkv[at * n_row..(at + 1) * n_row];
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

/// The norm of each row, which replaces what `y` held.
fn norm(x: &[f32], weight: &[f32], epsilon: f32, pool: &Pool, y: &mut Vec<f32>) {
    y.resize(x.len(), 0.0);
    pool.run_rows(y, weight.len(), |row, y| {
        y.copy_from_slice(&x[row * weight.len()..][..weight.len()]);
        rms_norm(y, weight, epsilon);
    });
}

fn add(x: &mut [f32], y: &[f32]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}

/// Moves the rows in `kept`, which ascend, to the front and drops the others.
fn keep_rows(x: &mut Vec<f32>, n: usize, kept: &[usize]) {
    for (to, from) in kept.iter().enumerate() {
        x.copy_within(from * n..(from + 1) * n, to * n);
    }
    x.truncate(kept.len() * n);
}

/// `silu(gate) · up`, rows shared out over the pool.
fn gated(h: &Hyperparams, gate_up: &[f32], pool: &Pool, out: &mut [f32]) {
    pool.run_rows(out, h.n_ff, |row, out| {
        silu_mul(pool.level(), &gate_up[row * 2 * h.n_ff..(row + 1) * 2 * h.n_ff], h.n_ff, out)
    });
}
