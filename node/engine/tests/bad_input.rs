//! Rows A and B of the bad-input matrix: whatever a model file holds, opening it gives a model or one clear sentence.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::Write;
use std::path::Path;
use std::time::Instant;

use engine::{Header, KvType, Level, Model, Pool, QuantType, Sampler, SamplerOptions, Session, Slice, step};
use testkit::{GgufWriter, Item, Shape, tiny_model};

fn tiny() -> GgufWriter {
    tiny_model(&Shape::tiny("qwen3"), QuantType::Q8_0, 1)
}

fn open(bytes: &[u8]) -> Result<Model, String> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    let opened = Model::open(file.path());
    let message = opened.map_err(|e| e.to_string());
    if let Err(message) = &message {
        assert!(
            !message.contains(file.path().to_str().unwrap()) && !message.contains('\n') && message.len() < 400,
            "{message:?}"
        );
    }
    message
}

/// The file is refused with a sentence that holds `part`.
fn check(bytes: &[u8], part: &str) {
    match open(bytes) {
        Ok(_) => panic!("accepted, {part:?} was expected"),
        Err(message) => assert!(message.contains(part), "{message:?} does not say {part:?}"),
    }
}

fn with(change: impl FnOnce(&mut GgufWriter)) -> Vec<u8> {
    let mut w = tiny();
    change(&mut w);
    w.bytes()
}

/// Counts at the start of a file: tensors, keys.
fn with_counts(n_tensors: u64, n_keys: u64) -> Vec<u8> {
    let mut bytes = b"GGUF\x03\0\0\0".to_vec();
    bytes.extend(n_tensors.to_le_bytes());
    bytes.extend(n_keys.to_le_bytes());
    bytes.resize(100, 0);
    bytes
}

#[test]
fn a01_empty_file() {
    check(b"", "not a model file: it is empty");
}

#[test]
fn a02_magic_only() {
    check(b"GGUF", "truncated header");
}

#[test]
fn a03_header_cut_anywhere() {
    let (header, data) = tiny().parts();
    assert!(Header::read(&[header.clone(), data].concat()).is_ok());
    for len in 0..header.len() {
        assert!(Header::read(&header[..len]).is_err(), "cut at {len} of {}", header.len());
    }
}

#[test]
fn a04_wrong_magic_and_versions() {
    check(b"LMGG\x03\0\0\0................", "does not begin with the letters GGUF");
    check(b"GGUF\0\0\0\x03................", "big-endian");
    for version in [0u32, 1, 4, u32::MAX] {
        let mut bytes = tiny().bytes();
        bytes[4..8].copy_from_slice(&version.to_le_bytes());
        check(&bytes, &format!("GGUF version {version} is not supported"));
    }
}

#[test]
fn a05_tensor_counts() {
    for count in [1 << 63, u64::MAX, 65_537] {
        check(&with_counts(count, 0), &format!("tensor count {count} is above the limit"));
    }
}

#[test]
fn a06_key_count() {
    check(&with_counts(0, u64::MAX), "key count");
}

#[test]
fn a07_lengths_of_texts() {
    for len in [1u64 << 63, u64::MAX, 65_536] {
        let mut bytes = with_counts(0, 1);
        bytes.truncate(24);
        bytes.extend(len.to_le_bytes());
        bytes.resize(200, b'a');
        check(&bytes, "the limit is 65535");
    }
    let mut bytes = with_counts(0, 1);
    bytes.truncate(24);
    bytes.extend(1000u64.to_le_bytes());
    check(&bytes, "truncated header");
    check(&with(|w| _ = w.set("x", Item::Raw(8, u64::MAX.to_le_bytes().to_vec()))), "the limit is 16777216");
}

/// An array value: item type, length.
fn array(kind: u32, len: u64) -> Item {
    Item::Raw(9, [&kind.to_le_bytes()[..], &len.to_le_bytes()].concat())
}

#[test]
fn a08_array_lengths() {
    check(&with(|w| _ = w.set("x", array(10, u64::MAX))), "the limit is 67108864");
    check(&with(|w| _ = w.set("x", array(10, 1 << 61))), "the limit is 67108864");
    check(&with(|w| _ = w.set("x", array(10, 60_000_000))), "truncated header");
}

#[test]
fn a09_arrays_of_arrays() {
    for depth in [2, 1_000, 100_000] {
        let nested = (1..depth).flat_map(|_| [&9u32.to_le_bytes()[..], &1u64.to_le_bytes()].concat()).collect();
        check(&with(|w| _ = w.set("x", Item::Raw(9, nested))), "holds arrays");
    }
}

#[test]
fn a10_value_types_and_truths() {
    for kind in [13, 14, 255, u32::MAX, 1 << 31] {
        check(&with(|w| _ = w.set("x", Item::Raw(kind, vec![0; 8]))), &format!("unknown value type {kind}"));
    }
    for byte in [2, 255] {
        check(&with(|w| _ = w.set("x", Item::Raw(7, vec![byte]))), "a truth value must be 0 or 1");
    }
}

#[test]
fn a11_keys() {
    check(&with(|w| _ = w.push_key("", Item::U32(1))), "a key is empty");
    check(&with(|w| _ = w.push_key("a\0b", Item::U32(1))), "holds a NUL");
    check(&with(|w| _ = w.push_key("general.name", Item::U32(1))), "given twice");
    let mut bytes = with(|w| _ = w.push_key("zzzz", Item::U32(1)));
    let at = bytes.windows(4).position(|b| b == b"zzzz").unwrap();
    bytes[at] = 0xff;
    check(&bytes, "not UTF-8");
}

#[test]
fn a12_alignment() {
    for alignment in [0, 1, 3, 1 << 31, u32::MAX] {
        check(&with(|w| _ = w.set("general.alignment", Item::U32(alignment))), "needed is a power of two");
    }
    check(&with(|w| _ = w.set("general.alignment", Item::Text("32".into()))), "must be a 32-bit number");
}

#[test]
fn a13_dimensions() {
    check(&with(|w| _ = w.raw_tensor("x", &[], 0, 0)), "has 0 dimensions");
    check(&with(|w| _ = w.raw_tensor("x", &[1; 5], 0, 0)), "has 5 dimensions");
    check(&with(|w| _ = w.raw_tensor("x", &[32, 0], 0, 0)), "a dimension of 0");
}

#[test]
fn a14_products_that_wrap() {
    for dims in [&[1u64 << 22, (1 << 42) + 1][..], &[u64::MAX / 2, 2], &[1 << 62, 1 << 62, 1 << 62, 1 << 62]] {
        check(&with(|w| _ = w.raw_tensor("x", dims, 0, 0)), "larger than memory can address");
    }
}

#[test]
fn a15_sums_that_wrap() {
    let huge = |w: &mut GgufWriter| (0..4).for_each(|i| _ = w.raw_tensor(&format!("x{i}"), &[1 << 30, 1 << 30], 0, 0));
    check(&with(huge), "overflow when added");
}

#[test]
fn a16_blocks_and_types() {
    check(&with(|w| _ = w.raw_tensor("x", &[33, 1], QuantType::Q8_0.ggml(), 0)), "Q8_0 needs a multiple of 32");
    for (kind, name) in [(20, "IQ4_NL"), (4, "removed"), (39, "MXFP4"), (1 << 31, "number 2147483648")] {
        let bytes = with(|w| _ = w.raw_tensor("x", &[32], kind, 0));
        check(&bytes, name);
        check(&bytes, "supported are F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K");
    }
}

#[test]
fn a17_offsets() {
    for offset in [1 << 40, u64::MAX - 31] {
        check(&with(|w| _ = w.raw_tensor("x", &[32], 0, offset)), "tensor x needs");
    }
    check(&with(|w| _ = w.raw_tensor("x", &[32], 0, 1)), "not a multiple of 32");
    let mut bytes = tiny().bytes();
    let padding = 32;
    bytes.truncate(bytes.len() - padding);
    check(&bytes, "the file has");
}

#[test]
fn a18_tensor_names() {
    for name in ["", "a/b", "..", "a\0b", &"x".repeat(65)] {
        assert!(open(&with(|w| _ = w.raw_tensor(name, &[32], 0, 0))).is_err(), "{name:?}");
    }
    check(&with(|w| _ = w.raw_tensor("output_norm.weight", &[32], 0, 0)), "given twice");
}

#[test]
fn a20_many_keys_and_much_text() {
    let begun = Instant::now();
    check(&with_counts(0, 1_000_000), "key count 1000000");
    let mut w = GgufWriter::default();
    (0..20).for_each(|i| _ = w.push_key(&format!("k{i}"), Item::Text("a".repeat(15 << 20))));
    check(&w.bytes(), "texts in the header exceed");
    assert!(begun.elapsed().as_secs() < 20, "{:?}", begun.elapsed());
}

#[test]
fn a23_other_files() {
    let pad = |start: &[u8]| [start, &[b' '; 64]].concat();
    check(&pad(b"PK\x03\x04"), "zip archive");
    check(&pad(b"<!DOCTYPE html><html>"), "HTML");
    check(&pad(b"version https://git-lfs.github.com/spec/v1\n"), "Git LFS pointer");
    check(&pad(b"\x80\x04\x95"), "pickle");
    check(&pad(b"\x10\0\0\0\0\0\0\0{\"a\":1}"), "safetensors");
}

#[test]
fn b01_architectures() {
    for (name, shown) in [("", "\"\""), ("mamba", "\"mamba\"")] {
        let bytes = with(|w| _ = w.set("general.architecture", Item::Text(name.into())));
        check(&bytes, &format!("architecture {shown} is not supported; supported are llama"));
    }
    check(&with(|w| _ = w.remove("general.architecture")), "is not supported");
    check(&with(|w| _ = w.set("general.architecture", Item::Text("x".repeat(1 << 20)))), "is not supported");
}

#[test]
fn b02_b03_block_counts() {
    check(&with(|w| _ = w.set("qwen3.block_count", Item::U32(0))), "qwen3.block_count is 0");
    check(&with(|w| _ = w.set("qwen3.block_count", Item::U32(u32::MAX))), "qwen3.block_count is 4294967295");
    check(&with(|w| _ = w.set("qwen3.block_count", Item::U32(1000))), "tensor blk.2.attn_norm.weight is missing");
}

#[test]
fn b04_heads_and_widths() {
    let set = |key: &str, n: u32| with(|w| _ = w.set(&format!("qwen3.{key}"), Item::U32(n)));
    check(&set("attention.head_count", 0), "qwen3.attention.head_count is 0");
    check(&set("attention.head_count_kv", 0), "qwen3.attention.head_count_kv is 0");
    check(&set("attention.head_count_kv", 8), "a divisor of the 4 heads");
    check(&set("attention.head_count_kv", 3), "a divisor of the 4 heads");
    check(&set("embedding_length", 0), "qwen3.embedding_length is 0");
    check(&set("embedding_length", 255), "tensor token_embd.weight has shape");
    check(&set("attention.key_length", 63), "an even number");
    check(&set("feed_forward_length", 256), "tensor blk.0.ffn_gate.weight has shape");
    check(&with(|w| _ = w.remove("qwen3.context_length")), "the file does not say qwen3.context_length");
    check(&with(|w| _ = w.set("qwen3.block_count", Item::Text("2".into()))), "no whole number");
}

#[test]
fn b05_rope_and_epsilon() {
    check(&with(|w| _ = w.set("qwen3.rope.dimension_count", Item::U32(128))), "up to the head width 64");
    for bad in [0.0, f32::NAN, f32::INFINITY, -1.0] {
        check(&with(|w| _ = w.set("qwen3.rope.freq_base", Item::F32(bad))), "needed is a finite number above 0");
        check(
            &with(|w| _ = w.set("qwen3.attention.layer_norm_rms_epsilon", Item::F32(bad))),
            "needed is a finite number above 0",
        );
    }
    check(&with(|w| _ = w.set("qwen3.rope.scaling.type", Item::Text("yarn".into()))), "needed is none, linear or longrope");
}

#[test]
fn b06_tensors_missing_transposed_or_extra() {
    check(&with(|w| _ = w.remove_tensor("blk.1.ffn_up.weight")), "tensor blk.1.ffn_up.weight is missing");
    check(&with(|w| _ = w.remove_tensor("token_embd.weight")), "tensor token_embd.weight is missing");
    let transposed = with(|w| {
        w.remove_tensor("blk.0.ffn_down.weight");
        w.tensor("blk.0.ffn_down.weight", QuantType::F32, 512, 256, vec![0; 512 * 256 * 4]);
    });
    check(&transposed, "has shape [512, 256], needed is [256, 512]");
    let quantized_norm = with(|w| {
        w.remove_tensor("output_norm.weight");
        w.tensor("output_norm.weight", QuantType::Q8_0, 0, 256, vec![0; 272]);
    });
    check(&quantized_norm, "needed is F32, F16 or BF16");
    assert!(open(&with(|w| _ = w.tensor("something.else", QuantType::F32, 0, 8, vec![0; 32]))).is_ok());
}

/// Logits after one token of a model whose norm weights are `bad`.
fn broken(bad: f32) -> Vec<f32> {
    let bytes = with(|w| {
        w.remove_tensor("blk.0.attn_norm.weight");
        w.tensor("blk.0.attn_norm.weight", QuantType::F32, 0, 256, bad.to_le_bytes().repeat(256));
    });
    let model = open(&bytes).unwrap();
    let mut session = Session::new(&model, KvType::F16, 8).unwrap();
    let mut slices = [Slice { session: &mut session, tokens: &[1], n_logits: 1 }];
    let mut logits = Vec::new();
    step(&model, &Pool::new(1, Level::detect()), &mut slices, &mut logits).unwrap();
    logits
}

#[test]
fn b07_weights_that_are_no_numbers() {
    for bad in [f32::NAN, f32::INFINITY] {
        let error = Sampler::new(SamplerOptions::default()).sample(&broken(bad), &[1]).unwrap_err();
        assert_eq!(error.to_string(), "the model produced no valid numbers");
    }
    assert!(Sampler::new(SamplerOptions::default()).sample(&broken(1e-42), &[1]).is_ok(), "denormal weights are numbers");
}

#[test]
fn b09_b10_token_lists() {
    let texts = |n: usize| Item::Texts((0..n).map(|i| format!("t{i}")).collect());
    check(&with(|w| _ = w.set("tokenizer.ggml.tokens", texts(0))), "the vocabulary has 0 tokens");
    check(&with(|w| _ = w.remove("tokenizer.ggml.tokens")), "the file has no tokenizer.ggml.tokens");
    check(&with(|w| _ = w.set("tokenizer.ggml.tokens", texts(287))), "tokenizer.ggml.token_type has 288 items, needed are 287");
    let shorter = with(|w| {
        w.set("tokenizer.ggml.tokens", texts(270));
        w.remove("tokenizer.ggml.token_type");
    });
    check(&shorter, "the vocabulary has 270 tokens, token_embd.weight has 288 rows");
    check(&with(|w| _ = w.set("tokenizer.ggml.scores", Item::Floats(vec![0.0; 3]))), "tokenizer.ggml.scores has 3 items");
    check(&with(|w| _ = w.set("tokenizer.ggml.scores", Item::Integers(vec![0; 288]))), "needed is a 32-bit float");
    check(&with(|w| _ = w.set("tokenizer.ggml.tokens", Item::Integers(vec![0; 288]))), "needed is a text");
    check(&with(|w| _ = w.set("tokenizer.ggml.merges", Item::Texts(vec!["nospace".into()]))), "a merge is not two texts");
    check(&with(|w| _ = w.set("tokenizer.ggml.merges", Item::Texts(vec!["un known".into()]))), "the merges do not fit");
}

#[test]
fn b11_special_tokens() {
    for item in [Item::I32(-1), Item::U32(288), Item::U32(u32::MAX)] {
        check(&with(|w| _ = w.set("tokenizer.ggml.eos_token_id", item)), "the vocabulary has 288 tokens");
    }
}

#[test]
fn b12_long_tokens() {
    let long = (0..288).map(|i| if i == 7 { "x".repeat(15 << 20) } else { format!("t{i}") }).collect();
    check(&with(|w| _ = w.set("tokenizer.ggml.tokens", Item::Texts(long))), "a token has 15728640 bytes");
}

#[test]
fn tokenizers_this_build_does_not_know() {
    check(&with(|w| _ = w.set("tokenizer.ggml.model", Item::Text("rwkv".into()))), "tokenizer rwkv is not supported");
    check(
        &with(|w| _ = w.set("tokenizer.ggml.pre", Item::Text("klingon".into()))),
        "pre-tokenizer klingon is not supported; supported are llama-bpe",
    );
}

/// No pattern is taken from a file: the ones in use are chosen by name, and `b14` in tokenizer.rs runs them on a mebibyte.
#[test]
fn b13_a_pattern_instead_of_a_name() {
    check(
        &with(|w| _ = w.set("tokenizer.ggml.pre", Item::Text("(a+)+b".into()))),
        "pre-tokenizer (a+)+b is not supported; supported are llama-bpe",
    );
}

/// B20: a context length of 2³¹ is only a claim; a session reserves what is asked for, not what is claimed.
#[test]
fn b20_long_contexts() {
    let bytes = with(|w| _ = w.set("qwen3.context_length", Item::U32(1 << 31)));
    let model = open(&bytes).unwrap();
    assert_eq!(model.hyperparams().n_ctx_train, 1 << 31);
    let fits =
        engine::budget::fitting_n_ctx(model.hyperparams(), model.file_bytes(), KvType::F16, 1 << 31, 256, 1, 1 << 30).unwrap();
    assert!(
        fits < 1 << 31 && engine::budget::needed_bytes(model.hyperparams(), model.file_bytes(), KvType::F16, fits, 1) <= 1 << 30
    );
    assert!(Session::new(&model, KvType::F16, fits).is_ok());
}

#[test]
fn a19_j19_a_file_that_shrinks_ends_the_step() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.gguf");
    std::fs::write(&path, tiny().bytes()).unwrap();
    let model = Model::open(Path::new(&path)).unwrap();
    let pool = Pool::new(2, Level::detect());
    let mut session = Session::new(&model, KvType::F16, 8).unwrap();
    step(&model, &pool, &mut [Slice { session: &mut session, tokens: &[1], n_logits: 1 }], &mut Vec::new()).unwrap();
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(4096).unwrap();
    let error =
        step(&model, &pool, &mut [Slice { session: &mut session, tokens: &[2], n_logits: 1 }], &mut Vec::new()).unwrap_err();
    assert!(error.to_string().contains("damaged on disk"), "{error}");
}
