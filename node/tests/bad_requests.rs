//! Rows E and G of the bad-input matrix on generate and chat: whatever a client sends gets one clear sentence, and a canary
//! before and after every row gives the same text.

#![allow(clippy::unwrap_used, reason = "tests")]

mod daemon;

use std::io::Write;

use std::io::Read;

use daemon::{Daemon, Reply, canary, row};
use kernels::QuantType;
use serde_json::{Value, json};
use testkit::{Shape, tiny_model};

const PATHS: [&str; 2] = ["/api/generate", "/api/chat"];

/// A request that is answered, on both paths.
fn good() -> Value {
    json!({ "model": "lantern-guide", "prompt": "Who are you?", "messages": [{ "role": "user", "content": "Who are you?" }],
        "stream": false, "options": { "temperature": 0, "num_predict": 32 } })
}

/// The answer is an error of this status, one sentence that says `part` and names no path of the machine.
fn check(reply: &Reply, status: u16, part: &str) {
    assert_eq!(reply.status, status, "{}", reply.body);
    let body = reply.json();
    let message = body["error"].as_str().unwrap_or_else(|| panic!("{body} has no error"));
    assert!(message.contains(part), "{message:?} does not say {part:?}");
    assert!(!message.contains("/tmp") && !message.contains('\n') && message.len() < 600, "{message:?}");
}

fn with(change: impl Fn(&mut Value)) -> Value {
    let mut body = good();
    change(&mut body);
    body
}

#[test]
fn e01_bodies_that_are_no_object() {
    row(|d| {
        for path in PATHS {
            check(&d.send("POST", path, &[], " \n"), 400, "missing request body");
            for (body, part) in [
                ("null", "null"),
                ("[]", "array"),
                ("\"x\"", "string"),
                ("{\"model\":", "unexpected EOF"),
                ("{", "unexpected EOF"),
                ("1", "number"),
            ] {
                check(&d.send("POST", path, &[], body), 400, part);
            }
        }
    });
}

#[test]
fn e02_deep_bodies() {
    row(|d| {
        let nested = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        let with_depth = |depth: usize| good().to_string().replacen('{', &format!("{{\"x\":{},", nested(depth)), 1);
        for path in PATHS {
            assert_eq!(d.send("POST", path, &[], &with_depth(63)).status, 200);
            check(&d.send("POST", path, &[], &with_depth(64)), 400, "nested deeper than 64");
            check(&d.send("POST", path, &[], &"[".repeat(1_000_000)), 400, "nested deeper than 64");
        }
    });
}

#[test]
fn e03_b15_encodings_and_types() {
    row(|d| {
        for path in PATHS {
            let raw = |bytes: &[u8]| {
                let mut stream = d.open("POST", path, &[], bytes);
                let mut all = Vec::new();
                std::io::Read::read_to_end(&mut stream, &mut all).unwrap();
                String::from_utf8(all).unwrap()
            };
            for bad in [&b"{\"model\":\"\xff\"}"[..], b"{\"model\":\"\xc0\xaf\"}", b"\xef\xbb\xbf{}", b"{\"model\":\"\\ud800\"}"]
            {
                let reply = raw(bad);
                assert!(reply.starts_with("HTTP/1.1 400") && reply.contains("\"error\""), "{reply}");
            }
            let escapes = with(|b| {
                b["prompt"] = json!("a\u{0}b");
                b["messages"][0]["content"] = json!("a\u{0}b");
            });
            assert_eq!(d.post(path, &escapes).status, 200);
            for (field, value) in [
                ("model", json!(1)),
                ("stream", json!("yes")),
                ("options", json!([])),
                ("truncate", json!(1)),
                ("keep_alive", json!({})),
            ] {
                let reply = d.post(path, &with(|b| b[field] = value.clone()));
                assert_eq!(reply.status, 400, "{field}: {}", reply.body);
            }
        }
        for (field, value) in [
            ("prompt", json!([])),
            ("system", json!(1)),
            ("raw", json!("x")),
            ("context", json!("x")),
            ("images", json!("x")),
            ("suffix", json!(1)),
        ] {
            check(&d.post(PATHS[0], &with(|b| b[field] = value.clone())), 400, field);
        }
        for content in [json!([{ "type": "text", "text": "x" }]), json!(1), json!({})] {
            check(&d.post(PATHS[1], &with(|b| b["messages"][0]["content"] = content.clone())), 400, "messages[0].content");
        }
    });
}

#[test]
fn e04_to_e09_numbers() {
    row(|d| {
        let option = |path: &str, name: &str, value: Value| d.post(path, &with(|b| b["options"][name] = value.clone()));
        for path in PATHS {
            for n in [json!(0), json!(-1), json!(1), json!(1.5), json!(i32::MAX), json!(1e18)] {
                let reply = option(path, "num_ctx", n.clone());
                assert!(
                    reply.status == 200 || reply.status == 400 && reply.json()["error"].is_string(),
                    "num_ctx {n}: {}",
                    reply.body
                );
            }
            for n in [json!(-1), json!(-2), json!(0), json!(u64::MAX)] {
                assert_eq!(option(path, "num_predict", n).status, 200);
            }
            for name in ["temperature", "top_p", "min_p", "typical_p", "repeat_penalty"] {
                for bad in [json!(-1), json!(1e308)] {
                    check(&option(path, name, bad), 400, name);
                }
            }
            check(&option(path, "presence_penalty", json!(1e300)), 400, "presence_penalty");
            for n in [json!(-1), json!(1u64 << 31), json!(-5)] {
                assert_eq!(option(path, "top_k", n).status, 200);
            }
            check(&option(path, "repeat_last_n", json!(-2)), 400, "repeat_last_n");
            for (name, n) in [
                ("repeat_last_n", json!(1u64 << 31)),
                ("seed", json!(-7)),
                ("seed", json!(i64::MAX)),
                ("num_keep", json!(-1)),
                ("num_thread", json!(10_000)),
                ("num_batch", json!(0)),
            ] {
                assert_eq!(option(path, name, n).status, 200, "{name}");
            }
        }
    });
}

#[test]
fn e10_stops() {
    row(|d| {
        let stop = |value: Value| d.post(PATHS[0], &with(|b| b["options"]["stop"] = value.clone()));
        check(&stop(json!([""])), 400, "a text of 0 bytes");
        check(&stop(json!(vec!["x"; 65])), 400, "65 texts");
        check(&stop(json!(["x".repeat(1 << 20)])), 400, "1048576 bytes");
        assert_eq!(stop(json!(vec!["zzz"; 64])).status, 200);
    });
}

#[test]
fn e11_logprobs() {
    row(|d| {
        for path in PATHS {
            let body = with(|b| {
                b["logprobs"] = json!(true);
                b["top_logprobs"] = json!(1_000_000);
            });
            check(&d.post(path, &body), 400, "top_logprobs must be between 0 and 20");
        }
    });
}

#[test]
fn e12_messages() {
    row(|d| {
        let message = json!({ "role": "user", "content": "x" });
        check(&d.post(PATHS[1], &with(|b| b["messages"] = json!(vec![message.clone(); 4097]))), 400, "4097 messages");
        check(&d.post(PATHS[1], &with(|b| b["messages"] = json!(["x"]))), 400, "messages[0]");
        check(&d.post(PATHS[1], &with(|b| b["messages"] = json!({}))), 400, "messages");
        assert_eq!(
            d.post(PATHS[1], &with(|b| b["messages"][0]["role"] = json!("NARRATOR"))).status,
            200,
            "an unknown role is the template's matter"
        );
        assert_eq!(d.post(PATHS[1], &with(|b| b["messages"][0]["content"] = Value::Null)).status, 200);
    });
}

#[test]
fn e13_e14_e15_e16_prompts() {
    row(|d| {
        assert_eq!(d.post(PATHS[0], &with(|b| b["prompt"] = json!(""))).json()["done_reason"], "load");
        for n in [3_000, 300_000] {
            let long = d.post(PATHS[0], &with(|b| b["prompt"] = json!("word ".repeat(n))));
            check(&long, 400, "exceeds the available context size of 2048");
        }
        let raw = |n: usize| with(|b| (b["prompt"], b["raw"]) = (json!("word ".repeat(n)), json!(true)));
        assert_eq!(d.post(PATHS[0], &raw(3_000)).status, 200, "a raw prompt loses its middle");
        for context in [json!([4096]), json!([-1]), json!([1.5]), json!(["x"]), json!([u64::MAX])] {
            check(&d.post(PATHS[0], &with(|b| b["context"] = context.clone())), 400, "context holds");
        }
        for images in [json!(["not base64!"]), json!(["http://localhost/x.png"])] {
            check(&d.post(PATHS[0], &with(|b| b["images"] = images.clone())), 400, "does not support images");
            check(&d.post(PATHS[1], &with(|b| b["messages"][0]["images"] = images.clone())), 400, "does not support images");
        }
    });
}

#[test]
fn e18_fields_that_do_not_exist() {
    row(|d| {
        let extra = with(|b| {
            b["chat_template_kwargs"] = json!({ "messages": [] });
            b["template_path"] = json!("/etc/passwd");
        });
        assert_eq!(d.post(PATHS[1], &extra).json()["message"]["content"], canary(d));
        for model in ["file:///etc/passwd", "/etc/passwd", "http://localhost:1/x/y/z"] {
            let reply = d.post(PATHS[1], &with(|b| b["model"] = json!(model)));
            assert!([400, 404].contains(&reply.status), "{model}: {}", reply.body);
        }
    });
}

#[test]
fn large_bodies_are_refused() {
    row(|d| {
        let mut stream = d.open("POST", PATHS[0], &[], &vec![b' '; 17 << 20]);
        let mut start = [0; 12];
        std::io::Read::read_exact(&mut stream, &mut start).unwrap();
        assert_eq!(&start, b"HTTP/1.1 413");
        _ = stream.flush();
    });
}

/// B18 and B20: a model that never ends is ended, and one that claims a long context gets what fits.
#[test]
fn b18_b20_models_that_go_on() {
    row(|d| {
        let mut model = tiny_model(&Shape::tiny("llama"), QuantType::Q8_0, 3);
        model.remove("tokenizer.ggml.token_type").remove("tokenizer.ggml.eos_token_id");
        model.set("llama.context_length", testkit::Item::U32(1 << 31));
        d.install("endless", &model.bytes());
        let body = json!({ "model": "endless", "prompt": "x", "raw": true, "stream": false, "options": { "num_ctx": 128, "num_predict": -1 } });
        let ended = d.post(PATHS[0], &body).json();
        assert_eq!((&ended["done_reason"], &ended["eval_count"]), (&json!("length"), &json!(128)));
        let huge = json!({ "model": "endless", "prompt": "x", "raw": true, "stream": false, "options": { "num_ctx": 1u64 << 31, "num_predict": 2 } });
        assert_eq!(d.post(PATHS[0], &huge).status, 200);
        let n_ctx = d.get("/api/ps").json()["models"].as_array().unwrap().iter().find(|m| m["name"] == "endless:latest").unwrap()
            ["context_length"]
            .as_u64()
            .unwrap();
        assert!(n_ctx < 1 << 31, "{n_ctx} is stated and is what memory has room for");
    });
}

#[test]
fn e02_more_values_than_anybody_has_use_for() {
    row(|d| {
        let many = format!("{{\"x\":[{}0]}}", "0,".repeat(600_000));
        let nested = format!("{{\"x\":[{}[]]}}", "[0,0],".repeat(300_000));
        for body in [many, nested] {
            check(&d.send("POST", PATHS[0], &[], &body), 400, "more than 500000 values");
        }
    });
}

/// Codex compresses what it sends. What expands beyond the bound of bodies is refused before it takes the memory.
#[test]
fn c06_compressed_bodies() {
    row(|d| {
        let send = |encoding: &str, bytes: &[u8]| {
            let headers = [("Content-Type", "application/json"), ("Content-Encoding", encoding)];
            let mut stream = d.open("POST", "/v1/chat/completions", &headers, bytes);
            let mut found = Vec::new();
            stream.read_to_end(&mut found).unwrap();
            Reply::parse(&found)
        };
        let body = json!({ "model": "lantern-guide", "messages": [{ "role": "user", "content": "Who are you?" }] }).to_string();
        let packed = zstd::encode_all(body.as_bytes(), 1).unwrap();
        assert_eq!(send("zstd", &packed).status, 200);
        let bomb = zstd::encode_all(vec![b' '; 256 << 20].as_slice(), 1).unwrap();
        assert!(bomb.len() < 1 << 20, "{}", bomb.len());
        let before = d.anonymous_bytes();
        let refused = send("zstd", &bomb);
        assert_eq!(
            (refused.status, refused.json()["error"]["message"].as_str()),
            (413, Some("the request's body is larger than 16 MiB"))
        );
        let grown = d.anonymous_bytes().saturating_sub(before);
        assert!(grown < 64 << 20, "{grown} bytes more");
        assert_eq!(send("zstd", b"not compressed at all").status, 400);
        assert_eq!(send("zstd", &packed[..packed.len() / 2]).status, 400);
        assert_eq!(send("gzip", &packed).status, 415);
        // A frame that wants a window of terabytes, and blocks of 128 KiB from four bytes each.
        let mut frame = b"\x28\xb5\x2f\xfd\x00\xf0".to_vec();
        (0..65_536).for_each(|_| frame.extend([0x02, 0x00, 0x10, b' ']));
        let before = d.anonymous_bytes();
        assert_eq!(send("zstd", &frame).status, 400);
        assert!(d.anonymous_bytes().saturating_sub(before) < 64 << 20);
    });
}

/// Grammars are taken as JSON Schemas only; the text of one is never compiled.
#[test]
fn f09_grammars_as_text() {
    row(|d| {
        let nested = format!("root ::= {}\"a\"{}", "(".repeat(60_000), ")".repeat(60_000));
        for grammar in [nested.as_str(), "root ::= root \"a\"", "root ::= (\"\")*"] {
            let reply = d.post("/api/chat", &with(|body| body["format"] = json!(grammar)));
            check(&reply, 500, "expected \"json\" or a valid JSON Schema object");
            let custom = json!([{ "type": "custom", "custom": { "name": "c", "format": { "type": "grammar",
                "grammar": { "syntax": "lark", "definition": grammar } } } }]);
            assert_eq!(d.post("/v1/chat/completions", &with(|body| body["tools"] = custom.clone())).status, 400);
            let told = d.post("/api/generate", &with(|body| body["options"]["grammar"] = json!(grammar)));
            assert_eq!(told.json()["response"], canary(d), "an option that does not exist changes nothing");
        }
    });
}

/// Fields of another type are the client's fault, which a client that tries again after a 500 should know.
#[test]
fn fields_of_another_type_in_other_dialects() {
    row(|d| {
        let base = json!({ "model": "lantern-guide", "prompt": "x", "input": "x", "max_tokens": 1, "messages": [{ "role": "user", "content": "x" }] });
        for (path, name, value) in [
            ("/v1/chat/completions", "temperature", json!("hot")),
            ("/v1/chat/completions", "max_tokens", json!("many")),
            ("/v1/chat/completions", "seed", json!([1])),
            ("/v1/completions", "top_p", json!({})),
            ("/v1/responses", "max_output_tokens", json!("many")),
            ("/v1/messages", "top_k", json!("few")),
            ("/v1/messages", "temperature", json!(true)),
            ("/v1/messages", "stop_sequences", json!([1])),
            ("/v1/messages", "stop_sequences", json!("END")),
        ] {
            let mut body = base.clone();
            body[name] = value;
            let reply = d.post(path, &body);
            let told = reply.json()["error"]["message"].as_str().unwrap().to_owned();
            assert!(reply.status == 400 && told.contains(name), "{path} {name}: {} {told}", reply.status);
        }
    });
}

/// What is much too long is not read to its end: others go on, and the refusal comes soon.
#[test]
fn e14_chats_of_megabytes() {
    row(|d| {
        for text in ["word ".repeat(1 << 20), " ".repeat(5 << 20)] {
            let chat = d.post(PATHS[1], &with(|b| b["messages"][0]["content"] = json!(text)));
            check(&chat, 400, "exceeds the available context size of 2048 tokens");
        }
    });
}

/// Of raw prompts both ends count. A context that was filled once keeps its memory, so only the answers are looked at.
#[test]
fn e14_raw_prompts_of_megabytes() {
    let d = Daemon::start();
    for text in ["word ".repeat(1 << 20), " ".repeat(5 << 20), "größe".repeat(1 << 18)] {
        let raw = with(|b| {
            b["raw"] = json!(true);
            b["prompt"] = json!(text);
            b["options"]["num_predict"] = json!(1);
        });
        let cut = d.post(PATHS[0], &raw);
        assert_eq!(cut.status, 200, "{}", cut.body);
        let n_cut: usize = cut.header("lantern-cut-tokens").unwrap().parse().unwrap();
        assert!(n_cut > 1000 && cut.json()["prompt_eval_count"].as_u64().unwrap() < 2048, "{n_cut}");
    }
}
