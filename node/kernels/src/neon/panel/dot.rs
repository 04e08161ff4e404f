//! Dot products of eight rows of unpacked weights with one or four inputs, by element or as products of matrices.

use std::arch::aarch64::*;

use super::{Exact, R};
use crate::neon::{load16, sdot_by, smmla};

/// The products of `4 N` weights of each row with as many inputs.
///
/// # Safety
/// As [`super::multiply`].
#[inline(always)]
pub(super) unsafe fn products<const N: usize, const T: usize, const MATRIX: bool>(
    weights: &[[[u8; 4]; R]; N],
    inputs: &[[[i8; 4]; T]; N],
) -> Exact<T> {
    // SAFETY: the caller's promise.
    unsafe {
        let mut exact = [[vdupq_n_s32(0); 2]; T];
        add_products::<N, T, MATRIX>(&mut exact, weights, inputs);
        if MATRIX { by_input(exact) } else { exact }
    }
}

/// Adds the products of `4 N` weights of each row with as many inputs; for `MATRIX` in the places that [`by_input`] expects.
///
/// # Safety
/// As [`super::multiply`].
#[inline(always)]
pub(super) unsafe fn add_products<const N: usize, const T: usize, const MATRIX: bool>(
    exact: &mut Exact<T>,
    weights: &[[[u8; 4]; R]; N],
    inputs: &[[[i8; 4]; T]; N],
) {
    // SAFETY: the caller's promise.
    unsafe {
        if MATRIX {
            dot_matrix(exact, weights, inputs);
        } else {
            dot_by_element(exact, weights, inputs);
        }
    }
}

#[inline]
#[target_feature(enable = "neon,dotprod")]
fn dot_by_element<const N: usize, const T: usize>(exact: &mut Exact<T>, weights: &[[[u8; 4]; R]; N], inputs: &[[[i8; 4]; T]; N]) {
    // Sixteen bytes of inputs are four fours of one input, or one four of each of four.
    for (k, x) in inputs.as_flattened().chunks_exact(4).enumerate() {
        let x = vreinterpretq_s8_u8(load16(x));
        if T == 1 {
            for half in 0..2 {
                let w = |i: usize| vreinterpretq_s8_u8(load16(&weights[4 * k + i][4 * half..]));
                let sum = sdot_by::<0>(exact[0][half], w(0), x);
                let sum = sdot_by::<1>(sum, w(1), x);
                let sum = sdot_by::<2>(sum, w(2), x);
                exact[0][half] = sdot_by::<3>(sum, w(3), x);
            }
        } else {
            for half in 0..2 {
                let w = vreinterpretq_s8_u8(load16(&weights[k][4 * half..]));
                exact[0][half] = sdot_by::<0>(exact[0][half], w, x);
                exact[1][half] = sdot_by::<1>(exact[1][half], w, x);
                exact[2][half] = sdot_by::<2>(exact[2][half], w, x);
                exact[3][half] = sdot_by::<3>(exact[3][half], w, x);
            }
        }
    }
}

/// Eights of each row and input, four inputs: a vector of sums holds two inputs with two rows.
///
/// # Safety
/// As [`super::multiply`].
#[inline(always)]
unsafe fn dot_matrix<const N: usize, const T: usize>(
    exact: &mut Exact<T>,
    weights: &[[[u8; 4]; R]; N],
    inputs: &[[[i8; 4]; T]; N],
) {
    // SAFETY: the caller's promise.
    unsafe {
        for (w, x) in weights.as_chunks::<2>().0.iter().zip(inputs.as_chunks::<2>().0) {
            let (w, x) = (w.as_flattened(), x.as_flattened());
            for two in 0..T / 2 {
                let x = vreinterpretq_s8_u8(load16(&x[4 * two..]));
                for half in 0..2 {
                    for i in 0..2 {
                        let w = vreinterpretq_s8_u8(load16(&w[8 * half + 4 * i..]));
                        exact[2 * two + i][half] = smmla(exact[2 * two + i][half], x, w);
                    }
                }
            }
        }
    }
}

/// Sums of two inputs with two rows as sums of one input with four.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn by_input<const T: usize>(exact: Exact<T>) -> Exact<T> {
    let mut out = exact;
    for two in 0..T / 2 {
        for half in 0..2 {
            let (a, b) = (vreinterpretq_s64_s32(exact[2 * two][half]), vreinterpretq_s64_s32(exact[2 * two + 1][half]));
            out[2 * two][half] = vreinterpretq_s32_s64(vzip1q_s64(a, b));
            out[2 * two + 1][half] = vreinterpretq_s32_s64(vzip2q_s64(a, b));
        }
    }
    out
}
