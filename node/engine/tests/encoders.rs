//! Encoders agree with candle-transformers' on tiny seeded models.

#![cfg(not(target_arch = "aarch64"))]
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::{bert, nomic_bert};
use engine::{Embedding, KvType, Level, Model, Pool, QuantType, Session};
use testkit::{ENCODER, tiny_encoder};

fn ours(model: &Model, level: Level, n_threads: usize, tokens: &[u32]) -> Vec<f32> {
    let mut session = Session::new(model, KvType::F16, 64).unwrap();
    Embedding::new(tokens.to_vec()).advance(model, &Pool::new(n_threads, level), &mut session, 16).unwrap().unwrap()
}

fn open(family: &str, quant: QuantType) -> Model {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), tiny_encoder(family, quant, 5).0.bytes()).unwrap();
    Model::open(file.path()).unwrap()
}

/// The tensors under the names the reference reads them by.
fn variables(family: &str, names: &[(&str, &str)]) -> VarBuilder<'static> {
    let mut all = HashMap::new();
    for (name, shape, values) in tiny_encoder(family, QuantType::F32, 5).1 {
        let tensor = Tensor::from_vec(values, shape, &Device::Cpu).unwrap();
        let mut theirs = name;
        for (from, to) in names {
            theirs = theirs.replace(from, to);
        }
        all.insert(theirs, tensor);
    }
    VarBuilder::from_tensors(all, DType::F32, &Device::Cpu)
}

fn reference(family: &str, tokens: &[u32]) -> Vec<f32> {
    let [n_embd, n_layer, n_head, n_ctx] = ENCODER;
    let ids = Tensor::new(tokens, &Device::Cpu).unwrap().unsqueeze(0).unwrap();
    let values = if family == "bert" {
        let config = bert::Config {
            vocab_size: 57,
            hidden_size: n_embd,
            num_hidden_layers: n_layer,
            num_attention_heads: n_head,
            intermediate_size: 2 * n_embd,
            max_position_embeddings: n_ctx,
            layer_norm_eps: 1e-6,
            ..bert::Config::default()
        };
        let names = [
            ("token_embd_norm", "embeddings.LayerNorm"),
            ("token_embd", "embeddings.word_embeddings"),
            ("token_types", "embeddings.token_type_embeddings"),
            ("position_embd", "embeddings.position_embeddings"),
            ("blk.", "encoder.layer."),
            ("attn_output_norm", "attention.output.LayerNorm"),
            ("layer_output_norm", "output.LayerNorm"),
            ("attn_output", "attention.output.dense"),
            ("attn_q", "attention.self.query"),
            ("attn_k", "attention.self.key"),
            ("attn_v", "attention.self.value"),
            ("ffn_up", "intermediate.dense"),
            ("ffn_down", "output.dense"),
        ];
        let model = bert::BertModel::load(variables(family, &names), &config).unwrap();
        model.forward(&ids, &ids.zeros_like().unwrap(), None).unwrap()
    } else {
        let config = nomic_bert::Config {
            vocab_size: 57,
            n_embd,
            n_head,
            n_layer,
            n_inner: 2 * n_embd,
            n_positions: n_ctx,
            layer_norm_epsilon: 1e-6,
            ..nomic_bert::Config::default()
        };
        let names = [
            ("token_embd_norm", "emb_ln"),
            ("token_embd", "embeddings.word_embeddings"),
            ("token_types", "embeddings.token_type_embeddings"),
            ("blk.", "encoder.layers."),
            ("attn_output_norm", "norm1"),
            ("layer_output_norm", "norm2"),
            ("attn_output", "attn.out_proj"),
            ("attn_qkv", "attn.Wqkv"),
            ("ffn_up", "mlp.fc11"),
            ("ffn_gate", "mlp.fc12"),
            ("ffn_down", "mlp.fc2"),
        ];
        let model = nomic_bert::NomicBertModel::load(variables(family, &names), &config).unwrap();
        model.forward(&ids, None, None).unwrap()
    };
    let mean = values.squeeze(0).unwrap().mean(0).unwrap().to_vec1::<f32>().unwrap();
    let length = mean.iter().map(|v| v * v).sum::<f32>().sqrt();
    mean.iter().map(|v| v / length).collect()
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

#[test]
fn vectors_are_those_of_the_reference() {
    for family in ["bert", "nomic-bert"] {
        for n in [1u32, 3, 40] {
            let tokens: Vec<u32> = (0..n).map(|i| (i * 7 + 2) % 57).collect();
            let expected = reference(family, &tokens);
            // Keys and values are kept as f16, which is what the whole file is here and there.
            for (quant, least) in [(QuantType::F32, 0.999_99), (QuantType::F16, 0.9999), (QuantType::Q8_0, 0.999)] {
                let found = ours(&open(family, quant), Level::Scalar, 1, &tokens);
                let cosine = cosine(&found, &expected);
                assert!(cosine > least, "{family} {quant}, {n} tokens: {cosine}");
            }
        }
    }
}

#[test]
fn vectors_are_the_same_at_every_level_and_thread_count() {
    let tokens: Vec<u32> = (0..50).map(|i| (i * 11 + 2) % 57).collect();
    for family in ["bert", "nomic-bert"] {
        for quant in [QuantType::F16, QuantType::Q8_0] {
            let model = open(family, quant);
            let expected = ours(&model, Level::Scalar, 1, &tokens);
            for level in Level::available() {
                assert_eq!(ours(&model, level, 3, &tokens), expected, "{family} {quant} at {level}");
            }
        }
    }
}
