//! Rows of the bad-input matrix that are about what several do at once, or one after the other: models that come and go, and
//! numbers beyond sense.

#![allow(clippy::unwrap_used, reason = "tests")]

mod daemon;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Condvar, Mutex};

use daemon::{endless, eventually, row, row_with};
use kernels::QuantType;
use serde_json::{Value, json};
use testkit::{Shape, digest, manifest, serve, tiny_model};

/// A registry with one model, which holds back the second half of its weights until it is opened.
struct Registry {
    address: String,
    gate: Arc<(Mutex<bool>, Condvar)>,
    /// Requests for weights.
    n_asked: Arc<Mutex<usize>>,
}

impl Registry {
    fn new() -> Registry {
        let weights = tiny_model(&Shape::tiny("llama"), QuantType::Q8_0, 4).bytes();
        let config = br#"{"model_format":"gguf","model_family":"llama"}"#;
        let manifest = manifest(config, &weights, weights.len());
        let (gate, n_asked) = (Arc::new((Mutex::new(false), Condvar::new())), Arc::new(Mutex::new(0)));
        let (held, asked_for) = (gate.clone(), n_asked.clone());
        let address = serve(move |mut asked| {
            if !asked.path.ends_with(&digest(&weights)) {
                return asked.answer("200 OK", if asked.path.contains("/blobs/") { config } else { &manifest });
            }
            *asked_for.lock().unwrap() += 1;
            let status = if asked.range.is_some() { "206 Partial Content" } else { "200 OK" };
            let body = &weights[asked.range.map_or(0, |(from, _)| from)..];
            let (first, second) = body.split_at(body.len() / 2);
            // The client may have gone.
            _ = asked.head(status, body.len()).and_then(|()| asked.stream.write_all(first));
            let mut open = held.0.lock().unwrap();
            while !*open {
                open = held.1.wait(open).unwrap();
            }
            drop(open);
            _ = asked.stream.write_all(second);
        });
        Registry { address, gate, n_asked }
    }

    fn open(&self) {
        *self.gate.0.lock().unwrap() = true;
        self.gate.1.notify_all();
    }

    fn n_asked(&self) -> usize {
        *self.n_asked.lock().unwrap()
    }
}

/// Twenty clients share one download, and each is told of it to its end.
#[test]
fn c16_twenty_clients_pull_one_model() {
    let registry = Registry::new();
    row_with(&[("LANTERN_REGISTRY", &registry.address)], |d| {
        let body = json!({ "model": "shared" }).to_string();
        let mut clients: Vec<TcpStream> = (0..20).map(|_| d.open("POST", "/api/pull", &[], body.as_bytes())).collect();
        // All of them are there before it goes on: each has been told that layers come.
        let told = |stream: &mut TcpStream| {
            let mut text = String::new();
            let mut byte = [0];
            while !text.contains("\"total\"") {
                assert_eq!(stream.read(&mut byte).unwrap(), 1, "{text}");
                text.push(char::from(byte[0]));
            }
        };
        clients.iter_mut().for_each(told);
        registry.open();
        for stream in &mut clients {
            let mut rest = String::new();
            stream.read_to_string(&mut rest).unwrap();
            assert!(rest.contains("\"status\":\"success\""), "{rest}");
        }
        assert_eq!(registry.n_asked(), 1, "one download");
        assert_eq!(d.post("/api/show", &json!({ "model": "shared" })).status, 200);
    });
}

/// A download goes on while one client waits for it, ends with the last, and is taken up where it ended.
#[test]
fn c18_clients_that_leave_a_pull() {
    let registry = Registry::new();
    row_with(&[("LANTERN_REGISTRY", &registry.address)], |d| {
        let body = json!({ "model": "left" }).to_string();
        let pull = || d.open("POST", "/api/pull", &[], body.as_bytes());
        let (first, second) = (pull(), pull());
        eventually("the download", || (registry.n_asked() == 1).then_some(()));
        drop(first);
        assert_eq!(d.get("/api/version").status, 200);
        drop(second);
        eventually("its end", || d.log().contains("stopped pulling left").then_some(()));
        let part = std::fs::read_dir(d.models.path().join("blobs")).unwrap().any(|entry| {
            let name = entry.unwrap().file_name().into_string().unwrap();
            name.ends_with(".part")
        });
        assert!(part, "what has arrived stays for a day");
        registry.open();
        assert_eq!(d.post("/api/pull", &json!({ "model": "left", "stream": false })).json(), json!({ "status": "success" }));
    });
}

/// Nothing leaves this machine, and what is not here is not told apart from what is.
#[test]
fn c10_c11_pushes_are_refused_alike() {
    row(|d| {
        let push = |model: &str| d.post("/api/push", &json!({ "model": model, "insecure": true, "stream": false }));
        let refused = push("evil.example/x/lantern-guide");
        assert!((401..=403).contains(&refused.status), "{} {}", refused.status, refused.body);
        for model in ["lantern-guide", "nobody", "evil.example/x/nobody"] {
            let other = push(model);
            assert_eq!(
                (other.status, other.body.replace(model, "")),
                (refused.status, refused.body.replace("evil.example/x/lantern-guide", ""))
            );
        }
        let show = |model: &str| d.post("/api/show", &json!({ "model": model }));
        let (here, nowhere) = (show("/etc/passwd"), show("/etc/nothing"));
        assert_eq!((here.status, here.body.replace("passwd", "nothing")), (nowhere.status, nowhere.body));
    });
}

/// A model that is removed while it answers goes on to the end of the answer, and is gone for everybody else.
#[test]
fn c15_a_model_removed_while_it_answers() {
    row(|d| {
        endless(d, "gone");
        let body = json!({ "model": "gone", "prompt": "x", "raw": true, "options": { "num_predict": 300, "num_ctx": 2048 } });
        let mut stream = d.open("POST", "/api/generate", &[], body.to_string().as_bytes());
        let mut first = [0; 64];
        stream.read_exact(&mut first).unwrap();
        assert_eq!(d.send("DELETE", "/api/delete", &[], &json!({ "model": "gone" }).to_string()).status, 200);
        assert_eq!(d.post("/api/generate", &json!({ "model": "gone", "prompt": "x" })).status, 404);
        let mut rest = String::new();
        stream.read_to_string(&mut rest).unwrap();
        assert!(rest.contains("\"done\":true"), "the answer came to its end");
        // It would be asked for again by nobody: let it go at once.
        assert_eq!(d.post("/api/generate", &json!({ "model": "lantern-guide", "keep_alive": -1 })).status, 200);
    });
}

/// Numbers beyond sense are refused or have a meaning; no answer is broken by them.
#[test]
fn e07_e08_numbers_beyond_sense() {
    row(|d| {
        let floats = ["temperature", "top_p", "min_p", "typical_p", "repeat_penalty", "presence_penalty", "frequency_penalty"];
        let integers = ["top_k", "repeat_last_n", "seed", "num_keep", "num_predict"];
        let wild = [json!(-1), json!(1e308), json!(-1e308), json!(1e-320), json!(0)];
        let whole = [json!(-2), json!(-1), json!(i64::MAX), json!(i64::MIN), json!(u64::MAX), json!(1u64 << 31)];
        let cases = floats.iter().flat_map(|name| wild.iter().map(move |v| (*name, v.clone())));
        let cases = cases.chain(integers.iter().flat_map(|name| whole.iter().map(move |v| (*name, v.clone()))));
        for (name, value) in cases {
            let mut options = json!({ "num_predict": 4 });
            options[name] = value.clone();
            let body = json!({ "model": "lantern-guide", "prompt": "x", "stream": false, "options": options });
            let reply = d.post("/api/generate", &body);
            let told: Value = reply.json();
            match reply.status {
                200 => assert!(told["response"].is_string() && told["done"] == true, "{name} {value}: {told}"),
                400 | 500 => assert!(told["error"].as_str().unwrap().contains(name), "{name} {value}: {told}"),
                other => panic!("{name} {value}: {other} {told}"),
            }
        }
    });
}

/// A schema of its own for each request leaves nothing behind.
#[test]
fn f10_a_schema_for_each_request() {
    row(|d| {
        for i in 0..200 {
            let schema = json!({ "type": "object", "properties": { (format!("field{i}")): { "enum": [i] } },
                "required": [format!("field{i}")], "additionalProperties": false });
            let reply = d.post(
                "/api/chat",
                &json!({ "model": "lantern-guide", "stream": false, "format": schema,
                "messages": [{ "role": "user", "content": "x" }], "options": { "temperature": 0 } }),
            );
            let content: Value = serde_json::from_str(reply.json()["message"]["content"].as_str().unwrap()).unwrap();
            assert_eq!(content[format!("field{i}")], i);
        }
    });
}

/// Fifty models in turn, with room for one.
#[test]
fn g07_fifty_models_in_turn() {
    row_with(&[("OLLAMA_MAX_LOADED_MODELS", "1")], |d| {
        for i in 0..50u64 {
            let name = format!("m{i}");
            d.install(&name, &tiny_model(&Shape { n_layer: 1, ..Shape::tiny("qwen3") }, QuantType::Q4_0, i).bytes());
            let reply = d.post(
                "/api/generate",
                &json!({ "model": name, "prompt": "x", "stream": false, "options": { "num_predict": 2, "num_ctx": 256 } }),
            );
            assert_eq!(reply.status, 200, "{}", reply.body);
            let loaded = d.get("/api/ps").json()["models"].as_array().unwrap().len();
            assert_eq!(loaded, 1, "one at a time");
        }
    });
}
