//! Panels of weights against tiles of inputs, a lane per row.
//!
//! For each block: four bytes of every row at a time are multiplied with four bytes of each input, which fill the lanes.
//! AVX-512, two panels of 16 rows by 4 inputs: six loads feed eight dot products, where one panel by 8 inputs takes nine, which
//! is more than the two a cycle that the processor has. Per block of 32 a conversion, a product and a multiply-add follow.

use std::arch::x86_64::*;
use std::ops::Range;

use super::lanes::{Avx2, Avx512, AvxVnni, Lanes};
use crate::activations::Tile;
use crate::block::SUPER;
use crate::integers::Integers;
use crate::panel::{Panel, Scratch, halves};
use crate::word::{Side, Word};

/// Weights of a row that are unpacked at a time: with two panels of sixteen rows they fill most of the first cache.
const SLICE: usize = 1024;

/// Products of `P` times 8 rows of weights with the inputs in `tiles`, unpacked and multiplied with AVX2.
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn avx2<B: Integers, const P: usize, const T: usize>(
    scratch: &mut Scratch,
    rows: [[&[B]; 8]; P],
    tiles: &[Tile],
    write: impl FnMut(usize, usize, &[[f32; 8]; T]),
) {
    // SAFETY: this function's target features are those the lanes ask for.
    unsafe { multiply::<Avx2, B, 8, P, T>(scratch, rows, tiles, write) }
}

/// As [`avx2`], with AVX-VNNI.
#[target_feature(enable = "avx2,fma,f16c,avxvnni")]
pub(crate) fn avx_vnni<B: Integers, const P: usize, const T: usize>(
    scratch: &mut Scratch,
    rows: [[&[B]; 8]; P],
    tiles: &[Tile],
    write: impl FnMut(usize, usize, &[[f32; 8]; T]),
) {
    // SAFETY: as above.
    unsafe { multiply::<AvxVnni, B, 8, P, T>(scratch, rows, tiles, write) }
}

/// As [`avx2`], with AVX-512.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vnni")]
pub(crate) fn avx512<B: Integers, const P: usize, const T: usize>(
    scratch: &mut Scratch,
    rows: [[&[B]; 16]; P],
    tiles: &[Tile],
    write: impl FnMut(usize, usize, &[[f32; 16]; T]),
) {
    // SAFETY: as above.
    unsafe { multiply::<Avx512, B, 16, P, T>(scratch, rows, tiles, write) }
}

/// Unpacks `rows` slice by slice and multiplies each slice with every tile; `write` gets the index of a tile, that of a panel
/// and their products, `(T, R)`.
///
/// # Safety
/// The processor has the features of `L`, and so does the function this is compiled into.
#[inline(always)]
unsafe fn multiply<L: Lanes<R>, B: Integers, const R: usize, const P: usize, const T: usize>(
    scratch: &mut Scratch,
    rows: [[&[B]; R]; P],
    tiles: &[Tile],
    mut write: impl FnMut(usize, usize, &[[f32; R]; T]),
) {
    if let [tile] = tiles
        && (B::WEIGHTS < SUPER || T == 1)
    {
        for p in 0..P {
            // SAFETY: the caller's promise.
            let sums = unsafe { alone::<L, B, R, T>(rows[p], tile) };
            write(0, p, &sums);
        }
        return;
    }
    let n_blocks = rows[0][0].len();
    let n_slice = SLICE / B::WEIGHTS;
    let panels = scratch.panels.first_chunk_mut::<P>().expect("there is scratch for every panel");
    scratch.sums.clear();
    scratch.sums.resize(tiles.len() * P * T * R, 0.0);
    let sums = scratch.sums.as_chunks_mut::<R>().0.as_chunks_mut::<T>().0.as_chunks_mut::<P>().0;
    for first in (0..n_blocks).step_by(n_slice) {
        let range = first..(first + n_slice).min(n_blocks);
        for (panel, rows) in panels.iter_mut().zip(rows) {
            // The next rows lie behind these. Sixteen streams are more than the hardware's own prefetcher follows, so their
            // bytes are asked for here.
            let next = rows[0].as_ptr().wrapping_add(P * R * n_blocks).cast::<i8>();
            // SAFETY: the caller's promise.
            unsafe { panel.pack::<B, L::I, R>(rows, range.clone(), L::UNSIGNED, |b| ask::<B, R>(next, b)) };
        }
        for (sums, tile) in sums.iter_mut().zip(tiles) {
            // SAFETY: the caller's promise.
            unsafe { add::<L, B, R, P, T>(panels, tile, range.clone(), sums) };
        }
    }
    for (index, sums) in sums.iter().enumerate() {
        (0..P).for_each(|panel| write(index, panel, &sums[panel]));
    }
}

/// The products of `R` rows with the one tile there is, straight from the registers they are unpacked to: a scratch place would
/// be read but once. Of super-blocks only with one input: the sums of their sub-blocks with more do not fit the registers.
///
/// # Safety
/// As [`multiply`].
#[inline(always)]
unsafe fn alone<L: Lanes<R>, B: Integers, const R: usize, const T: usize>(rows: [&[B]; R], tile: &Tile) -> [[f32; R]; T] {
    let (n_blocks, n_sub) = (rows[0].len(), B::WEIGHTS / B::SUB);
    let next = rows[0].as_ptr().wrapping_add(R * n_blocks).cast::<i8>();
    let (inputs, d_x) = (rows_of::<_, T>(&tile.qs).chunks_exact(B::WEIGHTS / 4), rows_of::<_, T>(&tile.d));
    let n_starts = if B::WEIGHTS == SUPER { SUPER / 16 } else { 1 };
    let starts = rows_of::<_, T>(&tile.starts).chunks_exact(n_starts);
    let input_sums = rows_of::<_, T>(if B::SUB == 16 { &tile.sums16 } else { &tile.sums32 }).chunks_exact(n_sub);
    // SAFETY: the caller's promise, here and below.
    unsafe {
        let mut sums = [L::splat_float(0.0); T];
        for (b, ((x, starts), input_sums)) in inputs.zip(starts).zip(input_sums).enumerate() {
            ask::<B, R>(next, b);
            let mut places = [std::ptr::null(); R];
            for r in 0..R {
                places[r] = std::ptr::from_ref(&rows[r][b]).cast::<u8>();
            }
            let mut exact = [[L::splat(0); T]; 16];
            if B::CENTRE > 0 && L::UNSIGNED {
                // Unsigned weights are too large by their centre.
                for j in 0..n_sub {
                    for t in 0..T {
                        exact[j][t] = L::splat(starts[j * n_starts / n_sub][t] / 128 * B::CENTRE as i32);
                    }
                }
            }
            B::fours::<L::I>(places, |i, word| {
                let j = 4 * i / B::SUB;
                for t in 0..T {
                    let x = L::splat(i32::from_ne_bytes(x[i][t].map(|x| x as u8)));
                    exact[j][t] = if B::CENTRE == 0 || L::UNSIGNED {
                        L::dot4::<false>(exact[j][t], word, x)
                    } else {
                        L::dot4::<true>(exact[j][t], word.sub_bytes(B::CENTRE as u8), x)
                    };
                }
            });
            if B::WEIGHTS == SUPER {
                let mut total = L::splat(0);
                B::scales::<L::I>(places, |j, scale| total = L::mul_add_int(exact[j][0], scale, total));
                exact[0][0] = total;
            }
            let mut factors = [0.0; R];
            L::I::widen(&halves(places, B::D), &mut factors);
            let d = L::load_float(&factors);
            for t in 0..T {
                sums[t] = L::mul_add(L::mul(d, L::splat_float(d_x[b][t])), L::to_float(exact[0][t]), sums[t]);
            }
            let Some(place) = B::M else { continue };
            let mut least = L::splat_float(0.0);
            B::mins::<L::I>(places, |j, min| least = L::mul_add(L::to_float(min), L::splat_float(input_sums[j][0]), least));
            let sign = if B::MINS_SUBTRACT { 0x8000 } else { 0 };
            L::I::widen(&halves(places, place).map(|half| half ^ sign), &mut factors);
            let m = L::load_float(&factors);
            for t in 0..T {
                let least = if B::WEIGHTS == SUPER { least } else { L::splat_float(input_sums[0][t]) };
                sums[t] = L::mul_add(L::mul(m, L::splat_float(d_x[b][t])), least, sums[t]);
            }
        }
        let mut out = [[0.0; R]; T];
        for t in 0..T {
            L::store_float(&mut out[t], sums[t]);
        }
        out
    }
}

/// Asks for block `b` of the `R` rows that begin at `next`, as their bytes lie.
#[inline(always)]
fn ask<B, const R: usize>(next: *const i8, b: usize) {
    for at in (b * R * size_of::<B>()..(b + 1) * R * size_of::<B>()).step_by(64) {
        // SAFETY: a prefetch reads nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(next.wrapping_add(at)) };
    }
}

/// Adds the products of the panels, which hold blocks `range`, to `sums`.
///
/// # Safety
/// As [`multiply`].
#[inline(always)]
unsafe fn add<L: Lanes<R>, B: Integers, const R: usize, const P: usize, const T: usize>(
    panels: &[Panel; P],
    tile: &Tile,
    range: Range<usize>,
    sums: &mut [[[f32; R]; T]; P],
) {
    // SAFETY: the caller's promise, here and below.
    unsafe {
        let mut vectors = [[L::splat_float(0.0); T]; P];
        for p in 0..P {
            for t in 0..T {
                vectors[p][t] = L::load_float(&sums[p][t]);
            }
        }
        if B::WEIGHTS == SUPER {
            large::<L, B, R, P, T>(panels, tile, range, &mut vectors);
        } else {
            small::<L, B, R, P, T>(panels, tile, range, &mut vectors);
        }
        for p in 0..P {
            for t in 0..T {
                L::store_float(&mut sums[p][t], vectors[p][t]);
            }
        }
    }
}

/// Blocks of 32.
///
/// # Safety
/// As [`multiply`].
#[inline(always)]
unsafe fn small<L: Lanes<R>, B: Integers, const R: usize, const P: usize, const T: usize>(
    panels: &[Panel; P],
    tile: &Tile,
    range: Range<usize>,
    sums: &mut [[L::F; T]; P],
) {
    let inputs = rows_of::<_, T>(&tile.qs).as_chunks::<8>().0;
    let (d_x, starts, sums32) = (rows_of::<_, T>(&tile.d), rows_of::<_, T>(&tile.starts), rows_of::<_, T>(&tile.sums32));
    let weights = each(panels, |panel| rows_of::<_, R>(panel.weights()).as_chunks::<8>().0);
    let d_w = each(panels, |panel| rows_of::<_, R>(&panel.d));
    let m_w = each(panels, |panel| rows_of::<_, R>(&panel.m));
    // SAFETY: the caller's promise, here and below.
    unsafe {
        for (at, b) in range.enumerate() {
            let mut exact = start::<L, B, R, P, T>(&starts[b]);
            dot::<L, B, R, P, T, 8>(&mut exact, each(&weights, |weights| &weights[at]), &inputs[b]);
            for p in 0..P {
                let d = L::load_float(&d_w[p][at]);
                for t in 0..T {
                    let factor = L::mul(d, L::splat_float(d_x[b][t]));
                    sums[p][t] = L::mul_add(factor, L::to_float(exact[p][t]), sums[p][t]);
                }
            }
            if B::M.is_some() {
                for p in 0..P {
                    let m = L::load_float(&m_w[p][at]);
                    for t in 0..T {
                        let factor = L::mul(m, L::splat_float(d_x[b][t]));
                        sums[p][t] = L::mul_add(factor, L::splat_float(sums32[b][t]), sums[p][t]);
                    }
                }
            }
        }
    }
}

/// Super-blocks: the sums of sub-blocks are scaled as integers. The sum of the minimums stays below 2²⁴, so that floats
/// hold it exactly and one multiply-add does what takes an integer product and a sum.
///
/// # Safety
/// As [`multiply`].
#[inline(always)]
unsafe fn large<L: Lanes<R>, B: Integers, const R: usize, const P: usize, const T: usize>(
    panels: &[Panel; P],
    tile: &Tile,
    range: Range<usize>,
    sums: &mut [[L::F; T]; P],
) {
    let n_sub = SUPER / B::SUB;
    let inputs = rows_of::<_, T>(&tile.qs).as_chunks::<4>().0;
    let (d_x, starts) = (rows_of::<_, T>(&tile.d), rows_of::<_, T>(&tile.starts));
    let input_sums = rows_of::<_, T>(if B::SUB == 16 { &tile.sums16 } else { &tile.sums32 });
    let weights = each(panels, |panel| rows_of::<_, R>(panel.weights()).as_chunks::<4>().0);
    let (d_w, m_w) = (each(panels, |panel| rows_of::<_, R>(&panel.d)), each(panels, |panel| rows_of::<_, R>(&panel.m)));
    let (scales, mins) =
        (each(panels, |panel| rows_of::<_, R>(&panel.scales)), each(panels, |panel| rows_of::<_, R>(&panel.mins)));
    // SAFETY: the caller's promise, here and below.
    unsafe {
        for (at, b) in range.enumerate() {
            let mut total = [[L::splat(0); T]; P];
            for j in 0..n_sub {
                let mut exact = start::<L, B, R, P, T>(&starts[(b * n_sub + j) * B::SUB / 16]);
                for part in 0..B::SUB / 16 {
                    let (w, x) = ((at * n_sub + j) * (B::SUB / 16) + part, (b * n_sub + j) * (B::SUB / 16) + part);
                    dot::<L, B, R, P, T, 4>(&mut exact, each(&weights, |weights| &weights[w]), &inputs[x]);
                }
                for p in 0..P {
                    let scale = L::load(&scales[p][at * n_sub + j]);
                    for t in 0..T {
                        total[p][t] = L::mul_add_int(exact[p][t], scale, total[p][t]);
                    }
                }
            }
            for p in 0..P {
                let d = L::load_float(&d_w[p][at]);
                for t in 0..T {
                    let factor = L::mul(d, L::splat_float(d_x[b][t]));
                    sums[p][t] = L::mul_add(factor, L::to_float(total[p][t]), sums[p][t]);
                }
            }
            if B::M.is_some() {
                let mut total = [[L::splat_float(0.0); T]; P];
                for j in 0..n_sub {
                    for p in 0..P {
                        let min = L::load_float(&mins[p][at * n_sub + j]);
                        for t in 0..T {
                            total[p][t] = L::mul_add(min, L::splat_float(input_sums[b * n_sub + j][t]), total[p][t]);
                        }
                    }
                }
                for p in 0..P {
                    let m = L::load_float(&m_w[p][at]);
                    for t in 0..T {
                        let factor = L::mul(m, L::splat_float(d_x[b][t]));
                        sums[p][t] = L::mul_add(factor, total[p][t], sums[p][t]);
                    }
                }
            }
        }
    }
}

/// Where integer sums start: at what unsigned weights add too much, or at zero.
///
/// # Safety
/// As [`multiply`].
#[inline(always)]
unsafe fn start<L: Lanes<R>, B: Integers, const R: usize, const P: usize, const T: usize>(starts: &[i32; T]) -> [[L::I; T]; P] {
    // SAFETY: the caller's promise.
    unsafe {
        let mut exact = [L::splat(0); T];
        if B::CENTRE > 0 && L::UNSIGNED {
            for t in 0..T {
                exact[t] = L::splat(starts[t]);
            }
        }
        [exact; P]
    }
}

/// Adds the products of `4 N` weights of each row with as many inputs.
///
/// # Safety
/// As [`multiply`].
#[inline(always)]
unsafe fn dot<L: Lanes<R>, B: Integers, const R: usize, const P: usize, const T: usize, const N: usize>(
    exact: &mut [[L::I; T]; P],
    weights: [&[[[u8; 4]; R]; N]; P],
    inputs: &[[[i8; 4]; T]; N],
) {
    // SAFETY: the caller's promise.
    unsafe {
        for k in 0..N {
            let mut w = [L::splat(0); P];
            for p in 0..P {
                w[p] = L::load_weights(&weights[p][k]);
            }
            for t in 0..T {
                let x = L::splat(i32::from_ne_bytes(inputs[k][t].map(|x| x as u8)));
                for p in 0..P {
                    exact[p][t] = if B::CENTRE > 0 {
                        L::dot4::<true>(exact[p][t], w[p], x)
                    } else {
                        L::dot4::<false>(exact[p][t], w[p], x)
                    };
                }
            }
        }
    }
}

/// `f` of each panel, or of what belongs to it. Not `array::map`, which calls its closure through memory where the caller is
/// compiled for features its own crate is not.
#[inline(always)]
fn each<'a, V, U: Copy + 'a, const P: usize>(values: &'a [V; P], f: impl Fn(&'a V) -> U) -> [U; P] {
    let mut all = [f(&values[0]); P];
    for p in 1..P {
        all[p] = f(&values[p]);
    }
    all
}

/// The values of `N` rows at each position.
fn rows_of<V, const N: usize>(values: &[V]) -> &[[V; N]] {
    values.as_chunks().0
}
