//! Which models are on disk. The store has the layout of an Ollama models folder, so that a copied one is served as it is.

mod installed;
mod manifest;
mod name;
mod store;

pub use installed::Installed;
pub use manifest::{Config, Layer, Manifest, Message};
pub use name::{ModelName, NameError};
pub use store::{Facts, Store, StoreError};
