//! Blocks of 32: a factor, then the integers.
//!
//! Eight rows together. Each is read from front to end by a place of its own that moves with every load, so that no address
//! is computed.

use std::arch::aarch64::*;
use std::arch::asm;
use std::marker::PhantomData;

use super::super::{sdot, widen_f16};
use super::{Running, high, inputs, low};
use crate::activations::Tile;
use crate::block::{BlockQ4_0, BlockQ8_0};
use crate::integers::Integers;

/// A type whose blocks are a factor and then integers.
pub(super) trait Small: Integers {
    /// Whether what [`Small::add`] sums are the weights plus [`Integers::CENTRE`].
    const RAISED: bool;

    /// Reads the integers of a block and adds their products.
    ///
    /// # Safety
    /// They are what `row` reads next.
    unsafe fn add(row: &mut Reader<Self>, sum: int32x4_t, x: [int8x16_t; 2]) -> int32x4_t;
}

impl Small for BlockQ4_0 {
    const RAISED: bool = true;

    #[inline]
    #[target_feature(enable = "neon,dotprod")]
    unsafe fn add(row: &mut Reader<Self>, sum: int32x4_t, x: [int8x16_t; 2]) -> int32x4_t {
        // SAFETY: the caller's promise; 16 bytes of integers.
        let qs = unsafe { row.sixteen() };
        sdot(sdot(sum, low(qs), x[0]), high(qs), x[1])
    }
}

impl Small for BlockQ8_0 {
    const RAISED: bool = false;

    #[inline]
    #[target_feature(enable = "neon,dotprod")]
    unsafe fn add(row: &mut Reader<Self>, sum: int32x4_t, x: [int8x16_t; 2]) -> int32x4_t {
        // SAFETY: the caller's promise; 32 bytes of integers.
        let qs = unsafe { row.thirty_two() };
        sdot(sdot(sum, qs[0], x[0]), qs[1], x[1])
    }
}

/// The products of eight rows, one after the other in `rows`, with the one input of `tile`.
///
/// # Panics
/// When the rows are longer than the input.
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(super) fn eight<F: Small>(rows: &[F], tile: &Tile) -> [float32x4_t; 2] {
    let n_blocks = rows.len() / 8;
    let (x, d_x, x_sums) = (&tile.qs.as_chunks::<8>().0[..n_blocks], &tile.d[..n_blocks], &tile.sums32[..n_blocks]);
    let mut eight = Eight::new(rows);
    // Two blocks a round: nothing is moved from register to register, and half as much counted.
    let (pairs, last) = x.as_chunks::<2>();
    let (d_pairs, d_last) = d_x.as_chunks::<2>();
    let (sum_pairs, sum_last) = x_sums.as_chunks::<2>();
    for ((x, d_x), x_sums) in pairs.iter().zip(d_pairs).zip(sum_pairs) {
        // SAFETY: each row has `n_blocks` blocks, as the input, of which these are the next two.
        unsafe {
            eight.add(&x[0], d_x[0], x_sums[0]);
            eight.add(&x[1], d_x[1], x_sums[1]);
        }
    }
    for ((x, d_x), x_sum) in last.iter().zip(d_last).zip(sum_last) {
        // SAFETY: as above.
        unsafe { eight.add(x, *d_x, *x_sum) };
    }
    eight.sums
}

/// Eight rows being read, and the sums so far.
struct Eight<'a, F> {
    rows: [Reader<'a, F>; 8],
    running: [Running; 2],
    sums: [float32x4_t; 2],
}

impl<'a, F: Small> Eight<'a, F> {
    #[inline]
    #[target_feature(enable = "neon")]
    fn new(rows: &'a [F]) -> Eight<'a, F> {
        let mut readers = [Reader::new(rows, 0); 8];
        for r in 1..8 {
            readers[r] = Reader::new(rows, r * (rows.len() / 8));
        }
        Eight { rows: readers, running: [Running::new(), Running::new()], sums: [vdupq_n_f32(0.0); 2] }
    }

    /// Adds the next block of each row, times the input `x` of factor `d_x`, which sums to `x_sum`.
    ///
    /// # Safety
    /// No row is at its end.
    #[inline]
    #[target_feature(enable = "neon,dotprod")]
    unsafe fn add(&mut self, x: &[[i8; 4]; 8], d_x: f32, x_sum: f32) {
        let x: [_; 2] = inputs(x);
        for half in 0..2 {
            let (running, mut d) = (&mut self.running[half], vdup_n_u16(0));
            for r in 0..4 {
                let row = &mut self.rows[4 * half + r];
                // SAFETY: a block is a factor and then integers, of which there is one by the caller's promise.
                unsafe {
                    d = row.factor(r, d);
                    running.parts[r] = F::add(row, running.parts[r], x);
                }
            }
            let mut exact = vcvtq_f32_s32(running.added());
            if F::RAISED {
                // Below 2²⁴, where floats are exact.
                exact = vfmsq_n_f32(exact, vdupq_n_f32(F::CENTRE as f32), x_sum);
            }
            self.sums[half] = vfmaq_f32(self.sums[half], vmulq_n_f32(widen_f16(d), d_x), exact);
        }
    }
}

/// Reads a row of blocks, moving on.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a, F> {
    place: *const u8,
    row: PhantomData<&'a [F]>,
}

impl<'a, F> Reader<'a, F> {
    /// From block `at` on.
    fn new(blocks: &'a [F], at: usize) -> Reader<'a, F> {
        Reader { place: blocks.as_ptr().wrapping_add(at).cast(), row: PhantomData }
    }

    /// Two bytes, to lane `r` and, for the first, zeros to the others.
    ///
    /// # Safety
    /// They lie in the row.
    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn factor(&mut self, r: usize, d: uint16x4_t) -> uint16x4_t {
        // SAFETY: the caller's promise.
        unsafe {
            match r {
                0 => self.first_lane(),
                1 => self.lane::<1>(d),
                2 => self.lane::<2>(d),
                _ => self.lane::<3>(d),
            }
        }
    }

    /// # Safety
    /// As [`Reader::factor`].
    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn first_lane(&mut self) -> uint16x4_t {
        let d: uint16x4_t;
        // SAFETY: LDR reads two bytes that lie in the row, and moves the place by as many.
        unsafe {
            asm!("ldr {d:h}, [{place}], #2", d = out(vreg) d, place = inout(reg) self.place, options(readonly, nostack, preserves_flags));
        }
        d
    }

    /// # Safety
    /// As [`Reader::factor`].
    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn lane<const R: usize>(&mut self, mut d: uint16x4_t) -> uint16x4_t {
        // SAFETY: LD1 to a lane reads two bytes that lie in the row, and moves the place by as many.
        unsafe {
            asm!("ld1 {{{d:v}.h}}[{r}], [{place}], #2", d = inout(vreg) d, place = inout(reg) self.place, r = const R,
                options(readonly, nostack, preserves_flags));
        }
        d
    }

    /// # Safety
    /// 16 bytes lie ahead in the row.
    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn sixteen(&mut self) -> uint8x16_t {
        let qs: uint8x16_t;
        // SAFETY: LDR reads 16 bytes that lie in the row, and moves the place by as many.
        unsafe {
            asm!("ldr {qs:q}, [{place}], #16", qs = out(vreg) qs, place = inout(reg) self.place,
                options(readonly, nostack, preserves_flags));
        }
        qs
    }

    /// # Safety
    /// 32 bytes lie ahead in the row.
    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn thirty_two(&mut self) -> [int8x16_t; 2] {
        let (first, second): (int8x16_t, int8x16_t);
        // SAFETY: LDP reads 32 bytes that lie in the row, and moves the place by as many.
        unsafe {
            asm!("ldp {first:q}, {second:q}, [{place}], #32", first = out(vreg) first, second = out(vreg) second,
                place = inout(reg) self.place, options(readonly, nostack, preserves_flags));
        }
        [first, second]
    }
}
