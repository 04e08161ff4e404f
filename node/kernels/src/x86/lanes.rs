//! The vectors a panel's kernel is compiled for: AVX2, AVX-VNNI, AVX-512 VNNI.

use std::arch::x86_64::*;

use super::{load32, load64};
use crate::word::Side;

/// `R` rows side by side, a lane each.
///
/// # Safety
/// Every function asks for the processor features of its implementor, which the caller has made sure of.
pub(super) trait Lanes<const R: usize> {
    /// Lanes of i32, or four bytes each.
    type I: Side<R>;
    /// Lanes of f32.
    type F: Copy;
    /// Whether dot products want signed weights raised by 128.
    const UNSIGNED: bool;

    unsafe fn splat(value: i32) -> Self::I;
    unsafe fn load(from: &[u32; R]) -> Self::I;
    unsafe fn load_weights(from: &[[u8; 4]; R]) -> Self::I;
    /// Adds `Σ w x` over the four bytes of each lane to `sum`. Weights are 0…127, or signed
    /// ones, raised if `UNSIGNED`.
    unsafe fn dot4<const SIGNED: bool>(sum: Self::I, w: Self::I, x: Self::I) -> Self::I;
    /// `sum + a · b`
    unsafe fn mul_add_int(a: Self::I, b: Self::I, sum: Self::I) -> Self::I;
    unsafe fn splat_float(value: f32) -> Self::F;
    unsafe fn load_float(from: &[f32; R]) -> Self::F;
    unsafe fn store_float(to: &mut [f32; R], value: Self::F);
    unsafe fn to_float(value: Self::I) -> Self::F;
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F;
    /// `a · b + sum`, rounded once
    unsafe fn mul_add(a: Self::F, b: Self::F, sum: Self::F) -> Self::F;
}

/// AVX2 without dot products: `maddubs` multiplies unsigned by signed bytes.
pub(super) struct Avx2;
/// 256-bit dot products.
pub(super) struct AvxVnni;
/// 512-bit dot products.
pub(super) struct Avx512;

impl Lanes<8> for Avx2 {
    type I = __m256i;
    type F = __m256;
    const UNSIGNED: bool = false;

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn splat(value: i32) -> __m256i {
        _mm256_set1_epi32(value)
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn load(from: &[u32; 8]) -> __m256i {
        load32(from)
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn load_weights(from: &[[u8; 4]; 8]) -> __m256i {
        load32(from)
    }

    /// Signed weights: |w| takes the unsigned side and the sign moves to x, which is never −128. A pair's sum is at most
    /// 2 · 128 · 127 and fits 16 bits.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn dot4<const SIGNED: bool>(sum: __m256i, w: __m256i, x: __m256i) -> __m256i {
        let pairs =
            if SIGNED { _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w)) } else { _mm256_maddubs_epi16(w, x) };
        _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn mul_add_int(a: __m256i, b: __m256i, sum: __m256i) -> __m256i {
        _mm256_add_epi32(sum, _mm256_mullo_epi32(a, b))
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn splat_float(value: f32) -> __m256 {
        _mm256_set1_ps(value)
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn load_float(from: &[f32; 8]) -> __m256 {
        _mm256_castsi256_ps(load32(from))
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn store_float(to: &mut [f32; 8], value: __m256) {
        // SAFETY: the place holds as many floats as the vector; the store needs no alignment.
        unsafe { _mm256_storeu_ps(to.as_mut_ptr(), value) };
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn to_float(value: __m256i) -> __m256 {
        _mm256_cvtepi32_ps(value)
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn mul(a: __m256, b: __m256) -> __m256 {
        _mm256_mul_ps(a, b)
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn mul_add(a: __m256, b: __m256, sum: __m256) -> __m256 {
        _mm256_fmadd_ps(a, b, sum)
    }
}

impl Lanes<8> for AvxVnni {
    type I = __m256i;
    type F = __m256;
    const UNSIGNED: bool = true;

    #[inline]
    #[target_feature(enable = "avx2,fma,avxvnni")]
    unsafe fn splat(value: i32) -> __m256i {
        _mm256_set1_epi32(value)
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,avxvnni")]
    unsafe fn load(from: &[u32; 8]) -> __m256i {
        load32(from)
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,avxvnni")]
    unsafe fn load_weights(from: &[[u8; 4]; 8]) -> __m256i {
        load32(from)
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,avxvnni")]
    unsafe fn dot4<const SIGNED: bool>(sum: __m256i, w: __m256i, x: __m256i) -> __m256i {
        _mm256_dpbusd_avx_epi32(sum, w, x)
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,avxvnni")]
    unsafe fn mul_add_int(a: __m256i, b: __m256i, sum: __m256i) -> __m256i {
        _mm256_add_epi32(sum, _mm256_mullo_epi32(a, b))
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,avxvnni")]
    unsafe fn splat_float(value: f32) -> __m256 {
        _mm256_set1_ps(value)
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,avxvnni")]
    unsafe fn load_float(from: &[f32; 8]) -> __m256 {
        _mm256_castsi256_ps(load32(from))
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,avxvnni")]
    unsafe fn store_float(to: &mut [f32; 8], value: __m256) {
        // SAFETY: the place holds as many floats as the vector; the store needs no alignment.
        unsafe { _mm256_storeu_ps(to.as_mut_ptr(), value) };
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,avxvnni")]
    unsafe fn to_float(value: __m256i) -> __m256 {
        _mm256_cvtepi32_ps(value)
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,avxvnni")]
    unsafe fn mul(a: __m256, b: __m256) -> __m256 {
        _mm256_mul_ps(a, b)
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,avxvnni")]
    unsafe fn mul_add(a: __m256, b: __m256, sum: __m256) -> __m256 {
        _mm256_fmadd_ps(a, b, sum)
    }
}

impl Lanes<16> for Avx512 {
    type I = __m512i;
    type F = __m512;
    const UNSIGNED: bool = true;

    #[inline]
    #[target_feature(enable = "avx512f,avx512vnni")]
    unsafe fn splat(value: i32) -> __m512i {
        _mm512_set1_epi32(value)
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512vnni")]
    unsafe fn load(from: &[u32; 16]) -> __m512i {
        load64(from)
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512vnni")]
    unsafe fn load_weights(from: &[[u8; 4]; 16]) -> __m512i {
        load64(from)
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512vnni")]
    unsafe fn dot4<const SIGNED: bool>(sum: __m512i, w: __m512i, x: __m512i) -> __m512i {
        _mm512_dpbusd_epi32(sum, w, x)
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512vnni")]
    unsafe fn mul_add_int(a: __m512i, b: __m512i, sum: __m512i) -> __m512i {
        _mm512_add_epi32(sum, _mm512_mullo_epi32(a, b))
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512vnni")]
    unsafe fn splat_float(value: f32) -> __m512 {
        _mm512_set1_ps(value)
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512vnni")]
    unsafe fn load_float(from: &[f32; 16]) -> __m512 {
        _mm512_castsi512_ps(load64(from))
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512vnni")]
    unsafe fn store_float(to: &mut [f32; 16], value: __m512) {
        // SAFETY: the place holds as many floats as the vector; the store needs no alignment.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), value) };
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512vnni")]
    unsafe fn to_float(value: __m512i) -> __m512 {
        _mm512_cvtepi32_ps(value)
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512vnni")]
    unsafe fn mul(a: __m512, b: __m512) -> __m512 {
        _mm512_mul_ps(a, b)
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512vnni")]
    unsafe fn mul_add(a: __m512, b: __m512, sum: __m512) -> __m512 {
        _mm512_fmadd_ps(a, b, sum)
    }
}
