//! The OpenAI, Anthropic and LM Studio dialects, by the ids of the checklist where it has some.

#![allow(clippy::unwrap_used, reason = "tests")]

mod daemon;

use daemon::{Daemon, endless};
use serde_json::{Value, json};
use testkit::{Said, script_model};

const GUIDE: &str = "lantern-guide";
const QWEN: &str = include_str!("templates/qwen3.jinja");

fn user(question: &str) -> Value {
    json!([{ "role": "user", "content": question }])
}

fn merged(mut base: Value, more: Value) -> Value {
    base.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    base
}

/// The objects of a stream of server-sent events, with their names, and whether `[DONE]` ended it.
fn events(body: &str) -> (Vec<(String, Value)>, bool) {
    let mut found = Vec::new();
    let mut done = false;
    for block in body.split("\n\n").filter(|b| !b.is_empty()) {
        assert!(!done, "something follows the end: {block:?}");
        let field = |name: &str| block.lines().find_map(|l| l.strip_prefix(name)).map(String::from);
        match field("data: ").unwrap().as_str() {
            "[DONE]" => done = true,
            data => found.push((field("event: ").unwrap_or_default(), serde_json::from_str(data).unwrap())),
        }
    }
    (found, done)
}

fn is_refused(reply: &daemon::Reply, status: u16, kind: &str, message: &str) {
    let expected = json!({ "error": { "message": message, "type": kind, "param": null, "code": null } });
    assert_eq!((reply.status, reply.json()), (status, expected));
}

fn clock() -> Value {
    json!({ "type": "function", "function": { "name": "get_current_time", "description": "Get the current time",
        "parameters": { "type": "object", "properties": { "timezone": { "type": "string", "minLength": 2 } }, "additionalProperties": false } } })
}

#[test]
fn o01_o02_o03_chat_completions() {
    let d = Daemon::start();
    let body = json!({ "model": GUIDE, "messages": user("Who are you?"), "temperature": 0 });
    let reply = d.post("/v1/chat/completions", &body);
    assert_eq!((reply.header("content-type"), reply.body.ends_with('\n')), (Some("application/json"), true));
    let whole = reply.json();
    assert!(whole["id"].as_str().unwrap().starts_with("chatcmpl-") && whole["created"].as_u64().unwrap() > 1_700_000_000);
    assert_eq!((&whole["object"], &whole["system_fingerprint"]), (&json!("chat.completion"), &json!("fp_ollama")));
    let choice = &whole["choices"][0];
    assert_eq!((&choice["finish_reason"], &choice["message"]["role"]), (&json!("stop"), &json!("assistant")));
    let usage = &whole["usage"];
    assert_eq!(
        usage["total_tokens"].as_u64().unwrap(),
        usage["prompt_tokens"].as_u64().unwrap() + usage["completion_tokens"].as_u64().unwrap()
    );
    let native = d.post(
        "/api/chat",
        &json!({ "model": GUIDE, "messages": user("Who are you?"), "stream": false, "options": { "temperature": 0 } }),
    );
    assert_eq!(choice["message"]["content"], native.json()["message"]["content"]);

    for with_usage in [false, true] {
        let body = merged(body.clone(), json!({ "stream": true, "stream_options": { "include_usage": with_usage } }));
        let reply = d.post("/v1/chat/completions", &body);
        assert_eq!(reply.header("content-type"), Some("text/event-stream"));
        let (mut chunks, done) = events(&reply.body);
        assert!(done);
        if with_usage {
            let (_, last) = chunks.pop().unwrap();
            assert_eq!((&last["choices"], &last["usage"]), (&json!([]), usage));
        }
        assert!(chunks.iter().all(|(name, chunk)| name.is_empty() && chunk["object"] == "chat.completion.chunk"));
        assert_eq!(chunks[0].1["choices"][0]["delta"]["role"], "assistant");
        assert!(chunks[1..].iter().all(|(_, c)| c["choices"][0]["delta"].get("role").is_none()));
        let (_, finish) = chunks.last().unwrap();
        assert_eq!((&finish["choices"][0]["delta"], &finish["choices"][0]["finish_reason"]), (&json!({}), &json!("stop")));
        let text: String = chunks.iter().filter_map(|(_, c)| c["choices"][0]["delta"]["content"].as_str()).collect();
        assert_eq!(text, choice["message"]["content"].as_str().unwrap());
        assert_eq!(chunks[0].1["created"], finish["created"]);
    }
    let short =
        d.post("/v1/chat/completions", &merged(body.clone(), json!({ "max_tokens": 3, "num_ctx": 512, "keep_alive": "1m" })));
    assert_eq!(
        (&short.json()["choices"][0]["finish_reason"], &short.json()["usage"]["completion_tokens"]),
        (&json!("length"), &json!(3))
    );
    assert_eq!(short.header("lantern-context-length"), Some("512"), "num_ctx is taken from this dialect too");
}

#[test]
fn o04_o08_errors() {
    let d = Daemon::start();
    let post = |body: Value| d.post("/v1/chat/completions", &body);
    let refused = |body: Value, message: &str| is_refused(&post(body), 400, "invalid_request_error", message);
    is_refused(&post(json!({ "model": "x", "messages": user("x") })), 404, "not_found_error", "model 'x' not found");
    is_refused(&d.send("POST", "/v1/chat/completions", &[], ""), 400, "invalid_request_error", "EOF");
    refused(json!({ "model": GUIDE, "messages": [] }), "[] is too short - 'messages'");
    let content = |content: Value| json!({ "model": GUIDE, "messages": [{ "role": "user", "content": content }] });
    let url = |url: &str| content(json!([{ "type": "image_url", "image_url": { "url": url } }]));
    refused(url("http://x/y.png"), "image URLs are not currently supported, please use base64 encoded data instead");
    refused(url("data:text/plain;base64,eA=="), "invalid image input");
    refused(url("data:image/png;base64,eA=="), "lantern-guide:latest does not support images");
    refused(content(Value::Null), "invalid message content type: <nil> (messages[0])");
    refused(content(json!([{ "type": "hologram" }])), "invalid message format: messages[0].content[0] has type \"hologram\"");
    let call = json!([{ "role": "assistant", "tool_calls": [{ "id": "a", "function": { "name": "x", "arguments": "[" } }] }]);
    refused(json!({ "model": GUIDE, "messages": call }), "invalid tool call arguments");
    let effort = "invalid reasoning value: \"huge\" (must be \"minimal\", \"low\", \"medium\", \"high\", \"xhigh\", \"ultra\", \"max\", or \"none\")";
    refused(merged(content(json!("x")), json!({ "reasoning_effort": "huge" })), effort);
    let parts = content(json!([{ "type": "text", "text": "Who are" }, { "type": "text", "text": "you?" }]));
    assert_eq!(post(parts).status, 200);
}

#[test]
fn o05_o06_formats_and_calls() {
    let d = Daemon::start();
    let post = |more: Value| {
        let body = merged(json!({ "model": GUIDE, "messages": user("What time is it?"), "temperature": 0 }), more);
        let reply = d.post("/v1/chat/completions", &body);
        assert_eq!(reply.status, 200, "{}", reply.body);
        reply
    };
    let schema = json!({ "type": "object", "properties": { "ok": { "type": "boolean" } }, "required": ["ok"], "additionalProperties": false });
    let format = json!({ "response_format": { "type": "json_schema", "json_schema": { "name": "x", "schema": schema } } });
    let content = post(format).json()["choices"][0]["message"]["content"].as_str().unwrap().to_owned();
    assert!(serde_json::from_str::<Value>(&content).unwrap()["ok"].is_boolean(), "{content}");
    let choice = post(json!({ "tools": [clock()] })).json()["choices"][0].clone();
    assert_eq!(choice["finish_reason"], "tool_calls");
    let call = &choice["message"]["tool_calls"][0];
    assert_eq!(
        (&call["type"], &call["index"], &call["function"]["name"]),
        (&json!("function"), &json!(0), &json!("get_current_time"))
    );
    assert!(serde_json::from_str::<Value>(call["function"]["arguments"].as_str().unwrap()).unwrap().is_object());
    let (chunks, _) = events(&post(json!({ "tools": [clock()], "stream": true })).body);
    let calls: Vec<&Value> = chunks.iter().filter_map(|(_, c)| c["choices"][0]["delta"].get("tool_calls")).collect();
    assert_eq!((calls.len(), calls[0][0]["function"]["name"].as_str()), (1, Some("get_current_time")));
    assert_eq!(chunks.last().unwrap().1["choices"][0]["finish_reason"], "tool_calls");
    let turns = json!([
        { "role": "user", "content": "What time is it?" },
        { "role": "assistant", "content": null, "tool_calls": [call] },
        { "role": "tool", "tool_call_id": call["id"], "content": "14:35" },
    ]);
    let answer = post(json!({ "tools": [clock()], "messages": turns })).json();
    assert!(answer["choices"][0]["message"]["content"].as_str().unwrap().contains("14:35"), "{answer}");
    let forced = post(json!({ "messages": user("Who are you?"), "tools": [clock()], "tool_choice": "required" })).json();
    assert_eq!(forced["choices"][0]["message"]["tool_calls"][0]["function"]["name"], "get_current_time");
    let logprobs = post(json!({ "logprobs": true, "top_logprobs": 2 })).json()["choices"][0]["logprobs"]["content"].clone();
    assert_eq!(logprobs[0]["top_logprobs"].as_array().unwrap().len(), 2);
}

/// A script that thinks, then answers.
fn thinker(d: &Daemon) {
    let script = [Said::Mark("<think>"), Said::Text("Hm, hm."), Said::Mark("</think>"), Said::Text("Yes, 42.")];
    d.install("thinker", &script_model(&script, QWEN).bytes());
}

#[test]
fn o07_reasoning() {
    let d = Daemon::start();
    thinker(&d);
    let post = |more: Value| d.post("/v1/chat/completions", &merged(json!({ "model": "thinker", "messages": user("x") }), more));
    let message = |more: Value| post(more).json()["choices"][0]["message"].clone();
    assert_eq!(message(json!({})), json!({ "role": "assistant", "content": "Yes, 42.", "reasoning": "Hm, hm." }));
    for off in [json!({ "reasoning_effort": "none" }), json!({ "reasoning": { "effort": "none" } })] {
        assert_eq!(message(off), json!({ "role": "assistant", "content": "Yes, 42." }));
    }
    let (chunks, _) = events(&post(json!({ "stream": true })).body);
    let all = |name: &str| -> String { chunks.iter().filter_map(|(_, c)| c["choices"][0]["delta"][name].as_str()).collect() };
    assert_eq!((all("reasoning"), all("content")), ("Hm, hm.".into(), "Yes, 42.".into()));
}

#[test]
fn o09_completions() {
    let d = Daemon::start();
    let body = json!({ "model": GUIDE, "prompt": "Who are you?", "temperature": 0 });
    let whole = d.post("/v1/completions", &body).json();
    assert!(whole["id"].as_str().unwrap().starts_with("cmpl-"));
    assert_eq!((&whole["object"], &whole["choices"][0]["finish_reason"]), (&json!("text_completion"), &json!("stop")));
    assert!(whole["choices"][0]["text"].as_str().unwrap().contains("lantern-guide"), "{whole}");
    let streamed = merged(body.clone(), json!({ "stream": true, "stream_options": { "include_usage": true } }));
    let (chunks, done) = events(&d.post("/v1/completions", &streamed).body);
    let (last, others) = chunks.split_last().unwrap();
    assert!(done && last.1["choices"] == json!([]) && last.1["usage"] == whole["usage"]);
    assert!(others.iter().all(|(_, c)| c["usage"]["total_tokens"] == 0));
    let text: String = others.iter().filter_map(|(_, c)| c["choices"][0]["text"].as_str()).collect();
    assert_eq!(text, whole["choices"][0]["text"].as_str().unwrap());
    let wrong = d.post("/v1/completions", &merged(body, json!({ "stop": [1] })));
    is_refused(&wrong, 400, "invalid_request_error", "invalid type for 'stop' field: number");
}

#[test]
fn o11_models() {
    let d = Daemon::start();
    endless(&d, "me/other:v1");
    let list = d.get("/v1/models").json();
    let ids: Vec<&str> = list["data"].as_array().unwrap().iter().map(|m| m["id"].as_str().unwrap()).collect();
    assert!(ids.contains(&"lantern-guide:latest") && ids.contains(&"me/other:v1"), "{ids:?}");
    let owner = |id: &str| list["data"].as_array().unwrap().iter().find(|m| m["id"] == id).unwrap()["owned_by"].clone();
    assert_eq!((owner("lantern-guide:latest"), owner("me/other:v1")), (json!("library"), json!("me")));
    assert_eq!(d.get("/v1/models/lantern-guide").json()["id"], "lantern-guide");
    is_refused(&d.get("/v1/models/x"), 404, "not_found_error", "model 'x:latest' not found");
    assert_eq!((d.get("/v1/models/me/other:v1").status, d.get("/v1/nothing").body.as_str()), (404, "404 page not found"));
}

#[test]
fn o12_responses() {
    let d = Daemon::start();
    thinker(&d);
    let post = |more: Value| {
        d.post("/v1/responses", &merged(json!({ "model": GUIDE, "input": "Who are you?", "temperature": 0 }), more))
    };
    let whole = post(json!({})).json();
    assert!(whole["id"].as_str().unwrap().starts_with("resp_"));
    assert_eq!((&whole["status"], &whole["object"], &whole["error"]), (&json!("completed"), &json!("response"), &Value::Null));
    let text = whole["output"][0]["content"][0]["text"].as_str().unwrap().to_owned();
    assert!(text.contains("lantern-guide") && whole["usage"]["total_tokens"].as_u64().unwrap() > 0);
    let items = json!([{ "role": "user", "content": [{ "type": "input_text", "text": "Who are you?" }] }]);
    assert_eq!(post(json!({ "input": items })).json()["output"][0]["content"][0]["text"], text);

    let (found, done) = events(&post(json!({ "stream": true })).body);
    let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
    assert!(!done);
    assert_eq!(
        names[..4],
        ["response.created", "response.in_progress", "response.output_item.added", "response.content_part.added"]
    );
    let n = names.len();
    assert_eq!(
        names[n - 4..],
        ["response.output_text.done", "response.content_part.done", "response.output_item.done", "response.completed"]
    );
    for (index, (name, event)) in found.iter().enumerate() {
        assert_eq!((&event["sequence_number"], &event["type"]), (&json!(index), &json!(name)));
    }
    let deltas: String = found.iter().filter_map(|(_, e)| e["delta"].as_str()).collect();
    assert_eq!(deltas, text);

    let thought = d.post("/v1/responses", &json!({ "model": "thinker", "input": "x", "stream": true }));
    let (found, _) = events(&thought.body);
    let last = &found.last().unwrap().1["response"];
    assert_eq!(last["output"][0]["summary"][0]["text"], "Hm, hm.");
    assert_eq!(last["output"][1]["content"][0]["text"], "Yes, 42.");

    let tool = json!({ "type": "function", "name": "get_current_time", "description": "Get the current time", "parameters": clock()["function"]["parameters"] });
    let called = post(json!({ "input": "What time is it?", "tools": [tool] })).json();
    let call = called["output"][0].clone();
    assert_eq!((&call["type"], &call["name"]), (&json!("function_call"), &json!("get_current_time")));
    let (found, _) = events(&post(json!({ "input": "What time is it?", "tools": [tool], "stream": true })).body);
    assert!(found.iter().any(|(name, _)| name == "response.function_call_arguments.done"));
    let turns = json!([
        { "role": "user", "content": "What time is it?" }, call,
        { "type": "function_call_output", "call_id": call["call_id"], "output": "14:35" },
    ]);
    let answer = post(json!({ "input": turns, "tools": [tool] })).json();
    assert!(answer["output"][0]["content"][0]["text"].as_str().unwrap().contains("14:35"), "{answer}");
    is_refused(
        &post(json!({ "input": [{ "type": "x" }] })),
        400,
        "invalid_request_error",
        "input[0]: unknown input item type: \"x\"",
    );
}

#[test]
fn a01_a02_a03_a04_messages() {
    let d = Daemon::start();
    thinker(&d);
    let post = |more: Value| {
        d.post(
            "/v1/messages",
            &merged(json!({ "model": GUIDE, "max_tokens": 100, "messages": user("Who are you?"), "temperature": 0 }), more),
        )
    };
    let whole = post(json!({ "system": [{ "type": "text", "text": "Be brief." }] })).json();
    assert!(whole["id"].as_str().unwrap().starts_with("msg_"));
    assert_eq!(
        (&whole["type"], &whole["role"], &whole["stop_reason"]),
        (&json!("message"), &json!("assistant"), &json!("end_turn"))
    );
    assert!(whole["usage"]["input_tokens"].as_u64().unwrap() > 0 && whole["content"][0]["text"].is_string(), "{whole}");
    let refused = |reply: daemon::Reply, kind: &str, message: &str| {
        let body = reply.json();
        assert_eq!((&body["type"], &body["error"]), (&json!("error"), &json!({ "type": kind, "message": message })), "{body}");
        assert!(body["request_id"].as_str().unwrap().starts_with("req_"));
    };
    let invalid = "invalid_request_error";
    refused(
        d.post("/v1/messages", &json!({ "model": GUIDE, "messages": user("x") })),
        invalid,
        "max_tokens is required and must be positive",
    );
    refused(post(json!({ "model": "" })), invalid, "model is required");
    refused(post(json!({ "messages": [] })), invalid, "messages is required");
    refused(post(json!({ "model": "x" })), "not_found_error", "model 'x' not found");
    let image = json!([{ "role": "user", "content": [{ "type": "image", "source": { "type": "url" } }] }]);
    refused(post(json!({ "messages": image })), invalid, "invalid image source type: url. Only base64 images are supported.");
    assert_eq!(post(json!({ "max_tokens": 2 })).json()["stop_reason"], "max_tokens");
    assert_eq!(post(json!({ "thinking": { "type": "enabled", "budget_tokens": 1024 } })).status, 200, "A04: the wish is dropped");

    let (found, done) = events(&post(json!({ "stream": true })).body);
    let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
    assert!(!done && found.iter().all(|(name, event)| event["type"] == *name));
    assert_eq!(names[..3], ["message_start", "content_block_start", "content_block_delta"]);
    assert_eq!(names[names.len() - 3..], ["content_block_stop", "message_delta", "message_stop"]);
    let message_delta = &found[found.len() - 2].1;
    assert_eq!(message_delta["delta"]["stop_reason"], "end_turn");

    let tool = json!({ "name": "get_current_time", "description": "Get the current time", "input_schema": clock()["function"]["parameters"] });
    let called = post(json!({ "messages": user("What time is it?"), "tools": [tool] })).json();
    let block = called["content"][0].clone();
    assert_eq!(
        (&called["stop_reason"], &block["type"], block["input"].is_object()),
        (&json!("tool_use"), &json!("tool_use"), true)
    );
    let (found, _) = events(&post(json!({ "messages": user("What time is it?"), "tools": [tool], "stream": true })).body);
    let part = found.iter().find_map(|(_, e)| e["delta"]["partial_json"].as_str()).unwrap();
    assert!(serde_json::from_str::<Value>(part).unwrap().is_object());
    let turns = json!([
        { "role": "user", "content": "What time is it?" },
        { "role": "assistant", "content": [block] },
        { "role": "user", "content": [{ "type": "tool_result", "tool_use_id": block["id"], "content": [{ "type": "text", "text": "14:35" }] }] },
    ]);
    let answer = post(json!({ "messages": turns, "tools": [tool] })).json();
    assert!(answer["content"][0]["text"].as_str().unwrap().contains("14:35"), "{answer}");
    let forced = post(json!({ "tools": [tool], "tool_choice": { "type": "any" } })).json();
    assert_eq!(forced["stop_reason"], "tool_use");

    let thought = json!({ "model": "thinker", "max_tokens": 50, "messages": user("x"), "thinking": { "type": "enabled" } });
    let blocks = d.post("/v1/messages", &thought).json()["content"].clone();
    assert_eq!((&blocks[0]["thinking"], &blocks[1]["text"]), (&json!("Hm, hm."), &json!("Yes, 42.")));
}

#[test]
fn lm_studio() {
    let d = Daemon::start();
    endless(&d, "me/other:v1");
    let models = || d.get("/api/v0/models").json();
    let of = |models: &Value, id: &str| models["data"].as_array().unwrap().iter().find(|m| m["id"] == id).unwrap().clone();
    let guide = of(&models(), "lantern-guide:latest");
    assert_eq!((&guide["state"], &guide["type"], &guide["arch"]), (&json!("not-loaded"), &json!("llm"), &json!("qwen3")));
    assert_eq!((&guide["capabilities"], &guide["max_context_length"]), (&json!(["tool_use"]), &json!(2048)));
    let body = json!({ "model": GUIDE, "messages": user("Who are you?"), "temperature": 0 });
    let whole = d.post("/api/v0/chat/completions", &body).json();
    assert!(whole["choices"][0]["message"]["content"].as_str().unwrap().contains("lantern-guide"));
    let stats = &whole["stats"];
    assert_eq!(stats["stop_reason"], "eosFound");
    for number in ["tokens_per_second", "time_to_first_token", "generation_time"] {
        assert!(stats[number].as_f64().unwrap() > 0.0, "{number}: {stats}");
    }
    assert_eq!((&whole["model_info"]["quant"], &whole["runtime"]["name"]), (&json!("Q8_0"), &json!("lantern")));
    let (chunks, done) = events(&d.post("/api/v0/chat/completions", &merged(body.clone(), json!({ "stream": true }))).body);
    assert!(done && chunks.last().unwrap().1["stats"]["generation_time"].is_f64());
    let stopped = d.post("/api/v0/chat/completions", &merged(body.clone(), json!({ "stop": "lantern" }))).json();
    assert_eq!(stopped["stats"]["stop_reason"], "stopStringFound");
    let short = d.post("/api/v0/completions", &json!({ "model": GUIDE, "prompt": "Who are you?", "max_tokens": 2 })).json();
    assert_eq!(short["stats"]["stop_reason"], "maxPredictedTokensReached");
    let loaded = of(&models(), "lantern-guide:latest");
    assert_eq!((&loaded["state"], &loaded["loaded_context_length"]), (&json!("loaded"), &json!(2048)));
    assert_eq!(d.get("/api/v0/models/me/other:v1").json()["publisher"], "me");
    is_refused(&d.get("/api/v0/models/nope"), 404, "not_found_error", "model 'nope' not found");
    assert!(d.post("/api/v0/embeddings", &json!({ "model": GUIDE, "input": "x" })).json()["data"][0]["embedding"].is_array());
}

/// No model here hears: the form is understood, and the refusal says why.
#[test]
fn transcriptions_are_refused_by_what_the_model_can() {
    let d = Daemon::start();
    let form = |parts: &[(&str, &str)]| {
        let part = |(name, value): &(&str, &str)| {
            let file = if *name == "file" { "; filename=\"a.wav\"" } else { "" };
            format!("--edge\r\nContent-Disposition: form-data; name=\"{name}\"{file}\r\n\r\n{value}\r\n")
        };
        let body = parts.iter().map(part).collect::<String>() + "--edge--\r\n";
        d.send("POST", "/v1/audio/transcriptions", &[("Content-Type", "multipart/form-data; boundary=edge")], &body)
    };
    let check = |parts: &[(&str, &str)], status: u16, part: &str| {
        let reply = form(parts);
        let told = reply.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(reply.status == status && told.contains(part), "{status} {told}");
    };
    check(&[("file", "RIFF")], 400, "model is required");
    check(&[("model", "lantern-guide")], 400, "file is required");
    check(&[("model", "lantern-guide"), ("file", "")], 400, "audio file is empty");
    check(&[("model", "nobody"), ("file", "RIFF")], 404, "not found");
    check(
        &[("model", "lantern-guide"), ("file", "RIFF"), ("language", "en")],
        400,
        "\"lantern-guide:latest\" does not support audio",
    );
    let reply = d.send("POST", "/v1/audio/transcriptions", &[("Content-Type", "application/json")], "{}");
    assert!(reply.status == 400 && reply.body.contains("the form cannot be read"), "{}", reply.body);
}
