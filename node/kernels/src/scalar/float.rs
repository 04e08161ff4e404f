//! Products of float weights (F32, F16, BF16) with f32 inputs.

use crate::block::Block;

/// Partial sums of a float product. Element `i` goes to lane `i mod 32`, so that a vector unit of any width up to 32
/// lanes can compute the same sums.
pub(crate) const LANES: usize = 32;

/// `M` products of one row of weights with `M` rows of inputs.
pub(crate) fn dot_float<B: Block, const M: usize>(w: &[B], x: [&[f32]; M]) -> [f32; M] {
    x.map(|x| {
        let mut lanes = [0f32; LANES];
        for (w, x) in w.chunks(LANES).zip(x.chunks(LANES)) {
            for ((lane, w), x) in lanes.iter_mut().zip(w).zip(x) {
                let mut value = [0f32];
                w.dequantize(&mut value);
                *lane = value[0].mul_add(*x, *lane);
            }
        }
        fold(lanes)
    })
}

/// Adds the lanes as a tree: 32 to 8 as `(l0 + l8) + (l16 + l24)`, then halves.
#[inline(always)]
pub(crate) fn fold(lanes: [f32; LANES]) -> f32 {
    let mut sum = [0f32; 8];
    for i in 0..8 {
        sum[i] = (lanes[i] + lanes[i + 8]) + (lanes[i + 16] + lanes[i + 24]);
    }
    for half in [4, 2, 1] {
        for i in 0..half {
            sum[i] += sum[i + half];
        }
    }
    sum[0]
}
