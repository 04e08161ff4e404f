//! Rows of weights with one input, straight from the file's bytes, for the types that files mostly hold.
//!
//! Two dot products take 32 weights of a row to four partial sums. Integers are exact in any order, so those of four rows are
//! folded into the lanes of one vector, a lane per row, where the float sum runs in the order of the definition. Nothing is
//! transposed but the scales. A whole model's decode takes 105 instructions for 256 weights of Q4_0, where transposing in registers took
//! 157, and 131 of Q4_K_M, where unpacking to panels took 256 (`scripts/compare --arm`).

use std::any::TypeId;
use std::arch::aarch64::*;

use bytemuck::cast_slice;

use super::{load16, sdot, widen_f16};
use crate::activations::Tile;
use crate::block::{BlockQ4_0, BlockQ4K, BlockQ6K, BlockQ8_0, SUPER};
use crate::integers::Integers;

/// The products of eight rows with the one input of `tile`, or `None` for a type that has no such kernel.
#[target_feature(enable = "neon,dotprod")]
pub(super) fn one_input<B: Integers>(rows: [&[B]; 8], tile: &Tile) -> Option<[float32x4_t; 2]> {
    let kind = TypeId::of::<B>();
    if kind == TypeId::of::<BlockQ4_0>() {
        return Some(eight::<B, BlockQ4_0>(rows, tile));
    }
    if kind == TypeId::of::<BlockQ8_0>() {
        return Some(eight::<B, BlockQ8_0>(rows, tile));
    }
    if kind == TypeId::of::<BlockQ4K>() {
        return Some(eight::<B, BlockQ4K>(rows, tile));
    }
    if kind == TypeId::of::<BlockQ6K>() {
        return Some(eight::<B, BlockQ6K>(rows, tile));
    }
    None
}

/// `B` is `F` by another name.
#[target_feature(enable = "neon,dotprod")]
fn eight<B: Integers, F: Four>(rows: [&[B]; 8], tile: &Tile) -> [float32x4_t; 2] {
    let mut same = [cast_slice::<B, F>(rows[0]); 8];
    for r in 1..8 {
        same[r] = &cast_slice(rows[r])[..same[0].len()];
    }
    let [a, b, c, d, e, f, g, h] = same;
    if F::WEIGHTS == SUPER {
        // Eight rows of these need more registers than there are.
        let [[first], [second]] = [together([[a, b, c, d]], tile), together([[e, f, g, h]], tile)];
        return [first, second];
    }
    together([[a, b, c, d], [e, f, g, h]], tile)
}

/// The products of `N` times four rows.
///
/// # Panics
/// When they differ in length.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn together<F: Four, const N: usize>(rows: [[&[F]; 4]; N], tile: &Tile) -> [float32x4_t; N] {
    let n_blocks = rows[0][0].len();
    assert!(rows.as_flattened().iter().all(|row| row.len() == n_blocks), "rows differ in length");
    let mut sums = [vdupq_n_f32(0.0); N];
    for b in 0..n_blocks {
        for i in 0..N {
            // SAFETY: every row has `n_blocks` blocks; this function's target features are those the trait asks for.
            sums[i] = unsafe {
                let [p, q, r, s] = rows[i];
                let w = [p.get_unchecked(b), q.get_unchecked(b), r.get_unchecked(b), s.get_unchecked(b)];
                F::add(w, tile, b, sums[i])
            };
        }
    }
    sums
}

/// A type whose blocks meet one input four rows at a time.
trait Four: Integers {
    /// Adds the products of block `b` of four rows.
    ///
    /// # Safety
    /// The processor has NEON with dot products.
    unsafe fn add(w: [&Self; 4], tile: &Tile, b: usize, sums: float32x4_t) -> float32x4_t;
}

impl Four for BlockQ4_0 {
    #[inline]
    #[target_feature(enable = "neon,dotprod")]
    unsafe fn add(w: [&BlockQ4_0; 4], tile: &Tile, b: usize, sums: float32x4_t) -> float32x4_t {
        let x: [_; 2] = inputs(&tile.qs.as_chunks::<8>().0[b]);
        // −8 for each weight: a sixteenth of what the tile holds.
        let mut parts = [vsetq_lane_s32::<0>(tile.starts[b] >> 4, vdupq_n_s32(0)); 4];
        let mut d = vdup_n_u16(0);
        for r in 0..4 {
            let qs = load16(&w[r].qs);
            parts[r] = sdot(parts[r], low(qs), x[0]);
            parts[r] = sdot(parts[r], high(qs), x[1]);
            d = set(d, r, w[r].d.to_bits());
        }
        scaled(sums, widen_f16(d), tile.d[b], fold(parts))
    }
}

impl Four for BlockQ8_0 {
    #[inline]
    #[target_feature(enable = "neon,dotprod")]
    unsafe fn add(w: [&BlockQ8_0; 4], tile: &Tile, b: usize, sums: float32x4_t) -> float32x4_t {
        let x: [_; 2] = inputs(&tile.qs.as_chunks::<8>().0[b]);
        let mut parts = [vdupq_n_s32(0); 4];
        let mut d = vdup_n_u16(0);
        for r in 0..4 {
            let (first, second) = w[r].qs.split_at(16);
            parts[r] = sdot(parts[r], vreinterpretq_s8_u8(load16(first)), x[0]);
            parts[r] = sdot(parts[r], vreinterpretq_s8_u8(load16(second)), x[1]);
            d = set(d, r, w[r].d.to_bits());
        }
        scaled(sums, widen_f16(d), tile.d[b], fold(parts))
    }
}

impl Four for BlockQ4K {
    #[inline]
    #[target_feature(enable = "neon,dotprod")]
    unsafe fn add(w: [&BlockQ4K; 4], tile: &Tile, b: usize, sums: float32x4_t) -> float32x4_t {
        // The first 16 bytes: two factors, then three words of scales and minimums.
        let [factors, p, q, c] = transposed([load(w[0], 0), load(w[1], 0), load(w[2], 0), load(w[3], 0)]);
        let (nibbles, pairs, sixes) = (vdupq_n_u32(0x0f0f_0f0f), vdupq_n_u32(0x0303_0303), vdupq_n_u32(0x3f3f_3f3f));
        let top = |word: uint32x4_t| vshlq_n_u32::<4>(vandq_u32(vshrq_n_u32::<6>(word), pairs));
        let scales = [vandq_u32(p, sixes), vorrq_u32(vandq_u32(c, nibbles), top(p))];
        let mins = [vandq_u32(q, sixes), vorrq_u32(vandq_u32(vshrq_n_u32::<4>(c), nibbles), top(q))];
        let (fours, input_sums) = (&tile.qs.as_chunks::<16>().0[4 * b..][..4], &tile.sums32.as_chunks::<8>().0[b]);
        // Below 2²⁴, so that floats hold it exactly. Short loops of their own, which compilers write out.
        let (mut scale, mut min) = ([vdupq_n_s32(0); 8], vdupq_n_f32(0.0));
        for j in 0..8 {
            scale[j] = unsigned_byte(scales[j / 4], j % 4);
            min = vfmaq_n_f32(min, vcvtq_f32_s32(unsigned_byte(mins[j / 4], j % 4)), input_sums[j]);
        }
        let mut total = vdupq_n_s32(0);
        for pair in 0..4 {
            let x: [_; 4] = inputs(&fours[pair]);
            let mut parts = [[vdupq_n_s32(0); 4]; 2];
            for r in 0..4 {
                for half in 0..2 {
                    let qs = load16(&w[r].qs[32 * pair + 16 * half..][..16]);
                    parts[0][r] = sdot(parts[0][r], low(qs), x[half]);
                    parts[1][r] = sdot(parts[1][r], high(qs), x[2 + half]);
                }
            }
            total = vmlaq_s32(total, fold(parts[0]), scale[2 * pair]);
            total = vmlaq_s32(total, fold(parts[1]), scale[2 * pair + 1]);
        }
        let (d, m) = (widen_f16(vmovn_u32(factors)), widen_f16(vshrn_n_u32::<16>(factors)));
        vfmaq_f32(scaled(sums, d, tile.d[b], total), vmulq_n_f32(vnegq_f32(m), tile.d[b]), min)
    }
}

impl Four for BlockQ6K {
    #[inline]
    #[target_feature(enable = "neon,dotprod")]
    unsafe fn add(w: [&BlockQ6K; 4], tile: &Tile, b: usize, sums: float32x4_t) -> float32x4_t {
        let scales = transposed([load(w[0], 192), load(w[1], 192), load(w[2], 192), load(w[3], 192)]);
        let (fours, starts) = (&tile.qs.as_chunks::<{ SUPER / 4 }>().0[b], &tile.starts.as_chunks::<16>().0[b]);
        let (six, two) = (vdupq_n_u8(0x3f), vdupq_n_u8(0x30));
        // A loop of its own, which compilers write out. −32 for each weight: a quarter of what the tile holds.
        let (mut scale, mut total) = ([vdupq_n_s32(0); 16], vdupq_n_s32(0));
        for j in 0..16 {
            scale[j] = signed_byte(scales[j / 4], j % 4);
            total = vmlaq_n_s32(total, scale[j], starts[j] >> 2);
        }
        for half in 0..2 {
            for part in 0..2 {
                // Planes of 32 weights, of which these are the first or the last 16.
                let at = |plane: usize| vreinterpretq_s8_u8(load16(&fours[8 * (4 * half + plane) + 4 * part..][..4]));
                let x = [at(0), at(1), at(2), at(3)];
                let mut parts = [[vdupq_n_s32(0); 4]; 4];
                for r in 0..4 {
                    let high_bits = load16(&w[r].qh[32 * half + 16 * part..][..16]);
                    let shifted = vshrq_n_u8::<2>(high_bits);
                    let (a, b) =
                        (load16(&w[r].ql[64 * half + 16 * part..][..16]), load16(&w[r].ql[64 * half + 32 + 16 * part..][..16]));
                    let planes = [
                        vandq_u8(vsliq_n_u8::<4>(a, high_bits), six),
                        vandq_u8(vsliq_n_u8::<4>(b, shifted), six),
                        vorrq_u8(vshrq_n_u8::<4>(a), vandq_u8(high_bits, two)),
                        vorrq_u8(vshrq_n_u8::<4>(b), vandq_u8(shifted, two)),
                    ];
                    for plane in 0..4 {
                        parts[plane][r] = sdot(parts[plane][r], vreinterpretq_s8_u8(planes[plane]), x[plane]);
                    }
                }
                for plane in 0..4 {
                    let j = 8 * half + 2 * plane + part;
                    total = vmlaq_s32(total, fold(parts[plane]), scale[j]);
                }
            }
        }
        let mut d = vdup_n_u16(0);
        for r in 0..4 {
            d = set(d, r, w[r].d.to_bits());
        }
        scaled(sums, widen_f16(d), tile.d[b], total)
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

/// The sums of four vectors, one in each lane.
#[inline]
#[target_feature(enable = "neon")]
fn fold(parts: [int32x4_t; 4]) -> int32x4_t {
    vpaddq_s32(vpaddq_s32(parts[0], parts[1]), vpaddq_s32(parts[2], parts[3]))
}

/// `sums + d d_x exact`, rounded once after the product of the factors.
#[inline]
#[target_feature(enable = "neon")]
fn scaled(sums: float32x4_t, d: float32x4_t, d_x: f32, exact: int32x4_t) -> float32x4_t {
    vfmaq_f32(sums, vmulq_n_f32(d, d_x), vcvtq_f32_s32(exact))
}

#[inline]
#[target_feature(enable = "neon")]
fn set(halves: uint16x4_t, r: usize, half: u16) -> uint16x4_t {
    match r {
        0 => vset_lane_u16::<0>(half, halves),
        1 => vset_lane_u16::<1>(half, halves),
        2 => vset_lane_u16::<2>(half, halves),
        _ => vset_lane_u16::<3>(half, halves),
    }
}

/// Four words of a block, from byte `at` on.
#[inline]
#[target_feature(enable = "neon")]
fn load<B: Integers>(w: &B, at: usize) -> uint32x4_t {
    vreinterpretq_u32_u8(load16(&bytemuck::bytes_of(w)[at..][..16]))
}

/// Word `i` of each row in vector `i`.
#[inline]
#[target_feature(enable = "neon")]
fn transposed(rows: [uint32x4_t; 4]) -> [uint32x4_t; 4] {
    let (a, b) = (vtrn1q_u32(rows[0], rows[1]), vtrn1q_u32(rows[2], rows[3]));
    let (c, d) = (vtrn2q_u32(rows[0], rows[1]), vtrn2q_u32(rows[2], rows[3]));
    let pair = |a, b| (vreinterpretq_u64_u32(a), vreinterpretq_u64_u32(b));
    let ((a, b), (c, d)) = (pair(a, b), pair(c, d));
    let (even, odd) = ([vtrn1q_u64(a, b), vtrn2q_u64(a, b)], [vtrn1q_u64(c, d), vtrn2q_u64(c, d)]);
    [even[0], odd[0], even[1], odd[1]].map(|word| vreinterpretq_u32_u64(word))
}

/// Byte `i` of each lane.
#[inline]
#[target_feature(enable = "neon")]
fn unsigned_byte(words: uint32x4_t, i: usize) -> int32x4_t {
    vreinterpretq_s32_u32(vandq_u32(vshlq_u32(words, vdupq_n_s32(-8 * i as i32)), vdupq_n_u32(255)))
}

#[inline]
#[target_feature(enable = "neon")]
fn signed_byte(words: uint32x4_t, i: usize) -> int32x4_t {
    vshrq_n_s32::<24>(vreinterpretq_s32_u32(vshlq_u32(words, vdupq_n_s32(24 - 8 * i as i32))))
}
