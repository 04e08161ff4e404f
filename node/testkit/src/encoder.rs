//! Tiny seeded encoders: BERT and Nomic's, with a vocabulary of letters.

use half::f16;
use kernels::QuantType;

use crate::gguf::{GgufWriter, Item};
use crate::random::Random;

/// Width, layers, heads and context of the tiny encoders.
pub const ENCODER: [usize; 4] = [64, 2, 4, 64];
/// Their vocabulary: after five special tokens, each letter beginning a word, then each going on with one.
const LETTERS: &str = "abcdefghijklmnopqrstuvwxyz";

/// Named tensors in F32 with their shapes, outermost first, in the names of the format.
pub type Tensors = Vec<(String, Vec<usize>, Vec<f32>)>;

/// A tiny encoder of the family `bert` or `nomic-bert`, and its weights.
pub fn tiny_encoder(family: &str, quant: QuantType, seed: u64) -> (GgufWriter, Tensors) {
    let [n_embd, n_layer, n_head, n_ctx] = ENCODER;
    let (n_ff, n_vocab) = (2 * n_embd, 5 + 2 * LETTERS.len());
    let mut w = GgufWriter::default();
    let key = |part: &str| format!("{family}.{part}");
    let count = |n: usize| Item::U32(u32::try_from(n).expect("test shapes are small"));
    w.set("general.architecture", Item::Text(family.into()));
    w.set(&key("context_length"), count(n_ctx));
    w.set(&key("embedding_length"), count(n_embd));
    w.set(&key("block_count"), count(n_layer));
    w.set(&key("feed_forward_length"), count(n_ff));
    w.set(&key("attention.head_count"), count(n_head));
    w.set(&key("attention.layer_norm_epsilon"), Item::F32(1e-6));
    w.set(&key("pooling_type"), count(1));
    w.set(&key("rope.freq_base"), Item::F32(1000.0));
    vocabulary(&mut w);

    let mut random = Random(seed);
    let mut shapes: Vec<(String, Vec<usize>)> = Vec::new();
    let mut name = |name: &str, shape: &[usize]| shapes.push((name.to_owned(), shape.to_vec()));
    name("token_embd.weight", &[n_vocab, n_embd]);
    name("token_types.weight", &[2, n_embd]);
    let is_bert = family == "bert";
    if is_bert {
        name("position_embd.weight", &[n_ctx, n_embd]);
    }
    for part in ["weight", "bias"] {
        name(&format!("token_embd_norm.{part}"), &[n_embd]);
    }
    for i in 0..n_layer {
        let mut layer = |part: &str, shape: &[usize]| name(&format!("blk.{i}.{part}"), shape);
        let mut both = |part: &str, n_out: usize, n_in: usize| {
            layer(&format!("{part}.weight"), &[n_out, n_in]);
            if is_bert {
                layer(&format!("{part}.bias"), &[n_out]);
            }
        };
        if is_bert {
            ["attn_q", "attn_k", "attn_v"].iter().for_each(|part| both(part, n_embd, n_embd));
        } else {
            both("attn_qkv", 3 * n_embd, n_embd);
            both("ffn_gate", n_ff, n_embd);
        }
        both("attn_output", n_embd, n_embd);
        both("ffn_up", n_ff, n_embd);
        both("ffn_down", n_embd, n_ff);
        for norm in ["attn_output_norm", "layer_output_norm"] {
            ["weight", "bias"].iter().for_each(|part| layer(&format!("{norm}.{part}"), &[n_embd]));
        }
    }
    let mut tensors = Tensors::new();
    for (name, shape) in shapes {
        let base = if name.contains("norm.weight") { 1.0 } else { 0.0 };
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| base + 0.3 * random.float()).collect();
        let plain = shape.len() == 1 || name.starts_with("position") || name.starts_with("token_types");
        let quant = if plain { QuantType::F32 } else { quant };
        let n_rows = if shape.len() == 1 { 0 } else { shape[0] };
        w.tensor(&name, quant, n_rows, *shape.last().expect("a shape"), bytes(quant, &values));
        tensors.push((name, shape, values));
    }
    (w, tensors)
}

/// Values as a type stores them.
fn bytes(quant: QuantType, values: &[f32]) -> Vec<u8> {
    match quant {
        QuantType::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        QuantType::F16 => values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect(),
        QuantType::Q8_0 => values.chunks(32).flat_map(q8_0).collect(),
        other => panic!("tiny encoders are not written as {other}"),
    }
}

/// A block of 32: the factor, then whole numbers.
fn q8_0(block: &[f32]) -> Vec<u8> {
    let d = block.iter().fold(0f32, |largest, v| largest.max(v.abs())) / 127.0;
    let q = |v: &f32| if d > 0.0 { (v / d).round() as i8 as u8 } else { 0 };
    f16::from_f32(d).to_le_bytes().into_iter().chain(block.iter().map(q)).collect()
}

fn vocabulary(w: &mut GgufWriter) {
    let mut tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(String::from).to_vec();
    tokens.extend(LETTERS.chars().map(|c| format!("\u{2581}{c}")));
    tokens.extend(LETTERS.chars().map(String::from));
    let mut kinds = vec![3, 2, 3, 3, 3];
    kinds.resize(tokens.len(), 1);
    w.set("tokenizer.ggml.model", Item::Text("bert".into()));
    w.set("tokenizer.ggml.tokens", Item::Texts(tokens));
    w.set("tokenizer.ggml.token_type", Item::Integers(kinds));
    w.set("tokenizer.ggml.unknown_token_id", Item::U32(1));
    w.set("tokenizer.ggml.cls_token_id", Item::U32(2));
    w.set("tokenizer.ggml.seperator_token_id", Item::U32(3));
}
