//! Logits and greedy tokens agree with llama.cpp's, stored by `scripts/golden/logits.py`, for tiny seeded models of every
//! family and quant type and for the guide.
//!
//! llama.cpp rounds activations to 8 bits as we do but sums in other orders and keeps some factors in other precisions; for
//! F16 it also rounds the activations themselves to f16. Random models amplify such differences, so logits are held to 5 %
//! of their spread (root mean square). Greedy tokens must be equal as long as llama.cpp's best token leads the next by more
//! than that bound; the first choice that is closer ends the comparison of a model, as the texts may part there.

#![allow(clippy::unwrap_used, reason = "tests")]

use engine::{KvType, Level, Model, Pool, QuantType, Session, Slice, step};
use serde_json::Value;
use std::path::{Path, PathBuf};
use testkit::{Shape, tiny_model};

const BOUND: f64 = 0.05;

fn fixture() -> Value {
    serde_json::from_str(include_str!("fixtures/llama_cpp.json")).unwrap()
}

/// Name, bytes: what the fixture was made from.
fn models() -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    for family in ["llama", "qwen2", "qwen3"] {
        for quant in QuantType::ALL {
            let shape = Shape { untied: family == "llama", ..Shape::tiny(family) };
            all.push((format!("{family}-{quant}"), tiny_model(&shape, quant, 11).bytes()));
        }
    }
    let shape = Shape { untied: true, rope_factors: true, ..Shape::tiny("llama") };
    all.push(("llama-rope-factors".into(), tiny_model(&shape, QuantType::Q8_0, 12).bytes()));
    all
}

fn guide() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/lantern-guide.gguf")
}

/// Writes the models for the script when `LANTERN_GOLDEN_MODELS` names a folder; checks that they can be opened otherwise.
#[test]
fn write_models() {
    let given = std::env::var_os("LANTERN_GOLDEN_MODELS").map(PathBuf::from);
    let scratch = tempfile::tempdir().unwrap();
    let folder = given.unwrap_or_else(|| scratch.path().into());
    std::fs::copy(guide(), folder.join("lantern-guide.gguf")).unwrap();
    for (name, bytes) in models() {
        let path = folder.join(format!("{name}.gguf"));
        std::fs::write(&path, bytes).unwrap();
        assert!(Model::open(&path).is_ok(), "{name}");
    }
}

fn run(model: &Model, pool: &Pool, session: &mut Session, tokens: &[u32]) -> Vec<f32> {
    let mut logits = Vec::new();
    step(model, pool, &mut [Slice { session, tokens, n_logits: 1 }], &mut logits).unwrap();
    logits
}

fn best(logits: &[f32]) -> u32 {
    (0..logits.len()).reduce(|a, b| if logits[b] > logits[a] { b } else { a }).unwrap() as u32
}

/// Compares one model; returns how many tokens were compared.
fn check(name: &str, path: &Path, fixture: &Value) -> usize {
    let expected = &fixture["models"][name];
    let prompt: Vec<u32> = expected["prompt"].as_array().unwrap().iter().map(|t| t.as_u64().unwrap() as u32).collect();
    let model = Model::open(path).unwrap();
    let pool = Pool::new(2, Level::detect());
    let mut session = Session::new(&model, KvType::F16, 256).unwrap();
    let mut logits = run(&model, &pool, &mut session, &prompt);
    let spread = expected["spread"].as_f64().unwrap();
    let theirs: Vec<f64> = expected["logits"].as_array().unwrap().iter().map(|l| l.as_f64().unwrap()).collect();
    let square: f64 = theirs.iter().zip(&logits).map(|(a, b)| (a - f64::from(*b)).powi(2)).sum();
    let off = (square / theirs.len() as f64).sqrt() / spread;
    assert!(off < BOUND, "{name}: logits are off by {off:.4} of their spread");
    let tokens = expected["decoded"].as_array().unwrap().iter().zip(expected["margins"].as_array().unwrap());
    for (n, (token, margin)) in tokens.enumerate() {
        if margin.as_f64().unwrap() < 4.0 * BOUND * spread {
            return n;
        }
        let found = best(&logits);
        assert_eq!(u64::from(found), token.as_u64().unwrap(), "{name}, token {n}");
        logits = run(&model, &pool, &mut session, &[found]);
    }
    16
}

#[test]
fn tiny_models_agree() {
    let fixture = fixture();
    let folder = tempfile::tempdir().unwrap();
    let mut n_compared = 0;
    for (name, bytes) in models() {
        let path = folder.path().join("model.gguf");
        std::fs::write(&path, bytes).unwrap();
        n_compared += check(&name, &path, &fixture);
    }
    assert!(n_compared > 40, "only {n_compared} greedy tokens were clear enough to compare");
}

#[test]
fn the_guide_agrees() {
    let fixture = fixture();
    let n_compared = check("lantern-guide", &guide(), &fixture);
    assert!(n_compared > 4, "only {n_compared} of the guide's choices were clear");
    let model = Model::open(&guide()).unwrap();
    let tokens = model.tokenizer().encode(fixture["guide_prompt"].as_str().unwrap(), engine::Specials::Parse { guard: None });
    let theirs: Vec<u64> =
        fixture["models"]["lantern-guide"]["prompt"].as_array().unwrap().iter().map(|t| t.as_u64().unwrap()).collect();
    assert_eq!(tokens.into_iter().map(u64::from).collect::<Vec<_>>(), theirs, "the same tokens");
}
