//! Scores and weighted sums of attention.

use crate::block::Block;

/// The products of a query with each key, rows of its length. Element `i` goes to lane `i mod 16`; the lanes are then added
/// as a tree of halves.
pub(crate) fn scores<W: Block>(q: &[f32], k: &[W], out: &mut [f32]) {
    for (out, k) in out.iter_mut().zip(k.chunks_exact(q.len())) {
        let mut lanes = [0f32; 16];
        for (q, k) in q.chunks(16).zip(k.chunks(16)) {
            for ((lane, q), k) in lanes.iter_mut().zip(q).zip(k) {
                *lane = q.mul_add(widen(k), *lane);
            }
        }
        for half in [8, 4, 2, 1] {
            for i in 0..half {
                lanes[i] += lanes[i + half];
            }
        }
        *out = lanes[0];
    }
}

/// `out += Σ weight · v`, one fused multiply-add per value in the order of positions.
pub(crate) fn add_weighted<W: Block>(weights: &[f32], v: &[W], out: &mut [f32]) {
    for (weight, v) in weights.iter().zip(v.chunks_exact(out.len())) {
        out.iter_mut().zip(v).for_each(|(out, v)| *out = weight.mul_add(widen(v), *out));
    }
}

fn widen<W: Block>(value: &W) -> f32 {
    let mut wide = [0f32];
    value.dequantize(&mut wide);
    wide[0]
}
