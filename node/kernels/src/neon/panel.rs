//! A panel of eight rows of weights against a tile of one or four inputs, a lane per row.
//!
//! Per four weights and four inputs: two loads of weights, one of inputs, and eight dot products by element, each of four
//! rows with one input. 24 registers hold sums.

use std::arch::aarch64::*;
use std::ops::Range;

use super::words::Eight;
use super::{load16, sdot, sdot_by};
use crate::activations::Tile;
use crate::block::SUPER;
use crate::integers::Integers;
use crate::panel::{Panel, Scratch, halves};
use crate::word::{Side, Word};

const R: usize = 8;
/// Weights of a row that decode unpacks at a time: with eight rows they fill an eighth of the first cache.
const SLICE: usize = 1024;

/// Integer sums of eight rows with `T` inputs.
type Exact<const T: usize> = [[int32x4_t; 2]; T];
/// Float sums of the same shape.
type Sums<const T: usize> = [[float32x4_t; 2]; T];

/// Unpacks `rows` and multiplies them with each tile; `write` gets the index of a tile and its products, `(T, R)`.
#[target_feature(enable = "neon,dotprod")]
pub(crate) fn panel<B: Integers, const T: usize>(
    scratch: &mut Scratch,
    [rows]: [[&[B]; R]; 1],
    tiles: &[Tile],
    write: impl Fn(usize, usize, &[[f32; R]; T]),
) {
    if let ([tile], 1, 32) = (tiles, T, B::WEIGHTS) {
        let mut out = [[0.0; R]; T];
        out[0] = store(&[from_registers(rows, tile)])[0];
        return write(0, 0, &out);
    }
    let n_blocks = rows[0].len();
    let n_slice = if tiles.len() == 1 { SLICE / B::WEIGHTS } else { n_blocks };
    let mut alone = [[vdupq_n_f32(0.0); 2]; T];
    for first in (0..n_blocks).step_by(n_slice.max(1)) {
        let range = first..(first + n_slice).min(n_blocks);
        // SAFETY: this function's target features are those the words ask for.
        unsafe { scratch.panels[0].pack::<B, Eight, R>(rows, range.clone(), false, |_| {}) };
        if let [tile] = tiles {
            add_blocks::<B, T>(&scratch.panels[0], tile, range, &mut alone);
            continue;
        }
        for (index, tile) in tiles.iter().enumerate() {
            let mut sums = [[vdupq_n_f32(0.0); 2]; T];
            add_blocks::<B, T>(&scratch.panels[0], tile, range.clone(), &mut sums);
            write(index, 0, &store(&sums));
        }
    }
    if tiles.len() == 1 {
        write(0, 0, &store(&alone));
    }
}

/// The products of blocks of 32 with one input, straight from the registers they are unpacked to: a scratch place would be
/// read but once.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn from_registers<B: Integers>(rows: [&[B]; R], tile: &Tile) -> [float32x4_t; 2] {
    let mut sums = [[vdupq_n_f32(0.0); 2]];
    for (b, inputs) in tile.qs.as_chunks::<8>().0.iter().enumerate() {
        let mut places = [std::ptr::null(); R];
        for r in 0..R {
            places[r] = std::ptr::from_ref(&rows[r][b]).cast::<u8>();
        }
        let mut exact = [[vdupq_n_s32(0); 2]];
        let (mut d, mut m) = ([0.0; R], [0.0; R]);
        // SAFETY: the places are whole blocks, and this function's target features are those the words ask for.
        unsafe {
            B::fours::<Eight>(places, |i, word| {
                let word = if B::CENTRE > 0 { word.sub_bytes(B::CENTRE as u8) } else { word };
                let x = vreinterpretq_s8_s32(vdupq_n_s32(i32::from_le_bytes(inputs[i].map(|x| x as u8))));
                for half in 0..2 {
                    exact[0][half] = sdot(exact[0][half], vreinterpretq_s8_u32(word.0[half]), x);
                }
            });
            Eight::widen(&halves(places, B::D), &mut d);
            if let Some(place) = B::M {
                Eight::widen(&halves(places, place), &mut m);
            }
        }
        add(&mut sums, &d, &[tile.d[b]], &to_float(&exact));
        if B::M.is_some() {
            add(&mut sums, &m, &[tile.d[b]], &[[vdupq_n_f32(tile.sums32[b]); 2]]);
        }
    }
    sums[0]
}

/// Adds the products of the panel, which holds blocks `range`.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn add_blocks<B: Integers, const T: usize>(panel: &Panel, tile: &Tile, range: Range<usize>, sums: &mut Sums<T>) {
    if B::WEIGHTS == SUPER { large::<B, T>(panel, tile, range, sums) } else { small::<B, T>(panel, tile, range, sums) }
}

#[inline]
#[target_feature(enable = "neon")]
fn store<const T: usize>(sums: &Sums<T>) -> [[f32; R]; T] {
    let mut out = [[0.0; R]; T];
    for (out, sums) in out.as_flattened_mut().chunks_exact_mut(4).zip(sums.as_flattened()) {
        // SAFETY: the place is four floats.
        unsafe { vst1q_f32(out.as_mut_ptr(), *sums) };
    }
    out
}

/// Blocks of 32.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn small<B: Integers, const T: usize>(panel: &Panel, tile: &Tile, range: Range<usize>, sums: &mut Sums<T>) {
    let (weights, inputs) = (rows_of::<_, R>(panel.weights()).as_chunks::<8>().0, rows_of::<_, T>(&tile.qs).as_chunks::<8>().0);
    let (d_w, m_w) = (rows_of::<_, R>(&panel.d), rows_of::<_, R>(&panel.m));
    let (d_x, sums32) = (rows_of::<_, T>(&tile.d), rows_of::<_, T>(&tile.sums32));
    for (at, b) in range.enumerate() {
        let mut exact = [[vdupq_n_s32(0); 2]; T];
        dot(&mut exact, &weights[at], &inputs[b]);
        add(sums, &d_w[at], &d_x[b], &to_float(&exact));
        if B::M.is_some() {
            let mut min = *sums;
            for t in 0..T {
                min[t] = [vdupq_n_f32(sums32[b][t]); 2];
            }
            add(sums, &m_w[at], &d_x[b], &min);
        }
    }
}

/// Super-blocks: the sums of sub-blocks are scaled as integers. The sum of the minimums stays below 2²⁴, so that floats
/// hold it exactly.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn large<B: Integers, const T: usize>(panel: &Panel, tile: &Tile, range: Range<usize>, sums: &mut Sums<T>) {
    let n_sub = SUPER / B::SUB;
    let (weights, inputs) = (rows_of::<_, R>(panel.weights()).as_chunks::<4>().0, rows_of::<_, T>(&tile.qs).as_chunks::<4>().0);
    let (d_w, m_w) = (rows_of::<_, R>(&panel.d), rows_of::<_, R>(&panel.m));
    let (scales, mins) = (rows_of::<_, R>(&panel.scales), rows_of::<_, R>(&panel.mins));
    let d_x = rows_of::<_, T>(&tile.d);
    let input_sums = rows_of::<_, T>(if B::SUB == 16 { &tile.sums16 } else { &tile.sums32 });
    for (at, b) in range.enumerate() {
        let mut total = [[vdupq_n_s32(0); 2]; T];
        for j in 0..n_sub {
            let mut exact = [[vdupq_n_s32(0); 2]; T];
            for part in 0..B::SUB / 16 {
                let (w, x) = ((at * n_sub + j) * (B::SUB / 16) + part, (b * n_sub + j) * (B::SUB / 16) + part);
                dot(&mut exact, &weights[w], &inputs[x]);
            }
            let scale = &scales[at * n_sub + j];
            let scale = [load16(scale), load16(&scale[4..])];
            for t in 0..T {
                for half in 0..2 {
                    total[t][half] = vmlaq_s32(total[t][half], exact[t][half], vreinterpretq_s32_u8(scale[half]));
                }
            }
        }
        add(sums, &d_w[at], &d_x[b], &to_float(&total));
        if B::M.is_some() {
            let mut total = [[vdupq_n_f32(0.0); 2]; T];
            for j in 0..n_sub {
                let min = floats(&mins[at * n_sub + j]);
                for t in 0..T {
                    for half in 0..2 {
                        total[t][half] = vfmaq_n_f32(total[t][half], min[half], input_sums[b * n_sub + j][t]);
                    }
                }
            }
            add(sums, &m_w[at], &d_x[b], &total);
        }
    }
}

/// Adds the products of `4 N` weights of each row with as many inputs.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn dot<const N: usize, const T: usize>(exact: &mut Exact<T>, weights: &[[[u8; 4]; R]; N], inputs: &[[[i8; 4]; T]; N]) {
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

/// Adds `d_w d_x value` to the sums.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn add<const T: usize>(sums: &mut Sums<T>, d_w: &[f32; R], d_x: &[f32; T], values: &Sums<T>) {
    let d_w = floats(d_w);
    for t in 0..T {
        for half in 0..2 {
            sums[t][half] = vfmaq_f32(sums[t][half], vmulq_n_f32(d_w[half], d_x[t]), values[t][half]);
        }
    }
}

#[inline]
#[target_feature(enable = "neon")]
fn to_float<const T: usize>(exact: &Exact<T>) -> Sums<T> {
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

/// The values of `N` rows at each position.
fn rows_of<V, const N: usize>(values: &[V]) -> &[[V; N]] {
    values.as_chunks().0
}
