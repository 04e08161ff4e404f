//! A model file written anew with smaller weights. The blocks are made by candle; this file decides which type each tensor gets
//! and writes the file tensor by tensor, so that memory holds some rows at a time.
//!
//! Which tensors keep more bits follows llama.cpp's mixtures of the same names: the output matrix, and in the `_M` mixtures the
//! values and the last matrix of half the layers.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use kernels::QuantType;

use crate::gguf::{Header, HeaderError, TensorInfo};
use crate::map::Map;

mod write;

/// Rows that are in memory as floats at a time.
const N_ROWS: usize = 64;
/// Bytes at whose multiples tensors begin.
const ALIGNMENT: u64 = 32;

/// What a model can be quantized to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mixture {
    F16,
    Q8,
    Q4,
    Q4KSmall,
    Q4KMedium,
    Q5KMedium,
    Q6K,
}

/// Why a file was not quantized.
#[derive(Debug, thiserror::Error)]
pub enum QuantizeError {
    #[error("quantization is only supported for F16, BF16 and F32 models")]
    Source,
    #[error(transparent)]
    Header(#[from] HeaderError),
    #[error("the model file cannot be read or written: {0}")]
    Io(#[from] io::Error),
    #[error("tensor {tensor} cannot be quantized: {reason}")]
    Tensor { tensor: String, reason: String },
}

impl Mixture {
    /// Every mixture, with its name.
    pub const NAMES: [(&str, Mixture); 7] = [
        ("F16", Mixture::F16),
        ("Q8_0", Mixture::Q8),
        ("Q4_0", Mixture::Q4),
        ("Q4_K_S", Mixture::Q4KSmall),
        ("Q4_K_M", Mixture::Q4KMedium),
        ("Q5_K_M", Mixture::Q5KMedium),
        ("Q6_K", Mixture::Q6K),
    ];

    /// The mixture of a name in any case; `Q4_K` and `Q5_K` mean the middle ones.
    pub fn named(name: &str) -> Option<Mixture> {
        let name = name.to_ascii_uppercase();
        let name = if name == "Q4_K" || name == "Q5_K" { name + "_M" } else { name };
        Mixture::NAMES.into_iter().find(|(known, _)| *known == name).map(|(_, mixture)| mixture)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        Mixture::NAMES.into_iter().find(|(_, mixture)| *mixture == self).map_or("", |(name, _)| name)
    }

    /// Its number in `general.file_type` (llama.cpp's `llama_ftype`).
    fn file_type(self) -> u32 {
        match self {
            Mixture::F16 => 1,
            Mixture::Q4 => 2,
            Mixture::Q8 => 7,
            Mixture::Q4KSmall => 14,
            Mixture::Q4KMedium => 15,
            Mixture::Q5KMedium => 17,
            Mixture::Q6K => 18,
        }
    }

    /// The type a matrix gets. `tied` is whether the embedding is the output too.
    fn of(self, name: &str, n_layer: usize, tied: bool) -> QuantType {
        let layer = name.strip_prefix("blk.").and_then(|rest| rest.split('.').next()?.parse::<usize>().ok()).unwrap_or(0);
        let is_output = name == "output.weight" || tied && name == "token_embd.weight";
        let sensitive = ["attn_v.weight", "ffn_down.weight", "ffn_down_exps.weight"].iter().any(|part| name.ends_with(part));
        // The first and the last eighth, and every third between.
        let eighth = n_layer / 8;
        let more = layer < eighth || layer >= 7 * eighth || (layer - eighth) % 3 == 2;
        match self {
            Mixture::F16 => QuantType::F16,
            Mixture::Q8 => QuantType::Q8_0,
            _ if is_output => QuantType::Q6_K,
            Mixture::Q4 => QuantType::Q4_0,
            Mixture::Q4KSmall if sensitive && layer < eighth.max(1) => QuantType::Q5_K,
            Mixture::Q4KSmall => QuantType::Q4_K,
            Mixture::Q4KMedium | Mixture::Q5KMedium if sensitive && more => QuantType::Q6_K,
            Mixture::Q4KMedium => QuantType::Q4_K,
            Mixture::Q5KMedium => QuantType::Q5_K,
            Mixture::Q6K => QuantType::Q6_K,
        }
    }
}

/// Writes the model of `source` to `target` with its matrices as the mixture has them. Vectors, norms and what is only looked
/// up by position keep their type. `progress` is told the bytes of the source that are done, and all there are.
///
/// # Errors
/// When the source is quantized already or no model, or a file cannot be read or written.
pub fn quantize(source: &Path, mixture: Mixture, target: &Path, progress: &mut dyn FnMut(u64, u64)) -> Result<(), QuantizeError> {
    let map = Map::open(File::open(source)?)?;
    let header = Header::read(&map)?;
    let mut tensors: Vec<(&String, &TensorInfo)> = header.tensors.iter().collect();
    tensors.sort_by_key(|(_, info)| info.offset);
    if tensors.iter().any(|(_, info)| info.quant.block_len() != 1) {
        return Err(QuantizeError::Source);
    }
    let tied = !header.tensors.contains_key("output.weight");
    let architecture = header.text("general.architecture").unwrap_or_default();
    let n_layer = header.integer(&format!("{architecture}.block_count")).and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
    let kinds: Vec<QuantType> = tensors.iter().map(|(name, info)| kind(mixture, name, info, n_layer, tied)).collect();
    let mut out = BufWriter::new(File::create(target)?);
    write::head(&mut out, &header, &tensors, &kinds, mixture.file_type())?;
    let total: u64 = tensors.iter().map(|(_, info)| info.n_bytes as u64).sum();
    let (mut done, mut written) = (0, 0u64);
    for ((name, info), kind) in tensors.into_iter().zip(kinds) {
        let n_in = *info.shape.last().expect("the header check asks for a dimension");
        let row_bytes = info.quant.row_bytes(n_in).expect("the header check asks for whole blocks");
        for rows in map[info.offset..info.offset + info.n_bytes].chunks(N_ROWS * row_bytes) {
            let bytes = requantized(info.quant, rows, n_in, kind)
                .map_err(|e| QuantizeError::Tensor { tensor: name.clone(), reason: e.to_string() })?;
            out.write_all(&bytes)?;
            written += bytes.len() as u64;
            done += rows.len() as u64;
            progress(done, total);
        }
        let padding = written.next_multiple_of(ALIGNMENT) - written;
        out.write_all(&[0; ALIGNMENT as usize][..padding as usize])?;
        written += padding;
    }
    if map.damaged() {
        return Err(io::Error::other("it became shorter or unreadable while it was in use").into());
    }
    out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    Ok(())
}

/// The type a tensor gets: what the mixture says, or the next that its rows are whole blocks of.
fn kind(mixture: Mixture, name: &str, info: &TensorInfo, n_layer: usize, tied: bool) -> QuantType {
    let is_matrix = info.shape.len() > 1 && info.shape[0] > 1 && name.ends_with(".weight");
    let looked_up = name.starts_with("position_embd") || name.starts_with("token_types");
    if !is_matrix || looked_up || name.contains("norm") || name.contains("ffn_gate_inp") || name.contains("shortconv.conv") {
        return if info.quant == QuantType::BF16 || info.quant == QuantType::F16 { info.quant } else { QuantType::F32 };
    }
    let n_in = *info.shape.last().expect("a matrix has two dimensions");
    let wanted = mixture.of(name, n_layer, tied);
    // What llama.cpp falls back to where rows are no whole blocks of 256.
    let smaller = match wanted {
        QuantType::Q4_K => QuantType::Q5_0,
        QuantType::Q5_K => QuantType::Q5_1,
        _ => QuantType::Q8_0,
    };
    [wanted, smaller].into_iter().find(|kind| n_in.is_multiple_of(kind.block_len())).unwrap_or(QuantType::F16)
}

/// Some rows of one type as another.
fn requantized(from: QuantType, rows: &[u8], n_in: usize, to: QuantType) -> candle_core::Result<Vec<u8>> {
    if from == to {
        return Ok(rows.to_vec());
    }
    let n_rows = rows.len() / from.row_bytes(n_in).expect("rows of the source are whole");
    let mut floats = vec![0f32; n_rows * n_in];
    from.dequantize(rows, &mut floats);
    let values = Tensor::from_vec(floats, (n_rows, n_in), &Device::Cpu)?;
    Ok(QTensor::quantize(&values, candle_type(to))?.data()?.into_owned())
}

fn candle_type(kind: QuantType) -> GgmlDType {
    match kind {
        QuantType::F32 => GgmlDType::F32,
        QuantType::F16 => GgmlDType::F16,
        QuantType::BF16 => GgmlDType::BF16,
        QuantType::Q4_0 => GgmlDType::Q4_0,
        QuantType::Q4_1 => GgmlDType::Q4_1,
        QuantType::Q5_0 => GgmlDType::Q5_0,
        QuantType::Q5_1 => GgmlDType::Q5_1,
        QuantType::Q8_0 => GgmlDType::Q8_0,
        QuantType::Q2_K => GgmlDType::Q2K,
        QuantType::Q3_K => GgmlDType::Q3K,
        QuantType::Q4_K => GgmlDType::Q4K,
        QuantType::Q5_K => GgmlDType::Q5K,
        QuantType::Q6_K => GgmlDType::Q6K,
    }
}
