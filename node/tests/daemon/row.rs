//! What holds whatever a client sends (V1 to V7 of the bad-input matrix): a row of the matrix runs between two looks at a daemon.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Daemon, Reply, eventually};

/// What a daemon may grow by while a row runs, and what may be left of that half a minute later.
const GROWTH: u64 = 64 << 20;
const LEFT: u64 = 8 << 20;
/// Files that may be opened once and kept: the store of tokens and its log.
const FILES_KEPT: usize = 4;
/// How long a refusal may take on a machine that is busy with other tests.
const REFUSAL: Duration = Duration::from_secs(5);

/// Runs a row between two looks.
pub(crate) fn row(row: impl FnOnce(&Daemon)) {
    row_with(&[], row);
}

/// The same with variables set.
pub(crate) fn row_with(variables: &[(&str, &str)], row: impl FnOnce(&Daemon)) {
    let d = Daemon::start_with(variables);
    let before = Look::at(&d);
    row(&d);
    before.holds(&d);
}

/// An answer that every run gives alike.
pub(crate) fn canary(d: &Daemon) -> String {
    let body = json!({ "model": "lantern-guide", "messages": [{ "role": "user", "content": PROMPT }], "stream": false,
        "options": { "temperature": 0, "num_predict": 32 } });
    d.post("/api/chat", &body).json()["message"]["content"].as_str().unwrap().to_owned()
}

/// Words that no log may hold.
const PROMPT: &str = "Who are you?";

/// A daemon before a row.
struct Look {
    canary: String,
    anonymous: u64,
    files: usize,
    models: Value,
}

impl Look {
    fn at(d: &Daemon) -> Look {
        let canary = canary(d);
        assert!(canary.contains("lantern-guide"), "{canary}");
        Look { canary, anonymous: d.anonymous_bytes(), files: d.n_files(), models: resident(d) }
    }

    fn holds(&self, d: &Daemon) {
        // V1 and V3: it lives, and says what it said.
        assert_eq!(canary(d), self.canary, "the same answer as before");
        // V4: memory and files.
        let grown = d.anonymous_bytes().saturating_sub(self.anonymous);
        assert!(grown <= GROWTH, "{grown} bytes more than before");
        if resident(d) == self.models {
            eventually("memory given back", || (d.anonymous_bytes() <= self.anonymous + LEFT).then_some(()));
        }
        eventually("files closed", || (d.n_files() <= self.files + FILES_KEPT).then_some(()));
        // V6: nothing lies where it should not.
        assert!(!d.models.path().join("home").exists(), "something was written to the home folder");
        let known = ["blobs", "manifests", "sessions", "state"];
        let strange: Vec<String> = names(d.models.path()).into_iter().filter(|name| !known.contains(&name.as_str())).collect();
        assert_eq!(strange, Vec::<String>::new());
        let staged: Vec<String> =
            names(&d.models.path().join("blobs")).into_iter().filter(|name| name.contains("staging")).collect();
        assert_eq!(staged, Vec::<String>::new());
        // V7: the log tells no secrets.
        let log = d.log();
        for secret in [d.models.path().to_str().unwrap(), "ltn_", PROMPT, "panicked at", "stack backtrace", "\u{1b}["] {
            assert!(!log.contains(secret), "the log holds {secret:?}:\n{log}");
        }
    }
}

/// Models in memory.
fn resident(d: &Daemon) -> Value {
    let models = d.get("/api/ps").json()["models"].clone();
    models.as_array().unwrap().iter().map(|model| model["name"].clone()).collect()
}

fn names(folder: &Path) -> Vec<String> {
    std::fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// V2, V5 and V7 of a single answer: an error is spelt as the surface of its path spells errors, comes soon, and names no file.
pub(crate) fn check_error(d: &Daemon, method: &str, path: &str, reply: &Reply, begun: Instant) {
    if reply.status < 400 || method == "HEAD" {
        return;
    }
    assert!(begun.elapsed() < REFUSAL, "{method} {path} was refused after {:?}", begun.elapsed());
    assert!(!reply.body.contains(d.models.path().to_str().unwrap()), "{path}: {}", reply.body);
    // Origins and names that are refused get no words, as upstream gives none.
    if reply.status == 403 && reply.body.is_empty() {
        return;
    }
    let plain = reply.header("content-type").is_some_and(|kind| kind.starts_with("text/plain"));
    if plain && [404, 405].contains(&reply.status) {
        // Of paths that belong to no surface.
        return;
    }
    let body = reply.json();
    let error = &body["error"];
    let well_formed = match path {
        _ if path.starts_with("/v1/messages") => {
            body["type"] == "error" && error["message"].is_string() && error["type"].is_string()
        }
        _ if path.starts_with("/v1") || path.starts_with("/api/v0") => error["message"].is_string() && error["type"].is_string(),
        _ => error.is_string(),
    };
    assert!(well_formed, "{method} {path}: {}", reply.body);
}
