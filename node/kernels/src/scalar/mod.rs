//! The definition of every product in plain loops: see [`dot`] for quantized types and [`dot_float`] for the others.

mod attention;
mod float;
mod quantized;

pub(crate) use attention::{add_weighted, scores};
#[cfg(target_arch = "aarch64")]
pub(crate) use float::fold;
pub(crate) use float::{LANES, dot_float};
pub(crate) use quantized::dot;
