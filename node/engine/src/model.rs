//! One opened model: mapping, numbers, weights, vocabulary and template.

mod decoder;

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use kernels::{KvType, QuantType};

use crate::gguf::{Header, HeaderError, TensorInfo};
use crate::hyperparams::{Family, Hyperparams, HyperparamsError};
use crate::kv_cache::kv_bytes;
use crate::map::{Map, return_freed_memory};
use crate::matrix::{Group, Matrix};
use crate::parse::AnswerFormat;
use crate::template::Template;
use crate::tokenizer::{Tokenizer, VocabularyError};
pub(crate) use decoder::Decoder;

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

/// A model ready to compute. Weights stay in the mapping.
pub struct Model {
    pub(crate) map: Arc<Map>,
    pub(crate) decoder: Decoder,
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
        let (tokenizer, decoder) = std::thread::scope(|scope| {
            let tokenizer = scope.spawn(|| Tokenizer::read(&header));
            let decoder = decoder(&map, &header, &mut hyperparams);
            (tokenizer.join().expect("reading a vocabulary does not panic"), decoder)
        });
        let (tokenizer, decoder) = (tokenizer?, decoder?);
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
        Ok(Model { file_bytes: map.len() as u64, decoder, hyperparams, tokenizer, template, format, map })
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
        let layers = self.decoder.layers.iter().flat_map(decoder::Layer::groups);
        layers.chain([&self.decoder.output]).map(Group::n_bytes).sum()
    }

    /// Products that a token of the prompt takes, without attention and without the output, which only the last token needs.
    pub fn prefill_products(&self) -> u64 {
        self.decoder.layers.iter().flat_map(decoder::Layer::groups).map(Group::n_weights).sum()
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

/// Collects the decoder's weights, and applies the file's rope factors (Llama 3) to the frequencies.
fn decoder(map: &Arc<Map>, header: &Header, hyperparams: &mut Hyperparams) -> Result<Decoder, OpenError> {
    let weights = Weights { map, tensors: &header.tensors };
    let embedding = weights.tensor("token_embd.weight")?;
    if embedding.shape.len() != 2 || embedding.shape[1] != hyperparams.n_embd {
        let needed = vec![embedding.shape[0], hyperparams.n_embd];
        return Err(OpenError::Shape { name: "token_embd.weight".into(), found: embedding.shape.clone(), needed });
    }
    let n_vocab = embedding.shape[0];
    if weights.has("rope_freqs.weight") {
        let factors = weights.vector("rope_freqs.weight", hyperparams.rope.len())?;
        for (frequency, factor) in hyperparams.rope.iter_mut().zip(factors) {
            if !(factor.is_finite() && factor > 0.0) {
                let key = "a factor in rope_freqs.weight".to_owned();
                return Err(
                    HyperparamsError::Value { key, found: factor.to_string(), needed: "a finite number above 0".into() }.into()
                );
            }
            *frequency /= factor;
        }
    }
    let layers = (0..hyperparams.n_layer).map(|i| layer(&weights, hyperparams, i)).collect::<Result<_, _>>()?;
    Ok(Decoder {
        layers,
        embedding: weights.matrix("token_embd.weight", n_vocab, hyperparams.n_embd)?,
        output_norm: weights.vector("output_norm.weight", hyperparams.n_embd)?,
        // Tied embeddings: without a matrix of its own the output reads the embedding's bytes.
        output: Group::new(vec![weights.matrix(
            if weights.has("output.weight") { "output.weight" } else { "token_embd.weight" },
            n_vocab,
            hyperparams.n_embd,
        )?]),
    })
}

fn layer(weights: &Weights, h: &Hyperparams, index: usize) -> Result<decoder::Layer, OpenError> {
    let name = |part: &str| format!("blk.{index}.{part}");
    let matrix = |part: &str, n_out: usize, n_in: usize| weights.matrix(&name(part), n_out, n_in);
    let biases = weights.has(&name("attn_q.bias")) || h.family == Family::Qwen2;
    let head_norm = |part: &str| -> Result<Option<Vec<f32>>, OpenError> {
        if h.family == Family::Qwen3 { weights.vector(&name(part), h.n_embd_head).map(Some) } else { Ok(None) }
    };
    Ok(decoder::Layer {
        attn_norm: weights.vector(&name("attn_norm.weight"), h.n_embd)?,
        qkv: Group::new(vec![
            matrix("attn_q.weight", h.n_embd_q(), h.n_embd)?,
            matrix("attn_k.weight", h.n_embd_kv(), h.n_embd)?,
            matrix("attn_v.weight", h.n_embd_kv(), h.n_embd)?,
        ]),
        qkv_bias: if biases {
            let mut all = weights.vector(&name("attn_q.bias"), h.n_embd_q())?;
            all.extend(weights.vector(&name("attn_k.bias"), h.n_embd_kv())?);
            all.extend(weights.vector(&name("attn_v.bias"), h.n_embd_kv())?);
            Some(all)
        } else {
            None
        },
        q_norm: head_norm("attn_q_norm.weight")?,
        k_norm: head_norm("attn_k_norm.weight")?,
        attn_output: Group::new(vec![matrix("attn_output.weight", h.n_embd, h.n_embd_q())?]),
        ffn_norm: weights.vector(&name("ffn_norm.weight"), h.n_embd)?,
        gate_up: Group::new(vec![matrix("ffn_gate.weight", h.n_ff, h.n_embd)?, matrix("ffn_up.weight", h.n_ff, h.n_embd)?]),
        ffn_down: Group::new(vec![matrix("ffn_down.weight", h.n_embd, h.n_ff)?]),
    })
}

/// The tensor directory, asked by name and expected shape.
struct Weights<'a> {
    map: &'a Arc<Map>,
    tensors: &'a HashMap<String, TensorInfo>,
}

impl Weights<'_> {
    fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    fn tensor(&self, name: &str) -> Result<&TensorInfo, OpenError> {
        self.tensors.get(name).ok_or_else(|| OpenError::MissingTensor { name: name.into() })
    }

    fn shaped(&self, name: &str, needed: &[usize]) -> Result<&TensorInfo, OpenError> {
        let info = self.tensor(name)?;
        if info.shape == needed {
            return Ok(info);
        }
        Err(OpenError::Shape { name: name.into(), found: info.shape.clone(), needed: needed.to_vec() })
    }

    fn matrix(&self, name: &str, n_out: usize, n_in: usize) -> Result<Matrix, OpenError> {
        Ok(Matrix::new(self.map.clone(), self.shaped(name, &[n_out, n_in])?.clone()))
    }

    /// Norms and biases: the only weights that are copied.
    fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>, OpenError> {
        let info = self.shaped(name, &[len])?;
        if info.quant.block_len() != 1 {
            return Err(OpenError::NotFloat { name: name.into(), found: info.quant });
        }
        let mut values = vec![0f32; len];
        info.quant.dequantize(&self.map[info.offset..info.offset + info.n_bytes], &mut values);
        Ok(values)
    }
}
