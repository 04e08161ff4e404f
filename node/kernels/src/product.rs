//! `y = x · Wᵀ` for mapped weights, across the pool.

use crate::pool::Start;
use crate::{Activations, Input, Level, Pool, QuantType, panel, row_dot};

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

    fn n_chunks(&self) -> usize {
        self.n_out().div_ceil(CHUNK)
    }

    /// How the weights are stored.
    pub fn quant(&self) -> QuantType {
        self.quant
    }

    /// Writes row `index` as f32.
    pub fn dequantize_row(&self, index: usize, out: &mut [f32]) {
        self.quant.dequantize(self.row(index), out);
    }

    /// The bytes of consecutive rows.
    #[cfg(target_arch = "aarch64")]
    pub(crate) fn rows(&self, rows: std::ops::Range<usize>) -> &'a [u8] {
        &self.bytes[rows.start * self.row_bytes..rows.end * self.row_bytes]
    }

    /// The bytes of row `index`.
    pub(crate) fn row(&self, index: usize) -> &'a [u8] {
        &self.bytes[index * self.row_bytes..][..self.row_bytes]
    }
}

/// Weight rows a thread takes at a time. Enough work to be worth the shared counter, few enough to share out evenly, and
/// whole panels on every processor.
const CHUNK: usize = 32;

/// Multiplies every row of the input `x`, `(n_rows, n_in)`, with every row of each matrix of `group`, which share their input. `y` is
/// `(n_rows, Σ n_out)`: each row holds the outputs of the group's matrices one after the other.
///
/// Each output is summed by one thread in one order, whatever the number of rows or threads.
///
/// # Panics
/// When shapes do not fit.
pub fn product(pool: &Pool, group: &[Weights], x: Input, forms: &mut Activations, y: &mut [f32]) {
    let n_in = group[0].n_in;
    assert!(group.iter().all(|w| w.n_in == n_in), "a matrix of the group has another input width");
    let x = forms.load(pool, x, n_in, group.iter().map(Weights::quant));
    let n_out: usize = group.iter().map(Weights::n_out).sum();
    assert_eq!(y.len(), x.n_rows * n_out, "output has another shape than the product");
    let y = Start(y.as_mut_ptr());
    pool.run(group.iter().map(Weights::n_chunks).sum(), |part| {
        let (w, chunk, at) = chunk_of(group, part);
        let rows = chunk * CHUNK..((chunk + 1) * CHUNK).min(w.n_out());
        let write = |token: usize, row: usize, sums: &[f32]| {
            // SAFETY: the places are inside `y`, as token and rows are, and only this part writes columns of these rows.
            unsafe { y.at(token * n_out + at + row, sums.len()) }.copy_from_slice(sums);
        };
        if pool.level() == Level::Scalar || w.quant.block_len() == 1 {
            row_dot::multiply(pool.level(), w, rows, x, write);
        } else {
            panel::multiply(pool.level(), w, rows, x.tiles(w.quant), x.n_rows, write);
        }
    });
}

/// The matrix that part `part` of a product belongs to, which of its chunks it is, and the column its outputs begin at.
fn chunk_of<'a, 'b>(group: &'a [Weights<'b>], mut part: usize) -> (&'a Weights<'b>, usize, usize) {
    let mut at = 0;
    for w in group {
        if part < w.n_chunks() {
            return (w, part, at);
        }
        part -= w.n_chunks();
        at += w.n_out();
    }
    unreachable!("there are as many parts as chunks")
}
