//! The inputs of a product, quantized once and shared by every matrix that reads them.

use std::cell::RefCell;

use half::f16;

use crate::block::SUPER;
use crate::level::compiled_for;
use crate::pool::Start;
use crate::{Input, Level, Pool, QuantType};

/// Room for the forms of an input, kept from product to product so that nothing is allocated for them.
///
/// - Types with blocks of 32 meet 8-bit inputs in blocks of 32, whose factor is rounded to f16 as the format's Q8_0 does.
/// - K-quants meet 8-bit inputs in blocks of 256 with an f32 factor (the format's Q8_K).
/// - Float types meet the inputs as they are.
#[derive(Default)]
pub struct Activations {
    floats: Vec<f32>,
    small: Vec<Tile>,
    large: Vec<Tile>,
}

/// Rows of inputs, `(n_rows, n_in)`, with the forms the weights' quant types need.
#[derive(Clone, Copy)]
pub(crate) struct Inputs<'a> {
    /// Empty if no type reads them.
    pub(crate) floats: &'a [f32],
    pub(crate) n_rows: usize,
    pub(crate) n_in: usize,
    small: &'a [Tile],
    large: &'a [Tile],
}

/// One quantized row as the definition sees it.
#[derive(Clone, Copy)]
pub(crate) struct Row<'a> {
    pub(crate) qs: &'a [i8],
    pub(crate) d: &'a [f32],
}

impl Activations {
    /// Computes the rows of `input`, of width `n_in`, in the forms that weights of types `quants` read, in parallel over rows.
    ///
    /// # Panics
    /// When the input is not whole rows, or `n_in` is not a whole number of a form's blocks.
    pub(crate) fn load(&mut self, pool: &Pool, input: Input, n_in: usize, quants: impl Iterator<Item = QuantType>) -> Inputs<'_> {
        let (n_rows, source) = input.shared(n_in);
        let (mut floats, mut small, mut large) = (false, false, false);
        for quant in quants {
            match quant.block_len() {
                1 => floats = true,
                SUPER => large = true,
                _ => small = true,
            }
        }
        let level = pool.level();
        let n = level.tile_rows(n_rows);
        let n_tiles = n_rows.div_ceil(n);
        self.floats.resize(if floats { n_rows * n_in } else { 0 }, 0.0);
        let wanted = [(small, &mut self.small, Form::Small), (large, &mut self.large, Form::Large)];
        let tiles = wanted.map(|(wanted, tiles, form)| {
            if wanted && tiles.len() < n_tiles {
                tiles.resize_with(n_tiles, Tile::default);
            }
            wanted.then_some((Start(tiles.as_mut_ptr()), form))
        });
        let all = Start(self.floats.as_mut_ptr());
        pool.run(n_tiles, |index| {
            ROW.with_borrow_mut(|buffer| {
                // SAFETY: there are as many tiles, and every part runs once.
                let mut tiles =
                    tiles.each_ref().map(|of| of.as_ref().map(|(at, form)| (unsafe { &mut at.at(index, 1)[0] }, *form)));
                tiles.iter_mut().flatten().for_each(|(tile, form)| tile.make_room(n, n_in, *form));
                for r in 0..n.min(n_rows - index * n) {
                    let at = index * n + r;
                    // SAFETY: it is one of the rows, and only this part asks for it.
                    let row = unsafe { source.row(level, at, n_in, buffer) };
                    if floats {
                        // SAFETY: as above.
                        unsafe { all.at(at * n_in, n_in) }.copy_from_slice(row);
                    }
                    tiles.iter_mut().flatten().for_each(|(tile, form)| tile.set(level, r, row, *form));
                }
            });
        });
        // None of a form that no type reads.
        let (n_small, n_large) = (if small { n_tiles } else { 0 }, if large { n_tiles } else { 0 });
        Inputs { floats: &self.floats, n_rows, n_in, small: &self.small[..n_small], large: &self.large[..n_large] }
    }
}

thread_local! {
    /// The row a thread is computing.
    static ROW: RefCell<Vec<f32>> = RefCell::default();
}

impl<'a> Inputs<'a> {
    /// The tiles that weights of type `quant` meet.
    pub(crate) fn tiles(&self, quant: QuantType) -> &'a [Tile] {
        if quant.block_len() == SUPER { self.large } else { self.small }
    }

    /// Row `index` as the definition of weights of type `quant` meets it: a tile of one row.
    pub(crate) fn row(&self, quant: QuantType, index: usize) -> Row<'a> {
        let Tile { qs, d, .. } = &self.tiles(quant)[index];
        Row { qs: qs.as_flattened(), d }
    }
}

/// How inputs are quantized.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Small,
    Large,
}

impl Form {
    fn block_len(self) -> usize {
        match self {
            Form::Small => 32,
            Form::Large => SUPER,
        }
    }

    /// Weights that share a start of their sum.
    fn start_len(self) -> usize {
        match self {
            Form::Small => 32,
            Form::Large => 16,
        }
    }

    /// Writes the integers and factors of whole blocks.
    fn quantize(self, level: Level, floats: &[f32], qs: &mut [i8], d: &mut [f32]) {
        match self {
            Form::Small => quantize_small(level, floats, qs, d),
            Form::Large => quantize_large(level, floats, qs, d),
        }
    }
}

/// A few quantized rows, interleaved so that what a kernel reads together lies together.
#[derive(Default)]
pub(crate) struct Tile {
    n: usize,
    /// Four inputs of each row, then the next four: `(n_in / 4, n)`. Eight of each, then the next eight,
    /// where [`Level::takes_eights`].
    pub(crate) qs: Vec<[i8; 4]>,
    /// Factors, `(n_blocks, n)`.
    pub(crate) d: Vec<f32>,
    /// Sums of 16 inputs, `(n_in / 16, n)`, which as integers below 2²⁴ are exact.
    pub(crate) sums16: Vec<f32>,
    /// Sums of 32 inputs, `(n_in / 32, n)`.
    pub(crate) sums32: Vec<f32>,
    /// −128 times the sums of 16 (blocks of 256) or 32 (blocks of 32): where a sum of products starts whose weights were
    /// made unsigned by adding 128.
    pub(crate) starts: Vec<i32>,
    /// The row being quantized.
    row: (Vec<i8>, Vec<f32>),
}

impl Tile {
    /// Rows there is room for.
    pub(crate) fn n_rows(&self) -> usize {
        self.n
    }

    /// Room for `n` rows of `n_in`. Rows that are not set hold what they held: their products are not wanted.
    fn make_room(&mut self, n: usize, n_in: usize, form: Form) {
        let n_blocks = n_in / form.block_len();
        assert_eq!(n_in % form.block_len(), 0, "a row of {n_in} is not whole blocks of {}", form.block_len());
        self.n = n;
        self.qs.resize(n_in / 4 * n, [0; 4]);
        self.d.resize(n_blocks * n, 0.0);
        self.sums16.resize(n_in / 16 * n, 0.0);
        self.sums32.resize(n_in / 32 * n, 0.0);
        self.starts.resize(n_in / form.start_len() * n, 0);
        self.row.0.resize(n_in, 0);
        self.row.1.resize(n_blocks, 0.0);
    }

    /// Quantizes `floats` to row `row` of the tile.
    fn set(&mut self, level: Level, row: usize, floats: &[f32], form: Form) {
        let (row_qs, row_d) = (&mut self.row.0[..], &mut self.row.1[..]);
        form.quantize(level, floats, row_qs, row_d);
        self.d.iter_mut().skip(row).step_by(self.n).zip(&*row_d).for_each(|(d, factor)| *d = *factor);
        let mut place = Place {
            n: self.n,
            row,
            qs: &mut self.qs,
            sums16: &mut self.sums16,
            sums32: &mut self.sums32,
            starts: &mut self.starts,
        };
        interleave(level, row_qs, form == Form::Small, level.takes_eights(self.n), &mut place);
    }
}

/// A row of a tile's integers and their sums.
struct Place<'a> {
    n: usize,
    row: usize,
    qs: &'a mut [[i8; 4]],
    sums16: &'a mut [f32],
    sums32: &'a mut [f32],
    starts: &'a mut [i32],
}

compiled_for! {
    /// Puts a row's integers where the tile has them, with their sums.
    fn interleave(row: &[i8], start_of_32: bool, by_eights: bool, to: &mut Place) {
        let Place { n, row: r, qs, sums16, sums32, starts } = to;
        let (n, r) = (*n, *r);
        for (at, q) in row.as_chunks::<32>().0.iter().enumerate() {
            if by_eights {
                let eights = &mut qs.as_chunks_mut::<2>().0[4 * at * n + r..][..3 * n + 1];
                for i in 0..4 {
                    eights[i * n].as_flattened_mut().copy_from_slice(&q[8 * i..8 * i + 8]);
                }
            } else {
                let fours = &mut qs[8 * at * n + r..][..7 * n + 1];
                for i in 0..8 {
                    fours[i * n].copy_from_slice(&q[4 * i..4 * i + 4]);
                }
            }
            let (mut first, mut second) = (0, 0);
            for i in 0..16 {
                first += i32::from(q[i]);
                second += i32::from(q[16 + i]);
            }
            (sums16[2 * at * n + r], sums16[(2 * at + 1) * n + r]) = (first as f32, second as f32);
            sums32[at * n + r] = (first + second) as f32;
            if start_of_32 {
                starts[at * n + r] = -128 * (first + second);
            } else {
                (starts[2 * at * n + r], starts[(2 * at + 1) * n + r]) = (-128 * first, -128 * second);
            }
        }
    }
}

compiled_for! {
    /// Q8_0: `d = max / 127` rounded to f16, integers from the unrounded inverse. A value that is not finite makes `d` NaN,
    /// so that it shows in the logits instead of vanishing in the integers.
    pub(crate) fn quantize_small(floats: &[f32], qs: &mut [i8], d: &mut [f32]) {
        for ((x, q), d) in floats.as_chunks::<32>().0.iter().zip(qs.as_chunks_mut::<32>().0).zip(d) {
            let max = max_abs(x);
            let inverse = 127.0 / max;
            // Zeros and the smallest numbers have no inverse.
            let usable = inverse.is_finite() && max.is_finite();
            let factor = if usable { inverse } else { 0.0 };
            for i in 0..32 {
                q[i] = nearest(if usable { x[i] * factor } else { 0.0 });
            }
            *d = match (usable, max.is_finite()) {
                (true, _) => round_to_f16(max / 127.0),
                (false, true) => 0.0,
                (false, false) => f32::NAN,
            };
        }
    }
}

compiled_for! {
    /// Q8_K: the value of largest magnitude becomes −127 and `d` its inverse factor in f32. Not finite: as above.
    fn quantize_large(floats: &[f32], qs: &mut [i8], d: &mut [f32]) {
        for ((x, q), d) in floats.as_chunks::<SUPER>().0.iter().zip(qs.as_chunks_mut::<SUPER>().0).zip(d) {
            let max = max_abs(x);
            let signed = x.iter().copied().find(|x| x.abs() == max).unwrap_or(0.0);
            let inverse = -127.0 / signed;
            let usable = inverse.is_finite() && inverse != 0.0 && max.is_finite();
            let factor = if usable { inverse } else { 0.0 };
            for i in 0..SUPER {
                q[i] = nearest(if usable { x[i] * factor } else { 0.0 });
            }
            *d = match (usable, max.is_finite()) {
                (true, _) => 1.0 / inverse,
                (false, true) => 0.0,
                (false, false) => f32::NAN,
            };
        }
    }
}

/// Largest magnitude. Bits of positive floats are ordered as the floats are, with infinity and NaN above all numbers.
#[inline(always)]
fn max_abs<const N: usize>(x: &[f32; N]) -> f32 {
    let mut lanes = [0u32; 16];
    for x in x.as_chunks::<16>().0 {
        for i in 0..16 {
            lanes[i] = lanes[i].max(x[i].to_bits() & 0x7fff_ffff);
        }
    }
    f32::from_bits(lanes.into_iter().fold(0, u32::max))
}

/// Rounds to the nearest integer, ties to even, for |v| below 127.5: adding 1.5·2²³ leaves the integer in the low mantissa,
/// of which a byte is enough.
#[inline(always)]
fn nearest(v: f32) -> i8 {
    (v + 12_582_912.0).to_bits() as i8
}

/// The nearest f16, ties to even. In the range of normal numbers that clears 13 bits.
#[inline(always)]
fn round_to_f16(v: f32) -> f32 {
    let bits = v.to_bits();
    if (0x3880_0000..0x477f_e000).contains(&bits) {
        return f32::from_bits((bits + 0x0fff + (bits >> 13 & 1)) & !0x1fff);
    }
    f16::from_f32(v).to_f32()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(x: &[f32], form: Form, expected_d: f32, expected_q: &[i8]) {
        for level in Level::available() {
            let (mut q, mut d) = (vec![0; x.len()], [0.0]);
            form.quantize(level, x, &mut q, &mut d);
            assert_eq!(d[0].to_bits(), expected_d.to_bits(), "{level}");
            assert_eq!(&q[..expected_q.len()], expected_q, "{level}");
        }
    }

    #[test]
    fn factors_round_as_f16_does() {
        for bits in (0..0x7f80_0000u32).step_by(9_973) {
            let v = f32::from_bits(bits);
            assert_eq!(round_to_f16(v).to_bits(), f16::from_f32(v).to_f32().to_bits(), "{v}");
        }
    }

    #[test]
    fn small_blocks_scale_to_127() {
        let mut x = [0.0; 32];
        (x[0], x[1], x[2]) = (2.0, -1.0, 0.5);
        check(&x, Form::Small, f16::from_f32(2.0 / 127.0).to_f32(), &[127, -64, 32, 0]);
    }

    #[test]
    fn large_blocks_scale_to_minus_127() {
        let mut x = [0.0; SUPER];
        (x[0], x[1]) = (2.0, -1.0);
        check(&x, Form::Large, 1.0 / (-127.0 / 2.0), &[-127, 64, 0]);
    }

    #[test]
    fn zero_is_zero_and_not_finite_is_nan() {
        check(&[0.0; 32], Form::Small, 0.0, &[0; 32]);
        check(&[0.0; SUPER], Form::Large, 0.0, &[0; SUPER]);
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for form in [Form::Small, Form::Large] {
                let mut x = vec![0.0; form.block_len()];
                x[7] = bad;
                let mut d = [0.0];
                form.quantize(Level::detect(), &x, &mut vec![0; x.len()], &mut d);
                assert!(d[0].is_nan(), "{bad}");
            }
        }
    }
}
