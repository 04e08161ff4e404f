//! The inputs of a product, quantized once and shared by every matrix that reads them.

use half::f16;

use crate::block::SUPER;

/// Rows of inputs, `(n_rows, n_in)`, with the integer forms the weights' quant types need.
///
/// - Types with blocks of 32 meet 8-bit inputs in blocks of 32, whose factor is rounded to f16 as the format's Q8_0 does.
/// - K-quants meet 8-bit inputs in blocks of 256 with an f32 factor (the format's Q8_K).
/// - Float types meet the inputs as they are.
pub struct Activations<'a> {
    pub(crate) floats: &'a [f32],
    pub(crate) n_in: usize,
    pub(crate) small: Option<Quantized>,
    pub(crate) large: Option<Quantized>,
}

/// 8-bit rows: integers, a factor per block, and the sum of each 16 integers (which minimums and offsets need).
pub(crate) struct Quantized {
    pub(crate) qs: Vec<i8>,
    pub(crate) d: Vec<f32>,
    pub(crate) sums: Vec<i16>,
    block_len: usize,
}

/// One quantized row as a kernel sees it.
#[derive(Clone, Copy)]
pub(crate) struct Row<'a> {
    pub(crate) qs: &'a [i8],
    pub(crate) d: &'a [f32],
    pub(crate) sums: &'a [i16],
}

impl<'a> Activations<'a> {
    /// Quantizes `floats`, rows of `n_in`, to the forms that weights with these block lengths read.
    ///
    /// # Panics
    /// When `floats` is not whole rows, or `n_in` is not a whole number of a form's blocks.
    pub fn new(floats: &'a [f32], n_in: usize, block_lens: impl Iterator<Item = usize>) -> Activations<'a> {
        assert_eq!(floats.len() % n_in, 0, "inputs are not whole rows");
        let (mut small, mut large) = (None, None);
        for block_len in block_lens {
            match block_len {
                1 => {}
                32 => _ = small.get_or_insert_with(|| Quantized::new(floats, n_in, 32, quantize_small)),
                SUPER => _ = large.get_or_insert_with(|| Quantized::new(floats, n_in, SUPER, quantize_large)),
                _ => unreachable!("no quant type has blocks of {block_len}"),
            }
        }
        Activations { floats, n_in, small, large }
    }

    /// Rows held.
    pub fn n_rows(&self) -> usize {
        self.floats.len() / self.n_in
    }
}

impl Quantized {
    fn new(floats: &[f32], n_in: usize, block_len: usize, quantize: fn(&[f32], &mut [i8]) -> f32) -> Quantized {
        assert_eq!(n_in % block_len, 0, "a row of {n_in} is not whole blocks of {block_len}");
        let mut qs = vec![0i8; floats.len()];
        let d = floats.chunks_exact(block_len).zip(qs.chunks_exact_mut(block_len)).map(|(x, q)| quantize(x, q)).collect();
        let sums = qs.chunks_exact(16).map(|q| q.iter().map(|&q| i16::from(q)).sum()).collect();
        Quantized { qs, d, sums, block_len }
    }

    /// Row `index` of rows of `n_in`.
    pub(crate) fn row(&self, index: usize, n_in: usize) -> Row<'_> {
        let part = |len: usize| index * len..(index + 1) * len;
        Row { qs: &self.qs[part(n_in)], d: &self.d[part(n_in / self.block_len)], sums: &self.sums[part(n_in / 16)] }
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
