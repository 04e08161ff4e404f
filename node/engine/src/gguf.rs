//! A GGUF file's header: checked, then parsed by candle's reader into metadata and a tensor directory.

mod check;

use std::collections::HashMap;
use std::io::Cursor;

use candle_core::quantized::gguf_file::{Content, Value};
use kernels::QuantType;

/// Why a header was refused. Messages name no path: they reach clients.
#[derive(Debug, thiserror::Error)]
pub enum HeaderError {
    #[error("not a model file: it {kind}")]
    NotAModel { kind: &'static str },
    #[error("damaged model file: {0}")]
    Malformed(String),
    #[error("tensor {tensor} has type {found}, which is not supported; supported are {}", supported())]
    QuantType { tensor: String, found: String },
}

fn supported() -> String {
    QuantType::ALL.map(|q| q.to_string()).join(", ")
}

/// Where a tensor's bytes lie in the file, and what they are.
#[derive(Debug, Clone)]
pub struct TensorInfo {
    pub quant: QuantType,
    /// Rows first: `(n_out, n_in)` for a matrix, `(n)` for a vector.
    pub shape: Vec<usize>,
    pub offset: usize,
    pub n_bytes: usize,
}

/// Metadata and tensor directory of a checked file.
#[derive(Debug)]
pub struct Header {
    pub metadata: HashMap<String, Value>,
    pub tensors: HashMap<String, TensorInfo>,
}

impl Header {
    /// Checks and parses the header at the start of `bytes`, a whole file.
    ///
    /// # Errors
    /// When the header is not a supported one, or a tensor would lie outside the file.
    pub fn read(bytes: &[u8]) -> Result<Header, HeaderError> {
        check::check(bytes)?;
        let content = Content::read(&mut Cursor::new(bytes)).map_err(|e| HeaderError::Malformed(e.to_string()))?;
        let mut tensors = HashMap::new();
        for (name, info) in content.tensor_infos {
            let shape = info.shape.dims().to_vec();
            let quant = quant_type(info.ggml_dtype);
            let row = *shape.last().expect("the check asks for a dimension");
            let n_rows: usize = shape[..shape.len() - 1].iter().product();
            let n_bytes = n_rows * quant.row_bytes(row).expect("the check asks for whole blocks");
            let offset =
                usize::try_from(content.tensor_data_offset + info.offset).expect("the check holds offsets against the file");
            tensors.insert(name, TensorInfo { quant, shape, offset, n_bytes });
        }
        Ok(Header { metadata: content.metadata, tensors })
    }

    /// A whole number, of any integer type the format has.
    pub fn integer(&self, key: &str) -> Option<i128> {
        Some(match self.metadata.get(key)? {
            Value::U8(v) => i128::from(*v),
            Value::I8(v) => i128::from(*v),
            Value::U16(v) => i128::from(*v),
            Value::I16(v) => i128::from(*v),
            Value::U32(v) => i128::from(*v),
            Value::I32(v) => i128::from(*v),
            Value::U64(v) => i128::from(*v),
            Value::I64(v) => i128::from(*v),
            _ => return None,
        })
    }

    /// A float.
    pub fn float(&self, key: &str) -> Option<f32> {
        match self.metadata.get(key)? {
            Value::F32(v) => Some(*v),
            Value::F64(v) => Some(*v as f32),
            _ => None,
        }
    }

    /// A text.
    pub fn text(&self, key: &str) -> Option<&str> {
        match self.metadata.get(key)? {
            Value::String(v) => Some(v),
            _ => None,
        }
    }

    /// A truth value.
    pub fn truth(&self, key: &str) -> Option<bool> {
        match self.metadata.get(key)? {
            Value::Bool(v) => Some(*v),
            _ => None,
        }
    }

    /// The items of an array.
    pub fn array(&self, key: &str) -> Option<&[Value]> {
        match self.metadata.get(key)? {
            Value::Array(v) => Some(v),
            _ => None,
        }
    }
}

fn quant_type(kind: candle_core::quantized::GgmlDType) -> QuantType {
    use candle_core::quantized::GgmlDType as Candle;
    match kind {
        Candle::F32 => QuantType::F32,
        Candle::F16 => QuantType::F16,
        Candle::BF16 => QuantType::BF16,
        Candle::Q4_0 => QuantType::Q4_0,
        Candle::Q4_1 => QuantType::Q4_1,
        Candle::Q5_0 => QuantType::Q5_0,
        Candle::Q5_1 => QuantType::Q5_1,
        Candle::Q8_0 => QuantType::Q8_0,
        Candle::Q2K => QuantType::Q2_K,
        Candle::Q3K => QuantType::Q3_K,
        Candle::Q4K => QuantType::Q4_K,
        Candle::Q5K => QuantType::Q5_K,
        Candle::Q6K => QuantType::Q6_K,
        other => unreachable!("the check refuses {other:?}"),
    }
}
