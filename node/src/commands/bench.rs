//! `lantern bench`: how fast this machine runs a model, beside what the machine could do at most.

mod lookup;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use catalog::ModelName;
use engine::{KvType, Level, Model, Pool, Session, Slice, Threads, dot_peak, read_bandwidth, step};
use indicatif::ProgressBar;
use scheduler::{N_BATCH, N_GUESSED_MAX};
use serde_json::{Value, json};

use crate::config::Config;
use crate::threads;

/// Tokens decoded by each of several sessions.
const N_TOGETHER: usize = 32;

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// The model: a name, or a GGUF file
    model: String,
    /// Threads that compute [LANTERN_THREADS, or what was measured on this machine]
    #[arg(long)]
    threads: Option<usize>,
    /// Lengths of prompts to prefill [128,512, if the model takes as many]
    #[arg(long, value_delimiter = ',', value_name = "TOKENS")]
    prompts: Option<Vec<usize>>,
    /// Lengths of context to decode after [0,512,2048, if the model takes as many]
    #[arg(long, value_delimiter = ',', value_name = "TOKENS")]
    depths: Option<Vec<usize>>,
    /// Tokens to decode at each depth
    #[arg(long, default_value_t = 64, value_name = "TOKENS")]
    decode: usize,
    /// Sessions that decode together; 0 skips this, and decode with right guesses
    #[arg(long, default_value_t = 4)]
    sessions: usize,
    /// Measure prompt lookup too, on a summary, an edit and a JSON answer
    #[arg(long)]
    lookup: bool,
    /// Runs of each measurement, of which the median counts
    #[arg(long, default_value_t = 3)]
    runs: usize,
}

pub(super) fn bench(config: &Config, options: &Options, as_json: bool) -> Result<()> {
    if options.runs == 0 || options.decode == 0 || options.prompts.iter().flatten().any(|n| *n == 0) {
        bail!("--runs, --decode and --prompts must be above 0");
    }
    let file = file(config, &options.model)?;
    let owner = options.threads.map(Threads::same).or(config.threads);
    let threads = threads::chosen(owner, config.cache.as_deref());
    let measured = measure(options, &file, config.limits.kv_type, threads)?;
    if as_json {
        println!("{measured:#}");
    } else {
        print!("{}", table(&measured));
    }
    Ok(())
}

fn file(config: &Config, model: &str) -> Result<PathBuf> {
    let file = Path::new(model);
    if file.is_file() {
        return Ok(file.to_owned());
    }
    let name = ModelName::parse(model).with_context(|| format!("{model:?} is neither a file nor a model's name"))?;
    let installed = config.store().find(&name)?;
    installed.model_path().with_context(|| format!("{name} has no model file"))
}

fn measure(options: &Options, file: &Path, kv_type: KvType, threads: Threads) -> Result<Value> {
    let progress = ProgressBar::new_spinner();
    progress.enable_steady_tick(std::time::Duration::from_millis(100));
    let say = |what: String| progress.set_message(what);
    say("opening".into());
    let begun = Instant::now();
    let model = Model::open(file).with_context(|| format!("cannot open {}", file.display()))?;
    let open_ms = begun.elapsed().as_secs_f64() * 1e3;
    model.prefetch();
    let prefill_pool = Pool::new(threads.prefill, Level::detect());
    let other = (threads.decode != threads.prefill).then(|| Pool::new(threads.decode, Level::detect()));
    let decode_pool = other.as_ref().unwrap_or(&prefill_pool);
    say("measuring what the machine can do".into());
    let (peak, bandwidth) = (dot_peak(&prefill_pool), read_bandwidth(decode_pool));
    let b = Bench { model: &model, prefill_pool: &prefill_pool, decode_pool, options, kv_type };
    let n_ctx_train = model.hyperparams().n_ctx_train;
    let those_that_fit = |lengths: &[usize], more: usize| lengths.iter().copied().filter(|n| n + more <= n_ctx_train).collect();
    let prompts: Vec<usize> = options.prompts.clone().unwrap_or_else(|| those_that_fit(&[128, 512], 0));
    let depths: Vec<usize> = options.depths.clone().unwrap_or_else(|| those_that_fit(&[0, 512, 2048], options.decode));
    let mut prefill = Vec::new();
    for &n in &prompts {
        say(format!("prefill of {n} tokens"));
        let tps = b.prefill(n)?;
        let of_peak = peak.map(|peak| tps * model.prefill_products() as f64 / peak);
        prefill.push(json!({ "n_tokens": n, "tps": tps, "of_peak": of_peak }));
    }
    let mut decode = Vec::new();
    for &depth in &depths {
        say(format!("decode after {depth} tokens"));
        let tps = b.decode(depth, 1, 1)?;
        let bytes = model.decode_bytes() + model.kv_bytes(kv_type, depth + options.decode / 2);
        decode.push(json!({ "depth": depth, "tps": tps, "of_bandwidth": tps * bytes as f64 / bandwidth }));
    }
    let (mut together, mut guessed) = (Value::Null, Value::Null);
    if options.sessions > 0 {
        say(format!("{} sessions together", options.sessions));
        let tps = b.decode(0, options.sessions, 1)?;
        together = json!({ "n_sessions": options.sessions, "tps": tps });
        say("decode with right guesses".into());
        guessed = json!({ "n_rows": N_GUESSED_MAX, "tps": b.decode(0, 1, N_GUESSED_MAX)? });
    }
    let mut lookup = Value::Null;
    if options.lookup {
        say("prompt lookup".into());
        lookup = b.lookup()?;
    }
    // No session is alive now: what is left is the model's and the engine's.
    let anonymous_bytes = anonymous_bytes();
    progress.finish_and_clear();
    let longest = depths.iter().map(|d| d + options.decode).chain(prompts.iter().copied()).max();
    Ok(json!({
        "file": file.file_name().unwrap_or_default().to_string_lossy(),
        "file_bytes": model.file_bytes(),
        "level": prefill_pool.level().to_string(),
        "n_threads": { "prefill": threads.prefill, "decode": threads.decode },
        "read_gb_s": bandwidth / 1e9,
        "dot_gmac_s": peak.map(|peak| peak / 1e9),
        "open_ms": open_ms,
        "prefill": prefill,
        "decode": decode,
        "together": together,
        "guessed": guessed,
        "lookup": lookup,
        "anonymous_mb": anonymous_bytes.map(|bytes| bytes as f64 / 1e6),
        "kv_mb": model.kv_bytes(kv_type, longest.unwrap_or(0)) as f64 / 1e6,
    }))
}

struct Bench<'a> {
    model: &'a Model,
    prefill_pool: &'a Pool,
    decode_pool: &'a Pool,
    options: &'a Options,
    kv_type: KvType,
}

impl Bench<'_> {
    /// Tokens per second of a prompt, median of the runs.
    fn prefill(&self, n: usize) -> Result<f64> {
        let prompt = self.tokens(n);
        self.median(|| {
            let mut session = self.session(n)?;
            let begun = Instant::now();
            self.read(&mut session, &prompt)?;
            Ok(n as f64 / begun.elapsed().as_secs_f64())
        })
    }

    /// Tokens per second of decode after `depth` tokens, all sessions taken together, where each step takes the next `n_rows`:
    /// one, or as many as were guessed and turn out right.
    fn decode(&self, depth: usize, n_sessions: usize, n_rows: usize) -> Result<f64> {
        let n = if n_sessions == 1 { self.options.decode } else { N_TOGETHER };
        let mut sessions = (0..n_sessions).map(|_| self.session(depth + n)).collect::<Result<Vec<_>>>()?;
        for session in &mut sessions {
            self.read(session, &self.tokens(depth))?;
        }
        self.median(|| {
            sessions.iter_mut().for_each(|session| session.truncate(depth));
            let mut logits = Vec::new();
            let begun = Instant::now();
            for tokens in self.tokens(n).chunks(n_rows) {
                let slice = |session| Slice { session, tokens, n_logits: tokens.len() };
                step(self.model, self.decode_pool, &mut sessions.iter_mut().map(slice).collect::<Vec<_>>(), &mut logits)?;
            }
            Ok((n * n_sessions) as f64 / begun.elapsed().as_secs_f64())
        })
    }

    fn median(&self, mut run: impl FnMut() -> Result<f64>) -> Result<f64> {
        let mut found = (0..self.options.runs).map(|_| run()).collect::<Result<Vec<_>>>()?;
        found.sort_by(f64::total_cmp);
        Ok(found[found.len() / 2])
    }

    fn session(&self, n_ctx: usize) -> Result<Session> {
        let trained = self.model.hyperparams().n_ctx_train;
        if n_ctx > trained {
            bail!("{n_ctx} tokens are asked for, the model was trained on {trained}; see --prompts, --depths and --decode");
        }
        Session::new(self.model, self.kv_type, n_ctx).context("no address range for a session")
    }

    fn read(&self, session: &mut Session, prompt: &[u32]) -> Result<()> {
        for part in prompt.chunks(N_BATCH) {
            step(self.model, self.prefill_pool, &mut [Slice { session, tokens: part, n_logits: 1 }], &mut Vec::new())?;
        }
        Ok(())
    }

    /// Some tokens; which ones makes no difference to the time.
    fn tokens(&self, n: usize) -> Vec<u32> {
        (0..n).map(|i| (i * 7919 % self.model.tokenizer().n_vocab()) as u32).collect()
    }
}

/// Memory of this process that is not in files.
fn anonymous_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("RssAnon:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<u64>().ok()? * 1024)
}

fn table(m: &Value) -> String {
    let number = |value: &Value, digits: usize| value.as_f64().map_or("-".to_owned(), |v| format!("{v:.digits$}"));
    let percent = |value: &Value| value.as_f64().map_or(String::new(), |v| format!("{:.0} %", 100.0 * v));
    let mut lines = vec![
        format!(
            "{}, {} threads for prompts and {} for answers, {}",
            m["file"].as_str().unwrap_or_default(),
            m["n_threads"]["prefill"],
            m["n_threads"]["decode"],
            m["level"].as_str().unwrap_or_default()
        ),
        format!(
            "this machine at most: reads {} GB/s, computes {} billion products of 8-bit numbers a second",
            number(&m["read_gb_s"], 1),
            number(&m["dot_gmac_s"], 0)
        ),
        String::new(),
    ];
    let mut row =
        |what: String, value: String, note: String| lines.push(format!("{what:<34}{value:>10}  {note}").trim_end().to_owned());
    for p in m["prefill"].as_array().into_iter().flatten() {
        row(format!("prefill of {}, tokens/s", p["n_tokens"]), number(&p["tps"], 1), percent(&p["of_peak"]) + " of the products");
    }
    for d in m["decode"].as_array().into_iter().flatten() {
        let note = percent(&d["of_bandwidth"]) + " of the bandwidth";
        row(format!("decode after {}, tokens/s", d["depth"]), number(&d["tps"], 1), note);
    }
    if m["together"].is_object() {
        row(
            format!("{} sessions together, tokens/s", m["together"]["n_sessions"]),
            number(&m["together"]["tps"], 1),
            String::new(),
        );
        let what = format!("decode, all of {} guesses right", m["guessed"]["n_rows"].as_u64().unwrap_or(1) - 1);
        row(what, number(&m["guessed"]["tps"], 1), "tokens/s; the most that prompt lookup can give".into());
    }
    for task in m["lookup"].as_array().into_iter().flatten() {
        let times = task["tps"].as_f64().zip(task["alone_tps"].as_f64()).map(|(with, without)| with / without);
        let note = times.map_or("the model's context is too short".into(), |times| {
            format!("{times:.2} times decode; {} of {} guesses right", task["n_accepted"], task["n_drafted"])
        });
        row(format!("{} by prompt lookup, tokens/s", task["task"].as_str().unwrap_or_default()), number(&task["tps"], 1), note);
    }
    row("opening, ms".into(), number(&m["open_ms"], 0), String::new());
    row(
        "memory beside the file, MB".into(),
        number(&m["anonymous_mb"], 0),
        format!("and {} for keys and values of the longest", number(&m["kv_mb"], 0)),
    );
    lines.join("\n") + "\n"
}
