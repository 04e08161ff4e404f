//! Float weights, and the definition of quantized ones. A row of weights is read from the mapping and multiplied where it
//! lies.

use std::ops::Range;

use half::{bf16, f16};

use crate::activations::{Inputs, Row};
use crate::block::{
    BlockQ2K, BlockQ3K, BlockQ4_0, BlockQ4_1, BlockQ4K, BlockQ5_0, BlockQ5_1, BlockQ5K, BlockQ6K, BlockQ8_0, cast,
};
use crate::{Level, QuantType, Weights, scalar};

/// Input rows that meet a weight row together: what they share is loaded and unpacked once, and four sums fit the registers
/// of every processor.
const TOGETHER: usize = 4;

/// Multiplies `rows` of `w` with every row of `x`; `write(token, row, sums)` takes sums of consecutive rows of weights.
pub(crate) fn multiply(level: Level, w: &Weights, rows: Range<usize>, x: Inputs, write: impl Fn(usize, usize, &[f32])) {
    let n_grouped = x.n_rows / TOGETHER * TOGETHER;
    for row in rows.clone() {
        for token in (0..n_grouped).step_by(TOGETHER) {
            let sums = dot::<TOGETHER>(level, w, row, x, token);
            sums.into_iter().enumerate().for_each(|(j, sum)| write(token + j, row, &[sum]));
        }
    }
    for token in n_grouped..x.n_rows {
        for row in rows.clone() {
            write(token, row, &dot::<1>(level, w, row, x, token));
        }
    }
}

/// The products of weight row `row` with input rows `token` to `token + M`.
fn dot<const M: usize>(level: Level, w: &Weights, row: usize, x: Inputs, token: usize) -> [f32; M] {
    let bytes = w.row(row);
    let floats = || std::array::from_fn(|i| &x.floats[(token + i) * x.n_in..][..x.n_in]);
    let rows = || -> [Row; M] { std::array::from_fn(|i| x.row(w.quant(), token + i)) };
    match w.quant() {
        QuantType::F32 => dot_f32(level, cast(bytes), floats()),
        QuantType::F16 => dot_f16(level, cast(bytes), floats()),
        QuantType::BF16 => dot_bf16(level, cast(bytes), floats()),
        QuantType::Q4_0 => scalar::dot(cast::<BlockQ4_0>(bytes), rows()),
        QuantType::Q4_1 => scalar::dot(cast::<BlockQ4_1>(bytes), rows()),
        QuantType::Q5_0 => scalar::dot(cast::<BlockQ5_0>(bytes), rows()),
        QuantType::Q5_1 => scalar::dot(cast::<BlockQ5_1>(bytes), rows()),
        QuantType::Q8_0 => scalar::dot(cast::<BlockQ8_0>(bytes), rows()),
        QuantType::Q2_K => scalar::dot(cast::<BlockQ2K>(bytes), rows()),
        QuantType::Q3_K => scalar::dot(cast::<BlockQ3K>(bytes), rows()),
        QuantType::Q4_K => scalar::dot(cast::<BlockQ4K>(bytes), rows()),
        QuantType::Q5_K => scalar::dot(cast::<BlockQ5K>(bytes), rows()),
        QuantType::Q6_K => scalar::dot(cast::<BlockQ6K>(bytes), rows()),
    }
}

macro_rules! floats {
    ($name:ident, $weight:ty) => {
        fn $name<const M: usize>(level: Level, w: &[$weight], x: [&[f32]; M]) -> [f32; M] {
            match level {
                Level::Scalar => scalar::dot_float(w, x),
                // SAFETY: a level other than Scalar is only made by `Level::available`, after asking the processor.
                #[cfg(target_arch = "x86_64")]
                _ => unsafe { crate::x86::$name(w, x) },
                // SAFETY: as above.
                #[cfg(target_arch = "aarch64")]
                _ => unsafe { crate::neon::$name(w, x) },
            }
        }
    };
}
floats!(dot_f32, f32);
floats!(dot_f16, f16);
floats!(dot_bf16, bf16);
