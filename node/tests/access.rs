//! Who may: tokens, browsers and names (rows H of the bad-input matrix), against the real binary.

#![allow(clippy::unwrap_used, reason = "tests")]

mod daemon;

use std::io::Read;
use std::net::TcpStream;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use daemon::{Daemon, Reply, command, endless, eventually};
use jiff::{Timestamp, ToSpan};
use serde_json::{Value, json};
use store::{Access, Store};

/// Every route with a body it understands, and whether it changes something.
const ROUTES: [(&str, &str, bool); 37] = [
    ("GET", "/", false),
    ("GET", "/openapi.json", false),
    ("GET", "/api/version", false),
    ("GET", "/api/status", false),
    ("GET", "/api/tags", false),
    ("GET", "/api/ps", false),
    ("POST", "/api/show", false),
    ("POST", "/api/generate", false),
    ("POST", "/api/chat", false),
    ("POST", "/api/embed", false),
    ("POST", "/api/embeddings", false),
    ("POST", "/api/me", false),
    ("POST", "/api/signout", false),
    ("DELETE", "/api/user/keys/x", false),
    ("POST", "/api/experimental/web_search", false),
    ("POST", "/api/experimental/web_fetch", false),
    ("GET", "/api/experimental/model-recommendations", false),
    ("POST", "/v1/chat/completions", false),
    ("POST", "/v1/completions", false),
    ("POST", "/v1/embeddings", false),
    ("POST", "/v1/responses", false),
    ("POST", "/v1/audio/transcriptions", false),
    ("POST", "/v1/messages", false),
    ("GET", "/v1/models", false),
    ("GET", "/v1/models/x", false),
    ("GET", "/api/v0/models", false),
    ("GET", "/api/v0/models/x", false),
    ("POST", "/api/v0/chat/completions", false),
    ("POST", "/api/v0/completions", false),
    ("POST", "/api/v0/embeddings", false),
    ("POST", "/api/copy", true),
    ("DELETE", "/api/delete", true),
    ("POST", "/api/pull", true),
    ("POST", "/api/create", true),
    ("POST", "/api/push", true),
    ("HEAD", "/api/blobs/x", true),
    ("POST", "/api/blobs/x", true),
];

fn token(d: &Daemon, name: &str, access: Access, now: Timestamp) -> String {
    Store::open(&d.models.path().join("state")).unwrap().create_token(name, access, 1, now).unwrap().text
}

fn with(d: &Daemon, (method, path, _): (&str, &str, bool), token: &str) -> Reply {
    let bearer = format!("Bearer {token}");
    let headers: &[(&str, &str)] = if token.is_empty() { &[] } else { &[("Authorization", &bearer)] };
    d.send(method, path, headers, r#"{"model":"","name":""}"#)
}

fn message(reply: &Reply) -> String {
    let body = reply.json();
    body["error"].as_str().or(body["error"]["message"].as_str()).unwrap_or_else(|| panic!("{body}")).to_owned()
}

#[test]
fn h04_h06_tokens_for_everything() {
    let d = Daemon::start_with(&[("LANTERN_ACCESS", "tokens")]);
    let now = Timestamp::now();
    let [read, write, admin] =
        [("r", Access::Read), ("w", Access::Write), ("a", Access::Admin)].map(|(n, a)| token(&d, n, a, now));
    let expired = token(&d, "old", Access::Admin, now - 48.hours());
    for route in ROUTES {
        let (method, path, changes) = route;
        let is_head = method == "HEAD";
        for (given, status, part) in [
            ("", 401, "a token with mcp:"),
            ("anything", 401, "a token with mcp:"),
            (&format!("ltn_{}", "0".repeat(64)), 401, "unknown or has expired"),
            (&expired, 401, "unknown or has expired"),
        ] {
            let reply = with(&d, route, given);
            assert_eq!((reply.status, reply.header("www-authenticate")), (status, Some("Bearer")), "{method} {path} {given}");
            assert!(is_head || message(&reply).contains(part), "{method} {path}: {}", reply.body);
            let shape = if is_head { Value::Null } else { reply.json() };
            let kind = &shape["error"]["type"];
            match path {
                "/v1/messages" => assert_eq!(kind, "authentication_error"),
                path if path.starts_with("/v1/") || path.starts_with("/api/v0/") => assert_eq!(kind, "api_error"),
                _ => assert!(is_head || shape["error"].is_string()),
            }
        }
        let read = with(&d, route, &read);
        assert_eq!(
            read.status == 403 && (is_head || message(&read).contains("mcp:write is needed")),
            changes,
            "{method} {path}: {}",
            read.body
        );
        for strong in [&write, &admin] {
            let reply = with(&d, route, strong);
            let refused = reply.status == 401 && path != "/api/signout" && !path.contains("keys");
            assert!(!refused && !reply.body.contains("does not reach"), "{method} {path}: {} {}", reply.status, reply.body);
        }
    }
    // Anthropic's clients send it in a header of their own.
    let body = json!({ "model": "lantern-guide", "max_tokens": 3, "messages": [{ "role": "user", "content": "x" }] }).to_string();
    assert_eq!(d.send("POST", "/v1/messages", &[("x-api-key", &read)], &body).status, 200);
    let both = [("Authorization", "Bearer sk-of-another-service"), ("x-api-key", read.as_str())];
    assert_eq!(d.send("POST", "/v1/messages", &both, &body).status, 200);
    let with_read = format!("bearer {read}");
    assert_eq!(d.send("GET", "/api/tags", &[("Authorization", &with_read)], "").status, 200);
    Store::open(&d.models.path().join("state")).unwrap().revoke_token("r").unwrap();
    assert_eq!(d.send("GET", "/api/tags", &[("Authorization", &with_read)], "").status, 401, "revoked while the daemon runs");
}

/// Tokens here are opaque. What looks like one with claims is unknown, whatever it claims and however it is signed.
#[test]
fn h05_tokens_with_claims() {
    let d = Daemon::start_with(&[("LANTERN_ACCESS", "tokens")]);
    let part = |value: Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let claims = part(json!({ "sub": "admin", "scope": "mcp:admin", "exp": 4_102_444_800u64 }));
    let forged = |head: Value, signature: &str| format!("{}.{claims}.{signature}", part(head));
    for token in [
        forged(json!({ "alg": "none" }), ""),
        forged(json!({ "alg": "HS256", "typ": "JWT" }), &BASE64_URL_SAFE_NO_PAD.encode([7; 32])),
        forged(json!({ "alg": "RS256", "kid": "../../../../dev/null" }), &BASE64_URL_SAFE_NO_PAD.encode([7; 256])),
        forged(json!({ "alg": "RS256", "jku": "http://127.0.0.1:1/keys.json" }), &BASE64_URL_SAFE_NO_PAD.encode([7; 256])),
        format!("ltn_{}", forged(json!({ "alg": "none" }), "")),
    ] {
        for header in ["Authorization", "x-api-key"] {
            let value = if header == "Authorization" { format!("Bearer {token}") } else { token.clone() };
            let reply = d.send("GET", "/api/tags", &[(header, &value)], "");
            assert_eq!(reply.status, 401, "{header}: {token}: {}", reply.body);
            assert!(!reply.body.contains(&claims), "a token is not repeated");
        }
    }
    // A mebibyte of token is more than a head may have.
    let long = format!("Bearer {}", "x".repeat(1 << 20));
    let mut told = String::new();
    _ = d.open("GET", "/api/tags", &[("Authorization", &long)], b"").read_to_string(&mut told);
    assert!(told.is_empty() || told.starts_with("HTTP/1.1 431"), "{told}");
}

#[test]
fn r11_h02_h03_h09_browsers_and_other_keys() {
    let d = Daemon::start();
    let delete = |headers: &[(&str, &str)]| d.send("DELETE", "/api/delete", headers, r#"{"model":"nope"}"#);
    assert_eq!(delete(&[]).status, 404, "this machine's user may");
    assert_eq!(
        delete(&[("Authorization", "Bearer sk-of-another-service")]).status,
        404,
        "and keys of other services mean nothing"
    );
    let page = ("Origin", "http://localhost:3000");
    let own = format!("http://{}", d.address);
    for mark in [page, ("Origin", own.as_str()), ("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Site", "none")] {
        let refused = delete(&[mark]);
        assert_eq!((refused.status, message(&refused).contains("mcp:write")), (401, true), "{mark:?}");
        assert_eq!(d.send("GET", "/api/tags", &[mark], "").status, 200, "{mark:?} may use");
    }
    for refused in ["http://evil.example", "null"] {
        assert_eq!(delete(&[("Origin", refused)]).status, 403);
    }
    let bearer = format!("Bearer {}", token(&d, "page", Access::Write, Timestamp::now()));
    let allowed = ("Authorization", bearer.as_str());
    assert_eq!(delete(&[page, allowed, ("Content-Type", "application/json")]).status, 404);
    for simple in ["text/plain", "application/x-www-form-urlencoded;charset=utf-8", "multipart/form-data; boundary=x"] {
        assert_eq!(delete(&[page, allowed, ("Content-Type", simple)]).status, 415, "{simple}");
    }
    assert_eq!(delete(&[page, allowed]).status, 415, "no type at all is as simple");
    let in_query = d.get(&format!("/api/tags?token={}", bearer.trim_start_matches("Bearer ")));
    in_query.is_error(400, "a token belongs in the Authorization header, where no log writes it down");
}

#[test]
fn h01_names() {
    for host in ["127.0.0.1:0", "0.0.0.0:0"] {
        let d = Daemon::start_with(&[("OLLAMA_HOST", host), ("LANTERN_NAMES", "ai.example.org, box.example")]);
        let status = |host: &str| d.send("GET", "/api/version", &[("Host", host)], "").status;
        for allowed in [
            "localhost",
            "127.0.0.1:11434",
            "192.168.1.7",
            "[::1]",
            "pi.local",
            "x.internal",
            "AI.example.org:80",
            "box.example",
            "8.8.8.8",
            "[2001:db8::1]:80",
        ] {
            assert_eq!(status(allowed), 200, "{allowed} at {host}");
        }
        for refused in ["evil.example", "ai.example.org.evil.example", "8.8.8.8.evil.example", "local"] {
            assert_eq!(status(refused), 403, "{refused} at {host}");
        }
    }
    let open = Daemon::start_with(&[("LANTERN_ACCESS", "open")]);
    assert_eq!(open.send("GET", "/api/version", &[("Host", "evil.example")], "").status, 403, "also where everything is open");
}

#[test]
fn tokens_on_the_command_line() {
    let d = Daemon::start_with(&[("LANTERN_ACCESS", "tokens")]);
    let run = |arguments: &[&str], token: &str| {
        let done =
            command(d.models.path()).env("OLLAMA_HOST", &d.address).env("LANTERN_TOKEN", token).args(arguments).output().unwrap();
        (done.status.code().unwrap(), String::from_utf8(done.stdout).unwrap(), String::from_utf8(done.stderr).unwrap())
    };
    let (code, text, told) = run(&["token", "create", "laptop", "--days", "7"], "");
    assert!(code == 0 && text.starts_with("ltn_") && told.contains("only time the token is shown"), "{text} {told}");
    let (code, _, told) = run(&["token", "create", "laptop"], "");
    assert!(code == 1 && told.contains("\"laptop\" exists already"), "{told}");
    let (code, _, told) = run(&["token", "create", "x", "--scope", "everything"], "");
    assert!(code == 1 && told.contains("needed is read, write or admin"), "{told}");
    let (code, _, told) = run(&["list"], "");
    assert!(code == 1 && told.contains("a token with mcp:read is needed"), "{told}");
    let (code, listed, _) = run(&["list"], text.trim());
    assert!(code == 0 && listed.contains("lantern-guide"), "{listed}");
    let (_, listed, _) = run(&["token", "list"], "");
    assert!(listed.contains("laptop    mcp:write") && !listed.contains("ltn_"), "{listed}");
    let listed: Value = serde_json::from_str(&run(&["token", "list", "--json"], "").1).unwrap();
    assert!(listed["tokens"][0]["last_used"].is_string(), "{listed}");
    assert_eq!(run(&["token", "revoke", "laptop"], "").1, "revoked laptop\n");
    let (code, _, told) = run(&["token", "revoke", "laptop"], "");
    assert!(code == 1 && told.contains("no token is named \"laptop\""), "{told}");
    assert_eq!(run(&["list"], text.trim()).0, 1);
}

/// A client runs so many requests and has so many waiting, whatever there is room for; others are served meanwhile.
#[test]
fn g_one_client_has_its_bounds() {
    let bounds = [("LANTERN_CLIENT_RUNNING", "2"), ("LANTERN_CLIENT_WAITING", "3"), ("OLLAMA_NUM_PARALLEL", "8")];
    let d = Daemon::start_with(&bounds);
    endless(&d, "endless");
    let busy = token(&d, "busy", Access::Read, Timestamp::now());
    let bearer = format!("Bearer {busy}");
    let headers = [("Authorization", bearer.as_str())];
    let body = json!({ "model": "endless", "prompt": "x", "options": { "num_predict": 100_000, "num_ctx": 2048 } }).to_string();
    let ask = |path: &str| d.open("POST", path, &headers, body.as_bytes());
    let mut running = [ask("/api/generate"), ask("/api/generate")];
    running.iter_mut().for_each(|stream| assert_eq!(stream.read(&mut [0; 12]).unwrap(), 12));
    // Three wait. Which of these is one too many is for the server to say.
    let mut more: Vec<TcpStream> = (0..4).map(|_| ask("/v1/completions")).collect();
    more.iter().for_each(|stream| stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap());
    let refused = eventually("a refusal", || {
        more.iter_mut().find_map(|stream| {
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).ok().map(|_| Reply::parse(&bytes))
        })
    });
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("1")));
    let told = refused.json()["error"]["message"].as_str().unwrap().to_owned();
    assert_eq!(told, "3 requests of yours are waiting already; send more when some have been answered");
    let other = d.post(
        "/api/generate",
        &json!({ "model": "endless", "prompt": "x", "stream": false, "options": { "num_predict": 3, "num_ctx": 2048 } }),
    );
    assert_eq!(other.status, 200, "another client is served: {}", other.body);
}

/// Behind a proxy on this machine everybody seems to be on this machine.
#[test]
fn callers_behind_a_proxy() {
    let from =
        |d: &Daemon, method: &str, path: &str, headers: &[(&str, &str)]| d.send(method, path, headers, r#"{"model":"x"}"#).status;
    let standard = Daemon::start();
    for (header, value, uses, changes) in [
        ("X-Forwarded-For", "192.168.1.7", 200, 401),
        ("X-Forwarded-For", "127.0.0.1", 200, 401),
        ("X-Forwarded-For", "127.0.0.1, 203.0.113.5", 403, 403),
        ("Via", "1.1 box", 403, 403),
    ] {
        let found = (
            from(&standard, "GET", "/api/tags", &[(header, value)]),
            from(&standard, "DELETE", "/api/delete", &[(header, value)]),
        );
        assert_eq!(found, (uses, changes), "{header}: {value}");
    }
    let tokens = Daemon::start_with(&[("LANTERN_ACCESS", "tokens")]);
    let bearer = format!("Bearer {}", token(&tokens, "far", Access::Read, Timestamp::now()));
    let far = ("X-Forwarded-For", "203.0.113.5");
    assert_eq!(from(&tokens, "GET", "/api/tags", &[far]), 401);
    assert_eq!(from(&tokens, "GET", "/api/tags", &[far, ("Authorization", &bearer)]), 200);
}
