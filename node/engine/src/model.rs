//! One opened model: mapping, numbers, weights, vocabulary and template.

mod decoder;
mod encoder;
mod experts;
mod weights;

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use kernels::{KvType, QuantType};

use crate::gguf::{Header, HeaderError};
use crate::hyperparams::{Hyperparams, HyperparamsError};
use crate::kv_cache::kv_bytes;
use crate::map::{Map, return_freed_memory};
use crate::matrix::Group;
use crate::parse::AnswerFormat;
use crate::template::Template;
use crate::tokenizer::{Tokenizer, VocabularyError};
pub(crate) use decoder::Decoder;
pub(crate) use encoder::Encoder;

/// Why a file cannot be served. Messages name no path: they reach clients.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot read the model file: {0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Header(#[from] HeaderError),
    #[error(transparent)]
    Hyperparams(#[from] HyperparamsError),
    #[error(transparent)]
    Vocabulary(#[from] VocabularyError),
    #[error("tensor {name} is missing")]
    MissingTensor { name: String },
    #[error("tensor {name} has shape {found:?}, needed is {needed:?}")]
    Shape { name: String, found: Vec<usize>, needed: Vec<usize> },
    #[error("tensor {name} is {found}, needed is F32, F16 or BF16")]
    NotFloat { name: String, found: QuantType },
}

/// The two shapes of models.
pub(crate) enum Network {
    /// Says what follows.
    Decoder(Decoder),
    /// Makes vectors.
    Encoder(Encoder),
}

/// A model ready to compute. Weights stay in the mapping.
pub struct Model {
    pub(crate) map: Arc<Map>,
    pub(crate) network: Network,
    hyperparams: Hyperparams,
    tokenizer: Tokenizer,
    template: Option<Template>,
    format: AnswerFormat,
    file_bytes: u64,
}

impl Model {
    /// Maps a GGUF file, checks everything about it and prepares its weights.
    ///
    /// # Errors
    /// When the file is not a supported model, or not whole.
    pub fn open(path: &Path) -> Result<Model, OpenError> {
        let map = Arc::new(Map::open(File::open(path)?)?);
        let header = Header::read(&map)?;
        let mut hyperparams = Hyperparams::read(&header)?;
        // Vocabulary and weights are independent, and building the vocabulary's tables is the slow part of opening.
        let (tokenizer, network) = std::thread::scope(|scope| {
            let tokenizer = scope.spawn(|| Tokenizer::read(&header));
            let network = weights::read(&map, &header, &mut hyperparams);
            (tokenizer.join().expect("reading a vocabulary does not panic"), network)
        });
        let (tokenizer, network) = (tokenizer?, network?);
        let n_rows = header.tensors["token_embd.weight"].shape[0];
        if n_rows != tokenizer.n_vocab() {
            let reason = format!("the vocabulary has {} tokens, token_embd.weight has {n_rows} rows", tokenizer.n_vocab());
            return Err(VocabularyError::Invalid(reason).into());
        }
        let template = header.text("tokenizer.chat_template").map(|source| {
            let (bos, eos) = tokenizer.bos_and_eos_text();
            Template::new(source, bos, eos)
        });
        let format = AnswerFormat::of_template(header.text("tokenizer.chat_template").unwrap_or_default());
        drop(header);
        // Reading a real vocabulary leaves some 17 MB that are freed and not returned.
        return_freed_memory();
        Ok(Model { file_bytes: map.len() as u64, network, hyperparams, tokenizer, template, format, map })
    }

    /// Asks the system to read the weights into memory while the model is not yet asked for anything.
    pub fn prefetch(&self) {
        self.map.will_need(0, self.map.len());
    }

    /// The numbers that shape the model.
    pub fn hyperparams(&self) -> &Hyperparams {
        &self.hyperparams
    }

    /// Text to tokens and back.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The chat template in the file, if it has one.
    pub fn template(&self) -> Option<&Template> {
        self.template.as_ref()
    }

    /// How the model marks its thinking and its calls.
    pub fn format(&self) -> AnswerFormat {
        self.format
    }

    /// Bytes of weights that a decoded token reads, all but a row of the embedding.
    pub fn decode_bytes(&self) -> u64 {
        self.total(Group::n_bytes)
    }

    /// Products that a token of the prompt takes, without attention and without the output, which only the last token needs.
    pub fn prefill_products(&self) -> u64 {
        let output = match &self.network {
            Network::Decoder(decoder) => decoder.output.n_weights(),
            Network::Encoder(_) => 0,
        };
        self.total(Group::n_weights) - output
    }

    /// The sum of `count` over the matrices that a token meets, all but the embedding.
    fn total(&self, count: impl Fn(&Group) -> u64 + Copy) -> u64 {
        match &self.network {
            Network::Decoder(decoder) => {
                let layers: u64 = decoder.layers.iter().map(|layer| layer.total(&self.hyperparams, count)).sum();
                layers + count(&decoder.output)
            }
            Network::Encoder(encoder) => encoder.layers.iter().flat_map(encoder::EncoderLayer::groups).map(count).sum(),
        }
    }

    /// Whether it makes vectors and says nothing.
    pub fn encodes(&self) -> bool {
        matches!(self.network, Network::Encoder(_))
    }

    /// Bytes of keys and values of `n` tokens.
    pub fn kv_bytes(&self, kv_type: KvType, n: usize) -> u64 {
        kv_bytes(&self.hyperparams, kv_type, n) as u64
    }

    /// Bytes of the file.
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// Whether the file has changed under the mapping; nothing it says can be trusted then.
    pub fn damaged(&self) -> bool {
        self.map.damaged()
    }
}
