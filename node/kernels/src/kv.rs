//! How keys and values are kept: f16, or 8-bit integers in half the memory.

use std::fmt;

use half::f16;
use half::slice::HalfFloatSliceExt;

use crate::block::BlockQ8_0;
use crate::level::compiled_for;
use crate::{Level, activations};

/// The form of keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KvType {
    #[default]
    F16,
    /// Blocks of 32 integers with an f16 factor, as weights of type Q8_0 are stored.
    Q8_0,
}

impl fmt::Display for KvType {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            KvType::F16 => "f16",
            KvType::Q8_0 => "q8_0",
        })
    }
}

impl KvType {
    /// The type of a name, as [`fmt::Display`] writes it.
    pub fn named(name: &str) -> Option<KvType> {
        [KvType::F16, KvType::Q8_0].into_iter().find(|kv_type| kv_type.to_string() == name)
    }

    /// Bytes of one head's key or value, `n_embd_head` wide.
    pub fn row_bytes(self, n_embd_head: usize) -> usize {
        match self {
            KvType::F16 => n_embd_head * size_of::<f16>(),
            KvType::Q8_0 => n_embd_head / 32 * size_of::<BlockQ8_0>(),
        }
    }

    /// Whether heads of this width can be kept so: blocks are whole.
    pub fn fits(self, n_embd_head: usize) -> bool {
        self == KvType::F16 || n_embd_head.is_multiple_of(32)
    }

    /// Writes one head's key or value.
    pub(crate) fn store(self, level: Level, values: &[f32], to: &mut [u8]) {
        match self {
            KvType::F16 => bytemuck::cast_slice_mut::<u8, f16>(to).convert_from_f32_slice(values),
            KvType::Q8_0 => {
                let (mut qs, mut d) = ([0; 32], [0.0]);
                for (values, block) in values.chunks_exact(32).zip(bytemuck::cast_slice_mut::<u8, BlockQ8_0>(to)) {
                    activations::quantize_small(level, values, &mut qs, &mut d);
                    *block = BlockQ8_0 { d: f16::from_f32(d[0]), qs };
                }
            }
        }
    }
}

compiled_for! {
    /// Keys or values of 8-bit integers as f32, exactly.
    pub(crate) fn widen_q8_0(from: &[BlockQ8_0], to: &mut [f32]) {
        for (block, to) in from.iter().zip(to.as_chunks_mut::<32>().0) {
            let d = block.d.to_f32();
            for i in 0..32 {
                to[i] = d * f32::from(block.qs[i]);
            }
        }
    }
}

/// The keys and values of one layer: per key/value head a plane of rows, one a position, `stride` bytes apart.
#[derive(Clone, Copy)]
pub struct KvPlanes<'a> {
    pub kv_type: KvType,
    /// Keys of all heads.
    pub k: &'a [u8],
    /// Values of all heads.
    pub v: &'a [u8],
    /// Bytes from the start of one head's plane to the next.
    pub stride: usize,
}

/// As [`KvPlanes`], for writing.
pub struct KvPlanesMut<'a> {
    pub kv_type: KvType,
    pub k: &'a mut [u8],
    pub v: &'a mut [u8],
    pub stride: usize,
}
