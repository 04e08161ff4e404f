//! The daemon over HTTP, with the built-in model: a small answer, and a streamed one, token by token.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};

struct Daemon {
    child: Child,
    address: String,
    _models: tempfile::TempDir,
}

impl Daemon {
    fn start() -> Daemon {
        let models = tempfile::tempdir().expect("a folder for models");
        let mut child = Command::new(env!("CARGO_BIN_EXE_lantern"))
            .arg("serve")
            .envs([("OLLAMA_HOST", "127.0.0.1:0"), ("LANTERN_SESSIONS", "off")])
            .env("OLLAMA_MODELS", models.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the daemon starts");
        let mut first = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut first).expect("a line");
        let address = first.trim().rsplit_once("http://").expect("the first line tells the address").1.to_owned();
        Daemon { child, address, _models: models }
    }

    /// The whole answer to a request, whose status must be 200.
    fn ask(&self, method: &str, path: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).expect("the daemon listens");
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            self.address,
            body.len()
        );
        stream.write_all((head + body).as_bytes()).expect("the daemon reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        answer
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

fn http(c: &mut Criterion) {
    let daemon = Daemon::start();
    let mut group = c.benchmark_group("http");
    group.bench_function("GET /api/version", |b| b.iter(|| daemon.ask("GET", "/api/version", "")));
    let body = r#"{"model":"lantern-guide","prompt":"What is MCP?","options":{"temperature":0}}"#;
    // One line for each token, and one that ends the answer.
    let n_tokens = daemon.ask("POST", "/api/generate", body).matches(r#""response":"#).count() - 1;
    group.throughput(Throughput::Elements(n_tokens as u64));
    group.bench_function("POST /api/generate, streamed", |b| b.iter(|| daemon.ask("POST", "/api/generate", body)));
}

criterion_group!(benches, http);
criterion_main!(benches);
