//! Tiny seeded GGUF files for tests: a header writer that can also write what no sane tool would, and random models of
//! each family and quant type.

mod data;
mod digest;
mod encoder;
mod gguf;
mod model;
mod random;
mod script;

pub use data::test_data;
pub use digest::digest;
pub use encoder::{ENCODER, Tensors, tiny_encoder};
pub use gguf::{GgufWriter, Item};
pub use model::{EXPERTS, PHI3_N_CTX_ORIGINAL, Shape, dequantized, tiny_model, write_model};
pub use random::{Random, random_weights};
pub use script::{Said, script_model};
