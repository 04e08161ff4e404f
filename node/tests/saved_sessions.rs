//! A long chat goes on after the daemon was stopped, from what it left in its folder.

#![allow(clippy::unwrap_used, reason = "tests")]

mod daemon;

use daemon::Daemon;
use serde_json::{Value, json};

#[test]
fn a_chat_outlives_the_daemon() {
    let d = Daemon::start();
    let mut messages =
        vec![json!({"role": "user", "content": "one two three four five six seven eight ".repeat(60) + "Who are you?"})];
    let ask = |d: &Daemon, messages: &[Value]| {
        let options = json!({"temperature": 0, "num_ctx": 2048, "num_predict": 30});
        d.post("/api/chat", &json!({"model": "lantern-guide", "messages": messages, "stream": false, "options": options})).json()
    };
    let first = ask(&d, &messages);
    assert!(first["prompt_eval_count"].as_u64().unwrap() >= 512, "{first}");
    messages.extend([first["message"].clone(), json!({"role": "user", "content": "What is MCP?"})]);
    let before = ask(&d, &messages);
    let d = d.restart();
    let saved = std::fs::read_dir(d.models.path().join("sessions")).unwrap().count();
    assert_eq!(saved, 1, "the chat was not kept");
    let after = ask(&d, &messages);
    assert_eq!((&after["message"], &after["prompt_eval_count"]), (&before["message"], &before["prompt_eval_count"]));
    assert!(d.stop());
}
