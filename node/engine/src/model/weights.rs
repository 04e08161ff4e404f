//! From the tensor directory to the weights of a network: every name and shape is checked here.

use std::collections::HashMap;
use std::sync::Arc;

use kernels::LayerNorm;

use super::decoder::{Decoder, Layer};
use super::encoder::{Encoder, EncoderLayer, FeedForward};
use super::{Network, OpenError};
use crate::gguf::{Header, TensorInfo};
use crate::hyperparams::{Family, Hyperparams, HyperparamsError};
use crate::map::Map;
use crate::matrix::{Group, Matrix};

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
        decoder(&weights, hyperparams, n_vocab).map(Network::Decoder)
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
    let (n_q, n_kv) = (h.n_embd_q(), h.n_embd_kv());
    let (qkv, qkv_bias) = if weights.has(&name("attn_qkv.weight")) {
        (vec![matrix("attn_qkv", n_q + 2 * n_kv, h.n_embd)?], bias("attn_qkv", n_q + 2 * n_kv)?)
    } else {
        let parts = [("attn_q", n_q), ("attn_k", n_kv), ("attn_v", n_kv)];
        let matrices = parts.map(|(part, n)| matrix(part, n, h.n_embd)).into_iter().collect::<Result<_, _>>()?;
        let biases = parts.map(|(part, n)| bias(part, n)).into_iter().collect::<Result<Option<Vec<_>>, _>>()?;
        (matrices, biases.map(|all| all.concat()))
    };
    let feed_forward = if h.family == Family::NomicBert {
        FeedForward::Gated {
            gate_up: Group::new(vec![matrix("ffn_gate", h.n_ff, h.n_embd)?, matrix("ffn_up", h.n_ff, h.n_embd)?]),
        }
    } else {
        let bias = bias("ffn_up", h.n_ff)?.unwrap_or_else(|| vec![0.0; h.n_ff]);
        FeedForward::Gelu { up: Group::new(vec![matrix("ffn_up", h.n_ff, h.n_embd)?]), bias }
    };
    Ok(EncoderLayer {
        qkv: Group::new(qkv),
        qkv_bias,
        attn_output: Group::new(vec![matrix("attn_output", h.n_embd, n_q)?]),
        attn_output_bias: bias("attn_output", h.n_embd)?,
        attn_norm: weights.norm(&name("attn_output_norm"), h)?,
        feed_forward,
        ffn_down: Group::new(vec![matrix("ffn_down", h.n_embd, h.n_ff)?]),
        ffn_down_bias: bias("ffn_down", h.n_embd)?,
        output_norm: weights.norm(&name("layer_output_norm"), h)?,
    })
}

/// Collects the decoder's weights, and applies the file's rope factors (Llama 3) to the frequencies.
fn decoder(weights: &Weights, hyperparams: &mut Hyperparams, n_vocab: usize) -> Result<Decoder, OpenError> {
    if weights.has("rope_freqs.weight") {
        let factors = weights.vector("rope_freqs.weight", hyperparams.rope.len())?;
        for (frequency, factor) in hyperparams.rope.iter_mut().zip(factors) {
            if !(factor.is_finite() && factor > 0.0) {
                let key = "a factor in rope_freqs.weight".to_owned();
                return Err(
                    HyperparamsError::Value { key, found: factor.to_string(), needed: "a finite number above 0".into() }.into()
                );
            }
            *frequency /= factor;
        }
    }
    let layers = (0..hyperparams.n_layer).map(|i| layer(weights, hyperparams, i)).collect::<Result<_, _>>()?;
    Ok(Decoder {
        layers,
        embedding: weights.matrix("token_embd.weight", n_vocab, hyperparams.n_embd)?,
        output_norm: weights.vector("output_norm.weight", hyperparams.n_embd)?,
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
    let matrix = |part: &str, n_out: usize, n_in: usize| weights.matrix(&name(part), n_out, n_in);
    let biases = weights.has(&name("attn_q.bias")) || h.family == Family::Qwen2;
    let head_norm = |part: &str| -> Result<Option<Vec<f32>>, OpenError> {
        if h.family == Family::Qwen3 { weights.vector(&name(part), h.n_embd_head).map(Some) } else { Ok(None) }
    };
    Ok(Layer {
        attn_norm: weights.vector(&name("attn_norm.weight"), h.n_embd)?,
        qkv: Group::new(vec![
            matrix("attn_q.weight", h.n_embd_q(), h.n_embd)?,
            matrix("attn_k.weight", h.n_embd_kv(), h.n_embd)?,
            matrix("attn_v.weight", h.n_embd_kv(), h.n_embd)?,
        ]),
        qkv_bias: if biases {
            let mut all = weights.vector(&name("attn_q.bias"), h.n_embd_q())?;
            all.extend(weights.vector(&name("attn_k.bias"), h.n_embd_kv())?);
            all.extend(weights.vector(&name("attn_v.bias"), h.n_embd_kv())?);
            Some(all)
        } else {
            None
        },
        q_norm: head_norm("attn_q_norm.weight")?,
        k_norm: head_norm("attn_k_norm.weight")?,
        attn_output: Group::new(vec![matrix("attn_output.weight", h.n_embd, h.n_embd_q())?]),
        ffn_norm: weights.vector(&name("ffn_norm.weight"), h.n_embd)?,
        gate_up: Group::new(vec![matrix("ffn_gate.weight", h.n_ff, h.n_embd)?, matrix("ffn_up.weight", h.n_ff, h.n_embd)?]),
        ffn_down: Group::new(vec![matrix("ffn_down.weight", h.n_embd, h.n_ff)?]),
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
