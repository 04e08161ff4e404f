//! Families whose stock model reads the authors' own tensors: candle-transformers' models of them get the tensors of a tiny
//! GGUF file back under those names and in that order, and agree with ours in F32 to the f16 rounding of keys and values.
//! Quantized, ours stay near that.

#![cfg(not(target_arch = "aarch64"))]
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::HashMap;
use std::io::Cursor;

use candle_core::quantized::gguf_file::Content;
use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::{gemma2, gemma3, granitemoehybrid, phi3, qwen2_moe, qwen3, qwen3_moe, smol::smollm3};
use engine::{Embedding, KvType, Level, Model, Pool, QuantType, Session, Slice, step};
use logits::{decode, distance, open, run, tokens};
use serde_json::json;
use testkit::{EXPERTS, GgufWriter, Item, PHI3_N_CTX_ORIGINAL, Shape, dequantized, tiny_model};

mod logits;

const FAMILIES: [&str; 7] = ["gemma2", "gemma3", "phi3", "qwen2moe", "qwen3moe", "granite", "smollm3"];

fn shape(family: &'static str) -> Shape {
    // Gemma 3 has a layer without a window, and SmolLM 3 one without positions, among so many.
    let n_layer = match family {
        "gemma3" => 7,
        "smollm3" => 5,
        _ => 2,
    };
    Shape { n_layer, untied: matches!(family, "qwen2moe" | "phi3"), ..Shape::tiny(family) }
}

/// The tensors of a file under the names of the family's authors.
fn variables(family: &str, file: &[u8], shape: &Shape) -> VarBuilder<'static> {
    let mut reader = Cursor::new(file);
    let content = Content::read(&mut reader).unwrap();
    let gemma = family.starts_with("gemma");
    let mut all = HashMap::new();
    for name in content.tensor_infos.keys() {
        let mut tensor = content.tensor(&mut reader, name, &Device::Cpu).unwrap().dequantize(&Device::Cpu).unwrap();
        if gemma && name.contains("norm") {
            tensor = (tensor - 1.0).unwrap();
        }
        let adjacent = matches!(family, "granite" | "smollm3");
        if adjacent && (name.contains("attn_q.") || name.contains("attn_k.")) {
            // Pairs that rope turns are neighbours in the file, and half a head apart in the authors' tensors.
            let (n_rows, n_in) = tensor.dims2().unwrap();
            let heads = n_rows / shape.n_embd_head;
            tensor = tensor.reshape((heads, shape.n_embd_head / 2, 2, n_in)).unwrap().transpose(1, 2).unwrap();
            tensor = tensor.contiguous().unwrap().reshape((n_rows, n_in)).unwrap();
        }
        if let Some((layer, part)) = name.strip_prefix("blk.").unwrap_or_default().split_once('.')
            && let Some(part) = part.strip_suffix("_exps.weight")
        {
            for expert in 0..EXPERTS.0 {
                let part = part.strip_prefix("ffn_").unwrap();
                let theirs = format!("model.layers.{layer}.mlp.experts.{expert}.{part}_proj.weight");
                all.insert(theirs, tensor.get(expert).unwrap());
            }
            continue;
        }
        if name.contains("ffn_gate_inp_shexp") {
            tensor = tensor.unsqueeze(0).unwrap();
        }
        all.insert(theirs(family, name), tensor);
    }
    if family == "granite" {
        for layer in 0..shape.n_layer {
            let part = |part: &str| all[&format!("model.layers.{layer}.mlp.{part}_proj.weight")].clone();
            let gate_up = Tensor::cat(&[part("gate"), part("up")], 0).unwrap();
            let name = |part: &str| format!("model.layers.{layer}.shared_mlp.{part}_linear.weight");
            let down = part("down");
            all.insert(name("input"), gate_up);
            all.insert(name("output"), down);
        }
    }
    VarBuilder::from_tensors(all, DType::F32, &Device::Cpu)
}

fn theirs(family: &str, name: &str) -> String {
    let post_attention = if family.starts_with("gemma") { "pre_feedforward_layernorm" } else { "post_attention_layernorm" };
    let parts = [
        ("blk.", "model.layers."),
        ("token_embd", "model.embed_tokens"),
        ("output_norm", "model.norm"),
        ("post_attention_norm", "POST"),
        ("post_ffw_norm", "post_feedforward_layernorm"),
        ("attn_output", "self_attn.o_proj"),
        ("attn_qkv", "self_attn.qkv_proj"),
        ("attn_q_norm", "self_attn.q_norm"),
        ("attn_k_norm", "self_attn.k_norm"),
        ("attn_norm", "input_layernorm"),
        ("ffn_norm", post_attention),
        ("POST", "post_attention_layernorm"),
        ("attn_q", "self_attn.q_proj"),
        ("attn_k", "self_attn.k_proj"),
        ("attn_v", "self_attn.v_proj"),
        ("ffn_gate_inp_shexp", "mlp.shared_expert_gate"),
        ("ffn_gate_shexp", "mlp.shared_expert.gate_proj"),
        ("ffn_up_shexp", "mlp.shared_expert.up_proj"),
        ("ffn_down_shexp", "mlp.shared_expert.down_proj"),
        ("ffn_gate_inp", "mlp.gate"),
        ("ffn_gate", "mlp.gate_proj"),
        ("ffn_up", if family == "phi3" { "mlp.gate_up_proj" } else { "mlp.up_proj" }),
        ("ffn_down", "mlp.down_proj"),
    ];
    let name = if name == "output.weight" { "lm_head.weight" } else { name };
    parts.iter().fold(name.to_owned(), |name, (ours, theirs)| name.replace(ours, theirs))
}

type Forward = Box<dyn FnMut(&Tensor, usize) -> Tensor>;

/// The stock model of a family, as the tiny files have it. Each reads what it knows of one configuration.
fn stock(family: &str, variables: VarBuilder<'static>, s: &Shape, long: bool) -> Forward {
    let gemma2 = family == "gemma2";
    // The stock Phi 3 multiplies by the factors, by which the authors' divides.
    let base = if long { 2.0 } else { 1.0 };
    let factors: Vec<f32> = (0..s.n_embd_head / 2).map(|i| 1.0 / (base + i as f32 / 16.0)).collect();
    let config = json!({
        "vocab_size": s.n_vocab, "hidden_size": s.n_embd, "intermediate_size": s.n_ff, "num_hidden_layers": s.n_layer,
        "num_attention_heads": s.n_head, "num_key_value_heads": s.n_head_kv, "head_dim": s.n_embd_head,
        "max_position_embeddings": s.n_ctx, "rms_norm_eps": 1e-5, "attention_bias": false, "max_window_layers": s.n_layer,
        "tie_word_embeddings": !s.untied, "hidden_act": "silu", "hidden_activation": "gelu_pytorch_tanh",
        "use_sliding_window": false, "sliding_window": 1024, "sliding_window_pattern": 6, "query_pre_attn_scalar": s.n_embd_head,
        "rope_theta": if family == "gemma3" { 100_000.0 } else { 10_000.0 }, "rope_local_base_freq": 10_000.0,
        "final_logit_softcapping": gemma2.then_some(3.0), "attn_logit_softcapping": gemma2.then_some(1.0),
        "rope_scaling": (family == "phi3").then(|| json!({ "short_factor": factors, "long_factor": factors, "type": "longrope" })),
        "decoder_sparse_step": 1, "num_experts": EXPERTS.0, "num_experts_per_tok": EXPERTS.1, "moe_intermediate_size": EXPERTS.2,
        "shared_expert_intermediate_size": EXPERTS.2, "norm_topk_prob": family == "qwen3moe",
        "attention_multiplier": 0.25, "embedding_multiplier": 3.0, "residual_multiplier": 0.5, "logits_scaling": 4.0,
        "no_rope_layer_interval": 4,
    });
    macro_rules! stock {
        ($config:ty, $open:expr) => {{
            let config: $config = serde_json::from_value(config).unwrap();
            let mut model = $open(&config).unwrap();
            Box::new(move |x, pos| model.forward(x, pos).unwrap())
        }};
    }
    match family {
        "gemma2" => stock!(gemma2::Config, |c| gemma2::Model::new(false, c, variables)),
        "gemma3" => stock!(gemma3::Config, |c| gemma3::Model::new(false, c, variables)),
        "phi3" => stock!(phi3::Config, |c| phi3::Model::new(c, variables)),
        "qwen2moe" => stock!(qwen2_moe::Config, |c| qwen2_moe::Model::new(c, variables)),
        "qwen3moe" => stock!(qwen3_moe::Config, |c| qwen3_moe::ModelForCausalLM::new(c, variables)),
        "granite" => {
            let config: granitemoehybrid::GraniteMoeHybridConfig = serde_json::from_value(config).unwrap();
            let config = config.into_config(false);
            let mut cache = granitemoehybrid::GraniteMoeHybridCache::new(true, DType::F32, &config, &Device::Cpu).unwrap();
            let model = granitemoehybrid::GraniteMoeHybrid::load(variables, &config).unwrap();
            Box::new(move |x, pos| model.forward(x, pos, &mut cache).unwrap())
        }
        _ => stock!(smollm3::Config, |c| smollm3::ModelForCausalLM::new(c, variables)),
    }
}

fn expected(family: &str, file: &[u8], shape: &Shape, tokens: &[u32], long: bool) -> Vec<Vec<f32>> {
    let mut forward = stock(family, variables(family, file, shape), shape, long);
    let one = |(pos, token): (usize, &u32)| {
        let x = Tensor::new(&[[*token]], &Device::Cpu).unwrap();
        forward(&x, pos).flatten_all().unwrap().to_vec1::<f32>().unwrap()
    };
    tokens.iter().enumerate().map(one).collect()
}

#[test]
fn logits_are_those_of_the_stock_models() {
    let (tokens, pool) = (tokens(1, 24), Pool::new(2, Level::detect()));
    for family in FAMILIES {
        let shape = shape(family);
        let file = dequantized(&shape, QuantType::F32, 7).bytes();
        let agreed = distance(&decode(&open(&file), &pool, &tokens), &expected(family, &file, &shape, &tokens, false));
        assert!(agreed < 0.003, "{family} in F32: candle is {agreed} away");
    }
}

/// Rounded inputs move the logits of these random models by some per cent, as they do those of the families whose stock model is
/// quantized too (`oracle.rs`). Where experts are chosen by them, another choice moves more.
#[test]
fn quantized_logits_stay_near() {
    let (tokens, pool) = (tokens(1, 24), Pool::new(2, Level::detect()));
    for family in FAMILIES {
        let shape = shape(family);
        for quant in QuantType::ALL {
            let exact = decode(&open(&dequantized(&shape, quant, 7).bytes()), &pool, &tokens);
            let off = distance(&decode(&open(&tiny_model(&shape, quant, 7).bytes()), &pool, &tokens), &exact);
            let allowed = if family.ends_with("moe") { 0.15 } else { 0.05 };
            assert!(off < allowed, "{family} {quant}: off by {off}");
        }
    }
}

/// A session with more room than the model was first trained for turns by the long factors from its first token.
#[test]
fn long_contexts_turn_by_their_own_factors() {
    let (shape, pool, tokens) = (shape("phi3"), Pool::new(2, Level::detect()), tokens(1, 24));
    let file = dequantized(&shape, QuantType::F32, 7).bytes();
    let model = open(&file);
    for (n_ctx, long) in [(PHI3_N_CTX_ORIGINAL, false), (PHI3_N_CTX_ORIGINAL + 1, true)] {
        let mut session = Session::new(&model, KvType::F16, n_ctx).unwrap();
        let found: Vec<_> = tokens.iter().map(|t| run(&model, &pool, &mut session, &[*t])).collect();
        let agreed = distance(&found, &expected("phi3", &file, &shape, &tokens, long));
        assert!(agreed < 0.003, "context of {n_ctx}: candle is {agreed} away");
    }
}

/// One session's logits are the same bytes alone, in slices and with neighbours, at every level.
#[test]
fn bytes_do_not_depend_on_company() {
    for family in FAMILIES {
        let model = open(&tiny_model(&shape(family), QuantType::Q4_K, 5).bytes());
        let (ours, other) = (tokens(1, 40), tokens(2, 40));
        let alone = decode(&model, &Pool::new(1, Level::Scalar), &ours);
        for level in Level::available() {
            let pool = Pool::new(2, level);
            let (mut a, mut b) = (Session::new(&model, KvType::F16, 64).unwrap(), Session::new(&model, KvType::F16, 64).unwrap());
            let mut slices = [
                Slice { session: &mut b, tokens: &other[..9], n_logits: 1 },
                Slice { session: &mut a, tokens: &ours[..30], n_logits: 1 },
            ];
            let mut logits = Vec::new();
            step(&model, &pool, &mut slices, &mut logits).unwrap();
            assert_eq!(logits[model.tokenizer().n_vocab()..], alone[29], "{family} at {level}");
            a.truncate(20);
            assert_eq!(run(&model, &pool, &mut a, &ours[20..]), alone[39], "{family} at {level} after a rewind");
        }
    }
}

/// Layers with a window forget what it has left behind, and others do not.
#[test]
fn windows_end() {
    let of = |family: &'static str, n_layer: usize, window: u32| {
        let mut w: GgufWriter = tiny_model(&Shape { n_layer, ..shape(family) }, QuantType::F32, 5);
        w.set(&format!("{family}.attention.sliding_window"), Item::U32(window));
        open(&w.bytes())
    };
    let pool = Pool::new(2, Level::detect());
    let (first, mut second) = (tokens(1, 40), tokens(1, 40));
    second[0] = (second[0] + 1) % 250;
    let last = |model: &Model, tokens: &[u32]| decode(model, &pool, tokens).pop().unwrap();
    for (family, n_layer, window, forgets) in [
        ("gemma2", 1, 39, true),
        ("gemma2", 1, 40, false),
        ("gemma2", 2, 8, false),
        ("gemma3", 5, 7, true),
        ("gemma3", 6, 7, false),
        ("lfm2", 2, 7, true),
        ("lfm2", 2, 40, false),
    ] {
        let model = of(family, n_layer, window);
        let same = last(&model, &first) == last(&model, &second);
        assert_eq!(same, forgets, "{family} of {n_layer} layers with a window of {window}");
    }
}

#[test]
fn b08_experts() {
    let refused = |family: &'static str, key: &str, n: u32, reason: &str| {
        let mut w = tiny_model(&shape(family), QuantType::F32, 1);
        w.set(&format!("{family}.{key}"), Item::U32(n));
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), w.bytes()).unwrap();
        let message = Model::open(file.path()).err().unwrap().to_string();
        assert!(message.contains(reason), "{message:?} does not say {reason:?}");
    };
    refused("granite", "expert_count", 8, "of this family only models without experts are supported");
    refused("qwen3moe", "expert_used_count", 9, "expert_used_count is 9, needed is at most the 8 experts");
    refused("qwen3moe", "expert_used_count", 0, "expert_used_count is 0");
    let mut many = tiny_model(&shape("qwen3moe"), QuantType::F32, 1);
    many.set("qwen3moe.block_count", Item::U32(1000)).set("qwen3moe.expert_count", Item::U32(4000));
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), many.bytes()).unwrap();
    let message = Model::open(file.path()).err().unwrap().to_string();
    assert!(message.contains("expert_count is 4000, needed is no more than 65536 in all 1000 layers"), "{message}");
    refused("qwen3moe", "expert_count", 7, "tensor blk.0.ffn_gate_exps.weight has shape [8, 256, 256], needed is [7, 256, 256]");
    for (kind, left) in [("short", "long"), ("long", "short")] {
        let mut w = tiny_model(&shape("phi3"), QuantType::F32, 1);
        w.remove_tensor(&format!("rope_factors_{kind}.weight"));
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), w.bytes()).unwrap();
        let message = Model::open(file.path()).err().unwrap().to_string();
        assert_eq!(message, format!("tensor rope_factors_{kind}.weight is missing"), "{left} alone");
    }
    refused("lfm2", "attention.head_count", 2, "needed is heads of 64 that add up to 256");
    refused("qwen2moe", "expert_feed_forward_length", 512, "has shape [8, 256, 256], needed is [8, 512, 256]");
}

/// LFM 2 lists its heads layer by layer.
#[test]
fn b04_heads_of_layers() {
    let refused = |list: Item, reason: &str| {
        let mut w = tiny_model(&Shape { n_layer: 3, ..shape("lfm2") }, QuantType::F32, 1);
        w.set("lfm2.attention.head_count_kv", list);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), w.bytes()).unwrap();
        let message = Model::open(file.path()).err().unwrap().to_string();
        assert!(message.contains(reason), "{message:?} does not say {reason:?}");
    };
    refused(Item::Integers(vec![0, 2]), "is a list of 2, needed is one number above 0, or 0, for each of the 3 layers");
    refused(Item::Integers(vec![0, 0, 0]), "is a list of zeros");
    refused(Item::Integers(vec![0, 2, 1]), "is a list with 2 and 1");
    refused(Item::Integers(vec![0, -1, 0]), "a divisor of the 4 heads");
    refused(Item::Texts(vec!["a".into(), "b".into(), "c".into()]), "a list of other things than numbers");
    refused(Item::Integers(vec![2, 0, 2]), "tensor blk.0.attn_q.weight is missing");
}

/// Ollama's files of Gemma 3 leave out what is the same for all of them.
#[test]
fn gemma_3_as_ollama_writes_it() {
    let said = |n_layer: usize, keys: bool| {
        let mut w = tiny_model(&Shape { n_layer, n_embd: 256, ..shape("gemma3") }, QuantType::Q8_0, 5);
        w.set("gemma3.attention.layer_norm_rms_epsilon", Item::F32(1e-6)).set("gemma3.rope.freq_base", Item::F32(1_000_000.0));
        if keys {
            w.set("gemma3.rope.scaling.type", Item::Text("linear".into())).set("gemma3.rope.scaling.factor", Item::F32(8.0));
        } else {
            w.remove("gemma3.attention.layer_norm_rms_epsilon").remove("gemma3.rope.freq_base");
        }
        let logits = decode(&open(&w.bytes()), &Pool::new(2, Level::detect()), &tokens(1, 8));
        logits.last().unwrap().clone()
    };
    assert_eq!(said(34, false), said(34, true), "the model of 4 billion weights");
    assert_ne!(said(7, false), said(7, true), "others are not scaled");
}

/// Qwen 3 Embedding is a Qwen 3 whose file says how its last values become a vector: those of the last token, or their mean.
#[test]
fn vectors_of_qwen_3_are_pooled_as_the_file_says() {
    let (shape, pool, tokens) = (shape("qwen3"), Pool::new(2, Level::detect()), tokens(1, 24));
    let mut file = dequantized(&shape, QuantType::F32, 7);
    let config: qwen3::Config = serde_json::from_value(json!({
        "vocab_size": shape.n_vocab, "hidden_size": shape.n_embd, "intermediate_size": shape.n_ff, "head_dim": shape.n_embd_head,
        "num_hidden_layers": shape.n_layer, "num_attention_heads": shape.n_head, "num_key_value_heads": shape.n_head_kv,
        "attention_bias": false, "max_position_embeddings": shape.n_ctx, "sliding_window": null, "max_window_layers": shape.n_layer,
        "tie_word_embeddings": true, "rope_theta": 10_000.0, "rms_norm_eps": 1e-5, "use_sliding_window": false, "hidden_act": "silu",
    }))
    .unwrap();
    let mut stock = qwen3::Model::new(&config, variables("qwen3", &file.bytes(), &shape)).unwrap();
    let ids = Tensor::new(&tokens[..], &Device::Cpu).unwrap().unsqueeze(0).unwrap();
    let rows = stock.forward(&ids, 0).unwrap().squeeze(0).unwrap();
    for (pooling, expected) in [(3, rows.get(tokens.len() - 1).unwrap()), (1, rows.mean(0).unwrap())] {
        file.set("qwen3.pooling_type", Item::U32(pooling));
        let model = open(&file.bytes());
        let mut session = Session::new(&model, KvType::F16, 64).unwrap();
        let mut embedding = Embedding::new(tokens.clone());
        let found = loop {
            // In slices, as beside running chats.
            if let Some(found) = embedding.advance(&model, &pool, &mut session, 10).unwrap() {
                break found;
            }
        };
        let expected = expected.to_vec1::<f32>().unwrap();
        let length = expected.iter().map(|v| v * v).sum::<f32>().sqrt();
        let cosine: f32 = found.iter().zip(&expected).map(|(a, b)| a * b / length).sum();
        assert!(cosine > 0.9999, "pooling {pooling}: {cosine}");
    }
}
