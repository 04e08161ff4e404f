//! A panel of eight rows of weights against a tile of four inputs, a lane per row.
//!
//! Per four weights: two loads of weights, one of inputs, and eight dot products by element, each of four rows with one
//! input. 24 registers hold sums.

use std::arch::aarch64::*;
use std::arch::asm;

use super::load16;
use crate::activations::Tile;
use crate::block::SUPER;
use crate::integers::Integers;
use crate::panel::Panel;

const R: usize = 8;
const T: usize = 4;

/// Integer sums of eight rows with four inputs.
type Exact = [[int32x4_t; 2]; T];
/// Float sums of the same shape.
type Sums = [[float32x4_t; 2]; T];

/// Unpacks `rows` and multiplies them with each tile; `write` gets the index of a tile and its products, `(T, R)`.
#[target_feature(enable = "neon,dotprod")]
pub(crate) fn panel<B: Integers>(panel: &mut Panel, rows: [&[B]; R], tiles: &[Tile], write: impl Fn(usize, &[[f32; R]; T])) {
    panel.pack(rows, false, |unpacked, change, out| {
        for (at, out) in out.iter_mut().enumerate() {
            for r in 0..R {
                out[r] = (unpacked[r][at].wrapping_add(change.raise)) ^ change.flip;
            }
        }
    });
    for (index, tile) in tiles.iter().enumerate() {
        let sums = if B::WEIGHTS == SUPER { large::<B>(panel, tile) } else { small::<B>(panel, tile) };
        let mut out = [[0.0; R]; T];
        for (out, sums) in out.as_flattened_mut().chunks_exact_mut(4).zip(sums.as_flattened()) {
            // SAFETY: the place is four floats.
            unsafe { vst1q_f32(out.as_mut_ptr(), *sums) };
        }
        write(index, &out);
    }
}

/// Blocks of 32.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn small<B: Integers>(panel: &Panel, tile: &Tile) -> Sums {
    let (weights, inputs) = (rows_of::<_, R>(panel.weights()).as_chunks::<8>().0, rows_of::<_, T>(&tile.qs).as_chunks::<8>().0);
    let (d_w, m_w) = (rows_of::<_, R>(&panel.d), rows_of::<_, R>(&panel.m));
    let (d_x, sums32) = (rows_of::<_, T>(&tile.d), rows_of::<_, T>(&tile.sums32));
    let mut sums = [[vdupq_n_f32(0.0); 2]; T];
    for b in 0..d_w.len() {
        let mut exact = [[vdupq_n_s32(0); 2]; T];
        dot(&mut exact, &weights[b], &inputs[b]);
        add(&mut sums, &d_w[b], &d_x[b], &to_float(&exact));
        if B::MINS {
            let mut min = sums;
            for t in 0..T {
                min[t] = [vdupq_n_f32(sums32[b][t]); 2];
            }
            add(&mut sums, &m_w[b], &d_x[b], &min);
        }
    }
    sums
}

/// Super-blocks: the sums of sub-blocks are scaled as integers. The sum of the minimums stays below 2²⁴, so that floats
/// hold it exactly.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn large<B: Integers>(panel: &Panel, tile: &Tile) -> Sums {
    let n_sub = SUPER / B::SUB;
    let (weights, inputs) = (rows_of::<_, R>(panel.weights()).as_chunks::<4>().0, rows_of::<_, T>(&tile.qs).as_chunks::<4>().0);
    let (d_w, m_w) = (rows_of::<_, R>(&panel.d), rows_of::<_, R>(&panel.m));
    let (scales, mins) = (rows_of::<_, R>(&panel.scales), rows_of::<_, R>(&panel.mins));
    let d_x = rows_of::<_, T>(&tile.d);
    let input_sums = rows_of::<_, T>(if B::SUB == 16 { &tile.sums16 } else { &tile.sums32 });
    let mut sums = [[vdupq_n_f32(0.0); 2]; T];
    for b in 0..d_w.len() {
        let mut total = [[vdupq_n_s32(0); 2]; T];
        for j in b * n_sub..(b + 1) * n_sub {
            let mut exact = [[vdupq_n_s32(0); 2]; T];
            for part in 0..B::SUB / 16 {
                let at = j * (B::SUB / 16) + part;
                dot(&mut exact, &weights[at], &inputs[at]);
            }
            let scale = [load16(&scales[j]), load16(&scales[j][4..])];
            for t in 0..T {
                for half in 0..2 {
                    total[t][half] = vmlaq_s32(total[t][half], exact[t][half], vreinterpretq_s32_u8(scale[half]));
                }
            }
        }
        add(&mut sums, &d_w[b], &d_x[b], &to_float(&total));
        if B::MINS {
            let mut total = [[vdupq_n_f32(0.0); 2]; T];
            for j in b * n_sub..(b + 1) * n_sub {
                let min = floats(&mins[j]);
                for t in 0..T {
                    for half in 0..2 {
                        total[t][half] = vfmaq_n_f32(total[t][half], min[half], input_sums[j][t]);
                    }
                }
            }
            add(&mut sums, &m_w[b], &d_x[b], &total);
        }
    }
    sums
}

/// Adds the products of `4 N` weights of each row with as many inputs.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn dot<const N: usize>(exact: &mut Exact, weights: &[[[u8; 4]; R]; N], inputs: &[[[i8; 4]; T]; N]) {
    for k in 0..N {
        let x = vreinterpretq_s8_u8(load16(&inputs[k]));
        for half in 0..2 {
            let w = vreinterpretq_s8_u8(load16(&weights[k][4 * half..]));
            exact[0][half] = sdot_by::<0>(exact[0][half], w, x);
            exact[1][half] = sdot_by::<1>(exact[1][half], w, x);
            exact[2][half] = sdot_by::<2>(exact[2][half], w, x);
            exact[3][half] = sdot_by::<3>(exact[3][half], w, x);
        }
    }
}

/// Adds `d_w d_x value` to the sums.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn add(sums: &mut Sums, d_w: &[f32; R], d_x: &[f32; T], values: &Sums) {
    let d_w = floats(d_w);
    for t in 0..T {
        for half in 0..2 {
            sums[t][half] = vfmaq_f32(sums[t][half], vmulq_n_f32(d_w[half], d_x[t]), values[t][half]);
        }
    }
}

#[inline]
#[target_feature(enable = "neon")]
fn to_float(exact: &Exact) -> Sums {
    let mut values = [[vdupq_n_f32(0.0); 2]; T];
    for t in 0..T {
        values[t] = [vcvtq_f32_s32(exact[t][0]), vcvtq_f32_s32(exact[t][1])];
    }
    values
}

#[inline]
#[target_feature(enable = "neon")]
fn floats(values: &[f32; R]) -> [float32x4_t; 2] {
    [vreinterpretq_f32_u8(load16(values)), vreinterpretq_f32_u8(load16(&values[4..]))]
}

/// `sum[i] + Σ w[4i..4i+4] · x[4 L..4 L+4]` in four lanes: SDOT by element, which the standard library does not offer on
/// stable.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn sdot_by<const L: usize>(mut sum: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
    // SAFETY: SDOT reads and writes the named registers only; the caller's target features include it.
    unsafe {
        asm!("sdot {sum:v}.4s, {w:v}.16b, {x:v}.4b[{lane}]", sum = inout(vreg) sum, w = in(vreg) w, x = in(vreg) x,
            lane = const L, options(pure, nomem, nostack, preserves_flags));
    }
    sum
}

/// The values of `N` rows at each position.
fn rows_of<V, const N: usize>(values: &[V]) -> &[[V; N]] {
    values.as_chunks().0
}
