//! Sixteen chains of dot products from registers, enough to hide their latency.

use std::arch::x86_64::*;
use std::hint::black_box;

#[target_feature(enable = "avx2")]
pub(crate) fn peak_avx2(n_rounds: usize) {
    let (w, x, one) = (_mm256_set1_epi8(black_box(3)), _mm256_set1_epi8(black_box(5)), _mm256_set1_epi16(1));
    let mut sums = [_mm256_setzero_si256(); 8];
    for _ in 0..2 * n_rounds {
        for sum in &mut sums {
            *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(_mm256_maddubs_epi16(w, _mm256_xor_si256(x, *sum)), one));
        }
    }
    black_box(sums);
}

#[target_feature(enable = "avx2,avxvnni")]
pub(crate) fn peak_avx_vnni(n_rounds: usize) {
    let (w, x) = (_mm256_set1_epi8(black_box(3)), _mm256_set1_epi8(black_box(5)));
    let mut sums = [_mm256_setzero_si256(); 8];
    for _ in 0..2 * n_rounds {
        for sum in &mut sums {
            *sum = _mm256_dpbusd_avx_epi32(*sum, w, x);
        }
    }
    black_box(sums);
}

#[target_feature(enable = "avx512f,avx512vnni")]
pub(crate) fn peak_avx512(n_rounds: usize) {
    let (w, x) = (_mm512_set1_epi8(black_box(3)), _mm512_set1_epi8(black_box(5)));
    let mut sums = [_mm512_setzero_si512(); 16];
    for _ in 0..n_rounds {
        for sum in &mut sums {
            *sum = _mm512_dpbusd_epi32(*sum, w, x);
        }
    }
    black_box(sums);
}
