//! Rows of weights with one input, straight from the file's bytes, for the types that files mostly hold.
//!
//! Two dot products take 32 weights of a row to four partial sums. Integers are exact in any order, so those of four rows are
//! folded into the lanes of one vector, a lane per row, where the float sum runs in the order of the definition. Partial sums
//! are not cleared between blocks: what a block added is the difference of two folds, exact even where they wrap.

mod large;
mod small;

use std::arch::aarch64::*;
use std::ops::Range;

use bytemuck::cast_slice;

use crate::activations::Tile;
use crate::block::{BlockQ4_0, BlockQ4K, BlockQ6K, BlockQ8_0};
use crate::integers::Integers;
use crate::{QuantType, Weights};

use super::load16;

/// Multiplies eights of `rows` with the one input of `tile`; `write(row, sums)` takes those of consecutive rows. Returns the
/// rows that are left: all of them for a type that has no such kernel.
#[target_feature(enable = "neon,dotprod")]
pub(crate) fn decode(w: &Weights, rows: Range<usize>, tile: &Tile, write: impl Fn(usize, &[f32; 8])) -> Range<usize> {
    match w.quant() {
        QuantType::Q4_0 => by_eights(w, rows, write, |rows: &[BlockQ4_0]| small::eight(rows, tile)),
        QuantType::Q8_0 => by_eights(w, rows, write, |rows: &[BlockQ8_0]| small::eight(rows, tile)),
        QuantType::Q4_K => by_eights(w, rows, write, |rows: &[BlockQ4K]| large::eight(rows, tile)),
        QuantType::Q6_K => by_eights(w, rows, write, |rows: &[BlockQ6K]| large::eight(rows, tile)),
        _ => rows,
    }
}

#[inline]
#[target_feature(enable = "neon,dotprod")]
fn by_eights<F: Integers>(
    w: &Weights,
    rows: Range<usize>,
    write: impl Fn(usize, &[f32; 8]),
    multiply: impl Fn(&[F]) -> [float32x4_t; 2],
) -> Range<usize> {
    let mut first = rows.start;
    for bytes in w.rows(rows.clone()).chunks_exact(8 * w.row(0).len()) {
        let sums = multiply(cast_slice(bytes));
        let mut out = [0.0; 8];
        for (out, sums) in out.as_chunks_mut::<4>().0.iter_mut().zip(sums) {
            // SAFETY: the place is four floats.
            unsafe { vst1q_f32(out.as_mut_ptr(), sums) };
        }
        write(first, &out);
        first += 8;
    }
    first..rows.end
}

/// Partial sums of four rows, which run on from block to block.
struct Running {
    parts: [int32x4_t; 4],
    /// Their folds, when last asked.
    before: int32x4_t,
}

impl Running {
    #[inline]
    #[target_feature(enable = "neon")]
    fn new() -> Running {
        Running { parts: [vdupq_n_s32(0); 4], before: vdupq_n_s32(0) }
    }

    /// What was added to each row since last asked, a lane per row.
    #[inline]
    #[target_feature(enable = "neon")]
    fn added(&mut self) -> int32x4_t {
        let [a, b, c, d] = self.parts;
        let now = vpaddq_s32(vpaddq_s32(a, b), vpaddq_s32(c, d));
        let added = vsubq_s32(now, self.before);
        self.before = now;
        added
    }
}

/// Inputs by sixteens, of `FOURS` times four.
#[inline]
#[target_feature(enable = "neon")]
fn inputs<const FOURS: usize, const N: usize>(fours: &[[i8; 4]; FOURS]) -> [int8x16_t; N] {
    const { assert!(FOURS == 4 * N) };
    let mut x = [vdupq_n_s8(0); N];
    for i in 0..N {
        x[i] = vreinterpretq_s8_u8(load16(&fours[4 * i..][..4]));
    }
    x
}

#[inline]
#[target_feature(enable = "neon")]
fn low(qs: uint8x16_t) -> int8x16_t {
    vreinterpretq_s8_u8(vandq_u8(qs, vdupq_n_u8(15)))
}

#[inline]
#[target_feature(enable = "neon")]
fn high(qs: uint8x16_t) -> int8x16_t {
    vreinterpretq_s8_u8(vshrq_n_u8::<4>(qs))
}

/// `sums + d d_x exact`, rounded once after the product of the factors.
#[inline]
#[target_feature(enable = "neon")]
fn scaled(sums: float32x4_t, d: float32x4_t, d_x: f32, exact: int32x4_t) -> float32x4_t {
    vfmaq_f32(sums, vmulq_n_f32(d, d_x), vcvtq_f32_s32(exact))
}
