//! The inputs of a product, quantized once and shared by every matrix that reads them.

use half::f16;

use crate::block::SUPER;
use crate::level::compiled_for;
use crate::{Level, Pool, QuantType};

/// Room for the integer forms of inputs, kept from product to product so that nothing is allocated for them.
///
/// - Types with blocks of 32 meet 8-bit inputs in blocks of 32, whose factor is rounded to f16 as the format's Q8_0 does.
/// - K-quants meet 8-bit inputs in blocks of 256 with an f32 factor (the format's Q8_K).
/// - Float types meet the inputs as they are.
#[derive(Default)]
pub struct Activations {
    small: Quantized,
    large: Quantized,
}

/// 8-bit inputs: row after row for the definition, in tiles for panels of weights.
#[derive(Default)]
struct Quantized {
    rows: Rows,
    tiles: Vec<Tile>,
    /// Tiles in use.
    n_tiles: usize,
}

/// Integers, and a factor per block.
#[derive(Default)]
struct Rows {
    qs: Vec<i8>,
    d: Vec<f32>,
}

/// Rows of inputs, `(n_rows, n_in)`, with the forms the weights' quant types need.
#[derive(Clone, Copy)]
pub(crate) struct Inputs<'a> {
    pub(crate) floats: &'a [f32],
    pub(crate) n_in: usize,
    forms: &'a Activations,
}

/// One quantized row as a kernel sees it.
#[derive(Clone, Copy)]
pub(crate) struct Row<'a> {
    pub(crate) qs: &'a [i8],
    pub(crate) d: &'a [f32],
}

impl Activations {
    /// Quantizes `floats`, rows of `n_in`, to the forms that weights of types `quants` read, in parallel over rows.
    ///
    /// # Panics
    /// When `floats` is not whole rows, or `n_in` is not a whole number of a form's blocks.
    pub(crate) fn load<'a>(
        &'a mut self,
        pool: &Pool,
        floats: &'a [f32],
        n_in: usize,
        quants: impl Iterator<Item = QuantType>,
    ) -> Inputs<'a> {
        assert_eq!(floats.len() % n_in, 0, "inputs are not whole rows");
        let (mut small, mut large) = (false, false);
        for quant in quants {
            match quant.block_len() {
                1 => {}
                SUPER => large = true,
                _ => small = true,
            }
        }
        if small {
            self.small.load(pool, floats, n_in, Form::Small);
        }
        if large {
            self.large.load(pool, floats, n_in, Form::Large);
        }
        Inputs { floats, n_in, forms: self }
    }
}

impl<'a> Inputs<'a> {
    /// Rows held.
    pub(crate) fn n_rows(&self) -> usize {
        self.floats.len() / self.n_in
    }

    /// The tiles that weights of type `quant` meet.
    pub(crate) fn tiles(&self, quant: QuantType) -> &'a [Tile] {
        let form = self.form(quant);
        &form.tiles[..form.n_tiles]
    }

    /// Row `index` as weights of type `quant` meet it.
    pub(crate) fn row(&self, quant: QuantType, index: usize) -> Row<'a> {
        let Rows { qs, d } = &self.form(quant).rows;
        let n_blocks = d.len() / self.n_rows();
        Row { qs: &qs[index * self.n_in..][..self.n_in], d: &d[index * n_blocks..][..n_blocks] }
    }

    fn form(&self, quant: QuantType) -> &'a Quantized {
        if quant.block_len() == SUPER { &self.forms.large } else { &self.forms.small }
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

    /// Writes the integers and factors of whole blocks.
    fn quantize(self, level: Level, floats: &[f32], qs: &mut [i8], d: &mut [f32]) {
        match self {
            Form::Small => quantize_small(level, floats, qs, d),
            Form::Large => quantize_large(level, floats, qs, d),
        }
    }
}

impl Quantized {
    fn load(&mut self, pool: &Pool, floats: &[f32], n_in: usize, form: Form) {
        assert_eq!(n_in % form.block_len(), 0, "a row of {n_in} is not whole blocks of {}", form.block_len());
        let level = pool.level();
        let Some(n) = level.tile_rows(floats.len() / n_in) else {
            self.rows.qs.resize(floats.len(), 0);
            self.rows.d.resize(floats.len() / form.block_len(), 0.0);
            return form.quantize(level, floats, &mut self.rows.qs, &mut self.rows.d);
        };
        self.n_tiles = floats.len().div_ceil(n * n_in);
        if self.tiles.len() < self.n_tiles {
            self.tiles.resize_with(self.n_tiles, Tile::default);
        }
        pool.run_rows(&mut self.tiles[..self.n_tiles], 1, |index, tile| {
            let floats = &floats[index * n * n_in..floats.len().min((index + 1) * n * n_in)];
            tile[0].load(level, floats, n_in, n, form);
        });
    }
}

/// A few quantized rows, interleaved so that what a kernel reads together lies together. Missing rows are zeros.
#[derive(Default)]
pub(crate) struct Tile {
    n: usize,
    /// Four inputs of each row, then the next four: `(n_in / 4, n)`.
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

    fn load(&mut self, level: Level, floats: &[f32], n_in: usize, n: usize, form: Form) {
        let Tile { qs, d, sums16, sums32, starts, row: (row_qs, row_d), .. } = self;
        self.n = n;
        zeros(qs, n_in / 4 * n);
        zeros(d, n_in / form.block_len() * n);
        zeros(sums16, n_in / 16 * n);
        zeros(sums32, n_in / 32 * n);
        zeros(starts, n_in / if form == Form::Small { 32 } else { 16 } * n);
        row_qs.resize(n_in, 0);
        row_d.resize(n_in / form.block_len(), 0.0);
        for (row, floats) in floats.chunks_exact(n_in).enumerate() {
            form.quantize(level, floats, row_qs, row_d);
            row_d.iter().enumerate().for_each(|(b, factor)| d[b * n + row] = *factor);
            for (at, four) in row_qs.as_chunks::<4>().0.iter().enumerate() {
                qs[at * n + row] = *four;
            }
            for (at, q) in row_qs.chunks_exact(32).enumerate() {
                let [first, second] = [&q[..16], &q[16..]].map(|q| q.iter().map(|&q| i32::from(q)).sum::<i32>());
                (sums16[2 * at * n + row], sums16[(2 * at + 1) * n + row]) = (first as f32, second as f32);
                sums32[at * n + row] = (first + second) as f32;
                if form == Form::Small {
                    starts[at * n + row] = -128 * (first + second);
                } else {
                    (starts[2 * at * n + row], starts[(2 * at + 1) * n + row]) = (-128 * first, -128 * second);
                }
            }
        }
    }
}

/// Makes `values` this many zeros; the memory is kept.
fn zeros<T: Clone + Default>(values: &mut Vec<T>, len: usize) {
    values.clear();
    values.resize(len, T::default());
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
                q[i] = nearest(if usable { x[i] * factor } else { 0.0 }) as i8;
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
                q[i] = nearest(if usable { x[i] * factor } else { 0.0 }).min(127) as i8;
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

/// Rounds to the nearest integer, ties to even, for |v| < 2²²: adding 1.5·2²³ leaves the integer in the low mantissa.
#[inline(always)]
fn nearest(v: f32) -> i32 {
    ((v + 12_582_912.0).to_bits() & 0x007f_ffff) as i32 - 0x0040_0000
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
