//! Clients that come and go: no work is left behind, and one that vanishes without a word is noticed.

#![allow(clippy::unwrap_used, reason = "tests")]

mod daemon;

use std::io::Read;
use std::time::{Duration, Instant};

use daemon::{Daemon, endless, eventually, forever};
use serde_json::json;

#[test]
fn g03_a_thousand_connect_ask_and_close() {
    let d = Daemon::start();
    endless(&d, "endless");
    let request = forever("endless");
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
    endless(&d, "endless");
    let request = forever("endless");
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
