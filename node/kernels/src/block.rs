//! GGUF block layouts, as the format's reference implementation (ggml) lays them out, and their dequantization.
//! What the integers in a block are is in `integers.rs`.
//!
//! A row of a matrix is a whole number of blocks. All types here are plain bytes without padding and need at most
//! two-byte alignment, so that a mapped file can be read as a slice of blocks.

use bytemuck::{Pod, Zeroable};
use half::{bf16, f16};

use crate::integers::{Integers, Unpacked};

/// Weights in one super-block of the K-quants.
pub const SUPER: usize = 256;

/// The quant types Lantern computes with, spelt as GGUF spells them.
#[expect(non_camel_case_types, reason = "the names of the file format")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum QuantType {
    F32,
    F16,
    BF16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2_K,
    Q3_K,
    Q4_K,
    Q5_K,
    Q6_K,
}

impl QuantType {
    /// Every supported type, in the order messages list them.
    pub const ALL: [QuantType; 13] = [
        QuantType::F32,
        QuantType::F16,
        QuantType::BF16,
        QuantType::Q4_0,
        QuantType::Q4_1,
        QuantType::Q5_0,
        QuantType::Q5_1,
        QuantType::Q8_0,
        QuantType::Q2_K,
        QuantType::Q3_K,
        QuantType::Q4_K,
        QuantType::Q5_K,
        QuantType::Q6_K,
    ];

    /// The type of a GGUF tensor directory's number, or `None` for one this crate does not compute with.
    pub fn from_ggml(number: u32) -> Option<QuantType> {
        QuantType::ALL.into_iter().find(|q| q.ggml() == number)
    }

    /// The number GGUF files use for this type.
    pub fn ggml(self) -> u32 {
        match self {
            QuantType::F32 => 0,
            QuantType::F16 => 1,
            QuantType::Q4_0 => 2,
            QuantType::Q4_1 => 3,
            QuantType::Q5_0 => 6,
            QuantType::Q5_1 => 7,
            QuantType::Q8_0 => 8,
            QuantType::Q2_K => 10,
            QuantType::Q3_K => 11,
            QuantType::Q4_K => 12,
            QuantType::Q5_K => 13,
            QuantType::Q6_K => 14,
            QuantType::BF16 => 30,
        }
    }

    /// Weights per block.
    pub fn block_len(self) -> usize {
        match self {
            QuantType::F32 | QuantType::F16 | QuantType::BF16 => 1,
            QuantType::Q4_0 | QuantType::Q4_1 | QuantType::Q5_0 | QuantType::Q5_1 | QuantType::Q8_0 => 32,
            QuantType::Q2_K | QuantType::Q3_K | QuantType::Q4_K | QuantType::Q5_K | QuantType::Q6_K => SUPER,
        }
    }

    /// Bytes per block.
    pub fn block_bytes(self) -> usize {
        match self {
            QuantType::F32 => 4,
            QuantType::F16 | QuantType::BF16 => 2,
            QuantType::Q4_0 => size_of::<BlockQ4_0>(),
            QuantType::Q4_1 => size_of::<BlockQ4_1>(),
            QuantType::Q5_0 => size_of::<BlockQ5_0>(),
            QuantType::Q5_1 => size_of::<BlockQ5_1>(),
            QuantType::Q8_0 => size_of::<BlockQ8_0>(),
            QuantType::Q2_K => size_of::<BlockQ2K>(),
            QuantType::Q3_K => size_of::<BlockQ3K>(),
            QuantType::Q4_K => size_of::<BlockQ4K>(),
            QuantType::Q5_K => size_of::<BlockQ5K>(),
            QuantType::Q6_K => size_of::<BlockQ6K>(),
        }
    }

    /// Bytes of a row of `n_in` weights, or `None` when `n_in` is not a whole number of blocks.
    pub fn row_bytes(self, n_in: usize) -> Option<usize> {
        n_in.is_multiple_of(self.block_len()).then(|| n_in / self.block_len() * self.block_bytes())
    }

    /// Writes the weights of `bytes` (whole blocks) to `out` as f32.
    ///
    /// # Panics
    /// When `bytes` is not a whole number of aligned blocks, or `out` has another length than the weights in them.
    pub fn dequantize(self, bytes: &[u8], out: &mut [f32]) {
        match self {
            QuantType::F32 => dequantize::<f32>(bytes, out),
            QuantType::F16 => dequantize::<f16>(bytes, out),
            QuantType::BF16 => dequantize::<bf16>(bytes, out),
            QuantType::Q4_0 => dequantize::<BlockQ4_0>(bytes, out),
            QuantType::Q4_1 => dequantize::<BlockQ4_1>(bytes, out),
            QuantType::Q5_0 => dequantize::<BlockQ5_0>(bytes, out),
            QuantType::Q5_1 => dequantize::<BlockQ5_1>(bytes, out),
            QuantType::Q8_0 => dequantize::<BlockQ8_0>(bytes, out),
            QuantType::Q2_K => dequantize::<BlockQ2K>(bytes, out),
            QuantType::Q3_K => dequantize::<BlockQ3K>(bytes, out),
            QuantType::Q4_K => dequantize::<BlockQ4K>(bytes, out),
            QuantType::Q5_K => dequantize::<BlockQ5K>(bytes, out),
            QuantType::Q6_K => dequantize::<BlockQ6K>(bytes, out),
        }
    }
}

impl std::fmt::Display for QuantType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self:?}")
    }
}

/// One unit of quantization. `Pod` makes the cast from mapped bytes checked and safe.
pub trait Block: Pod {
    /// Weights in the block.
    const LEN: usize;

    /// Writes the block's weights to `out`, which has `LEN` places.
    fn dequantize(&self, out: &mut [f32]);
}

/// Views bytes as blocks.
///
/// # Panics
/// When the bytes are not a whole number of blocks or not aligned for one; a checked file has neither fault.
pub fn cast<B: Block>(bytes: &[u8]) -> &[B] {
    bytemuck::cast_slice(bytes)
}

fn dequantize<B: Block>(bytes: &[u8], out: &mut [f32]) {
    let blocks = cast::<B>(bytes);
    assert_eq!(blocks.len() * B::LEN, out.len(), "output has another length than the row");
    for (block, out) in blocks.iter().zip(out.chunks_exact_mut(B::LEN)) {
        block.dequantize(out);
    }
}

macro_rules! float_block {
    ($float:ty, $to_f32:expr) => {
        impl Block for $float {
            const LEN: usize = 1;
            fn dequantize(&self, out: &mut [f32]) {
                out[0] = $to_f32(*self);
            }
        }
    };
}

impl<B: Integers> Block for B {
    const LEN: usize = B::WEIGHTS;

    fn dequantize(&self, out: &mut [f32]) {
        let Unpacked { q, scales, mins, d, m } = Unpacked::new(self);
        let parts = out.chunks_exact_mut(B::SUB).zip(q.chunks_exact(B::SUB)).zip(scales.into_iter().zip(mins));
        for ((out, q), (scale, min)) in parts {
            let (d, m) = (d * scale as f32, m * min as f32);
            if B::M.is_some() {
                out.iter_mut().zip(q).for_each(|(y, q)| *y = d * f32::from(*q) + m);
            } else {
                out.iter_mut().zip(q).for_each(|(y, q)| *y = d * f32::from(*q));
            }
        }
    }
}

float_block!(f32, |v| v);
float_block!(f16, f16::to_f32);
float_block!(bf16, bf16::to_f32);

macro_rules! layout {
    ($(#[$doc:meta])* $name:ident, $bytes:literal, { $($field:ident: $kind:ty),* $(,)? }) => {
        $(#[$doc])*
        #[repr(C)]
        #[derive(Debug, Clone, Copy, Pod, Zeroable)]
        pub struct $name { $(pub $field: $kind),* }
        const _: () = assert!(size_of::<$name>() == $bytes);
    };
}

layout!(
    /// 32 weights of 4 bits: `d · (q − 8)`. Low nibbles hold the first 16, high nibbles the last.
    BlockQ4_0, 18, { d: f16, qs: [u8; 16] });
layout!(
    /// 32 weights of 4 bits with a minimum: `d · q + m`.
    BlockQ4_1, 20, { d: f16, m: f16, qs: [u8; 16] });
layout!(
    /// 32 weights of 5 bits: `d · (q − 16)`. Bit `i` of `qh` is the fifth bit of weight `i`.
    BlockQ5_0, 22, { d: f16, qh: [u8; 4], qs: [u8; 16] });
layout!(
    /// 32 weights of 5 bits with a minimum: `d · q + m`.
    BlockQ5_1, 24, { d: f16, m: f16, qh: [u8; 4], qs: [u8; 16] });
layout!(
    /// 32 weights of 8 bits: `d · q`.
    BlockQ8_0, 34, { d: f16, qs: [i8; 32] });
layout!(
    /// 256 weights of 2 bits in 16 sub-blocks: `d · scale · q − dmin · min`, scale and min 4 bits each.
    BlockQ2K, 84, { scales: [u8; 16], qs: [u8; 64], d: f16, dmin: f16 });
layout!(
    /// 256 weights of 3 bits in 16 sub-blocks: `d · (scale − 32) · (q − 4)`; `hmask` holds the third bits.
    BlockQ3K, 110, { hmask: [u8; 32], qs: [u8; 64], scales: [u8; 12], d: f16 });
layout!(
    /// 256 weights of 4 bits in 8 sub-blocks: `d · scale · q − dmin · min`, scale and min 6 bits each.
    BlockQ4K, 144, { d: f16, dmin: f16, scales: [u8; 12], qs: [u8; 128] });
layout!(
    /// 256 weights of 5 bits in 8 sub-blocks: as [`BlockQ4K`], the fifth bits in `qh`.
    BlockQ5K, 176, { d: f16, dmin: f16, scales: [u8; 12], qh: [u8; 32], qs: [u8; 128] });
layout!(
    /// 256 weights of 6 bits in 16 sub-blocks: `d · scale · (q − 32)`, scale a signed byte.
    BlockQ6K, 210, { ql: [u8; 128], qh: [u8; 64], scales: [i8; 16], d: f16 });
