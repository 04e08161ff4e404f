//! How many threads compute: what the owner says, or what was measured on this machine once and remembered.

use std::path::{Path, PathBuf};

use scheduler::Threads;
use scheduler::report::Level;
use serde_json::{Value, json};
use sysinfo::System;

/// The owner's threads, those remembered in the cache folder, or new ones, which are measured and remembered.
pub(crate) fn chosen(owner: Option<Threads>, cache: Option<&Path>) -> Threads {
    if let Some(threads) = owner.or_else(|| remembered(cache)) {
        return threads;
    }
    let threads = Threads::measure(Level::detect(), Threads::default().prefill);
    tracing::info!("measured: prompts are read with {} threads, answers written with {}", threads.prefill, threads.decode);
    if let Some(file) = file(cache)
        && let Err(error) = remember(&file, threads)
    {
        tracing::warn!("{} cannot be written, so threads are measured again at the next start: {error}", file.display());
    }
    threads
}

/// What was measured on this machine by this version.
pub(crate) fn remembered(cache: Option<&Path>) -> Option<Threads> {
    let text = std::fs::read_to_string(file(cache)?).ok()?;
    let found: Value = serde_json::from_str(&text).ok()?;
    let count = |what: &str| usize::try_from(found[what].as_u64()?).ok().filter(|n| *n > 0);
    (found["machine"] == machine()).then_some(Threads { prefill: count("prefill")?, decode: count("decode")? })
}

fn remember(file: &Path, threads: Threads) -> std::io::Result<()> {
    let text = json!({ "machine": machine(), "prefill": threads.prefill, "decode": threads.decode });
    std::fs::create_dir_all(file.parent().unwrap_or(Path::new("/")))?;
    std::fs::write(file, format!("{text:#}\n"))
}

fn file(cache: Option<&Path>) -> Option<PathBuf> {
    Some(cache?.join("threads.json"))
}

/// What a measure holds for.
fn machine() -> String {
    format!("{}, {} threads, {}, Lantern {}", processor(), Threads::default().prefill, Level::detect(), env!("CARGO_PKG_VERSION"))
}

/// What the processor calls itself.
pub(crate) fn processor() -> String {
    let brand = System::new().ok().and_then(|mut system| {
        system.refresh_cpu_all();
        system.cpus().first().map(|cpu| cpu.brand().trim().to_owned())
    });
    let brand = brand.unwrap_or_default();
    if brand.is_empty() { std::env::consts::ARCH.to_owned() } else { brand }
}
