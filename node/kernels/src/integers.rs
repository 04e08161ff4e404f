//! Quantized blocks as integers: the one description of a type that its definition, its dequantization and its panels are
//! made from.

use crate::block::{
    BlockQ2K, BlockQ3K, BlockQ4_0, BlockQ4_1, BlockQ4K, BlockQ5_0, BlockQ5_1, BlockQ5K, BlockQ6K, BlockQ8_0, SUPER,
};

/// A block of weights `d · scale_j · q_i + m · min_j`, where `j` is the sub-block of weight `i`.
///
/// Its product with 8-bit inputs `d_x · x_i` is `d d_x Σ_j scale_j Σ_i q_i x_i + m d_x Σ_j min_j Σ_i x_i`; the integer
/// sums are exact.
pub trait Integers: bytemuck::Pod {
    /// Weights in the block.
    const WEIGHTS: usize;
    /// Weights that share an integer scale and minimum. Blocks of 32 have one of each, which is 1.
    const SUB: usize;
    /// What the file adds to a weight to make it unsigned; 0 where no weight is negative.
    const CENTRE: u8;
    /// Whether there are minimums.
    const MINS: bool;

    /// Writes the weights plus `CENTRE` to `q`, which has `WEIGHTS / 4` places: four to a word, the first in its low byte.
    /// Arithmetic on words handles four at a time on any processor.
    fn fours(&self, q: &mut [u32]);
    /// The factors `d` and `m`.
    fn factors(&self) -> [f32; 2];
    /// The integer scales, of which the first `WEIGHTS / SUB` count.
    fn scales(&self) -> [i8; 16] {
        [1; 16]
    }
    /// The integer minimums, as above.
    fn mins(&self) -> [u8; 16] {
        [1; 16]
    }

    /// Writes the weights to `q`, which has `WEIGHTS` places.
    fn weights(&self, q: &mut [i8]) {
        let mut fours = [0; SUPER / 4];
        self.fours(&mut fours[..Self::WEIGHTS / 4]);
        for (q, four) in q.as_chunks_mut::<4>().0.iter_mut().zip(fours) {
            *q = four.to_le_bytes().map(|n| n.wrapping_sub(Self::CENTRE) as i8);
        }
    }
}

impl Integers for BlockQ4_0 {
    const WEIGHTS: usize = 32;
    const SUB: usize = 32;
    const CENTRE: u8 = 8;
    const MINS: bool = false;

    #[inline(always)]
    fn fours(&self, q: &mut [u32]) {
        nibbles(&self.qs, q);
    }

    fn factors(&self) -> [f32; 2] {
        [self.d.to_f32(), 0.0]
    }
}

impl Integers for BlockQ4_1 {
    const WEIGHTS: usize = 32;
    const SUB: usize = 32;
    const CENTRE: u8 = 0;
    const MINS: bool = true;

    #[inline(always)]
    fn fours(&self, q: &mut [u32]) {
        nibbles(&self.qs, q);
    }

    fn factors(&self) -> [f32; 2] {
        [self.d.to_f32(), self.m.to_f32()]
    }
}

impl Integers for BlockQ5_0 {
    const WEIGHTS: usize = 32;
    const SUB: usize = 32;
    const CENTRE: u8 = 16;
    const MINS: bool = false;

    #[inline(always)]
    fn fours(&self, q: &mut [u32]) {
        nibbles(&self.qs, q);
        fifth_bits(self.qh, q);
    }

    fn factors(&self) -> [f32; 2] {
        [self.d.to_f32(), 0.0]
    }
}

impl Integers for BlockQ5_1 {
    const WEIGHTS: usize = 32;
    const SUB: usize = 32;
    const CENTRE: u8 = 0;
    const MINS: bool = true;

    #[inline(always)]
    fn fours(&self, q: &mut [u32]) {
        nibbles(&self.qs, q);
        fifth_bits(self.qh, q);
    }

    fn factors(&self) -> [f32; 2] {
        [self.d.to_f32(), self.m.to_f32()]
    }
}

impl Integers for BlockQ8_0 {
    const WEIGHTS: usize = 32;
    const SUB: usize = 32;
    const CENTRE: u8 = 128;
    const MINS: bool = false;

    #[inline(always)]
    fn fours(&self, q: &mut [u32]) {
        for (q, four) in q.iter_mut().zip(self.qs.as_chunks::<4>().0) {
            *q = u32::from_le_bytes(four.map(|q| q as u8)) ^ 0x8080_8080;
        }
    }

    fn factors(&self) -> [f32; 2] {
        [self.d.to_f32(), 0.0]
    }
}

impl Integers for BlockQ2K {
    const WEIGHTS: usize = SUPER;
    const SUB: usize = 16;
    const CENTRE: u8 = 0;
    const MINS: bool = true;

    #[inline(always)]
    fn fours(&self, q: &mut [u32]) {
        bit_pairs(&self.qs, q);
    }

    fn factors(&self) -> [f32; 2] {
        [self.d.to_f32(), -self.dmin.to_f32()]
    }

    fn scales(&self) -> [i8; 16] {
        self.scales.map(|s| (s & 15) as i8)
    }

    fn mins(&self) -> [u8; 16] {
        self.scales.map(|s| s >> 4)
    }
}

impl Integers for BlockQ3K {
    const WEIGHTS: usize = SUPER;
    const SUB: usize = 16;
    const CENTRE: u8 = 4;
    const MINS: bool = false;

    /// A clear bit in `hmask` subtracts 4.
    #[inline(always)]
    fn fours(&self, q: &mut [u32]) {
        bit_pairs(&self.qs, q);
        for (bit, q) in q.chunks_exact_mut(8).enumerate() {
            q.iter_mut().zip(words(&self.hmask)).for_each(|(q, mask)| *q |= (mask >> bit & 0x0101_0101) << 2);
        }
    }

    fn factors(&self) -> [f32; 2] {
        [self.d.to_f32(), 0.0]
    }

    /// −32…31: low nibbles in the first 8 bytes, two high bits each in the last 4.
    fn scales(&self) -> [i8; 16] {
        std::array::from_fn(|j| {
            let low = if j < 8 { self.scales[j] & 15 } else { self.scales[j - 8] >> 4 };
            let high = self.scales[8 + j % 4] >> (2 * (j / 4)) & 3;
            (low | high << 4) as i8 - 32
        })
    }
}

impl Integers for BlockQ4K {
    const WEIGHTS: usize = SUPER;
    const SUB: usize = 32;
    const CENTRE: u8 = 0;
    const MINS: bool = true;

    #[inline(always)]
    fn fours(&self, q: &mut [u32]) {
        paired_nibbles(&self.qs, q);
    }

    fn factors(&self) -> [f32; 2] {
        [self.d.to_f32(), -self.dmin.to_f32()]
    }

    fn scales(&self) -> [i8; 16] {
        padded(scales_and_mins(&self.scales).0).map(|s| s as i8)
    }

    fn mins(&self) -> [u8; 16] {
        padded(scales_and_mins(&self.scales).1)
    }
}

impl Integers for BlockQ5K {
    const WEIGHTS: usize = SUPER;
    const SUB: usize = 32;
    const CENTRE: u8 = 0;
    const MINS: bool = true;

    /// Bit `j` of `qh[i]` is the fifth bit of weight `i` of sub-block `j`.
    #[inline(always)]
    fn fours(&self, q: &mut [u32]) {
        paired_nibbles(&self.qs, q);
        for (bit, q) in q.chunks_exact_mut(8).enumerate() {
            q.iter_mut().zip(words(&self.qh)).for_each(|(q, fifth)| *q |= (fifth >> bit & 0x0101_0101) << 4);
        }
    }

    fn factors(&self) -> [f32; 2] {
        [self.d.to_f32(), -self.dmin.to_f32()]
    }

    fn scales(&self) -> [i8; 16] {
        padded(scales_and_mins(&self.scales).0).map(|s| s as i8)
    }

    fn mins(&self) -> [u8; 16] {
        padded(scales_and_mins(&self.scales).1)
    }
}

impl Integers for BlockQ6K {
    const WEIGHTS: usize = SUPER;
    const SUB: usize = 16;
    const CENTRE: u8 = 32;
    const MINS: bool = false;

    /// Each half of 128 is four planes of 32: low nibbles of 64 bytes, then their high nibbles; the two top bits of plane
    /// `p` are bit pair `p` of 32 bytes.
    #[inline(always)]
    fn fours(&self, q: &mut [u32]) {
        for (part, q) in q.chunks_exact_mut(8).enumerate() {
            let (half, plane) = (part / 4, part % 4);
            let (low, high) = (words(&self.ql[half * 64 + plane % 2 * 32..]), words(&self.qh[half * 32..]));
            for ((q, low), high) in q.iter_mut().zip(low).zip(high) {
                *q = low >> (4 * (plane / 2)) & 0x0f0f_0f0f | (high >> (2 * plane) & 0x0303_0303) << 4;
            }
        }
    }

    fn factors(&self) -> [f32; 2] {
        [self.d.to_f32(), 0.0]
    }

    fn scales(&self) -> [i8; 16] {
        self.scales
    }
}

/// The 8 scales and 8 minimums of a Q4_K or Q5_K super-block, 6 bits each, packed in 12 bytes: four at a time in the bytes
/// of a word. The first four lie in the low six bits of words 0 and 1; the others have their low four bits in word 2 and
/// their high two bits on top of words 0 and 1.
pub(crate) fn scales_and_mins(packed: &[u8; 12]) -> ([u8; 8], [u8; 8]) {
    let word = |at: usize| u32::from_le_bytes([packed[at], packed[at + 1], packed[at + 2], packed[at + 3]]);
    let (a, b, c) = (word(0), word(4), word(8));
    let low = |w: u32| u64::from(w & 0x3f3f_3f3f);
    let high = |four: u32, two: u32| u64::from(four & 0x0f0f_0f0f | (two >> 6 & 0x0303_0303) << 4) << 32;
    ((low(a) | high(c, a)).to_le_bytes(), (low(b) | high(c >> 4, b)).to_le_bytes())
}

fn padded(eight: [u8; 8]) -> [u8; 16] {
    let mut all = [0; 16];
    all[..8].copy_from_slice(&eight);
    all
}

/// Bytes as words, the first byte low.
#[inline(always)]
fn words(bytes: &[u8]) -> impl Iterator<Item = u32> {
    bytes.as_chunks::<4>().0.iter().map(|four| u32::from_le_bytes(*four))
}

/// The low nibbles of 16 bytes, then the high ones.
#[inline(always)]
fn nibbles(qs: &[u8; 16], q: &mut [u32]) {
    let (low, high) = q.split_at_mut(4);
    for ((low, high), qs) in low.iter_mut().zip(high).zip(words(qs)) {
        (*low, *high) = (qs & 0x0f0f_0f0f, qs >> 4 & 0x0f0f_0f0f);
    }
}

/// Sets the fifth bit of each weight from the bits of `qh`.
#[inline(always)]
fn fifth_bits(qh: [u8; 4], q: &mut [u32]) {
    let qh = u32::from_le_bytes(qh);
    for (at, q) in q.iter_mut().enumerate() {
        // The product holds the four bits 7 places apart, which takes each to the low bit of a byte.
        *q |= (((qh >> (4 * at) & 15) * 0x0020_4081) & 0x0101_0101) << 4;
    }
}

/// Each half of 128 holds four planes of 32 in the bit pairs of 32 bytes.
#[inline(always)]
fn bit_pairs(qs: &[u8; 64], q: &mut [u32]) {
    for (part, q) in q.chunks_exact_mut(8).enumerate() {
        q.iter_mut().zip(words(&qs[part / 4 * 32..])).for_each(|(q, qs)| *q = qs >> (2 * (part % 4)) & 0x0303_0303);
    }
}

/// Of each 64 weights, the low nibbles of 32 bytes come first.
#[inline(always)]
fn paired_nibbles(qs: &[u8; 128], q: &mut [u32]) {
    for (part, q) in q.chunks_exact_mut(8).enumerate() {
        q.iter_mut().zip(words(&qs[part / 2 * 32..])).for_each(|(q, qs)| *q = qs >> (4 * (part % 2)) & 0x0f0f_0f0f);
    }
}
