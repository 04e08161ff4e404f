//! A walk over a GGUF header that trusts nothing: every length is held against the bytes left and against a limit, before
//! anything is allocated. A header that passes is safe to hand to candle's reader.
//!
//! The format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>

use std::collections::HashSet;

use kernels::QuantType;

use super::HeaderError;

/// Tensors in a file; the largest published ones have a few thousand.
const N_TENSORS_MAX: u64 = 65_536;
/// Keys in a file; published ones have below a hundred.
const N_KEYS_MAX: u64 = 65_536;
/// Bytes of one string; chat templates are the longest real ones.
const STRING_BYTES_MAX: u64 = 16 << 20;
/// Bytes of a key.
const KEY_BYTES_MAX: u64 = 65_535;
/// Items of one array.
const ARRAY_LEN_MAX: u64 = 64 << 20;
/// Bytes of all strings together; the largest vocabularies stay below 30 MB.
const STRINGS_BYTES_MAX: u64 = 256 << 20;
/// Bytes of a tensor's name.
const TENSOR_NAME_BYTES_MAX: u64 = 64;
/// Alignment of tensor data where the file names none.
const ALIGNMENT_DEFAULT: u64 = 32;

type Result<T> = std::result::Result<T, HeaderError>;

fn bad(reason: impl Into<String>) -> HeaderError {
    HeaderError::Malformed(reason.into())
}

/// Checks the header of a whole mapped file.
///
/// # Errors
/// Names the first thing that is not as the format demands.
pub(super) fn check(bytes: &[u8]) -> Result<()> {
    looks_like_gguf(bytes)?;
    let mut reader = Reader { bytes, at: 4, strings_bytes: 0 };
    let version = reader.u32("version")?;
    if !(2..=3).contains(&version) {
        return Err(bad(format!("GGUF version {version} is not supported, needed is 2 or 3")));
    }
    let n_tensors = reader.u64("tensor count")?;
    let n_keys = reader.u64("key count")?;
    if n_tensors > N_TENSORS_MAX {
        return Err(bad(format!("tensor count {n_tensors} is above the limit of {N_TENSORS_MAX}")));
    }
    if n_keys > N_KEYS_MAX {
        return Err(bad(format!("key count {n_keys} is above the limit of {N_KEYS_MAX}")));
    }
    let alignment = check_keys(&mut reader, n_keys)?;
    let tensors = check_tensors(&mut reader, n_tensors, alignment)?;
    let data = (reader.at as u64).next_multiple_of(alignment);
    for (name, offset, len) in tensors {
        let end = data.checked_add(offset).and_then(|start| start.checked_add(len));
        match end {
            Some(end) if end <= bytes.len() as u64 => {}
            _ => {
                let needed = end.map_or("more bytes than can be counted".into(), |end| format!("bytes up to {end}"));
                return Err(bad(format!("tensor {name} needs {needed}, the file has {}", bytes.len())));
            }
        }
    }
    Ok(())
}

/// The first bytes decide, and name what a file is instead.
fn looks_like_gguf(bytes: &[u8]) -> Result<()> {
    let kind = match bytes {
        [] => "is empty",
        [b'G', b'G', b'U', b'F', ..] if bytes.len() < 24 => {
            return Err(bad("truncated header: 24 bytes are needed before the first key"));
        }
        [b'G', b'G', b'U', b'F', 0, 0, 0, 1..=9, ..] => "is a big-endian GGUF file, which no common model is",
        [b'G', b'G', b'U', b'F', ..] => return Ok(()),
        [b'P', b'K', 3 | 5 | 7, ..] => "looks like a zip archive or a PyTorch checkpoint",
        [0x80, 2..=5, ..] => "looks like a Python pickle",
        _ if bytes.starts_with(b"version https://git-lfs") => "is a Git LFS pointer, not the file itself",
        [b'<', ..] => "looks like an HTML or XML page, perhaps an error page saved as a model",
        [_, _, _, _, _, _, _, _, b'{', ..] => "looks like a safetensors file",
        [b'l' | b't', b'm' | b'j', b'g', b'g', ..] | [b'F' | b'f', b'U', b'G', b'G', ..] => "is in a format older than GGUF",
        _ => "does not begin with the letters GGUF",
    };
    Err(HeaderError::NotAModel { kind })
}

/// Walks the keys and returns the alignment of tensor data.
fn check_keys(reader: &mut Reader, n_keys: u64) -> Result<u64> {
    let mut seen = HashSet::new();
    let mut alignment = ALIGNMENT_DEFAULT;
    for _ in 0..n_keys {
        let key = reader.string("key", KEY_BYTES_MAX)?;
        if key.is_empty() || key.contains('\0') {
            return Err(bad("a key is empty or holds a NUL"));
        }
        if !seen.insert(key) {
            return Err(bad(format!("key {} is given twice", shown(key))));
        }
        let kind = reader.u32("value type")?;
        if key == "general.alignment" {
            if kind != 4 {
                return Err(bad("general.alignment must be a 32-bit number"));
            }
            alignment = u64::from(reader.u32(key)?);
            if !alignment.is_power_of_two() || !(8..=65_536).contains(&alignment) {
                return Err(bad(format!("general.alignment is {alignment}, needed is a power of two from 8 to 65536")));
            }
        } else {
            check_value(reader, key, kind)?;
        }
    }
    Ok(alignment)
}

fn check_value(reader: &mut Reader, key: &str, kind: u32) -> Result<()> {
    match kind {
        8 => _ = reader.string(key, STRING_BYTES_MAX)?,
        9 => {
            let item = reader.u32(key)?;
            let len = reader.u64(key)?;
            if len > ARRAY_LEN_MAX {
                return Err(bad(format!("array {} has {len} items, the limit is {ARRAY_LEN_MAX}", shown(key))));
            }
            match item {
                8 => (0..len).try_for_each(|_| reader.string(key, STRING_BYTES_MAX).map(|_| ()))?,
                9 => return Err(bad(format!("array {} holds arrays, which no model needs", shown(key)))),
                7 => {
                    let items = reader.take(len, key)?;
                    check_bools(items, key)?;
                }
                _ => {
                    let n_bytes = len.checked_mul(item_bytes(item, key)?).ok_or_else(|| bad("an array's size overflows"))?;
                    reader.take(n_bytes, key)?;
                }
            }
        }
        7 => check_bools(reader.take(1, key)?, key)?,
        _ => _ = reader.take(item_bytes(kind, key)?, key)?,
    }
    Ok(())
}

fn check_bools(items: &[u8], key: &str) -> Result<()> {
    match items.iter().find(|&&b| b > 1) {
        Some(b) => Err(bad(format!("{} holds {b}, a truth value must be 0 or 1", shown(key)))),
        None => Ok(()),
    }
}

/// Bytes of a scalar value type.
fn item_bytes(kind: u32, key: &str) -> Result<u64> {
    match kind {
        0 | 1 => Ok(1),
        2 | 3 => Ok(2),
        4..=6 => Ok(4),
        10..=12 => Ok(8),
        _ => Err(bad(format!("{} has unknown value type {kind}", shown(key)))),
    }
}

/// Walks the tensor directory: name, offset and bytes of each.
fn check_tensors<'a>(reader: &mut Reader<'a>, n_tensors: u64, alignment: u64) -> Result<Vec<(&'a str, u64, u64)>> {
    let mut seen = HashSet::new();
    let mut tensors = Vec::new();
    let mut total = 0u64;
    for _ in 0..n_tensors {
        let name = reader.string("tensor name", TENSOR_NAME_BYTES_MAX)?;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if name.is_empty() || !name.chars().all(plain) || name.contains("..") {
            return Err(bad(format!("tensor name {name:?} must be letters, digits, '.', '_' or '-'")));
        }
        if !seen.insert(name) {
            return Err(bad(format!("tensor {name} is given twice")));
        }
        let len = tensor_bytes(reader, name)?;
        let offset = reader.u64(name)?;
        if offset % alignment != 0 {
            return Err(bad(format!("tensor {name} starts at offset {offset}, which is not a multiple of {alignment}")));
        }
        total = total.checked_add(len).ok_or_else(|| bad("the tensors' sizes overflow when added"))?;
        tensors.push((name, offset, len));
    }
    Ok(tensors)
}

/// Reads dimensions and type of a tensor and gives its bytes.
fn tensor_bytes(reader: &mut Reader, name: &str) -> Result<u64> {
    let n_dims = reader.u32(name)?;
    if !(1..=4).contains(&n_dims) {
        return Err(bad(format!("tensor {name} has {n_dims} dimensions, needed are 1 to 4")));
    }
    let mut dims = [1u64; 4];
    for dim in &mut dims[..n_dims as usize] {
        *dim = reader.u64(name)?;
        if *dim == 0 {
            return Err(bad(format!("tensor {name} has a dimension of 0")));
        }
    }
    let number = reader.u32(name)?;
    let quant =
        QuantType::from_ggml(number).ok_or_else(|| HeaderError::QuantType { tensor: name.into(), found: ggml_name(number) })?;
    let n_rows = dims[1..].iter().try_fold(1u64, |n, dim| n.checked_mul(*dim));
    let row = usize::try_from(dims[0]).ok().filter(|n| n.checked_mul(quant.block_bytes()).is_some());
    let row = row.ok_or_else(|| bad(format!("tensor {name} is larger than memory can address")))?;
    let row_bytes = quant.row_bytes(row).ok_or_else(|| {
        bad(format!("tensor {name} has rows of {row} weights, {quant} needs a multiple of {}", quant.block_len()))
    })?;
    n_rows
        .and_then(|n| n.checked_mul(row_bytes as u64))
        .filter(|n| i64::try_from(*n).is_ok())
        .ok_or_else(|| bad(format!("tensor {name} is larger than memory can address")))
}

/// The name of a tensor type this build does not compute with, as far as the format knows one.
fn ggml_name(number: u32) -> String {
    let name = match number {
        4 | 5 => "Q4_2 or Q4_3 (removed from the format)",
        9 => "Q8_1",
        15 => "Q8_K",
        16 => "IQ2_XXS",
        17 => "IQ2_XS",
        18 => "IQ3_XXS",
        19 => "IQ1_S",
        20 => "IQ4_NL",
        21 => "IQ3_S",
        22 => "IQ2_S",
        23 => "IQ4_XS",
        24 => "I8",
        25 => "I16",
        26 => "I32",
        27 => "I64",
        28 => "F64",
        29 => "IQ1_M",
        34 => "TQ1_0",
        35 => "TQ2_0",
        39 => "MXFP4",
        _ => return format!("number {number}"),
    };
    name.into()
}

/// A key as an error may show it: short.
fn shown(key: &str) -> String {
    key.chars().take(80).collect()
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    strings_bytes: u64,
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: u64, what: &str) -> Result<&'a [u8]> {
        let left = self.bytes.len() - self.at;
        let len = usize::try_from(len)
            .ok()
            .filter(|len| *len <= left)
            .ok_or_else(|| bad(format!("truncated header: {} needs {len} bytes at {}, {left} are left", shown(what), self.at)))?;
        self.at += len;
        Ok(&self.bytes[self.at - len..self.at])
    }

    fn u32(&mut self, what: &str) -> Result<u32> {
        let bytes = self.take(4, what)?;
        Ok(u32::from_le_bytes(bytes.try_into().expect("four bytes were taken")))
    }

    fn u64(&mut self, what: &str) -> Result<u64> {
        let bytes = self.take(8, what)?;
        Ok(u64::from_le_bytes(bytes.try_into().expect("eight bytes were taken")))
    }

    fn string(&mut self, what: &str, len_max: u64) -> Result<&'a str> {
        let len = self.u64(what)?;
        if len > len_max {
            return Err(bad(format!("{} has a text of {len} bytes, the limit is {len_max}", shown(what))));
        }
        self.strings_bytes += len;
        if self.strings_bytes > STRINGS_BYTES_MAX {
            return Err(bad(format!("texts in the header exceed {STRINGS_BYTES_MAX} bytes")));
        }
        std::str::from_utf8(self.take(len, what)?).map_err(|_| bad(format!("{} holds text that is not UTF-8", shown(what))))
    }
}
