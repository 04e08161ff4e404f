//! `lantern doctor`: what this machine has, and what is missing.

use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use scheduler::report::{FAMILIES, Level, QuantType, available_bytes};
use serde_json::{Value, json};
use sysinfo::{Disks, System};

use super::table;
use crate::config::Config;
use crate::threads;

/// Seconds of 2026-01-01: a clock before that has not been set.
const BUILT_AFTER: u64 = 1_767_225_600;
/// Room a small model and its context want.
const MEMORY_WANTED: u64 = 1 << 30;
const DISK_WANTED: u64 = 2 << 30;

/// One finding: name, whether it is as it should be, and the words.
struct Finding(&'static str, bool, String);

pub(super) fn doctor(config: &Config, as_json: bool) -> Result<()> {
    let findings = [cores(), threads(config), kernels(), memory(), disk(config), models(config), meters(), clock()];
    if as_json {
        let entry = |Finding(name, ok, text): &Finding| ((*name).to_owned(), json!({ "ok": ok, "found": text }));
        println!("{:#}", Value::Object(findings.iter().map(entry).collect()));
        return Ok(());
    }
    for Finding(name, ok, text) in &findings {
        println!("{} {name:<10} {text}", if *ok { "ok  " } else { "note" });
    }
    Ok(())
}

fn cores() -> Finding {
    let n = std::thread::available_parallelism().map_or(1, usize::from);
    Finding("processor", true, format!("{}, {n} cores, {}", threads::processor(), std::env::consts::ARCH))
}

fn threads(config: &Config) -> Finding {
    let text = match config.threads.or_else(|| threads::remembered(config.cache.as_deref())) {
        Some(threads) => format!("{} for prompts, {} for answers", threads.prefill, threads.decode),
        None => "measured when the daemon first starts".to_owned(),
    };
    Finding("threads", true, text)
}

fn kernels() -> Finding {
    let level = Level::detect();
    let types = QuantType::ALL.map(|q| q.to_string()).join(", ");
    let fast = level != Level::Scalar;
    let advice = if fast { "" } else { "; plain loops are slow, this processor has no instructions Lantern knows" };
    Finding("kernels", fast, format!("{level}{advice}; quant types {types}; models {FAMILIES}"))
}

fn memory() -> Finding {
    let total = System::new().map_or(0, |mut system| {
        system.refresh_memory();
        system.total_memory()
    });
    let available = available_bytes().unwrap_or(total);
    let advice = if available < MEMORY_WANTED { "; little for a model, close other programs" } else { "" };
    let text = format!("{} of {} available{advice}", table::bytes(available), table::bytes(total));
    Finding("memory", available >= MEMORY_WANTED, text)
}

fn disk(config: &Config) -> Finding {
    let disks = Disks::new_with_refreshed_list().ok();
    let folder = existing_part(&config.models);
    let holds = |disk: &&sysinfo::Disk| folder.starts_with(disk.mount_point());
    let Some(disk) = disks.iter().flat_map(|d| d.iter()).filter(holds).max_by_key(|disk| disk.mount_point().as_os_str().len())
    else {
        return Finding("disk", false, "the disk of the models folder is not known".into());
    };
    let free = disk.available_space();
    let advice = if free < DISK_WANTED { "; little for another model, remove one with lantern rm" } else { "" };
    Finding("disk", free >= DISK_WANTED, format!("{} free for models{advice}", table::bytes(free)))
}

/// The longest part of a path that exists.
fn existing_part(path: &Path) -> std::path::PathBuf {
    path.ancestors().find_map(|p| fs::canonicalize(p).ok()).unwrap_or_else(|| "/".into())
}

fn models(config: &Config) -> Finding {
    let installed = config.store().list();
    let size = installed.iter().map(|m| m.size).sum();
    Finding("models", true, format!("{} installed, {}", installed.len(), table::bytes(size)))
}

/// Sensors that could measure power. They are read by a later version; here they are only found.
fn meters() -> Finding {
    let entries = |folder: &str| fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path()).collect::<Vec<_>>();
    let mut found: Vec<String> = entries("/sys/class/hwmon")
        .into_iter()
        .filter(|chip| chip.join("power1_input").exists())
        .map(|chip| fs::read_to_string(chip.join("name")).map_or("hwmon".into(), |name| name.trim().to_owned()))
        .collect();
    if Path::new("/dev/vcio").exists() || Path::new("/dev/vcio_gencmd").exists() {
        found.push("pmic".into());
    }
    if entries("/sys/class/powercap").iter().any(|zone| zone.join("energy_uj").exists()) {
        found.push("rapl".into());
    }
    let text = if found.is_empty() { "none found: energy will be shown as unknown".into() } else { found.join(", ") };
    Finding("meters", !found.is_empty(), text)
}

fn clock() -> Finding {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let set = seconds >= BUILT_AFTER;
    Finding(
        "clock",
        set,
        if set { "set".into() } else { "not set: dates will be wrong until the network or a battery clock sets it".into() },
    )
}
