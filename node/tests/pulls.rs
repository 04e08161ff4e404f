//! A pull survives the end of the process at any instant: nothing that has arrived is lost, or asked for again.

#![allow(clippy::unwrap_used, reason = "tests")]

mod daemon;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};

use daemon::{Daemon, eventually};
use kernels::QuantType;
use serde_json::json;
use sha2::{Digest, Sha256};
use testkit::{Random, Shape, tiny_model};

const N_KILLS: usize = 20;

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect::<String>())
}

/// A registry with one model. For the weights it sends as many bytes as it is told to, then falls silent until the client goes;
/// it tells where each request for them begins.
fn registry(weights: Vec<u8>, budgets: Receiver<usize>, begun: Sender<usize>) -> String {
    let config = br#"{"model_format":"gguf","model_family":"llama"}"#.to_vec();
    let layer = |kind: &str, bytes: &[u8]| json!({ "mediaType": kind, "digest": digest(bytes), "size": bytes.len() });
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": layer("application/vnd.docker.container.image.v1+json", &config),
        "layers": [layer("application/vnd.ollama.image.model", &weights)],
    });
    let manifest = manifest.to_string().into_bytes();
    let blob = digest(&weights);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
            let path = lines.next().unwrap().split(' ').nth(1).unwrap().to_owned();
            let range = lines.take_while(|line| !line.is_empty()).find_map(|line| {
                line.to_lowercase().strip_prefix("range: bytes=").map(|r| r.trim_end_matches('-').parse::<usize>().unwrap())
            });
            if path.ends_with(&blob) {
                let from = range.unwrap();
                begun.send(from).unwrap();
                let n = budgets.recv().unwrap().min(weights.len() - from);
                let part = weights[from..].to_vec();
                // Each client goes before the next one comes.
                std::thread::spawn(move || send_some(stream, &part, n));
            } else {
                let body = if path.contains("/blobs/") { &config } else { &manifest };
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
                _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
            }
        }
    });
    address
}

fn send_some(mut stream: TcpStream, bytes: &[u8], n: usize) {
    let head = format!("HTTP/1.1 206 Partial Content\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", bytes.len());
    // The client may be gone already, which is what the test is about.
    _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&bytes[..n]));
    _ = stream.read(&mut [0]);
}

#[test]
fn b07_b08_j03_a_pull_survives_twenty_kills() {
    let weights = tiny_model(&Shape { n_vocab: 8000, ..Shape::tiny("llama") }, QuantType::F16, 4).bytes();
    let (budget, budgets) = channel();
    let (begins, begun) = channel();
    let address = registry(weights.clone(), budgets, begins);
    let variables: &[(&str, &str)] = &[("LANTERN_REGISTRY", &address)];
    let mut d = Daemon::start_with(variables);
    let partial: PathBuf = d.models.path().join("blobs").join(digest(&weights).replace(':', "-")).with_extension("part");
    let partial_of = |d: &Daemon| d.models.path().join(partial.strip_prefix(partial.ancestors().nth(2).unwrap()).unwrap());
    let length = |path: &PathBuf| path.metadata().map_or(0, |m| m.len() as usize);
    let mut random = Random(9);
    let body = json!({ "model": "big" }).to_string();
    for kill in 0..N_KILLS {
        let client = d.open("POST", "/api/pull", &[], body.as_bytes());
        let from = begun.recv().unwrap();
        assert_eq!(from, length(&partial_of(&d)), "kill {kill}: what is on disk is not asked for again");
        let n = (random.bits() as usize) % (2 * weights.len() / N_KILLS);
        budget.send(n).unwrap();
        if kill % 2 == 0 {
            // Half of the kills come while bytes are on their way, half when all of them are on disk.
            eventually("the bytes arriving", || (length(&partial_of(&d)) >= from + n.min(weights.len() - from)).then_some(()));
        }
        d = d.kill_and_restart(variables);
        drop(client);
        assert!(length(&partial_of(&d)) >= from, "kill {kill}: nothing is lost");
        assert_eq!(d.post("/api/show", &json!({ "model": "big" })).status, 404, "half a model is none");
    }
    budget.send(weights.len()).unwrap();
    let reply = d.post("/api/pull", &json!({ "model": "big", "stream": false }));
    assert_eq!((reply.status, reply.json()), (200, json!({ "status": "success" })));
    assert_eq!(d.post("/api/show", &json!({ "model": "big" })).status, 200);
    let blob = d.models.path().join("blobs").join(digest(&weights).replace(':', "-"));
    assert_eq!(std::fs::read(blob).unwrap(), weights);
    assert!(!partial_of(&d).exists());
    // What is here is not fetched again, and its progress is told all the same.
    let again = d.send("POST", "/api/pull", &[], &body).lines();
    let statuses: Vec<&str> = again.iter().map(|line| line["status"].as_str().unwrap()).collect();
    let layer = format!("pulling {}", &digest(&weights)[7..19]);
    assert_eq!(statuses[..2], ["pulling manifest", &layer]);
    assert_eq!(statuses[statuses.len() - 3..], ["verifying sha256 digest", "writing manifest", "success"]);
    assert_eq!((&again[1]["digest"], &again[1]["completed"]), (&json!(digest(&weights)), &again[1]["total"]));
}
