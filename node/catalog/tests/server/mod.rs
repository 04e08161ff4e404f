//! A server on loopback that answers as a registry does, and as a broken one does.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Barrier, Mutex};

use catalog::{ModelName, Progress, PullError, Registry, Store};
use testkit::digest;

/// What the server does with the request for a path.
#[derive(Clone)]
pub(crate) enum Reply {
    /// Sends the bytes, or the part of them that was asked for.
    Bytes(Vec<u8>),
    /// The first time it sends so many bytes and hangs up, then it behaves.
    CutOnce(Vec<u8>, usize),
    /// The first time it sends so many bytes and falls silent, then it behaves.
    StallOnce(Vec<u8>, usize),
    /// Sends what was asked for once so many connections wait for that.
    Together(Vec<u8>, Arc<Barrier>),
    /// Sends all of them, whatever was asked for.
    NoRanges(Vec<u8>),
    Status(u16, &'static str),
    Redirect(String),
}

/// A request: path, and where its range begins.
pub(crate) type Seen = (String, Option<usize>);

pub(crate) struct Server {
    pub(crate) address: String,
    pub(crate) seen: Arc<Mutex<Vec<Seen>>>,
}

pub(crate) fn serve(replies: HashMap<String, Reply>) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    let replies = Arc::new(Mutex::new(replies));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, replies, log) = (stream.unwrap(), replies.clone(), log.clone());
            std::thread::spawn(move || reply(stream, &replies, &log));
        }
    });
    Server { address, seen }
}

fn reply(mut stream: TcpStream, replies: &Mutex<HashMap<String, Reply>>, log: &Mutex<Vec<Seen>>) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map(Result::unwrap);
    let path = lines.next().unwrap().split(' ').nth(1).unwrap().to_owned();
    let range = lines.take_while(|line| !line.is_empty()).find_map(|line| {
        let line = line.to_lowercase();
        let (from, to) = line.strip_prefix("range: bytes=")?.split_once('-')?;
        Some((from.parse::<usize>().unwrap(), to.parse::<usize>().unwrap()))
    });
    let path = path.split('?').next().unwrap().to_owned();
    log.lock().unwrap().push((path.clone(), range.map(|(from, _)| from)));
    let reply = {
        let mut replies = replies.lock().unwrap();
        let reply = replies.get(&path).cloned().unwrap_or(Reply::Status(404, "no such thing"));
        if let Reply::CutOnce(bytes, _) | Reply::StallOnce(bytes, _) = &reply {
            replies.insert(path, Reply::Bytes(bytes.clone()));
        }
        reply
    };
    let mut stalls = false;
    let (bytes, n_sent) = match reply {
        Reply::Status(status, text) => {
            write!(stream, "HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}", text.len()).unwrap();
            return;
        }
        Reply::Redirect(to) => {
            write!(stream, "HTTP/1.1 307 X\r\nLocation: {to}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
            return;
        }
        Reply::Bytes(bytes) => (bytes.clone(), bytes.len()),
        Reply::Together(bytes, meeting) => {
            meeting.wait();
            (bytes.clone(), bytes.len())
        }
        Reply::NoRanges(bytes) => {
            let head = format!("HTTP/1.1 200 X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", bytes.len());
            _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&bytes));
            return;
        }
        Reply::CutOnce(bytes, n) => (bytes, n),
        Reply::StallOnce(bytes, n) => {
            stalls = true;
            (bytes, n)
        }
    };
    let (status, from, end) = match range {
        // Whoever asks to the end of what was announced gets what there is.
        Some((from, to)) => (206, from, if to + 2 >= bytes.len() { bytes.len() } else { to + 1 }),
        None => (200, 0, bytes.len()),
    };
    let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", end - from);
    // The client may have gone.
    let end = n_sent.clamp(from, end);
    _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&bytes[from..end]));
    if stalls {
        // Until the client has had enough.
        _ = std::io::Read::read(&mut stream, &mut [0]);
    }
}

pub(crate) const CONFIG: &[u8] = br#"{"model_format":"gguf","model_family":"qwen3","model_type":"3M","file_type":"Q8_0"}"#;

pub(crate) fn weights() -> Vec<u8> {
    (0..300_000u32).flat_map(u32::to_le_bytes).collect()
}

/// A registry with one model, whose weights are answered for by `reply`.
pub(crate) fn registry(reply: impl Fn(Vec<u8>) -> Reply) -> (Server, String) {
    let layer = |kind: &str, bytes: &[u8]| serde_json::json!({ "mediaType": kind, "digest": digest(bytes), "size": bytes.len() });
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": layer("application/vnd.docker.container.image.v1+json", CONFIG),
        "layers": [layer("application/vnd.ollama.image.model", &weights())],
    });
    let blob = format!("/v2/library/tiny/blobs/{}", digest(&weights()));
    let server = serve(HashMap::from([
        ("/v2/library/tiny/manifests/latest".to_owned(), Reply::Bytes(manifest.to_string().into_bytes())),
        ("/v2/library/tiny/manifests/again".to_owned(), Reply::Bytes(manifest.to_string().into_bytes())),
        (blob.clone(), reply(weights())),
        (format!("/v2/library/tiny/blobs/{}", digest(CONFIG)), Reply::Bytes(CONFIG.to_vec())),
        ("/v2/org/repo-GGUF/manifests/Q4_K_M".to_owned(), Reply::Bytes(manifest.to_string().into_bytes())),
        (blob.replace("library/tiny", "org/repo-GGUF"), Reply::Bytes(weights())),
        (format!("/v2/org/repo-GGUF/blobs/{}", digest(CONFIG)), Reply::Bytes(CONFIG.to_vec())),
        ("/v2/library/broken/manifests/latest".to_owned(), Reply::Status(500, "on fire")),
    ]));
    (server, blob)
}

pub(crate) async fn pull(server: &Server, store: &Store, name: &str) -> (Result<(), PullError>, Vec<Progress>) {
    let mut steps = Vec::new();
    let registry = Registry::new(&server.address, &server.address).unwrap();
    let result = registry.pull(store, &ModelName::parse(name).unwrap(), |step| steps.push(step)).await;
    (result, steps)
}

/// A server that lets in who shows what its `/token` gives, or `let me in`. `make` gets its address and says where it sends others
/// to sign in, and where each path leads.
pub(crate) fn guard(make: impl FnOnce(&str) -> (String, HashMap<String, String>)) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (realm, paths) = make(&address);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map(Result::unwrap);
            let path = lines.next().unwrap().split(' ').nth(1).unwrap().split('?').next().unwrap().to_owned();
            let shown = lines
                .take_while(|line| !line.is_empty())
                .find_map(|line| line.to_lowercase().strip_prefix("authorization: bearer ").map(String::from));
            log.lock().unwrap().push((path.clone(), None));
            let welcome = shown.is_some_and(|shown| shown == "a pass" || shown == "let me in");
            let (head, body) = match paths.get(&path) {
                _ if path == "/token" => ("200 X".to_owned(), r#"{"token": "a pass"}"#),
                Some(to) if welcome => (format!("307 X\r\nLocation: {to}"), ""),
                _ => (
                    format!("401 X\r\nWWW-Authenticate: Bearer realm=\"{realm}\",service=\"here\",scope=\"a:b:pull\""),
                    "who are you?",
                ),
            };
            _ = write!(stream, "HTTP/1.1 {head}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
        }
    });
    Server { address, seen }
}
