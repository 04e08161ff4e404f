//! Rows of weights unpacked side by side. Prefill reads each weight for many tokens, so a panel of rows is unpacked once
//! into a scratch place that stays in the processor's cache, laid out so that a vector lane is a row: no sum crosses
//! lanes, and a lane sums in the order of the definition.

use std::cell::RefCell;
use std::ops::Range;

use bytemuck::{Pod, Zeroable};

use crate::activations::Tile;
use crate::block::{
    BlockQ2K, BlockQ3K, BlockQ4_0, BlockQ4_1, BlockQ4K, BlockQ5_0, BlockQ5_1, BlockQ5K, BlockQ6K, BlockQ8_0, SUPER, cast,
};
use crate::integers::Integers;
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

thread_local! {
    /// Each thread's place to unpack to: some 50 kB for rows of 3,072 weights.
    static PANEL: RefCell<Panel> = RefCell::default();
}

impl<W: Fn(usize, usize, &[f32])> Part<'_, W> {
    fn multiply<B: Integers>(self) {
        PANEL.with_borrow_mut(|panel| match self.level {
            Level::Scalar => unreachable!("the definition multiplies row by row"),
            // SAFETY: a level other than Scalar is only made by `Level::available`, after asking the processor.
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => self.each::<B, 8, 4>(|rows, write| unsafe { crate::x86::avx2(panel, rows, self.tiles, write) }),
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Level::AvxVnni => self.each::<B, 8, 4>(|rows, write| unsafe { crate::x86::avx_vnni(panel, rows, self.tiles, write) }),
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => self.each::<B, 16, 8>(|rows, write| unsafe { crate::x86::avx512(panel, rows, self.tiles, write) }),
            // SAFETY: as above.
            #[cfg(target_arch = "aarch64")]
            Level::Dotprod => self.each::<B, 8, 4>(|rows, write| unsafe { crate::neon::panel(panel, rows, self.tiles, write) }),
        });
    }

    /// Calls `multiply` for every `R` rows. Past the last row it repeats, and the products are not written.
    fn each<B: Integers, const R: usize, const T: usize>(
        &self,
        mut multiply: impl FnMut([&[B]; R], &dyn Fn(usize, &[[f32; R]; T])),
    ) {
        for first in self.rows.clone().step_by(R) {
            let n = R.min(self.rows.end - first);
            let rows = std::array::from_fn(|i| cast::<B>(self.w.row(first + i.min(n - 1))));
            multiply(rows, &|tile, products| {
                for (token, products) in (tile * T..self.n_rows).zip(products) {
                    (self.write)(token, first, &products[..n]);
                }
            });
        }
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
    pub(crate) scales: Vec<i32>,
    /// Minimums of each sub-block, integers.
    pub(crate) mins: Vec<f32>,
}

/// 64 bytes at a multiple of 64, so that no vector load straddles two lines of the cache.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([[u8; 4]; 16]);

impl Panel {
    /// Unpacks `rows`; signed weights are raised by 128 if they are wanted unsigned. `interleave`
    /// writes the words of rows `(R, SUPER / 4)`, each raised and flipped, as `(n, R)`. Inlined, so that it is compiled for the processor the caller is compiled for.
    #[inline(always)]
    pub(crate) fn pack<B: Integers, const R: usize>(
        &mut self,
        rows: [&[B]; R],
        unsigned: bool,
        interleave: impl Fn(&[[u32; SUPER / 4]; R], Change, &mut [[u32; R]]),
    ) {
        let n_blocks = rows[0].len();
        let n_sub = B::WEIGHTS / B::SUB;
        self.lines.resize((n_blocks * B::WEIGHTS * R).div_ceil(64), Line::zeroed());
        self.d.resize(n_blocks * R, 0.0);
        self.m.resize(n_blocks * R, 0.0);
        self.scales.resize(n_blocks * n_sub * R, 0);
        self.mins.resize(n_blocks * n_sub * R, 0.0);
        let weights = bytemuck::cast_slice_mut::<Line, u32>(&mut self.lines).chunks_exact_mut(B::WEIGHTS / 4 * R);
        let change = Change::new(B::CENTRE, unsigned);
        let mut unpacked = [[0u32; SUPER / 4]; R];
        for (b, weights) in weights.take(n_blocks).enumerate() {
            for r in 0..R {
                let block = &rows[r][b];
                block.fours(&mut unpacked[r][..B::WEIGHTS / 4]);
                [self.d[b * R + r], self.m[b * R + r]] = block.factors();
                if n_sub > 1 {
                    let (scales, mins) = (block.scales(), block.mins());
                    for j in 0..n_sub {
                        let at = (b * n_sub + j) * R + r;
                        self.scales[at] = i32::from(scales[j]);
                        if B::MINS {
                            self.mins[at] = f32::from(mins[j]);
                        }
                    }
                }
            }
            interleave(&unpacked, change, weights.as_chunks_mut().0);
        }
    }

    /// Four weights of each row, then the next four: `(n_in / 4, R)`.
    pub(crate) fn weights(&self) -> &[[u8; 4]] {
        bytemuck::cast_slice(&self.lines)
    }
}

/// What takes words of weights plus their centre to the weights a kernel wants.
#[derive(Clone, Copy)]
pub(crate) struct Change {
    /// Added to a word; no byte overflows into the next.
    pub(crate) raise: u32,
    /// Xored to it then.
    pub(crate) flip: u32,
}

impl Change {
    /// Signed weights become `w + 128`, which is `w` itself after the top bit is flipped.
    fn new(centre: u8, unsigned: bool) -> Change {
        match centre {
            0 => Change { raise: 0, flip: 0 },
            _ => Change { raise: 0x0101_0101 * u32::from(128 - centre), flip: if unsigned { 0 } else { 0x8080_8080 } },
        }
    }
}
