//! Q4_K, Q5_K and Q6_K, one row of weights against `M` rows of inputs.

use std::arch::x86_64::*;

use super::{load16, load32, sum_i32, widen};
use crate::activations::Row;
use crate::block::{BlockQ4K, BlockQ5K, BlockQ6K, SUPER};
use crate::integers::scales_and_mins;

/// Adds one super-block with minimums to `M` sums. `q[j]` holds the unsigned weights of sub-block `j`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn add_super_block<const M: usize>(sums: &mut [f32; M], x: &[Row; M], b: usize, q: [__m256i; 8], packed: &[u8; 12], d: [f32; 2]) {
    let (scales, mins) = scales_and_mins(packed);
    let mut total = [_mm256_setzero_si256(); M];
    for (j, q) in q.into_iter().enumerate() {
        let scale = _mm256_set1_epi16(i16::from(scales[j]));
        for (total, x) in total.iter_mut().zip(x) {
            let products = _mm256_maddubs_epi16(q, load32(&x.qs[SUPER * b + 32 * j..]));
            *total = _mm256_add_epi32(*total, _mm256_madd_epi16(products, scale));
        }
    }
    // Each minimum covers two sums of 16 inputs: m0 m0 m1 m1 …
    let mins = _mm_cvtsi64_si128(i64::from_le_bytes(mins));
    let mins = _mm256_cvtepu8_epi16(_mm_unpacklo_epi8(mins, mins));
    for ((sum, x), total) in sums.iter_mut().zip(x).zip(total) {
        let min = sum_i32(_mm256_madd_epi16(mins, load32(&x.sums[16 * b..])));
        *sum = (d[0] * x.d[b]).mul_add(sum_i32(total) as f32, *sum);
        *sum = (-(d[1] * x.d[b])).mul_add(min as f32, *sum);
    }
}

/// The eight sub-blocks' low four bits: of each 64 weights the low nibbles come first.
#[inline]
#[target_feature(enable = "avx2")]
fn nibbles(qs: &[u8; 128]) -> [__m256i; 8] {
    let low = _mm256_set1_epi8(15);
    let mut q = [low; 8];
    for pair in 0..4 {
        let packed = load32(&qs[32 * pair..]);
        q[2 * pair] = _mm256_and_si256(packed, low);
        q[2 * pair + 1] = _mm256_and_si256(_mm256_srli_epi16::<4>(packed), low);
    }
    q
}

#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn dot_q4_k<const M: usize>(w: &[BlockQ4K], x: [Row; M]) -> [f32; M] {
    let mut sums = [0f32; M];
    for (b, w) in w.iter().enumerate() {
        add_super_block(&mut sums, &x, b, nibbles(&w.qs), &w.scales, [widen(w.d), widen(w.dmin)]);
    }
    sums
}

/// As Q4_K; the fifth bit of sub-block `j` is bit `j` of the 32 bytes `qh`.
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn dot_q5_k<const M: usize>(w: &[BlockQ5K], x: [Row; M]) -> [f32; M] {
    let mut sums = [0f32; M];
    for (b, w) in w.iter().enumerate() {
        let fifth = load32(&w.qh);
        let mut q = nibbles(&w.qs);
        for (j, q) in q.iter_mut().enumerate() {
            let bit = _mm256_set1_epi8((1u8 << j) as i8);
            let set = _mm256_cmpeq_epi8(_mm256_and_si256(fifth, bit), bit);
            *q = _mm256_or_si256(*q, _mm256_and_si256(set, _mm256_set1_epi8(16)));
        }
        add_super_block(&mut sums, &x, b, q, &w.scales, [widen(w.d), widen(w.dmin)]);
    }
    sums
}

/// The 6-bit values stay unsigned (at most 2 · 63 · 127 per pair); the offset is `32 Σ_j scale_j Σ x`.
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn dot_q6_k<const M: usize>(w: &[BlockQ6K], x: [Row; M]) -> [f32; M] {
    let (low, two) = (_mm256_set1_epi8(15), _mm256_set1_epi8(0x30));
    let mut sums = [0f32; M];
    for (b, w) in w.iter().enumerate() {
        let scales = _mm256_cvtepi8_epi16(load16(&w.scales));
        let mut total = [_mm256_setzero_si256(); M];
        for half in 0..2 {
            let high = load32(&w.qh[32 * half..]);
            let bits = [_mm256_slli_epi16::<4>(high), _mm256_slli_epi16::<2>(high), high, _mm256_srli_epi16::<2>(high)];
            let ql = [load32(&w.ql[64 * half..]), load32(&w.ql[64 * half + 32..])];
            for (plane, bits) in bits.into_iter().enumerate() {
                let nibbles = if plane < 2 { ql[plane] } else { _mm256_srli_epi16::<4>(ql[plane - 2]) };
                let q = _mm256_or_si256(_mm256_and_si256(nibbles, low), _mm256_and_si256(bits, two));
                let j = 8 * half + 2 * plane;
                let scale = _mm256_set_m128i(_mm_set1_epi16(i16::from(w.scales[j + 1])), _mm_set1_epi16(i16::from(w.scales[j])));
                for (total, x) in total.iter_mut().zip(&x) {
                    let products = _mm256_maddubs_epi16(q, load32(&x.qs[SUPER * b + 16 * j..]));
                    *total = _mm256_add_epi32(*total, _mm256_madd_epi16(products, scale));
                }
            }
        }
        let d = widen(w.d);
        for ((sum, x), total) in sums.iter_mut().zip(&x).zip(total) {
            let offset = 32 * sum_i32(_mm256_madd_epi16(scales, load32(&x.sums[16 * b..])));
            *sum = (d * x.d[b]).mul_add((sum_i32(total) - offset) as f32, *sum);
        }
    }
    sums
}
