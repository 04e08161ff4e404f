//! A new model out of what is in the store: weights, and the texts a Modelfile puts beside them.

use serde_json::{Map, Value};

use crate::installed::Installed;
use crate::manifest::{Config, LICENSE, Layer, MODEL, Manifest, Message};
use crate::name::ModelName;
use crate::store::{Facts, Store, StoreError};

/// Media types of the layers that a recipe replaces.
const TEMPLATE: &str = "application/vnd.ollama.image.template";
const SYSTEM: &str = "application/vnd.ollama.image.system";
const PARAMETERS: &str = "application/vnd.ollama.image.params";
const MESSAGES: &str = "application/vnd.ollama.image.messages";
/// The older name of the template's.
const PROMPT: &str = "application/vnd.ollama.image.prompt";

/// What a new model is made of. What is left out is taken over from the base.
#[derive(Debug, Default)]
pub struct Recipe {
    /// The model whose layers are taken over.
    pub base: Option<Installed>,
    /// Digest of the weights, where they are not the base's.
    pub weights: Option<String>,
    /// What the weights say of themselves.
    pub facts: Option<Facts>,
    pub template: Option<String>,
    pub system: Option<String>,
    /// Added to those of the base.
    pub licenses: Vec<String>,
    /// Laid over those of the base.
    pub parameters: Map<String, Value>,
    /// What the config tells beside the facts, such as `renderer`; laid over those of the base.
    pub config: Map<String, Value>,
    /// Replace those of the base, where there are any.
    pub messages: Vec<Message>,
}

/// How far a creation is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Created {
    /// A layer that was in the store already.
    Existing(String),
    /// A layer that is new.
    New(String),
    WritingManifest,
}

impl Store {
    /// Writes the layers of a recipe and the manifest that joins them under a name. Blobs that only the name's former meaning
    /// used are removed.
    ///
    /// # Errors
    /// When the weights are not in the store, or the store cannot be written.
    pub fn create(&self, name: &ModelName, recipe: &Recipe, mut progress: impl FnMut(Created)) -> Result<(), StoreError> {
        let mut layers: Vec<Layer> = recipe.base.iter().flat_map(|base| base.manifest.layers.clone()).collect();
        layers.iter().for_each(|layer| progress(Created::Existing(layer.digest.clone())));
        if let Some(digest) = &recipe.weights {
            layers.retain(|layer| layer.media_type != MODEL);
            let missing = || StoreError::NotFound { name: digest.clone() };
            let size = self.blob_path(digest).and_then(|path| path.metadata().ok()).ok_or_else(missing)?.len();
            progress(Created::Existing(digest.clone()));
            layers.insert(0, Layer { media_type: MODEL.into(), digest: digest.clone(), size });
        }
        let mut add = |media_type: &str, bytes: &[u8], replaces: &[&str]| -> Result<(), StoreError> {
            layers.retain(|layer| !replaces.contains(&layer.media_type.as_str()));
            let (digest, size, new) = self.write_blob(&mut &bytes[..], &mut |_| {})?;
            progress(if new { Created::New(digest.clone()) } else { Created::Existing(digest.clone()) });
            layers.push(Layer { media_type: media_type.into(), digest, size });
            Ok(())
        };
        if let Some(template) = &recipe.template {
            add(TEMPLATE, template.as_bytes(), &[TEMPLATE, PROMPT])?;
        }
        if let Some(system) = &recipe.system {
            add(SYSTEM, system.as_bytes(), &[SYSTEM])?;
        }
        for license in &recipe.licenses {
            add(LICENSE, license.as_bytes(), &[])?;
        }
        if !recipe.parameters.is_empty() {
            let mut all = recipe.base.as_ref().map(Installed::parameters).unwrap_or_default();
            all.extend(recipe.parameters.clone());
            add(PARAMETERS, &serde_json::to_vec(&all).expect("parameters are JSON"), &[PARAMETERS])?;
        }
        if !recipe.messages.is_empty() {
            add(MESSAGES, &serde_json::to_vec(&recipe.messages).expect("messages are texts"), &[MESSAGES])?;
        }
        let config = config(recipe);
        let bytes = serde_json::to_vec(&config).expect("a config has only texts");
        let (digest, size, new) = self.write_blob(&mut bytes.as_slice(), &mut |_| {})?;
        progress(if new { Created::New(digest.clone()) } else { Created::Existing(digest.clone()) });
        progress(Created::WritingManifest);
        let manifest = Manifest::new(Layer::config(digest, size), layers);
        self.publish(name, &serde_json::to_vec(&manifest).expect("a manifest has only texts and numbers"), || {})
    }
}

/// The base's, with what the weights say where they are new.
fn config(recipe: &Recipe) -> Config {
    let mut config = recipe.base.as_ref().map(|base| base.config.clone()).unwrap_or_default();
    if let Some(facts) = &recipe.facts {
        config = Config { more: config.more, ..Config::of(facts) };
    }
    config.more.extend(recipe.config.clone());
    config
}
