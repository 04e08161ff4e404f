//! Where the input of a product comes from: the operator before it is computed row by row as the row is quantized, so that
//! its output is never written to memory and one parallel region does both.

use crate::Level;
use crate::operators::{Gate, gate_mul, rms_norm};
use crate::pool::Start;

/// The input of a product, `(n_rows, n_in)`, or what it is computed from.
pub enum Input<'a> {
    /// Rows as they are.
    Rows(&'a [f32]),
    /// `rms_norm(x + added)`: the norm before each part of a layer. The sum replaces `x`, `(n_rows, n_in)`.
    Normed {
        /// What each layer adds to.
        x: &'a mut [f32],
        /// The output of the part before, shaped as `x`.
        added: Option<&'a [f32]>,
        /// The norm's weights, of which there are `n_in`.
        weight: &'a [f32],
        /// What keeps the norm of zeros finite.
        epsilon: f32,
    },
    /// Gates of rows that hold `n_in` gates and then `n_in` ups.
    Gated(Gate, &'a [f32]),
}

/// An input of which every thread may compute other rows.
pub(crate) enum Source<'a> {
    Rows(&'a [f32]),
    Normed { x: Start<f32>, added: Option<&'a [f32]>, weight: &'a [f32], epsilon: f32 },
    Gated(Gate, &'a [f32]),
}

impl<'a> Input<'a> {
    /// The rows there are of width `n_in`, and how each is made.
    ///
    /// # Panics
    /// When the input is not whole rows or its parts differ in shape.
    pub(crate) fn shared(self, n_in: usize) -> (usize, Source<'a>) {
        let (n_values, width, source) = match self {
            Input::Rows(x) => (x.len(), n_in, Source::Rows(x)),
            Input::Normed { x, added, weight, epsilon } => {
                assert!(
                    weight.len() == n_in && added.is_none_or(|added| added.len() == x.len()),
                    "parts of the input differ in shape"
                );
                (x.len(), n_in, Source::Normed { x: Start(x.as_mut_ptr()), added, weight, epsilon })
            }
            Input::Gated(gate, gate_up) => (gate_up.len(), 2 * n_in, Source::Gated(gate, gate_up)),
        };
        assert_eq!(n_values % width, 0, "inputs are not whole rows");
        (n_values / width, source)
    }
}

impl Source<'_> {
    /// Row `index`, of width `n_in`: as it is, or computed to `buffer`.
    ///
    /// # Safety
    /// There is such a row, and no other thread asks for it.
    pub(crate) unsafe fn row<'a>(&'a self, level: Level, index: usize, n_in: usize, buffer: &'a mut Vec<f32>) -> &'a [f32] {
        buffer.resize(n_in, 0.0);
        match self {
            Source::Rows(x) => return &x[index * n_in..][..n_in],
            Source::Normed { x, added, weight, epsilon } => {
                // SAFETY: the caller's promise.
                let x = unsafe { x.at(index * n_in, n_in) };
                if let Some(added) = added {
                    x.iter_mut().zip(&added[index * n_in..][..n_in]).for_each(|(x, added)| *x += added);
                }
                rms_norm(level, x, weight, *epsilon, buffer);
            }
            Source::Gated(gate, gate_up) => gate_mul(level, *gate, &gate_up[2 * index * n_in..][..2 * n_in], buffer),
        }
        buffer
    }
}
