//! Arithmetic on slices: what the engine computes with. No files, no models, no allocation once its buffers exist.
//!
//! - [`block`] holds the GGUF block layouts and their dequantization,
//! - [`Activations`] the inputs of a product, quantized once,
//! - [`product`] multiplies rows of activations with mapped weights across the [`Pool`]: row by row where few rows meet the
//!   weights (`row_dot`), by panels of unpacked rows where many do (`panel`),
//! - [`Heads`] takes their outputs to queries, keys and values in their places, [`attend`] runs attention over them,
//! - [`Input`] is what a product reads: rows, or the norm or the gate before it, computed as its output is quantized.
//!
//! Every kernel has a scalar definition in `scalar/`. The versions for a processor compute the same sums in the same
//! order, so that their results are equal to the last bit: integer sums are exact, and float sums run in one fixed order.

#![expect(clippy::needless_range_loop, reason = "kernels index several arrays in step, and plain loops are what inlines")]
#![expect(unsafe_code, reason = "intrinsics and the pool's shared output; each block states why it holds")]

mod activations;
mod attention;
pub mod block;
mod convolution;
mod encoder;
mod exponential;
mod heads;
mod input;
mod integers;
mod kv;
mod level;
mod operators;
mod panel;
mod peak;
mod pool;
mod product;
mod row_dot;
mod scalar;
mod threads;
mod word;

#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use activations::Activations;
pub use attention::{Attention, attend};
pub use block::QuantType;
pub use convolution::Convolution;
pub use encoder::{LayerNorm, gelu};
pub use exponential::exp;
pub use heads::Heads;
pub use input::Input;
pub use kv::{KvPlanes, KvPlanesMut, KvType};
pub use level::Level;
pub use operators::{Gate, RopePairs, Turn, gate_rows, rms_norm_rows, scale_rows};
pub use peak::{dot_peak, read_bandwidth};
pub use pool::Pool;
pub use product::{Weights, product};
pub use threads::Threads;
