//! The definition of every product in plain loops.
//!
//! Quantized types: the integer sum of a block is exact; the float sum runs over blocks in file order with one fused
//! multiply-add per block (two where the type has minimums). Float types: see [`dot_float`].

mod float;
mod k_quants;
mod small;

#[cfg(target_arch = "aarch64")]
pub(crate) use float::fold;
pub(crate) use float::{LANES, axpy, dot_float};
pub(crate) use k_quants::{dot_q2_k, dot_q3_k, dot_q4_k, dot_q5_k, dot_q6_k};
pub(crate) use small::{dot_q4_0, dot_q4_1, dot_q5_0, dot_q5_1, dot_q8_0};
