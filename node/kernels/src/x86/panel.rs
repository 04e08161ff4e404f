//! A panel of weights against a tile of inputs, a lane per row.
//!
//! For each block: four bytes of every row at a time are multiplied with four bytes of each input, which fill the lanes.
//! AVX-512, 16 rows by 8 inputs: 8 dot products, a start, a conversion, a product and a multiply-add give 512 products of
//! Q4_0, 11 instructions for two ports.

use std::arch::x86_64::*;
use std::ops::Range;

use super::lanes::{Avx2, Avx512, AvxVnni, Lanes};
use crate::activations::Tile;
use crate::block::SUPER;
use crate::integers::Integers;
use crate::panel::Panel;

/// Weights of a row that decode unpacks at a time: with sixteen rows they fill a third of the first cache.
const SLICE: usize = 1024;

/// Products of the `R` rows of `w` with the `T` inputs of `x`, unpacked and multiplied with AVX2.
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn avx2<B: Integers, const T: usize>(
    panel: &mut Panel,
    rows: [&[B]; 8],
    tiles: &[Tile],
    write: impl FnMut(usize, &[[f32; 8]; T]),
) {
    // SAFETY: this function's target features are those the lanes ask for.
    unsafe { multiply::<Avx2, B, 8, T>(panel, rows, tiles, write) }
}

/// As [`avx2`], with AVX-VNNI.
#[target_feature(enable = "avx2,fma,f16c,avxvnni")]
pub(crate) fn avx_vnni<B: Integers, const T: usize>(
    panel: &mut Panel,
    rows: [&[B]; 8],
    tiles: &[Tile],
    write: impl FnMut(usize, &[[f32; 8]; T]),
) {
    // SAFETY: as above.
    unsafe { multiply::<AvxVnni, B, 8, T>(panel, rows, tiles, write) }
}

/// As [`avx2`], with AVX-512.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vnni")]
pub(crate) fn avx512<B: Integers, const T: usize>(
    panel: &mut Panel,
    rows: [&[B]; 16],
    tiles: &[Tile],
    write: impl FnMut(usize, &[[f32; 16]; T]),
) {
    // SAFETY: as above.
    unsafe { multiply::<Avx512, B, 16, T>(panel, rows, tiles, write) }
}

/// Unpacks `rows` and multiplies them with each tile; `write` gets the index of a tile and its products, `(T, R)`.
///
/// # Safety
/// The processor has the features of `L`, and so does the function this is compiled into.
#[inline(always)]
unsafe fn multiply<L: Lanes<R>, B: Integers, const R: usize, const T: usize>(
    panel: &mut Panel,
    rows: [&[B]; R],
    tiles: &[Tile],
    mut write: impl FnMut(usize, &[[f32; R]; T]),
) {
    // The next rows lie behind these. Sixteen streams are more than the hardware's own prefetcher follows, so their bytes
    // are asked for here: some with each block in decode, some with each tile in prefill.
    let (next, n_bytes) = (rows[0].as_ptr().wrapping_add(R * rows[0].len()).cast::<i8>(), R * size_of_val(rows[0]));
    let ask = |bytes: Range<usize>| {
        for at in bytes.step_by(64) {
            // SAFETY: a prefetch reads nothing.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(next.wrapping_add(at)) };
        }
    };
    let n_blocks = rows[0].len();
    if let [tile] = tiles {
        let mut sums = [[0.0; R]; T];
        let n_slice = SLICE / B::WEIGHTS;
        for first in (0..n_blocks).step_by(n_slice) {
            let range = first..(first + n_slice).min(n_blocks);
            let block_bytes = R * size_of::<B>();
            // SAFETY: the caller's promise.
            unsafe {
                panel.pack::<B, L::I, R>(rows, range.clone(), L::UNSIGNED, |b| ask(b * block_bytes..(b + 1) * block_bytes));
                add::<L, B, R, T>(panel, tile, range, &mut sums);
            }
        }
        return write(0, &sums);
    }
    // SAFETY: the caller's promise.
    unsafe { panel.pack::<B, L::I, R>(rows, 0..n_blocks, L::UNSIGNED, |_| {}) };
    let share = n_bytes.div_ceil(tiles.len()).next_multiple_of(64);
    for (index, tile) in tiles.iter().enumerate() {
        ask(index * share..((index + 1) * share).min(n_bytes));
        let mut sums = [[0.0; R]; T];
        // SAFETY: the caller's promise.
        unsafe { add::<L, B, R, T>(panel, tile, 0..n_blocks, &mut sums) };
        write(index, &sums);
    }
}

/// Adds the products of the panel, which holds blocks `range`, to `sums`.
///
/// # Safety
/// As [`multiply`].
#[inline(always)]
unsafe fn add<L: Lanes<R>, B: Integers, const R: usize, const T: usize>(
    panel: &Panel,
    tile: &Tile,
    range: Range<usize>,
    sums: &mut [[f32; R]; T],
) {
    // SAFETY: the caller's promise, here and below.
    unsafe {
        let mut vectors = [L::splat_float(0.0); T];
        for t in 0..T {
            vectors[t] = L::load_float(&sums[t]);
        }
        if B::WEIGHTS == SUPER {
            large::<L, B, R, T>(panel, tile, range, &mut vectors);
        } else {
            small::<L, B, R, T>(panel, tile, range, &mut vectors);
        }
        for t in 0..T {
            L::store_float(&mut sums[t], vectors[t]);
        }
    }
}

/// Blocks of 32.
///
/// # Safety
/// As [`multiply`].
#[inline(always)]
unsafe fn small<L: Lanes<R>, B: Integers, const R: usize, const T: usize>(
    panel: &Panel,
    tile: &Tile,
    range: Range<usize>,
    sums: &mut [L::F; T],
) {
    let (weights, inputs) = (rows_of::<_, R>(panel.weights()).as_chunks::<8>().0, rows_of::<_, T>(&tile.qs).as_chunks::<8>().0);
    let (d_w, m_w) = (rows_of::<_, R>(&panel.d), rows_of::<_, R>(&panel.m));
    let (d_x, starts, sums32) = (rows_of::<_, T>(&tile.d), rows_of::<_, T>(&tile.starts), rows_of::<_, T>(&tile.sums32));
    // SAFETY: the caller's promise, here and below.
    unsafe {
        for (at, b) in range.enumerate() {
            let mut exact = start::<L, B, R, T>(&starts[b]);
            dot::<L, B, R, T, 8>(&mut exact, &weights[at], &inputs[b]);
            let d = L::load_float(&d_w[at]);
            for t in 0..T {
                sums[t] = L::mul_add(L::mul(d, L::splat_float(d_x[b][t])), L::to_float(exact[t]), sums[t]);
            }
            if B::M.is_some() {
                let m = L::load_float(&m_w[at]);
                for t in 0..T {
                    sums[t] = L::mul_add(L::mul(m, L::splat_float(d_x[b][t])), L::splat_float(sums32[b][t]), sums[t]);
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
unsafe fn large<L: Lanes<R>, B: Integers, const R: usize, const T: usize>(
    panel: &Panel,
    tile: &Tile,
    range: Range<usize>,
    sums: &mut [L::F; T],
) {
    let n_sub = SUPER / B::SUB;
    let (weights, inputs) = (rows_of::<_, R>(panel.weights()).as_chunks::<4>().0, rows_of::<_, T>(&tile.qs).as_chunks::<4>().0);
    let (d_w, m_w) = (rows_of::<_, R>(&panel.d), rows_of::<_, R>(&panel.m));
    let (scales, mins) = (rows_of::<_, R>(&panel.scales), rows_of::<_, R>(&panel.mins));
    let (d_x, starts) = (rows_of::<_, T>(&tile.d), rows_of::<_, T>(&tile.starts));
    let input_sums = rows_of::<_, T>(if B::SUB == 16 { &tile.sums16 } else { &tile.sums32 });
    // SAFETY: the caller's promise, here and below.
    unsafe {
        for (at, b) in range.enumerate() {
            let mut total = [L::splat(0); T];
            for j in 0..n_sub {
                let mut exact = start::<L, B, R, T>(&starts[(b * n_sub + j) * B::SUB / 16]);
                for part in 0..B::SUB / 16 {
                    let (w, x) = ((at * n_sub + j) * (B::SUB / 16) + part, (b * n_sub + j) * (B::SUB / 16) + part);
                    dot::<L, B, R, T, 4>(&mut exact, &weights[w], &inputs[x]);
                }
                let scale = L::load(&scales[at * n_sub + j]);
                for t in 0..T {
                    total[t] = L::mul_add_int(exact[t], scale, total[t]);
                }
            }
            let d = L::load_float(&d_w[at]);
            for t in 0..T {
                sums[t] = L::mul_add(L::mul(d, L::splat_float(d_x[b][t])), L::to_float(total[t]), sums[t]);
            }
            if B::M.is_some() {
                let mut total = [L::splat_float(0.0); T];
                for j in 0..n_sub {
                    let min = L::load_float(&mins[at * n_sub + j]);
                    for t in 0..T {
                        total[t] = L::mul_add(min, L::splat_float(input_sums[b * n_sub + j][t]), total[t]);
                    }
                }
                let m = L::load_float(&m_w[at]);
                for t in 0..T {
                    sums[t] = L::mul_add(L::mul(m, L::splat_float(d_x[b][t])), total[t], sums[t]);
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
unsafe fn start<L: Lanes<R>, B: Integers, const R: usize, const T: usize>(starts: &[i32; T]) -> [L::I; T] {
    // SAFETY: the caller's promise.
    unsafe {
        let mut exact = [L::splat(0); T];
        if B::CENTRE > 0 && L::UNSIGNED {
            for t in 0..T {
                exact[t] = L::splat(starts[t]);
            }
        }
        exact
    }
}

/// Adds the products of `4 N` weights of each row with as many inputs.
///
/// # Safety
/// As [`multiply`].
#[inline(always)]
unsafe fn dot<L: Lanes<R>, B: Integers, const R: usize, const T: usize, const N: usize>(
    exact: &mut [L::I; T],
    weights: &[[[u8; 4]; R]; N],
    inputs: &[[[i8; 4]; T]; N],
) {
    // SAFETY: the caller's promise.
    unsafe {
        for k in 0..N {
            let w = L::load_weights(&weights[k]);
            for t in 0..T {
                let x = inputs[k][t];
                exact[t] = if B::CENTRE > 0 { L::dot4::<true>(exact[t], w, x) } else { L::dot4::<false>(exact[t], w, x) };
            }
        }
    }
}

/// The values of `N` rows at each position.
fn rows_of<V, const N: usize>(values: &[V]) -> &[[V; N]] {
    values.as_chunks().0
}
