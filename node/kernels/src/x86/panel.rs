//! A panel of weights against a tile of inputs, a lane per row.
//!
//! For each block: four bytes of every row at a time are multiplied with four bytes of each input, which fill the lanes.
//! AVX-512, 16 rows by 8 inputs: 8 dot products, a start, a conversion, a product and a multiply-add give 512 products of
//! Q4_0, 11 instructions for two ports.

use std::arch::x86_64::*;

use super::lanes::{Avx2, Avx512, AvxVnni, Lanes};
use super::load32;
use crate::activations::Tile;
use crate::block::SUPER;
use crate::integers::Integers;
use crate::panel::{Change, Panel};

/// Products of the `R` rows of `w` with the `T` inputs of `x`, unpacked and multiplied with AVX2.
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn avx2<B: Integers>(panel: &mut Panel, rows: [&[B]; 8], tiles: &[Tile], write: impl FnMut(usize, &[[f32; 8]; 4])) {
    // SAFETY: this function's target features are those the lanes ask for.
    unsafe { multiply::<Avx2, B, 8, 4>(panel, rows, tiles, write) }
}

/// As [`avx2`], with AVX-VNNI.
#[target_feature(enable = "avx2,fma,f16c,avxvnni")]
pub(crate) fn avx_vnni<B: Integers>(
    panel: &mut Panel,
    rows: [&[B]; 8],
    tiles: &[Tile],
    write: impl FnMut(usize, &[[f32; 8]; 4]),
) {
    // SAFETY: as above.
    unsafe { multiply::<AvxVnni, B, 8, 4>(panel, rows, tiles, write) }
}

/// As [`avx2`], with AVX-512.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512vnni")]
pub(crate) fn avx512<B: Integers>(
    panel: &mut Panel,
    rows: [&[B]; 16],
    tiles: &[Tile],
    write: impl FnMut(usize, &[[f32; 16]; 8]),
) {
    // SAFETY: as above.
    unsafe { multiply::<Avx512, B, 16, 8>(panel, rows, tiles, write) }
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
    panel.pack(rows, L::UNSIGNED, |unpacked, change, out| {
        // SAFETY: every implementor of `Lanes` has AVX2.
        unsafe { interleave(unpacked, change, out) }
    });
    // The next rows lie behind these. Sixteen streams are more than the hardware's own prefetcher follows, so their bytes
    // are asked for here, some with each tile.
    let (next, n_bytes) = (rows[0].as_ptr().wrapping_add(R * rows[0].len()).cast::<i8>(), R * size_of_val(rows[0]));
    let share = n_bytes.div_ceil(tiles.len()).next_multiple_of(64);
    for (index, tile) in tiles.iter().enumerate() {
        for at in (index * share..((index + 1) * share).min(n_bytes)).step_by(64) {
            // SAFETY: a prefetch reads nothing.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(next.wrapping_add(at)) };
        }
        // SAFETY: the caller's promise.
        let products =
            unsafe { if B::WEIGHTS == SUPER { large::<L, B, R, T>(panel, tile) } else { small::<L, B, R, T>(panel, tile) } };
        write(index, &products);
    }
}

/// Eight words of eight rows at a time, as an 8 by 8 matrix turned over in registers.
#[inline]
#[target_feature(enable = "avx2")]
fn interleave<const R: usize>(unpacked: &[[u32; SUPER / 4]; R], change: Change, out: &mut [[u32; R]]) {
    let (raise, flip) = (_mm256_set1_epi32(change.raise as i32), _mm256_set1_epi32(change.flip as i32));
    for (part, out) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        for first in (0..R).step_by(8) {
            let mut v = [raise; 8];
            for i in 0..8 {
                let words = load32(&unpacked[first + i][8 * part..]);
                v[i] = _mm256_xor_si256(_mm256_add_epi32(words, raise), flip);
            }
            let v = turn(v);
            for i in 0..8 {
                out[i][first..first + 8].copy_from_slice(&bytemuck::cast::<__m256i, [u32; 8]>(v[i]));
            }
        }
    }
}

/// An 8 by 8 matrix of words with rows and columns exchanged.
#[inline]
#[target_feature(enable = "avx2")]
fn turn(v: [__m256i; 8]) -> [__m256i; 8] {
    let mut pairs = v;
    for i in 0..4 {
        pairs[2 * i] = _mm256_unpacklo_epi32(v[2 * i], v[2 * i + 1]);
        pairs[2 * i + 1] = _mm256_unpackhi_epi32(v[2 * i], v[2 * i + 1]);
    }
    let mut fours = v;
    for i in 0..2 {
        for j in 0..2 {
            let (a, b) = (pairs[4 * i + j], pairs[4 * i + j + 2]);
            fours[4 * i + 2 * j] = _mm256_unpacklo_epi64(a, b);
            fours[4 * i + 2 * j + 1] = _mm256_unpackhi_epi64(a, b);
        }
    }
    let mut out = v;
    for i in 0..4 {
        out[i] = _mm256_permute2x128_si256::<0x20>(fours[i], fours[i + 4]);
        out[i + 4] = _mm256_permute2x128_si256::<0x31>(fours[i], fours[i + 4]);
    }
    out
}

/// Blocks of 32.
///
/// # Safety
/// As [`multiply`].
#[inline(always)]
unsafe fn small<L: Lanes<R>, B: Integers, const R: usize, const T: usize>(panel: &Panel, tile: &Tile) -> [[f32; R]; T] {
    let (weights, inputs) = (rows_of::<_, R>(panel.weights()).as_chunks::<8>().0, rows_of::<_, T>(&tile.qs).as_chunks::<8>().0);
    let (d_w, m_w) = (rows_of::<_, R>(&panel.d), rows_of::<_, R>(&panel.m));
    let (d_x, starts, sums32) = (rows_of::<_, T>(&tile.d), rows_of::<_, T>(&tile.starts), rows_of::<_, T>(&tile.sums32));
    // SAFETY: the caller's promise, here and below.
    unsafe {
        let mut sums = [L::splat_float(0.0); T];
        for b in 0..d_w.len() {
            let mut exact = start::<L, B, R, T>(&starts[b]);
            dot::<L, B, R, T, 8>(&mut exact, &weights[b], &inputs[b]);
            let d = L::load_float(&d_w[b]);
            for t in 0..T {
                sums[t] = L::mul_add(L::mul(d, L::splat_float(d_x[b][t])), L::to_float(exact[t]), sums[t]);
            }
            if B::MINS {
                let m = L::load_float(&m_w[b]);
                for t in 0..T {
                    sums[t] = L::mul_add(L::mul(m, L::splat_float(d_x[b][t])), L::splat_float(sums32[b][t]), sums[t]);
                }
            }
        }
        store::<L, R, T>(sums)
    }
}

/// Super-blocks: the sums of sub-blocks are scaled as integers. The sum of the minimums stays below 2²⁴, so that floats
/// hold it exactly and one multiply-add does what takes an integer product and a sum.
///
/// # Safety
/// As [`multiply`].
#[inline(always)]
unsafe fn large<L: Lanes<R>, B: Integers, const R: usize, const T: usize>(panel: &Panel, tile: &Tile) -> [[f32; R]; T] {
    let n_sub = SUPER / B::SUB;
    let (weights, inputs) = (rows_of::<_, R>(panel.weights()).as_chunks::<4>().0, rows_of::<_, T>(&tile.qs).as_chunks::<4>().0);
    let (d_w, m_w) = (rows_of::<_, R>(&panel.d), rows_of::<_, R>(&panel.m));
    let (scales, mins) = (rows_of::<_, R>(&panel.scales), rows_of::<_, R>(&panel.mins));
    let (d_x, starts) = (rows_of::<_, T>(&tile.d), rows_of::<_, T>(&tile.starts));
    let input_sums = rows_of::<_, T>(if B::SUB == 16 { &tile.sums16 } else { &tile.sums32 });
    // SAFETY: the caller's promise, here and below.
    unsafe {
        let mut sums = [L::splat_float(0.0); T];
        for b in 0..d_w.len() {
            let mut total = [L::splat(0); T];
            for j in b * n_sub..(b + 1) * n_sub {
                let mut exact = start::<L, B, R, T>(&starts[j * B::SUB / 16]);
                for part in 0..B::SUB / 16 {
                    let at = j * (B::SUB / 16) + part;
                    dot::<L, B, R, T, 4>(&mut exact, &weights[at], &inputs[at]);
                }
                let scale = L::load(&scales[j]);
                for t in 0..T {
                    total[t] = L::mul_add_int(exact[t], scale, total[t]);
                }
            }
            let d = L::load_float(&d_w[b]);
            for t in 0..T {
                sums[t] = L::mul_add(L::mul(d, L::splat_float(d_x[b][t])), L::to_float(total[t]), sums[t]);
            }
            if B::MINS {
                let mut total = [L::splat_float(0.0); T];
                for j in b * n_sub..(b + 1) * n_sub {
                    let min = L::load_float(&mins[j]);
                    for t in 0..T {
                        total[t] = L::mul_add(min, L::splat_float(input_sums[j][t]), total[t]);
                    }
                }
                let m = L::load_float(&m_w[b]);
                for t in 0..T {
                    sums[t] = L::mul_add(L::mul(m, L::splat_float(d_x[b][t])), total[t], sums[t]);
                }
            }
        }
        store::<L, R, T>(sums)
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

/// # Safety
/// As [`multiply`].
#[inline(always)]
unsafe fn store<L: Lanes<R>, const R: usize, const T: usize>(sums: [L::F; T]) -> [[f32; R]; T] {
    let mut out = [[0.0; R]; T];
    for t in 0..T {
        // SAFETY: the caller's promise.
        unsafe { L::store_float(&mut out[t], sums[t]) };
    }
    out
}

/// The values of `N` rows at each position.
fn rows_of<V, const N: usize>(values: &[V]) -> &[[V; N]] {
    values.as_chunks().0
}
