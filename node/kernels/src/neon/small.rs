//! Q4_0 and Q8_0, one row of weights against `M` rows of inputs.

use std::arch::aarch64::*;

use super::{load16, load16s, sdot};
use crate::activations::Row;
use crate::block::{BlockQ4_0, BlockQ8_0};

#[target_feature(enable = "neon,dotprod")]
pub(crate) fn dot_q4_0<const M: usize>(w: &[BlockQ4_0], x: [Row; M]) -> [f32; M] {
    let (low, eight) = (vdupq_n_u8(15), vdupq_n_s8(8));
    let mut sums = [0f32; M];
    for (b, w) in w.iter().enumerate() {
        let packed = load16(&w.qs);
        let q = [
            vsubq_s8(vreinterpretq_s8_u8(vandq_u8(packed, low)), eight),
            vsubq_s8(vreinterpretq_s8_u8(vshrq_n_u8::<4>(packed)), eight),
        ];
        add_block(&mut sums, &x, b, q, w.d.to_f32());
    }
    sums
}

#[target_feature(enable = "neon,dotprod")]
pub(crate) fn dot_q8_0<const M: usize>(w: &[BlockQ8_0], x: [Row; M]) -> [f32; M] {
    let mut sums = [0f32; M];
    for (b, w) in w.iter().enumerate() {
        add_block(&mut sums, &x, b, [load16s(&w.qs), load16s(&w.qs[16..])], w.d.to_f32());
    }
    sums
}

/// Adds one block of 32 signed weights to `M` sums.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn add_block<const M: usize>(sums: &mut [f32; M], x: &[Row; M], b: usize, q: [int8x16_t; 2], d: f32) {
    for (sum, x) in sums.iter_mut().zip(x) {
        let dot = sdot(vdupq_n_s32(0), q[0], load16s(&x.qs[32 * b..]));
        let dot = sdot(dot, q[1], load16s(&x.qs[32 * b + 16..]));
        *sum = (d * x.d[b]).mul_add(vaddvq_s32(dot) as f32, *sum);
    }
}
