//! The inputs of a product, quantized once and shared by every matrix that reads them.

use half::f16;

use crate::block::SUPER;
use crate::{Pool, QuantType};

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
                SUPER => _ = large.get_or_insert_with(|| Quantized::new(pool, floats, n_in, LARGE)),
                _ => _ = small.get_or_insert_with(|| Quantized::new(pool, floats, n_in, SMALL)),
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

/// How a block of inputs is quantized.
#[derive(Clone, Copy)]
struct Form {
    block_len: usize,
    quantize: fn(&[f32], &mut [i8]) -> f32,
}

const SMALL: Form = Form { block_len: 32, quantize: quantize_small };
const LARGE: Form = Form { block_len: SUPER, quantize: quantize_large };

impl Quantized {
    fn new(pool: &Pool, floats: &[f32], n_in: usize, form: Form) -> Quantized {
        assert_eq!(n_in % form.block_len, 0, "a row of {n_in} is not whole blocks of {}", form.block_len);
        match pool.level().tile_rows(floats.len() / n_in) {
            Some(n) => {
                let tiles: Vec<&[f32]> = floats.chunks(n * n_in).collect();
                Quantized::Tiles(pool.map(tiles.len(), |index| Tile::new(tiles[index], n_in, n, form)))
            }
            None => Quantized::Rows(Rows::new(floats, n_in, form)),
        }
    }
}

impl Rows {
    fn new(floats: &[f32], n_in: usize, form: Form) -> Rows {
        let mut qs = vec![0i8; floats.len()];
        let blocks = floats.chunks_exact(form.block_len).zip(qs.chunks_exact_mut(form.block_len));
        let d = blocks.map(|(x, q)| (form.quantize)(x, q)).collect();
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

    fn new(floats: &[f32], n_in: usize, n: usize, form: Form) -> Tile {
        let mut tile = Tile {
            n,
            qs: vec![[0; 4]; n_in / 4 * n],
            d: vec![0.0; n_in / form.block_len * n],
            sums16: vec![0.0; n_in / 16 * n],
            sums32: vec![0.0; n_in / 32 * n],
            starts: vec![0; n_in / if form.block_len == 32 { 32 } else { 16 } * n],
        };
        let mut q = vec![0i8; n_in];
        for (row, floats) in floats.chunks_exact(n_in).enumerate() {
            for (b, (x, q)) in floats.chunks_exact(form.block_len).zip(q.chunks_exact_mut(form.block_len)).enumerate() {
                q.fill(0);
                tile.d[b * n + row] = (form.quantize)(x, q);
            }
            for (at, four) in q.as_chunks::<4>().0.iter().enumerate() {
                tile.qs[at * n + row] = *four;
            }
            for (at, q) in q.chunks_exact(32).enumerate() {
                let [first, second] = [&q[..16], &q[16..]].map(|q| q.iter().map(|&q| i32::from(q)).sum::<i32>());
                (tile.sums16[2 * at * n + row], tile.sums16[(2 * at + 1) * n + row]) = (first as f32, second as f32);
                tile.sums32[at * n + row] = (first + second) as f32;
                if form.block_len == 32 {
                    tile.starts[at * n + row] = -128 * (first + second);
                } else {
                    (tile.starts[2 * at * n + row], tile.starts[(2 * at + 1) * n + row]) = (-128 * first, -128 * second);
                }
            }
        }
        tile
    }
}

/// Largest magnitude, over eight lanes so that it vectorizes. Skips NaN, which the factor then carries (see callers).
fn max_abs(x: &[f32]) -> f32 {
    let mut lanes = [0f32; 8];
    for x in x.chunks_exact(8) {
        for (lane, x) in lanes.iter_mut().zip(x) {
            *lane = if x.abs() > *lane { x.abs() } else { *lane };
        }
    }
    lanes.into_iter().fold(0.0, f32::max)
}

/// Rounds to the nearest integer, ties to even, for |v| < 2²²: adding 1.5·2²³ leaves the integer in the low mantissa.
fn nearest(v: f32) -> i32 {
    ((v + 12_582_912.0).to_bits() & 0x007f_ffff) as i32 - 0x0040_0000
}

/// Q8_0: `d = max / 127` rounded to f16, integers from the unrounded inverse. A value that is not finite makes `d` NaN,
/// so that it shows in the logits instead of vanishing in the integers.
fn quantize_small(x: &[f32], q: &mut [i8]) -> f32 {
    let max = max_abs(x);
    if !x.iter().sum::<f32>().is_finite() {
        return f32::NAN;
    }
    let inverse = if max > 0.0 { 127.0 / max } else { 0.0 };
    if !inverse.is_finite() {
        return 0.0;
    }
    x.iter().zip(q).for_each(|(x, q)| *q = nearest(x * inverse) as i8);
    f16::from_f32(max / 127.0).to_f32()
}

/// Q8_K: the value of largest magnitude becomes −127 and `d` its inverse factor in f32. Not finite: as above.
fn quantize_large(x: &[f32], q: &mut [i8]) -> f32 {
    let max = max_abs(x);
    if !x.iter().sum::<f32>().is_finite() {
        return f32::NAN;
    }
    let signed = x.iter().copied().find(|x| x.abs() == max).unwrap_or(0.0);
    let inverse = if max > 0.0 { -127.0 / signed } else { 0.0 };
    if !inverse.is_finite() || inverse == 0.0 {
        return 0.0;
    }
    x.iter().zip(q).for_each(|(x, q)| *q = nearest(x * inverse).min(127) as i8);
    1.0 / inverse
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(x: &[f32], quantize: fn(&[f32], &mut [i8]) -> f32, expected_d: f32, expected_q: &[i8]) {
        let mut q = vec![0; x.len()];
        assert_eq!(quantize(x, &mut q).to_bits(), expected_d.to_bits());
        assert_eq!(&q[..expected_q.len()], expected_q);
    }

    #[test]
    fn small_blocks_scale_to_127() {
        let mut x = [0.0; 32];
        (x[0], x[1], x[2]) = (2.0, -1.0, 0.5);
        check(&x, quantize_small, f16::from_f32(2.0 / 127.0).to_f32(), &[127, -64, 32, 0]);
    }

    #[test]
    fn large_blocks_scale_to_minus_127() {
        let mut x = [0.0; SUPER];
        (x[0], x[1]) = (2.0, -1.0);
        check(&x, quantize_large, 1.0 / (-127.0 / 2.0), &[-127, 64, 0]);
    }

    #[test]
    fn zero_is_zero_and_not_finite_is_nan() {
        check(&[0.0; 32], quantize_small, 0.0, &[0; 32]);
        check(&[0.0; SUPER], quantize_large, 0.0, &[0; SUPER]);
        for bad in [f32::NAN, f32::INFINITY] {
            let mut x = [0.0; 32];
            x[7] = bad;
            assert!(quantize_small(&x, &mut [0; 32]).is_nan());
        }
    }
}
