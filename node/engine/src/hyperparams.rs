//! The numbers that shape a model, read from the header and checked once. Nothing later checks them again.

use kernels::{Gate, RopePairs};

use crate::embed::Pooling;
use crate::gguf::Header;
use crate::keys::{Keys, WIDTH_MAX};
use crate::rope::Rope;

/// Architectures this build runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Llama 2 and 3, Mistral, SmolLM2, TinyLlama.
    Llama,
    Qwen2,
    /// Qwen 2 with experts, one of them shared.
    Qwen2Moe,
    Qwen3,
    Qwen3Moe,
    Gemma2,
    Gemma3,
    /// Phi 3, 3.5 and 4.
    Phi3,
    Granite,
    SmolLm3,
    /// LFM 2, most layers of which have a short convolution instead of attention.
    Lfm2,
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

    /// What files call it.
    fn named(name: &str) -> Option<Family> {
        Some(match name {
            "llama" => Family::Llama,
            "qwen2" => Family::Qwen2,
            "qwen2moe" => Family::Qwen2Moe,
            "qwen3" => Family::Qwen3,
            "qwen3moe" => Family::Qwen3Moe,
            "gemma2" => Family::Gemma2,
            "gemma3" => Family::Gemma3,
            "phi3" => Family::Phi3,
            "granite" => Family::Granite,
            "smollm3" => Family::SmolLm3,
            "lfm2" => Family::Lfm2,
            "bert" => Family::Bert,
            "nomic-bert" => Family::NomicBert,
            _ => return None,
        })
    }

    /// Whether each head of q and k is normalised.
    pub(crate) fn norms_heads(self) -> bool {
        matches!(self, Family::Qwen3 | Family::Qwen3Moe | Family::Gemma3 | Family::Lfm2)
    }

    /// Whether what attention and feed-forward give is normalised before it is added.
    pub(crate) fn norms_outputs(self) -> bool {
        matches!(self, Family::Gemma2 | Family::Gemma3)
    }
}

/// Their names in files, for the message that refuses another.
pub const FAMILIES: &str = "llama (with Mistral, SmolLM2, TinyLlama), qwen2, qwen2moe, qwen3, qwen3moe, gemma2, gemma3, phi3 (with Phi 4), granite, \
     smollm3, lfm2; for embeddings also bert (with MiniLM), nomic-bert";

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
    /// Context length of its first training, beyond which rope may differ.
    pub n_ctx_original: usize,
    /// How embeddings are pooled, where the file says it.
    pub pooling: Option<Pooling>,
    /// Rotary positions that layers use; none in BERT, which learns its positions.
    pub ropes: Vec<Rope>,
    pub rope_pairs: RopePairs,
    /// What sets layers apart, for each of them.
    pub layers: Vec<LayerKind>,
    pub gate: Gate,
    pub experts: Option<ExpertCounts>,
    /// What embeddings are multiplied by.
    pub embedding_scale: f32,
    /// What the outputs of attention and feed-forward are multiplied by before they are added.
    pub residual_scale: f32,
    /// What the products of queries and keys are multiplied by.
    pub attention_scale: f32,
    /// What keeps those within bounds, see [`kernels::Attention`].
    pub attention_cap: Option<f32>,
    pub logit_scale: f32,
    pub logit_cap: Option<f32>,
}

/// What sets one layer apart from another.
#[derive(Debug, Clone, Copy)]
pub struct LayerKind {
    /// Positions that a token sees, itself included; all that came before if `None`.
    pub window: Option<usize>,
    /// Which of the model's ropes turns its queries and keys, if any does.
    pub rope: Option<usize>,
    pub mixing: Mixing,
}

/// How a layer lets tokens know of each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mixing {
    Attention,
    /// A short convolution along positions.
    Convolution,
}

/// Experts of each layer: feed-forward parts of which a token uses a few.
#[derive(Debug, Clone, Copy)]
pub struct ExpertCounts {
    pub n: usize,
    /// How many a token uses.
    pub n_used: usize,
    pub n_ff: usize,
    /// Width of the one that all tokens use besides.
    pub n_ff_shared: Option<usize>,
    /// Whether the weights of those used are made to sum to one.
    pub normalized: bool,
}

/// Layers of a model; the largest published have below 200.
const N_LAYER_MAX: i128 = 1_024;
/// Experts of all layers; the largest published models have below 20,000.
const N_EXPERTS_MAX: usize = 65_536;
/// Bytes of an architecture's name shown in a message.
const NAME_SHOWN: usize = 60;

impl Hyperparams {
    /// Reads and checks the keys of the header's architecture.
    ///
    /// # Errors
    /// When the architecture is unknown, or a number missing or impossible.
    pub fn read(header: &Header) -> Result<Hyperparams, HyperparamsError> {
        let architecture = header.text("general.architecture").unwrap_or_default();
        let family = Family::named(architecture)
            .ok_or_else(|| HyperparamsError::Architecture { found: architecture.chars().take(NAME_SHOWN).collect() })?;
        let keys = Keys { header, architecture };
        let n_embd = keys.count("embedding_length", WIDTH_MAX)?;
        let n_head = keys.count("attention.head_count", WIDTH_MAX)?;
        let n_layer = keys.count("block_count", N_LAYER_MAX)?;
        let (n_head_kv, mixing) = heads_kv(&keys, family, n_layer, n_head)?;
        if n_head_kv > n_head || n_head % n_head_kv != 0 {
            return Err(keys.wrong("attention.head_count_kv", n_head_kv, format!("a divisor of the {n_head} heads")));
        }
        let n_embd_head = head_width(&keys, family, n_embd, n_head)?;
        let experts = experts(&keys, family, n_layer)?;
        let (ropes, mut layers) = positions(&keys, family, n_layer, n_embd_head)?;
        layers.iter_mut().zip(mixing).for_each(|(layer, mixing)| layer.mixing = mixing);
        let gemma = family.norms_outputs();
        // The largest of each generation, 27B, divides by the width of its embedding.
        let largest = family == Family::Gemma2 && n_layer == 46 || family == Family::Gemma3 && n_layer == 62;
        let attention_width = if largest { n_embd / n_head } else { n_embd_head };
        Ok(Hyperparams {
            family,
            n_layer,
            n_embd,
            n_ff: match experts {
                Some(experts) => experts.n_ff,
                None => keys.count("feed_forward_length", WIDTH_MAX)?,
            },
            n_head,
            n_head_kv,
            n_embd_head,
            n_ctx_train: keys.count("context_length", i128::from(u32::MAX))?,
            n_ctx_original: match keys.optional_count("rope.scaling.original_context_length", i128::from(u32::MAX))? {
                Some(n) => n,
                None => keys.count("context_length", i128::from(u32::MAX))?,
            },
            norm_epsilon: match family.encodes() {
                true => keys.positive("attention.layer_norm_epsilon", None)?,
                // Ollama writes none for Gemma 3.
                false => keys.positive("attention.layer_norm_rms_epsilon", (family == Family::Gemma3).then_some(1e-6))?,
            },
            pooling: pooling(&keys)?,
            ropes,
            rope_pairs: match family {
                Family::Llama | Family::Granite | Family::SmolLm3 => RopePairs::Adjacent,
                _ => RopePairs::Halves,
            },
            layers,
            gate: if gemma { Gate::Gelu } else { Gate::Silu },
            experts,
            embedding_scale: if gemma { (n_embd as f32).sqrt() } else { keys.positive("embedding_scale", Some(1.0))? },
            residual_scale: keys.positive("residual_scale", Some(1.0))?,
            attention_scale: keys.positive("attention.scale", Some(1.0 / (attention_width as f32).sqrt()))?,
            attention_cap: if family == Family::Gemma2 {
                Some(keys.positive("attn_logit_softcapping", Some(50.0))?)
            } else {
                None
            },
            logit_scale: 1.0 / keys.positive("logit_scale", Some(1.0))?,
            logit_cap: if family == Family::Gemma2 { Some(keys.positive("final_logit_softcapping", Some(30.0))?) } else { None },
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

/// The width of a head, of keys and of values.
fn head_width(keys: &Keys, family: Family, n_embd: usize, n_head: usize) -> Result<usize, HyperparamsError> {
    let n_embd_head = match keys.optional_count("attention.key_length", WIDTH_MAX)? {
        Some(n) => n,
        None if n_embd.is_multiple_of(n_head) => n_embd / n_head,
        None => {
            return Err(keys.wrong("attention.head_count", n_head, format!("a divisor of the embedding length {n_embd}")));
        }
    };
    if family == Family::Lfm2 && n_head * n_embd_head != n_embd {
        return Err(keys.wrong("attention.head_count", n_head, format!("heads of {n_embd_head} that add up to {n_embd}")));
    }
    if n_embd_head % 2 != 0 {
        return Err(keys.wrong("attention.key_length", n_embd_head, "an even number".into()));
    }
    if let Some(n) = keys.optional_count("attention.value_length", WIDTH_MAX)?.filter(|n| *n != n_embd_head) {
        return Err(keys.wrong("attention.value_length", n, format!("the key length {n_embd_head}")));
    }
    Ok(n_embd_head)
}

/// Key/value heads, and how each layer mixes tokens: LFM 2 lists the heads of every layer, none where it has a convolution.
fn heads_kv(keys: &Keys, family: Family, n_layer: usize, n_head: usize) -> Result<(usize, Vec<Mixing>), HyperparamsError> {
    let key = "attention.head_count_kv";
    let Some(list) = keys.header.array(&keys.name(key)).filter(|_| family == Family::Lfm2) else {
        return Ok((keys.optional_count(key, WIDTH_MAX)?.unwrap_or(n_head), vec![Mixing::Attention; n_layer]));
    };
    let wrong = |found: String| keys.wrong(key, found, format!("one number above 0, or 0, for each of the {n_layer} layers"));
    if list.len() != n_layer {
        return Err(wrong(format!("a list of {}", list.len())));
    }
    let counts =
        list.iter().map(|value| value.to_u32().or_else(|_| value.to_i32().map(|n| u32::try_from(n).unwrap_or(u32::MAX))));
    let counts = counts.collect::<Result<Vec<u32>, _>>().map_err(|_| wrong("a list of other things than numbers".into()))?;
    let n = counts.iter().copied().find(|n| *n > 0).ok_or_else(|| wrong("a list of zeros".into()))?;
    if let Some(other) = counts.iter().find(|count| **count != 0 && **count != n) {
        return Err(wrong(format!("a list with {n} and {other}")));
    }
    let mixing = |count: &u32| if *count == 0 { Mixing::Convolution } else { Mixing::Attention };
    Ok((n as usize, counts.iter().map(mixing).collect()))
}

/// The experts of the families that have them.
fn experts(keys: &Keys, family: Family, n_layer: usize) -> Result<Option<ExpertCounts>, HyperparamsError> {
    let n_max = 4_096;
    if !matches!(family, Family::Qwen2Moe | Family::Qwen3Moe) {
        return match keys.integer("expert_count").filter(|n| *n != 0) {
            Some(n) => Err(keys.wrong("expert_count", n, "0: of this family only models without experts are supported".into())),
            None => Ok(None),
        };
    }
    let n = keys.count("expert_count", n_max)?;
    if n * n_layer > N_EXPERTS_MAX {
        return Err(keys.wrong("expert_count", n, format!("no more than {N_EXPERTS_MAX} in all {n_layer} layers")));
    }
    let n_used = keys.count("expert_used_count", n_max)?;
    if n_used > n {
        return Err(keys.wrong("expert_used_count", n_used, format!("at most the {n} experts")));
    }
    let n_ff = match keys.optional_count("expert_feed_forward_length", WIDTH_MAX)? {
        Some(n) => n,
        // Files of old leave it out.
        None => (keys.count("feed_forward_length", WIDTH_MAX)? / n_used).max(1),
    };
    let n_ff_shared = match family {
        Family::Qwen2Moe => Some(keys.count("expert_shared_feed_forward_length", WIDTH_MAX)?),
        _ => None,
    };
    Ok(Some(ExpertCounts { n, n_used, n_ff, n_ff_shared, normalized: family == Family::Qwen3Moe }))
}

/// The ropes of a model, and which each layer uses, with its window.
fn positions(
    keys: &Keys,
    family: Family,
    n_layer: usize,
    n_embd_head: usize,
) -> Result<(Vec<Rope>, Vec<LayerKind>), HyperparamsError> {
    let window = match family.norms_outputs() || family == Family::Lfm2 {
        true => keys.optional_count("attention.sliding_window", i128::from(u32::MAX))?,
        false => None,
    };
    let everywhere = LayerKind { window: None, rope: Some(0), mixing: Mixing::Attention };
    if family == Family::Bert {
        return Ok((Vec::new(), vec![LayerKind { rope: None, ..everywhere }; n_layer]));
    }
    if family == Family::Gemma3 {
        // The names that llama.cpp and Ollama write.
        let base = keys.first_positive(&["rope.freq_base", "rope.global.freq_base"], 1_000_000.0)?;
        let base_in_window = keys.first_positive(&["rope.freq_base_swa", "rope.local.freq_base"], 10_000.0)?;
        let mut rope = Rope::read(keys, n_embd_head, base)?;
        // Nor the factor of the models of 4, 12 and 27 billion weights, which is 8.
        if keys.text("rope.scaling.type").is_none() && [34, 48, 62].contains(&n_layer) {
            let n = rope.frequencies.len();
            rope.divide(&vec![8.0; n])?;
        }
        let ropes = vec![rope, Rope::unscaled(n_embd_head, base_in_window)];
        // One layer of six sees everything, unless the file says another number.
        let pattern = keys.optional_count("attention.sliding_window_pattern", N_LAYER_MAX).ok().flatten().unwrap_or(6);
        let kind = |i: usize| {
            if (i + 1).is_multiple_of(pattern) { everywhere } else { LayerKind { window, rope: Some(1), ..everywhere } }
        };
        return Ok((ropes, (0..n_layer).map(kind).collect()));
    }
    let kind = |i: usize| match family {
        Family::Gemma2 if i.is_multiple_of(2) => LayerKind { window: window.or(Some(4096)), ..everywhere },
        Family::Lfm2 => LayerKind { window, ..everywhere },
        // Models whose fine-tuning left positions out.
        Family::Granite if keys.header.truth(&keys.name("rope.scaling.finetuned")) == Some(false) => {
            LayerKind { rope: None, ..everywhere }
        }
        // Every fourth layer knows no positions.
        Family::SmolLm3 if (i + 1).is_multiple_of(4) => LayerKind { rope: None, ..everywhere },
        _ => everywhere,
    };
    let base = keys.positive("rope.freq_base", Some(10_000.0))?;
    Ok((vec![Rope::read(keys, n_embd_head, base)?], (0..n_layer).map(kind).collect()))
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
