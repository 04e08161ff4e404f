//! The shape of the tree: who may depend on whom, how long a file may be, where unsafe code may stand, what the top level
//! holds. `docs/architecture.md` has the reasons.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Crates of this workspace that each crate may use; the development crates may use more for their tests.
const MAY_USE: [(&str, &[&str]); 10] = [
    ("kernels", &[]),
    ("catalog", &[]),
    ("access", &[]),
    ("store", &[]),
    ("engine", &["kernels"]),
    ("scheduler", &["engine", "catalog"]),
    ("api", &["scheduler", "catalog", "access", "store"]),
    ("lantern", &["access", "api", "catalog", "store", "scheduler", "engine", "kernels"]),
    ("testkit", &["kernels", "engine"]),
    ("fuzz", &["engine", "testkit"]),
];

/// Lines a source file may have.
const LINES_MAX: usize = 400;
/// Longer files, each with the reason why it is better whole.
const LONG: [(&str, &str); 2] = [
    ("node/kernels/src/integers.rs", "one layout after the other, read type by type"),
    ("node/tests/ollama.rs", "one id of the checklist after the other"),
];

/// Where `unsafe` may stand.
const UNSAFE: [&str; 3] = ["node/kernels/src/", "node/engine/src/map.rs", "node/engine/tests/allocations.rs"];

/// What the top level may hold.
const TOP: [&str; 20] = [
    ".cargo",
    ".ci",
    ".git",
    ".gitignore",
    "Cargo.lock",
    "Cargo.toml",
    "Cross.toml",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "benches",
    "clippy.toml",
    "docs",
    "image",
    "models.toml",
    "node",
    "rustfmt.toml",
    "scripts",
    "systemd",
    "target",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().into()
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap().map(|e| e.unwrap()) {
        let path = entry.path();
        if entry.file_type().unwrap().is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

fn all_sources() -> Vec<(String, String)> {
    let mut found = Vec::new();
    sources(&root().join("node"), &mut found);
    let relative = |p: &PathBuf| p.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
    found.iter().map(|p| (relative(p), fs::read_to_string(p).unwrap())).collect()
}

/// The names in one section of a manifest.
fn section(manifest: &str, wanted: &str) -> BTreeSet<String> {
    let mut inside = false;
    let mut names = BTreeSet::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            inside = line == format!("[{wanted}]");
        } else if inside && let Some((name, _)) = line.split_once(['.', ' ', '=']) {
            names.insert(name.to_owned());
        }
    }
    names
}

#[test]
fn crates_depend_downwards_only() {
    let names: Vec<&str> = MAY_USE.iter().map(|(name, _)| *name).collect();
    for (name, allowed) in MAY_USE {
        let folder = if name == "lantern" { root().join("node") } else { root().join("node").join(name) };
        let manifest = fs::read_to_string(folder.join("Cargo.toml")).unwrap();
        for used in section(&manifest, "dependencies").iter().filter(|d| names.contains(&d.as_str())) {
            assert!(allowed.contains(&used.as_str()), "{name} uses {used}, which docs/architecture.md does not allow");
        }
    }
}

#[test]
fn files_are_short() {
    for (path, text) in all_sources() {
        let n = text.lines().count();
        let excepted = LONG.iter().any(|(long, _)| *long == path);
        assert!(n <= LINES_MAX || excepted, "{path} has {n} lines: split it, or list it here with the reason");
        assert!(n > LINES_MAX || !excepted, "{path} has only {n} lines and needs no exception");
    }
}

#[test]
fn unsafe_code_stands_where_it_may() {
    let word = ["uns", "afe {"].concat();
    for (path, text) in all_sources() {
        let allowed = UNSAFE.iter().any(|place| path.starts_with(place));
        assert!(allowed || !text.contains(&word), "{path} holds unsafe code");
    }
}

#[test]
fn nothing_is_left_undone() {
    let marks = [["to", "do!("].concat(), ["unimplemen", "ted!("].concat(), ["#[ig", "nore"].concat(), ["FIX", "ME"].concat()];
    for (path, text) in all_sources() {
        for mark in &marks {
            assert!(!text.contains(mark.as_str()), "{path} holds {mark}");
        }
    }
}

#[test]
fn the_top_level_is_what_it_should_be() {
    for entry in fs::read_dir(root()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(TOP.contains(&name.as_str()), "{name} does not belong at the top level");
    }
}
