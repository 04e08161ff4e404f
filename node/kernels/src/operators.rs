//! The operators between products. Plain loops that compilers vectorize; each row is computed alone.

use crate::exponential::exp;
use crate::level::compiled_for;

compiled_for! {
    /// `x / rms(x) · weight` of one row: the root mean square norm.
    pub(crate) fn rms_norm(x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
        let factor = rms_factor(x, epsilon);
        for ((out, x), w) in out.iter_mut().zip(x).zip(weight) {
            *out = *x * factor * w;
        }
    }
}

compiled_for! {
    /// The norm of each row of `weight.len()` values, in place.
    pub(crate) fn rms_norm_heads(x: &mut [f32], weight: &[f32], epsilon: f32) {
        for row in x.chunks_exact_mut(weight.len()) {
            let factor = rms_factor(row, epsilon);
            row.iter_mut().zip(weight).for_each(|(x, w)| *x = *x * factor * w);
        }
    }
}

/// The inverse of the root of the mean square.
#[inline(always)]
fn rms_factor(x: &[f32], epsilon: f32) -> f32 {
    let mut lanes = [0f32; 16];
    let (whole, rest) = x.as_chunks::<16>();
    for part in whole {
        for i in 0..16 {
            lanes[i] += part[i] * part[i];
        }
    }
    lanes.iter_mut().zip(rest).for_each(|(lane, x)| *lane += x * x);
    let mean = lanes.iter().sum::<f32>() / x.len() as f32;
    1.0 / (mean + epsilon).sqrt()
}

/// Which two values of a head rope turns together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RopePairs {
    /// `(2i, 2i + 1)`: files of the `llama` architecture.
    Adjacent,
    /// `(i, i + n_rot / 2)`: qwen and most others.
    Halves,
}

/// What rope turns a pair by.
#[derive(Debug, Clone, Copy)]
pub struct Turn {
    cos: f32,
    sin: f32,
}

impl Turn {
    /// By `pos · frequency`.
    pub fn new(pos: usize, frequency: f32) -> Turn {
        let (sin, cos) = (pos as f32 * frequency).sin_cos();
        Turn { cos, sin }
    }

    fn pair(self, a: f32, b: f32) -> (f32, f32) {
        (a * self.cos - b * self.sin, a * self.sin + b * self.cos)
    }
}

compiled_for! {
    /// Turns the first `turns.len()` pairs of each head (`n_embd_head` wide) of one row: rotary positions.
    pub(crate) fn rope(row: &mut [f32], n_embd_head: usize, turns: &[Turn], pairs: RopePairs) {
        for head in row.chunks_exact_mut(n_embd_head) {
            match pairs {
                RopePairs::Adjacent => {
                    for (turn, [a, b]) in turns.iter().zip(head.as_chunks_mut::<2>().0) {
                        (*a, *b) = turn.pair(*a, *b);
                    }
                }
                RopePairs::Halves => {
                    let (first, second) = head.split_at_mut(turns.len());
                    for ((turn, a), b) in turns.iter().zip(first).zip(second) {
                        (*a, *b) = turn.pair(*a, *b);
                    }
                }
            }
        }
    }
}

compiled_for! {
    /// `silu(gate) · up` of one row, which holds as many gates as outputs and then as many ups.
    pub(crate) fn silu_mul(gate_up: &[f32], out: &mut [f32]) {
        let (gate, up) = gate_up.split_at(out.len());
        for ((out, gate), up) in out.iter_mut().zip(gate).zip(up) {
            *out = gate / (1.0 + exp(-gate)) * up;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(found: &[f32], expected: &[f32]) {
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{found:?} is not {expected:?}");
    }

    #[test]
    fn norm_of_a_row() {
        let (mut x, mut out) = ([3.0, 4.0], [0.0; 2]);
        rms_norm(crate::Level::detect(), &x, &[1.0, 2.0], 0.0, &mut out);
        check(&out, &[3.0 / 12.5f32.sqrt(), 8.0 / 12.5f32.sqrt()]);
        rms_norm_heads(crate::Level::detect(), &mut x, &[1.0, 2.0], 0.0);
        assert_eq!(x, out);
    }

    #[test]
    fn rope_turns_pairs() {
        let (level, quarter) = (crate::Level::detect(), [Turn::new(1, std::f32::consts::FRAC_PI_2); 2]);
        let mut adjacent = [1.0, 0.0, 0.0, 1.0];
        rope(level, &mut adjacent, 4, &quarter, RopePairs::Adjacent);
        check(&adjacent, &[0.0, 1.0, -1.0, 0.0]);
        let mut halves = [1.0, 0.0, 0.0, 1.0];
        rope(level, &mut halves, 4, &quarter, RopePairs::Halves);
        check(&halves, &[0.0, -1.0, 1.0, 0.0]);
    }

    #[test]
    fn gated_rows() {
        let mut out = [0.0; 2];
        silu_mul(crate::Level::detect(), &[0.0, 1.0, 5.0, 2.0], &mut out);
        check(&out, &[0.0, 2.0 / (1.0 + (-1f32).exp())]);
    }
}
