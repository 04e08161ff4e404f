//! Prefill, decode, memory and opening time beside stock candle, in one run, on random files of the shape of Qwen3-0.6B.
//!
//! `cargo run --release -p bench-decode [-- --threads N] [--runs N]`; `--write` only writes the files.
//!
//! Each measurement is a process of its own, the two sides in turn; the table shows medians and their ratio. Files are
//! written to `target/bench` once.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use candle_core::quantized::gguf_file::Content;
use candle_core::{Device, Tensor};
use candle_transformers::models::quantized_qwen3::ModelWeights;
use engine::{Level, Model, Pool, QuantType, Session, Slice, step};
use serde_json::{Value, json};
use testkit::{Shape, write_model};

/// The files, by the mixture of quant types.
const NAMES: [&str; 3] = ["Q4_0", "Q4_K_M", "Q8_0"];
const N_PREFILL: usize = 512;
const N_DECODE: usize = 64;
/// Rows of a step, as the scheduler's.
const N_BATCH: usize = 256;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let value = |name: &str| arguments.iter().position(|a| a == name).and_then(|i| arguments.get(i + 1));
    let n_threads: usize = value("--threads").map_or(Ok(1), |v| v.parse())?;
    let n_runs: usize = value("--runs").map_or(Ok(5), |v| v.parse())?;
    match (value("--side").map(String::as_str), value("--file")) {
        (Some("lantern"), Some(file)) => print(lantern(Path::new(file), n_threads)?),
        (Some(_), Some(file)) => print(candle(Path::new(file))?),
        _ if arguments.iter().any(|a| a == "--write") => {
            for name in NAMES {
                file(name)?;
            }
        }
        _ => compare(n_threads, n_runs)?,
    }
    Ok(())
}

fn print(measured: Value) {
    println!("{measured}");
}

fn tokens(n: usize) -> Vec<u32> {
    (0..n as u32).map(|i| i * 7919 % 150_000).collect()
}

fn lantern(file: &Path, n_threads: usize) -> Result<Value, Box<dyn Error>> {
    let begun = Instant::now();
    let model = Model::open(file)?;
    model.prefetch();
    let open_ms = begun.elapsed().as_secs_f64() * 1e3;
    let pool = Pool::new(n_threads, Level::detect());
    let mut session = Session::new(&model, 1024)?;
    let prompt = tokens(N_PREFILL);
    let begun = Instant::now();
    for part in prompt.chunks(N_BATCH) {
        step(&model, &pool, &mut [Slice { session: &mut session, tokens: part, want_logits: true }])?;
    }
    let prefill = begun.elapsed().as_secs_f64();
    let begun = Instant::now();
    for token in tokens(N_DECODE) {
        step(&model, &pool, &mut [Slice { session: &mut session, tokens: &[token], want_logits: true }])?;
    }
    Ok(report(open_ms, prefill, begun.elapsed().as_secs_f64()))
}

fn candle(file: &Path) -> Result<Value, Box<dyn Error>> {
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
    Ok(report(open_ms, prefill, begun.elapsed().as_secs_f64()))
}

fn report(open_ms: f64, prefill_s: f64, decode_s: f64) -> Value {
    json!({
        "open_ms": open_ms,
        "prefill_tps": N_PREFILL as f64 / prefill_s,
        "decode_tps": N_DECODE as f64 / decode_s,
        "anonymous_mb": anonymous_bytes().unwrap_or(0) as f64 / 1e6,
    })
}

/// Memory of this process that is not in files.
fn anonymous_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("RssAnon:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<u64>().ok()? * 1024)
}

fn compare(n_threads: usize, n_runs: usize) -> Result<(), Box<dyn Error>> {
    println!("Qwen3-0.6B shape, {N_PREFILL} tokens of prefill, {N_DECODE} of decode, {n_threads} threads, medians of {n_runs}\n");
    println!("| file | figure | lantern | candle | ratio |\n|---|---|---|---|---|");
    for name in NAMES {
        let file = file(name)?;
        let mut runs: [Vec<Value>; 2] = [Vec::new(), Vec::new()];
        for _ in 0..n_runs {
            for (side, runs) in ["lantern", "candle"].into_iter().zip(&mut runs) {
                runs.push(measure(side, &file, n_threads)?);
            }
        }
        for figure in ["prefill_tps", "decode_tps", "anonymous_mb", "open_ms"] {
            let [ours, theirs] = [&runs[0], &runs[1]].map(|runs| median(runs, figure));
            println!("| {name} | {figure} | {ours:.1} | {theirs:.1} | {:.2} |", ours / theirs);
        }
    }
    Ok(())
}

fn measure(side: &str, file: &Path, n_threads: usize) -> Result<Value, Box<dyn Error>> {
    let done = Command::new(std::env::current_exe()?)
        .args(["--side", side, "--threads", &n_threads.to_string(), "--file"])
        .arg(file)
        .env("RAYON_NUM_THREADS", n_threads.to_string())
        .output()?;
    if !done.status.success() {
        return Err(format!("{side} failed: {}", String::from_utf8_lossy(&done.stderr)).into());
    }
    Ok(serde_json::from_slice(&done.stdout)?)
}

fn median(runs: &[Value], figure: &str) -> f64 {
    let mut values: Vec<f64> = runs.iter().filter_map(|r| r[figure].as_f64()).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The file of a quant type, written if it is not there. Q4_K_M keeps the output and half of the values and down
/// projections in Q6_K, as llama.cpp's mixture of that name does.
fn file(name: &str) -> Result<PathBuf, Box<dyn Error>> {
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
    Ok(path)
}
