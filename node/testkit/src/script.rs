//! A model that says what it is told to: a real file with real weights, in which each piece of the script makes the next one
//! the likeliest, whatever the prompt was. Thinking, calls and formats can so be tested end to end.

use kernels::QuantType;

use crate::gguf::{GgufWriter, Item};
use crate::model::{Shape, byte_text, metadata, vocabulary};

/// One token of a script.
#[derive(Debug, Clone, Copy)]
pub enum Said<'a> {
    /// Ordinary text, longer than one byte, which the vocabulary has anyway.
    Text(&'a str),
    /// A marker that is one token wherever its text stands, and shown.
    Mark(&'a str),
    /// A token that is never shown.
    Control(&'a str),
}

/// Width of the embedding: a place for each token.
const N_EMBD: usize = 512;
/// Tokens before those of the script.
const N_BEFORE: usize = 288;

/// A model with a chat template that answers with `script` and ends.
///
/// # Panics
/// When the script has more than 200 tokens.
pub fn script_model(script: &[Said], template: &str) -> GgufWriter {
    let n_vocab = N_BEFORE + script.len();
    assert!(n_vocab <= N_EMBD, "{} tokens of a script", script.len());
    let shape = Shape { n_layer: 1, n_embd: N_EMBD, n_ff: 256, n_vocab: N_BEFORE, ..Shape::tiny("llama") };
    assert!(script.iter().all(|said| !matches!(said, Said::Text(text) if text.len() == 1)), "a text of one byte");
    let mut w = GgufWriter::default();
    metadata(&Shape { n_vocab, ..shape.clone() }, &mut w);
    let texts = script.iter().map(|said| match said {
        Said::Text(text) => (byte_text(text), 1),
        Said::Control(text) => ((*text).to_owned(), 3),
        Said::Mark(text) => ((*text).to_owned(), 4),
    });
    vocabulary(N_BEFORE, &texts.collect::<Vec<_>>(), &mut w);
    w.set("tokenizer.chat_template", Item::Text(template.into()));
    // Each token is a direction of its own, and the output knows by it what comes next.
    let (mut embedding, mut output) = (vec![0f32; n_vocab * N_EMBD], vec![0f32; n_vocab * N_EMBD]);
    let end = 258;
    for token in 0..n_vocab {
        embedding[token * N_EMBD + token] = 1.0;
        let next = if token < N_BEFORE { N_BEFORE } else { token + 1 };
        output[if next < n_vocab { next } else { end } * N_EMBD + token] = 4.0;
    }
    let bytes = |values: Vec<f32>| values.iter().flat_map(|v| v.to_le_bytes()).collect();
    w.tensor("token_embd.weight", QuantType::F32, n_vocab, N_EMBD, bytes(embedding));
    w.tensor("output.weight", QuantType::F32, n_vocab, N_EMBD, bytes(output));
    w.tensor("output_norm.weight", QuantType::F32, 0, N_EMBD, bytes(vec![1.0; N_EMBD]));
    for norm in ["attn_norm", "ffn_norm"] {
        w.tensor(&format!("blk.0.{norm}.weight"), QuantType::F32, 0, N_EMBD, bytes(vec![1.0; N_EMBD]));
    }
    let (n_q, n_kv) = (shape.n_head * shape.n_embd_head, shape.n_head_kv * shape.n_embd_head);
    // All between them adds nothing.
    for (name, n_out, n_in) in [
        ("attn_q", n_q, N_EMBD),
        ("attn_k", n_kv, N_EMBD),
        ("attn_v", n_kv, N_EMBD),
        ("attn_output", N_EMBD, n_q),
        ("ffn_gate", 256, N_EMBD),
        ("ffn_up", 256, N_EMBD),
        ("ffn_down", N_EMBD, 256),
    ] {
        let zeros = vec![0; n_out * QuantType::Q8_0.row_bytes(n_in).expect("widths are whole blocks")];
        w.tensor(&format!("blk.0.{name}.weight"), QuantType::Q8_0, n_out, n_in, zeros);
    }
    w
}
