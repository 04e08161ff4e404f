//! Few rows of inputs, as in decode: a row of weights is read from the mapping and multiplied where it lies.

use std::ops::Range;

use half::{bf16, f16};

use crate::activations::{Quantized, Row};
use crate::block::{
    BlockQ2K, BlockQ3K, BlockQ4_0, BlockQ4_1, BlockQ4K, BlockQ5_0, BlockQ5_1, BlockQ5K, BlockQ6K, BlockQ8_0, cast,
};
use crate::{Activations, Level, QuantType, Weights, scalar};

/// Input rows that meet a weight row together, or weight rows that meet an input row: what they share is loaded and
/// unpacked once, and four sums fit the registers of both processors.
const TOGETHER: usize = 4;

/// Multiplies `rows` of `w` with every row of `x`; `write(token, row, sums)` takes sums of consecutive rows of weights.
pub(crate) fn multiply(level: Level, w: &Weights, rows: Range<usize>, x: &Activations, write: impl Fn(usize, usize, &[f32])) {
    let n_grouped = x.n_rows() / TOGETHER * TOGETHER;
    for row in rows.clone() {
        for token in (0..n_grouped).step_by(TOGETHER) {
            let sums = dot::<TOGETHER>(level, w, row, x, token);
            sums.into_iter().enumerate().for_each(|(j, sum)| write(token + j, row, &[sum]));
        }
    }
    for token in n_grouped..x.n_rows() {
        let mut row = rows.start;
        while row + TOGETHER <= rows.end {
            write(token, row, &dot_rows(level, w, row, x, token));
            row += TOGETHER;
        }
        for row in row..rows.end {
            write(token, row, &dot::<1>(level, w, row, x, token));
        }
    }
}

fn quantized<'a>(x: &'a Activations, quant: QuantType, token: usize) -> Row<'a> {
    match x.quantized(quant) {
        Some(Quantized::Rows(rows)) => rows.row(token),
        _ => unreachable!("inputs for {quant} lie row after row here"),
    }
}

/// The products of weight rows `row` to `row + 4` with input row `token`: several rows at once where that is faster.
fn dot_rows(level: Level, w: &Weights, row: usize, x: &Activations, token: usize) -> [f32; TOGETHER] {
    #[cfg(target_arch = "x86_64")]
    if level != Level::Scalar {
        let rows = std::array::from_fn(|i| w.row(row + i));
        match w.quant() {
            // SAFETY: a level other than Scalar is only made by `Level::available`, after asking the processor.
            QuantType::Q4_0 => return unsafe { crate::x86::dot_rows_q4_0(rows.map(cast), quantized(x, w.quant(), token)) },
            // SAFETY: as above.
            QuantType::Q8_0 => return unsafe { crate::x86::dot_rows_q8_0(rows.map(cast), quantized(x, w.quant(), token)) },
            _ => {}
        }
    }
    std::array::from_fn(|i| dot::<1>(level, w, row + i, x, token)[0])
}

/// The products of weight row `row` with input rows `token` to `token + M`.
fn dot<const M: usize>(level: Level, w: &Weights, row: usize, x: &Activations, token: usize) -> [f32; M] {
    let bytes = w.row(row);
    let floats = || std::array::from_fn(|i| &x.floats[(token + i) * x.n_in..][..x.n_in]);
    let rows = || -> [Row; M] { std::array::from_fn(|i| quantized(x, w.quant(), token + i)) };
    match w.quant() {
        QuantType::F32 => dot_f32(level, cast(bytes), floats()),
        QuantType::F16 => dot_f16(level, cast(bytes), floats()),
        QuantType::BF16 => dot_bf16(level, cast(bytes), floats()),
        QuantType::Q4_0 => dot_q4_0(level, cast(bytes), rows()),
        QuantType::Q4_1 => scalar::dot(cast::<BlockQ4_1>(bytes), rows()),
        QuantType::Q5_0 => scalar::dot(cast::<BlockQ5_0>(bytes), rows()),
        QuantType::Q5_1 => scalar::dot(cast::<BlockQ5_1>(bytes), rows()),
        QuantType::Q8_0 => dot_q8_0(level, cast(bytes), rows()),
        QuantType::Q2_K => scalar::dot(cast::<BlockQ2K>(bytes), rows()),
        QuantType::Q3_K => scalar::dot(cast::<BlockQ3K>(bytes), rows()),
        QuantType::Q4_K => dot_q4_k(level, cast(bytes), rows()),
        QuantType::Q5_K => dot_q5_k(level, cast(bytes), rows()),
        QuantType::Q6_K => dot_q6_k(level, cast(bytes), rows()),
    }
}

macro_rules! dispatch {
    ($name:ident, $block:ty, $input:ty, $scalar:path) => {
        pub(crate) fn $name<const M: usize>(level: Level, w: &[$block], x: [$input; M]) -> [f32; M] {
            match level {
                Level::Scalar => $scalar(w, x),
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
dispatch!(dot_f32, f32, &[f32], scalar::dot_float);
dispatch!(dot_f16, f16, &[f32], scalar::dot_float);
dispatch!(dot_bf16, bf16, &[f32], scalar::dot_float);
dispatch!(dot_q4_0, BlockQ4_0, Row, scalar::dot);
dispatch!(dot_q8_0, BlockQ8_0, Row, scalar::dot);
dispatch!(dot_q4_k, BlockQ4K, Row, scalar::dot);
dispatch!(dot_q5_k, BlockQ5K, Row, scalar::dot);
dispatch!(dot_q6_k, BlockQ6K, Row, scalar::dot);
