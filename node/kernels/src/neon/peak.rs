//! Sixteen chains of dot products from registers, enough to hide their latency.

use std::arch::aarch64::*;
use std::hint::black_box;

use super::{sdot, smmla};

#[target_feature(enable = "neon,dotprod")]
pub(crate) fn peak(n_rounds: usize) {
    let (w, x) = (vdupq_n_s8(black_box(3)), vdupq_n_s8(black_box(5)));
    let mut sums = [vdupq_n_s32(0); 16];
    for _ in 0..n_rounds {
        for sum in &mut sums {
            *sum = sdot(*sum, w, x);
        }
    }
    black_box(sums);
}

/// As [`peak`], with matrix products.
#[target_feature(enable = "neon,i8mm")]
pub(crate) fn peak_i8mm(n_rounds: usize) {
    let (w, x) = (vdupq_n_s8(black_box(3)), vdupq_n_s8(black_box(5)));
    let mut sums = [vdupq_n_s32(0); 16];
    for _ in 0..n_rounds {
        for sum in &mut sums {
            *sum = smmla(*sum, x, w);
        }
    }
    black_box(sums);
}
