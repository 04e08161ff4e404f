//! The operators between products. Plain loops that compilers vectorize; each row is computed alone.

use crate::Pool;
use crate::exponential::exp;
use crate::level::compiled_for;

/// The root mean square norm of each row of `weight.len()` values, in place and across the pool.
///
/// # Panics
/// When `x` is not whole rows.
pub fn rms_norm_rows(pool: &Pool, x: &mut [f32], weight: &[f32], epsilon: f32) {
    pool.run_rows(x, weight.len(), |_, row| rms_norm_heads(pool.level(), row, weight, epsilon));
}

/// The gate of each row, which holds `n` gates and then `n` ups: `n` values, to `out`.
///
/// # Panics
/// When `out` has another number of rows.
pub fn gate_rows(pool: &Pool, gate: Gate, gate_up: &[f32], n: usize, out: &mut [f32]) {
    assert_eq!(gate_up.len(), 2 * out.len(), "a gate and an up for each value");
    pool.run_rows(out, n, |index, row| gate_mul(pool.level(), gate, &gate_up[2 * index * n..][..2 * n], row));
}

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
    /// By `pos · frequency`, with sine and cosine times `magnitude`.
    pub fn new(pos: usize, frequency: f32, magnitude: f32) -> Turn {
        let (sin, cos) = (pos as f32 * frequency).sin_cos();
        Turn { cos: cos * magnitude, sin: sin * magnitude }
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

/// What a gate makes of its values before they meet the ups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// `x · sigmoid(x)`: most families.
    Silu,
    /// GELU by its usual approximation, `x / 2 · (1 + tanh(√(2/π) · (x + 0.044715 x³)))`: Gemma.
    Gelu,
}

/// `gate(first half) · second half` of one row.
pub(crate) fn gate_mul(level: crate::Level, gate: Gate, gate_up: &[f32], out: &mut [f32]) {
    match gate {
        Gate::Silu => silu_mul(level, gate_up, out),
        Gate::Gelu => gelu_mul(level, gate_up, out),
    }
}

compiled_for! {
    /// `silu(gate) · up` of one row, which holds as many gates as outputs and then as many ups.
    fn silu_mul(gate_up: &[f32], out: &mut [f32]) {
        let (gate, up) = gate_up.split_at(out.len());
        for ((out, gate), up) in out.iter_mut().zip(gate).zip(up) {
            *out = gate / (1.0 + exp(-gate)) * up;
        }
    }
}

compiled_for! {
    /// The same with GELU. `(1 + tanh z) / 2` is the sigmoid of `2z`.
    fn gelu_mul(gate_up: &[f32], out: &mut [f32]) {
        /// `2 · √(2/π)`
        const DOUBLED: f32 = 1.595_769;
        let (gate, up) = gate_up.split_at(out.len());
        for ((out, gate), up) in out.iter_mut().zip(gate).zip(up) {
            let z = DOUBLED * (gate + 0.044_715 * gate * gate * gate);
            *out = gate / (1.0 + exp(-z)) * up;
        }
    }
}

compiled_for! {
    /// `cap · tanh(x / cap)` of each value, in place: no value is beyond ±`cap`.
    pub(crate) fn cap_softly(x: &mut [f32], cap: f32) {
        let inverse = 1.0 / cap;
        for x in x {
            *x = cap * (1.0 - 2.0 / (exp(2.0 * (*x * inverse)) + 1.0));
        }
    }
}

/// `scale · x`, then `cap · tanh(x / cap)` where there is a cap, of each row of `n` values, in place and across the pool.
///
/// # Panics
/// When `x` is not whole rows.
pub fn scale_rows(pool: &Pool, x: &mut [f32], n: usize, scale: f32, cap: Option<f32>) {
    pool.run_rows(x, n, |_, row| {
        row.iter_mut().for_each(|x| *x *= scale);
        if let Some(cap) = cap {
            cap_softly(pool.level(), row, cap);
        }
    });
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
        let (level, quarter) = (crate::Level::detect(), [Turn::new(1, std::f32::consts::FRAC_PI_2, 1.0); 2]);
        let mut adjacent = [1.0, 0.0, 0.0, 1.0];
        rope(level, &mut adjacent, 4, &quarter, RopePairs::Adjacent);
        check(&adjacent, &[0.0, 1.0, -1.0, 0.0]);
        let mut halves = [1.0, 0.0, 0.0, 1.0];
        rope(level, &mut halves, 4, &quarter, RopePairs::Halves);
        check(&halves, &[0.0, -1.0, 1.0, 0.0]);
    }

    #[test]
    fn gated_rows() {
        let (pool, mut out) = (Pool::new(2, crate::Level::detect()), [0.0; 4]);
        gate_rows(&pool, Gate::Silu, &[0.0, 1.0, 5.0, 2.0, 1.0, 0.0, 1.0, 3.0], 2, &mut out);
        let silu = 1.0 / (1.0 + (-1f32).exp());
        check(&out, &[0.0, 2.0 * silu, silu, 0.0]);
        // The approximation at ±1, from its formula in double precision.
        gate_rows(&pool, Gate::Gelu, &[1.0, -1.0, 1.0, 2.0, 0.0, 9.0, 3.0, 1.0], 2, &mut out);
        check(&out, &[0.841_192, 2.0 * -0.158_808, 0.0, 9.0]);
    }

    #[test]
    fn soft_caps() {
        for level in crate::Level::available() {
            let mut x = [0.0, 50.0, -1000.0, 1.0];
            scale_rows(&Pool::new(1, level), &mut x, 4, 2.0, Some(50.0));
            let expected = [0.0, 50.0 * 2f32.tanh(), -50.0, 50.0 * 0.04f32.tanh()];
            assert!(x.iter().zip(expected).all(|(a, b)| (a - b).abs() < 2e-5), "{x:?} is not {expected:?}");
        }
    }
}
