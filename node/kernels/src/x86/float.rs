//! Float weights: 32 lanes in four vectors of eight, as the scalar definition's lanes lie.

use std::arch::x86_64::*;

use half::{bf16, f16};

use super::{load16, load32};
use crate::scalar::LANES;

/// Eight weights as f32.
trait Load8: Copy + Default {
    /// # Safety
    /// The processor has AVX2 and F16C.
    unsafe fn load8(from: &[Self]) -> __m256;
}

impl Load8 for f32 {
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn load8(from: &[f32]) -> __m256 {
        _mm256_castsi256_ps(load32(from))
    }
}

impl Load8 for f16 {
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn load8(from: &[f16]) -> __m256 {
        _mm256_cvtph_ps(load16(from))
    }
}

impl Load8 for bf16 {
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn load8(from: &[bf16]) -> __m256 {
        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(load16(from))))
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn dot<W: Load8, const M: usize>(w: &[W], x: [&[f32]; M]) -> [f32; M] {
    let mut sums = [0f32; M];
    let mut lanes = [[_mm256_setzero_ps(); 4]; M];
    let whole = w.len() / LANES * LANES;
    for at in (0..whole).step_by(LANES) {
        for part in 0..4 {
            let at = at + 8 * part;
            // SAFETY: this function's target features are those `load8` asks for.
            let wide = unsafe { W::load8(&w[at..]) };
            for m in 0..M {
                lanes[m][part] = _mm256_fmadd_ps(wide, _mm256_castsi256_ps(load32(&x[m][at..])), lanes[m][part]);
            }
        }
    }
    if whole < w.len() {
        // The rest, padded with zeros: 0 · 0 added to a lane changes nothing.
        let n = w.len() - whole;
        let (mut rest_w, mut rest_x) = ([W::default(); LANES], [0f32; LANES]);
        rest_w[..n].copy_from_slice(&w[whole..]);
        for m in 0..M {
            rest_x[..n].copy_from_slice(&x[m][whole..]);
            for part in 0..4 {
                // SAFETY: as above.
                let wide = unsafe { W::load8(&rest_w[8 * part..]) };
                lanes[m][part] = _mm256_fmadd_ps(wide, _mm256_castsi256_ps(load32(&rest_x[8 * part..])), lanes[m][part]);
            }
        }
    }
    for m in 0..M {
        let [a, b, c, d] = lanes[m];
        let eight = _mm256_add_ps(_mm256_add_ps(a, b), _mm256_add_ps(c, d));
        let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
        let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        sums[m] = _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)));
    }
    sums
}

#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn dot_f32<const M: usize>(w: &[f32], x: [&[f32]; M]) -> [f32; M] {
    dot(w, x)
}

#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn dot_f16<const M: usize>(w: &[f16], x: [&[f32]; M]) -> [f32; M] {
    dot(w, x)
}

#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn dot_bf16<const M: usize>(w: &[bf16], x: [&[f32]; M]) -> [f32; M] {
    dot(w, x)
}
