//! Prefill, decode, memory and opening time of stock candle, and random files of real shapes to measure with: one side of
//! `scripts/compare`. `bench-decode FILE TOKENS` measures with a prompt of so many tokens, `bench-decode --write NAME` writes a
//! file such as `qwen3-0.6b-Q4_K_M.gguf` to `target/bench` unless it is there.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::time::Instant;

use candle_core::quantized::gguf_file::Content;
use candle_core::{Device, Tensor};
use candle_transformers::models::{quantized_llama, quantized_qwen3};
use engine::{Header, MetadataValue as Value, QuantType};
use serde_json::json;
use testkit::{GgufWriter, Item, Shape, test_data, write_model};

const N_DECODE: usize = 64;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    match &arguments.iter().map(String::as_str).collect::<Vec<_>>()[1..] {
        ["--write", name] => write(name),
        [path, n_prompt] => candle(Path::new(path), n_prompt.parse()?),
        _ => Err("either a file and a number of tokens, or `--write` and the name of a file".into()),
    }
}

/// Some tokens; every vocabulary that is measured has as many.
fn tokens(n: usize) -> Vec<u32> {
    (0..n as u32).map(|i| i * 7919 % 4000).collect()
}

/// Candle's own model of a family.
enum Stock {
    Llama(quantized_llama::ModelWeights),
    Qwen3(quantized_qwen3::ModelWeights),
}

impl Stock {
    fn open(file: &Path) -> Result<Stock, Box<dyn Error>> {
        let mut reader = std::io::BufReader::new(std::fs::File::open(file)?);
        let content = Content::read(&mut reader)?;
        let family = content.metadata.get("general.architecture").ok_or("the file names no family")?.to_string()?.clone();
        Ok(match family.as_str() {
            "llama" => Stock::Llama(quantized_llama::ModelWeights::from_gguf(content, &mut reader, &Device::Cpu)?),
            "qwen3" => Stock::Qwen3(quantized_qwen3::ModelWeights::from_gguf(content, &mut reader, &Device::Cpu)?),
            _ => return Err(format!("no stock model of {family} is measured here").into()),
        })
    }

    fn forward(&mut self, tokens: &[u32], pos: usize) -> candle_core::Result<Tensor> {
        let tokens = Tensor::new(tokens, &Device::Cpu)?.unsqueeze(0)?;
        match self {
            Stock::Llama(model) => model.forward(&tokens, pos),
            Stock::Qwen3(model) => model.forward(&tokens, pos),
        }
    }
}

fn candle(file: &Path, n_prompt: usize) -> Result<(), Box<dyn Error>> {
    let begun = Instant::now();
    let mut model = Stock::open(file)?;
    let open_ms = begun.elapsed().as_secs_f64() * 1e3;
    let begun = Instant::now();
    model.forward(&tokens(n_prompt), 0)?;
    let prefill = begun.elapsed().as_secs_f64();
    let begun = Instant::now();
    for (i, token) in tokens(N_DECODE).into_iter().enumerate() {
        model.forward(&[token], n_prompt + i)?;
    }
    let measured = json!({
        "open_ms": open_ms,
        "prefill_tps": n_prompt as f64 / prefill,
        "decode_tps": N_DECODE as f64 / begun.elapsed().as_secs_f64(),
        "anonymous_mb": anonymous_bytes().unwrap_or(0) as f64 / 1e6,
    });
    println!("{measured}");
    Ok(())
}

/// Memory of this process that is not in files.
fn anonymous_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("RssAnon:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<u64>().ok()? * 1024)
}

/// The shapes, with the vocabularies they have where the test data is at hand.
fn shape_of(name: &str) -> Option<(Shape, &'static str)> {
    let qwen = Shape {
        family: "qwen3",
        n_layer: 28,
        n_embd: 1024,
        n_ff: 3072,
        n_head: 16,
        n_head_kv: 8,
        n_embd_head: 128,
        n_ctx: 40_960,
        n_vocab: 151_936,
        untied: false,
        rope_factors: false,
    };
    match name {
        "qwen3-0.6b" => Some((qwen, "ggml-vocab-qwen2.gguf")),
        "llama-3.2-1b" => {
            let widths = Shape { n_layer: 16, n_embd: 2048, n_ff: 8192, n_head: 32, n_embd_head: 64, ..qwen };
            let shape = Shape { family: "llama", n_ctx: 131_072, n_vocab: 128_256, rope_factors: true, ..widths };
            Some((shape, "ggml-vocab-llama-bpe.gguf"))
        }
        _ => None,
    }
}

/// Writes the file of this name, a shape and a mixture of quant types, if it is not there. Q4_K_M keeps the output and half of
/// the values and down projections in Q6_K, as llama.cpp's mixture of that name does.
fn write(name: &str) -> Result<(), Box<dyn Error>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/bench");
    let path = folder.join(name);
    if path.exists() {
        return Ok(());
    }
    let parts = name.strip_suffix(".gguf").and_then(|name| name.rsplit_once('-'));
    let known = parts.and_then(|(shape, mixture)| Some((shape_of(shape)?, mixture)));
    let ((shape, vocabulary), mixture) = known.ok_or_else(|| format!("{name} is not a shape, a dash and a quant type"))?;
    let n_layer = shape.n_layer;
    let mixed = |tensor: &str| {
        let layer = tensor.split('.').nth(1).and_then(|n| n.parse::<usize>().ok()).unwrap_or(0);
        let careful = tensor.contains("attn_v") || tensor.contains("ffn_down");
        let (first, last) = (n_layer / 8, 7 * n_layer / 8);
        let chosen = !(first..last).contains(&layer) || (layer - first) % 3 == 2;
        let whole = tensor.starts_with("token_embd") || careful && chosen;
        if whole { QuantType::Q6_K } else { QuantType::Q4_K }
    };
    let quant_of: &dyn Fn(&str) -> QuantType = match mixture {
        "Q4_0" => &|_| QuantType::Q4_0,
        "Q8_0" => &|_| QuantType::Q8_0,
        "Q4_K_M" => &mixed,
        _ => return Err(format!("{mixture} is none of Q4_0, Q8_0, Q4_K_M").into()),
    };
    let mut model = write_model(&shape, quant_of, 1);
    match test_data().map(|data| data.join("vocab").join(vocabulary)) {
        Some(file) => take_vocabulary(&mut model, shape.n_vocab, &file)?,
        None => eprintln!("{name} gets a vocabulary of bytes and made-up words; delete it when the test data is there"),
    }
    std::fs::create_dir_all(&folder)?;
    // Renamed when whole: an interrupted run leaves no half of a file behind.
    let part = folder.join(format!("{name}.part"));
    std::fs::write(&part, model.bytes())?;
    Ok(std::fs::rename(part, path)?)
}

/// Replaces the vocabulary by that of `file`, which must have `n_vocab` tokens.
fn take_vocabulary(model: &mut GgufWriter, n_vocab: usize, file: &Path) -> Result<(), Box<dyn Error>> {
    let bytes = std::fs::read(file)?;
    let header = Header::read(&bytes)?;
    let n_found = header.array("tokenizer.ggml.tokens").map_or(0, <[_]>::len);
    if n_found != n_vocab {
        return Err(format!("{} has {n_found} tokens, the model {n_vocab}", file.display()).into());
    }
    // The file says itself whether a token comes first.
    model.remove("tokenizer.ggml.add_bos_token");
    let keys: BTreeMap<_, _> = header.metadata.iter().filter(|(key, _)| key.starts_with("tokenizer.ggml.")).collect();
    for (key, value) in keys {
        let item = match value {
            Value::U32(v) => Item::U32(*v),
            Value::Bool(v) => Item::Bool(*v),
            Value::String(v) => Item::Text(v.clone()),
            Value::Array(values) => match values.first() {
                Some(Value::String(_)) => Item::Texts(values.iter().map(|v| v.to_string().cloned()).collect::<Result<_, _>>()?),
                _ => Item::Integers(values.iter().map(Value::to_i32).collect::<Result<_, _>>()?),
            },
            _ => return Err(format!("{key} is of a type no vocabulary has").into()),
        };
        model.set(key, item);
    }
    Ok(())
}
