//! The short convolution by which LFM2 mixes tokens in most of its layers: each value with those of a few positions before it.

use bytemuck::cast_slice_mut;
use half::f16;
use half::slice::HalfFloatSliceExt;

use crate::Pool;
use crate::level::compiled_for;

/// The largest f16.
const F16_MAX: f32 = 65_504.0;
/// Values that are rounded together.
const TOGETHER: usize = 64;

/// A causal convolution along positions, one for each of `n` values.
pub struct Convolution<'a> {
    /// `(n_taps, n)`; the last of the taps meets the position itself.
    pub taps: &'a [f32],
    pub n: usize,
    /// Position of the first row.
    pub pos: usize,
}

impl Convolution<'_> {
    /// Takes rows that hold `b`, `c` and `x` side by side, `(n_rows, 3 n)`. Keeps `b · x` of each at its position in `plane`, rows
    /// of `n` values in f16, and writes `c · Σ tap · (b · x)` over the last positions to `out`, `(n_rows, n)`.
    ///
    /// What is read of a position is what was kept of it, so that a row does not depend on the rows it is computed with.
    ///
    /// # Panics
    /// When shapes do not fit, or a position lies beyond the plane.
    pub fn run(&self, pool: &Pool, bcx: &[f32], plane: &mut [u8], out: &mut [f32]) {
        let n = self.n;
        let n_rows = out.len() / n;
        assert_eq!((out.len(), bcx.len()), (n_rows * n, 3 * n_rows * n), "a row of outputs for each row");
        assert_eq!(self.taps.len() % n, 0, "taps for each value");
        let plane: &mut [f16] = cast_slice_mut(plane);
        let kept = &mut plane[self.pos * n..(self.pos + n_rows) * n];
        pool.run_rows(kept, n, |index, kept| {
            let (b, cx) = bcx[3 * index * n..][..3 * n].split_at(n);
            let mut product = [0f32; TOGETHER];
            for ((kept, b), x) in kept.chunks_mut(TOGETHER).zip(b.chunks(TOGETHER)).zip(cx[n..].chunks(TOGETHER)) {
                let product = &mut product[..kept.len()];
                product.iter_mut().zip(b).zip(x).for_each(|((p, b), x)| *p = (b * x).clamp(-F16_MAX, F16_MAX));
                kept.convert_from_f32_slice(product);
            }
        });
        let plane = &*plane;
        pool.run_rows(out, n, |index, out| {
            out.fill(0.0);
            let n_taps = self.taps.len() / n;
            for (tap, weights) in self.taps.chunks_exact(n).enumerate() {
                // Before the first position there is nothing.
                let Some(pos) = (self.pos + index + 1 + tap).checked_sub(n_taps) else { continue };
                add_products(pool.level(), weights, &plane[pos * n..][..n], out);
            }
            let c = &bcx[(3 * index + 1) * n..][..n];
            out.iter_mut().zip(c).for_each(|(out, c)| *out *= c);
        });
    }

    /// Bytes of what is kept of a position.
    pub fn row_bytes(n: usize) -> usize {
        n * size_of::<f16>()
    }
}

compiled_for! {
    fn add_products(weights: &[f32], kept: &[f16], out: &mut [f32]) {
        for ((out, weight), kept) in out.iter_mut().zip(weights).zip(kept) {
            *out += weight * kept.to_f32();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Level;

    #[test]
    fn rows_meet_those_before_them() {
        // One value, three taps: b · x is 1, 2, 3, 4; c is 10.
        let bcx: Vec<f32> = (1..=4).flat_map(|i| [i as f32, 10.0, 1.0]).collect();
        let taps = [100.0, 10.0, 1.0];
        let expected = [10.0, 120.0, 1230.0, 2340.0];
        for level in Level::available() {
            let pool = Pool::new(2, level);
            let (mut together, mut apart) = ([0.0; 4], [0.0; 4]);
            let mut plane = [f16::ZERO; 8];
            Convolution { taps: &taps, n: 1, pos: 0 }.run(&pool, &bcx, cast_slice_mut(&mut plane), &mut together);
            for (pos, out) in apart.iter_mut().enumerate() {
                let out = std::slice::from_mut(out);
                Convolution { taps: &taps, n: 1, pos }.run(&pool, &bcx[3 * pos..][..3], cast_slice_mut(&mut plane), out);
            }
            assert_eq!((together, apart), (expected, expected), "{level}");
        }
    }
}
