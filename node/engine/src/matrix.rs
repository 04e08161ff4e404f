//! A mapped weight matrix, and the product with it as a candle custom op.

use std::cell::RefCell;
use std::ops::Range;
use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use kernels::{Activations, Pool, Weights, product};

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

/// Matrices that read the same input. One product gives all their outputs, side by side.
pub(crate) struct Group(Vec<Matrix>);

impl Group {
    pub(crate) fn new(matrices: Vec<Matrix>) -> Group {
        Group(matrices)
    }

    /// Bytes of all matrices.
    pub(crate) fn n_bytes(&self) -> u64 {
        self.0.iter().map(|matrix| matrix.info.n_bytes as u64).sum()
    }

    /// Weights of all matrices.
    pub(crate) fn n_weights(&self) -> u64 {
        self.0.iter().map(|matrix| matrix.info.shape.iter().product::<usize>() as u64).sum()
    }

    /// `x · Wᵀ`: `(n_rows, n_in)` to `(n_rows, Σ n_out)`.
    pub(crate) fn apply(&self, x: &Tensor, pool: &Pool) -> Result<Tensor> {
        x.apply_op1_no_bwd(&Product { group: self, pool })
    }
}

struct Product<'a> {
    group: &'a Group,
    pool: &'a Pool,
}

impl CustomOp1 for Product<'_> {
    fn name(&self) -> &'static str {
        "mapped product"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = contiguous(storage, layout)?;
        let (n_rows, n_in) = layout.shape().dims2()?;
        let weights: Vec<Weights> = self.group.0.iter().map(Matrix::weights).collect();
        let n_out: usize = weights.iter().map(Weights::n_out).sum();
        let activations = Activations::new(self.pool, x, n_in, weights.iter().map(Weights::quant));
        let mut y = vec![0f32; n_rows * n_out];
        product(self.pool, &weights, &activations, &mut y);
        Ok((CpuStorage::F32(y), (n_rows, n_out).into()))
    }
}

/// Runs `f(x, y)` as a candle op, where `x` is `(n_rows, n)` and `y` a new `(n_rows, n_out)` of zeros.
pub(crate) fn map_rows(x: &Tensor, n_out: usize, f: impl FnOnce(&[f32], &mut [f32])) -> Result<Tensor> {
    x.apply_op1_no_bwd(&Rows { n_out, f: RefCell::new(Some(f)) })
}

struct Rows<F> {
    n_out: usize,
    f: RefCell<Option<F>>,
}

impl<F: FnOnce(&[f32], &mut [f32])> CustomOp1 for Rows<F> {
    fn name(&self) -> &'static str {
        "rows"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = contiguous(storage, layout)?;
        let n_rows = layout.shape().dims2()?.0;
        let mut y = vec![0f32; n_rows * self.n_out];
        let f = self.f.borrow_mut().take().expect("candle runs a forward once");
        f(x, &mut y);
        Ok((CpuStorage::F32(y), (n_rows, self.n_out).into()))
    }
}

fn contiguous<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let (start, end) = layout.contiguous_offsets().ok_or_else(|| candle_core::Error::Msg("rows are not contiguous".into()))?;
    Ok(&storage.as_slice::<f32>()?[start..end])
}
