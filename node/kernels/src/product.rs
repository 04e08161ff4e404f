//! `y = x · Wᵀ` for mapped weights, across the pool.

use half::{bf16, f16};

use crate::activations::Row;
use crate::block::{
    BlockQ2K, BlockQ3K, BlockQ4_0, BlockQ4_1, BlockQ4K, BlockQ5_0, BlockQ5_1, BlockQ5K, BlockQ6K, BlockQ8_0, cast,
};
use crate::{Activations, Level, Pool, QuantType, scalar};

/// A matrix of `n_out` rows of `n_in` weights, as its bytes lie in the file.
#[derive(Clone, Copy)]
pub struct Weights<'a> {
    quant: QuantType,
    n_in: usize,
    row_bytes: usize,
    bytes: &'a [u8],
}

impl<'a> Weights<'a> {
    /// Rows of `n_in` weights of type `quant`.
    ///
    /// # Panics
    /// When `n_in` is not whole blocks or `bytes` not whole rows; whoever opens a file checks that first.
    pub fn new(quant: QuantType, n_in: usize, bytes: &'a [u8]) -> Weights<'a> {
        let row_bytes = quant.row_bytes(n_in).expect("a row is whole blocks");
        assert_eq!(bytes.len() % row_bytes, 0, "the matrix is not whole rows");
        Weights { quant, n_in, row_bytes, bytes }
    }

    /// Rows, each of which gives one output.
    pub fn n_out(&self) -> usize {
        self.bytes.len() / self.row_bytes
    }

    /// How the weights are stored.
    pub fn quant(&self) -> QuantType {
        self.quant
    }

    /// Writes row `index` as f32.
    pub fn dequantize_row(&self, index: usize, out: &mut [f32]) {
        self.quant.dequantize(self.row(index), out);
    }

    fn row(&self, index: usize) -> &'a [u8] {
        &self.bytes[index * self.row_bytes..][..self.row_bytes]
    }
}

/// Weight rows a thread takes at a time. Enough work to be worth the shared counter, few enough to share out evenly.
const CHUNK: usize = 32;

/// Input rows that meet a weight row together, or weight rows that meet an input row: what they share is loaded and
/// unpacked once, and four sums fit the registers of both processors.
const TOGETHER: usize = 4;

/// Multiplies every row of `x` with every row of each matrix of `group`, which share their input. `y` is
/// `(n_rows, Σ n_out)`: each row holds the outputs of the group's matrices one after the other.
///
/// Each output is summed by one thread in one order, whatever the number of rows or threads.
///
/// # Panics
/// When shapes do not fit, or `x` lacks the form a matrix needs.
pub fn product(pool: &Pool, group: &[Weights], x: &Activations, y: &mut [f32]) {
    let n_out: usize = group.iter().map(Weights::n_out).sum();
    assert_eq!(y.len(), x.n_rows() * n_out, "output has another shape than the product");
    assert!(group.iter().all(|w| w.n_in == x.n_in), "a matrix of the group has another input width");
    let chunks: Vec<(usize, usize, usize)> = group
        .iter()
        .enumerate()
        .scan(0, |first, (i, w)| {
            let at = *first;
            *first += w.n_out();
            Some((0..w.n_out()).step_by(CHUNK).map(move |row| (i, row, at)))
        })
        .flatten()
        .collect();
    let level = pool.level();
    let y = Output(y.as_mut_ptr());
    pool.run(chunks.len(), |part| {
        let (i, first, at) = chunks[part];
        let w = &group[i];
        let last = (first + CHUNK).min(w.n_out());
        let write = |token: usize, row: usize, sum: f32| {
            // SAFETY: the place is inside `y`, as token and row are, and only this part writes columns of these rows.
            unsafe { y.write(token * n_out + at + row, sum) };
        };
        let n_grouped = x.n_rows() / TOGETHER * TOGETHER;
        for row in first..last {
            for token in (0..n_grouped).step_by(TOGETHER) {
                let sums = dot::<TOGETHER>(level, w, row, x, token);
                sums.into_iter().enumerate().for_each(|(j, sum)| write(token + j, row, sum));
            }
        }
        for token in n_grouped..x.n_rows() {
            let mut row = first;
            while row + TOGETHER <= last {
                let sums = dot_rows(level, w, row, x, token);
                sums.into_iter().enumerate().for_each(|(j, sum)| write(token, row + j, sum));
                row += TOGETHER;
            }
            for row in row..last {
                let [sum] = dot::<1>(level, w, row, x, token);
                write(token, row, sum);
            }
        }
    });
}

/// The output of a parallel region, of which every part writes other places.
#[derive(Clone, Copy)]
struct Output(*mut f32);

impl Output {
    /// # Safety
    /// `index` is inside the output, and no other part writes or reads it.
    unsafe fn write(&self, index: usize, value: f32) {
        // SAFETY: the caller's promise.
        unsafe { *self.0.add(index) = value }
    }
}

// SAFETY: `write` is the only use, and its callers write disjoint places.
unsafe impl Sync for Output {}

/// The products of weight rows `row` to `row + 4` with input row `token`: several rows at once where that is faster.
fn dot_rows(level: Level, w: &Weights, row: usize, x: &Activations, token: usize) -> [f32; TOGETHER] {
    #[cfg(target_arch = "x86_64")]
    if let (Level::Avx2, Some(small)) = (level, &x.small) {
        let rows = std::array::from_fn(|i| w.row(row + i));
        let x = small.row(token, x.n_in);
        match w.quant {
            // SAFETY: a level other than Scalar is only made by `Level::available`, after asking the processor.
            QuantType::Q4_0 => return unsafe { crate::x86::dot_rows_q4_0(rows.map(cast), x) },
            // SAFETY: as above.
            QuantType::Q8_0 => return unsafe { crate::x86::dot_rows_q8_0(rows.map(cast), x) },
            _ => {}
        }
    }
    std::array::from_fn(|i| dot::<1>(level, w, row + i, x, token)[0])
}

/// The products of weight row `row` with input rows `token` to `token + M`.
fn dot<const M: usize>(level: Level, w: &Weights, row: usize, x: &Activations, token: usize) -> [f32; M] {
    let bytes = w.row(row);
    let floats = || std::array::from_fn(|i| &x.floats[(token + i) * x.n_in..][..x.n_in]);
    let small =
        || -> [Row; M] { std::array::from_fn(|i| x.small.as_ref().expect("inputs in blocks of 32").row(token + i, x.n_in)) };
    let large =
        || -> [Row; M] { std::array::from_fn(|i| x.large.as_ref().expect("inputs in blocks of 256").row(token + i, x.n_in)) };
    match w.quant {
        QuantType::F32 => dot_f32(level, cast(bytes), floats()),
        QuantType::F16 => dot_f16(level, cast(bytes), floats()),
        QuantType::BF16 => dot_bf16(level, cast(bytes), floats()),
        QuantType::Q4_0 => dot_q4_0(level, cast(bytes), small()),
        QuantType::Q4_1 => scalar::dot_q4_1(cast::<BlockQ4_1>(bytes), small()),
        QuantType::Q5_0 => scalar::dot_q5_0(cast::<BlockQ5_0>(bytes), small()),
        QuantType::Q5_1 => scalar::dot_q5_1(cast::<BlockQ5_1>(bytes), small()),
        QuantType::Q8_0 => dot_q8_0(level, cast(bytes), small()),
        QuantType::Q2_K => scalar::dot_q2_k(cast::<BlockQ2K>(bytes), large()),
        QuantType::Q3_K => scalar::dot_q3_k(cast::<BlockQ3K>(bytes), large()),
        QuantType::Q4_K => dot_q4_k(level, cast(bytes), large()),
        QuantType::Q5_K => dot_q5_k(level, cast(bytes), large()),
        QuantType::Q6_K => dot_q6_k(level, cast(bytes), large()),
    }
}

macro_rules! dispatch {
    ($name:ident, $block:ty, $input:ty, $scalar:path) => {
        pub(crate) fn $name<const M: usize>(level: Level, w: &[$block], x: [$input; M]) -> [f32; M] {
            match level {
                Level::Scalar => $scalar(w, x),
                // SAFETY: a level other than Scalar is only made by `Level::available`, after asking the processor.
                #[cfg(target_arch = "x86_64")]
                Level::Avx2 => unsafe { crate::x86::$name(w, x) },
                // SAFETY: as above.
                #[cfg(target_arch = "aarch64")]
                Level::Dotprod => unsafe { crate::neon::$name(w, x) },
            }
        }
    };
}
dispatch!(dot_f32, f32, &[f32], scalar::dot_float);
dispatch!(dot_f16, f16, &[f32], scalar::dot_float);
dispatch!(dot_bf16, bf16, &[f32], scalar::dot_float);
dispatch!(dot_q4_0, BlockQ4_0, Row, scalar::dot_q4_0);
dispatch!(dot_q8_0, BlockQ8_0, Row, scalar::dot_q8_0);
dispatch!(dot_q4_k, BlockQ4K, Row, scalar::dot_q4_k);
dispatch!(dot_q5_k, BlockQ5K, Row, scalar::dot_q5_k);
dispatch!(dot_q6_k, BlockQ6K, Row, scalar::dot_q6_k);

/// `out += factor · v` over equally long slices.
pub(crate) fn axpy(level: Level, out: &mut [f32], factor: f32, v: &[f16]) {
    assert_eq!(out.len(), v.len(), "slices differ in length");
    match level {
        Level::Scalar => scalar::axpy(out, factor, v),
        // SAFETY: as in `dispatch`.
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => unsafe { crate::x86::axpy(out, factor, v) },
        // SAFETY: as in `dispatch`.
        #[cfg(target_arch = "aarch64")]
        Level::Dotprod => unsafe { crate::neon::axpy(out, factor, v) },
    }
}
