//! AVX2, AVX-VNNI and AVX-512 versions of the products. Every function equals its scalar definition to the last bit.

mod attention;
mod float;
mod lanes;
mod panel;
mod peak;
mod words;

pub(crate) use attention::{
    Stored, add_weighted_avx2, add_weighted_avx512, add_weighted2_avx512, scores_avx2, scores_avx512, scores4_avx512,
    widen as widen_all,
};
pub(crate) use float::{dot_bf16, dot_f16, dot_f32};
pub(crate) use panel::{avx_vnni, avx2, avx512};
pub(crate) use peak::{peak_avx_vnni, peak_avx2, peak_avx512};

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
