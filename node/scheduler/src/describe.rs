//! What a model file says of itself, for listings: read from its header without opening the model.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use engine::{Header, HeaderError, Map, MetadataValue};
use serde_json::{Value, json};

/// A model file's own account.
#[derive(Debug)]
pub struct Description {
    pub architecture: String,
    pub n_parameters: u64,
    /// Quant type of most weights, as names of files spell it.
    pub quant: String,
    pub n_ctx_train: Option<u64>,
    pub n_embd: Option<u64>,
    pub template: Option<String>,
    /// `completion`, `tools`, `thinking`, `embedding`.
    pub capabilities: Vec<&'static str>,
    /// Names, types and shapes (innermost first) of all tensors, by name.
    pub tensors: Vec<(String, String, Vec<usize>)>,
}

/// Why a file has no description.
#[derive(Debug, thiserror::Error)]
pub enum DescribeError {
    #[error("the model file cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Header(#[from] HeaderError),
}

/// Descriptions by digest: a file under its digest never changes, so each is read once.
#[derive(Debug, Default)]
pub struct Descriptions {
    known: Mutex<HashMap<String, Arc<Description>>>,
}

/// Descriptions kept; a store with more models forgets and reads again.
const N_KNOWN_MAX: usize = 1024;

impl Descriptions {
    /// The description of a file, read unless known.
    ///
    /// # Errors
    /// When the file cannot be read or is not a model.
    pub fn get(&self, digest: &str, path: &Path) -> Result<Arc<Description>, DescribeError> {
        let known = |digest: &str| self.known.lock().unwrap_or_else(PoisonError::into_inner).get(digest).cloned();
        if let Some(description) = known(digest) {
            return Ok(description);
        }
        let description = Arc::new(Description::read(path)?);
        let mut all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= N_KNOWN_MAX {
            all.clear();
        }
        all.insert(digest.into(), description.clone());
        Ok(description)
    }
}

impl Description {
    /// Reads a file's header.
    ///
    /// # Errors
    /// When the file cannot be read or is not a model.
    pub fn read(path: &Path) -> Result<Description, DescribeError> {
        let header = open(path)?;
        let architecture = header.text("general.architecture").unwrap_or_default().to_owned();
        let count = |key: &str| header.integer(&format!("{architecture}.{key}")).and_then(|v| u64::try_from(v).ok());
        let template = header.text("tokenizer.chat_template").map(String::from);
        let mut tensors: Vec<(String, String, Vec<usize>)> = header
            .tensors
            .iter()
            .map(|(name, info)| (name.clone(), info.quant.to_string(), info.shape.iter().rev().copied().collect()))
            .collect();
        tensors.sort();
        let n_parameters = tensors.iter().map(|(_, _, shape)| shape.iter().product::<usize>() as u64).sum();
        let embeds = count("pooling_type").is_some() || ["bert", "nomic-bert"].contains(&architecture.as_str());
        Ok(Description {
            n_parameters,
            quant: quant(&header),
            n_ctx_train: count("context_length"),
            n_embd: count("embedding_length"),
            capabilities: capabilities(embeds, template.as_deref()),
            template,
            tensors,
            architecture,
        })
    }

    /// The metadata of a file as JSON, without its name and template. Arrays are `null` unless `verbose`.
    ///
    /// # Errors
    /// When the file cannot be read or is not a model.
    pub fn metadata(path: &Path, verbose: bool) -> Result<serde_json::Map<String, Value>, DescribeError> {
        let header = open(path)?;
        let shown = |key: &str| key != "general.name" && key != "tokenizer.chat_template";
        let mut keys: Vec<_> = header.metadata.iter().filter(|(key, _)| shown(key)).collect();
        keys.sort_by_key(|(key, _)| *key);
        Ok(keys.into_iter().map(|(key, value)| (key.clone(), as_json(value, verbose))).collect())
    }

    /// Parameters for people: `7B`, `7.6B`, `109M`, `134.52M`, `22K`.
    pub fn parameter_size(&self) -> String {
        let n = self.n_parameters as f64;
        let short = |value: f64, digits: usize, unit: &str| {
            let text = format!("{value:.digits$}");
            let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
            format!("{text}{unit}")
        };
        match self.n_parameters {
            1_000_000_000.. => short(n / 1e9, 1, "B"),
            1_000_000.. => short(n / 1e6, 2, "M"),
            1_000.. => short(n / 1e3, 0, "K"),
            _ => short(n, 0, ""),
        }
    }
}

fn open(path: &Path) -> Result<Header, DescribeError> {
    Ok(Header::read(&Map::open(File::open(path)?)?)?)
}

fn as_json(value: &MetadataValue, verbose: bool) -> Value {
    match value {
        MetadataValue::U8(v) => json!(v),
        MetadataValue::I8(v) => json!(v),
        MetadataValue::U16(v) => json!(v),
        MetadataValue::I16(v) => json!(v),
        MetadataValue::U32(v) => json!(v),
        MetadataValue::I32(v) => json!(v),
        MetadataValue::U64(v) => json!(v),
        MetadataValue::I64(v) => json!(v),
        MetadataValue::F32(v) => json!(v),
        MetadataValue::F64(v) => json!(v),
        MetadataValue::Bool(v) => json!(v),
        MetadataValue::String(v) => json!(v),
        MetadataValue::Array(v) if verbose => v.iter().map(|v| as_json(v, verbose)).collect(),
        MetadataValue::Array(_) => Value::Null,
    }
}

/// The name of the file's type where it gives one (numbers of llama.cpp's `llama_ftype`), else the type of most weights.
fn quant(header: &Header) -> String {
    let name = match header.integer("general.file_type") {
        Some(0) => "F32",
        Some(1) => "F16",
        Some(2) => "Q4_0",
        Some(3) => "Q4_1",
        Some(7) => "Q8_0",
        Some(8) => "Q5_0",
        Some(9) => "Q5_1",
        Some(10) => "Q2_K",
        Some(11) => "Q3_K_S",
        Some(12) => "Q3_K_M",
        Some(13) => "Q3_K_L",
        Some(14) => "Q4_K_S",
        Some(15) => "Q4_K_M",
        Some(16) => "Q5_K_S",
        Some(17) => "Q5_K_M",
        Some(18) => "Q6_K",
        Some(21) => "Q2_K_S",
        Some(32) => "BF16",
        _ => {
            let mut bytes = HashMap::<String, usize>::new();
            header.tensors.values().for_each(|info| *bytes.entry(info.quant.to_string()).or_default() += info.n_bytes);
            return bytes.into_iter().max_by(|a, b| a.1.cmp(&b.1).then(b.0.cmp(&a.0))).map_or("unknown".into(), |(name, _)| name);
        }
    };
    name.into()
}

fn capabilities(embeds: bool, template: Option<&str>) -> Vec<&'static str> {
    let mut capabilities = vec![if embeds { "embedding" } else { "completion" }];
    if let Some(template) = template {
        if template.contains("tools") || template.contains("tool_call") {
            capabilities.push("tools");
        }
        if engine::AnswerFormat::of_template(template).thinks() {
            capabilities.push("thinking");
        }
    }
    capabilities
}
