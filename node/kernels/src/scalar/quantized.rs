//! The product of every quantized type.

use crate::activations::Row;
use crate::block::SUPER;
use crate::integers::Integers;

/// `M` products of one row of weights with `M` rows of inputs. A block's integer sums are exact; the float sum runs over
/// blocks in file order with one fused multiply-add each, and one more where the type has minimums.
pub(crate) fn dot<B: Integers, const M: usize>(w: &[B], x: [Row; M]) -> [f32; M] {
    let mut sums = [0f32; M];
    let mut q = [0i8; SUPER];
    for (b, w) in w.iter().enumerate() {
        let q = &mut q[..B::WEIGHTS];
        w.weights(q);
        let (scales, mins, [d, m]) = (w.scales(), w.mins(), w.factors());
        for (sum, x) in sums.iter_mut().zip(&x) {
            let qs = &x.qs[b * B::WEIGHTS..][..B::WEIGHTS];
            let (mut total, mut min) = (0i32, 0i32);
            for (j, (q, x)) in q.chunks_exact(B::SUB).zip(qs.chunks_exact(B::SUB)).enumerate() {
                total += i32::from(scales[j]) * q.iter().zip(x).map(|(&q, &x)| i32::from(q) * i32::from(x)).sum::<i32>();
                min += i32::from(mins[j]) * x.iter().map(|&x| i32::from(x)).sum::<i32>();
            }
            *sum = (d * x.d[b]).mul_add(total as f32, *sum);
            if B::MINS {
                *sum = (m * x.d[b]).mul_add(min as f32, *sum);
            }
        }
    }
    sums
}
