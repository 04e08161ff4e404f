//! The head of a GGUF file: metadata and tensor directory (version 3 of the format).

use std::io::{self, Write};

use candle_core::quantized::gguf_file::Value;
use kernels::QuantType;

use super::ALIGNMENT;
use crate::gguf::{Header, TensorInfo};

/// Writes everything before the data: the header's metadata with another file type, and the tensors with their new types.
pub(super) fn head(
    out: &mut impl Write,
    header: &Header,
    tensors: &[(&String, &TensorInfo)],
    kinds: &[QuantType],
    file_type: u32,
) -> io::Result<()> {
    let mut bytes = b"GGUF\x03\0\0\0".to_vec();
    let changed = [
        ("general.file_type", Value::U32(file_type)),
        ("general.quantization_version", Value::U32(2)),
        ("general.alignment", Value::U32(ALIGNMENT as u32)),
    ];
    let mut kept: Vec<(&String, &Value)> =
        header.metadata.iter().filter(|(key, _)| changed.iter().all(|(other, _)| key != other)).collect();
    kept.sort_by_key(|(key, _)| *key);
    bytes.extend((tensors.len() as u64).to_le_bytes());
    bytes.extend(((kept.len() + changed.len()) as u64).to_le_bytes());
    for (key, value) in kept.into_iter().map(|(key, value)| (key.as_str(), value)).chain(changed.iter().map(|(k, v)| (*k, v))) {
        text(key, &mut bytes);
        bytes.extend(type_number(value).to_le_bytes());
        write_value(value, &mut bytes);
    }
    let mut offset = 0u64;
    for ((name, info), kind) in tensors.iter().zip(kinds) {
        text(name, &mut bytes);
        bytes.extend((info.shape.len() as u32).to_le_bytes());
        info.shape.iter().rev().for_each(|dim| bytes.extend((*dim as u64).to_le_bytes()));
        bytes.extend(kind.ggml().to_le_bytes());
        bytes.extend(offset.to_le_bytes());
        let n_in = *info.shape.last().expect("the header check asks for a dimension");
        let n_rows = info.shape.iter().product::<usize>() / n_in;
        let n_bytes = n_rows * kind.row_bytes(n_in).expect("the type was chosen to fit");
        offset = (offset + n_bytes as u64).next_multiple_of(ALIGNMENT);
    }
    bytes.resize(bytes.len().next_multiple_of(ALIGNMENT as usize), 0);
    out.write_all(&bytes)
}

fn text(text: &str, bytes: &mut Vec<u8>) {
    bytes.extend((text.len() as u64).to_le_bytes());
    bytes.extend(text.as_bytes());
}

/// The format's number of a value's type.
fn type_number(value: &Value) -> u32 {
    match value {
        Value::U8(_) => 0,
        Value::I8(_) => 1,
        Value::U16(_) => 2,
        Value::I16(_) => 3,
        Value::U32(_) => 4,
        Value::I32(_) => 5,
        Value::F32(_) => 6,
        Value::Bool(_) => 7,
        Value::String(_) => 8,
        Value::Array(_) => 9,
        Value::U64(_) => 10,
        Value::I64(_) => 11,
        Value::F64(_) => 12,
    }
}

fn write_value(value: &Value, bytes: &mut Vec<u8>) {
    match value {
        Value::U8(v) => bytes.push(*v),
        Value::I8(v) => bytes.extend(v.to_le_bytes()),
        Value::U16(v) => bytes.extend(v.to_le_bytes()),
        Value::I16(v) => bytes.extend(v.to_le_bytes()),
        Value::U32(v) => bytes.extend(v.to_le_bytes()),
        Value::I32(v) => bytes.extend(v.to_le_bytes()),
        Value::F32(v) => bytes.extend(v.to_le_bytes()),
        Value::Bool(v) => bytes.push(u8::from(*v)),
        Value::String(v) => text(v, bytes),
        Value::U64(v) => bytes.extend(v.to_le_bytes()),
        Value::I64(v) => bytes.extend(v.to_le_bytes()),
        Value::F64(v) => bytes.extend(v.to_le_bytes()),
        Value::Array(items) => {
            // An empty list has no item to tell its type.
            bytes.extend(items.first().map_or(4, type_number).to_le_bytes());
            bytes.extend((items.len() as u64).to_le_bytes());
            items.iter().for_each(|item| write_value(item, bytes));
        }
    }
}
