//! Mapped weight matrices, and the product with them.

use std::ops::Range;
use std::sync::Arc;

use kernels::{Activations, Input, Pool, Weights, product};

use crate::gguf::TensorInfo;
use crate::map::Map;

/// A matrix of `(n_out, n_in)` weights: a type and a place in the mapping. Nothing is copied.
pub(crate) struct Matrix {
    map: Arc<Map>,
    info: TensorInfo,
}

impl Matrix {
    /// A matrix from the tensor directory; its shape is the caller's to check.
    pub(crate) fn new(map: Arc<Map>, info: TensorInfo) -> Matrix {
        Matrix { map, info }
    }

    /// The weights as the kernels see them.
    pub(crate) fn weights(&self) -> Weights<'_> {
        Weights::new(self.info.quant, self.info.shape[1], &self.map[self.place()])
    }

    fn place(&self) -> Range<usize> {
        self.info.offset..self.info.offset + self.info.n_bytes
    }
}

/// Most matrices that read the same input: q, k and v.
const N_GROUP_MAX: usize = 3;

/// Matrices that read the same input. One product gives all their outputs, side by side.
pub(crate) struct Group(Vec<Matrix>);

impl Group {
    pub(crate) fn new(matrices: Vec<Matrix>) -> Group {
        Group(matrices)
    }

    /// Values of an input that share a factor when they are rounded to meet these weights; 1 where they are not rounded.
    pub(crate) fn block_len(&self) -> usize {
        self.0.iter().map(|matrix| matrix.info.quant.block_len()).max().unwrap_or(1)
    }

    /// Bytes of all matrices.
    pub(crate) fn n_bytes(&self) -> u64 {
        self.0.iter().map(|matrix| matrix.info.n_bytes as u64).sum()
    }

    /// Weights of all matrices.
    pub(crate) fn n_weights(&self) -> u64 {
        self.0.iter().map(|matrix| matrix.info.shape.iter().product::<usize>() as u64).sum()
    }

    /// `x · Wᵀ`: `n_rows` rows of `n_in` to `(n_rows, Σ n_out)`, which replaces what `y` held.
    pub(crate) fn apply(&self, n_rows: usize, x: Input, pool: &Pool, forms: &mut Activations, y: &mut Vec<f32>) {
        let mut weights = [self.0[0].weights(); N_GROUP_MAX];
        self.0.iter().zip(&mut weights).for_each(|(matrix, weights)| *weights = matrix.weights());
        let weights = &weights[..self.0.len()];
        let n_out: usize = weights.iter().map(Weights::n_out).sum();
        y.resize(n_rows * n_out, 0.0);
        product(pool, weights, x, forms, y);
    }
}
