//! The operators between products. Plain loops that compilers vectorize; each row is computed alone.

use crate::exponential::exp;
use crate::level::compiled_for;

/// `x / rms(x) · weight` for each row of `weight.len()` values, in place: the root mean square norm.
///
/// # Panics
/// When `x` is not whole rows.
pub fn rms_norm(x: &mut [f32], weight: &[f32], epsilon: f32) {
    assert_eq!(x.len() % weight.len(), 0, "inputs are not whole rows");
    for row in x.chunks_exact_mut(weight.len()) {
        let mut lanes = [0f32; 16];
        for part in row.chunks(16) {
            lanes.iter_mut().zip(part).for_each(|(lane, x)| *lane += x * x);
        }
        let mean = lanes.iter().sum::<f32>() / weight.len() as f32;
        let factor = 1.0 / (mean + epsilon).sqrt();
        row.iter_mut().zip(weight).for_each(|(x, w)| *x = *x * factor * w);
    }
}

/// Which two values of a head rope turns together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RopePairs {
    /// `(2i, 2i + 1)`: files of the `llama` architecture.
    Adjacent,
    /// `(i, i + n_rot / 2)`: qwen and most others.
    Halves,
}

/// Turns the first `2 · frequencies.len()` values of each head (`n_embd_head` wide) of one row by `pos · frequency`:
/// rotary positions.
pub fn rope(row: &mut [f32], n_embd_head: usize, pos: usize, frequencies: &[f32], pairs: RopePairs) {
    let half = frequencies.len();
    for (i, frequency) in frequencies.iter().enumerate() {
        let (sin, cos) = (pos as f32 * frequency).sin_cos();
        let (a, b) = match pairs {
            RopePairs::Adjacent => (2 * i, 2 * i + 1),
            RopePairs::Halves => (i, i + half),
        };
        for head in row.chunks_exact_mut(n_embd_head) {
            (head[a], head[b]) = (head[a] * cos - head[b] * sin, head[a] * sin + head[b] * cos);
        }
    }
}

compiled_for! {
    /// `silu(gate) · up` of each row, where a row of `gate_up` holds `n_ff` gates and then `n_ff` ups.
    ///
    /// # Panics
    /// When the two slices do not hold the same number of rows.
    pub fn silu_mul(gate_up: &[f32], n_ff: usize, out: &mut [f32]) {
        assert_eq!(gate_up.len(), 2 * out.len(), "two inputs make one output");
        for (row, out) in gate_up.chunks_exact(2 * n_ff).zip(out.chunks_exact_mut(n_ff)) {
            let (gate, up) = row.split_at(n_ff);
            for ((out, gate), up) in out.iter_mut().zip(gate).zip(up) {
                *out = gate / (1.0 + exp(-gate)) * up;
            }
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
        let mut x = [3.0, 4.0];
        rms_norm(&mut x, &[1.0, 2.0], 0.0);
        check(&x, &[3.0 / 12.5f32.sqrt(), 8.0 / 12.5f32.sqrt()]);
    }

    #[test]
    fn rope_turns_pairs() {
        let quarter = std::f32::consts::FRAC_PI_2;
        let mut adjacent = [1.0, 0.0, 0.0, 1.0];
        rope(&mut adjacent, 4, 1, &[quarter, quarter], RopePairs::Adjacent);
        check(&adjacent, &[0.0, 1.0, -1.0, 0.0]);
        let mut halves = [1.0, 0.0, 0.0, 1.0];
        rope(&mut halves, 4, 1, &[quarter, quarter], RopePairs::Halves);
        check(&halves, &[0.0, -1.0, 1.0, 0.0]);
    }

    #[test]
    fn gated_rows() {
        let mut out = [0.0; 2];
        silu_mul(crate::Level::detect(), &[0.0, 1.0, 5.0, 2.0], 2, &mut out);
        check(&out, &[0.0, 2.0 / (1.0 + (-1f32).exp())]);
    }
}
