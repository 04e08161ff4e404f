//! A panel of eight rows of weights against a tile of one or four inputs, a lane per row.
//!
//! Per four weights and four inputs: two loads of weights, one of inputs, and eight dot products by element, each of four
//! rows with one input. 24 registers hold sums. Where the processor multiplies matrices of bytes (`MATRIX`): per eight weights
//! and four inputs four loads of weights, two of inputs, and eight matrix products, each of two rows with two inputs.

mod dot;

use std::arch::aarch64::*;
use std::ops::Range;

use super::words::Eight;
use super::{load16, sdot};
use crate::activations::Tile;
use crate::block::SUPER;
use crate::integers::Integers;
use crate::panel::{Panel, Scratch, halves};
use crate::word::{Side, Word};
use dot::{add_products, by_input, products};

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
    rows: [[&[B]; R]; 1],
    tiles: &[Tile],
    write: impl Fn(usize, usize, &[[f32; R]; T]),
) {
    // SAFETY: this function's target features are those asked for.
    unsafe { multiply::<B, T, false>(scratch, rows, tiles, write) }
}

/// As [`panel`], with matrix products, for tiles of four inputs.
#[target_feature(enable = "neon,dotprod,i8mm")]
pub(crate) fn panel_i8mm<B: Integers>(
    scratch: &mut Scratch,
    rows: [[&[B]; R]; 1],
    tiles: &[Tile],
    write: impl Fn(usize, usize, &[[f32; R]; 4]),
) {
    // SAFETY: as above.
    unsafe { multiply::<B, 4, true>(scratch, rows, tiles, write) }
}

/// # Safety
/// The processor has dot products, for `MATRIX` also matrix products, and so does the function this is compiled into.
#[inline(always)]
unsafe fn multiply<B: Integers, const T: usize, const MATRIX: bool>(
    scratch: &mut Scratch,
    [rows]: [[&[B]; R]; 1],
    tiles: &[Tile],
    write: impl Fn(usize, usize, &[[f32; R]; T]),
) {
    const { assert!(!MATRIX || T == 4, "tiles for matrix products hold four inputs") };
    // SAFETY: the caller's promise.
    unsafe {
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
            let panel = &mut scratch.panels[0];
            panel.pack::<B, Eight, R>(rows, range.clone(), false, |_| {});
            if MATRIX {
                panel.join_fours::<R>();
            }
            if let [tile] = tiles {
                add_blocks::<B, T, MATRIX>(panel, tile, range, &mut alone);
                continue;
            }
            for (index, tile) in tiles.iter().enumerate() {
                let mut sums = [[vdupq_n_f32(0.0); 2]; T];
                add_blocks::<B, T, MATRIX>(panel, tile, range.clone(), &mut sums);
                write(index, 0, &store(&sums));
            }
        }
        if tiles.len() == 1 {
            write(0, 0, &store(&alone));
        }
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
///
/// # Safety
/// As [`multiply`].
#[inline(always)]
unsafe fn add_blocks<B: Integers, const T: usize, const MATRIX: bool>(
    panel: &Panel,
    tile: &Tile,
    range: Range<usize>,
    sums: &mut Sums<T>,
) {
    // SAFETY: the caller's promise.
    unsafe {
        if B::WEIGHTS == SUPER {
            large::<B, T, MATRIX>(panel, tile, range, sums);
        } else {
            small::<B, T, MATRIX>(panel, tile, range, sums);
        }
    }
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
///
/// # Safety
/// As [`multiply`].
#[inline(always)]
unsafe fn small<B: Integers, const T: usize, const MATRIX: bool>(
    panel: &Panel,
    tile: &Tile,
    range: Range<usize>,
    sums: &mut Sums<T>,
) {
    // SAFETY: the caller's promise.
    unsafe {
        // Of one length, so that no index is checked in the loop.
        let (n, from) = (range.len(), range.start);
        let weights = &rows_of::<_, R>(panel.weights()).as_chunks::<8>().0[..n];
        let inputs = &rows_of::<_, T>(&tile.qs).as_chunks::<8>().0[from..][..n];
        let (d_w, d_x) = (&rows_of::<_, R>(&panel.d)[..n], &rows_of::<_, T>(&tile.d)[from..][..n]);
        if B::M.is_none() {
            for b in 0..n {
                let exact = products::<8, T, MATRIX>(&weights[b], &inputs[b]);
                add(sums, &d_w[b], &d_x[b], &to_float(&exact));
            }
            return;
        }
        let (m_w, sums32) = (&rows_of::<_, R>(&panel.m)[..n], &rows_of::<_, T>(&tile.sums32)[from..][..n]);
        for b in 0..n {
            let exact = products::<8, T, MATRIX>(&weights[b], &inputs[b]);
            add(sums, &d_w[b], &d_x[b], &to_float(&exact));
            let mut min = *sums;
            for t in 0..T {
                min[t] = [vdupq_n_f32(sums32[b][t]); 2];
            }
            add(sums, &m_w[b], &d_x[b], &min);
        }
    }
}

/// Super-blocks: the sums of sub-blocks are scaled as integers. The sum of the minimums stays below 2²⁴, so that floats
/// hold it exactly.
///
/// # Safety
/// As [`multiply`].
#[inline(always)]
unsafe fn large<B: Integers, const T: usize, const MATRIX: bool>(
    panel: &Panel,
    tile: &Tile,
    range: Range<usize>,
    sums: &mut Sums<T>,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let (n, n_sub, sixteens) = (range.len(), SUPER / B::SUB, B::SUB / 16);
        let weights = &rows_of::<_, R>(panel.weights()).as_chunks::<4>().0.as_chunks::<16>().0[..n];
        let inputs = &rows_of::<_, T>(&tile.qs).as_chunks::<4>().0.as_chunks::<16>().0[range.start..][..n];
        let (d_w, m_w) = (&rows_of::<_, R>(&panel.d)[..n], &rows_of::<_, R>(&panel.m)[..n]);
        let d_x = &rows_of::<_, T>(&tile.d)[range.start..][..n];
        let input_sums = rows_of::<_, T>(if B::SUB == 16 { &tile.sums16 } else { &tile.sums32 });
        for (at, b) in range.enumerate() {
            let (weights, inputs) = (&weights[at], &inputs[at]);
            let scales = &rows_of::<_, R>(&panel.scales)[at * n_sub..][..n_sub];
            let mut total = [[vdupq_n_s32(0); 2]; T];
            for j in 0..n_sub {
                let mut exact = [[vdupq_n_s32(0); 2]; T];
                for k in j * sixteens..(j + 1) * sixteens {
                    add_products::<4, T, MATRIX>(&mut exact, &weights[k], &inputs[k]);
                }
                let exact = if MATRIX { by_input(exact) } else { exact };
                let scale = [load16(&scales[j]), load16(&scales[j][4..])];
                for t in 0..T {
                    for half in 0..2 {
                        total[t][half] = vmlaq_s32(total[t][half], exact[t][half], vreinterpretq_s32_u8(scale[half]));
                    }
                }
            }
            add(sums, &d_w[at], &d_x[at], &to_float(&total));
            if B::M.is_some() {
                let mins = &rows_of::<_, R>(&panel.mins)[at * n_sub..][..n_sub];
                let input_sums = &input_sums[b * n_sub..][..n_sub];
                let mut total = [[vdupq_n_f32(0.0); 2]; T];
                for j in 0..n_sub {
                    let (min, x) = (floats(&mins[j]), each_of(&input_sums[j]));
                    for t in 0..T {
                        for half in 0..2 {
                            total[t][half] = add_by(total[t][half], min[half], x, t);
                        }
                    }
                }
                add(sums, &m_w[at], &d_x[at], &total);
            }
        }
    }
}

/// Adds `d_w d_x value` to the sums.
#[inline]
#[target_feature(enable = "neon")]
fn add<const T: usize>(sums: &mut Sums<T>, d_w: &[f32; R], d_x: &[f32; T], values: &Sums<T>) {
    let (d_w, d_x) = (floats(d_w), each_of(d_x));
    for t in 0..T {
        for half in 0..2 {
            sums[t][half] = vfmaq_f32(sums[t][half], times(d_w[half], d_x, t), values[t][half]);
        }
    }
}

/// One or four values, each in a lane of its own.
#[inline]
#[target_feature(enable = "neon")]
fn each_of<const T: usize>(values: &[f32; T]) -> float32x4_t {
    if T == 4 { vreinterpretq_f32_u8(load16(values)) } else { vdupq_n_f32(values[0]) }
}

/// `values · factors[lane]`.
#[inline]
#[target_feature(enable = "neon")]
fn times(values: float32x4_t, factors: float32x4_t, lane: usize) -> float32x4_t {
    match lane {
        0 => vmulq_laneq_f32::<0>(values, factors),
        1 => vmulq_laneq_f32::<1>(values, factors),
        2 => vmulq_laneq_f32::<2>(values, factors),
        _ => vmulq_laneq_f32::<3>(values, factors),
    }
}

/// `sum + values · factors[lane]`.
#[inline]
#[target_feature(enable = "neon")]
fn add_by(sum: float32x4_t, values: float32x4_t, factors: float32x4_t, lane: usize) -> float32x4_t {
    match lane {
        0 => vfmaq_laneq_f32::<0>(sum, values, factors),
        1 => vfmaq_laneq_f32::<1>(sum, values, factors),
        2 => vfmaq_laneq_f32::<2>(sum, values, factors),
        _ => vfmaq_laneq_f32::<3>(sum, values, factors),
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
