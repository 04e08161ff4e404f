//! Scores and weighted sums of attention, on keys and values in f16 or widened to f32.

use std::arch::x86_64::*;

use half::f16;

use super::load16;
use crate::attention::TILE;

/// Keys or values as they are stored.
pub(crate) trait Stored: Copy {
    /// The first sixteen values.
    ///
    /// # Safety
    /// There are sixteen, and the processor has AVX-512.
    unsafe fn load16(from: *const Self) -> __m512;
    /// The first eight values.
    ///
    /// # Safety
    /// There are eight, and the processor has AVX2 and F16C.
    unsafe fn load8(from: *const Self) -> __m256;
    fn widen(self) -> f32;
}

impl Stored for f32 {
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn load16(from: *const f32) -> __m512 {
        // SAFETY: the caller's promise.
        unsafe { _mm512_loadu_ps(from) }
    }

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn load8(from: *const f32) -> __m256 {
        // SAFETY: the caller's promise.
        unsafe { _mm256_loadu_ps(from) }
    }

    fn widen(self) -> f32 {
        self
    }
}

impl Stored for f16 {
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn load16(from: *const f16) -> __m512 {
        // SAFETY: the caller's promise.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) }
    }

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn load8(from: *const f16) -> __m256 {
        // SAFETY: the caller's promise.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.cast())) }
    }

    fn widen(self) -> f32 {
        self.to_f32()
    }
}

/// As the scalar definition. Eight keys at a time: their sums meet in the lanes of one vector.
#[target_feature(enable = "avx2,fma,f16c,avx512f")]
pub(crate) fn scores_avx512<W: Stored>(q: &[f32], k: &[W], out: &mut [f32]) {
    let width = q.len();
    let whole = width / 16 * 16;
    assert_eq!(k.len(), out.len() * width, "a key for each score");
    for (out, k) in out.chunks_mut(8).zip(k.chunks(8 * width)) {
        let mut lanes = [_mm512_setzero_ps(); 8];
        let mut keys = [k.as_ptr(); 8];
        for i in 0..8 {
            keys[i] = k[i.min(out.len() - 1) * width..].as_ptr();
        }
        for at in (0..whole).step_by(16) {
            // SAFETY: the query and each key have `width` values, and `at + 16 <= width`.
            unsafe {
                let q = _mm512_loadu_ps(q.as_ptr().add(at));
                for i in 0..8 {
                    lanes[i] = _mm512_fmadd_ps(q, W::load16(keys[i].add(at)), lanes[i]);
                }
            }
        }
        let mut halves = [_mm256_setzero_ps(); 8];
        for i in 0..8 {
            if whole < width {
                let key = &k[i.min(out.len() - 1) * width..][..width];
                // SAFETY: both arrays have sixteen values.
                unsafe {
                    let (q, k) = (_mm512_loadu_ps(rest(&q[whole..]).as_ptr()), _mm512_loadu_ps(rest(&key[whole..]).as_ptr()));
                    lanes[i] = _mm512_fmadd_ps(q, k, lanes[i]);
                }
            }
            let high = _mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(_mm512_castps_pd(lanes[i])));
            halves[i] = _mm256_add_ps(_mm512_castps512_ps256(lanes[i]), high);
        }
        out.copy_from_slice(&sums8(halves)[..out.len()]);
    }
}

/// As [`scores_avx512`] for four queries and four keys at a time: a load serves two multiply-adds.
#[target_feature(enable = "avx2,fma,f16c,avx512f")]
pub(crate) fn scores4_avx512<W: Stored>(q: [&[f32]; 4], k: &[W], out: &mut [[f32; TILE]; 4]) {
    let width = q[0].len();
    if !width.is_multiple_of(16) {
        for i in 0..4 {
            scores_avx512(q[i], k, &mut out[i][..k.len() / width]);
        }
        return;
    }
    assert!(q.iter().all(|q| q.len() == width) && k.len() <= TILE * width);
    for (first, k) in k.chunks(4 * width).enumerate() {
        let n = k.len() / width;
        let mut keys = [k.as_ptr(); 4];
        for j in 0..4 {
            keys[j] = k[j.min(n - 1) * width..].as_ptr();
        }
        let mut lanes = [[_mm512_setzero_ps(); 4]; 4];
        for at in (0..width).step_by(16) {
            // SAFETY: the queries and keys have `width` values, and `at + 16 <= width`.
            unsafe {
                let mut four = [_mm512_setzero_ps(); 4];
                for i in 0..4 {
                    four[i] = _mm512_loadu_ps(q[i].as_ptr().add(at));
                }
                for j in 0..4 {
                    let k = W::load16(keys[j].add(at));
                    for i in 0..4 {
                        lanes[i][j] = _mm512_fmadd_ps(four[i], k, lanes[i][j]);
                    }
                }
            }
        }
        for pair in 0..2 {
            let mut halves = [_mm256_setzero_ps(); 8];
            for i in 0..8 {
                let lanes = lanes[2 * pair + i / 4][i % 4];
                let high = _mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(_mm512_castps_pd(lanes)));
                halves[i] = _mm256_add_ps(_mm512_castps512_ps256(lanes), high);
            }
            let sums = sums8(halves);
            for i in 0..2 {
                out[2 * pair + i][4 * first..4 * first + n].copy_from_slice(&sums[4 * i..4 * i + n]);
            }
        }
    }
}

/// As the scalar definition. Four keys at a time, two vectors for each.
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn scores_avx2<W: Stored>(q: &[f32], k: &[W], out: &mut [f32]) {
    let width = q.len();
    let whole = width / 16 * 16;
    assert_eq!(k.len(), out.len() * width, "a key for each score");
    for (out, k) in out.chunks_mut(8).zip(k.chunks(8 * width)) {
        let mut halves = [_mm256_setzero_ps(); 8];
        for first in [0, 4] {
            let mut lanes = [[_mm256_setzero_ps(); 2]; 4];
            let mut keys = [k.as_ptr(); 4];
            for i in 0..4 {
                keys[i] = k[(first + i).min(out.len() - 1) * width..].as_ptr();
            }
            for at in (0..whole).step_by(16) {
                // SAFETY: the query and each key have `width` values, and `at + 16 <= width`.
                unsafe {
                    for half in 0..2 {
                        let q = _mm256_loadu_ps(q.as_ptr().add(at + 8 * half));
                        for i in 0..4 {
                            lanes[i][half] = _mm256_fmadd_ps(q, W::load8(keys[i].add(at + 8 * half)), lanes[i][half]);
                        }
                    }
                }
            }
            for i in 0..4 {
                if whole < width {
                    let key = &k[(first + i).min(out.len() - 1) * width..][..width];
                    let (q, k) = (rest(&q[whole..]), rest(&key[whole..]));
                    for half in 0..2 {
                        // SAFETY: both arrays have sixteen values.
                        unsafe {
                            let (q, k) = (_mm256_loadu_ps(q.as_ptr().add(8 * half)), _mm256_loadu_ps(k.as_ptr().add(8 * half)));
                            lanes[i][half] = _mm256_fmadd_ps(q, k, lanes[i][half]);
                        }
                    }
                }
                halves[first + i] = _mm256_add_ps(lanes[i][0], lanes[i][1]);
            }
        }
        out.copy_from_slice(&sums8(halves)[..out.len()]);
    }
}

/// At most sixteen values, then zeros: 0 · 0 added to a lane changes nothing.
fn rest<W: Stored>(from: &[W]) -> [f32; 16] {
    let mut all = [0f32; 16];
    all.iter_mut().zip(from).for_each(|(to, from)| *to = from.widen());
    all
}

/// The sum of each vector, as a tree of halves.
#[inline]
#[target_feature(enable = "avx2")]
fn sums8(v: [__m256; 8]) -> [f32; 8] {
    let mut fours = [_mm256_setzero_ps(); 4];
    for i in 0..4 {
        let (a, b) = (v[2 * i], v[2 * i + 1]);
        fours[i] = _mm256_add_ps(_mm256_permute2f128_ps::<0x20>(a, b), _mm256_permute2f128_ps::<0x31>(a, b));
    }
    let mut twos = [_mm256_setzero_ps(); 2];
    for i in 0..2 {
        let (a, b) = (_mm256_castps_pd(fours[2 * i]), _mm256_castps_pd(fours[2 * i + 1]));
        let (low, high) = (_mm256_unpacklo_pd(a, b), _mm256_unpackhi_pd(a, b));
        twos[i] = _mm256_add_ps(_mm256_castpd_ps(low), _mm256_castpd_ps(high));
    }
    let (even, odd) = (_mm256_shuffle_ps::<0x88>(twos[0], twos[1]), _mm256_shuffle_ps::<0xdd>(twos[0], twos[1]));
    // Lanes hold the sums of vectors 0 2 4 6 and 1 3 5 7.
    bytemuck::cast(_mm256_permutevar8x32_ps(_mm256_add_ps(even, odd), _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)))
}

/// As the scalar definition. The sums of 128 outputs stay in eight registers.
#[target_feature(enable = "avx2,fma,f16c,avx512f")]
pub(crate) fn add_weighted_avx512<W: Stored>(weights: &[f32], v: &[W], out: &mut [f32]) {
    let width = out.len();
    assert_eq!(v.len(), weights.len() * width, "values for each weight");
    let mut at = 0;
    while at + 128 <= width {
        part_avx512::<W, 8>(weights, v, at, out);
        at += 128;
    }
    while at + 16 <= width {
        part_avx512::<W, 1>(weights, v, at, out);
        at += 16;
    }
    add_rest(weights, v, at, out);
}

/// As [`add_weighted_avx512`] for two queries: a load serves two multiply-adds.
#[target_feature(enable = "avx2,fma,f16c,avx512f")]
pub(crate) fn add_weighted2_avx512<W: Stored>(weights: [&[f32]; 2], v: &[W], out: [&mut [f32]; 2]) {
    let width = out[0].len();
    let n = weights[0].len();
    assert!(out[1].len() == width && weights[1].len() == n && v.len() == n * width);
    let mut at = 0;
    while at + 128 <= width {
        // SAFETY: by the lines above the places are inside the outputs and the values of each weight.
        unsafe {
            let mut sums = [[_mm512_setzero_ps(); 8]; 2];
            for i in 0..8 {
                sums[0][i] = _mm512_loadu_ps(out[0].as_ptr().add(at + 16 * i));
                sums[1][i] = _mm512_loadu_ps(out[1].as_ptr().add(at + 16 * i));
            }
            for p in 0..n {
                let (a, b) = (_mm512_set1_ps(*weights[0].get_unchecked(p)), _mm512_set1_ps(*weights[1].get_unchecked(p)));
                let v = v.as_ptr().add(p * width + at);
                for i in 0..8 {
                    let v = W::load16(v.add(16 * i));
                    sums[0][i] = _mm512_fmadd_ps(a, v, sums[0][i]);
                    sums[1][i] = _mm512_fmadd_ps(b, v, sums[1][i]);
                }
            }
            for i in 0..8 {
                _mm512_storeu_ps(out[0].as_mut_ptr().add(at + 16 * i), sums[0][i]);
                _mm512_storeu_ps(out[1].as_mut_ptr().add(at + 16 * i), sums[1][i]);
            }
        }
        at += 128;
    }
    for (weights, out) in weights.into_iter().zip(out) {
        let mut at = at;
        while at + 16 <= width {
            part_avx512::<W, 1>(weights, v, at, out);
            at += 16;
        }
        add_rest(weights, v, at, out);
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f")]
fn part_avx512<W: Stored, const N: usize>(weights: &[f32], v: &[W], at: usize, out: &mut [f32]) {
    let width = out.len();
    assert!(at + 16 * N <= width && weights.len() * width == v.len());
    // SAFETY: by the line above the places are inside the outputs and the values of each weight.
    unsafe {
        let out = out.as_mut_ptr().add(at);
        let mut sums = [_mm512_setzero_ps(); N];
        for i in 0..N {
            sums[i] = _mm512_loadu_ps(out.add(16 * i));
        }
        for (p, weight) in weights.iter().enumerate() {
            let (weight, v) = (_mm512_set1_ps(*weight), v.as_ptr().add(p * width + at));
            for i in 0..N {
                sums[i] = _mm512_fmadd_ps(weight, W::load16(v.add(16 * i)), sums[i]);
            }
        }
        for i in 0..N {
            _mm512_storeu_ps(out.add(16 * i), sums[i]);
        }
    }
}

/// As the scalar definition. The sums of 64 outputs stay in eight registers.
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn add_weighted_avx2<W: Stored>(weights: &[f32], v: &[W], out: &mut [f32]) {
    let width = out.len();
    assert_eq!(v.len(), weights.len() * width, "values for each weight");
    let mut at = 0;
    while at + 64 <= width {
        part_avx2::<W, 8>(weights, v, at, out);
        at += 64;
    }
    while at + 8 <= width {
        part_avx2::<W, 1>(weights, v, at, out);
        at += 8;
    }
    add_rest(weights, v, at, out);
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn part_avx2<W: Stored, const N: usize>(weights: &[f32], v: &[W], at: usize, out: &mut [f32]) {
    let width = out.len();
    assert!(at + 8 * N <= width && weights.len() * width == v.len());
    // SAFETY: by the line above the places are inside the outputs and the values of each weight.
    unsafe {
        let out = out.as_mut_ptr().add(at);
        let mut sums = [_mm256_setzero_ps(); N];
        for i in 0..N {
            sums[i] = _mm256_loadu_ps(out.add(8 * i));
        }
        for (p, weight) in weights.iter().enumerate() {
            let (weight, v) = (_mm256_set1_ps(*weight), v.as_ptr().add(p * width + at));
            for i in 0..N {
                sums[i] = _mm256_fmadd_ps(weight, W::load8(v.add(8 * i)), sums[i]);
            }
        }
        for i in 0..N {
            _mm256_storeu_ps(out.add(8 * i), sums[i]);
        }
    }
}

#[inline]
#[target_feature(enable = "fma")]
fn add_rest<W: Stored>(weights: &[f32], v: &[W], at: usize, out: &mut [f32]) {
    let width = out.len();
    for (weight, v) in weights.iter().zip(v.chunks_exact(width)) {
        out[at..].iter_mut().zip(&v[at..]).for_each(|(out, v)| *out = weight.mul_add(v.widen(), *out));
    }
}

/// Values as f32.
#[target_feature(enable = "avx2,f16c")]
pub(crate) fn widen(from: &[f16], to: &mut [f32]) {
    let ((from, from_rest), (to, to_rest)) = (from.as_chunks::<8>(), to.as_chunks_mut::<8>());
    for (from, to) in from.iter().zip(to) {
        *to = bytemuck::cast(_mm256_cvtph_ps(load16(from)));
    }
    for (from, to) in from_rest.iter().zip(to_rest) {
        *to = super::widen(*from);
    }
}
