//! Attention of query rows over the f16 keys and values of one session and layer.

use half::f16;

use crate::row_dot::{axpy, dot_f16};
use crate::{Level, Pool};

/// Positions per softmax tile. Tiles are cut at absolute multiples, so that a row's sums do not depend on its batch.
const TILE: usize = 64;

/// The keys and values of one layer: per key/value head a plane of `(n_ctx, n_embd_head)`, `stride` values apart.
#[derive(Clone, Copy)]
pub struct KvPlanes<'a> {
    /// Keys of all heads.
    pub k: &'a [f16],
    /// Values of all heads.
    pub v: &'a [f16],
    /// Values from the start of one head's plane to the next.
    pub stride: usize,
}

/// One session's query rows at successive positions.
pub struct Attention<'a> {
    /// `(n_rows, n_head · n_embd_head)`, rope applied.
    pub q: &'a [f32],
    /// Keys and values; the rows' own positions are already written.
    pub kv: KvPlanes<'a>,
    /// Position of the first row.
    pub pos: usize,
    /// Query heads.
    pub n_head: usize,
    /// Key/value heads; each serves `n_head / n_head_kv` query heads.
    pub n_head_kv: usize,
    /// Width of a head.
    pub n_embd_head: usize,
}

/// Writes the attention of every row over positions `0..=` its own to `out`, shaped as `q`.
///
/// # Panics
/// When `out` has another shape than the queries.
pub fn attend(pool: &Pool, a: &Attention, out: &mut [f32]) {
    assert_eq!(a.q.len(), out.len(), "one output per query");
    let n_embd_q = a.n_head * a.n_embd_head;
    let n_rows = a.q.len() / n_embd_q;
    let group = a.n_head / a.n_head_kv;
    let level = pool.level();
    let heads = Heads(out.as_mut_ptr());
    pool.run(n_rows * a.n_head_kv, |part| {
        let (row, kv_head) = (part / a.n_head_kv, part % a.n_head_kv);
        for head in kv_head * group..(kv_head + 1) * group {
            let at = row * n_embd_q + head * a.n_embd_head;
            // SAFETY: the range lies inside `out`, and each (row, head) pair belongs to one part.
            let out = unsafe { heads.get(at, a.n_embd_head) };
            attend_head(level, a, kv_head, a.pos + row, &a.q[at..at + a.n_embd_head], out);
        }
    });
}

/// The output of a parallel region, of which every part writes other heads.
struct Heads(*mut f32);

impl Heads {
    /// # Safety
    /// The range is inside the output, and no other reference to it is alive.
    #[expect(clippy::mut_from_ref, reason = "parts hold disjoint ranges")]
    unsafe fn get(&self, at: usize, len: usize) -> &mut [f32] {
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(at), len) }
    }
}

// SAFETY: parts take disjoint ranges.
unsafe impl Sync for Heads {}

/// One head of one row: softmax over tiles with a running maximum, values added as they come.
fn attend_head(level: Level, a: &Attention, kv_head: usize, pos: usize, q: &[f32], out: &mut [f32]) {
    let width = a.n_embd_head;
    let plane = kv_head * a.kv.stride..kv_head * a.kv.stride + (pos + 1) * width;
    let (k, v) = (&a.kv.k[plane.clone()], &a.kv.v[plane]);
    let scale = 1.0 / (width as f32).sqrt();
    let (mut max, mut total) = (f32::NEG_INFINITY, 0f32);
    out.fill(0.0);
    for (k, v) in k.chunks(TILE * width).zip(v.chunks(TILE * width)) {
        let mut scores = [0f32; TILE];
        let scores = &mut scores[..k.len() / width];
        for (score, k) in scores.iter_mut().zip(k.chunks_exact(width)) {
            *score = dot_f16::<1>(level, k, [q])[0] * scale;
        }
        let tile_max = scores.iter().copied().fold(max, f32::max);
        if tile_max > max {
            let shrink = (max - tile_max).exp();
            total *= shrink;
            out.iter_mut().for_each(|out| *out *= shrink);
            max = tile_max;
        }
        for (score, v) in scores.iter().zip(v.chunks_exact(width)) {
            let weight = (score - max).exp();
            total += weight;
            axpy(level, out, weight, v);
        }
    }
    out.iter_mut().for_each(|out| *out /= total);
}
