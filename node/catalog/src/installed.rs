//! A model on disk, and what its layers hold.

use std::path::PathBuf;
use std::time::SystemTime;

use crate::manifest::{Config, Layer, Manifest, Message};
use crate::name::ModelName;
use crate::store::{blob_file, read_limited};

/// Bytes of a text layer (template, system prompt, licence, parameters).
const TEXT_BYTES_MAX: u64 = 1 << 20;

/// A model found on disk.
#[derive(Debug, Clone)]
pub struct Installed {
    pub name: ModelName,
    /// SHA-256 of the manifest's bytes, hex.
    pub digest: String,
    pub modified: SystemTime,
    /// Bytes of all layers and the config.
    pub size: u64,
    pub config: Config,
    pub(crate) manifest: Manifest,
    pub(crate) blobs: PathBuf,
}

impl Installed {
    /// The GGUF file.
    pub fn model_path(&self) -> Option<PathBuf> {
        self.layer("model").and_then(|layer| blob_file(&layer.digest)).map(|file| self.blobs.join(file))
    }

    /// Digest of the GGUF file: models that share it share their weights.
    pub fn model_digest(&self) -> Option<&str> {
        self.layer("model").map(|layer| layer.digest.as_str())
    }

    /// The Go template of a Modelfile.
    pub fn template(&self) -> Option<String> {
        self.text("template").or_else(|| self.text("prompt"))
    }

    /// The system prompt of a Modelfile.
    pub fn system(&self) -> Option<String> {
        self.text("system")
    }

    /// All licences.
    pub fn licenses(&self) -> Vec<String> {
        self.manifest.layers.iter().filter(|l| kind(l) == "license").filter_map(|l| self.layer_text(l)).collect()
    }

    /// Options of a Modelfile: an object of names and values.
    pub fn parameters(&self) -> serde_json::Map<String, serde_json::Value> {
        self.text("params").and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
    }

    /// Messages of a Modelfile.
    pub fn messages(&self) -> Vec<Message> {
        self.text("messages").and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
    }

    pub(crate) fn digests(&self) -> impl Iterator<Item = &str> {
        self.manifest.layers.iter().chain([&self.manifest.config]).map(|layer| layer.digest.as_str())
    }

    fn layer(&self, wanted: &str) -> Option<&Layer> {
        self.manifest.layers.iter().find(|layer| kind(layer) == wanted)
    }

    fn text(&self, wanted: &str) -> Option<String> {
        self.layer(wanted).and_then(|layer| self.layer_text(layer))
    }

    fn layer_text(&self, layer: &Layer) -> Option<String> {
        let bytes = read_limited(&self.blobs.join(blob_file(&layer.digest)?), TEXT_BYTES_MAX).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// The last word of a layer's media type.
fn kind(layer: &Layer) -> &str {
    layer.media_type.strip_prefix("application/vnd.ollama.image.").unwrap_or("")
}
