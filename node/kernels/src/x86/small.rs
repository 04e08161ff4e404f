//! Q4_0 and Q8_0, one row of weights against `M` rows of inputs.

use std::arch::x86_64::*;

use super::{load16, load32, sum_i32};
use crate::activations::Row;
use crate::block::{BlockQ4_0, BlockQ8_0};

/// The nibbles stay unsigned for `maddubs` (at most 2 · 15 · 127 per 16-bit lane); the offset of 8 is taken from the
/// inputs' sums: `Σ (q − 8) x = Σ q x − 8 Σ x`.
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn dot_q4_0<const M: usize>(w: &[BlockQ4_0], x: [Row; M]) -> [f32; M] {
    let (low, ones) = (_mm256_set1_epi8(15), _mm256_set1_epi16(1));
    let mut sums = [0f32; M];
    for (b, w) in w.iter().enumerate() {
        let packed = load16(&w.qs);
        let q = _mm256_and_si256(_mm256_set_m128i(_mm_srli_epi16::<4>(packed), packed), low);
        let d = w.d.to_f32();
        for (sum, x) in sums.iter_mut().zip(&x) {
            let products = _mm256_madd_epi16(_mm256_maddubs_epi16(q, load32(&x.qs[32 * b..])), ones);
            let offset = 8 * (i32::from(x.sums[2 * b]) + i32::from(x.sums[2 * b + 1]));
            *sum = (d * x.d[b]).mul_add((sum_i32(products) - offset) as f32, *sum);
        }
    }
    sums
}

/// `maddubs` wants an unsigned side: |q| takes it and the sign moves to x, which is never −128, so that a pair's sum is
/// at most 2 · 128 · 127 and fits 16 bits.
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn dot_q8_0<const M: usize>(w: &[BlockQ8_0], x: [Row; M]) -> [f32; M] {
    let ones = _mm256_set1_epi16(1);
    let mut sums = [0f32; M];
    for (b, w) in w.iter().enumerate() {
        let q = load32(&w.qs);
        let magnitude = _mm256_abs_epi8(q);
        let d = w.d.to_f32();
        for (sum, x) in sums.iter_mut().zip(&x) {
            let signed = _mm256_sign_epi8(load32(&x.qs[32 * b..]), q);
            let products = _mm256_madd_epi16(_mm256_maddubs_epi16(magnitude, signed), ones);
            *sum = (d * x.d[b]).mul_add(sum_i32(products) as f32, *sum);
        }
    }
    sums
}
