//! The guide that ships: its logits are those of the framework it was trained with, and it knows what it should.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;

use engine::{KvType, Level, Model, Pool, Session, Slice, step};
use serde_json::Value;

fn open() -> Model {
    Model::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/lantern-guide.gguf")).unwrap()
}

/// Activations are rounded to 8 bits here and not in JAX, which moves logits by some 3 % of their spread (root mean square).
/// The bound is 5 %; the best token must be the same wherever it leads by four times that.
#[test]
fn logits_are_those_of_the_training_framework() {
    let fixture: Value = serde_json::from_str(include_str!("fixtures/guide.json")).unwrap();
    let (model, pool) = (open(), Pool::new(2, Level::detect()));
    let mut session = Session::new(&model, KvType::F16, 64).unwrap();
    let (mut n_compared, mut logits) = (0, Vec::new());
    for (at, token) in fixture["tokens"].as_array().unwrap().iter().enumerate() {
        let token = u32::try_from(token.as_u64().unwrap()).unwrap();
        let mut slices = [Slice { session: &mut session, tokens: &[token], n_logits: 1 }];
        step(&model, &pool, &mut slices, &mut logits).unwrap();
        let spread = (logits.iter().map(|l| l * l).sum::<f32>() / logits.len() as f32).sqrt();
        if let Some(row) = fixture["rows"][at.to_string()].as_array() {
            let square: f64 = row.iter().zip(&logits).map(|(a, b)| (a.as_f64().unwrap() - f64::from(*b)).powi(2)).sum();
            let off = (square / row.len() as f64).sqrt() / f64::from(spread);
            assert!(off < 0.05, "token {at}: off by {off:.4} of the spread");
        }
        if fixture["margin"][at].as_f64().unwrap() > 0.2 * f64::from(spread) {
            let best = (0..logits.len()).reduce(|a, b| if logits[b] > logits[a] { b } else { a }).unwrap();
            assert_eq!(best as u64, fixture["best"][at].as_u64().unwrap(), "token {at}");
            n_compared += 1;
        }
    }
    assert!(n_compared >= 4, "only {n_compared} tokens were clear enough to compare");
}

#[test]
fn the_file_is_small() {
    assert!(open().file_bytes() <= 8_000_000);
}
