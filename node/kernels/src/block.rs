//! GGUF block layouts, as the format's reference implementation (ggml) lays them out, and their dequantization.
//!
//! A row of a matrix is a whole number of blocks. All types here are plain bytes without padding and need at most
//! two-byte alignment, so that a mapped file can be read as a slice of blocks.

use bytemuck::{Pod, Zeroable};
use half::{bf16, f16};

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

impl Block for BlockQ4_0 {
    const LEN: usize = 32;
    fn dequantize(&self, out: &mut [f32]) {
        let d = self.d.to_f32();
        let q = self.weights();
        out.iter_mut().zip(q).for_each(|(y, q)| *y = f32::from(q) * d);
    }
}

impl BlockQ4_0 {
    /// The weights as signed integers, −8…7.
    pub fn weights(&self) -> [i8; 32] {
        std::array::from_fn(|i| nibble(&self.qs, i) as i8 - 8)
    }
}

impl Block for BlockQ4_1 {
    const LEN: usize = 32;
    fn dequantize(&self, out: &mut [f32]) {
        let (d, m) = (self.d.to_f32(), self.m.to_f32());
        let q = self.weights();
        out.iter_mut().zip(q).for_each(|(y, q)| *y = f32::from(q) * d + m);
    }
}

impl BlockQ4_1 {
    /// The weights as integers, 0…15.
    pub fn weights(&self) -> [i8; 32] {
        std::array::from_fn(|i| nibble(&self.qs, i) as i8)
    }
}

impl Block for BlockQ5_0 {
    const LEN: usize = 32;
    fn dequantize(&self, out: &mut [f32]) {
        let d = self.d.to_f32();
        let q = self.weights();
        out.iter_mut().zip(q).for_each(|(y, q)| *y = f32::from(q) * d);
    }
}

impl BlockQ5_0 {
    /// The weights as signed integers, −16…15.
    pub fn weights(&self) -> [i8; 32] {
        std::array::from_fn(|i| (nibble(&self.qs, i) | fifth_bit(self.qh, i)) as i8 - 16)
    }
}

impl Block for BlockQ5_1 {
    const LEN: usize = 32;
    fn dequantize(&self, out: &mut [f32]) {
        let (d, m) = (self.d.to_f32(), self.m.to_f32());
        let q = self.weights();
        out.iter_mut().zip(q).for_each(|(y, q)| *y = f32::from(q) * d + m);
    }
}

impl BlockQ5_1 {
    /// The weights as integers, 0…31.
    pub fn weights(&self) -> [i8; 32] {
        std::array::from_fn(|i| (nibble(&self.qs, i) | fifth_bit(self.qh, i)) as i8)
    }
}

impl Block for BlockQ8_0 {
    const LEN: usize = 32;
    fn dequantize(&self, out: &mut [f32]) {
        let d = self.d.to_f32();
        out.iter_mut().zip(self.qs).for_each(|(y, q)| *y = f32::from(q) * d);
    }
}

impl Block for BlockQ2K {
    const LEN: usize = SUPER;
    fn dequantize(&self, out: &mut [f32]) {
        let (d, dmin) = (self.d.to_f32(), self.dmin.to_f32());
        let q = self.weights();
        for (i, y) in out.iter_mut().enumerate() {
            let scale = self.scales[i / 16];
            *y = d * f32::from(scale & 15) * f32::from(q[i]) - dmin * f32::from(scale >> 4);
        }
    }
}

impl BlockQ2K {
    /// The weights as integers, 0…3. Each half of 128 holds four planes of 32 in the bit pairs of 32 bytes.
    pub fn weights(&self) -> [i8; SUPER] {
        std::array::from_fn(|i| two_bits(&self.qs, i) as i8)
    }
}

impl Block for BlockQ3K {
    const LEN: usize = SUPER;
    fn dequantize(&self, out: &mut [f32]) {
        let d = self.d.to_f32();
        let (q, scales) = (self.weights(), self.sub_scales());
        for (i, y) in out.iter_mut().enumerate() {
            *y = d * f32::from(scales[i / 16]) * f32::from(q[i]);
        }
    }
}

impl BlockQ3K {
    /// The weights as signed integers, −4…3. A clear bit in `hmask` subtracts 4.
    pub fn weights(&self) -> [i8; SUPER] {
        std::array::from_fn(|i| two_bits(&self.qs, i) as i8 - if self.hmask[i % 32] >> (i / 32) & 1 == 0 { 4 } else { 0 })
    }

    /// The 16 sub-block scales, −32…31: low nibbles in the first 8 bytes, two high bits each in the last 4.
    pub fn sub_scales(&self) -> [i8; 16] {
        std::array::from_fn(|j| {
            let low = if j < 8 { self.scales[j] & 15 } else { self.scales[j - 8] >> 4 };
            let high = self.scales[8 + j % 4] >> (2 * (j / 4)) & 3;
            (low | high << 4) as i8 - 32
        })
    }
}

impl Block for BlockQ4K {
    const LEN: usize = SUPER;
    fn dequantize(&self, out: &mut [f32]) {
        sub_blocks(self.d, self.dmin, &self.scales, &self.weights(), out);
    }
}

impl BlockQ4K {
    /// The weights as integers, 0…15. Of each 64, the low nibbles of 32 bytes come first.
    pub fn weights(&self) -> [i8; SUPER] {
        std::array::from_fn(|i| paired_nibble(&self.qs, i) as i8)
    }
}

impl Block for BlockQ5K {
    const LEN: usize = SUPER;
    fn dequantize(&self, out: &mut [f32]) {
        sub_blocks(self.d, self.dmin, &self.scales, &self.weights(), out);
    }
}

impl BlockQ5K {
    /// The weights as integers, 0…31. Bit `j` of `qh[i]` is the fifth bit of weight `i` of sub-block `j`.
    pub fn weights(&self) -> [i8; SUPER] {
        std::array::from_fn(|i| (paired_nibble(&self.qs, i) | (self.qh[i % 32] >> (i / 32) & 1) << 4) as i8)
    }
}

impl Block for BlockQ6K {
    const LEN: usize = SUPER;
    fn dequantize(&self, out: &mut [f32]) {
        let d = self.d.to_f32();
        let q = self.weights();
        for (i, y) in out.iter_mut().enumerate() {
            *y = d * f32::from(self.scales[i / 16]) * f32::from(q[i]);
        }
    }
}

impl BlockQ6K {
    /// The weights as signed integers, −32…31. Each half of 128 is four planes of 32: low nibbles of 64 bytes, then
    /// their high nibbles; the two top bits of plane `p` are bit pair `p` of 32 bytes.
    pub fn weights(&self) -> [i8; SUPER] {
        std::array::from_fn(|i| {
            let (half, plane, at) = (i / 128, i % 128 / 32, i % 32);
            let low = self.ql[half * 64 + plane % 2 * 32 + at] >> (4 * (plane / 2)) & 15;
            let high = self.qh[half * 32 + at] >> (2 * plane) & 3;
            (low | high << 4) as i8 - 32
        })
    }
}

/// The 8 scales and 8 minimums of a Q4_K or Q5_K super-block, 6 bits each, packed in 12 bytes: four at a time in the bytes
/// of a word. The first four lie in the low six bits of words 0 and 1; the others have their low four bits in word 2 and
/// their high two bits on top of words 0 and 1.
pub fn scales_and_mins(packed: &[u8; 12]) -> ([u8; 8], [u8; 8]) {
    let word = |at: usize| u32::from_le_bytes([packed[at], packed[at + 1], packed[at + 2], packed[at + 3]]);
    let (a, b, c) = (word(0), word(4), word(8));
    let low = |w: u32| u64::from(w & 0x3f3f_3f3f);
    let high = |four: u32, two: u32| u64::from(four & 0x0f0f_0f0f | (two >> 6 & 0x0303_0303) << 4) << 32;
    ((low(a) | high(c, a)).to_le_bytes(), (low(b) | high(c >> 4, b)).to_le_bytes())
}

fn sub_blocks(d: f16, dmin: f16, packed: &[u8; 12], q: &[i8; SUPER], out: &mut [f32]) {
    let (scales, mins) = scales_and_mins(packed);
    for (i, y) in out.iter_mut().enumerate() {
        let (d, m) = (d.to_f32() * f32::from(scales[i / 32]), dmin.to_f32() * f32::from(mins[i / 32]));
        *y = d * f32::from(q[i]) - m;
    }
}

fn nibble(qs: &[u8; 16], i: usize) -> u8 {
    if i < 16 { qs[i] & 15 } else { qs[i - 16] >> 4 }
}

fn fifth_bit(qh: [u8; 4], i: usize) -> u8 {
    ((u32::from_le_bytes(qh) >> i & 1) << 4) as u8
}

fn two_bits(qs: &[u8; 64], i: usize) -> u8 {
    qs[i / 128 * 32 + i % 32] >> (2 * (i % 128 / 32)) & 3
}

fn paired_nibble(qs: &[u8; 128], i: usize) -> u8 {
    qs[i / 64 * 32 + i % 32] >> (4 * (i % 64 / 32)) & 15
}
