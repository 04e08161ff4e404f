//! Words of eight and of sixteen rows.

use std::arch::x86_64::*;

use super::{load32, load64};
use crate::word::{Side, Word};

impl Word for __m256i {
    type Rows = [*const u8; 8];

    /// A 4 by 4 matrix of words in each part of 128 bits, rows and columns exchanged.
    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn piece(rows: [*const u8; 8], at: usize) -> [__m256i; 4] {
        let mut z = [_mm256_setzero_si256(); 4];
        for r in 0..4 {
            // SAFETY: the caller's promise; the loads need no alignment.
            z[r] = unsafe {
                let low = _mm_loadu_si128(rows[r].add(at).cast());
                _mm256_set_m128i(_mm_loadu_si128(rows[4 + r].add(at).cast()), low)
            };
        }
        let (low, high) = (
            [_mm256_unpacklo_epi32(z[0], z[1]), _mm256_unpacklo_epi32(z[2], z[3])],
            [_mm256_unpackhi_epi32(z[0], z[1]), _mm256_unpackhi_epi32(z[2], z[3])],
        );
        [
            _mm256_unpacklo_epi64(low[0], low[1]),
            _mm256_unpackhi_epi64(low[0], low[1]),
            _mm256_unpacklo_epi64(high[0], high[1]),
            _mm256_unpackhi_epi64(high[0], high[1]),
        ]
    }

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn word(rows: [*const u8; 8], at: usize) -> __m256i {
        let mut words = [0u32; 8];
        for r in 0..8 {
            // SAFETY: the caller's promise.
            words[r] = unsafe { rows[r].add(at).cast::<u32>().read_unaligned() };
        }
        load32(&words)
    }

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn and(self, mask: u32) -> Self {
        _mm256_and_si256(self, _mm256_set1_epi32(mask as i32))
    }

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn or(self, other: Self) -> Self {
        _mm256_or_si256(self, other)
    }

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn add(self, value: u32) -> Self {
        _mm256_add_epi32(self, _mm256_set1_epi32(value as i32))
    }

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn xor(self, mask: u32) -> Self {
        _mm256_xor_si256(self, _mm256_set1_epi32(mask as i32))
    }

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn sub_bytes(self, value: u8) -> __m256i {
        _mm256_sub_epi8(self, _mm256_set1_epi8(value as i8))
    }

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn mul(self, factor: u32) -> Self {
        _mm256_mullo_epi32(self, _mm256_set1_epi32(factor as i32))
    }

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn shl(self, n: u32) -> Self {
        _mm256_sllv_epi32(self, _mm256_set1_epi32(n as i32))
    }

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn shr(self, n: u32) -> Self {
        _mm256_srlv_epi32(self, _mm256_set1_epi32(n as i32))
    }

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn sar(self, n: u32) -> Self {
        _mm256_srav_epi32(self, _mm256_set1_epi32(n as i32))
    }
}

impl Word for __m512i {
    type Rows = [*const u8; 16];

    /// A 4 by 4 matrix of words in each part of 128 bits, rows and columns exchanged.
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn piece(rows: [*const u8; 16], at: usize) -> [__m512i; 4] {
        let mut z = [_mm512_setzero_si512(); 4];
        for r in 0..4 {
            // SAFETY: the caller's promise; the loads need no alignment.
            z[r] = unsafe {
                let mut z = _mm512_castsi128_si512(_mm_loadu_si128(rows[r].add(at).cast()));
                z = _mm512_inserti32x4::<1>(z, _mm_loadu_si128(rows[4 + r].add(at).cast()));
                z = _mm512_inserti32x4::<2>(z, _mm_loadu_si128(rows[8 + r].add(at).cast()));
                _mm512_inserti32x4::<3>(z, _mm_loadu_si128(rows[12 + r].add(at).cast()))
            };
        }
        let (low, high) = (
            [_mm512_unpacklo_epi32(z[0], z[1]), _mm512_unpacklo_epi32(z[2], z[3])],
            [_mm512_unpackhi_epi32(z[0], z[1]), _mm512_unpackhi_epi32(z[2], z[3])],
        );
        [
            _mm512_unpacklo_epi64(low[0], low[1]),
            _mm512_unpackhi_epi64(low[0], low[1]),
            _mm512_unpacklo_epi64(high[0], high[1]),
            _mm512_unpackhi_epi64(high[0], high[1]),
        ]
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn word(rows: [*const u8; 16], at: usize) -> __m512i {
        let mut words = [0u32; 16];
        for r in 0..16 {
            // SAFETY: the caller's promise.
            words[r] = unsafe { rows[r].add(at).cast::<u32>().read_unaligned() };
        }
        load64(&words)
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn and(self, mask: u32) -> Self {
        _mm512_and_si512(self, _mm512_set1_epi32(mask as i32))
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn or(self, other: Self) -> Self {
        _mm512_or_si512(self, other)
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn add(self, value: u32) -> Self {
        _mm512_add_epi32(self, _mm512_set1_epi32(value as i32))
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn xor(self, mask: u32) -> Self {
        _mm512_xor_si512(self, _mm512_set1_epi32(mask as i32))
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn sub_bytes(self, value: u8) -> __m512i {
        _mm512_sub_epi8(self, _mm512_set1_epi8(value as i8))
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn mul(self, factor: u32) -> Self {
        _mm512_mullo_epi32(self, _mm512_set1_epi32(factor as i32))
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn shl(self, n: u32) -> Self {
        _mm512_sllv_epi32(self, _mm512_set1_epi32(n as i32))
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn shr(self, n: u32) -> Self {
        _mm512_srlv_epi32(self, _mm512_set1_epi32(n as i32))
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn sar(self, n: u32) -> Self {
        _mm512_srav_epi32(self, _mm512_set1_epi32(n as i32))
    }
}

impl Side<8> for __m256i {
    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn store(self, to: &mut [u32; 8]) {
        // SAFETY: the place is as long as the vector; the store needs no alignment.
        unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), self) };
    }

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn store_float(self, to: &mut [f32; 8]) {
        // SAFETY: as above.
        unsafe { _mm256_storeu_ps(to.as_mut_ptr(), _mm256_cvtepi32_ps(self)) };
    }

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn widen(halves: &[u16; 8], to: &mut [f32; 8]) {
        // SAFETY: both places are as long as the vectors; neither needs alignment.
        unsafe { _mm256_storeu_ps(to.as_mut_ptr(), _mm256_cvtph_ps(_mm_loadu_si128(halves.as_ptr().cast()))) };
    }
}

impl Side<16> for __m512i {
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn store(self, to: &mut [u32; 16]) {
        // SAFETY: the place is as long as the vector; the store needs no alignment.
        unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), self) };
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn store_float(self, to: &mut [f32; 16]) {
        // SAFETY: as above.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), _mm512_cvtepi32_ps(self)) };
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn widen(halves: &[u16; 16], to: &mut [f32; 16]) {
        // SAFETY: both places are as long as the vectors; neither needs alignment.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), _mm512_cvtph_ps(_mm256_loadu_si256(halves.as_ptr().cast()))) };
    }
}
