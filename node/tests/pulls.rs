//! A pull survives the end of the process at any instant: nothing that has arrived is lost, and of each part no
//! more than a chunk is fetched again.

#![allow(clippy::unwrap_used, reason = "tests")]

mod daemon;

use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};

use daemon::{Daemon, eventually};
use kernels::QuantType;
use serde_json::json;
use testkit::{Asked, Random, Shape, digest, manifest, serve, tiny_model};

const N_KILLS: usize = 20;

/// What a part of this layer is, and how much of one may be fetched again: what was not yet written down.
const PART: usize = 4 << 20;
const CHUNK: usize = PART / 16;

/// A registry with one model. For the weights it sends as many bytes as it is allowed to, whichever connection asks for them, then
/// falls silent until the clients go.
struct Registry {
    address: String,
    allowed: Arc<Allowed>,
    /// Where requests for weights began, since they were last looked at.
    begun: Arc<Mutex<Vec<usize>>>,
}

#[derive(Default)]
struct Allowed {
    /// Bytes, and the number of clients that have been killed: their connections get no more.
    state: Mutex<(usize, usize)>,
    more: Condvar,
}

impl Allowed {
    fn set(&self, bytes: usize) {
        self.state.lock().unwrap().0 = bytes;
        self.more.notify_all();
    }

    fn next_client(&self) {
        let mut state = self.state.lock().unwrap();
        *state = (0, state.1 + 1);
        self.more.notify_all();
    }

    fn client(&self) -> usize {
        self.state.lock().unwrap().1
    }

    /// Up to `n` bytes for this client, once any are allowed; `None` when it is gone.
    fn take(&self, client: usize, n: usize) -> Option<usize> {
        let mut state = self.state.lock().unwrap();
        while state.0 == 0 && state.1 == client {
            state = self.more.wait(state).unwrap();
        }
        let n = n.min(state.0);
        (state.1 == client).then(|| {
            state.0 -= n;
            n
        })
    }
}

fn registry(weights: Vec<u8>) -> Registry {
    let config = br#"{"model_format":"gguf","model_family":"llama"}"#;
    let (manifest, blob) = (manifest(config, &weights, weights.len()), digest(&weights));
    let (allowed, begun) = (Arc::new(Allowed::default()), Arc::new(Mutex::new(Vec::new())));
    let (shared, log) = (allowed.clone(), begun.clone());
    let address = serve(move |mut asked| {
        if !asked.path.ends_with(&blob) {
            return asked.answer("200 OK", if asked.path.contains("/blobs/") { config } else { &manifest });
        }
        let (from, to) = asked.range.unwrap();
        let client = shared.client();
        log.lock().unwrap().push(from);
        send_allowed(asked, &weights[from..=to], client, &shared);
    });
    Registry { address, allowed, begun }
}

fn send_allowed(mut asked: Asked, mut bytes: &[u8], client: usize, allowed: &Allowed) {
    // The client may be gone already, which is what the test is about.
    let mut sent = asked.head("206 Partial Content", bytes.len());
    while sent.is_ok() && !bytes.is_empty() {
        let Some(n) = allowed.take(client, bytes.len().min(16 << 10)) else { return };
        let (now, later) = bytes.split_at(n);
        sent = asked.stream.write_all(now);
        bytes = later;
    }
}

/// Of each part, the bytes at its beginning that are on disk.
fn on_disk(partial: &Path, weights: &[u8]) -> Vec<usize> {
    let found = std::fs::read(partial).unwrap_or_default();
    let same = |(part, expected): (&[u8], &[u8])| part.iter().zip(expected).take_while(|(a, b)| a == b).count();
    let mut lengths: Vec<usize> = found.chunks(PART).zip(weights.chunks(PART)).map(same).collect();
    lengths.resize(weights.len().div_ceil(PART), 0);
    lengths
}

#[test]
fn b07_b08_j03_a_pull_survives_twenty_kills() {
    let weights = tiny_model(&Shape { n_vocab: 100_000, ..Shape::tiny("llama") }, QuantType::F16, 4).bytes();
    assert!(weights.len() > 5 * PART, "more parts than connections");
    let registry = registry(weights.clone());
    let variables: &[(&str, &str)] = &[("LANTERN_REGISTRY", &registry.address)];
    let mut d = Daemon::start_with(variables);
    let blob = digest(&weights).replace(':', "-");
    let partial = |d: &Daemon| d.models.path().join("blobs").join(&blob).with_extension("part");
    let mut random = Random(9);
    let body = json!({ "model": "big" }).to_string();
    for kill in 0..N_KILLS {
        let before = on_disk(&partial(&d), &weights);
        let client = d.open("POST", "/api/pull", &[], body.as_bytes());
        eventually("a request for weights", || (!registry.begun.lock().unwrap().is_empty()).then_some(()));
        let some = (random.bits() as usize) % (1 << 20);
        if kill % 2 == 0 {
            // Half of the kills come when some of it is on disk for good: more is allowed than may be fetched again.
            registry.allowed.set(some + 8 * CHUNK);
            let is_more = || on_disk(&partial(&d), &weights).iter().sum::<usize>() >= before.iter().sum::<usize>() + CHUNK;
            eventually("bytes arriving", || is_more().then_some(()));
        } else {
            registry.allowed.set(some);
        }
        d = d.kill_and_restart(variables);
        drop(client);
        registry.allowed.next_client();
        for from in registry.begun.lock().unwrap().drain(..) {
            // Bytes after those that were written may be equal by chance, as zeros are.
            let (part, done) = (from / PART, from % PART);
            assert!(done <= before[part], "kill {kill}: part {part} goes on at {done}, where {} were on disk", before[part]);
            assert!(done + CHUNK + 64 >= before[part], "kill {kill}: of part {part} {} are fetched again", before[part] - done);
        }
        assert_eq!(d.post("/api/show", &json!({ "model": "big" })).status, 404, "half a model is none");
    }
    assert!(on_disk(&partial(&d), &weights).iter().sum::<usize>() > 0, "something has arrived");
    registry.allowed.set(usize::MAX);
    let reply = d.post("/api/pull", &json!({ "model": "big", "stream": false }));
    assert_eq!((reply.status, reply.json()), (200, json!({ "status": "success" })));
    assert_eq!(d.post("/api/show", &json!({ "model": "big" })).status, 200);
    assert_eq!(std::fs::read(d.models.path().join("blobs").join(&blob)).unwrap(), weights);
    let left: Vec<_> = std::fs::read_dir(d.models.path().join("blobs")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_str().unwrap().contains(".part")), "{left:?}");
    // What is here is not fetched again, and its progress is told all the same.
    let again = d.send("POST", "/api/pull", &[], &body).lines();
    let statuses: Vec<&str> = again.iter().map(|line| line["status"].as_str().unwrap()).collect();
    let layer = format!("pulling {}", &digest(&weights)[7..19]);
    assert_eq!(statuses[..2], ["pulling manifest", &layer]);
    assert_eq!(statuses[statuses.len() - 3..], ["verifying sha256 digest", "writing manifest", "success"]);
    assert_eq!((&again[1]["digest"], &again[1]["completed"]), (&json!(digest(&weights)), &again[1]["total"]));
}
