//! The numbers that shape a model, read from the header and checked once. Nothing later checks them again.

use kernels::RopePairs;

use crate::embed::Pooling;

use crate::gguf::Header;

/// Architectures this build runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Llama 2 and 3, Mistral, SmolLM2, TinyLlama.
    Llama,
    Qwen2,
    Qwen3,
    /// An encoder: BERT, MiniLM.
    Bert,
    /// An encoder with rope and gates.
    NomicBert,
}

impl Family {
    /// Whether every token sees every other, and there is no next one.
    pub fn encodes(self) -> bool {
        matches!(self, Family::Bert | Family::NomicBert)
    }
}

/// Their names in files, for the message that refuses another.
pub const FAMILIES: &str =
    "llama (with Mistral, SmolLM2, TinyLlama), qwen2, qwen3; for embeddings also bert (with MiniLM), nomic-bert";

/// Why a model's numbers were refused.
#[derive(Debug, thiserror::Error)]
pub enum HyperparamsError {
    #[error("architecture {found:?} is not supported; supported are {FAMILIES}")]
    Architecture { found: String },
    #[error("the file does not say {0}")]
    Missing(String),
    #[error("{key} is {found}, needed is {needed}")]
    Value { key: String, found: String, needed: String },
}

/// Shape of a decoder, in the vocabulary of the GGUF format.
#[derive(Debug, Clone)]
pub struct Hyperparams {
    pub family: Family,
    pub n_layer: usize,
    pub n_embd: usize,
    pub n_ff: usize,
    pub n_head: usize,
    pub n_head_kv: usize,
    pub n_embd_head: usize,
    /// Context length the model was trained for.
    pub n_ctx_train: usize,
    pub norm_epsilon: f32,
    /// How embeddings are pooled, where the file says it.
    pub pooling: Option<Pooling>,
    /// Angle per position of each rotated pair; `2 · rope.len()` values of a head are rotated.
    pub rope: Vec<f32>,
    pub rope_pairs: RopePairs,
}

/// Layers of a model; the largest published have below 200.
const N_LAYER_MAX: i128 = 1_024;
/// Width of anything.
const WIDTH_MAX: i128 = 1 << 20;
/// Bytes of an architecture's name shown in a message.
const NAME_SHOWN: usize = 60;

impl Hyperparams {
    /// Reads and checks the keys of the header's architecture.
    ///
    /// # Errors
    /// When the architecture is unknown, or a number missing or impossible.
    pub fn read(header: &Header) -> Result<Hyperparams, HyperparamsError> {
        let architecture = header.text("general.architecture").unwrap_or_default();
        let family = match architecture {
            "llama" => Family::Llama,
            "qwen2" => Family::Qwen2,
            "qwen3" => Family::Qwen3,
            "bert" => Family::Bert,
            "nomic-bert" => Family::NomicBert,
            other => return Err(HyperparamsError::Architecture { found: other.chars().take(NAME_SHOWN).collect() }),
        };
        let keys = Keys { header, architecture };
        let n_embd = keys.count("embedding_length", WIDTH_MAX)?;
        let n_head = keys.count("attention.head_count", WIDTH_MAX)?;
        let n_head_kv = keys.optional_count("attention.head_count_kv", WIDTH_MAX)?.unwrap_or(n_head);
        if n_head_kv > n_head || n_head % n_head_kv != 0 {
            return Err(keys.wrong("attention.head_count_kv", n_head_kv, format!("a divisor of the {n_head} heads")));
        }
        let n_embd_head = match keys.optional_count("attention.key_length", WIDTH_MAX)? {
            Some(n) => n,
            None if n_embd % n_head == 0 => n_embd / n_head,
            None => {
                return Err(keys.wrong("attention.head_count", n_head, format!("a divisor of the embedding length {n_embd}")));
            }
        };
        if n_embd_head % 2 != 0 {
            return Err(keys.wrong("attention.key_length", n_embd_head, "an even number".into()));
        }
        if let Some(n) = keys.optional_count("attention.value_length", WIDTH_MAX)?.filter(|n| *n != n_embd_head) {
            return Err(keys.wrong("attention.value_length", n, format!("the key length {n_embd_head}")));
        }
        if let Some(n) = keys.integer("expert_count").filter(|n| *n != 0) {
            return Err(keys.wrong("expert_count", n, "0: mixtures of experts are not supported".into()));
        }
        Ok(Hyperparams {
            family,
            n_layer: keys.count("block_count", N_LAYER_MAX)?,
            n_embd,
            n_ff: keys.count("feed_forward_length", WIDTH_MAX)?,
            n_head,
            n_head_kv,
            n_embd_head,
            n_ctx_train: keys.count("context_length", i128::from(u32::MAX))?,
            norm_epsilon: match family.encodes() {
                true => keys.positive("attention.layer_norm_epsilon", None)?,
                false => keys.positive("attention.layer_norm_rms_epsilon", None)?,
            },
            pooling: pooling(&keys)?,
            // BERT learns its positions.
            rope: if family == Family::Bert { Vec::new() } else { rope(&keys, n_embd_head)? },
            rope_pairs: if family == Family::Llama { RopePairs::Adjacent } else { RopePairs::Halves },
        })
    }

    /// Width of all query heads.
    pub fn n_embd_q(&self) -> usize {
        self.n_head * self.n_embd_head
    }

    /// Width of all key heads, and of all value heads.
    pub fn n_embd_kv(&self) -> usize {
        self.n_head_kv * self.n_embd_head
    }
}

/// Numbers of llama.cpp's `llama_pooling_type`.
fn pooling(keys: &Keys) -> Result<Option<Pooling>, HyperparamsError> {
    match keys.integer("pooling_type") {
        None | Some(0) => Ok(None),
        Some(1) => Ok(Some(Pooling::Mean)),
        Some(2) => Ok(Some(Pooling::First)),
        Some(3) => Ok(Some(Pooling::Last)),
        Some(other) => Err(keys.wrong("pooling_type", other, "0 to 3: none, mean, first or last".into())),
    }
}

/// Frequencies `base^(−2i / n_rot)`, divided by a linear scaling factor where the file has one. The factors of Llama 3
/// are a tensor, see [`crate::Model::open`].
fn rope(keys: &Keys, n_embd_head: usize) -> Result<Vec<f32>, HyperparamsError> {
    let n_rot = keys.optional_count("rope.dimension_count", WIDTH_MAX)?.unwrap_or(n_embd_head);
    if n_rot > n_embd_head || n_rot % 2 != 0 {
        return Err(keys.wrong("rope.dimension_count", n_rot, format!("an even number up to the head width {n_embd_head}")));
    }
    let base = keys.positive("rope.freq_base", Some(10_000.0))?;
    let scaling = keys.header.text(&keys.name("rope.scaling.type")).unwrap_or("none");
    let factor = match scaling {
        "none" => 1.0,
        "linear" => keys.positive("rope.scaling.factor", Some(1.0))?,
        other => return Err(keys.wrong("rope.scaling.type", other, "none or linear".into())),
    };
    Ok((0..n_rot / 2).map(|i| base.powf(-2.0 * i as f32 / n_rot as f32) / factor).collect())
}

struct Keys<'a> {
    header: &'a Header,
    architecture: &'a str,
}

impl Keys<'_> {
    fn name(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture)
    }

    fn wrong(&self, key: &str, found: impl ToString, needed: String) -> HyperparamsError {
        HyperparamsError::Value { key: self.name(key), found: found.to_string(), needed }
    }

    fn integer(&self, key: &str) -> Option<i128> {
        self.header.integer(&self.name(key))
    }

    fn optional_count(&self, key: &str, max: i128) -> Result<Option<usize>, HyperparamsError> {
        if !self.header.metadata.contains_key(&self.name(key)) {
            return Ok(None);
        }
        let found = self.integer(key).ok_or_else(|| self.wrong(key, "no whole number", format!("1 to {max}")))?;
        let count = usize::try_from(found).ok().filter(|_| (1..=max).contains(&found));
        count.map(Some).ok_or_else(|| self.wrong(key, found, format!("1 to {max}")))
    }

    fn count(&self, key: &str, max: i128) -> Result<usize, HyperparamsError> {
        self.optional_count(key, max)?.ok_or_else(|| HyperparamsError::Missing(self.name(key)))
    }

    fn positive(&self, key: &str, default: Option<f32>) -> Result<f32, HyperparamsError> {
        let found = self.header.float(&self.name(key)).or(default).ok_or_else(|| HyperparamsError::Missing(self.name(key)))?;
        let valid = found.is_finite() && found > 0.0;
        if valid { Ok(found) } else { Err(self.wrong(key, found, "a finite number above 0".into())) }
    }
}
