//! The daemon over HTTP, with the built-in model: a small answer, and a streamed one, token by token.

#![allow(clippy::unwrap_used, reason = "the daemon of the tests")]

#[path = "../node/tests/daemon/mod.rs"]
mod daemon;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use daemon::Daemon;
use serde_json::json;

fn http(c: &mut Criterion) {
    // With as many threads as were measured.
    let daemon = Daemon::start_with(&[("LANTERN_THREADS", "")]);
    let mut group = c.benchmark_group("http");
    group.bench_function("GET /api/version", |b| b.iter(|| daemon.get("/api/version")));
    let body = json!({ "model": "lantern-guide", "prompt": "What is MCP?", "options": { "temperature": 0 } });
    let answer = daemon.post("/api/generate", &body);
    assert_eq!(answer.status, 200, "{}", answer.body);
    // One line for each token, and one that ends the answer.
    group.throughput(Throughput::Elements(answer.body.lines().count() as u64 - 1));
    group.bench_function("POST /api/generate, streamed", |b| b.iter(|| daemon.post("/api/generate", &body)));
}

criterion_group!(benches, http);
criterion_main!(benches);
