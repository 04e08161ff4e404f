//! AVX2 versions of the products, and panels for AVX2, AVX-VNNI and AVX-512. Every function equals its scalar definition to the last bit.

mod attention;
mod float;
mod k_quants;
mod lanes;
mod panel;
mod small;

pub(crate) use attention::{Stored, add_weighted_avx2, add_weighted_avx512, scores_avx2, scores_avx512, widen as widen_all};
pub(crate) use float::{dot_bf16, dot_f16, dot_f32};
pub(crate) use k_quants::{dot_q4_k, dot_q5_k, dot_q6_k};
pub(crate) use panel::{avx_vnni, avx2, avx512};
pub(crate) use small::{dot_q4_0, dot_q8_0, dot_rows_q4_0, dot_rows_q8_0};

use std::arch::x86_64::*;

/// Unaligned load of 32 bytes from the start of a slice.
#[inline]
#[target_feature(enable = "avx2")]
fn load32<T: bytemuck::Pod>(from: &[T]) -> __m256i {
    assert!(size_of_val(from) >= 32);
    // SAFETY: the slice holds at least 32 bytes, checked above; the load needs no alignment.
    unsafe { _mm256_loadu_si256(from.as_ptr().cast()) }
}

/// Unaligned load of 64 bytes from the start of a slice.
#[inline]
#[target_feature(enable = "avx512f")]
fn load64<T: bytemuck::Pod>(from: &[T]) -> __m512i {
    assert!(size_of_val(from) >= 64);
    // SAFETY: the slice holds at least 64 bytes, checked above; the load needs no alignment.
    unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
}

/// Unaligned load of 16 bytes from the start of a slice.
#[inline]
#[target_feature(enable = "avx2")]
fn load16<T: bytemuck::Pod>(from: &[T]) -> __m128i {
    assert!(size_of_val(from) >= 16);
    // SAFETY: the slice holds at least 16 bytes, checked above; the load needs no alignment.
    unsafe { _mm_loadu_si128(from.as_ptr().cast()) }
}

/// A factor of a block as f32. The crate's own conversion asks for the processor's features at every call.
#[inline]
#[target_feature(enable = "f16c")]
fn widen(d: half::f16) -> f32 {
    _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(i32::from(d.to_bits()))))
}

/// Sum of the eight lanes, exact.
#[inline]
#[target_feature(enable = "avx2")]
fn sum_i32(v: __m256i) -> i32 {
    let v = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256::<1>(v));
    let v = _mm_add_epi32(v, _mm_shuffle_epi32::<0b01_00_11_10>(v));
    _mm_cvtsi128_si32(_mm_add_epi32(v, _mm_shuffle_epi32::<0b10_11_00_01>(v)))
}
