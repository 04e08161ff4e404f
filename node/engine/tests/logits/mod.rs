//! Logits of tiny models, and how far they lie apart.

#![allow(dead_code, reason = "each test uses some")]

use engine::{KvType, Model, Pool, Session, Slice, step};
use std::io::Write;
use testkit::Random;

pub(crate) fn tokens(seed: u64, n: usize) -> Vec<u32> {
    let mut random = Random(seed);
    (0..n).map(|_| (random.bits() % 250) as u32).collect()
}

pub(crate) fn open(bytes: &[u8]) -> Model {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    Model::open(file.path()).unwrap()
}

/// Logits after each of the tokens, one step a token.
pub(crate) fn decode(model: &Model, pool: &Pool, tokens: &[u32]) -> Vec<Vec<f32>> {
    let mut session = Session::new(model, KvType::F16, 64).unwrap();
    tokens.iter().map(|t| run(model, pool, &mut session, &[*t])).collect()
}

pub(crate) fn run(model: &Model, pool: &Pool, session: &mut Session, tokens: &[u32]) -> Vec<f32> {
    let mut slices = [Slice { session, tokens, n_logits: 1 }];
    let mut logits = Vec::new();
    step(model, pool, &mut slices, &mut logits).unwrap();
    logits
}

/// Root mean square difference of all logits, in parts of their spread.
pub(crate) fn distance(found: &[Vec<f32>], expected: &[Vec<f32>]) -> f64 {
    let square = |f: &dyn Fn(f32, f32) -> f32| -> f64 {
        found.iter().zip(expected).flat_map(|(a, b)| a.iter().zip(b)).map(|(a, b)| f64::from(f(*a, *b))).sum()
    };
    (square(&|a, b| (a - b).powi(2)) / square(&|_, b| b.powi(2))).sqrt()
}
