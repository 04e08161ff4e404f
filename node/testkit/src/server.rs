//! The least of an HTTP server, for registries that behave and registries that do not.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use serde_json::{Value, json};

use crate::digest;

/// A request without a body, and the connection its answer goes to. Every connection serves one request.
#[derive(Debug)]
pub struct Asked {
    /// Without what stands behind a `?`.
    pub path: String,
    /// First and last byte of the range asked for.
    pub range: Option<(usize, usize)>,
    /// The token shown.
    pub bearer: Option<String>,
    pub stream: TcpStream,
}

impl Asked {
    fn read(stream: TcpStream) -> Option<Asked> {
        let mut lines = BufReader::new(stream.try_clone().ok()?).lines().map_while(Result::ok);
        // Whoever was killed may not have asked yet.
        let path = lines.next()?.split(' ').nth(1)?.split('?').next()?.to_owned();
        let (mut range, mut bearer) = (None, None);
        for line in lines.take_while(|line| !line.is_empty()).map(|line| line.to_lowercase()) {
            if let Some((from, to)) = line.strip_prefix("range: bytes=").and_then(|range| range.split_once('-')) {
                range = Some((from.parse().ok()?, to.parse().unwrap_or(usize::MAX)));
            }
            bearer = line.strip_prefix("authorization: bearer ").map(String::from).or(bearer);
        }
        Some(Asked { path, range, bearer, stream })
    }

    /// The address it was asked at.
    ///
    /// # Panics
    /// When the connection has none any more.
    pub fn host(&self) -> String {
        format!("http://{}", self.stream.local_addr().expect("a connection has two ends"))
    }

    /// Sends a head that announces `len` bytes; `status` may have header lines behind it. The client may have gone.
    pub fn head(&mut self, status: &str, len: usize) -> std::io::Result<()> {
        write!(self.stream, "HTTP/1.1 {status}\r\nContent-Length: {len}\r\nConnection: close\r\n\r\n")
    }

    /// Sends a whole answer. The client may have gone.
    pub fn answer(&mut self, status: &str, body: &[u8]) {
        _ = self.head(status, body.len()).and_then(|()| self.stream.write_all(body));
    }
}

/// Serves requests at a free port of this machine, each on a thread of its own, until the process ends. Returns the address.
///
/// # Panics
/// When no port is free.
pub fn serve(answer: impl Fn(Asked) + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("a bound socket has an address");
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = answer.clone();
            std::thread::spawn(move || Asked::read(stream).map(|asked| answer(asked)));
        }
    });
    format!("http://{address}")
}

/// The manifest of a model as a registry holds it, whose weights it says to have `size` bytes.
pub fn manifest(config: &[u8], weights: &[u8], size: usize) -> Vec<u8> {
    let layer = |kind: &str, bytes: &[u8], size: usize| json!({ "mediaType": kind, "digest": digest(bytes), "size": size });
    let manifest: Value = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": layer("application/vnd.docker.container.image.v1+json", config, config.len()),
        "layers": [layer("application/vnd.ollama.image.model", weights, size)],
    });
    manifest.to_string().into_bytes()
}
