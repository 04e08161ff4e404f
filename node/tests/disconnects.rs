//! Clients that come and go: no work is left behind, and one that vanishes without a word is noticed.

#![allow(clippy::unwrap_used, reason = "tests")]

mod daemon;

use std::io::Read;
use std::time::{Duration, Instant};

use daemon::{Daemon, eventually};
use kernels::QuantType;
use serde_json::json;
use testkit::{Shape, tiny_model};

/// A model that never ends its answer, and a request for it.
fn endless(d: &Daemon) -> Vec<u8> {
    let mut model = tiny_model(&Shape::tiny("llama"), QuantType::Q4_0, 3);
    model.remove("tokenizer.ggml.token_type").remove("tokenizer.ggml.eos_token_id");
    d.install("endless", &model.bytes());
    json!({ "model": "endless", "prompt": "x", "raw": true, "options": { "num_predict": 20_000, "num_ctx": 2048 } })
        .to_string()
        .into_bytes()
}

#[test]
fn g03_a_thousand_connect_ask_and_close() {
    let d = Daemon::start();
    let request = endless(&d);
    let mut quiet = d.open("POST", "/api/generate", &[], &request);
    quiet.read_exact(&mut [0; 100]).unwrap();
    drop(quiet);
    for _ in 0..1000 {
        drop(d.open("POST", "/api/generate", &[], &request));
    }
    // The daemon rests when its processor time stands still for a second.
    let (mut ticks, mut since) = (d.cpu_ticks(), Instant::now());
    eventually("rest after the last one left", || {
        let now = d.cpu_ticks();
        if now != ticks {
            (ticks, since) = (now, Instant::now());
        }
        (since.elapsed() > Duration::from_secs(1)).then_some(())
    });
    assert_eq!(d.post("/api/generate", &json!({ "model": "lantern-guide", "prompt": "Hello", "stream": false })).status, 200);
}

/// What the system will do about a client that vanishes is in its table of connections: a timer of kind 2 (keep-alive)
/// that runs out within ten seconds of silence. A real pulled cable is in `docs/testing.md`.
#[test]
fn g04_a_silent_connection_is_asked_whether_it_is_there() {
    let d = Daemon::start();
    let request = endless(&d);
    let body = String::from_utf8(request).unwrap().replace("\"raw\"", "\"stream\":false,\"raw\"");
    let client = d.open("POST", "/api/generate", &[], body.as_bytes());
    let [ours, theirs] = [client.peer_addr().unwrap().port(), client.local_addr().unwrap().port()].map(|p| format!(":{p:04X}"));
    let timer = eventually("a watched connection", || {
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let mut rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let row = rows.find(|row| row[1].ends_with(&ours) && row[2].ends_with(&theirs))?;
        row[5].starts_with("02:").then(|| row[5].to_owned())
    });
    let ticks = u64::from_str_radix(&timer[3..], 16).unwrap();
    assert!(ticks <= 10 * 100, "the first question comes after {ticks} hundredths of a second");
}
