//! Prefill, decode, memory and opening time of stock candle, and random files of the shape of Qwen3-0.6B to measure with:
//! one side of `scripts/compare`. `bench-decode FILE` measures, `bench-decode --write` writes the files to `target/bench`.

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use candle_core::quantized::gguf_file::Content;
use candle_core::{Device, Tensor};
use candle_transformers::models::quantized_qwen3::ModelWeights;
use engine::QuantType;
use serde_json::json;
use testkit::{Shape, write_model};

/// The files, by the mixture of quant types.
const NAMES: [&str; 3] = ["Q4_0", "Q4_K_M", "Q8_0"];
const N_PREFILL: usize = 512;
const N_DECODE: usize = 64;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.get(1).map(String::as_str) {
        Some("--write") => NAMES.into_iter().try_for_each(write),
        Some(path) => candle(Path::new(path)),
        None => Err("which file? `--write` writes the files".into()),
    }
}

fn tokens(n: usize) -> Vec<u32> {
    (0..n as u32).map(|i| i * 7919 % 150_000).collect()
}

fn candle(file: &Path) -> Result<(), Box<dyn Error>> {
    let begun = Instant::now();
    let mut reader = std::io::BufReader::new(std::fs::File::open(file)?);
    let content = Content::read(&mut reader)?;
    let mut model = ModelWeights::from_gguf(content, &mut reader, &Device::Cpu)?;
    let open_ms = begun.elapsed().as_secs_f64() * 1e3;
    let prompt = tokens(N_PREFILL);
    let begun = Instant::now();
    model.forward(&Tensor::new(&prompt[..], &Device::Cpu)?.unsqueeze(0)?, 0)?;
    let prefill = begun.elapsed().as_secs_f64();
    let begun = Instant::now();
    for (i, token) in tokens(N_DECODE).into_iter().enumerate() {
        model.forward(&Tensor::new(&[[token]], &Device::Cpu)?, N_PREFILL + i)?;
    }
    let measured = json!({
        "open_ms": open_ms,
        "prefill_tps": N_PREFILL as f64 / prefill,
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

/// Writes the file of a quant type, if it is not there. Q4_K_M keeps the output and half of the values and down
/// projections in Q6_K, as llama.cpp's mixture of that name does.
fn write(name: &str) -> Result<(), Box<dyn Error>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/bench");
    let path = folder.join(format!("qwen3-0.6b-{name}.gguf"));
    if !path.exists() {
        std::fs::create_dir_all(&folder)?;
        let shape = Shape {
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
        let mixed = |tensor: &str| {
            let layer = tensor.split('.').nth(1).and_then(|n| n.parse::<usize>().ok()).unwrap_or(0);
            let careful = tensor.contains("attn_v") || tensor.contains("ffn_down");
            let whole = tensor.starts_with("token_embd") || careful && (!(3..25).contains(&layer) || layer.is_multiple_of(3));
            if whole { QuantType::Q6_K } else { QuantType::Q4_K }
        };
        let quant_of: &dyn Fn(&str) -> QuantType = match name {
            "Q4_0" => &|_| QuantType::Q4_0,
            "Q8_0" => &|_| QuantType::Q8_0,
            _ => &mixed,
        };
        std::fs::write(&path, write_model(&shape, quant_of, 1).bytes())?;
    }
    Ok(())
}
