//! The exponential function in arithmetic that vectorizes, the same to the last bit at every level.

/// `eˣ` to about one unit in the last place; 0 below −87, no more than e⁸⁸, and NaN for NaN.
///
/// As in Cephes: `x = n ln 2 + r`, a polynomial for `eʳ` with |r| ≤ ln 2 / 2, and `2ⁿ` by its exponent bits.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    /// Adding 1.5 · 2²³ rounds to the nearest integer, which then stands in the low bits.
    const ROUND: f32 = 12_582_912.0;
    // Comparisons that are false for NaN, which so reaches the result.
    let in_range = if x > 88.0 { 88.0 } else { x };
    let in_range = if in_range < -87.0 { -87.0 } else { in_range };
    let shifted = in_range.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-LN_2_LOW, n.mul_add(-LN_2_HIGH, in_range));
    let mut p = 1.987_569_1e-4f32;
    for c in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = p.mul_add(r, c);
    }
    let e = (p * r).mul_add(r, r) + 1.0;
    let two_to_n = f32::from_bits((shifted.to_bits() << 23).wrapping_add(1f32.to_bits()));
    if x < -87.0 { 0.0 } else { e * two_to_n }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_the_exact_value() {
        let mut worst = 0f64;
        for i in -870_000..=880_000 {
            let x = i as f32 / 10_000.0;
            let exact = f64::from(x).exp();
            worst = worst.max((f64::from(exp(x)) - exact).abs() / exact);
        }
        assert!(worst < 1.5e-7, "relative error {worst}");
    }

    #[test]
    fn ends() {
        let check = |x: f32, expected: f32| assert_eq!(exp(x).to_bits(), expected.to_bits(), "{x}");
        check(0.0, 1.0);
        check(f32::NEG_INFINITY, 0.0);
        check(-100.0, 0.0);
        check(f32::INFINITY, exp(88.0));
        assert!(exp(f32::NAN).is_nan());
    }
}
