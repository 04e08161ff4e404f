//! Writes GGUF version 3, right or deliberately wrong.

use kernels::QuantType;

/// A metadata value.
#[derive(Clone)]
pub enum Item {
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    Text(String),
    Texts(Vec<String>),
    Floats(Vec<f32>),
    Integers(Vec<i32>),
    /// A value type number and the bytes that follow it.
    Raw(u32, Vec<u8>),
}

/// A header and the tensors behind it, in order.
#[derive(Clone, Default)]
pub struct GgufWriter {
    keys: Vec<(String, Item)>,
    tensors: Vec<Tensor>,
}

#[derive(Clone)]
struct Tensor {
    name: String,
    /// Innermost first, as the file has them.
    dims: Vec<u64>,
    kind: u32,
    bytes: Vec<u8>,
    offset: Option<u64>,
}

const ALIGNMENT: usize = 32;

impl GgufWriter {
    /// Sets a key; an earlier value is replaced.
    pub fn set(&mut self, key: &str, item: Item) -> &mut GgufWriter {
        self.remove(key);
        self.keys.push((key.into(), item));
        self
    }

    /// Adds a key even if it is there already.
    pub fn push_key(&mut self, key: &str, item: Item) -> &mut GgufWriter {
        self.keys.push((key.into(), item));
        self
    }

    /// Removes a key.
    pub fn remove(&mut self, key: &str) -> &mut GgufWriter {
        self.keys.retain(|(k, _)| k != key);
        self
    }

    /// Adds a tensor of `(n_rows, n_in)`, or `(n_in)` when `n_rows` is 0.
    pub fn tensor(&mut self, name: &str, quant: QuantType, n_rows: usize, n_in: usize, bytes: Vec<u8>) -> &mut GgufWriter {
        let dims = if n_rows == 0 { vec![n_in as u64] } else { vec![n_in as u64, n_rows as u64] };
        self.tensors.push(Tensor { name: name.into(), dims, kind: quant.ggml(), bytes, offset: None });
        self
    }

    /// Adds a tensor of `n` matrices of `(n_rows, n_in)`.
    pub fn matrices(&mut self, name: &str, quant: QuantType, [n, n_rows, n_in]: [usize; 3], bytes: Vec<u8>) -> &mut GgufWriter {
        let dims = [n_in, n_rows, n].map(|dim| dim as u64).to_vec();
        self.tensors.push(Tensor { name: name.into(), dims, kind: quant.ggml(), bytes, offset: None });
        self
    }

    /// Adds a directory entry with any numbers whatever.
    pub fn raw_tensor(&mut self, name: &str, dims: &[u64], kind: u32, offset: u64) -> &mut GgufWriter {
        self.tensors.push(Tensor { name: name.into(), dims: dims.into(), kind, bytes: Vec::new(), offset: Some(offset) });
        self
    }

    /// Replaces tensors: `change(type, bytes, n_in)` gives the new type and bytes, or `None` to keep one as it is.
    pub fn map_tensors(&mut self, mut change: impl FnMut(QuantType, &[u8], usize) -> Option<(QuantType, Vec<u8>)>) {
        for tensor in &mut self.tensors {
            let quant = QuantType::from_ggml(tensor.kind).expect("only well-formed tensors are changed");
            if let Some((quant, bytes)) = change(quant, &tensor.bytes, tensor.dims[0] as usize) {
                (tensor.kind, tensor.bytes) = (quant.ggml(), bytes);
            }
        }
    }

    /// Removes a tensor.
    pub fn remove_tensor(&mut self, name: &str) -> &mut GgufWriter {
        self.tensors.retain(|t| t.name != name);
        self
    }

    /// The file.
    pub fn bytes(&self) -> Vec<u8> {
        let (mut out, data) = self.parts();
        out.extend(data);
        out
    }

    /// The header with its padding, and the data behind it.
    pub fn parts(&self) -> (Vec<u8>, Vec<u8>) {
        let mut out = b"GGUF\x03\0\0\0".to_vec();
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.keys.len() as u64).to_le_bytes());
        for (key, item) in &self.keys {
            text(key, &mut out);
            value(item, &mut out);
        }
        let mut data = Vec::new();
        for tensor in &self.tensors {
            text(&tensor.name, &mut out);
            out.extend((tensor.dims.len() as u32).to_le_bytes());
            tensor.dims.iter().for_each(|dim| out.extend(dim.to_le_bytes()));
            out.extend(tensor.kind.to_le_bytes());
            out.extend(tensor.offset.unwrap_or(data.len() as u64).to_le_bytes());
            data.extend(&tensor.bytes);
            data.resize(data.len().next_multiple_of(ALIGNMENT), 0);
        }
        out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
        (out, data)
    }
}

fn text(text: &str, out: &mut Vec<u8>) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn value(item: &Item, out: &mut Vec<u8>) {
    fn array(kind: u32, len: usize, out: &mut Vec<u8>) {
        out.extend(9u32.to_le_bytes());
        out.extend(kind.to_le_bytes());
        out.extend((len as u64).to_le_bytes());
    }
    match item {
        Item::U32(v) => (out.extend(4u32.to_le_bytes()), out.extend(v.to_le_bytes())).0,
        Item::I32(v) => (out.extend(5u32.to_le_bytes()), out.extend(v.to_le_bytes())).0,
        Item::F32(v) => (out.extend(6u32.to_le_bytes()), out.extend(v.to_le_bytes())).0,
        Item::Bool(v) => (out.extend(7u32.to_le_bytes()), out.push(u8::from(*v))).0,
        Item::Text(v) => (out.extend(8u32.to_le_bytes()), text(v, out)).0,
        Item::Texts(v) => {
            array(8, v.len(), out);
            v.iter().for_each(|v| text(v, out));
        }
        Item::Floats(v) => {
            array(6, v.len(), out);
            v.iter().for_each(|v| out.extend(v.to_le_bytes()));
        }
        Item::Integers(v) => {
            array(5, v.len(), out);
            v.iter().for_each(|v| out.extend(v.to_le_bytes()));
        }
        Item::Raw(kind, bytes) => (out.extend(kind.to_le_bytes()), out.extend(bytes)).0,
    }
}
