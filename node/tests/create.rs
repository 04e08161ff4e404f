//! Blobs and new models, by the ids of the Ollama checklist and of the bad-input matrix (rows C).

#![allow(clippy::unwrap_used, reason = "tests")]

mod daemon;

use daemon::{Daemon, Reply, eventually};
use kernels::QuantType;
use serde_json::{Value, json};
use testkit::{Shape, digest, tiny_model};

const GUIDE: &str = "lantern-guide";

fn upload(d: &Daemon, digest: &str, bytes: &[u8]) -> Reply {
    use std::io::Read;
    let mut stream = d.open("POST", &format!("/api/blobs/{digest}"), &[], bytes);
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    Reply::parse(&answer)
}

fn statuses(reply: &Reply) -> Vec<String> {
    assert_eq!(reply.header("content-type"), Some("application/x-ndjson"), "{}", reply.body);
    reply.lines().iter().map(|l| l["status"].as_str().unwrap_or_else(|| panic!("{l}")).to_owned()).collect()
}

fn show(d: &Daemon, name: &str) -> Value {
    d.post("/api/show", &json!({ "model": name })).json()
}

fn staged(d: &Daemon) -> usize {
    let blobs = std::fs::read_dir(d.models.path().join("blobs")).unwrap();
    blobs.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().contains("partial")).count()
}

#[test]
fn b01_c01_c21_blobs() {
    let d = Daemon::start();
    let (bytes, hex) = (b"some weights".to_vec(), digest(b"some weights"));
    let head = |digest: &str| d.send("HEAD", &format!("/api/blobs/{digest}"), &[], "").status;
    assert_eq!(head(&hex), 404);
    assert_eq!((upload(&d, &hex, &bytes).status, head(&hex), upload(&d, &hex, &bytes).status), (201, 200, 200));
    assert_eq!(head(&hex.replace(':', "-")), 200);
    let other = digest(b"other");
    let message = format!("digest mismatch, expected {other:?}, got {:?}", digest(b"third"));
    upload(&d, &other, b"third").is_error(400, &message);
    assert_eq!((head(&other), head(&digest(b"third"))), (404, 200), "the bytes are kept under their true digest");
    let long = "a".repeat(64);
    for bad in [
        "sha256:..%2f..%2fetc%2fpasswd",
        "sha256:%2e%2e",
        "sha256:",
        "md5:00",
        "sha256%3a%00",
        &format!("sha256:{}", &long[1..]),
        &format!("sha256:{long}a"),
        &format!("sha256:{long}%0a"),
        &format!("SHA256:{long}"),
        &format!("sha512:{long}"),
        &format!("sha256:{}g", &long[1..]),
        "..",
        "%5c..%5c",
        "sha256:%252e%252e",
        &format!("sha256:{long}%00"),
    ] {
        assert_eq!(head(bad), 400, "{bad}");
        upload(&d, bad, b"x").is_error(400, "invalid digest format");
    }
    assert_eq!(head("a/b"), 404, "a path of two segments is another path");
    // Four begun and never finished are all that one client gets; they leave nothing.
    let begun: Vec<_> = (0..4u8)
        .map(|i| {
            let head = format!("POST /api/blobs/{} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nx", digest(&[i]));
            let mut stream = std::net::TcpStream::connect(&d.address).unwrap();
            std::io::Write::write_all(&mut stream, head.as_bytes()).unwrap();
            stream
        })
        .collect();
    eventually("four uploads", || (staged(&d) == 4).then_some(()));
    let fifth = upload(&d, &digest(b"fifth"), b"fifth");
    assert_eq!(fifth.status, 429);
    assert!(fifth.json()["error"].as_str().unwrap().contains("the limits are 16 and 4"), "{}", fifth.body);
    drop(begun);
    eventually("their files leaving", || (staged(&d) == 0).then_some(()));
    assert_eq!(upload(&d, &digest(b"fifth"), b"fifth").status, 201);
}

#[test]
fn b02_create_from_uploaded_weights() {
    let d = Daemon::start();
    let bytes = tiny_model(&Shape::tiny("llama"), QuantType::F16, 2).bytes();
    let hex = digest(&bytes);
    let body = json!({ "model": "fresh", "files": { "model.gguf": hex } });
    let missing = d.post("/api/create", &body);
    assert_eq!(missing.status, 500);
    assert!(missing.json()["error"].as_str().unwrap().contains("does not exist"), "{}", missing.body);
    assert_eq!(upload(&d, &hex, &bytes).status, 201);
    let all = statuses(&d.post("/api/create", &body));
    assert_eq!(
        (all[0].as_str(), &all[all.len() - 2..]),
        ("parsing GGUF", &["writing manifest".to_owned(), "success".to_owned()][..])
    );
    assert_eq!(show(&d, "fresh")["details"]["quantization_level"], "F16");
    let answer =
        d.post("/api/generate", &json!({ "model": "fresh", "prompt": "x", "stream": false, "options": { "num_predict": 2 } }));
    assert_eq!(answer.json()["eval_count"], 2);
    let whole = d.post("/api/create", &merged(&body, json!({ "stream": false })));
    assert_eq!((whole.status, whole.json()), (200, json!({ "status": "success" })));

    // Smaller weights of every kind give a model that answers.
    for (kind, level) in [
        ("q8_0", "Q8_0"),
        ("Q4_0", "Q4_0"),
        ("q4_K_M", "Q4_K_M"),
        ("Q5_K_M", "Q5_K_M"),
        ("Q6_K", "Q6_K"),
        ("Q4_K_S", "Q4_K_S"),
        ("q4_k", "Q4_K_M"),
    ] {
        let all = statuses(&d.post("/api/create", &json!({ "model": "small", "from": "fresh", "quantize": kind })));
        assert!(all.contains(&format!("quantizing F16 model to {level}")), "{all:?}");
        assert_eq!(all.last().unwrap(), "success");
        let shown = show(&d, "small");
        assert_eq!(shown["details"]["quantization_level"], level);
        assert_eq!(shown["model_info"]["llama.block_count"], 2);
        let answer = d
            .post("/api/generate", &json!({ "model": "small", "prompt": "x", "stream": false, "options": { "num_predict": 2 } }));
        assert_eq!(answer.json()["eval_count"], 2, "{kind}: {}", answer.body);
    }
    let again = d.post("/api/create", &json!({ "model": "x", "from": "small", "quantize": "Q8_0" }));
    assert!(
        again.lines().last().unwrap()["error"].as_str().unwrap().contains("only supported for F16, BF16 and F32"),
        "{}",
        again.body
    );
    assert_eq!(d.post("/api/show", &json!({ "model": "x" })).status, 404);
    assert_eq!(staged(&d), 0);
}

fn merged(base: &Value, more: Value) -> Value {
    let mut base = base.clone();
    base.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    base
}

#[test]
fn b03_g11_h03_create_from_a_model() {
    let d = Daemon::start();
    let template = "{{ if .System }}S:{{ .System }} {{ end }}{{ range .Messages }}{{ if ne .Role \"system\" }}{{ .Role }}:{{ .Content }} {{ end }}{{ end }}A:";
    d.install("plain", &tiny_model(&Shape::tiny("llama"), QuantType::Q8_0, 2).bytes());
    let body = json!({ "model": "mine", "from": "plain", "system": "Be kind.", "template": template, "license": ["one", "two"],
        "parameters": { "temperature": 0, "stop": ["END"], "num_ctx": 512 },
        "messages": [{ "role": "user", "content": "Hi" }, { "role": "assistant", "content": "Hello" }] });
    let all = statuses(&d.post("/api/create", &body));
    assert!(
        all.iter().any(|s| s.starts_with("using existing layer sha256:"))
            && all.iter().any(|s| s.starts_with("creating new layer sha256:")),
        "{all:?}"
    );
    let shown = show(&d, "mine");
    assert_eq!((&shown["system"], &shown["template"]), (&json!("Be kind."), &json!(template)));
    assert_eq!(shown["license"], "one\ntwo");
    assert_eq!(shown["messages"], body["messages"]);
    let parameters = shown["parameters"].as_str().unwrap();
    assert!(
        parameters.contains("temperature                    0") && parameters.contains("stop                           \"END\""),
        "{parameters}"
    );
    // What other programs read of a model stays with it.
    let named =
        json!({ "model": "named", "from": "mine", "renderer": "qwen3-coder", "parser": "qwen3-coder", "requires": "0.20" });
    statuses(&d.post("/api/create", &named));
    statuses(&d.post("/api/create", &json!({ "model": "renamed", "from": "named", "system": "Else." })));
    for field in ["renderer", "parser", "requires"] {
        assert_eq!(show(&d, "renamed")[field], named[field]);
    }
    // What is not said again is taken over.
    statuses(&d.post("/api/create", &json!({ "model": "yours", "from": "mine", "parameters": { "num_ctx": 256 } })));
    let inherited = show(&d, "yours");
    assert_eq!((&inherited["system"], &inherited["template"]), (&shown["system"], &shown["template"]));
    let parameters = inherited["parameters"].as_str().unwrap();
    assert!(parameters.contains("num_ctx                        256") && parameters.contains("temperature"), "{parameters}");

    let rendered = |path: &str, more: Value| {
        let reply = d.post(path, &merged(&json!({ "model": "mine", "_debug_render_only": true }), more));
        reply.json()["_debug_info"]["rendered_template"].as_str().unwrap_or_else(|| panic!("{}", reply.body)).to_owned()
    };
    assert_eq!(rendered("/api/generate", json!({ "prompt": "Bye" })), "S:Be kind. user:Hi assistant:Hello user:Bye A:");
    assert_eq!(
        rendered("/api/generate", json!({ "prompt": "Bye", "system": "Other." })),
        "S:Other. user:Hi assistant:Hello user:Bye A:"
    );
    assert_eq!(
        rendered("/api/generate", json!({ "prompt": "Bye", "template": "<{{ .Prompt }}>{{ .Response }}|" })),
        "<Hi>Hello|<Bye>"
    );
    let turns = |messages: Value| json!({ "messages": messages });
    assert_eq!(
        rendered("/api/chat", turns(json!([{ "role": "user", "content": "Bye" }]))),
        "S:Be kind. user:Hi assistant:Hello user:Bye A:"
    );
    let own = json!([{ "role": "system", "content": "Mine." }, { "role": "user", "content": "Bye" }]);
    assert_eq!(rendered("/api/chat", turns(own)), "S:Mine. user:Hi assistant:Hello user:Bye A:");
    // Where the model's own template offers tools and the Modelfile's does not, the model's own is used, and shown.
    statuses(&d.post("/api/create", &json!({ "model": "guided", "from": GUIDE, "template": template })));
    assert_eq!(show(&d, "guided")["template"], show(&d, GUIDE)["template"]);
    // Where a renderer is named, the template only stands in for it.
    let tools = format!("{template}{{{{ range .Tools }}}}{{{{ . }}}}{{{{ end }}}}");
    for (renderer, shown) in [("", json!(tools)), ("qwen3-coder", show(&d, GUIDE)["template"].clone())] {
        let body = json!({ "model": "stands-in", "from": GUIDE, "template": tools, "renderer": renderer });
        statuses(&d.post("/api/create", &body));
        assert_eq!(show(&d, "stands-in")["template"], shown, "{renderer}");
    }
    // A template of the request is checked like one of a model.
    let bad = d.post("/api/generate", &json!({ "model": GUIDE, "prompt": "x", "template": "{{ nope }}" }));
    bad.is_error(400, "template error: function \"nope\" not defined");
}

#[test]
fn g13_suffix_with_a_template_that_takes_one() {
    let d = Daemon::start();
    let template = "{{- if .Suffix }}<PRE>{{ .Prompt }}<SUF>{{ .Suffix }}<MID>{{ else }}{{ .Prompt }}{{ end }}";
    statuses(&d.post("/api/create", &json!({ "model": "coder", "from": GUIDE, "template": template })));
    // The guide's own template offers tools, which this one does not, so it stays in use.
    assert!(!show(&d, "coder")["capabilities"].as_array().unwrap().contains(&json!("insert")));
    let plain = tiny_model(&Shape::tiny("llama"), QuantType::Q8_0, 2).bytes();
    d.install("plain", &plain);
    statuses(&d.post("/api/create", &json!({ "model": "coder", "from": "plain", "template": template })));
    assert!(show(&d, "coder")["capabilities"].as_array().unwrap().contains(&json!("insert")));
    let gap = json!({ "model": "coder", "prompt": "a = ", "suffix": "\nb", "stream": false, "options": { "num_predict": 2 } });
    let answer = d.post("/api/generate", &gap).json();
    assert_eq!(answer["eval_count"], 2, "{answer}");
    // Bytes of "<PRE>a = <SUF>\nb<MID>", each a token of this vocabulary.
    assert_eq!(answer["prompt_eval_count"], 21);
    let shown = d.post("/api/generate", &merged(&gap, json!({ "_debug_render_only": true }))).json();
    assert_eq!(shown["_debug_info"]["rendered_template"], "<PRE>a = <SUF>\nb<MID>");
}

#[test]
fn b04_c12_c14_what_cannot_be_created() {
    let d = Daemon::start();
    let refused = |more: Value, status: u16, message: &str| {
        let reply = d.post("/api/create", &merged(&json!({ "model": "new" }), more));
        assert_eq!((reply.status, reply.json()["error"].as_str().unwrap()), (status, message));
        assert_eq!(d.post("/api/show", &json!({ "model": "new" })).status, 404);
    };
    refused(json!({}), 400, "neither 'from' or 'files' was specified");
    refused(json!({ "from": GUIDE, "template": "{{ if }}" }), 400, "template error: missing value for command, found \"}}\"");
    for path in ["/etc/passwd", "/dev/zero", "/dev/random", "../x", "/proc/self/mem"] {
        refused(json!({ "from": path }), 400, "invalid model name");
    }
    let zeros = format!("sha256:{}", "0".repeat(64));
    refused(json!({ "files": { "/etc/passwd": zeros } }), 400, "file path must be relative");
    refused(json!({ "files": { "a/../../b": zeros } }), 400, "file path must be relative");
    refused(json!({ "files": { "a.gguf": "" } }), 400, "invalid digest format");
    refused(json!({ "files": { "a.gguf": "sha256:../../x" } }), 400, "invalid digest format");
    refused(json!({ "files": { "a.gguf": zeros, "b.gguf": zeros } }), 400, "2 files were given, needed is one GGUF file");
    let kinds = "unsupported quantization type Q3 - supported types are F16, Q8_0, Q4_0, Q4_K_S, Q4_K_M, Q5_K_M, Q6_K";
    refused(json!({ "from": GUIDE, "quantize": "Q3" }), 400, kinds);
    refused(
        json!({ "from": GUIDE, "parameters": { "temperature": "hot" } }),
        500,
        "option \"temperature\" must be of type float32",
    );
    refused(
        json!({ "from": GUIDE, "adapters": { "a": zeros } }),
        400,
        "adapters are not supported: a model has one file of weights",
    );
    let hex = digest(b"no model");
    upload(&d, &hex, b"no model");
    let reply = d.post("/api/create", &json!({ "model": "new", "files": { "a.gguf": hex } }));
    assert!(
        reply.lines().last().unwrap()["error"].as_str().unwrap().starts_with("supplied file was not in GGUF format"),
        "{}",
        reply.body
    );
    d.post("/api/create", &json!({ "model": "../x", "from": GUIDE })).is_error(400, "invalid model name");
    // A model made of itself stays what it is.
    let before = show(&d, GUIDE);
    statuses(&d.post("/api/create", &json!({ "model": GUIDE, "from": GUIDE })));
    assert_eq!(show(&d, GUIDE)["model_info"], before["model_info"]);
    assert_eq!(
        d.post("/api/chat", &json!({ "model": GUIDE, "messages": [{ "role": "user", "content": "hi" }], "stream": false }))
            .status,
        200
    );
}

#[test]
fn routes_of_an_account_and_a_cloud_that_are_not_there() {
    let d = Daemon::start();
    d.send("POST", "/api/me", &[], "").is_error(503, "account unavailable");
    d.send("POST", "/api/signout", &[], "").is_error(401, "you are not currently signed in");
    d.send("DELETE", "/api/user/keys/x", &[], "").is_error(401, "you are not currently signed in");
    d.post("/api/experimental/web_search", &json!({ "query": "x" }))
        .is_error(403, "ollama cloud is disabled: web search is unavailable");
    d.post("/api/experimental/web_fetch", &json!({ "url": "x" }))
        .is_error(403, "ollama cloud is disabled: web fetch is unavailable");
    d.send("POST", "/api/experimental/web_search", &[], "").is_error(400, "missing request body");
    assert_eq!(d.get("/api/experimental/model-recommendations").json()["recommendations"][0]["model"], GUIDE);
    d.post("/api/push", &json!({})).is_error(400, "model is required");
    for name in [GUIDE, "nope"] {
        d.post("/api/push", &json!({ "model": name })).is_error(403, "push is not supported: models stay on this machine");
    }
}

/// An owner may prefer the templates in model files to those of Modelfiles.
#[test]
fn go_templates_can_be_switched_off() {
    let rendered = |variables: &[(&str, &str)]| {
        let d = Daemon::start_with(variables);
        let made = d.post(
            "/api/create",
            &json!({ "model": "mine", "from": "lantern-guide", "stream": false,
            "template": "{{ range .Messages }}GO {{ .Content }}{{ end }}{{ range .Tools }}{{ . }}{{ end }}" }),
        );
        assert_eq!(made.status, 200, "{}", made.body);
        let messages = json!([{ "role": "user", "content": "Hi" }]);
        let reply = d.post("/api/chat", &json!({ "model": "mine", "messages": messages, "_debug_render_only": true }));
        reply.json()["_debug_info"]["rendered_template"].as_str().unwrap().to_owned()
    };
    assert_eq!(rendered(&[]), "GO Hi");
    assert!(rendered(&[("OLLAMA_GO_TEMPLATE", "false")]).contains("<|im_start|>user\nHi"));
}
