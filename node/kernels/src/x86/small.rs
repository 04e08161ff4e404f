//! Q4_0 and Q8_0. Four sums are computed together: one row of weights against four rows of inputs, or four rows against
//! one. A block's four integer sums meet in four lanes, where the float sums go on with one fused multiply-add for all.

use std::arch::x86_64::*;

use half::f16;

use super::{load16, load32, sum_i32, widen};
use crate::activations::Row;
use crate::block::{BlockQ4_0, BlockQ8_0};

/// What the two types differ in.
trait Small: Copy {
    fn d(&self) -> f16;
    /// 32 products summed in eight lanes, and what must still be taken from their sum, in parts of the inputs' sum.
    ///
    /// # Safety
    /// The processor has AVX2.
    unsafe fn products(&self, x: &[i8]) -> __m256i;
    const OFFSET: i32;
}

impl Small for BlockQ4_0 {
    fn d(&self) -> f16 {
        self.d
    }

    /// The nibbles stay unsigned for `maddubs` (at most 2 · 15 · 127 per 16-bit lane): `Σ (q − 8) x = Σ q x − 8 Σ x`.
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn products(&self, x: &[i8]) -> __m256i {
        let packed = load16(&self.qs);
        let q = _mm256_and_si256(_mm256_set_m128i(_mm_srli_epi16::<4>(packed), packed), _mm256_set1_epi8(15));
        _mm256_madd_epi16(_mm256_maddubs_epi16(q, load32(x)), _mm256_set1_epi16(1))
    }

    const OFFSET: i32 = 8;
}

impl Small for BlockQ8_0 {
    fn d(&self) -> f16 {
        self.d
    }

    /// `maddubs` wants an unsigned side: |q| takes it and the sign moves to x, which is never −128, so that a pair's sum
    /// is at most 2 · 128 · 127 and fits 16 bits.
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn products(&self, x: &[i8]) -> __m256i {
        let q = load32(&self.qs);
        let products = _mm256_maddubs_epi16(_mm256_abs_epi8(q), _mm256_sign_epi8(load32(x), q));
        _mm256_madd_epi16(products, _mm256_set1_epi16(1))
    }

    const OFFSET: i32 = 0;
}

/// Sum of 32 inputs.
#[inline]
fn input_sum(x: &Row, b: usize) -> i32 {
    i32::from(x.sums[2 * b]) + i32::from(x.sums[2 * b + 1])
}

/// Sums of four vectors, in four lanes, exact.
#[inline]
#[target_feature(enable = "avx2")]
fn sums4(v: [__m256i; 4]) -> __m128i {
    let pairs = _mm256_hadd_epi32(_mm256_hadd_epi32(v[0], v[1]), _mm256_hadd_epi32(v[2], v[3]));
    _mm_add_epi32(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256::<1>(pairs))
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn dot_one<B: Small>(w: &[B], x: Row) -> f32 {
    let mut sum = 0f32;
    for (b, w) in w.iter().enumerate() {
        // SAFETY: this function's target features include AVX2.
        let products = unsafe { w.products(&x.qs[32 * b..]) };
        let exact = sum_i32(products) - B::OFFSET * input_sum(&x, b);
        sum = (widen(w.d()) * x.d[b]).mul_add(exact as f32, sum);
    }
    sum
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn dot_tokens<B: Small>(w: &[B], x: [Row; 4]) -> [f32; 4] {
    let mut sum = _mm_setzero_ps();
    for (b, w) in w.iter().enumerate() {
        let mut products = [_mm256_setzero_si256(); 4];
        let mut offsets = [0i32; 4];
        for i in 0..4 {
            // SAFETY: this function's target features include AVX2.
            products[i] = unsafe { w.products(&x[i].qs[32 * b..]) };
            offsets[i] = B::OFFSET * input_sum(&x[i], b);
        }
        let exact = _mm_sub_epi32(sums4(products), _mm_set_epi32(offsets[3], offsets[2], offsets[1], offsets[0]));
        let d_x = _mm_set_ps(x[3].d[b], x[2].d[b], x[1].d[b], x[0].d[b]);
        sum = _mm_fmadd_ps(_mm_mul_ps(_mm_set1_ps(widen(w.d())), d_x), _mm_cvtepi32_ps(exact), sum);
    }
    bytemuck::cast(sum)
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn dot_rows<B: Small>(w: [&[B]; 4], x: Row) -> [f32; 4] {
    let mut sum = _mm_setzero_ps();
    // Rows lie one after the other, and four streams within a page are too many for the hardware's own prefetcher: the next
    // four rows are asked for front to back.
    let next = w[0].as_ptr().wrapping_add(4 * w[0].len()).cast::<i8>();
    for (b, _) in w[0].iter().enumerate() {
        for line in 0..3 {
            _mm_prefetch::<_MM_HINT_T0>(next.wrapping_add(4 * size_of::<B>() * b + 64 * line));
        }
        let mut products = [_mm256_setzero_si256(); 4];
        let mut bits = [0i32; 4];
        for i in 0..4 {
            // SAFETY: this function's target features include AVX2.
            products[i] = unsafe { w[i][b].products(&x.qs[32 * b..]) };
            bits[i] = i32::from(w[i][b].d().to_bits());
        }
        let exact = _mm_sub_epi32(sums4(products), _mm_set1_epi32(B::OFFSET * input_sum(&x, b)));
        let d_w = _mm_cvtph_ps(_mm_set_epi32(0, 0, bits[3] << 16 | bits[2], bits[1] << 16 | bits[0]));
        sum = _mm_fmadd_ps(_mm_mul_ps(d_w, _mm_set1_ps(x.d[b])), _mm_cvtepi32_ps(exact), sum);
    }
    bytemuck::cast(sum)
}

macro_rules! entries {
    ($one:ident, $rows:ident, $block:ty) => {
        /// One row of weights against `M` rows of inputs, four at a time.
        #[target_feature(enable = "avx2,fma,f16c")]
        pub(crate) fn $one<const M: usize>(w: &[$block], x: [Row; M]) -> [f32; M] {
            let mut sums = [0f32; M];
            let mut at = 0;
            while at + 4 <= M {
                sums[at..at + 4].copy_from_slice(&dot_tokens(w, [x[at], x[at + 1], x[at + 2], x[at + 3]]));
                at += 4;
            }
            for i in at..M {
                sums[i] = dot_one(w, x[i]);
            }
            sums
        }

        /// Four rows of weights against one row of inputs.
        #[target_feature(enable = "avx2,fma,f16c")]
        pub(crate) fn $rows(w: [&[$block]; 4], x: Row) -> [f32; 4] {
            dot_rows(w, x)
        }
    };
}
entries!(dot_q4_0, dot_rows_q4_0, BlockQ4_0);
entries!(dot_q8_0, dot_rows_q8_0, BlockQ8_0);
