//! Q4_K, Q5_K and Q6_K, one row of weights against `M` rows of inputs.

use std::arch::aarch64::*;

use super::{load16, load16s, sdot};
use crate::activations::Row;
use crate::block::{BlockQ4K, BlockQ5K, BlockQ6K, SUPER};
use crate::integers::scales_and_mins;

/// `Σ_j min_j Σ x` for eight minimums of 32 inputs each.
#[inline]
#[target_feature(enable = "neon")]
fn min_dot(mins: &[u8; 8], sums: &[i16]) -> i32 {
    mins.iter().zip(sums.chunks_exact(2)).map(|(&m, s)| i32::from(m) * (i32::from(s[0]) + i32::from(s[1]))).sum()
}

/// Adds one super-block with minimums to `M` sums. `q[2j]` and `q[2j + 1]` hold the weights of sub-block `j`.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn add_super_block<const M: usize>(
    sums: &mut [f32; M],
    x: &[Row; M],
    b: usize,
    q: [uint8x16_t; 16],
    packed: &[u8; 12],
    d: [f32; 2],
) {
    let (scales, mins) = scales_and_mins(packed);
    for (sum, x) in sums.iter_mut().zip(x) {
        let mut total = vdupq_n_s32(0);
        for j in 0..8 {
            let at = SUPER * b + 32 * j;
            let dot = sdot(vdupq_n_s32(0), vreinterpretq_s8_u8(q[2 * j]), load16s(&x.qs[at..]));
            let dot = sdot(dot, vreinterpretq_s8_u8(q[2 * j + 1]), load16s(&x.qs[at + 16..]));
            total = vmlaq_n_s32(total, dot, i32::from(scales[j]));
        }
        *sum = (d[0] * x.d[b]).mul_add(vaddvq_s32(total) as f32, *sum);
        *sum = (-(d[1] * x.d[b])).mul_add(min_dot(&mins, &x.sums[16 * b..16 * b + 16]) as f32, *sum);
    }
}

/// The low four bits, 16 weights a vector: of each 64 weights the low nibbles come first.
#[inline]
#[target_feature(enable = "neon")]
fn nibbles(qs: &[u8; 128]) -> [uint8x16_t; 16] {
    let low = vdupq_n_u8(15);
    let mut q = [low; 16];
    for pair in 0..4 {
        for part in 0..2 {
            let packed = load16(&qs[32 * pair + 16 * part..]);
            q[4 * pair + part] = vandq_u8(packed, low);
            q[4 * pair + 2 + part] = vshrq_n_u8::<4>(packed);
        }
    }
    q
}

#[target_feature(enable = "neon,dotprod")]
pub(crate) fn dot_q4_k<const M: usize>(w: &[BlockQ4K], x: [Row; M]) -> [f32; M] {
    let mut sums = [0f32; M];
    for (b, w) in w.iter().enumerate() {
        add_super_block(&mut sums, &x, b, nibbles(&w.qs), &w.scales, [w.d.to_f32(), w.dmin.to_f32()]);
    }
    sums
}

/// As Q4_K; the fifth bit of sub-block `j` is bit `j` of the 32 bytes `qh`.
#[target_feature(enable = "neon,dotprod")]
pub(crate) fn dot_q5_k<const M: usize>(w: &[BlockQ5K], x: [Row; M]) -> [f32; M] {
    let mut sums = [0f32; M];
    for (b, w) in w.iter().enumerate() {
        let fifth = [load16(&w.qh), load16(&w.qh[16..])];
        let mut q = nibbles(&w.qs);
        for (i, q) in q.iter_mut().enumerate() {
            let set = vtstq_u8(fifth[i % 2], vdupq_n_u8(1 << (i / 2)));
            *q = vorrq_u8(*q, vandq_u8(set, vdupq_n_u8(16)));
        }
        add_super_block(&mut sums, &x, b, q, &w.scales, [w.d.to_f32(), w.dmin.to_f32()]);
    }
    sums
}

/// 16 sub-blocks of 16 weights, each one vector: planes of 32 in the order the scalar definition names.
#[target_feature(enable = "neon,dotprod")]
pub(crate) fn dot_q6_k<const M: usize>(w: &[BlockQ6K], x: [Row; M]) -> [f32; M] {
    let (low, three, offset) = (vdupq_n_u8(15), vdupq_n_u8(3), vdupq_n_s8(32));
    let mut sums = [0f32; M];
    for (b, w) in w.iter().enumerate() {
        let mut total = [vdupq_n_s32(0); M];
        for j in 0..16 {
            let (half, plane, part) = (j / 8, j % 8 / 2, j % 2);
            let ql = load16(&w.ql[64 * half + 32 * (plane % 2) + 16 * part..]);
            let nibble = if plane < 2 { vandq_u8(ql, low) } else { vshrq_n_u8::<4>(ql) };
            let qh = load16(&w.qh[32 * half + 16 * part..]);
            let bits = vandq_u8(vshlq_u8(qh, vdupq_n_s8(-2 * plane as i8)), three);
            let q = vsubq_s8(vreinterpretq_s8_u8(vorrq_u8(nibble, vshlq_n_u8::<4>(bits))), offset);
            for (total, x) in total.iter_mut().zip(&x) {
                let dot = sdot(vdupq_n_s32(0), q, load16s(&x.qs[SUPER * b + 16 * j..]));
                *total = vmlaq_n_s32(*total, dot, i32::from(w.scales[j]));
            }
        }
        let d = w.d.to_f32();
        for ((sum, x), total) in sums.iter_mut().zip(&x).zip(total) {
            *sum = (d * x.d[b]).mul_add(vaddvq_s32(total) as f32, *sum);
        }
    }
    sums
}
