//! The command line as a user has it: output, JSON, pipes, exit codes and error texts.

#![allow(clippy::unwrap_used, reason = "tests")]

mod daemon;

use std::io::Write;
use std::process::{Output, Stdio};

use daemon::{Daemon, command};
use kernels::QuantType;
use serde_json::Value;
use testkit::{Shape, tiny_model};

/// A command against a daemon.
fn lantern(d: &Daemon, arguments: &[&str], input: &str) -> Output {
    let mut command = command(d.models.path());
    let mut child = command
        .env("OLLAMA_HOST", &d.address)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn out(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// A failure with this exit code and a reason that says `part`.
fn fails(output: &Output, code: i32, part: &str) {
    let reason = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{reason}");
    assert!(reason.contains(part), "{reason:?} does not say {part:?}");
}

#[test]
fn models_that_can_be_pulled_are_listed() {
    let d = Daemon::start();
    let table = out(&lantern(&d, &["models"], ""));
    assert!(table.contains("qwen3:0.6b") && table.contains("Apache-2.0") && table.contains("* estimated"), "{table}");
    out(&lantern(&d, &["cp", "lantern-guide", "qwen3:0.6b"], ""));
    let listed: Value = serde_json::from_str(&out(&lantern(&d, &["models", "--json"], ""))).unwrap();
    let offer = |name: &str| listed["models"].as_array().unwrap().iter().find(|m| m["name"] == name).unwrap().clone();
    assert_eq!((&offer("qwen3:0.6b")["installed"], &offer("qwen3:4b")["installed"]), (&true.into(), &false.into()));
    assert_eq!(offer("qwen3:4b")["sha256"].as_str().map(str::len), Some(64));
}

#[test]
fn commands_talk_to_the_daemon() {
    let d = Daemon::start();
    assert!(out(&lantern(&d, &["list"], "")).contains("lantern-guide:latest"));
    assert!(out(&lantern(&d, &["run", "lantern-guide", "Who are you?"], "")).contains("lantern-guide"));
    assert!(
        out(&lantern(&d, &["run", "lantern-guide"], "What is MCP?\n")).contains("Model Context Protocol"),
        "a pipe is the prompt"
    );
    assert!(out(&lantern(&d, &["ps"], "")).contains("lantern-guide:latest"));
    let ps: Value = serde_json::from_str(&out(&lantern(&d, &["ps", "--json"], ""))).unwrap();
    assert_eq!(ps["models"][0]["name"], "lantern-guide:latest");
    assert_eq!(out(&lantern(&d, &["stop", "lantern-guide"], "")), "stopped lantern-guide\n");
    assert!(!out(&lantern(&d, &["ps"], "")).contains("lantern-guide"));
    let show = out(&lantern(&d, &["show", "lantern-guide"], ""));
    assert!(show.contains("qwen3") && show.contains("Q8_0") && show.contains("2048") && show.contains("MIT"), "{show}");
    assert_eq!(out(&lantern(&d, &["cp", "lantern-guide", "other"], "")), "copied lantern-guide to other\n");
    assert_eq!(out(&lantern(&d, &["rm", "other"], "")), "deleted other\n");
    fails(&lantern(&d, &["rm", "other"], ""), 1, "model 'other' not found");
    fails(&lantern(&d, &["run", "nothing", "x"], ""), 1, "model 'nothing' not found");
    fails(&lantern(&d, &["rum"], ""), 2, "unrecognized subcommand");
}

#[test]
fn bench_measures_a_model_or_a_file() {
    let d = Daemon::start();
    let small = ["--prompts", "32", "--depths", "0,8", "--decode", "4", "--runs", "1", "--threads", "1"];
    let table = out(&lantern(&d, &[&["bench", "lantern-guide"][..], &small].concat(), ""));
    for part in [
        "prefill of 32, tokens/s",
        "decode after 8, tokens/s",
        "4 sessions together",
        "all of 7 guesses right",
        "% of the bandwidth",
        "opening, ms",
    ] {
        assert!(table.contains(part), "{part} is not in {table}");
    }
    let guide = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/lantern-guide.gguf");
    let all = [&["bench", guide, "--json", "--lookup"][..], &small].concat();
    let json: Value = serde_json::from_str(&out(&lantern(&d, &all, ""))).unwrap();
    for (i, task) in ["summary", "edit", "JSON"].into_iter().enumerate() {
        let measured = &json["lookup"][i];
        assert_eq!(measured["task"], task);
        assert!(measured["tps"].as_f64() > Some(0.0), "{measured}");
        // Every answer repeats much of its prompt, and no guess beyond an answer's end counts.
        let [n_accepted, n_drafted, n_answer] =
            ["n_accepted", "n_drafted", "n_answer"].map(|key| measured[key].as_u64().unwrap());
        assert!(n_accepted > n_answer / 3, "{measured}");
        assert!(n_accepted <= n_drafted.min(n_answer - 1), "{measured}");
    }
    assert!(json["prefill"][0]["tps"].as_f64().unwrap() > 0.0 && json["decode"][1]["depth"] == 8, "{json}");
    assert!(json["read_gb_s"].as_f64().unwrap() > 0.0 && json["anonymous_mb"].as_f64().unwrap() > 0.0, "{json}");
    assert!(json["guessed"]["tps"].as_f64().unwrap() > 0.0, "{json}");
    fails(&lantern(&d, &["bench", "nothing"], ""), 1, "model nothing:latest not found");
    fails(&lantern(&d, &["bench", guide, "--runs", "0"], ""), 1, "--runs, --decode and --prompts must be above 0");
    // The lengths nobody asked for are those that fit: the guide takes 2048 tokens.
    let usual = out(&lantern(&d, &["bench", guide, "--sessions", "0", "--decode", "1", "--runs", "1", "--threads", "1"], ""));
    assert!(usual.contains("decode after 512,"), "{usual}");
    assert!(!usual.contains("decode after 2048,"), "{usual}");
    fails(&lantern(&d, &["bench", guide, "--depths", "9999"], ""), 1, "the model was trained on 2048");
}

#[test]
fn a_pull_without_a_network_says_so() {
    let d = Daemon::start_with(&[("LANTERN_REGISTRY", "http://127.0.0.1:1")]);
    fails(&lantern(&d, &["pull", "qwen3:0.6b"], ""), 1, "cannot pull qwen3:0.6b: cannot reach the registry: Connection refused");
    fails(&lantern(&d, &["pull", "a b"], ""), 1, "invalid model name");
    fails(
        &lantern(&d, &["pull", "example.org/a/b"], ""),
        1,
        "models are pulled from registry.ollama.ai and hf.co only, not from example.org",
    );
    assert_eq!(d.post("/api/pull", &serde_json::json!({ "model": "x", "stream": false })).status, 502);
}

#[test]
fn json_answers_parse() {
    let d = Daemon::start();
    let json = |arguments: &[&str]| -> Value { serde_json::from_str(&out(&lantern(&d, arguments, ""))).unwrap() };
    assert_eq!(json(&["list", "--json"])["models"].as_array().unwrap().len(), 1);
    assert_eq!(json(&["show", "lantern-guide", "--json"])["details"]["family"], "qwen3");
    assert_eq!(json(&["cp", "lantern-guide", "b", "--json"])["destination"], "b");
    assert_eq!(json(&["rm", "b", "--json"])["deleted"], "b");
    let doctor = json(&["doctor", "--json"]);
    for part in ["processor", "kernels", "memory", "disk", "models", "meters", "clock"] {
        assert!(doctor[part]["found"].is_string(), "{part}");
    }
    let lines = out(&lantern(&d, &["run", "lantern-guide", "Hello", "--json"], ""));
    let last: Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
    assert_eq!(last["done"], true);
}

#[test]
fn commands_work_without_a_daemon() {
    let models = tempfile::tempdir().unwrap();
    let alone = |arguments: &[&str]| {
        command(models.path()).env("OLLAMA_HOST", "127.0.0.1:1").args(arguments).stdin(Stdio::null()).output().unwrap()
    };
    assert!(out(&alone(&["list"])).contains("lantern-guide:latest"), "an empty store gets the guide");
    assert!(out(&alone(&["run", "lantern-guide", "Who are you?"])).contains("lantern-guide"));
    fails(&alone(&["ps"]), 1, "no server answers at http://127.0.0.1:1");
    let model = models.path().join("Tiny.gguf");
    std::fs::write(&model, tiny_model(&Shape::tiny("qwen2"), QuantType::Q4_K, 1).bytes()).unwrap();
    assert!(out(&alone(&["import", model.to_str().unwrap()])).contains("imported tiny:latest"));
    assert!(out(&alone(&["list"])).contains("tiny:latest"));
    std::fs::write(&model, "<html>").unwrap();
    fails(&alone(&["import", model.to_str().unwrap()]), 1, "looks like an HTML or XML page");
    fails(&alone(&["import", "/nowhere.gguf"]), 1, "cannot open /nowhere.gguf");
}

#[test]
fn settings_are_checked_before_a_port_opens() {
    let models = tempfile::tempdir().unwrap();
    let serve = |name: &str, value: &str| command(models.path()).env(name, value).arg("serve").output().unwrap();
    fails(&serve("OLLAMA_ORIGINS", "chat.example"), 1, "origin \"chat.example\" must begin with");
    fails(&serve("OLLAMA_MAX_QUEUE", "many"), 1, "OLLAMA_MAX_QUEUE is \"many\"");
    fails(&serve("OLLAMA_KV_CACHE_TYPE", "q2_0"), 1, "OLLAMA_KV_CACHE_TYPE is q2_0, needed is f16 or q8_0");
    fails(&serve("OLLAMA_KEEP_ALIVE", "soon"), 1, "OLLAMA_KEEP_ALIVE cannot be used");
    let d = Daemon::start();
    fails(&serve("OLLAMA_HOST", &d.address), 1, "is another server running there?");
}

#[test]
fn help_teaches() {
    let models = tempfile::tempdir().unwrap();
    let help = out(&command(models.path()).arg("--help").output().unwrap());
    for part in ["Examples:", "OLLAMA_MODELS", "Exit codes", "import"] {
        assert!(help.contains(part), "{part}");
    }
}

/// A models folder that another program wrote is served as it is.
#[test]
fn a_copied_store_is_served() {
    let d = Daemon::start();
    let copy = tempfile::tempdir().unwrap();
    let done = std::process::Command::new("cp")
        .args(["-r", d.models.path().to_str().unwrap(), copy.path().join("m").to_str().unwrap()])
        .status()
        .unwrap();
    assert!(done.success());
    let listed = command(&copy.path().join("m")).env("OLLAMA_HOST", "127.0.0.1:1").args(["list", "--json"]).output().unwrap();
    let listed: Value = serde_json::from_str(&out(&listed)).unwrap();
    assert_eq!(listed["models"][0]["digest"], d.get("/api/tags").json()["models"][0]["digest"]);
}

#[test]
fn threads_are_measured_once() {
    let cache = tempfile::tempdir().unwrap();
    let file = cache.path().join("lantern/threads.json");
    let start = || {
        let d = Daemon::start_with(&[("LANTERN_THREADS", ""), ("XDG_CACHE_HOME", cache.path().to_str().unwrap())]);
        assert!(d.stop());
        serde_json::from_str::<Value>(&std::fs::read_to_string(&file).unwrap()).unwrap()
    };
    let measured = start();
    assert!(measured["prefill"].as_u64().unwrap() > 0 && measured["decode"].as_u64().unwrap() > 0, "{measured}");
    // A number that no measure gives is kept, so nothing was measured again.
    let with = |key: &str, value: Value| {
        let mut other = measured.clone();
        other[key] = value;
        std::fs::write(&file, other.to_string()).unwrap();
    };
    with("prefill", 77.into());
    assert_eq!(start()["prefill"], 77);
    // Another machine's, or one that cannot be meant.
    with("machine", "another".into());
    assert_eq!(start()["machine"], measured["machine"]);
    with("decode", 0.into());
    assert_ne!(start()["decode"], 0);
    std::fs::write(&file, "{").unwrap();
    assert_eq!(start()["machine"], measured["machine"]);
}

#[test]
fn threads_must_be_a_number() {
    let models = tempfile::tempdir().unwrap();
    let output = command(models.path()).env("LANTERN_THREADS", "many").arg("serve").output().unwrap();
    fails(
        &output,
        1,
        "LANTERN_THREADS is \"many\", needed is a number such as 4, or one for prompts and one for answers such as 4/3",
    );
}

#[test]
fn create_follows_a_modelfile() {
    let (models, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let bytes = testkit::tiny_model(&testkit::Shape::tiny("llama"), kernels::QuantType::F16, 7).bytes();
    std::fs::write(folder.path().join("tiny.gguf"), bytes).unwrap();
    let run = |modelfile: &str, more: &[&str]| {
        let file = folder.path().join("Modelfile");
        std::fs::write(&file, modelfile).unwrap();
        let done = command(models.path()).args(["create", "mine", "-f"]).arg(&file).args(more).output().unwrap();
        (done.status.code().unwrap(), String::from_utf8(done.stdout).unwrap(), String::from_utf8(done.stderr).unwrap())
    };
    let (code, out, told) = run("FROM ./tiny.gguf\nSYSTEM Be kind.\nPARAMETER num_ctx 512\n", &["--quantize", "q8_0"]);
    assert_eq!((code, out.as_str()), (0, "created mine; try: lantern run mine\n"), "{told}");
    let shown = command(models.path()).args(["show", "mine", "--json"]).output().unwrap();
    let shown: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!((&shown["system"], &shown["details"]["quantization_level"]), (&"Be kind.".into(), &"Q8_0".into()));
    let (code, out, told) = run("FROM mine\nSYSTEM Be brief.\n", &["--json"]);
    assert!(code == 0 && out.trim_end().ends_with("{\"status\":\"success\"}"), "{out} {told}");
    for (modelfile, part) in [
        ("FROM ./nope.gguf", "there is no such file beside"),
        ("FROM nope", "cannot create mine"),
        ("SYSTEM x", "no FROM line"),
        ("FROM mine\nTEMPLATE {{ if }}", "template error"),
    ] {
        let (code, _, told) = run(modelfile, &[]);
        assert!(code == 1 && told.contains(part), "{modelfile}: {told}");
    }
}
