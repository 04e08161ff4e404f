//! The product of every quantized type.

use crate::activations::Row;
use crate::integers::{Integers, Unpacked};

/// `M` products of one row of weights with `M` rows of inputs. A block's integer sums are exact; the float sum runs over
/// blocks in file order with one fused multiply-add each, and one more where the type has minimums.
pub(crate) fn dot<B: Integers, const M: usize>(w: &[B], x: [Row; M]) -> [f32; M] {
    let mut sums = [0f32; M];
    for (b, w) in w.iter().enumerate() {
        let Unpacked { q, scales, mins, d, m } = Unpacked::new(w);
        for (sum, x) in sums.iter_mut().zip(&x) {
            let qs = &x.qs[b * B::WEIGHTS..][..B::WEIGHTS];
            let (mut total, mut min) = (0i32, 0i32);
            for (j, (q, x)) in q.chunks_exact(B::SUB).zip(qs.chunks_exact(B::SUB)).enumerate() {
                total += scales[j] * q.iter().zip(x).map(|(&q, &x)| i32::from(q) * i32::from(x)).sum::<i32>();
                min += mins[j] * x.iter().map(|&x| i32::from(x)).sum::<i32>();
            }
            *sum = (d * x.d[b]).mul_add(total as f32, *sum);
            if B::M.is_some() {
                *sum = (m * x.d[b]).mul_add(min as f32, *sum);
            }
        }
    }
    sums
}
