//! What encoders compute between products: the norm with mean and bias, and the GELU gate. Each row is computed alone, across
//! the pool.

use crate::Pool;
use crate::exponential::exp;
use crate::level::compiled_for;

/// Weight and bias of a norm.
#[derive(Debug, Clone)]
pub struct LayerNorm {
    pub weight: Vec<f32>,
    pub bias: Vec<f32>,
    pub epsilon: f32,
}

impl LayerNorm {
    /// `(x − mean) / deviation · weight + bias` of each row, in place.
    ///
    /// # Panics
    /// When `x` is not whole rows of the weight's length.
    pub fn apply(&self, pool: &Pool, x: &mut [f32]) {
        pool.run_rows(x, self.weight.len(), |_, row| norm_row(pool.level(), row, self));
    }
}

/// The exact GELU, `x · Φ(x)`, of each value plus the bias of its column, in place.
///
/// # Panics
/// When `x` is not whole rows of the bias's length.
pub fn gelu(pool: &Pool, x: &mut [f32], bias: &[f32]) {
    pool.run_rows(x, bias.len(), |_, row| gelu_row(pool.level(), row, bias));
}

compiled_for! {
    fn norm_row(row: &mut [f32], norm: &LayerNorm) {
        let n = row.len() as f32;
        let mean = sum(row, |x| x) / n;
        let factor = 1.0 / (sum(row, |x| (x - mean) * (x - mean)) / n + norm.epsilon).sqrt();
        for ((x, w), b) in row.iter_mut().zip(&norm.weight).zip(&norm.bias) {
            *x = (*x - mean) * factor * w + b;
        }
    }
}

compiled_for! {
    fn gelu_row(row: &mut [f32], bias: &[f32]) {
        for (x, b) in row.iter_mut().zip(bias) {
            let z = *x + b;
            *x = 0.5 * z * (1.0 + erf(z * std::f32::consts::FRAC_1_SQRT_2));
        }
    }
}

/// A sum in sixteen lanes, so that its order is the same whatever the width of vectors.
#[inline(always)]
fn sum(row: &[f32], of: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0f32; 16];
    let (whole, rest) = row.as_chunks::<16>();
    for part in whole {
        for i in 0..16 {
            lanes[i] += of(part[i]);
        }
    }
    lanes.iter_mut().zip(rest).for_each(|(lane, x)| *lane += of(*x));
    lanes.iter().sum()
}

/// The error function to 1.5e-7 (Abramowitz and Stegun 7.1.26).
#[inline(always)]
fn erf(x: f32) -> f32 {
    let z = x.abs();
    let t = 1.0 / (1.0 + 0.327_591_1 * z);
    let mut p = 1.061_405_4f32;
    for c in [-1.453_152_1, 1.421_413_8, -0.284_496_72, 0.254_829_6] {
        p = p * t + c;
    }
    let y = 1.0 - p * t * exp(-z * z);
    if x < 0.0 { -y } else { y }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Level;

    #[test]
    fn gelu_at_known_places() {
        let pool = Pool::new(1, Level::Scalar);
        // Φ from tables.
        for (x, expected) in
            [(0.0, 0.0), (1.0, 0.841_344_7), (-1.0, -0.158_655_3), (2.0, 1.954_499_7), (-4.0, -0.000_126_7), (9.0, 9.0)]
        {
            let mut row = [x - 0.25; 20];
            gelu(&pool, &mut row, &[0.25; 20]);
            assert!(row.iter().all(|y| (y - expected).abs() < 2e-6), "{x}: {row:?}");
        }
    }

    #[test]
    fn normed_rows_have_the_mean_and_deviation_asked_for() {
        let norm = LayerNorm { weight: vec![2.0; 40], bias: vec![0.5; 40], epsilon: 0.0 };
        for level in Level::available() {
            let mut x: Vec<f32> = (0..80).map(|i| (i * i % 17) as f32).collect();
            norm.apply(&Pool::new(2, level), &mut x);
            for row in x.chunks(40) {
                let mean = row.iter().sum::<f32>() / 40.0;
                let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / 40.0;
                assert!((mean - 0.5).abs() < 1e-5 && (variance - 4.0).abs() < 1e-4, "{mean} {variance}");
            }
        }
    }
}
