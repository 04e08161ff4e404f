//! The conformance checklist of the Ollama dialect, by its ids, against the real binary. Ids that need tools, thinking,
//! structured output, images, embeddings, pulls or other dialects are not here yet.

#![allow(clippy::unwrap_used, reason = "tests")]

mod daemon;

use std::io::Read;

use daemon::{Daemon, endless, eventually, forever};
use serde_json::{Value, json};
use testkit::tiny_encoder;

const GUIDE: &str = "lantern-guide";

fn ask(question: &str) -> Value {
    json!({ "model": GUIDE, "messages": [{ "role": "user", "content": question }], "options": { "temperature": 0 } })
}

fn text_of(lines: &[Value]) -> String {
    lines.iter().map(|l| l["response"].as_str().or(l["message"]["content"].as_str()).unwrap_or_default()).collect()
}

#[test]
fn r01_r03_r04_r05_r06_fixed_answers() {
    let d = Daemon::start();
    let root = d.get("/");
    assert_eq!(
        (root.status, root.body.as_str(), root.header("content-type")),
        (200, "Ollama is running", Some("text/plain; charset=utf-8"))
    );
    let head = d.send("HEAD", "/", &[], "");
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    let version = d.get("/api/version");
    assert_eq!(version.header("content-type"), Some("application/json; charset=utf-8"));
    assert_eq!(version.json().as_object().unwrap().keys().collect::<Vec<_>>(), ["version"]);
    let unknown = d.get("/api/nothing");
    assert_eq!((unknown.status, unknown.body.as_str()), (404, "404 page not found"));
    let wrong = d.get("/api/show");
    assert_eq!((wrong.status, wrong.body.as_str(), wrong.header("allow")), (405, "405 method not allowed", Some("POST")));
    assert_eq!(d.send("HEAD", "/api/tags", &[], "").status, 200);
    assert_eq!(d.send("HEAD", "/api/ps", &[], "").status, 405);
    let slash = d.get("/api/tags/");
    assert_eq!((slash.status, slash.header("location")), (301, Some("/api/tags")));
    assert_eq!(d.send("POST", "/api/chat/", &[], "{}").status, 307);
    assert_eq!(d.get("/api/status").json(), json!({ "cloud": { "disabled": true, "source": "config" } }));
    assert!(d.stop(), "a stop is a success");
}

#[test]
fn r07_r08_r09_r11_bodies() {
    let d = Daemon::start();
    for path in ["generate", "chat", "show", "copy", "embed", "embeddings", "create", "pull", "push", "experimental/web_fetch"] {
        let path = &format!("/api/{path}");
        d.send("POST", path, &[], "").is_error(400, "missing request body");
        let malformed = d.send("POST", path, &[], "{x}");
        assert_eq!(malformed.status, 400);
        assert!(malformed.json()["error"].as_str().unwrap().contains("invalid character 'x'"), "{}", malformed.body);
    }
    let show =
        d.send("POST", "/api/show", &[("Authorization", "Bearer x")], &json!({ "MODEL": GUIDE, "unknown": 1 }).to_string());
    assert_eq!(show.status, 200, "{}", show.body);
    let unknown = json!({ "model": GUIDE, "prompt": "x", "stream": false, "unknown": { "a": 1 }, "options": { "num_predict": 1, "warmth": 3 } });
    assert_eq!(d.post("/api/generate", &unknown).json()["eval_count"], 1);
    d.install("vectors", &tiny_encoder("bert", kernels::QuantType::F16, 1).0.bytes());
    let embedded = d.post("/api/embed", &json!({ "model": "vectors", "input": "x", "unknown": [1], "options": { "warmth": 3 } }));
    assert_eq!(embedded.json()["embeddings"].as_array().unwrap().len(), 1);
    let mut chat = ask("hello");
    chat["unknown"] = json!({ "a": 1 });
    assert_eq!(d.send("POST", "/api/chat", &[], &(chat.to_string() + "trailing")).status, 200);
}

#[test]
fn c01_to_c07_origins_and_hosts() {
    let d = Daemon::start_with(&[("OLLAMA_ORIGINS", "https://chat.example,http://*.home")]);
    let with = |method: &str, headers: &[(&str, &str)]| d.send(method, "/api/tags", headers, "");
    let cors = |r: &daemon::Reply| r.header("access-control-allow-origin").map(String::from);
    assert_eq!(cors(&with("GET", &[])), None);
    for origin in ["http://localhost:3000", "https://chat.example", "http://a.home", "app://obsidian.md"] {
        let reply = with("GET", &[("Origin", origin)]);
        assert_eq!((reply.status, cors(&reply).as_deref(), reply.header("vary")), (200, Some(origin), Some("Origin")));
    }
    for method in ["GET", "OPTIONS"] {
        let refused = with(method, &[("Origin", "http://evil.example")]);
        assert_eq!((refused.status, refused.body.as_str()), (403, ""));
    }
    let preflight = with("OPTIONS", &[("Origin", "http://localhost:3000")]);
    assert_eq!(
        (preflight.status, preflight.header("access-control-allow-methods")),
        (204, Some("GET,POST,PUT,PATCH,DELETE,HEAD,OPTIONS"))
    );
    assert!(preflight.header("access-control-allow-headers").unwrap().ends_with("X-Stainless-Timeout"));
    assert_eq!(with("GET", &[("Host", "evil.example")]).status, 403);
    for host in ["foo.local", "localhost", "192.168.1.7:11434", "[::1]:11434"] {
        assert_eq!(with("GET", &[("Host", host)]).status, 200, "{host}");
    }
    let open = Daemon::start_with(&[("OLLAMA_ORIGINS", "*"), ("OLLAMA_HOST", "0.0.0.0:0")]);
    assert_eq!(
        open.send("GET", "/api/tags", &[("Host", "evil.example")], "").status,
        403,
        "H01: the rule holds on every listener"
    );
    let all = open.send("GET", "/api/tags", &[("Origin", "null"), ("Host", "box.local")], "");
    assert_eq!((all.status, cors(&all).as_deref(), all.header("vary")), (200, Some("*"), None));
}

#[test]
fn n01_to_n09_names() {
    let d = Daemon::start();
    let post = |path: &str, model: Value| d.post(path, &json!({ "model": model, "messages": [], "prompt": "" }));
    post("/api/generate", json!("")).is_error(404, "model '' not found");
    post("/api/chat", json!(null)).is_error(400, "model is required");
    for path in ["/api/generate", "/api/chat"] {
        post(path, json!("nope:1")).is_error(404, "model 'nope:1' not found");
        post(path, json!("../x")).is_error(400, "invalid model name");
        post(path, json!("x:cloud")).is_error(403, "ollama cloud is disabled: remote model is unavailable");
        post(path, json!("x:7b-cloud")).is_error(403, "ollama cloud is disabled: remote model is unavailable");
        post(path, json!("point-cloud")).is_error(404, "model 'point-cloud' not found");
        post(path, json!("x:cloud:local")).is_error(400, "use either :local or :cloud, not both: \"x:cloud:local\"");
    }
    post("/api/show", json!("")).is_error(400, "model is required");
    post("/api/show", json!("x")).is_error(404, "model 'x:latest' not found");
    d.send("DELETE", "/api/delete", &[], r#"{"model":"x"}"#).is_error(404, "model 'x' not found");
    d.send("DELETE", "/api/delete", &[], r#"{"name":"a b"}"#).is_error(400, "name \"a b\" is invalid");
    d.post("/api/copy", &json!({ "source": "x", "destination": "y" })).is_error(404, "model \"x\" not found");
    d.post("/api/copy", &json!({ "source": "", "destination": "y" })).is_error(400, "source \"\" is invalid");
    d.post("/api/copy", &json!({ "source": "x", "destination": "/" })).is_error(400, "destination \"/\" is invalid");
    for name in [GUIDE, "Lantern-Guide:latest", "library/lantern-guide", "registry.ollama.ai/library/lantern-guide:latest"] {
        let mut body = ask("hello");
        (body["model"], body["stream"]) = (json!(name), json!(false));
        assert_eq!(d.post("/api/chat", &body).json()["model"], name);
    }
    assert_eq!(d.get("/api/ps").json()["models"][0]["name"], "lantern-guide:latest");
}

#[test]
fn g01_g02_g03_g10_one_text_in_every_framing() {
    let d = Daemon::start();
    let body = |stream: bool| json!({ "model": GUIDE, "prompt": "Who are you?", "stream": stream, "options": { "temperature": 0, "seed": 1 } });
    let streamed = d.send("POST", "/api/generate", &[], &body(true).to_string());
    assert_eq!(streamed.header("content-type"), Some("application/x-ndjson"));
    let lines = streamed.lines();
    let n_done = lines.iter().filter(|l| l["done"] == true).count();
    assert_eq!((n_done, lines.last().unwrap()["done"].as_bool()), (1, Some(true)));
    let last = lines.last().unwrap();
    assert_eq!(last["done_reason"], "stop");
    for metric in ["total_duration", "load_duration", "prompt_eval_count", "prompt_eval_duration", "eval_count", "eval_duration"]
    {
        assert!(last[metric].as_u64().is_some_and(|v| v > 0), "{metric} is {}", last[metric]);
    }
    assert!(last["context"].as_array().unwrap().iter().all(Value::is_u64));
    let whole = d.post("/api/generate", &body(false)).json();
    assert_eq!(whole["response"], text_of(&lines));
    assert!(whole["response"].as_str().unwrap().contains("lantern-guide"));
    assert_eq!(d.post("/api/generate", &body(false)).json()["response"], whole["response"]);
    assert!(lines[0]["created_at"].as_str().unwrap().ends_with('Z'));
}

#[test]
fn g04_g05_h02_load_and_unload() {
    let d = Daemon::start();
    for (path, extra) in [("/api/generate", json!({})), ("/api/chat", json!({ "messages": [] }))] {
        let mut load = json!({ "model": GUIDE });
        load.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let loaded = d.post(path, &load);
        assert_eq!(loaded.header("content-type"), Some("application/json; charset=utf-8"));
        let loaded = loaded.json();
        assert_eq!((&loaded["done"], &loaded["done_reason"], loaded.get("total_duration")), (&json!(true), &json!("load"), None));
        assert_eq!(d.get("/api/ps").json()["models"].as_array().unwrap().len(), 1);
        load["keep_alive"] = json!(0);
        assert_eq!(d.post(path, &load).json()["done_reason"], "unload");
        assert_eq!(d.get("/api/ps").json()["models"], json!([]));
        assert_eq!(d.post(path, &load).json()["done_reason"], "unload", "also when it is not loaded");
    }
}

#[test]
fn g06_g08_g09_g13_g14_g15_generate_fields() {
    let d = Daemon::start();
    let post = |more: Value| {
        let mut body = json!({ "model": GUIDE, "prompt": "Who are you?", "stream": false, "options": { "temperature": 0 } });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        d.post("/api/generate", &body)
    };
    for more in [json!({ "system": "x" }), json!({ "template": "x" }), json!({ "context": [1] })] {
        let mut raw = more;
        raw["raw"] = json!(true);
        post(raw).is_error(400, "raw mode does not support template, system, or context");
    }
    assert_eq!(post(json!({ "raw": true })).json().get("context"), None);
    let short = post(json!({ "options": { "temperature": 0, "num_predict": 3 } })).json();
    assert_eq!((&short["eval_count"], &short["done_reason"]), (&json!(3), &json!("length")));
    let stopped = post(json!({ "options": { "temperature": 0, "stop": ["small"] } })).json();
    assert!(!stopped["response"].as_str().unwrap().contains("small"));
    assert_eq!(stopped["done_reason"], "stop");
    post(json!({ "suffix": "x" })).is_error(400, "registry.ollama.ai/library/lantern-guide:latest does not support insert");
    let first = post(json!({})).json();
    let second = post(json!({ "prompt": "What is MCP?", "context": first["context"] }));
    assert_eq!(second.status, 200);
    let tokens = |reply: &Value| reply["context"].as_array().unwrap().clone();
    assert!(tokens(&second.json()).starts_with(&tokens(&first)), "what was said comes first");
    let cut = post(json!({ "options": { "temperature": 0, "num_predict": 3 } })).json();
    let n_tokens = cut["prompt_eval_count"].as_u64().unwrap() + 3;
    assert_eq!(tokens(&cut).len() as u64, n_tokens, "the last token of a cut answer is one of it");
    for n in [21, -1] {
        post(json!({ "top_logprobs": n })).is_error(400, "top_logprobs must be between 0 and 20");
    }
    let rendered = post(json!({ "system": "Be kind.", "_debug_render_only": true })).json();
    assert_eq!(
        rendered["_debug_info"]["rendered_template"],
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nWho are you?<|im_end|>\n<|im_start|>assistant\n"
    );
    assert_eq!((&rendered["done"], &rendered["response"]), (&json!(false), &json!("")));
    let long = json!({ "raw": true, "prompt": "word ".repeat(200), "options": { "num_ctx": 64, "num_predict": 1 } });
    let cut = post(long.clone());
    let n_cut: u64 = cut.header("lantern-cut-tokens").unwrap().parse().unwrap();
    assert!(n_cut > 100 && cut.json()["cut_tokens"] == n_cut && cut.json()["prompt_eval_count"].as_u64().unwrap() < 64);
    let mut whole = long;
    whole["truncate"] = json!(false);
    assert!(post(whole).json()["error"].as_str().unwrap().contains("exceeds the available context size of 64 tokens"));
    let raw = post(json!({ "raw": true, "_debug_render_only": true })).json();
    assert_eq!(raw["_debug_info"]["rendered_template"], "Who are you?");
}

#[test]
fn g20_g21_options() {
    let d = Daemon::start();
    let post =
        |options: Value| d.post("/api/generate", &json!({ "model": GUIDE, "prompt": "hi", "stream": false, "options": options }));
    post(json!({ "temperature": "hot" })).is_error(500, "option \"temperature\" must be of type float32");
    post(json!({ "top_k": "many" })).is_error(500, "option \"top_k\" must be of type integer");
    post(json!({ "stop": "x" })).is_error(500, "option \"stop\" must be of type array");
    post(json!({ "stop": [1] })).is_error(500, "option \"stop\" must be of an array of strings");
    let removed =
        json!({ "mirostat": 1, "tfs_z": 0.5, "numa": true, "num_gqa": 8, "penalize_newline": false, "num_predict": 2.0 });
    assert_eq!(post(removed).json()["eval_count"], 2, "removed options are ignored, floats are cut");
}

#[test]
fn h01_h06_h11_h12_chat() {
    let d = Daemon::start();
    let reply = d.post("/api/chat", &ask("Who are you?"));
    for line in reply.lines() {
        assert_eq!(line["message"]["role"], "assistant");
        assert!(line["message"]["content"].is_string());
    }
    assert_eq!(reply.lines().last().unwrap()["message"]["content"], "");
    endless(&d, "plain");
    let tool = json!({ "type": "function", "function": { "name": "x", "parameters": {} } });
    let with_tools = json!({ "model": "plain", "messages": [{ "role": "user", "content": "x" }], "tools": [tool] });
    d.post("/api/chat", &with_tools).is_error(400, "registry.ollama.ai/library/plain:latest does not support tools");
    let long: Vec<Value> = (0..20)
        .flat_map(|i| {
            [
                json!({ "role": "user", "content": format!("question {i} {}", "x ".repeat(20)) }),
                json!({ "role": "assistant", "content": format!("answer {i}") }),
            ]
        })
        .chain([json!({ "role": "user", "content": "the last" })])
        .collect();
    let messages: Vec<Value> = [json!({ "role": "system", "content": "the system" })].into_iter().chain(long).collect();
    let render = json!({ "model": GUIDE, "messages": messages, "_debug_render_only": true, "options": { "num_ctx": 300 } });
    let prompt = d.post("/api/chat", &render).json()["_debug_info"]["rendered_template"].as_str().unwrap().to_owned();
    assert!(
        prompt.contains("the system")
            && prompt.contains("the last")
            && !prompt.contains("question 0 ")
            && prompt.contains("question 19"),
        "{prompt}"
    );
    let mut cut = render.clone();
    (cut["_debug_render_only"], cut["options"]["num_predict"]) = (json!(false), json!(2));
    let cut = d.post("/api/chat", &cut);
    let n_dropped: usize = cut.header("lantern-dropped-messages").unwrap().parse().unwrap();
    assert!(n_dropped > 20 && cut.header("lantern-context-length") == Some("300"), "what is cut is said");
    assert_eq!(cut.lines().last().unwrap()["dropped_messages"], n_dropped);
    let uncut = d.post("/api/chat", &ask("Who are you?"));
    assert_eq!((uncut.header("lantern-context-length"), uncut.header("lantern-dropped-messages")), (Some("2048"), None));
    let over = json!({ "model": GUIDE, "messages": [{ "role": "user", "content": "word ".repeat(400) }], "truncate": false, "options": { "num_ctx": 300 } });
    let over = d.post("/api/chat", &over);
    assert_eq!(over.status, 400);
    assert!(over.json()["error"].as_str().unwrap().contains("exceeds the available context size"), "{}", over.body);
}

#[test]
fn k03_k04_think() {
    let d = Daemon::start();
    let with = |think: Value| {
        let mut body = ask("hello");
        (body["think"], body["stream"]) = (think, json!(false));
        d.post("/api/chat", &body)
    };
    with(json!(true)).is_error(400, "\"lantern-guide\" does not support thinking");
    assert_eq!(with(json!(false)).status, 200);
    with(json!("huge"))
        .is_error(400, "invalid think value: \"huge\" (must be \"high\", \"medium\", \"low\", \"max\", true, or false)");
}

#[test]
fn s01_s02_s03_s04_listings() {
    let d = Daemon::start();
    endless(&d, "a-newer");
    endless(&d, "z-newest");
    for (name, age) in [("a-newer", 60), ("lantern-guide", 120)] {
        let manifest = d.models.path().join("manifests/registry.ollama.ai/library").join(name).join("latest");
        let at = std::time::SystemTime::now() - std::time::Duration::from_secs(age);
        std::fs::File::options().append(true).open(manifest).unwrap().set_modified(at).unwrap();
    }
    let tags = d.get("/api/tags").json();
    let names: Vec<&str> = tags["models"].as_array().unwrap().iter().map(|m| m["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["z-newest:latest", "a-newer:latest", "lantern-guide:latest"], "the newest first");
    let models = d.get("/api/tags").json()["models"].clone();
    let entry = models.as_array().unwrap().iter().find(|m| m["name"] == "lantern-guide:latest").unwrap();
    assert_eq!(entry["model"], entry["name"]);
    let digest = entry["digest"].as_str().unwrap();
    assert!(digest.len() == 64 && digest.bytes().all(|b| b.is_ascii_hexdigit()));
    assert!(entry["size"].as_u64().unwrap() > 3_000_000);
    assert_eq!((&entry["details"]["context_length"], &entry["details"]["format"]), (&json!(2048), &json!("gguf")));
    assert!(entry["capabilities"].as_array().unwrap().contains(&json!("completion")));
    let show = |verbose: bool| d.post("/api/show", &json!({ "model": GUIDE, "verbose": verbose })).json();
    let brief = show(false);
    assert!(
        brief["modelfile"].as_str().unwrap().starts_with('#') && brief["license"].is_string() && brief["template"].is_string()
    );
    assert_eq!(
        (&brief["model_info"]["qwen3.context_length"], &brief["model_info"]["tokenizer.ggml.tokens"]),
        (&json!(2048), &Value::Null)
    );
    assert!(brief["model_info"]["general.parameter_count"].as_u64().unwrap() > 3_000_000);
    assert_eq!(brief["model_info"].get("tokenizer.chat_template"), None);
    assert!(
        brief["tensors"]
            .as_array()
            .unwrap()
            .iter()
            .any(|t| t["name"] == "token_embd.weight" && t["type"] == "Q8_0" && t["shape"] == json!([256, 4096]))
    );
    assert_eq!(show(true)["model_info"]["tokenizer.ggml.tokens"].as_array().unwrap().len(), 4096);
}

#[test]
fn s05_s06_s08_residency() {
    let d = Daemon::start();
    let post = |more: Value| {
        let mut body = json!({ "model": GUIDE, "prompt": "hi", "stream": false });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        assert_eq!(d.post("/api/generate", &body).status, 200);
        d.get("/api/ps").json()["models"].clone()
    };
    let first = post(json!({}));
    assert_eq!(
        (&first[0]["size_vram"], &first[0]["context_length"]),
        (&json!(0), &json!(2048)),
        "capped at what it was trained for"
    );
    let expires: jiff::Timestamp = first[0]["expires_at"].as_str().unwrap().parse().unwrap();
    let left = expires.duration_since(jiff::Timestamp::now()).as_secs();
    assert!((240..=300).contains(&left), "five minutes: {left} s");
    assert!(post(json!({ "keep_alive": -1 }))[0]["expires_at"].as_str().unwrap()[..4].parse::<u32>().unwrap() > 2126);
    assert_eq!(post(json!({ "options": { "num_ctx": 1024 } }))[0]["context_length"], 2048, "a shorter context needs no reload");
    post(json!({ "prompt": "", "keep_alive": 0 }));
    assert_eq!(post(json!({ "options": { "num_ctx": 512 } }))[0]["context_length"], 512);
    assert_eq!(post(json!({ "options": { "num_ctx": 1024 } }))[0]["context_length"], 1024, "a longer one does");
    // Told to go while it writes, it answers at once and goes when it has written.
    endless(&d, "endless");
    let mut stream = d.open("POST", "/api/generate", &[], &forever("endless"));
    stream.read_exact(&mut [0; 400]).unwrap();
    let unload = d.post("/api/generate", &json!({ "model": "endless", "keep_alive": 0, "stream": false })).json();
    assert_eq!(unload["done_reason"], "unload");
    stream.read_exact(&mut [0; 400]).unwrap();
    drop(stream);
    eventually("the model leaving", || (!d.get("/api/ps").body.contains("endless")).then_some(()));
    post(json!({ "keep_alive": "200ms" }));
    eventually("the model leaving", || (d.get("/api/ps").json()["models"] == json!([])).then_some(()));
    post(json!({ "keep_alive": 0 }));
    eventually("the model leaving", || (d.get("/api/ps").json()["models"] == json!([])).then_some(()));
}

#[test]
fn b05_b06_copy_and_delete() {
    let d = Daemon::start();
    let copied = d.post("/api/copy", &json!({ "source": GUIDE, "destination": "me/second:v1" }));
    assert_eq!((copied.status, copied.body.as_str()), (200, ""));
    let models = d.get("/api/tags").json()["models"].clone();
    assert_eq!(models.as_array().unwrap().len(), 2);
    assert_eq!(models[0]["digest"], models[1]["digest"]);
    assert_eq!(d.send("DELETE", "/api/delete", &[], &json!({ "model": GUIDE }).to_string()).status, 200);
    d.post("/api/show", &json!({ "model": GUIDE })).is_error(404, "model 'lantern-guide:latest' not found");
    assert_eq!(d.post("/api/show", &json!({ "model": "me/second:v1" })).status, 200);
}

#[test]
fn q01_eight_chats_at_once_get_what_they_get_alone() {
    let d = Daemon::start_with(&[("OLLAMA_NUM_PARALLEL", "8")]);
    let questions = [
        "Who are you?",
        "What is MCP?",
        "How do I flash the card?",
        "Tell me a joke",
        "Is it free?",
        "Which port is used?",
        "How fast is it?",
        "Hello",
    ];
    let answer = |q: &str| text_of(&d.post("/api/chat", &ask(q)).lines());
    let alone: Vec<String> = questions.iter().map(|q| answer(q)).collect();
    assert!(alone.iter().all(|a| !a.is_empty()));
    for _ in 0..3 {
        let together: Vec<String> = std::thread::scope(|scope| {
            let all: Vec<_> = questions.iter().map(|q| scope.spawn(|| answer(q))).collect();
            all.into_iter().map(|t| t.join().unwrap()).collect()
        });
        assert_eq!(together, alone);
    }
    let one = Daemon::start_with(&[("OLLAMA_NUM_PARALLEL", "1")]);
    std::thread::scope(|scope| {
        questions.map(|q| scope.spawn(|| assert_eq!(one.post("/api/chat", &ask(q)).status, 200))).map(|t| t.join().unwrap())
    });
}

#[test]
fn q02_g01_g02_leaving_frees_the_slot() {
    let d = Daemon::start_with(&[("OLLAMA_NUM_PARALLEL", "1")]);
    endless(&d, "endless");
    for _ in 0..3 {
        let mut stream = d.open("POST", "/api/generate", &[], &forever("endless"));
        stream.read_exact(&mut [0; 400]).unwrap();
        drop(stream);
    }
    // Leaving during prefill, and leaving while another waits in the queue, before anything was sent.
    let long =
        json!({ "model": "endless", "prompt": "a".repeat(2000), "raw": true, "stream": false, "options": { "num_ctx": 2048 } });
    drop(d.open("POST", "/api/generate", &[], long.to_string().as_bytes()));
    drop(d.open("POST", "/api/generate", &[], &forever("endless")));
    let next = d.post("/api/generate", &json!({ "model": "endless", "prompt": "x", "raw": true, "stream": false, "options": { "num_predict": 2, "num_ctx": 2048 } }));
    assert_eq!(next.json()["eval_count"], 2);
}

#[test]
fn q03_g05_a_full_queue_says_so() {
    let d = Daemon::start_with(&[("OLLAMA_NUM_PARALLEL", "1"), ("OLLAMA_MAX_QUEUE", "2")]);
    endless(&d, "endless");
    let mut running = d.open("POST", "/api/generate", &[], &forever("endless"));
    running.read_exact(&mut [0; 200]).unwrap();
    // Two wait; they are in the queue once a third is refused.
    let mut waiting = Vec::new();
    let refused = eventually("a refusal", || {
        let mut stream = d.open("POST", "/api/generate", &[], &forever("endless"));
        stream.set_read_timeout(Some(std::time::Duration::from_millis(300))).unwrap();
        let mut start = [0; 12];
        if stream.read_exact(&mut start).is_ok() && start == *b"HTTP/1.1 503" {
            let mut rest = String::new();
            stream.read_to_string(&mut rest).unwrap();
            return Some(rest);
        }
        waiting.push(stream);
        None
    });
    assert!(refused.contains("server busy, please try again.  maximum pending requests exceeded"), "{refused}");
    assert!(refused.to_lowercase().contains("retry-after"), "{refused}");
    assert_eq!(waiting.len(), 2);
}

#[test]
fn a_truncated_model_ends_its_request_and_nothing_else() {
    let d = Daemon::start();
    endless(&d, "endless");
    let mut stream = d.open("POST", "/api/generate", &[], &forever("endless"));
    stream.read_exact(&mut [0; 400]).unwrap();
    let blobs = std::fs::read_dir(d.models.path().join("blobs")).unwrap().map(|e| e.unwrap().path());
    let model = blobs
        .filter(|p| std::fs::metadata(p).unwrap().len() < 3_000_000)
        .max_by_key(|p| std::fs::metadata(p).unwrap().len())
        .unwrap();
    std::fs::OpenOptions::new().write(true).open(model).unwrap().set_len(8192).unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("damaged on disk"), "{}", &rest[rest.len().saturating_sub(300)..]);
    let again = d.post("/api/generate", &json!({ "model": "endless", "prompt": "x", "raw": true }));
    assert_eq!(again.status, 500);
    assert_eq!(d.post("/api/chat", &ask("hello")).status, 200, "another model is served");
}

#[test]
fn full_contexts_shift_or_end() {
    let d = Daemon::start();
    endless(&d, "endless");
    let post = |shift: bool| {
        let body = json!({ "model": "endless", "prompt": "hello", "raw": true, "stream": false, "shift": shift, "options": { "temperature": 0, "num_ctx": 64, "num_predict": 150 } });
        d.post("/api/generate", &body).json()
    };
    let ended = post(false);
    assert_eq!((&ended["done_reason"], ended["eval_count"].as_u64().unwrap() < 64), (&json!("length"), true));
    let shifted = post(true);
    assert_eq!(shifted["eval_count"], 150, "a shifted context goes on");
    assert!(shifted["context_shifts"].as_u64().unwrap() > 1 && ended.get("context_shifts").is_none(), "and says so");
    assert_eq!(post(true)["response"], post(true)["response"]);
}
