//! Rows of weights unpacked side by side, into a scratch place that stays in the processor's cache, so that a vector lane is
//! a row: no sum crosses lanes, and a lane sums in the order of the definition. Prefill unpacks a weight once for many
//! tokens; decode is bound by memory, and still gains, as its sums need no folding.

use std::cell::RefCell;
use std::ops::Range;

use bytemuck::{Pod, Zeroable};

use crate::activations::Tile;
use crate::block::{
    BlockQ2K, BlockQ3K, BlockQ4_0, BlockQ4_1, BlockQ4K, BlockQ5_0, BlockQ5_1, BlockQ5K, BlockQ6K, BlockQ8_0, cast,
};
use crate::integers::Integers;
#[cfg(target_arch = "aarch64")]
use crate::neon;
use crate::word::Side;
#[cfg(target_arch = "x86_64")]
use crate::x86;
use crate::{Level, QuantType, Weights};

/// Multiplies `rows` of `w`, which is quantized, with the `n_rows` inputs in `tiles`; `write(token, row, sums)` takes sums of
/// consecutive rows of weights.
pub(crate) fn multiply(
    level: Level,
    w: &Weights,
    rows: Range<usize>,
    tiles: &[Tile],
    n_rows: usize,
    write: impl Fn(usize, usize, &[f32]),
) {
    #[cfg(target_arch = "aarch64")]
    let rows = match (level, tiles) {
        // SAFETY: as in `kernel`.
        (Level::Dotprod | Level::I8mm, [tile]) if tile.n_rows() == 1 => unsafe {
            neon::decode(w, rows, tile, |row, sums| write(0, row, sums))
        },
        _ => rows,
    };
    if rows.is_empty() {
        return;
    }
    let part = Part { level, w, rows, tiles, n_rows, write };
    match w.quant() {
        QuantType::F32 | QuantType::F16 | QuantType::BF16 => unreachable!("floats are not unpacked"),
        QuantType::Q4_0 => part.multiply::<BlockQ4_0>(),
        QuantType::Q4_1 => part.multiply::<BlockQ4_1>(),
        QuantType::Q5_0 => part.multiply::<BlockQ5_0>(),
        QuantType::Q5_1 => part.multiply::<BlockQ5_1>(),
        QuantType::Q8_0 => part.multiply::<BlockQ8_0>(),
        QuantType::Q2_K => part.multiply::<BlockQ2K>(),
        QuantType::Q3_K => part.multiply::<BlockQ3K>(),
        QuantType::Q4_K => part.multiply::<BlockQ4K>(),
        QuantType::Q5_K => part.multiply::<BlockQ5K>(),
        QuantType::Q6_K => part.multiply::<BlockQ6K>(),
    }
}

struct Part<'a, W> {
    level: Level,
    w: &'a Weights<'a>,
    rows: Range<usize>,
    tiles: &'a [Tile],
    n_rows: usize,
    write: W,
}

/// A thread's room to compute in.
#[derive(Default)]
pub(crate) struct Scratch {
    /// Where weights are unpacked to: some 20 kB each.
    pub(crate) panels: [Panel; 2],
    /// Sums of each tile, between one slice of weights and the next.
    #[cfg(target_arch = "x86_64")]
    pub(crate) sums: Vec<f32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Runs a kernel on every `P` panels of `R` rows, by tiles of `T` inputs.
macro_rules! kernel {
    ($part:ident, $scratch:ident, $kernel:path, $r:literal, $p:literal, $t:literal) => {
        for first in $part.rows.clone().step_by($p * $r) {
            let write = |tile: usize, p: usize, sums: &[[f32; $r]; $t]| $part.put(first + p * $r, tile, sums);
            // SAFETY: a level other than Scalar is only made by `Level::available`, after asking the processor.
            unsafe { $kernel($scratch, $part.panels::<B, $r, $p>(first), $part.tiles, write) };
        }
    };
}

impl<W: Fn(usize, usize, &[f32])> Part<'_, W> {
    fn multiply<B: Integers>(self) {
        let n = self.tiles[0].n_rows();
        SCRATCH.with_borrow_mut(|scratch| match (self.level, n) {
            (Level::Scalar, _) => unreachable!("the definition multiplies row by row"),
            #[cfg(target_arch = "x86_64")]
            (Level::Avx2, 1) => kernel!(self, scratch, x86::avx2, 8, 1, 1),
            #[cfg(target_arch = "x86_64")]
            (Level::Avx2, _) => kernel!(self, scratch, x86::avx2, 8, 1, 4),
            #[cfg(target_arch = "x86_64")]
            (Level::AvxVnni, 1) => kernel!(self, scratch, x86::avx_vnni, 8, 1, 1),
            #[cfg(target_arch = "x86_64")]
            (Level::AvxVnni, _) => kernel!(self, scratch, x86::avx_vnni, 8, 1, 4),
            #[cfg(target_arch = "x86_64")]
            (Level::Avx512, 1) => kernel!(self, scratch, x86::avx512, 16, 1, 1),
            #[cfg(target_arch = "x86_64")]
            (Level::Avx512, 8) => kernel!(self, scratch, x86::avx512, 16, 1, 8),
            #[cfg(target_arch = "x86_64")]
            (Level::Avx512, _) => kernel!(self, scratch, x86::avx512, 16, 2, 4),
            #[cfg(target_arch = "aarch64")]
            (Level::Dotprod | Level::I8mm, 1) => kernel!(self, scratch, neon::panel, 8, 1, 1),
            #[cfg(target_arch = "aarch64")]
            (Level::Dotprod, _) => kernel!(self, scratch, neon::panel, 8, 1, 4),
            // Its tiles hold eights: `Level::takes_eights`.
            #[cfg(target_arch = "aarch64")]
            (Level::I8mm, _) => kernel!(self, scratch, neon::panel_i8mm, 8, 1, 4),
        });
    }

    /// `P` times `R` rows from `first` on, of which the last repeats where there are no more.
    fn panels<B: Integers, const R: usize, const P: usize>(&self, first: usize) -> [[&[B]; R]; P] {
        let row = |row: usize| cast::<B>(self.w.row(row.min(self.rows.end - 1)));
        std::array::from_fn(|p| std::array::from_fn(|i| row(first + p * R + i)))
    }

    /// Hands on the sums of rows from `first` on with the inputs of a tile, without those that are there to fill up.
    #[inline]
    fn put<const R: usize, const T: usize>(&self, first: usize, tile: usize, sums: &[[f32; R]; T]) {
        // Nearly all tiles are whole, and then no length is asked for and copies need no call.
        if first + R <= self.rows.end && (tile + 1) * T <= self.n_rows {
            return (0..T).for_each(|t| (self.write)(tile * T + t, first, &sums[t]));
        }
        let n = R.min(self.rows.end.saturating_sub(first));
        (tile * T..self.n_rows).zip(sums).for_each(|(token, sums)| (self.write)(token, first, &sums[..n]));
    }
}

/// `R` rows of weights. Arrays are `(position, R)`: the values of all rows at a position, then those at the next.
#[derive(Default)]
pub(crate) struct Panel {
    lines: Vec<Line>,
    /// Factors of each block.
    pub(crate) d: Vec<f32>,
    /// Factors of each block's minimums.
    pub(crate) m: Vec<f32>,
    /// Integer scales of each sub-block.
    pub(crate) scales: Vec<u32>,
    /// Minimums of each sub-block, integers.
    pub(crate) mins: Vec<f32>,
}

/// 64 bytes at a multiple of 64, so that no vector load straddles two lines of the cache.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([[u8; 4]; 16]);

impl Panel {
    /// Unpacks blocks `range` of `rows`; signed weights are raised by 128 if they are wanted unsigned. `ask` is told each
    /// block before it is unpacked. Inlined, so that it is compiled for the processor the caller is compiled for.
    ///
    /// # Safety
    /// The processor has what `W` asks for.
    #[inline(always)]
    pub(crate) unsafe fn pack<B: Integers, W: Side<R>, const R: usize>(
        &mut self,
        rows: [&[B]; R],
        range: Range<usize>,
        unsigned: bool,
        ask: impl Fn(usize),
    ) {
        let n_blocks = range.len();
        let n_sub = B::WEIGHTS / B::SUB;
        self.lines.resize((n_blocks * B::WEIGHTS * R).div_ceil(64), Line::zeroed());
        self.d.resize(n_blocks * R, 0.0);
        self.m.resize(n_blocks * R, 0.0);
        self.scales.resize(n_blocks * n_sub * R, 0);
        self.mins.resize(n_blocks * n_sub * R, 0.0);
        let lines = bytemuck::cast_slice_mut::<Line, u32>(&mut self.lines).as_chunks_mut::<R>().0;
        let (d, m) = (self.d.as_chunks_mut::<R>().0, self.m.as_chunks_mut::<R>().0);
        let (scales, mins) = (self.scales.as_chunks_mut::<R>().0, self.mins.as_chunks_mut::<R>().0);
        // Bytes do not overflow into the next: a weight plus its centre plus this is at most 255.
        let raise = 0x0101_0101 * (128 - B::CENTRE);
        for (at, b) in range.enumerate() {
            ask(b);
            let mut places = [std::ptr::null(); R];
            for r in 0..R {
                places[r] = std::ptr::from_ref(&rows[r][b]).cast::<u8>();
            }
            let lines = &mut lines[at * B::WEIGHTS / 4..(at + 1) * B::WEIGHTS / 4];
            // SAFETY: the places are whole blocks; the processor has what the words ask for by the caller's promise.
            unsafe {
                B::fours::<W>(places, |i, word| {
                    let word = match (B::CENTRE, unsigned) {
                        (0, _) => word,
                        (_, true) => word.add(raise),
                        (centre, false) => word.sub_bytes(centre as u8),
                    };
                    word.store(&mut lines[i]);
                });
                W::widen(&halves(places, B::D), &mut d[at]);
                if let Some(place) = B::M {
                    let sign = if B::MINS_SUBTRACT { 0x8000 } else { 0 };
                    W::widen(&halves(places, place).map(|half| half ^ sign), &mut m[at]);
                }
                B::scales::<W>(places, |j, scale| scale.store(&mut scales[at * n_sub + j]));
                B::mins::<W>(places, |j, min| min.store_float(&mut mins[at * n_sub + j]));
            }
        }
    }

    /// Puts eights of each row where two fours were, as matrix products take them.
    #[cfg(target_arch = "aarch64")]
    #[inline(always)]
    pub(crate) fn join_fours<const R: usize>(&mut self) {
        for both in bytemuck::cast_slice_mut::<Line, u32>(&mut self.lines).as_chunks_mut::<R>().0.as_chunks_mut::<2>().0 {
            let [first, second] = *both;
            for (to, r) in both.as_flattened_mut().as_chunks_mut::<2>().0.iter_mut().zip(0..R) {
                *to = [first[r], second[r]];
            }
        }
    }

    /// Four weights of each row, then the next four: `(n_in / 4, R)`. After `join_fours` eight, then the next eight.
    pub(crate) fn weights(&self) -> &[[u8; 4]] {
        bytemuck::cast_slice(&self.lines)
    }
}

/// The f16 at byte `at` of each block, by its bits.
///
/// # Safety
/// The places are blocks that hold it.
#[inline(always)]
pub(crate) unsafe fn halves<const R: usize>(places: [*const u8; R], at: usize) -> [u16; R] {
    let mut halves = [0; R];
    for r in 0..R {
        // SAFETY: the caller's promise.
        halves[r] = unsafe { places[r].add(at).cast::<u16>().read_unaligned() };
    }
    halves
}
