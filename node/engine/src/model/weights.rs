//! From the tensor directory to the weights of a network: every name and shape is checked here.

use std::collections::HashMap;
use std::sync::Arc;

use kernels::LayerNorm;

use super::decoder::{Decoder, FeedForward as DecoderFeedForward, Layer};
use super::encoder::{Encoder, EncoderLayer, FeedForward};
use super::experts::{Expert, Experts};
use super::{Network, OpenError};
use crate::gguf::{Header, TensorInfo};
use crate::hyperparams::{ExpertCounts, Family, Hyperparams, Mixing};
use crate::map::Map;
use crate::matrix::{Group, Matrix};

/// Taps of a convolution; published models have three.
const N_TAPS_MAX: usize = 64;

/// Collects the weights of the header's family.
pub(super) fn read(map: &Arc<Map>, header: &Header, hyperparams: &mut Hyperparams) -> Result<Network, OpenError> {
    let weights = Weights { map, tensors: &header.tensors };
    let embedding = weights.tensor("token_embd.weight")?;
    if embedding.shape.len() != 2 || embedding.shape[1] != hyperparams.n_embd {
        let needed = vec![embedding.shape[0], hyperparams.n_embd];
        return Err(OpenError::Shape { name: "token_embd.weight".into(), found: embedding.shape.clone(), needed });
    }
    let n_vocab = embedding.shape[0];
    if hyperparams.family.encodes() {
        encoder(&weights, hyperparams, n_vocab).map(Network::Encoder)
    } else {
        let scaling = format!("{}.rope.scaling.type", header.text("general.architecture").unwrap_or_default());
        let is_long = header.text(&scaling) == Some("longrope");
        decoder(&weights, hyperparams, n_vocab, is_long).map(Network::Decoder)
    }
}

fn encoder(weights: &Weights, h: &Hyperparams, n_vocab: usize) -> Result<Encoder, OpenError> {
    let positions = match h.family {
        Family::Bert => {
            let found = weights.tensor("position_embd.weight")?;
            let n_positions = found.shape[0];
            if n_positions < h.n_ctx_train {
                let (found, needed) = (found.shape.clone(), vec![h.n_ctx_train, h.n_embd]);
                return Err(OpenError::Shape { name: "position_embd.weight".into(), found, needed });
            }
            Some(weights.matrix("position_embd.weight", n_positions, h.n_embd)?)
        }
        _ => None,
    };
    Ok(Encoder {
        embedding: weights.matrix("token_embd.weight", n_vocab, h.n_embd)?,
        token_type: weights.first_row("token_types.weight", h.n_embd)?,
        positions,
        norm: weights.norm("token_embd_norm", h)?,
        layers: (0..h.n_layer).map(|i| encoder_layer(weights, h, i)).collect::<Result<_, _>>()?,
    })
}

fn encoder_layer(weights: &Weights, h: &Hyperparams, index: usize) -> Result<EncoderLayer, OpenError> {
    let name = |part: &str| format!("blk.{index}.{part}");
    let matrix = |part: &str, n_out: usize, n_in: usize| weights.matrix(&name(&format!("{part}.weight")), n_out, n_in);
    let bias = |part: &str, n: usize| weights.optional_vector(&name(&format!("{part}.bias")), n);
    let (qkv, qkv_bias) = weights.qkv(h, index)?;
    let feed_forward = if h.family == Family::NomicBert {
        FeedForward::Gated {
            gate_up: Group::new(vec![matrix("ffn_gate", h.n_ff, h.n_embd)?, matrix("ffn_up", h.n_ff, h.n_embd)?]),
        }
    } else {
        let bias = bias("ffn_up", h.n_ff)?.unwrap_or_else(|| vec![0.0; h.n_ff]);
        FeedForward::Gelu { up: Group::new(vec![matrix("ffn_up", h.n_ff, h.n_embd)?]), bias }
    };
    Ok(EncoderLayer {
        qkv,
        qkv_bias,
        attn_output: Group::new(vec![matrix("attn_output", h.n_embd, h.n_embd_q())?]),
        attn_output_bias: bias("attn_output", h.n_embd)?,
        attn_norm: weights.norm(&name("attn_output_norm"), h)?,
        feed_forward,
        ffn_down: Group::new(vec![matrix("ffn_down", h.n_embd, h.n_ff)?]),
        ffn_down_bias: bias("ffn_down", h.n_embd)?,
        output_norm: weights.norm(&name("layer_output_norm"), h)?,
    })
}

/// Collects the decoder's weights, and applies the file's rope factors to the frequencies.
fn decoder(weights: &Weights, hyperparams: &mut Hyperparams, n_vocab: usize, is_long: bool) -> Result<Decoder, OpenError> {
    let n_ctx_original = hyperparams.n_ctx_original;
    for rope in &mut hyperparams.ropes {
        let factors = |name: &str| weights.optional_vector(name, rope.frequencies.len());
        let (all, short, long) =
            (factors("rope_freqs.weight")?, factors("rope_factors_short.weight")?, factors("rope_factors_long.weight")?);
        if let Some(factors) = all {
            rope.divide(&factors)?;
        }
        match (short, long) {
            (Some(short), Some(long)) => rope.lengthen(n_ctx_original, &short, &long)?,
            (None, None) if !is_long => {}
            (None, _) => return Err(OpenError::MissingTensor { name: "rope_factors_short.weight".into() }),
            (_, None) => return Err(OpenError::MissingTensor { name: "rope_factors_long.weight".into() }),
        }
    }
    let layers = (0..hyperparams.n_layer).map(|i| layer(weights, hyperparams, i)).collect::<Result<_, _>>()?;
    Ok(Decoder {
        layers,
        embedding: weights.matrix("token_embd.weight", n_vocab, hyperparams.n_embd)?,
        output_norm: match weights.has("output_norm.weight") || hyperparams.family != Family::Lfm2 {
            true => weights.vector("output_norm.weight", hyperparams.n_embd)?,
            // What files of this family called it at first.
            false => weights.vector("token_embd_norm.weight", hyperparams.n_embd)?,
        },
        // Tied embeddings: without a matrix of its own the output reads the embedding's bytes.
        output: Group::new(vec![weights.matrix(
            if weights.has("output.weight") { "output.weight" } else { "token_embd.weight" },
            n_vocab,
            hyperparams.n_embd,
        )?]),
    })
}

fn layer(weights: &Weights, h: &Hyperparams, index: usize) -> Result<Layer, OpenError> {
    let name = |part: &str| format!("blk.{index}.{part}");
    let norm = |part: &str, wanted: bool, n: usize| -> Result<Option<Vec<f32>>, OpenError> {
        if wanted { weights.vector(&name(part), n).map(Some) } else { Ok(None) }
    };
    let attn_norm = weights.vector(&name("attn_norm.weight"), h.n_embd)?;
    let attends = h.layers[index].mixing == Mixing::Attention;
    let (qkv, qkv_bias) = match attends {
        true => weights.qkv(h, index)?,
        false => (Group::new(vec![weights.matrix(&name("shortconv.in_proj.weight"), 3 * h.n_embd, h.n_embd)?]), None),
    };
    if qkv_bias.is_none() && matches!(h.family, Family::Qwen2 | Family::Qwen2Moe) {
        return Err(OpenError::MissingTensor { name: name("attn_q.bias") });
    }
    Ok(Layer {
        attn_norm,
        qkv,
        taps: if attends { None } else { Some(weights.taps(&name("shortconv.conv.weight"), h)?) },
        qkv_bias,
        q_norm: norm("attn_q_norm.weight", attends && h.family.norms_heads(), h.n_embd_head)?,
        k_norm: norm("attn_k_norm.weight", attends && h.family.norms_heads(), h.n_embd_head)?,
        attn_output: Group::new(vec![match attends {
            true => weights.matrix(&name("attn_output.weight"), h.n_embd, h.n_embd_q())?,
            false => weights.matrix(&name("shortconv.out_proj.weight"), h.n_embd, h.n_embd_q())?,
        }]),
        attn_post_norm: norm("post_attention_norm.weight", h.family.norms_outputs(), h.n_embd)?,
        ffn_norm: weights.vector(&name("ffn_norm.weight"), h.n_embd)?,
        feed_forward: match h.experts {
            Some(counts) => DecoderFeedForward::Experts(experts(weights, h, counts, index)?),
            None => {
                let Expert { gate_up, down } = expert(weights, h.n_embd, h.n_ff, &|part| name(part))?;
                DecoderFeedForward::Dense { gate_up, down }
            }
        },
        ffn_post_norm: norm("post_ffw_norm.weight", h.family.norms_outputs(), h.n_embd)?,
    })
}

/// A feed-forward part whose tensors `name` gives for `ffn_gate`, `ffn_up` and `ffn_down`; gate and up may be one matrix.
fn expert(weights: &Weights, n_embd: usize, n_ff: usize, name: &dyn Fn(&str) -> String) -> Result<Expert, OpenError> {
    let (gate, up) = (name("ffn_gate.weight"), name("ffn_up.weight"));
    let gate_up = match weights.has(&gate) {
        true => vec![weights.matrix(&gate, n_ff, n_embd)?, weights.matrix(&up, n_ff, n_embd)?],
        false => vec![weights.matrix(&up, 2 * n_ff, n_embd)?],
    };
    let down = vec![weights.matrix(&name("ffn_down.weight"), n_embd, n_ff)?];
    Ok(Expert { gate_up: Group::new(gate_up), down: Group::new(down) })
}

fn experts(weights: &Weights, h: &Hyperparams, counts: ExpertCounts, index: usize) -> Result<Experts, OpenError> {
    let name = |part: &str| format!("blk.{index}.{part}.weight");
    let all = |part: &str, n_out: usize, n_in: usize| weights.matrices(&name(part), counts.n, n_out, n_in);
    let gates = all("ffn_gate_exps", counts.n_ff, h.n_embd)?.into_iter().zip(all("ffn_up_exps", counts.n_ff, h.n_embd)?);
    let experts = gates
        .zip(all("ffn_down_exps", h.n_embd, counts.n_ff)?)
        .map(|((gate, up), down)| Expert { gate_up: Group::new(vec![gate, up]), down: Group::new(vec![down]) });
    let shared = counts.n_ff_shared.map(|n_ff| -> Result<_, OpenError> {
        let part = |part: &str| name(&format!("{}_shexp", part.trim_end_matches(".weight")));
        Ok((expert(weights, h.n_embd, n_ff, &part)?, weights.vector(&name("ffn_gate_inp_shexp"), h.n_embd)?))
    });
    Ok(Experts {
        router: Group::new(vec![weights.matrix(&name("ffn_gate_inp"), counts.n, h.n_embd)?]),
        experts: experts.collect(),
        shared: shared.transpose()?,
    })
}

/// The tensor directory, asked by name and expected shape.
struct Weights<'a> {
    map: &'a Arc<Map>,
    tensors: &'a HashMap<String, TensorInfo>,
}

impl Weights<'_> {
    fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    fn tensor(&self, name: &str) -> Result<&TensorInfo, OpenError> {
        self.tensors.get(name).ok_or_else(|| OpenError::MissingTensor { name: name.into() })
    }

    fn shaped(&self, name: &str, needed: &[usize]) -> Result<&TensorInfo, OpenError> {
        let info = self.tensor(name)?;
        if info.shape == needed {
            return Ok(info);
        }
        Err(OpenError::Shape { name: name.into(), found: info.shape.clone(), needed: needed.to_vec() })
    }

    fn matrix(&self, name: &str, n_out: usize, n_in: usize) -> Result<Matrix, OpenError> {
        Ok(Matrix::new(self.map.clone(), self.shaped(name, &[n_out, n_in])?.clone()))
    }

    /// Matrices that are one tensor, `(n, n_out, n_in)`.
    fn matrices(&self, name: &str, n: usize, n_out: usize, n_in: usize) -> Result<Vec<Matrix>, OpenError> {
        let info = self.shaped(name, &[n, n_out, n_in])?;
        let n_bytes = info.n_bytes / n;
        let place = |index: usize| TensorInfo {
            shape: vec![n_out, n_in],
            offset: info.offset + index * n_bytes,
            n_bytes,
            ..info.clone()
        };
        Ok((0..n).map(|index| Matrix::new(self.map.clone(), place(index))).collect())
    }

    /// The matrices of q, k and v, which may be one, and their biases.
    fn qkv(&self, h: &Hyperparams, index: usize) -> Result<(Group, Option<Vec<f32>>), OpenError> {
        let name = |part: &str, kind: &str| format!("blk.{index}.{part}.{kind}");
        let (n_q, n_kv) = (h.n_embd_q(), h.n_embd_kv());
        let parts: &[(&str, usize)] = match self.has(&name("attn_qkv", "weight")) {
            true => &[("attn_qkv", n_q + 2 * n_kv)],
            false => &[("attn_q", n_q), ("attn_k", n_kv), ("attn_v", n_kv)],
        };
        let matrices =
            parts.iter().map(|(part, n)| self.matrix(&name(part, "weight"), *n, h.n_embd)).collect::<Result<_, _>>()?;
        if !self.has(&name(parts[0].0, "bias")) {
            return Ok((Group::new(matrices), None));
        }
        let biases = parts.iter().map(|(part, n)| self.vector(&name(part, "bias"), *n)).collect::<Result<Vec<_>, _>>()?;
        Ok((Group::new(matrices), Some(biases.concat())))
    }

    /// The taps of a convolution: a few for each value in the file, value by value for each tap here.
    fn taps(&self, name: &str, h: &Hyperparams) -> Result<Vec<f32>, OpenError> {
        let shape = &self.tensor(name)?.shape;
        let n_taps = shape.last().copied().filter(|n| *n <= N_TAPS_MAX).unwrap_or(1);
        let info = self.shaped(name, &[h.n_embd, n_taps])?;
        if info.quant.block_len() != 1 {
            return Err(OpenError::NotFloat { name: name.into(), found: info.quant });
        }
        let mut values = vec![0f32; h.n_embd * n_taps];
        info.quant.dequantize(&self.map[info.offset..info.offset + info.n_bytes], &mut values);
        Ok((0..n_taps).flat_map(|tap| (0..h.n_embd).map(move |i| (i, tap))).map(|(i, tap)| values[i * n_taps + tap]).collect())
    }

    /// A norm with its bias; without one it is zero.
    fn norm(&self, name: &str, h: &Hyperparams) -> Result<LayerNorm, OpenError> {
        let bias = self.optional_vector(&format!("{name}.bias"), h.n_embd)?;
        Ok(LayerNorm {
            weight: self.vector(&format!("{name}.weight"), h.n_embd)?,
            bias: bias.unwrap_or_else(|| vec![0.0; h.n_embd]),
            epsilon: h.norm_epsilon,
        })
    }

    fn optional_vector(&self, name: &str, len: usize) -> Result<Option<Vec<f32>>, OpenError> {
        if self.has(name) { self.vector(name, len).map(Some) } else { Ok(None) }
    }

    /// The first row of a matrix that need not be there.
    fn first_row(&self, name: &str, n_in: usize) -> Result<Option<Vec<f32>>, OpenError> {
        if !self.has(name) {
            return Ok(None);
        }
        let info = self.tensor(name)?;
        if info.shape.last() != Some(&n_in) {
            return Err(OpenError::Shape { name: name.into(), found: info.shape.clone(), needed: vec![1, n_in] });
        }
        let n_rows = info.shape.iter().product::<usize>() / n_in;
        let mut row = vec![0f32; n_in];
        let matrix = Matrix::new(self.map.clone(), TensorInfo { shape: vec![n_rows, n_in], ..info.clone() });
        matrix.weights().dequantize_row(0, &mut row);
        Ok(Some(row))
    }

    /// Norms and biases: the only weights that are copied.
    fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>, OpenError> {
        let info = self.shaped(name, &[len])?;
        if info.quant.block_len() != 1 {
            return Err(OpenError::NotFloat { name: name.into(), found: info.quant });
        }
        let mut values = vec![0f32; len];
        info.quant.dequantize(&self.map[info.offset..info.offset + info.n_bytes], &mut values);
        Ok(values)
    }
}
