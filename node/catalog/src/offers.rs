//! Models known by a short name: what `models.toml` says of them, and what follows from it for memory and speed.

use std::sync::LazyLock;

use serde::Deserialize;

use crate::name::{HOST, ModelName};

/// Bytes a second that four cores of a Raspberry Pi 5 read from memory: the roofline of an answer. Published measurements of
/// a read-only loop (llama.cpp issue 26484, August 2026).
const PI5_BYTES_PER_SECOND: f64 = 11.6e9;
/// What a model needs beside weights, keys and values.
const SCRATCH_BYTES: u64 = 64 << 20;

/// One model of the list.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Offer {
    /// What it is called here, such as `qwen3:0.6b`.
    pub name: String,
    /// Where its file is, as a name to pull.
    pub source: String,
    pub file: String,
    /// SHA-256 of the file, 64 hex digits.
    pub sha256: String,
    /// Bytes of the file.
    pub bytes: u64,
    /// Bytes of keys and values in f16 that a token of context takes.
    pub kv: u64,
    /// Of the weights, the share that a generated token reads.
    pub read: f64,
    /// Longest context it was trained for, in tokens.
    pub context: u64,
    pub licence: String,
    /// In a word or three.
    pub good_for: String,
}

#[derive(Deserialize)]
struct List {
    model: Vec<Offer>,
}

static OFFERS: LazyLock<Vec<Offer>> =
    LazyLock::new(|| toml::from_str::<List>(include_str!("../../../models.toml")).expect("a test reads the list").model);

/// All of them, in the order of the list.
pub fn offers() -> &'static [Offer] {
    &OFFERS
}

/// The one that a name means. Names of other hosts and of other authors mean what they say.
pub(crate) fn named(name: &ModelName) -> Option<&'static Offer> {
    let [host, ..] = name.parts();
    let offered = |offer: &&Offer| ModelName::parse(&offer.name).is_ok_and(|offered| offered.matches(name));
    OFFERS.iter().filter(|_| host == HOST).find(offered)
}

impl Offer {
    /// Bytes of memory it needs with a context of `n_ctx` tokens, estimated.
    pub fn memory(&self, n_ctx: u64) -> u64 {
        self.bytes + self.kv * n_ctx.min(self.context) + SCRATCH_BYTES
    }

    /// Tokens a second that a Raspberry Pi 5 can say at most: every one of them reads the weights. Estimated, and no
    /// measure of an embedding model.
    pub fn tokens_per_second(&self) -> f64 {
        PI5_BYTES_PER_SECOND / (self.bytes as f64 * self.read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_makes_sense() {
        let offers = offers();
        assert!((12..=20).contains(&offers.len()), "{} models", offers.len());
        for offer in offers {
            let name = ModelName::parse(&offer.name).unwrap();
            assert_eq!(name.to_string(), offer.name, "with its tag");
            let source = ModelName::parse(&offer.source).unwrap().to_string();
            assert!(source.starts_with("hf.co/") && source == offer.source, "{source}");
            assert!(offer.sha256.len() == 64 && offer.sha256.bytes().all(|b| b.is_ascii_hexdigit()), "{}", offer.name);
            assert!(offer.file.ends_with(".gguf") && (0.5..=1.0).contains(&offer.read), "{}", offer.name);
            assert!(offer.kv.is_power_of_two() || offer.kv % 1024 == 0, "{}: {} bytes of a token", offer.name, offer.kv);
            assert_eq!(named(&name).unwrap().sha256, offer.sha256, "{} stands once", offer.name);
        }
        let mut hashes: Vec<_> = offers.iter().map(|offer| &offer.sha256).collect();
        hashes.sort();
        hashes.dedup();
        assert_eq!(hashes.len(), offers.len(), "each file stands once");
    }

    #[test]
    fn names_of_others_mean_what_they_say() {
        assert!(named(&ModelName::parse("QWEN3:0.6B").unwrap()).is_some());
        for other in ["someone/qwen3:0.6b", "hf.co/library/qwen3:0.6b", "qwen3:latest"] {
            assert!(named(&ModelName::parse(other).unwrap()).is_none(), "{other}");
        }
    }

    /// The figures of the roofline's table for Qwen3-1.7B in Q4_K_M: 1.043 GB read, 11.1 tokens/s.
    #[test]
    fn memory_and_speed() {
        let offer = offers().iter().find(|offer| offer.name == "qwen3:1.7b").unwrap();
        assert!((10.0..11.2).contains(&offer.tokens_per_second()), "{}", offer.tokens_per_second());
        assert_eq!(offer.memory(4096), offer.bytes + 4096 * 114_688 + (64 << 20));
        assert_eq!(offer.memory(1 << 30), offer.memory(offer.context));
    }
}
