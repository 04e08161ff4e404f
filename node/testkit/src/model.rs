//! Random models that are small enough for a test and whole enough to be served.

use kernels::QuantType;

use crate::{GgufWriter, Item, Random, random_weights};

/// Family and widths of a random model.
#[derive(Clone)]
pub struct Shape {
    /// The architecture as files name it: any decoder that the engine runs.
    pub family: &'static str,
    pub n_layer: usize,
    pub n_embd: usize,
    pub n_ff: usize,
    pub n_head: usize,
    pub n_head_kv: usize,
    pub n_embd_head: usize,
    pub n_ctx: usize,
    /// Entries of the vocabulary; at least 262.
    pub n_vocab: usize,
    /// Whether the output has a matrix of its own.
    pub untied: bool,
    /// Rope factors as Llama 3 files have them.
    pub rope_factors: bool,
}

impl Shape {
    /// Two layers, four heads on two key/value heads, widths of 256: every quant type fits.
    pub fn tiny(family: &'static str) -> Shape {
        Shape {
            family,
            n_layer: 2,
            n_embd: 256,
            n_ff: 512,
            n_head: 4,
            n_head_kv: 2,
            n_embd_head: 64,
            n_ctx: 2048,
            n_vocab: 288,
            untied: false,
            rope_factors: false,
        }
    }
}

/// Experts of a layer, those a token uses, and the width of each.
pub const EXPERTS: (usize, usize, usize) = (8, 3, 256);
/// The context beyond which `phi3` turns by its long factors.
pub const PHI3_N_CTX_ORIGINAL: usize = 128;

/// A template that marks roles as ChatML does.
const TEMPLATE: &str = "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}{%- endfor %}\
    {%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}";

/// A model whose matrices have type `quant`, with weights from `seed`.
pub fn tiny_model(shape: &Shape, quant: QuantType, seed: u64) -> GgufWriter {
    write_model(shape, &|_| quant, seed)
}

/// A model whose matrices have the type that `quant_of` names for each tensor.
pub fn write_model(shape: &Shape, quant_of: &dyn Fn(&str) -> QuantType, seed: u64) -> GgufWriter {
    let mut w = GgufWriter::default();
    metadata(shape, &mut w);
    vocabulary(shape.n_vocab, &[], &mut w);
    let random = [0, 1, 2].map(|part| Random(seed ^ part));
    let [weights, vectors, experts] = random;
    let mut tensors = Tensors { w, quant_of, weights, vectors, experts };
    tensors.matrix("token_embd.weight", shape.n_vocab, shape.n_embd);
    tensors.vector("output_norm.weight", shape.n_embd, 1.0);
    if shape.untied {
        tensors.matrix("output.weight", shape.n_vocab, shape.n_embd);
    }
    if shape.rope_factors {
        tensors.factors("rope_freqs.weight", shape.n_embd_head / 2, 1.0, 8.0);
    }
    if shape.family == "phi3" {
        tensors.factors("rope_factors_short.weight", shape.n_embd_head / 2, 1.0, 16.0);
        tensors.factors("rope_factors_long.weight", shape.n_embd_head / 2, 2.0, 16.0);
    }
    (0..shape.n_layer).for_each(|index| tensors.layer(shape, index));
    tensors.w
}

/// What tensors are written with.
struct Tensors<'a> {
    w: GgufWriter,
    quant_of: &'a dyn Fn(&str) -> QuantType,
    weights: Random,
    vectors: Random,
    experts: Random,
}

impl Tensors<'_> {
    fn matrix(&mut self, name: &str, n_out: usize, n_in: usize) {
        let quant = (self.quant_of)(name);
        self.w.tensor(name, quant, n_out, n_in, random_weights(quant, n_out, n_in, &mut self.weights));
    }

    fn vector(&mut self, name: &str, n: usize, base: f32) {
        let bytes = (0..n).flat_map(|_| (base + 0.1 * self.vectors.float()).to_le_bytes()).collect();
        self.w.tensor(name, QuantType::F32, 0, n, bytes);
    }

    /// `base`, and from one to the next an `n`th more.
    fn factors(&mut self, name: &str, len: usize, base: f32, n: f32) {
        let bytes = (0..len).flat_map(|i| (base + i as f32 / n).to_le_bytes()).collect();
        self.w.tensor(name, QuantType::F32, 0, len, bytes);
    }

    fn layer(&mut self, shape: &Shape, index: usize) {
        let name = |part: &str| format!("blk.{index}.{part}.weight");
        let (n_q, n_kv) = (shape.n_head * shape.n_embd_head, shape.n_head_kv * shape.n_embd_head);
        let (family, fused) = (shape.family, shape.family == "phi3");
        self.vector(&name("attn_norm"), shape.n_embd, 1.0);
        self.vector(&name("ffn_norm"), shape.n_embd, 1.0);
        if family == "lfm2" && index.is_multiple_of(2) {
            self.matrix(&name("shortconv.in_proj"), 3 * shape.n_embd, shape.n_embd);
            self.matrix(&name("shortconv.out_proj"), shape.n_embd, n_q);
            let taps = (0..3 * shape.n_embd).flat_map(|_| self.vectors.float().to_le_bytes()).collect();
            self.w.tensor(&name("shortconv.conv"), QuantType::F32, shape.n_embd, 3, taps);
            return self.dense(shape, &name, false);
        }
        let parts: &[_] = match fused {
            true => &[("attn_qkv", n_q + 2 * n_kv)],
            false => &[("attn_q", n_q), ("attn_k", n_kv), ("attn_v", n_kv)],
        };
        for (part, n_out) in parts {
            self.matrix(&name(part), *n_out, shape.n_embd);
            if family.starts_with("qwen2") {
                self.vector(&format!("blk.{index}.{part}.bias"), *n_out, 0.0);
            }
        }
        if family.starts_with("qwen3") || ["gemma3", "lfm2"].contains(&family) {
            self.vector(&name("attn_q_norm"), shape.n_embd_head, 1.0);
            self.vector(&name("attn_k_norm"), shape.n_embd_head, 1.0);
        }
        self.matrix(&name("attn_output"), shape.n_embd, n_q);
        if family.starts_with("gemma") {
            self.vector(&name("post_attention_norm"), shape.n_embd, 1.0);
            self.vector(&name("post_ffw_norm"), shape.n_embd, 1.0);
        }
        if family.ends_with("moe") {
            return self.experts(shape, &name);
        }
        self.dense(shape, &name, fused);
    }

    fn dense(&mut self, shape: &Shape, name: &dyn Fn(&str) -> String, fused: bool) {
        if !fused {
            self.matrix(&name("ffn_gate"), shape.n_ff, shape.n_embd);
        }
        self.matrix(&name("ffn_up"), if fused { 2 } else { 1 } * shape.n_ff, shape.n_embd);
        self.matrix(&name("ffn_down"), shape.n_embd, shape.n_ff);
    }

    fn experts(&mut self, shape: &Shape, name: &dyn Fn(&str) -> String) {
        let (n, _, n_ff) = EXPERTS;
        let router = random_weights(QuantType::F32, n, shape.n_embd, &mut self.experts);
        self.w.tensor(&name("ffn_gate_inp"), QuantType::F32, n, shape.n_embd, router);
        let shared = shape.family == "qwen2moe";
        for (part, n_out, n_in) in
            [("ffn_gate", n_ff, shape.n_embd), ("ffn_up", n_ff, shape.n_embd), ("ffn_down", shape.n_embd, n_ff)]
        {
            let (all, quant) = (name(&format!("{part}_exps")), (self.quant_of)(part));
            let bytes = (0..n).flat_map(|_| random_weights(quant, n_out, n_in, &mut self.experts)).collect();
            self.w.matrices(&all, quant, [n, n_out, n_in], bytes);
            if shared {
                self.matrix(&name(&format!("{part}_shexp")), n_out, n_in);
            }
        }
        if shared {
            self.vector(&name("ffn_gate_inp_shexp"), shape.n_embd, 0.0);
        }
    }
}

pub(crate) fn metadata(shape: &Shape, w: &mut GgufWriter) {
    let count = |n: usize| Item::U32(u32::try_from(n).expect("test shapes are small"));
    let key = |part: &str| format!("{}.{part}", shape.family);
    w.set("general.architecture", Item::Text(shape.family.into()));
    w.set("general.name", Item::Text(format!("random {}", shape.family)));
    w.set(&key("context_length"), count(shape.n_ctx));
    w.set(&key("embedding_length"), count(shape.n_embd));
    w.set(&key("block_count"), count(shape.n_layer));
    w.set(&key("feed_forward_length"), count(shape.n_ff));
    w.set(&key("attention.head_count"), count(shape.n_head));
    w.set(&key("attention.head_count_kv"), count(shape.n_head_kv));
    w.set(&key("attention.key_length"), count(shape.n_embd_head));
    w.set(&key("attention.value_length"), count(shape.n_embd_head));
    w.set(&key("rope.dimension_count"), count(shape.n_embd_head));
    w.set(&key("attention.layer_norm_rms_epsilon"), Item::F32(1e-5));
    w.set(&key("rope.freq_base"), Item::F32(10_000.0));
    w.set(&key("vocab_size"), count(shape.n_vocab));
    let number = |v: f32| Item::F32(v);
    // Every other layer attends.
    let heads = |i: usize| if i.is_multiple_of(2) { 0 } else { i32::try_from(shape.n_head_kv).expect("test shapes are small") };
    let heads_of_layers = Item::Integers((0..shape.n_layer).map(heads).collect());
    let more: &[(&str, Item)] = match shape.family {
        "gemma2" => &[("attn_logit_softcapping", number(1.0)), ("final_logit_softcapping", number(3.0))],
        "gemma3" => &[("rope.freq_base", number(100_000.0)), ("attention.sliding_window", count(1024))],
        "phi3" => &[("rope.scaling.original_context_length", count(PHI3_N_CTX_ORIGINAL))],
        "lfm2" => &[("attention.head_count_kv", heads_of_layers), ("shortconv.l_cache", count(3))],
        "granite" => &[
            ("embedding_scale", number(3.0)),
            ("residual_scale", number(0.5)),
            ("attention.scale", number(0.25)),
            ("logit_scale", number(4.0)),
        ],
        "qwen2moe" | "qwen3moe" => &[
            ("expert_count", count(EXPERTS.0)),
            ("expert_used_count", count(EXPERTS.1)),
            ("expert_feed_forward_length", count(EXPERTS.2)),
            ("expert_shared_feed_forward_length", count(EXPERTS.2)),
        ],
        _ => &[],
    };
    more.iter().for_each(|(part, item)| _ = w.set(&key(part), item.clone()));
}

/// A text as byte-level vocabularies write it: the table of GPT-2.
pub(crate) fn byte_text(text: &str) -> String {
    text.bytes().map(byte_char).collect()
}

fn byte_char(byte: u8) -> char {
    let plain = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    match byte {
        _ if plain(byte) => char::from(byte),
        _ => {
            let others = (0..byte).filter(|b| !plain(*b)).count() as u32;
            char::from_u32(0x100 + others).expect("the table ends at U+0143")
        }
    }
}

/// A byte-level vocabulary without merges: 256 bytes, three control tokens, two markers, words of `w<number>`, then `more`
/// with their kinds.
pub(crate) fn vocabulary(n_vocab: usize, more: &[(String, i32)], w: &mut GgufWriter) {
    let mut tokens: Vec<String> = (0u8..=255).map(|byte| byte_char(byte).to_string()).collect();
    tokens.extend(["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<tool_call>", "</tool_call>"].map(String::from));
    let mut kinds = vec![1; 256];
    kinds.extend([3, 3, 3, 4, 4]);
    tokens.extend((tokens.len()..n_vocab).map(|i| format!("w{i}")));
    kinds.resize(n_vocab, 1);
    // Markers of a script take the place of those every vocabulary has.
    for (text, kind) in more {
        if let Some(token) = tokens.iter_mut().find(|token| *token == text) {
            token.push('_');
        }
        tokens.push(text.clone());
        kinds.push(*kind);
    }
    w.set("tokenizer.ggml.model", Item::Text("gpt2".into()));
    w.set("tokenizer.ggml.pre", Item::Text("qwen2".into()));
    w.set("tokenizer.ggml.tokens", Item::Texts(tokens));
    w.set("tokenizer.ggml.token_type", Item::Integers(kinds));
    w.set("tokenizer.ggml.merges", Item::Texts(Vec::new()));
    w.set("tokenizer.ggml.bos_token_id", Item::U32(256));
    w.set("tokenizer.ggml.eos_token_id", Item::U32(258));
    w.set("tokenizer.ggml.add_bos_token", Item::Bool(false));
    w.set("tokenizer.chat_template", Item::Text(TEMPLATE.into()));
}

/// The model of [`tiny_model`] with its matrices dequantized to F32: what exact arithmetic would compute with.
pub fn dequantized(shape: &Shape, quant: QuantType, seed: u64) -> GgufWriter {
    let mut w = tiny_model(shape, quant, seed);
    w.map_tensors(|kind, bytes, n_in| {
        if kind != quant || quant == QuantType::F32 {
            return None;
        }
        let aligned: Vec<u64> =
            bytes.chunks(8).map(|c| u64::from_le_bytes(std::array::from_fn(|i| c.get(i).copied().unwrap_or(0)))).collect();
        let mut out = vec![0f32; bytes.len() / quant.row_bytes(n_in)? * n_in];
        quant.dequantize(&bytemuck::cast_slice(&aligned)[..bytes.len()], &mut out);
        Some((QuantType::F32, out.iter().flat_map(|v| v.to_le_bytes()).collect()))
    });
    w
}
