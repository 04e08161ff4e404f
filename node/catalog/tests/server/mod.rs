//! A server on loopback that answers as a registry does, and as a broken one does.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::collections::HashMap;
use std::io::{Read, Write};
use std::sync::{Arc, Barrier, Mutex, OnceLock};

use catalog::{ModelName, Progress, PullError, Registry, Store};
use testkit::{Asked, digest, manifest};

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
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    let replies = Mutex::new(replies);
    let address = testkit::serve(move |asked| {
        log.lock().unwrap().push((asked.path.clone(), asked.range.map(|(from, _)| from)));
        reply(asked, &replies);
    });
    Server { address, seen }
}

fn reply(mut asked: Asked, replies: &Mutex<HashMap<String, Reply>>) {
    let reply = {
        let mut replies = replies.lock().unwrap();
        let reply = replies.get(&asked.path).cloned().unwrap_or(Reply::Status(404, "no such thing"));
        if let Reply::CutOnce(bytes, _) | Reply::StallOnce(bytes, _) = &reply {
            replies.insert(asked.path.clone(), Reply::Bytes(bytes.clone()));
        }
        reply
    };
    let mut stalls = false;
    let (bytes, n_sent) = match reply {
        Reply::Status(status, text) => return asked.answer(&format!("{status} X"), text.as_bytes()),
        Reply::Redirect(to) => return asked.answer(&format!("307 X\r\nLocation: {to}"), b""),
        Reply::NoRanges(bytes) => return asked.answer("200 X", &bytes),
        Reply::Bytes(bytes) => (bytes.clone(), bytes.len()),
        Reply::Together(bytes, meeting) => {
            meeting.wait();
            (bytes.clone(), bytes.len())
        }
        Reply::CutOnce(bytes, n) => (bytes, n),
        Reply::StallOnce(bytes, n) => {
            stalls = true;
            (bytes, n)
        }
    };
    let (status, from, end) = match asked.range {
        // Whoever asks to the end of what was announced gets what there is.
        Some((from, to)) => ("206 X", from, if to + 2 >= bytes.len() { bytes.len() } else { to + 1 }),
        None => ("200 X", 0, bytes.len()),
    };
    // The client may have gone.
    let sent = n_sent.clamp(from, end);
    _ = asked.head(status, end - from).and_then(|()| asked.stream.write_all(&bytes[from..sent]));
    if stalls {
        // Until the client has had enough.
        _ = asked.stream.read(&mut [0]);
    }
}

pub(crate) const CONFIG: &[u8] = br#"{"model_format":"gguf","model_family":"qwen3","model_type":"3M","file_type":"Q8_0"}"#;

pub(crate) fn weights() -> Vec<u8> {
    (0..300_000u32).flat_map(u32::to_le_bytes).collect()
}

/// A registry with one model, whose weights are answered for by `reply`.
pub(crate) fn registry(reply: impl Fn(Vec<u8>) -> Reply) -> (Server, String) {
    let manifest = manifest(CONFIG, &weights(), weights().len());
    let blob = format!("/v2/library/tiny/blobs/{}", digest(&weights()));
    let server = serve(HashMap::from([
        ("/v2/library/tiny/manifests/latest".to_owned(), Reply::Bytes(manifest.clone())),
        ("/v2/library/tiny/manifests/again".to_owned(), Reply::Bytes(manifest.clone())),
        (blob.clone(), reply(weights())),
        (format!("/v2/library/tiny/blobs/{}", digest(CONFIG)), Reply::Bytes(CONFIG.to_vec())),
        ("/v2/org/repo-GGUF/manifests/Q4_K_M".to_owned(), Reply::Bytes(manifest.clone())),
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
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (log, ways) = (seen.clone(), Arc::new(OnceLock::new()));
    let known = ways.clone();
    let address = testkit::serve(move |mut asked| {
        let (realm, paths): &(String, HashMap<String, String>) = known.wait();
        log.lock().unwrap().push((asked.path.clone(), None));
        let welcome = asked.bearer.as_deref().is_some_and(|shown| shown == "a pass" || shown == "let me in");
        match paths.get(&asked.path) {
            _ if asked.path == "/token" => asked.answer("200 X", br#"{"token": "a pass"}"#),
            Some(to) if welcome => asked.answer(&format!("307 X\r\nLocation: {to}"), b""),
            _ => asked.answer(
                &format!("401 X\r\nWWW-Authenticate: Bearer realm=\"{realm}\",service=\"here\",scope=\"a:b:pull\""),
                b"who are you?",
            ),
        }
    });
    ways.set(make(&address)).unwrap();
    Server { address, seen }
}
