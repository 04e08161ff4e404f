//! Embeddings, by the ids of the Ollama checklist.

#![allow(clippy::unwrap_used, reason = "tests")]

mod daemon;

use daemon::Daemon;
use kernels::QuantType;
use serde_json::{Value, json};
use testkit::tiny_encoder;

fn with_encoder() -> Daemon {
    let d = Daemon::start();
    d.install("vectors", &tiny_encoder("bert", QuantType::F16, 1).0.bytes());
    d
}

fn embed(d: &Daemon, more: Value) -> daemon::Reply {
    let mut body = json!({ "model": "vectors" });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    d.post("/api/embed", &body)
}

fn vectors(reply: &daemon::Reply) -> Vec<Vec<f64>> {
    assert_eq!(reply.status, 200, "{}", reply.body);
    let list = reply.json()["embeddings"].as_array().unwrap().clone();
    list.iter().map(|v| v.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()).collect()
}

fn length(vector: &[f64]) -> f64 {
    vector.iter().map(|v| v * v).sum::<f64>().sqrt()
}

#[test]
fn e01_e02_one_vector_for_each_text() {
    let d = with_encoder();
    let reply = embed(&d, json!({ "input": ["one text", "another", "one text"] }));
    let all = vectors(&reply);
    assert_eq!((all.len(), all[0].len()), (3, 64));
    assert!(all.iter().all(|v| (length(v) - 1.0).abs() < 1e-5));
    assert!(all[0] == all[2] && all[0] != all[1]);
    let object = reply.json();
    // "one text" is seven letters, "another" as many; each text stands between two special tokens.
    assert_eq!((&object["prompt_eval_count"], &object["model"]), (&json!(27), &json!("vectors")));
    assert!(object["total_duration"].as_u64().unwrap() > 0);
    assert_eq!(vectors(&embed(&d, json!({ "input": "another" }))), [all[1].clone()]);
    for nothing in [json!({}), json!({ "input": "" }), json!({ "input": [] }), json!({ "input": null })] {
        assert_eq!(embed(&d, nothing).json(), json!({ "model": "vectors", "embeddings": [] }));
    }
    assert_eq!(vectors(&embed(&d, json!({ "input": [""] }))).len(), 1);
    for wrong in [json!([1]), json!(1), json!({}), json!([["a"]])] {
        embed(&d, json!({ "input": wrong })).is_error(400, "invalid input type");
    }
    let ps = d.get("/api/ps").json();
    assert_eq!((&ps["models"][0]["name"], &ps["models"][0]["context_length"]), (&json!("vectors:latest"), &json!(64)));
}

#[test]
fn e04_e05_e06_limits_and_the_older_endpoint() {
    let d = with_encoder();
    let long = "a ".repeat(200);
    assert_eq!(embed(&d, json!({ "input": long })).json()["prompt_eval_count"], 64);
    embed(&d, json!({ "input": long, "truncate": false })).is_error(400, "the input length exceeds the context length");
    embed(&d, json!({ "input": ["a", long], "truncate": false })).is_error(400, "the input length exceeds the context length");
    assert_eq!(embed(&d, json!({ "input": long, "options": { "num_ctx": 16 } })).json()["prompt_eval_count"], 16);
    let whole = vectors(&embed(&d, json!({ "input": "some words" }))).remove(0);
    let short = vectors(&embed(&d, json!({ "input": "some words", "dimensions": 8 }))).remove(0);
    assert!(short.len() == 8 && (length(&short) - 1.0).abs() < 1e-5);
    let scale = length(&whole[..8]);
    assert!(short.iter().zip(&whole).all(|(s, w)| (s - w / scale).abs() < 1e-5));
    assert_eq!(vectors(&embed(&d, json!({ "input": "some words", "dimensions": 1000 })))[0].len(), 64);
    let legacy = d.post("/api/embeddings", &json!({ "model": "vectors", "prompt": "some words" })).json();
    assert_eq!(legacy["embedding"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect::<Vec<_>>(), whole);
    assert_eq!(d.post("/api/embeddings", &json!({ "model": "vectors", "prompt": "" })).json(), json!({ "embedding": [] }));
}

#[test]
fn n04_g22_names_and_models_that_do_something_else() {
    let d = with_encoder();
    d.post("/api/embed", &json!({ "model": "" })).is_error(404, "model '' not found");
    d.post("/api/embeddings", &json!({ "model": "" })).is_error(400, "model is required");
    for path in ["/api/embed", "/api/embeddings"] {
        d.post(path, &json!({ "model": "nope:1" })).is_error(404, "model \"nope:1\" not found, try pulling it first");
        d.post(path, &json!({ "model": "../x" })).is_error(400, "invalid model name");
    }
    d.post("/api/generate", &json!({ "model": "vectors", "prompt": "x" })).is_error(400, "\"vectors\" does not support generate");
    let chat = json!({ "model": "vectors", "messages": [{ "role": "user", "content": "x" }] });
    d.post("/api/chat", &chat).is_error(400, "\"vectors\" does not support chat");
    assert_eq!(d.post("/api/show", &json!({ "model": "vectors" })).json()["capabilities"], json!(["embedding"]));
    // A model that writes has vectors too, and goes on writing.
    let guide = d.post("/api/embed", &json!({ "model": "lantern-guide", "input": ["Who are you?", ""] }));
    assert!(vectors(&guide).iter().all(|v| (length(v) - 1.0).abs() < 1e-5));
    let chat = json!({ "model": "lantern-guide", "messages": [{ "role": "user", "content": "Who are you?" }], "stream": false });
    assert!(d.post("/api/chat", &chat).json()["message"]["content"].as_str().unwrap().contains("lantern-guide"));
}

#[test]
fn e17_too_many_and_wrong() {
    let d = with_encoder();
    embed(&d, json!({ "input": vec!["a"; 2049] })).is_error(400, "the request has 2049 inputs, the limit is 2048");
    embed(&d, json!({ "input": "a", "dimensions": -1 })).is_error(400, "dimensions is -1, needed is 0 or more");
    assert_eq!(vectors(&embed(&d, json!({ "input": vec!["ab c"; 2048] }))).len(), 2048);
}

#[test]
fn o10_openai_embeddings() {
    let d = with_encoder();
    let post = |more: Value| {
        let mut body = json!({ "model": "vectors" });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        d.post("/v1/embeddings", &body)
    };
    let native = vectors(&embed(&d, json!({ "input": ["ab", "cd"] })));
    let reply = post(json!({ "input": ["ab", "cd"] })).json();
    assert_eq!((&reply["object"], &reply["usage"]), (&json!("list"), &json!({ "prompt_tokens": 8, "total_tokens": 8 })));
    for (index, vector) in native.iter().enumerate() {
        let entry = &reply["data"][index];
        assert_eq!((&entry["object"], &entry["index"]), (&json!("embedding"), &json!(index)));
        assert_eq!(entry["embedding"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect::<Vec<_>>(), *vector);
    }
    let encoded = post(json!({ "input": "ab", "encoding_format": "base64", "dimensions": 2 })).json();
    // Two floats are eight bytes.
    assert_eq!(encoded["data"][0]["embedding"].as_str().unwrap().len(), 12);
    assert_eq!(post(json!({ "input": "" })).json()["data"].as_array().unwrap().len(), 1);
    let refused = |reply: daemon::Reply, status: u16, message: &str| {
        assert_eq!((reply.status, &reply.json()["error"]["message"]), (status, &json!(message)));
    };
    refused(post(json!({})), 400, "invalid input");
    refused(post(json!({ "input": [] })), 400, "invalid input");
    refused(post(json!({ "input": [1, 2] })), 400, "invalid input type");
    let format = "Invalid value for 'encoding_format' = x. Supported values: ['float', 'base64'].";
    refused(post(json!({ "input": "a", "encoding_format": "x" })), 400, format);
    refused(post(json!({ "model": "nope", "input": "a" })), 404, "model \"nope\" not found, try pulling it first");
}
