//! Types with super-blocks of 256 weights. Sub-block scales stay integers, so a super-block's sum is exact.

use crate::activations::Row;
use crate::block::{BlockQ2K, BlockQ3K, BlockQ4K, BlockQ5K, BlockQ6K, SUPER, scales_and_mins};

/// `Σ_j scale_j Σ_i q_i x_i` over sub-blocks of `SUPER / scales.len()` weights.
fn scaled_dot(q: &[i8; SUPER], scales: &[i8], x: &[i8]) -> i32 {
    let len = SUPER / scales.len();
    let parts = q.chunks_exact(len).zip(x.chunks_exact(len));
    parts
        .zip(scales)
        .map(|((q, x), &s)| i32::from(s) * q.iter().zip(x).map(|(&q, &x)| i32::from(q) * i32::from(x)).sum::<i32>())
        .sum()
}

/// `Σ_j min_j Σ_i x_i`, where each minimum covers `16 / mins.len()` sums of 16 inputs.
fn min_dot(mins: &[u8], sums: &[i16]) -> i32 {
    let per = sums.len() / mins.len();
    mins.iter().zip(sums.chunks_exact(per)).map(|(&m, s)| i32::from(m) * s.iter().map(|&s| i32::from(s)).sum::<i32>()).sum()
}

macro_rules! super_blocks {
    ($(#[$doc:meta])* $name:ident, $block:ty, |$w:ident, $x:ident| $sums:expr) => {
        $(#[$doc])*
        pub(crate) fn $name<const M: usize>(w: &[$block], x: [Row; M]) -> [f32; M] {
            x.map(|x| {
                let inputs = x.qs.chunks_exact(SUPER).zip(x.sums.chunks_exact(16)).zip(x.d);
                w.iter().zip(inputs).fold(0f32, |sum, ($w, ($x, d))| {
                    let (dot, min): (i32, Option<(f32, i32)>) = $sums;
                    let sum = ($w.d.to_f32() * d).mul_add(dot as f32, sum);
                    min.map_or(sum, |(dmin, min)| (-(dmin * d)).mul_add(min as f32, sum))
                })
            })
        }
    };
}
super_blocks!(
/// `Σ d d_x Σ_j scale_j Σ q x − dmin d_x Σ_j min_j Σ x`, 16 sub-blocks
dot_q2_k, BlockQ2K, |w, x| {
    let (scales, mins) = (w.scales.map(|s| (s & 15) as i8), w.scales.map(|s| s >> 4));
    (scaled_dot(&w.weights(), &scales, x.0), Some((w.dmin.to_f32(), min_dot(&mins, x.1))))
});
super_blocks!(
    /// `Σ d d_x Σ_j scale_j Σ q x`, 16 sub-blocks
    dot_q3_k, BlockQ3K, |w, x| (scaled_dot(&w.weights(), &w.sub_scales(), x.0), None));
super_blocks!(
/// `Σ d d_x Σ_j scale_j Σ q x − dmin d_x Σ_j min_j Σ x`, 8 sub-blocks
dot_q4_k, BlockQ4K, |w, x| {
    let (scales, mins) = scales_and_mins(&w.scales);
    (scaled_dot(&w.weights(), &scales.map(|s| s as i8), x.0), Some((w.dmin.to_f32(), min_dot(&mins, x.1))))
});
super_blocks!(
/// As [`dot_q4_k`] with five bits
dot_q5_k, BlockQ5K, |w, x| {
    let (scales, mins) = scales_and_mins(&w.scales);
    (scaled_dot(&w.weights(), &scales.map(|s| s as i8), x.0), Some((w.dmin.to_f32(), min_dot(&mins, x.1))))
});
super_blocks!(
    /// `Σ d d_x Σ_j scale_j Σ (q − 32) x`, 16 sub-blocks with signed scales
    dot_q6_k, BlockQ6K, |w, x| (scaled_dot(&w.weights(), &w.scales, x.0), None));
