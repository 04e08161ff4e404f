//! Types with blocks of 32 weights.

use crate::activations::Row;
use crate::block::{BlockQ4_0, BlockQ4_1, BlockQ5_0, BlockQ5_1, BlockQ8_0};

/// Exact integer product of a block with 32 inputs.
fn int_dot(w: &[i8; 32], x: &[i8]) -> i32 {
    w.iter().zip(x).map(|(&w, &x)| i32::from(w) * i32::from(x)).sum()
}

macro_rules! symmetric {
    ($(#[$doc:meta])* $name:ident, $block:ty, $weights:expr) => {
        $(#[$doc])*
        pub(crate) fn $name<const M: usize>(w: &[$block], x: [Row; M]) -> [f32; M] {
            x.map(|x| {
                w.iter().zip(x.qs.chunks_exact(32)).zip(x.d).fold(0f32, |sum, ((w, qs), d)| {
                    (w.d.to_f32() * d).mul_add(int_dot(&$weights(w), qs) as f32, sum)
                })
            })
        }
    };
}
symmetric!(
    /// `Σ d_w d_x Σ (q − 8) x`
    dot_q4_0, BlockQ4_0, BlockQ4_0::weights);
symmetric!(
    /// `Σ d_w d_x Σ (q − 16) x`
    dot_q5_0, BlockQ5_0, BlockQ5_0::weights);
symmetric!(
    /// `Σ d_w d_x Σ q x`
    dot_q8_0, BlockQ8_0, |w: &BlockQ8_0| w.qs);

macro_rules! with_minimum {
    ($(#[$doc:meta])* $name:ident, $block:ty) => {
        $(#[$doc])*
        pub(crate) fn $name<const M: usize>(w: &[$block], x: [Row; M]) -> [f32; M] {
            x.map(|x| {
                let inputs = x.qs.chunks_exact(32).zip(x.d).zip(x.sums.chunks_exact(2));
                w.iter().zip(inputs).fold(0f32, |sum, (w, ((qs, d), sums))| {
                    let sum = (w.d.to_f32() * d).mul_add(int_dot(&w.weights(), qs) as f32, sum);
                    (w.m.to_f32() * d).mul_add((sums[0] + sums[1]) as f32, sum)
                })
            })
        }
    };
}
with_minimum!(
    /// `Σ d_w d_x Σ q x + m_w d_x Σ x`
    dot_q4_1, BlockQ4_1);
with_minimum!(
    /// `Σ d_w d_x Σ q x + m_w d_x Σ x`
    dot_q5_1, BlockQ5_1);
