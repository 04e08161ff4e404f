//! The forward pass of decoders: norm, attention, norm, gated feed-forward. Families differ in weights that are there or not
//! (biases of q, k and v, norms of their heads and of what is added), in the numbers of [`Hyperparams`], and in feed-forward
//! parts that are one or many (`experts.rs`).

use std::cell::RefCell;

use kernels::{Activations, Attention, Convolution, Heads, Input, Pool, Turn, attend, rms_norm_rows, scale_rows};

use super::experts::{Experts, Routing};
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
    /// What makes q, k and v of a row; for a convolution its gates and its input.
    pub(crate) qkv: Group,
    /// `(n_taps, n_embd)`, where the layer has a convolution instead of attention.
    pub(crate) taps: Option<Vec<f32>>,
    pub(crate) qkv_bias: Option<Vec<f32>>,
    pub(crate) q_norm: Option<Vec<f32>>,
    pub(crate) k_norm: Option<Vec<f32>>,
    pub(crate) attn_output: Group,
    /// Norm of what attention gives.
    pub(crate) attn_post_norm: Option<Vec<f32>>,
    pub(crate) ffn_norm: Vec<f32>,
    pub(crate) feed_forward: FeedForward,
    /// Norm of what feed-forward gives.
    pub(crate) ffn_post_norm: Option<Vec<f32>>,
}

/// What follows attention.
pub(crate) enum FeedForward {
    Dense { gate_up: Group, down: Group },
    Experts(Experts),
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
    /// Rows on their way to experts.
    routing: Routing,
    /// `(n_rows, n_rot / 2)` for each rope: what it turns each row by.
    turns: Vec<Vec<Turn>>,
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
            if h.logit_scale != 1.0 || h.logit_cap.is_some() {
                let n_vocab = logits.len() / n_rows;
                scale_rows(pool, logits, n_vocab, h.logit_scale, h.logit_cap);
            }
        });
    }

    /// The same up to the last norm, which is what the logits are made of: `values` becomes `(Σ n_logits, n_embd)`.
    pub(crate) fn hidden(&self, h: &Hyperparams, slices: &mut [Slice], pool: &Pool, values: &mut Vec<f32>) {
        self.run(h, slices, pool, |_, x, added, _| {
            values.extend(x.iter().zip(added).map(|(x, added)| x + added));
            rms_norm_rows(pool, values, &self.output_norm, h.norm_epsilon);
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
            let Buffers { x, wide, q, attended, added, forms, routing, turns } = buffers;
            self.embed(h, slices, x);
            turns.resize_with(h.ropes.len(), Vec::new);
            for (rope, turns) in h.ropes.iter().zip(&mut *turns) {
                turns.clear();
                for slice in &*slices {
                    let (pos, frequencies) = (slice.session.tokens.len(), rope.frequencies(slice.session.n_ctx()));
                    let turn = |pos| frequencies.iter().map(move |frequency| Turn::new(pos, *frequency, rope.magnitude));
                    turns.extend((pos..pos + slice.tokens.len()).flat_map(turn));
                }
            }
            let (mut n_rows, epsilon) = (x.len() / h.n_embd, h.norm_epsilon);
            for (index, layer) in self.layers.iter().enumerate() {
                // Nothing was added to the embedding yet.
                let before = (index > 0).then_some(&added[..]);
                let normed = Input::Normed { x, added: before, weight: &layer.attn_norm, epsilon };
                layer.qkv.apply(n_rows, normed, pool, forms, wide);
                attended.resize(n_rows * h.n_embd_q(), 0.0);
                let turns = h.layers[index].rope.map_or(&[][..], |rope| &turns[rope]);
                match &layer.taps {
                    Some(taps) => convolve(taps, h.n_embd, index, wide, slices, pool, attended),
                    None => layer.attention(h, index, wide, q, turns, slices, pool, attended),
                }
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
                h.finish(pool, layer.attn_post_norm.as_deref(), added);
                match &layer.feed_forward {
                    FeedForward::Dense { gate_up, down } => {
                        let normed = Input::Normed { x, added: Some(added), weight: &layer.ffn_norm, epsilon };
                        gate_up.apply(n_rows, normed, pool, forms, wide);
                        down.apply(n_rows, Input::Gated(h.gate, wide), pool, forms, added);
                    }
                    FeedForward::Experts(experts) => {
                        x.iter_mut().zip(&*added).for_each(|(x, added)| *x += added);
                        // Attention is done with these rows, and has as much room.
                        attended.clone_from(x);
                        rms_norm_rows(pool, attended, &layer.ffn_norm, epsilon);
                        experts.forward(h, attended, pool, forms, routing, added);
                    }
                }
                h.finish(pool, layer.ffn_post_norm.as_deref(), added);
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
            if h.embedding_scale != 1.0 {
                row.iter_mut().for_each(|x| *x *= h.embedding_scale);
            }
        }
    }
}

impl Layer {
    /// The sum of `count` over the matrices that a token meets.
    pub(crate) fn total(&self, h: &Hyperparams, count: impl Fn(&Group) -> u64 + Copy) -> u64 {
        let feed_forward = match &self.feed_forward {
            FeedForward::Dense { gate_up, down } => count(gate_up) + count(down),
            FeedForward::Experts(experts) => experts.total(h, count),
        };
        count(&self.qkv) + count(&self.attn_output) + feed_forward
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
        let n_turns = turns.len() / (out.len() / n_q);
        let (mut qkv, mut q, mut turns, mut out) = (qkv, &mut q[..], turns, out);
        for slice in slices {
            let n_rows = slice.tokens.len();
            let (qkv_rows, q_rows, turns_rows, out_rows);
            (qkv_rows, qkv) = qkv.split_at_mut(n_rows * (n_q + 2 * n_kv));
            (q_rows, q) = q.split_at_mut(n_rows * n_q);
            (turns_rows, turns) = turns.split_at(n_rows * n_turns);
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
                window: h.layers[index].window,
                scale: h.attention_scale,
                cap: h.attention_cap,
                n_head: h.n_head,
                n_head_kv: h.n_head_kv,
                n_embd_head: h.n_embd_head,
            };
            attend(pool, &attention, out_rows);
        }
    }
}

/// The convolution of each row, session by session.
fn convolve(taps: &[f32], n: usize, index: usize, bcx: &[f32], slices: &mut [Slice], pool: &Pool, out: &mut [f32]) {
    let (mut bcx, mut out) = (bcx, out);
    for slice in slices {
        let (bcx_rows, out_rows);
        (bcx_rows, bcx) = bcx.split_at(slice.tokens.len() * 3 * n);
        (out_rows, out) = out.split_at_mut(slice.tokens.len() * n);
        let pos = slice.session.tokens.len();
        Convolution { taps, n, pos }.run(pool, bcx_rows, slice.session.kv.kept_mut(index), out_rows);
    }
}

impl Hyperparams {
    /// What a part of a layer gave becomes what is added: normed and scaled as the family has it.
    fn finish(&self, pool: &Pool, norm: Option<&[f32]>, added: &mut [f32]) {
        if let Some(norm) = norm {
            rms_norm_rows(pool, added, norm, self.norm_epsilon);
        }
        if self.residual_scale != 1.0 {
            scale_rows(pool, added, self.n_embd, self.residual_scale, None);
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
