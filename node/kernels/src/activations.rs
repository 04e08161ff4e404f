//! The inputs of a product, quantized once and shared by every matrix that reads them.

use half::f16;

use crate::block::SUPER;
use crate::level::compiled_for;
use crate::{Level, Pool, QuantType};

/// Rows of inputs, `(n_rows, n_in)`, with the integer forms the weights' quant types need.
///
/// - Types with blocks of 32 meet 8-bit inputs in blocks of 32, whose factor is rounded to f16 as the format's Q8_0 does.
/// - K-quants meet 8-bit inputs in blocks of 256 with an f32 factor (the format's Q8_K).
/// - Float types meet the inputs as they are.
pub struct Activations<'a> {
    pub(crate) floats: &'a [f32],
    pub(crate) n_in: usize,
    small: Option<Quantized>,
    large: Option<Quantized>,
}

/// 8-bit inputs: row after row for the definition, in tiles for panels of weights.
pub(crate) enum Quantized {
    Rows(Rows),
    Tiles(Vec<Tile>),
}

/// Integers, and a factor per block.
pub(crate) struct Rows {
    qs: Vec<i8>,
    d: Vec<f32>,
    n_in: usize,
}

/// One quantized row as a kernel sees it.
#[derive(Clone, Copy)]
pub(crate) struct Row<'a> {
    pub(crate) qs: &'a [i8],
    pub(crate) d: &'a [f32],
}

impl<'a> Activations<'a> {
    /// Quantizes `floats`, rows of `n_in`, to the forms that weights of types `quants` read, in parallel over rows.
    ///
    /// # Panics
    /// When `floats` is not whole rows, or `n_in` is not a whole number of a form's blocks.
    pub fn new(pool: &Pool, floats: &'a [f32], n_in: usize, quants: impl Iterator<Item = QuantType>) -> Activations<'a> {
        assert_eq!(floats.len() % n_in, 0, "inputs are not whole rows");
        let (mut small, mut large) = (None, None);
        for quant in quants {
            match quant.block_len() {
                1 => {}
                SUPER => _ = large.get_or_insert_with(|| Quantized::new(pool, floats, n_in, Form::Large)),
                _ => _ = small.get_or_insert_with(|| Quantized::new(pool, floats, n_in, Form::Small)),
            }
        }
        Activations { floats, n_in, small, large }
    }

    /// Rows held.
    pub fn n_rows(&self) -> usize {
        self.floats.len() / self.n_in
    }

    /// The inputs as weights of type `quant` meet them, or `None` for float types.
    pub(crate) fn quantized(&self, quant: QuantType) -> Option<&Quantized> {
        match quant.block_len() {
            1 => None,
            SUPER => self.large.as_ref(),
            _ => self.small.as_ref(),
        }
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
    fn new(pool: &Pool, floats: &[f32], n_in: usize, form: Form) -> Quantized {
        assert_eq!(n_in % form.block_len(), 0, "a row of {n_in} is not whole blocks of {}", form.block_len());
        let level = pool.level();
        match level.tile_rows(floats.len() / n_in) {
            Some(n) => {
                let tiles: Vec<&[f32]> = floats.chunks(n * n_in).collect();
                Quantized::Tiles(pool.map(tiles.len(), |index| Tile::new(level, tiles[index], n_in, n, form)))
            }
            None => Quantized::Rows(Rows::new(level, floats, n_in, form)),
        }
    }
}

impl Rows {
    fn new(level: Level, floats: &[f32], n_in: usize, form: Form) -> Rows {
        let mut qs = vec![0i8; floats.len()];
        let mut d = vec![0f32; floats.len() / form.block_len()];
        form.quantize(level, floats, &mut qs, &mut d);
        Rows { qs, d, n_in }
    }

    /// Row `index`.
    pub(crate) fn row(&self, index: usize) -> Row<'_> {
        fn part<T>(all: &[T], index: usize, len: usize) -> &[T] {
            &all[index * len..][..len]
        }
        let n_blocks = self.d.len() * self.n_in / self.qs.len();
        Row { qs: part(&self.qs, index, self.n_in), d: part(&self.d, index, n_blocks) }
    }
}

/// A few quantized rows, interleaved so that what a kernel reads together lies together. Missing rows are zeros.
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
}

impl Tile {
    /// Rows there is room for.
    pub(crate) fn n_rows(&self) -> usize {
        self.n
    }

    fn new(level: Level, floats: &[f32], n_in: usize, n: usize, form: Form) -> Tile {
        let mut tile = Tile {
            n,
            qs: vec![[0; 4]; n_in / 4 * n],
            d: vec![0.0; n_in / form.block_len() * n],
            sums16: vec![0.0; n_in / 16 * n],
            sums32: vec![0.0; n_in / 32 * n],
            starts: vec![0; n_in / if form == Form::Small { 32 } else { 16 } * n],
        };
        let (mut q, mut d) = (vec![0i8; n_in], vec![0f32; n_in / form.block_len()]);
        for (row, floats) in floats.chunks_exact(n_in).enumerate() {
            form.quantize(level, floats, &mut q, &mut d);
            d.iter().enumerate().for_each(|(b, d)| tile.d[b * n + row] = *d);
            for (at, four) in q.as_chunks::<4>().0.iter().enumerate() {
                tile.qs[at * n + row] = *four;
            }
            for (at, q) in q.chunks_exact(32).enumerate() {
                let [first, second] = [&q[..16], &q[16..]].map(|q| q.iter().map(|&q| i32::from(q)).sum::<i32>());
                (tile.sums16[2 * at * n + row], tile.sums16[(2 * at + 1) * n + row]) = (first as f32, second as f32);
                tile.sums32[at * n + row] = (first + second) as f32;
                if form == Form::Small {
                    tile.starts[at * n + row] = -128 * (first + second);
                } else {
                    (tile.starts[2 * at * n + row], tile.starts[(2 * at + 1) * n + row]) = (-128 * first, -128 * second);
                }
            }
        }
        tile
    }
}

compiled_for! {
    /// Q8_0: `d = max / 127` rounded to f16, integers from the unrounded inverse. A value that is not finite makes `d` NaN,
    /// so that it shows in the logits instead of vanishing in the integers.
    fn quantize_small(floats: &[f32], qs: &mut [i8], d: &mut [f32]) {
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
