//! `OLLAMA_KV_CACHE_TYPE`: 8-bit keys and values answer as well, in half the memory.

#![allow(clippy::unwrap_used, reason = "tests")]

mod daemon;

use daemon::Daemon;
use serde_json::json;

/// The answer to a question whose answer the guide is sure of, and the bytes counted for it.
fn ask(kv_type: &str) -> (String, u64) {
    let d = Daemon::start_with(&[("OLLAMA_KV_CACHE_TYPE", kv_type), ("OLLAMA_NUM_PARALLEL", "1")]);
    let messages = json!([{"role": "user", "content": "Who are you?"}]);
    let options = json!({"temperature": 0, "num_ctx": 2048});
    let body = json!({"model": "lantern-guide", "messages": messages, "stream": false, "options": options});
    let answer = d.post("/api/chat", &body).json()["message"]["content"].as_str().unwrap().to_owned();
    (answer, d.get("/api/ps").json()["models"][0]["size"].as_u64().unwrap())
}

#[test]
fn kv_cache_type_is_half_the_memory() {
    let ((exact, f16_bytes), (near, q8_0_bytes)) = (ask("f16"), ask("q8_0"));
    assert_eq!(near, exact);
    assert_eq!(ask("q4_0"), (exact, q8_0_bytes), "the nearest there is");
    // 4 layers × k and v × 2 heads × 2,048 positions: 64 values of 2 bytes, or 2 blocks of 34.
    assert_eq!(f16_bytes - q8_0_bytes, 4 * 2 * 2 * 2048 * (64 * 2 - 2 * 34));
}
