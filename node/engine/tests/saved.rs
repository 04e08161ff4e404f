//! A session that was written and read back computes on as if it had never left.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};

use engine::{KvType, Level, Model, Pool, QuantType, Saved, SavedError, Session, Slice, step};
use testkit::{Shape, tiny_model};

fn open(family: &'static str) -> Model {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&tiny_model(&Shape::tiny(family), QuantType::Q4_0, 5).bytes()).unwrap();
    Model::open(file.path()).unwrap()
}

fn run(model: &Model, session: &mut Session, tokens: &[u32]) -> Vec<f32> {
    let mut logits = Vec::new();
    step(model, &Pool::new(1, Level::detect()), &mut [Slice { session, tokens, n_logits: 1 }], &mut logits).unwrap();
    logits
}

#[test]
fn a_session_comes_back_whole() {
    for family in ["qwen3", "lfm2"] {
        comes_back(&open(family), family);
    }
}

fn comes_back(model: &Model, family: &str) {
    let tokens: Vec<u32> = (0..90).map(|i| i * 7 % 280).collect();
    for kv_type in [KvType::F16, KvType::Q8_0] {
        let mut session = Session::new(model, kv_type, 128).unwrap();
        run(model, &mut session, &tokens);
        let mut file = Vec::new();
        session.save("a digest", &mut file).unwrap();
        let mut from = &file[..];
        let saved = Saved::read(&mut from).unwrap();
        assert_eq!((&saved.digest[..], saved.kv_type, &saved.tokens[..]), ("a digest", kv_type, session.tokens()));
        // A longer context moves the planes.
        let mut back = saved.clone().restore(model, 500, &mut from).unwrap();
        assert!(from.is_empty(), "{} bytes are left", from.len());
        assert_eq!(run(model, &mut back, &[1, 2]), run(model, &mut session, &[1, 2]), "{family} {kv_type}");
        let another = Model::open(&guide()).unwrap();
        assert!(matches!(saved.restore(&another, 500, &mut &file[..]), Err(SavedError::Model)));
    }
}

fn guide() -> std::path::PathBuf {
    concat!(env!("CARGO_MANIFEST_DIR"), "/../assets/lantern-guide.gguf").into()
}

#[test]
fn a_full_disk_is_an_error() {
    let model = open("llama");
    let mut session = Session::new(&model, KvType::F16, 16).unwrap();
    run(&model, &mut session, &[1, 2, 3]);
    let mut full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    assert_eq!(session.save("a digest", &mut full).unwrap_err().kind(), ErrorKind::StorageFull);
}

/// Keys that were turned by the factors of a short context mean nothing in a long one.
#[test]
fn a_session_of_another_rope_does_not_fit() {
    let model = open("phi3");
    let mut session = Session::new(&model, KvType::F16, testkit::PHI3_N_CTX_ORIGINAL).unwrap();
    run(&model, &mut session, &[1, 2, 3]);
    let mut file = Vec::new();
    session.save("a digest", &mut file).unwrap();
    let restored = |n_ctx: usize| {
        let mut from = &file[..];
        Saved::read(&mut from).unwrap().restore(&model, n_ctx, &mut from)
    };
    assert!(restored(64).is_ok());
    assert!(matches!(restored(testkit::PHI3_N_CTX_ORIGINAL + 1), Err(SavedError::Model)));
}
