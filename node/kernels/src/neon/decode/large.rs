//! Super-blocks: sums of sub-blocks meet integer scales before one float factor. Four rows together, as eight need more
//! registers than there are.

use std::arch::aarch64::*;

use super::super::{load16, sdot, sdot_by, widen_f16};
use super::{Running, high, inputs, low, scaled};
use crate::activations::Tile;
use crate::block::{BlockQ4K, BlockQ6K, SUPER};
use crate::integers::Integers;

/// A type whose blocks meet one input four rows at a time.
pub(super) trait Large: Integers {
    /// Adds the products of a block of four rows.
    ///
    /// # Safety
    /// The processor has NEON with dot products.
    unsafe fn add(w: [&Self; 4], x: &Input, sums: float32x4_t) -> float32x4_t;
}

/// A super-block of the one input.
pub(super) struct Input<'a> {
    x: &'a [[i8; 4]; SUPER / 4],
    d: f32,
    sums32: &'a [f32; 8],
    /// −128 times the sums of 16.
    starts: &'a [[i32; 4]; 4],
}

/// The products of eight rows, one after the other in `rows`, with the one input of `tile`.
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(super) fn eight<F: Large>(rows: &[F], tile: &Tile) -> [float32x4_t; 2] {
    let (first, second) = rows.split_at(rows.len() / 2);
    [four(first, tile), four(second, tile)]
}

#[inline]
#[target_feature(enable = "neon,dotprod")]
fn four<F: Large>(rows: &[F], tile: &Tile) -> float32x4_t {
    let n = rows.len() / 4;
    let (p, q, r, s) = (&rows[..n], &rows[n..2 * n], &rows[2 * n..3 * n], &rows[3 * n..]);
    let (x, d) = (tile.qs.as_chunks().0, &tile.d);
    let (sums32, starts) = (tile.sums32.as_chunks().0, tile.starts.as_chunks::<4>().0.as_chunks().0);
    assert!(
        s.len() == n && x.len() == n && d.len() == n && sums32.len() == n && starts.len() == n,
        "rows and input differ in length"
    );
    let mut sums = vdupq_n_f32(0.0);
    for b in 0..n {
        let input = Input { x: &x[b], d: d[b], sums32: &sums32[b], starts: &starts[b] };
        // SAFETY: this function's target features are those the trait asks for.
        sums = unsafe { F::add([&p[b], &q[b], &r[b], &s[b]], &input, sums) };
    }
    sums
}

/// Integer sums of a block so far, and what their steps are scaled by.
struct Exact {
    running: Running,
    total: int32x4_t,
    scales: [uint32x4_t; 4],
}

impl Exact {
    /// Adds what was summed since last asked, times scale `j` of each row.
    #[inline]
    #[target_feature(enable = "neon")]
    fn scale(&mut self, j: usize) {
        self.total = vmlaq_s32(self.total, self.running.added(), byte(self.scales[j / 4], j % 4));
    }
}

impl Large for BlockQ4K {
    #[inline]
    #[target_feature(enable = "neon,dotprod")]
    unsafe fn add(w: [&BlockQ4K; 4], x: &Input, sums: float32x4_t) -> float32x4_t {
        // The first 16 bytes: two factors, then three words of scales and minimums.
        let [factors, p, q, c] = transposed([load(w[0], 0), load(w[1], 0), load(w[2], 0), load(w[3], 0)]);
        let (nibbles, pairs, sixes) = (vdupq_n_u32(0x0f0f_0f0f), vdupq_n_u32(0x3030_3030), vdupq_n_u32(0x3f3f_3f3f));
        let top = |word: uint32x4_t| vandq_u32(vshrq_n_u32::<2>(word), pairs);
        let scales = [vandq_u32(p, sixes), vorrq_u32(vandq_u32(c, nibbles), top(p))];
        let mins = [vandq_u32(q, sixes), vorrq_u32(vandq_u32(vshrq_n_u32::<4>(c), nibbles), top(q))];
        let mut exact =
            Exact { running: Running::new(), total: vdupq_n_s32(0), scales: [scales[0], scales[1], scales[0], scales[1]] };
        // By hand, as it is not written out otherwise, and then every scale is looked for anew.
        pair_q4_k(w, x, 0, &mut exact);
        pair_q4_k(w, x, 1, &mut exact);
        pair_q4_k(w, x, 2, &mut exact);
        pair_q4_k(w, x, 3, &mut exact);
        let (d, m) = (widen_f16(vmovn_u32(factors)), widen_f16(vshrn_n_u32::<16>(factors)));
        let min = vcvtq_f32_s32(products(mins, x.sums32));
        vfmaq_f32(scaled(sums, d, x.d, exact.total), vmulq_n_f32(vnegq_f32(m), x.d), min)
    }
}

/// Sub-blocks `2 pair` and the next, which share bytes.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn pair_q4_k(w: [&BlockQ4K; 4], x: &Input, pair: usize, exact: &mut Exact) {
    let x: [_; 4] = inputs(&x.x.as_chunks::<16>().0[pair]);
    let mut qs = [[vdupq_n_u8(0); 2]; 4];
    for r in 0..4 {
        qs[r] = [load16(&w[r].qs[32 * pair..]), load16(&w[r].qs[32 * pair + 16..][..16])];
        exact.running.parts[r] = sdot(sdot(exact.running.parts[r], low(qs[r][0]), x[0]), low(qs[r][1]), x[1]);
    }
    exact.scale(2 * pair);
    for r in 0..4 {
        exact.running.parts[r] = sdot(sdot(exact.running.parts[r], high(qs[r][0]), x[2]), high(qs[r][1]), x[3]);
    }
    exact.scale(2 * pair + 1);
}

/// Products of eight bytes of each lane, below 128, with as many sums of inputs, which a product of bytes takes in two parts.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn products(bytes: [uint32x4_t; 2], sums: &[f32; 8]) -> int32x4_t {
    let sums = [load16(sums), load16(&sums[4..])].map(|sums| vcvtq_s32_f32(vreinterpretq_f32_u8(sums)));
    let sums = vmovn_high_s32(vmovn_s32(sums[0]), sums[1]);
    let parts = vmovn_high_s16(vmovn_s16(vandq_s16(sums, vdupq_n_s16(127))), vshrq_n_s16::<7>(sums));
    let bytes = bytes.map(|bytes| vreinterpretq_s8_u32(bytes));
    let low = sdot_by::<1>(sdot_by::<0>(vdupq_n_s32(0), bytes[0], parts), bytes[1], parts);
    let high = sdot_by::<3>(sdot_by::<2>(vdupq_n_s32(0), bytes[0], parts), bytes[1], parts);
    vaddq_s32(low, vshlq_n_s32::<7>(high))
}

/// The first or the last 16 weights of each of the four planes of 32 in a half. As a function it is not inlined, and then keeps
/// its sums in memory.
macro_rules! quarter_q6_k {
    ($half:literal, $part:literal, $w:ident, $x:ident, $exact:ident, $centre:ident) => {
        let (six, two) = (vdupq_n_u8(0x3f), vdupq_n_u8(0x30));
        let starts = |i: usize| vreinterpretq_s32_u8(load16(&$x.starts[i]));
        let mut planes = [[vdupq_n_u8(0); 4]; 4];
        for r in 0..4 {
            let high_bits = load16(&$w[r].qh[32 * $half + 16 * $part..][..16]);
            let shifted = vshrq_n_u8::<2>(high_bits);
            let a = load16(&$w[r].ql[64 * $half + 16 * $part..][..16]);
            let b = load16(&$w[r].ql[64 * $half + 32 + 16 * $part..][..16]);
            planes[2][r] = vsraq_n_u8::<4>(vandq_u8(high_bits, two), a);
            planes[3][r] = vsraq_n_u8::<4>(vandq_u8(shifted, two), b);
            planes[0][r] = vandq_u8(vsliq_n_u8::<4>(a, high_bits), six);
            planes[1][r] = vandq_u8(vsliq_n_u8::<4>(b, shifted), six);
        }
        for plane in 0..4 {
            let inputs = vreinterpretq_s8_u8(load16(&$x.x[8 * (4 * $half + plane) + 4 * $part..][..4]));
            for r in 0..4 {
                $exact.running.parts[r] = sdot($exact.running.parts[r], vreinterpretq_s8_u8(planes[plane][r]), inputs);
            }
            let j = 8 * $half + 2 * plane + $part;
            $exact.scale(j);
            $centre = add_lane($centre, byte($exact.scales[j / 4], j % 4), starts(j / 4), j % 4);
        }
    };
}

impl Large for BlockQ6K {
    #[inline]
    #[target_feature(enable = "neon,dotprod")]
    unsafe fn add(w: [&BlockQ6K; 4], x: &Input, sums: float32x4_t) -> float32x4_t {
        // Raised by 128, so that they need no sign.
        let mut scales = transposed([load(w[0], 192), load(w[1], 192), load(w[2], 192), load(w[3], 192)]);
        for four in &mut scales {
            *four = veorq_u32(*four, vdupq_n_u32(0x8080_8080));
        }
        let mut exact = Exact { running: Running::new(), total: vdupq_n_s32(0), scales };
        let mut centre = vdupq_n_s32(0);
        quarter_q6_k!(0, 0, w, x, exact, centre);
        quarter_q6_k!(0, 1, w, x, exact, centre);
        quarter_q6_k!(1, 0, w, x, exact, centre);
        quarter_q6_k!(1, 1, w, x, exact, centre);
        // −32 for each weight: a quarter of what the input holds. 128 is taken from each scale again.
        let [a, b, c, d] = x.starts.map(|four| vreinterpretq_s32_u8(load16(&four)));
        let all = vaddvq_s32(vaddq_s32(vaddq_s32(a, b), vaddq_s32(c, d)));
        let centre = vsubq_s32(centre, vdupq_n_s32(all << 7));
        let total = vsubq_s32(exact.total, vshlq_n_s32::<7>(exact.running.before));
        let mut d = vdup_n_u16(0);
        for r in 0..4 {
            d = set(d, r, w[r].d.to_bits());
        }
        scaled(sums, widen_f16(d), x.d, vsraq_n_s32::<2>(total, centre))
    }
}

/// `sum + values · factors[lane]`.
#[inline]
#[target_feature(enable = "neon")]
fn add_lane(sum: int32x4_t, values: int32x4_t, factors: int32x4_t, lane: usize) -> int32x4_t {
    match lane {
        0 => vmlaq_laneq_s32::<0>(sum, values, factors),
        1 => vmlaq_laneq_s32::<1>(sum, values, factors),
        2 => vmlaq_laneq_s32::<2>(sum, values, factors),
        _ => vmlaq_laneq_s32::<3>(sum, values, factors),
    }
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
fn byte(words: uint32x4_t, i: usize) -> int32x4_t {
    // Bytes past the last are looked up as zeros.
    let places = vdupq_n_u32(0xffff_ff00 | i as u32);
    let lanes = vreinterpretq_u32_u8(load16(&[0u8, 0, 0, 0, 4, 0, 0, 0, 8, 0, 0, 0, 12, 0, 0, 0]));
    vreinterpretq_s32_u8(vqtbl1q_u8(vreinterpretq_u8_u32(words), vreinterpretq_u8_u32(vaddq_u32(places, lanes))))
}
