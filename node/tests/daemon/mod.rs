//! The real binary on a free port, and a plain HTTP client that can also send what no client would.

#![allow(dead_code, reason = "each test file uses its own part")]

mod row;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use kernels::QuantType;
use serde_json::{Value, json};
use testkit::{Shape, tiny_model};

#[allow(unused_imports, reason = "each test file uses its own part")]
pub(crate) use row::{canary, row, row_with};

/// A running daemon with a store of its own.
pub(crate) struct Daemon {
    child: Child,
    pub(crate) address: String,
    pub(crate) models: tempfile::TempDir,
    log: tempfile::NamedTempFile,
}

/// An answer.
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Daemon {
    pub(crate) fn start() -> Daemon {
        Daemon::start_with(&[])
    }

    /// With variables set; the store begins empty, so the guide is installed.
    pub(crate) fn start_with(variables: &[(&str, &str)]) -> Daemon {
        Daemon::start_in(tempfile::tempdir().unwrap(), variables)
    }

    fn start_in(models: tempfile::TempDir, variables: &[(&str, &str)]) -> Daemon {
        let log = tempfile::NamedTempFile::new().unwrap();
        let mut child = command(models.path())
            .env("OLLAMA_HOST", "127.0.0.1:0")
            .envs(variables.iter().copied())
            .arg("serve")
            .stdout(Stdio::piped())
            .stderr(log.reopen().unwrap())
            .spawn()
            .unwrap();
        let mut first = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
        let address = first.trim().rsplit_once("http://").expect("the first line tells the address").1.to_owned();
        Daemon { child, address, models, log }
    }

    pub(crate) fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Reply {
        let begun = Instant::now();
        let mut stream = self.open(method, path, headers, body.as_bytes());
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        let reply = Reply::parse(&bytes);
        row::check_error(self, method, path, &reply, begun);
        reply
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.log.path()).unwrap()
    }

    /// Connections it has open, with what it listens on.
    pub(crate) fn n_sockets(&self) -> usize {
        let files = std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap();
        let is_socket = |entry: &std::fs::DirEntry| {
            std::fs::read_link(entry.path()).is_ok_and(|to| to.to_string_lossy().starts_with("socket:"))
        };
        files.filter(|entry| is_socket(entry.as_ref().unwrap())).count()
    }

    /// Files it has open.
    pub(crate) fn n_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    /// Sends a request and leaves its answer to be read.
    pub(crate) fn open(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
        let host =
            if headers.iter().any(|(name, _)| *name == "Host") { String::new() } else { format!("Host: {}\r\n", self.address) };
        let more: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let head = format!("{method} {path} HTTP/1.1\r\n{host}{more}Connection: close\r\nContent-Length: {}\r\n\r\n", body.len());
        // A server that refuses early may close before it has read everything.
        _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
        stream
    }

    pub(crate) fn get(&self, path: &str) -> Reply {
        self.send("GET", path, &[], "")
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Reply {
        self.send("POST", path, &[], &body.to_string())
    }

    /// Ends it without a word and starts another on the same folders.
    pub(crate) fn kill_and_restart(mut self, variables: &[(&str, &str)]) -> Daemon {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let models = std::mem::replace(&mut self.models, tempfile::tempdir().unwrap());
        Daemon::start_in(models, variables)
    }

    /// Stops it as a service manager does and returns whether it ended well.
    pub(crate) fn stop(mut self) -> bool {
        self.terminate()
    }

    /// Stops it and starts another on the same folders.
    pub(crate) fn restart(mut self) -> Daemon {
        assert!(self.terminate());
        let models = std::mem::replace(&mut self.models, tempfile::tempdir().unwrap());
        Daemon::start_in(models, &[])
    }

    fn terminate(&mut self) -> bool {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        self.child.wait().unwrap().success()
    }

    /// Memory of the process that is not in files, in bytes.
    pub(crate) fn anonymous_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|l| l.strip_prefix("RssAnon:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// Processor time used so far, in ticks of the system's clock.
    pub(crate) fn cpu_ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let after_name = stat.rsplit_once(')').unwrap().1;
        after_name.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum()
    }

    /// Adds a random model under a name.
    pub(crate) fn install(&self, name: &str, bytes: &[u8]) {
        let file = tempfile::Builder::new().suffix(".gguf").tempfile().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        let done = command(self.models.path()).arg("import").arg(file.path()).args(["--name", name]).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Already gone after `stop`.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// The binary with a store and nothing of the caller's own settings.
pub(crate) fn command(models: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lantern"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("OLLAMA_") || name.starts_with("LANTERN_")) {
        command.env_remove(name);
    }
    ["HF_TOKEN", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"].iter().for_each(|name| _ = command.env_remove(name));
    command.env("OLLAMA_MODELS", models).env("LANTERN_SESSIONS", models.join("sessions"));
    command.env("LANTERN_STATE", models.join("state")).env("HOME", models.join("home"));
    // Nothing is measured, as tests run side by side.
    command.env("LANTERN_THREADS", "2");
    command
}

/// Asks again and again until the answer is as wanted, for half a minute at most.
pub(crate) fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "{what} did not happen");
        std::thread::yield_now();
    }
}

impl Reply {
    pub(crate) fn parse(bytes: &[u8]) -> Reply {
        let end = bytes.windows(4).position(|w| w == b"\r\n\r\n").expect("an answer has a head");
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers: Vec<(String, String)> =
            lines.filter_map(|l| l.split_once(": ")).map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
        let chunked = headers.iter().any(|(name, value)| name == "transfer-encoding" && value == "chunked");
        let body = if chunked { dechunk(&bytes[end + 4..]) } else { bytes[end + 4..].to_vec() };
        Reply { status, headers, body: String::from_utf8(body).unwrap() }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {:?}", self.body))
    }

    pub(crate) fn lines(&self) -> Vec<Value> {
        self.body.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
    }

    /// Checks an error answer.
    pub(crate) fn is_error(&self, status: u16, message: &str) {
        assert_eq!((self.status, self.json()), (status, serde_json::json!({ "error": message })));
    }
}

fn dechunk(mut bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    loop {
        let Some(end) = bytes.windows(2).position(|w| w == b"\r\n") else { return out };
        let len = usize::from_str_radix(std::str::from_utf8(&bytes[..end]).unwrap(), 16).unwrap();
        if len == 0 {
            return out;
        }
        out.extend_from_slice(&bytes[end + 2..end + 2 + len]);
        bytes = &bytes[end + 4 + len..];
    }
}

/// A model that goes on for ever: no token of its vocabulary ends an answer.
pub(crate) fn endless(daemon: &Daemon, name: &str) {
    let mut model = tiny_model(&Shape::tiny("llama"), QuantType::Q4_0, 3);
    model.remove("tokenizer.ggml.token_type").remove("tokenizer.ggml.eos_token_id");
    daemon.install(name, &model.bytes());
}

/// A request that runs until it is cancelled.
pub(crate) fn forever(name: &str) -> Vec<u8> {
    json!({ "model": name, "prompt": "x", "raw": true, "options": { "num_predict": 20_000, "num_ctx": 2048 } })
        .to_string()
        .into_bytes()
}
