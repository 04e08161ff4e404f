//! Tiny seeded GGUF files for tests: a header writer that can also write what no sane tool would, and random models of
//! each family and quant type; and a server to pull them from.

mod data;
mod digest;
mod encoder;
mod gguf;
mod model;
mod random;
mod script;
mod server;

pub use data::test_data;
pub use digest::digest;
pub use encoder::{ENCODER, Tensors, tiny_encoder};
pub use gguf::{GgufWriter, Item};
pub use model::{EXPERTS, PHI3_N_CTX_ORIGINAL, Shape, dequantized, tiny_model, write_model};
pub use random::{Random, random_weights};
pub use script::{Said, script_model};
pub use server::{Asked, manifest, serve};
