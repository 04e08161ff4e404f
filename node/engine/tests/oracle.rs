//! The forward pass agrees with candle-transformers' stock models on tiny seeded models of every family and quant type, and
//! gives the same bytes whatever runs beside it.
//!
//! For quantized weights both sides round activations to 8 bits, each with factors of its own precision, which moves logits
//! of random models by some per cent. So both are held against the same model with its weights dequantized to F32, where
//! they agree to the f16 rounding of keys and values (candle keeps those in f32): below 0.3 % of the logits' spread. From
//! there, ours may be no further than one and a half times as far as candle is.

#![cfg(not(target_arch = "aarch64"))]
#![allow(clippy::unwrap_used, reason = "tests")]

use candle_core::quantized::gguf_file::Content;
use candle_core::{Device, Tensor};
use candle_transformers::models::{quantized_lfm2, quantized_llama, quantized_qwen2, quantized_qwen3};
use engine::{KvType, Level, Pool, QuantType, Session, Slice, step};
use logits::{decode, distance, open, run, tokens};
use std::io::Cursor;
use testkit::{Random, Shape, tiny_model};

mod logits;

const N_TOKENS: usize = 24;

/// A stock model: tokens and their position to logits.
type Forward = Box<dyn FnMut(&Tensor, usize) -> Tensor>;

fn stock(family: &str, bytes: &[u8], tokens: &[u32]) -> Vec<Vec<f32>> {
    let mut reader = Cursor::new(bytes);
    let content = Content::read(&mut reader).unwrap();
    let mut forward: Forward = match family {
        "llama" => {
            let mut m = quantized_llama::ModelWeights::from_gguf(content, &mut reader, &Device::Cpu).unwrap();
            Box::new(move |x, pos| m.forward(x, pos).unwrap())
        }
        "lfm2" => {
            let mut m = quantized_lfm2::ModelWeights::from_gguf(content, &mut reader, &Device::Cpu).unwrap();
            Box::new(move |x, pos| m.forward(x, pos).unwrap())
        }
        "qwen2" => {
            let mut m = quantized_qwen2::ModelWeights::from_gguf(content, &mut reader, &Device::Cpu).unwrap();
            Box::new(move |x, pos| m.forward(x, pos).unwrap())
        }
        _ => {
            let mut m = quantized_qwen3::ModelWeights::from_gguf(content, &mut reader, &Device::Cpu).unwrap();
            Box::new(move |x, pos| m.forward(x, pos).unwrap())
        }
    };
    let one = |(pos, token): (usize, &u32)| {
        let x = Tensor::new(&[[*token]], &Device::Cpu).unwrap();
        forward(&x, pos).flatten_all().unwrap().to_vec1::<f32>().unwrap()
    };
    tokens.iter().enumerate().map(one).collect()
}

fn check_oracle(family: &'static str, quant: QuantType) {
    let shape = Shape::tiny(family);
    let bytes = tiny_model(&shape, quant, 7).bytes();
    let exact_bytes = testkit::dequantized(&shape, quant, 7).bytes();
    let tokens = tokens(1, N_TOKENS);
    let pool = Pool::new(2, Level::detect());
    let exact = decode(&open(&exact_bytes), &pool, &tokens);
    let agreed = distance(&exact, &stock(family, &exact_bytes, &tokens));
    assert!(agreed < 0.003, "{family} in F32: candle is {agreed} away");
    let ours = distance(&decode(&open(&bytes), &pool, &tokens), &exact);
    let candle = distance(&stock(family, &bytes, &tokens), &exact);
    assert!(ours < 1.5 * candle.max(0.003), "{family} {quant}: off by {ours}, candle by {candle}");
    assert!(ours < 0.05, "{family} {quant}: off by {ours}");
}

macro_rules! oracle {
    ($($family:ident)*) => { $(#[test] fn $family() { for quant in QuantType::ALL { check_oracle(stringify!($family), quant); } })* };
}
oracle!(llama qwen2 qwen3 lfm2);

#[test]
fn dequantization_is_bit_equal_to_candles() {
    for quant in QuantType::ALL {
        let mut random = Random(3);
        let bytes = testkit::random_weights(quant, 4, 512, &mut random);
        let mut w = testkit::GgufWriter::default();
        w.tensor("t", quant, 4, 512, bytes.clone());
        let file = w.bytes();
        let mut reader = Cursor::new(&file);
        let content = Content::read(&mut reader).unwrap();
        let tensor = content.tensor(&mut reader, "t", &Device::Cpu).unwrap().dequantize(&Device::Cpu).unwrap();
        let expected: Vec<u32> = tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect();
        let aligned: Vec<u64> =
            bytes.chunks(8).map(|c| u64::from_le_bytes(std::array::from_fn(|i| c.get(i).copied().unwrap_or(0)))).collect();
        let mut found = vec![0f32; 4 * 512];
        quant.dequantize(&bytemuck::cast_slice(&aligned)[..bytes.len()], &mut found);
        assert_eq!(found.into_iter().map(f32::to_bits).collect::<Vec<_>>(), expected, "{quant}");
    }
}

/// One session's logits are the same bytes alone, in slices, with neighbours, on more threads and after a rewind.
#[test]
fn bytes_do_not_depend_on_company() {
    for (family, quant) in
        [("lfm2", QuantType::Q8_0), ("llama", QuantType::Q4_0), ("qwen2", QuantType::Q6_K), ("qwen3", QuantType::F16)]
    {
        let shape = Shape { untied: true, rope_factors: true, ..Shape::tiny(family) };
        let model = open(&tiny_model(&shape, quant, 5).bytes());
        let (ours, other) = (tokens(1, 40), tokens(2, 40));
        let one = Pool::new(1, Level::detect());
        let alone = decode(&model, &one, &ours);
        for n_threads in 1..=4 {
            let pool = Pool::new(n_threads, Level::detect());
            for n_prefill in [1, 7, 39] {
                let (mut a, mut b) =
                    (Session::new(&model, KvType::F16, 64).unwrap(), Session::new(&model, KvType::F16, 64).unwrap());
                let mut slices = [
                    Slice { session: &mut b, tokens: &other[..9], n_logits: 1 },
                    Slice { session: &mut a, tokens: &ours[..n_prefill], n_logits: 1 },
                ];
                let mut logits = Vec::new();
                step(&model, &pool, &mut slices, &mut logits).unwrap();
                let n_vocab = model.tokenizer().n_vocab();
                assert_eq!(logits[n_vocab..], alone[n_prefill - 1], "{family} {n_threads} threads, prefill {n_prefill}");
                for at in n_prefill..40 {
                    let mut slices = [
                        Slice { session: &mut a, tokens: &ours[at..=at], n_logits: 1 },
                        Slice { session: &mut b, tokens: &other[at - 1..at], n_logits: at % 2 },
                    ];
                    step(&model, &pool, &mut slices, &mut logits).unwrap();
                    assert_eq!(logits[..n_vocab], alone[at], "{family}, token {at}");
                }
                a.truncate(20);
                assert_eq!(run(&model, &pool, &mut a, &ours[20..30]), alone[29], "{family} after a rewind");
            }
        }
    }
}

/// Every level gives the same bytes, so scalar, AVX2 and NEON are one kernel class.
#[test]
fn levels_agree_through_a_whole_model() {
    let model = open(&tiny_model(&Shape::tiny("qwen3"), QuantType::Q4_K, 5).bytes());
    let tokens = tokens(1, 12);
    let expected = decode(&model, &Pool::new(1, Level::Scalar), &tokens);
    for level in Level::available() {
        assert_eq!(decode(&model, &Pool::new(2, level), &tokens), expected, "{level}");
    }
}

/// Keys and values of 8 bits, each off by at most half a step of `max / 127`, move the logits of these random models by some
/// 1 % of their size (root mean square; weights are f32, so that nothing else is rounded), and give the same bytes at every level, alone
/// and in a batch.
#[test]
fn keys_of_8_bits_change_little() {
    for family in ["llama", "qwen2", "qwen3", "lfm2"] {
        let model = open(&tiny_model(&Shape::tiny(family), QuantType::F32, 5).bytes());
        let tokens = tokens(1, 100);
        let logits = |kv_type: KvType, level: Level, n_threads: usize, n_together: usize| {
            let pool = Pool::new(n_threads, level);
            let mut session = Session::new(&model, kv_type, 128).unwrap();
            let parts = tokens.chunks(n_together).map(|part| run(&model, &pool, &mut session, part));
            parts.last().unwrap()
        };
        let exact = logits(KvType::F16, Level::detect(), 1, 1);
        let near = logits(KvType::Q8_0, Level::detect(), 1, 1);
        let square = |values: &mut dyn Iterator<Item = f32>| values.map(|v| v * v).sum::<f32>();
        let off = (square(&mut exact.iter().zip(&near).map(|(a, b)| a - b)) / square(&mut exact.iter().copied())).sqrt();
        assert!(off > 0.0 && off < 0.02, "{family}: off by {off} of their size");
        for level in Level::available() {
            for (n_threads, n_together) in [(1, 1), (2, 7), (3, 100)] {
                assert_eq!(
                    logits(KvType::Q8_0, level, n_threads, n_together),
                    near,
                    "{family} at {level}, {n_together} together"
                );
            }
        }
    }
}
