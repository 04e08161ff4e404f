//! Manifest and config as they lie on disk.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub(crate) const MODEL: &str = "application/vnd.ollama.image.model";
pub(crate) const LICENSE: &str = "application/vnd.ollama.image.license";
pub(crate) const CONFIG: &str = "application/vnd.docker.container.image.v1+json";
pub(crate) const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// A model: a config and the layers that make it up.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    pub schema_version: u32,
    pub media_type: String,
    pub config: Layer,
    pub layers: Vec<Layer>,
}

/// A blob and what it is.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Layer {
    pub media_type: String,
    /// `sha256:` and 64 hex digits.
    pub digest: String,
    pub size: u64,
}

/// What the config blob tells.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    pub model_format: String,
    pub model_family: String,
    pub model_families: Option<Vec<String>>,
    /// Parameters for people, such as `3.2B`.
    pub model_type: String,
    /// Quant type, such as `Q4_K_M`.
    pub file_type: String,
    pub architecture: String,
    pub os: String,
    /// Fields that only other programs read; they stay as they are.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

/// A message that comes before a conversation's own.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct Message {
    pub role: String,
    pub content: String,
}

impl Config {
    /// A field that only other programs read, if it is a text and not empty.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.more.get(name)?.as_str().filter(|text| !text.is_empty())
    }

    /// The config of weights that say this of themselves.
    pub(crate) fn of(facts: &crate::store::Facts) -> Config {
        Config {
            model_format: "gguf".into(),
            model_family: facts.family.clone(),
            model_families: Some(vec![facts.family.clone()]),
            model_type: facts.parameter_size.clone(),
            file_type: facts.quant.clone(),
            architecture: "amd64".into(),
            os: "linux".into(),
            more: Map::new(),
        }
    }
}

impl Manifest {
    pub(crate) fn new(config: Layer, layers: Vec<Layer>) -> Manifest {
        Manifest { schema_version: 2, media_type: MANIFEST.into(), config, layers }
    }
}

impl Layer {
    pub(crate) fn config(digest: String, size: u64) -> Layer {
        Layer { media_type: CONFIG.into(), digest, size }
    }
}
