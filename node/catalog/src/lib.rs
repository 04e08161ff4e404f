//! Which models are on disk. The store has the layout of an Ollama models folder, so that a copied one is served as it is.
//! [`Registry`] brings models in; it is the only traffic that leaves the machine.

mod archive;
mod away;
mod collect;
mod create;
mod download;
mod installed;
mod manifest;
mod modelfile;
mod name;
mod offers;
mod place;
mod publish;
mod pull;
mod store;
mod turn;
mod upload;

pub use archive::{ArchiveError, Unpacked};
pub use create::{Created, Recipe};
pub use installed::Installed;
pub use manifest::{Config, Layer, Manifest, Message};
pub use modelfile::{Modelfile, ModelfileError};
pub use name::{ModelName, NameError};
pub use offers::{Offer, offers};
pub use pull::{HUB, Progress, PullError, REGISTRY, Registry};
pub use store::{Facts, Store, StoreError, digest_of};
pub use upload::{Draft, Upload, UploadError};
