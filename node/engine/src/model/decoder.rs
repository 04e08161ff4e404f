//! The forward pass of the Llama shape: norm, attention, norm, gated feed-forward. Qwen2 adds biases to q, k and v, Qwen3
//! normalises each head of q and k; the weights a file has say which.

use std::cell::RefCell;

use kernels::{Activations, Attention, Heads, Input, Pool, Turn, attend};

use crate::hyperparams::Hyperparams;
use crate::matrix::{Group, Matrix};
use crate::step::Slice;

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

/// The values between the operators, rows side by side. They keep their memory from step to step.
#[derive(Default)]
struct Buffers {
    /// `(n_rows, n_embd)`: what each layer adds to.
    x: Vec<f32>,
    /// The outputs of a group of matrices: q, k and v, or gate and up.
    wide: Vec<f32>,
    /// `(n_rows, n_embd_q)`: queries with their positions.
    q: Vec<f32>,
    /// `(n_rows, n_embd_q)`: what attention makes of them.
    attended: Vec<f32>,
    /// `(n_rows, n_embd)`: what the last part of a layer gave, to be added before the next norm.
    added: Vec<f32>,
    /// The input of a product as its weights meet it.
    forms: Activations,
    /// `(n_rows, n_rot / 2)`: what rope turns each row by, the same in every layer.
    turns: Vec<Turn>,
}

thread_local! {
    static BUFFERS: RefCell<Buffers> = RefCell::default();
}

impl Decoder {
    /// Runs the tokens of all slices, one after the other the rows of the batch, through every layer. `logits` becomes
    /// `(Σ n_logits, n_vocab)`.
    pub(crate) fn forward(&self, h: &Hyperparams, slices: &mut [Slice], pool: &Pool, logits: &mut Vec<f32>) {
        self.run(h, slices, pool, |n_rows, x, added, forms| {
            let normed = Input::Normed { x, added: Some(added), weight: &self.output_norm, epsilon: h.norm_epsilon };
            self.output.apply(n_rows, normed, pool, forms, logits);
        });
    }

    /// The same up to the last norm, which is what the logits are made of: `values` becomes `(Σ n_logits, n_embd)`.
    pub(crate) fn hidden(&self, h: &Hyperparams, slices: &mut [Slice], pool: &Pool, values: &mut Vec<f32>) {
        self.run(h, slices, pool, |_, x, added, _| {
            values.extend(x.iter().zip(added).map(|(x, added)| x + added));
            pool.run_rows(values, h.n_embd, |_, row| {
                let mean = row.iter().map(|v| v * v).sum::<f32>() / row.len() as f32;
                let factor = 1.0 / (mean + h.norm_epsilon).sqrt();
                row.iter_mut().zip(&self.output_norm).for_each(|(v, weight)| *v *= factor * weight);
            });
        });
    }

    /// Runs every layer and hands what they gave to `end`: the number of rows that are wanted, their values, and what the
    /// last layer adds to these.
    fn run(
        &self,
        h: &Hyperparams,
        slices: &mut [Slice],
        pool: &Pool,
        end: impl FnOnce(usize, &mut [f32], &[f32], &mut Activations),
    ) {
        BUFFERS.with_borrow_mut(|buffers| {
            let Buffers { x, wide, q, attended, added, forms, turns } = buffers;
            self.embed(h, slices, x);
            turns.clear();
            for slice in &*slices {
                let pos = slice.session.tokens.len();
                let rows = pos..pos + slice.tokens.len();
                turns.extend(rows.flat_map(|pos| h.rope.iter().map(move |frequency| Turn::new(pos, *frequency))));
            }
            let (mut n_rows, epsilon) = (x.len() / h.n_embd, h.norm_epsilon);
            for (index, layer) in self.layers.iter().enumerate() {
                // Nothing was added to the embedding yet.
                let before = (index > 0).then_some(&added[..]);
                let normed = Input::Normed { x, added: before, weight: &layer.attn_norm, epsilon };
                layer.qkv.apply(n_rows, normed, pool, forms, wide);
                attended.resize(n_rows * h.n_embd_q(), 0.0);
                layer.attention(h, index, wide, q, turns, slices, pool, attended);
                if index + 1 == self.layers.len() {
                    // Nothing after the last keys and values is needed for rows whose logits nobody asked for.
                    keep_wanted(x, h.n_embd, slices);
                    keep_wanted(attended, h.n_embd_q(), slices);
                    n_rows = x.len() / h.n_embd;
                    if n_rows == 0 {
                        return;
                    }
                }
                layer.attn_output.apply(n_rows, Input::Rows(attended), pool, forms, added);
                let normed = Input::Normed { x, added: Some(added), weight: &layer.ffn_norm, epsilon };
                layer.gate_up.apply(n_rows, normed, pool, forms, wide);
                layer.ffn_down.apply(n_rows, Input::Gated(wide), pool, forms, added);
            }
            end(n_rows, x, added, forms);
        })
    }

    /// The embedding rows of the tokens, dequantized from the mapping one by one: `(n_rows, n_embd)`.
    fn embed(&self, h: &Hyperparams, slices: &[Slice], x: &mut Vec<f32>) {
        let weights = self.embedding.weights();
        let tokens = slices.iter().flat_map(|slice| slice.tokens);
        x.resize(tokens.clone().count() * h.n_embd, 0.0);
        for (token, row) in tokens.zip(x.chunks_exact_mut(h.n_embd)) {
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
        turns: &[Turn],
        slices: &mut [Slice],
        pool: &Pool,
        out: &mut [f32],
    ) {
        let (n_q, n_kv) = (h.n_embd_q(), h.n_embd_kv());
        q.resize(out.len(), 0.0);
        let (mut qkv, mut q, mut turns, mut out) = (qkv, &mut q[..], turns, out);
        for slice in slices {
            let n_rows = slice.tokens.len();
            let (qkv_rows, q_rows, turns_rows, out_rows);
            (qkv_rows, qkv) = qkv.split_at_mut(n_rows * (n_q + 2 * n_kv));
            (q_rows, q) = q.split_at_mut(n_rows * n_q);
            (turns_rows, turns) = turns.split_at(n_rows * h.rope.len());
            (out_rows, out) = out.split_at_mut(n_rows * n_q);
            let (pos, kv) = (slice.session.tokens.len(), &mut slice.session.kv);
            let heads = Heads {
                bias: self.qkv_bias.as_deref(),
                q_norm: self.q_norm.as_deref(),
                k_norm: self.k_norm.as_deref(),
                rms_epsilon: h.norm_epsilon,
                turns: turns_rows,
                rope_pairs: h.rope_pairs,
                n_head: h.n_head,
                n_head_kv: h.n_head_kv,
                n_embd_head: h.n_embd_head,
                pos,
            };
            heads.place(pool, qkv_rows, q_rows, &mut kv.planes_mut(index));
            let attention = Attention {
                q: q_rows,
                kv: kv.planes(index),
                pos,
                causal: true,
                n_head: h.n_head,
                n_head_kv: h.n_head_kv,
                n_embd_head: h.n_embd_head,
            };
            attend(pool, &attention, out_rows);
        }
    }
}

/// Moves the rows whose logits are wanted to the front and drops the others.
fn keep_wanted(x: &mut Vec<f32>, n: usize, slices: &[Slice]) {
    let (mut from, mut to) = (0, 0);
    for slice in slices {
        from += slice.tokens.len();
        x.copy_within((from - slice.n_logits) * n..from * n, to * n);
        to += slice.n_logits;
    }
    x.truncate(to * n);
}
