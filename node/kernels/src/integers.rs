//! Quantized blocks as integers: the one description of a type that its definition, its dequantization and its panels are
//! made from.

use std::mem::offset_of;

use half::f16;

use crate::block::{
    BlockQ2K, BlockQ3K, BlockQ4_0, BlockQ4_1, BlockQ4K, BlockQ5_0, BlockQ5_1, BlockQ5K, BlockQ6K, BlockQ8_0, SUPER,
};
use crate::word::Word;

/// A block of weights `d · scale_j · q_i + m · min_j`, where `j` is the sub-block of weight `i`.
///
/// Its product with 8-bit inputs `d_x · x_i` is `d d_x Σ_j scale_j Σ_i q_i x_i + m d_x Σ_j min_j Σ_i x_i`; the integer
/// sums are exact.
///
/// # Safety
/// Functions take places of whole blocks, one for each row of the word, and inherit the word's demands.
pub trait Integers: bytemuck::Pod {
    /// Weights in the block.
    const WEIGHTS: usize;
    /// Weights that share an integer scale and minimum. Blocks of 32 have one of each, which is 1.
    const SUB: usize = 32;
    /// What the file adds to a weight to make it unsigned; 0 where no weight is negative.
    const CENTRE: u32 = 0;
    /// The byte where the factor `d` lies, an f16.
    const D: usize;
    /// The byte where the factor of the minimums lies, an f16, where there are minimums.
    const M: Option<usize> = None;
    /// Whether minimums are subtracted, so that `m` is the negative of what the file holds.
    const MINS_SUBTRACT: bool = false;

    /// Calls `out(i, word)` for every four weights, each plus `CENTRE`.
    unsafe fn fours<W: Word>(rows: W::Rows, out: impl FnMut(usize, W));
    /// Calls `out(j, scale)` for every sub-block of a super-block.
    unsafe fn scales<W: Word>(_rows: W::Rows, _out: impl FnMut(usize, W)) {}
    /// Calls `out(j, minimum)` for every sub-block of a super-block that has minimums.
    unsafe fn mins<W: Word>(_rows: W::Rows, _out: impl FnMut(usize, W)) {}
}

/// One block taken apart.
pub(crate) struct Unpacked {
    pub(crate) q: [i8; SUPER],
    pub(crate) scales: [i32; 16],
    pub(crate) mins: [i32; 16],
    pub(crate) d: f32,
    pub(crate) m: f32,
}

impl Unpacked {
    pub(crate) fn new<B: Integers>(block: &B) -> Unpacked {
        let mut unpacked = Unpacked { q: [0; SUPER], scales: [1; 16], mins: [1; 16], d: factor(block, B::D), m: 0.0 };
        let place = std::ptr::from_ref(block).cast::<u8>();
        let Unpacked { q, scales, mins, .. } = &mut unpacked;
        // SAFETY: the place is a whole block, and words of one row ask for no instructions.
        unsafe {
            B::fours::<u32>(place, |i, word| {
                for (q, n) in q[4 * i..4 * i + 4].iter_mut().zip(word.to_le_bytes()) {
                    *q = n.wrapping_sub(B::CENTRE as u8) as i8;
                }
            });
            B::scales::<u32>(place, |j, scale| scales[j] = scale as i32);
            B::mins::<u32>(place, |j, min| mins[j] = min as i32);
        }
        if let Some(at) = B::M {
            unpacked.m = if B::MINS_SUBTRACT { -factor(block, at) } else { factor(block, at) };
        }
        unpacked
    }
}

fn factor<B: Integers>(block: &B, at: usize) -> f32 {
    let bytes = bytemuck::bytes_of(block);
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

/// The low four bits of each byte.
const NIBBLES: u32 = 0x0f0f_0f0f;
/// The low two bits of each byte.
const PAIRS: u32 = 0x0303_0303;
/// The low bit of each byte.
const BITS: u32 = 0x0101_0101;

impl Integers for BlockQ4_0 {
    const WEIGHTS: usize = 32;
    const CENTRE: u32 = 8;
    const D: usize = offset_of!(BlockQ4_0, d);

    #[inline(always)]
    unsafe fn fours<W: Word>(rows: W::Rows, mut out: impl FnMut(usize, W)) {
        // SAFETY: the caller's promise.
        unsafe {
            let low = nibbles(W::piece(rows, offset_of!(BlockQ4_0, qs)));
            for i in 0..8 {
                out(i, low[i]);
            }
        }
    }
}

impl Integers for BlockQ4_1 {
    const WEIGHTS: usize = 32;
    const D: usize = offset_of!(BlockQ4_1, d);
    const M: Option<usize> = Some(offset_of!(BlockQ4_1, m));

    #[inline(always)]
    unsafe fn fours<W: Word>(rows: W::Rows, mut out: impl FnMut(usize, W)) {
        // SAFETY: the caller's promise.
        unsafe {
            let low = nibbles(W::piece(rows, offset_of!(BlockQ4_1, qs)));
            for i in 0..8 {
                out(i, low[i]);
            }
        }
    }
}

impl Integers for BlockQ5_0 {
    const WEIGHTS: usize = 32;
    const CENTRE: u32 = 16;
    const D: usize = offset_of!(BlockQ5_0, d);

    #[inline(always)]
    unsafe fn fours<W: Word>(rows: W::Rows, mut out: impl FnMut(usize, W)) {
        // SAFETY: the caller's promise.
        unsafe {
            let fifth = W::word(rows, offset_of!(BlockQ5_0, qh));
            let low = nibbles(W::piece(rows, offset_of!(BlockQ5_0, qs)));
            for i in 0..8 {
                out(i, low[i].or(fifth_bits(fifth, i)));
            }
        }
    }
}

impl Integers for BlockQ5_1 {
    const WEIGHTS: usize = 32;
    const D: usize = offset_of!(BlockQ5_1, d);
    const M: Option<usize> = Some(offset_of!(BlockQ5_1, m));

    #[inline(always)]
    unsafe fn fours<W: Word>(rows: W::Rows, mut out: impl FnMut(usize, W)) {
        // SAFETY: the caller's promise.
        unsafe {
            let fifth = W::word(rows, offset_of!(BlockQ5_1, qh));
            let low = nibbles(W::piece(rows, offset_of!(BlockQ5_1, qs)));
            for i in 0..8 {
                out(i, low[i].or(fifth_bits(fifth, i)));
            }
        }
    }
}

impl Integers for BlockQ8_0 {
    const WEIGHTS: usize = 32;
    const CENTRE: u32 = 128;
    const D: usize = offset_of!(BlockQ8_0, d);

    #[inline(always)]
    unsafe fn fours<W: Word>(rows: W::Rows, mut out: impl FnMut(usize, W)) {
        // SAFETY: the caller's promise.
        unsafe {
            for part in 0..2 {
                let words = W::piece(rows, offset_of!(BlockQ8_0, qs) + 16 * part);
                for i in 0..4 {
                    out(4 * part + i, words[i].xor(0x8080_8080));
                }
            }
        }
    }
}

impl Integers for BlockQ2K {
    const WEIGHTS: usize = SUPER;
    const SUB: usize = 16;
    const D: usize = offset_of!(BlockQ2K, d);
    const M: Option<usize> = Some(offset_of!(BlockQ2K, dmin));
    const MINS_SUBTRACT: bool = true;

    #[inline(always)]
    unsafe fn fours<W: Word>(rows: W::Rows, out: impl FnMut(usize, W)) {
        // SAFETY: the caller's promise.
        unsafe {
            bit_pairs(rows, offset_of!(BlockQ2K, qs), out);
        }
    }

    #[inline(always)]
    unsafe fn scales<W: Word>(rows: W::Rows, mut out: impl FnMut(usize, W)) {
        // SAFETY: the caller's promise.
        unsafe {
            bytes_of(W::piece(rows, offset_of!(BlockQ2K, scales)), |j, byte: W| out(j, byte.and(15)));
        }
    }

    #[inline(always)]
    unsafe fn mins<W: Word>(rows: W::Rows, mut out: impl FnMut(usize, W)) {
        // SAFETY: the caller's promise.
        unsafe {
            bytes_of(W::piece(rows, offset_of!(BlockQ2K, scales)), |j, byte: W| out(j, byte.shr(4)));
        }
    }
}

impl Integers for BlockQ3K {
    const WEIGHTS: usize = SUPER;
    const SUB: usize = 16;
    const CENTRE: u32 = 4;
    const D: usize = offset_of!(BlockQ3K, d);

    #[inline(always)]
    unsafe fn fours<W: Word>(rows: W::Rows, mut out: impl FnMut(usize, W)) {
        // SAFETY: the caller's promise.
        unsafe {
            // A clear bit in `hmask` subtracts 4.
            let masks = [W::piece(rows, offset_of!(BlockQ3K, hmask)), W::piece(rows, offset_of!(BlockQ3K, hmask) + 16)];
            bit_pairs(rows, offset_of!(BlockQ3K, qs), |i, low: W| {
                let third = masks[i % 8 / 4][i % 4].shr(i as u32 / 8).and(BITS);
                out(i, low.or(third.shl(2)));
            });
        }
    }

    #[inline(always)]
    unsafe fn scales<W: Word>(rows: W::Rows, mut out: impl FnMut(usize, W)) {
        // SAFETY: the caller's promise.
        unsafe {
            // 32 too high: low nibbles in the first 8 bytes, two high bits each in the last 4.
            let words = [0, 4, 8].map(|at| W::word(rows, offset_of!(BlockQ3K, scales) + at));
            for four in 0..4 {
                let low = words[four % 2].shr(4 * (four as u32 / 2)).and(NIBBLES);
                let all = low.or(words[2].shr(2 * four as u32).and(PAIRS).shl(4));
                for i in 0..4 {
                    out(4 * four + i, all.shr(8 * i as u32).and(255).add(32u32.wrapping_neg()));
                }
            }
        }
    }
}

impl Integers for BlockQ4K {
    const WEIGHTS: usize = SUPER;
    const D: usize = offset_of!(BlockQ4K, d);
    const M: Option<usize> = Some(offset_of!(BlockQ4K, dmin));
    const MINS_SUBTRACT: bool = true;

    #[inline(always)]
    unsafe fn fours<W: Word>(rows: W::Rows, out: impl FnMut(usize, W)) {
        // SAFETY: the caller's promise.
        unsafe {
            paired_nibbles(rows, offset_of!(BlockQ4K, qs), out);
        }
    }

    #[inline(always)]
    unsafe fn scales<W: Word>(rows: W::Rows, out: impl FnMut(usize, W)) {
        // SAFETY: the caller's promise.
        unsafe {
            eight_bytes(scales_and_mins(W::piece(rows, 0))[0], out);
        }
    }

    #[inline(always)]
    unsafe fn mins<W: Word>(rows: W::Rows, out: impl FnMut(usize, W)) {
        // SAFETY: the caller's promise.
        unsafe {
            eight_bytes(scales_and_mins(W::piece(rows, 0))[1], out);
        }
    }
}

impl Integers for BlockQ5K {
    const WEIGHTS: usize = SUPER;
    const D: usize = offset_of!(BlockQ5K, d);
    const M: Option<usize> = Some(offset_of!(BlockQ5K, dmin));
    const MINS_SUBTRACT: bool = true;

    #[inline(always)]
    unsafe fn fours<W: Word>(rows: W::Rows, mut out: impl FnMut(usize, W)) {
        // SAFETY: the caller's promise.
        unsafe {
            // Bit `j` of `qh[i]` is the fifth bit of weight `i` of sub-block `j`.
            let fifth = [W::piece(rows, offset_of!(BlockQ5K, qh)), W::piece(rows, offset_of!(BlockQ5K, qh) + 16)];
            paired_nibbles(rows, offset_of!(BlockQ5K, qs), |i, low: W| {
                let bit = fifth[i % 8 / 4][i % 4].shr(i as u32 / 8).and(BITS);
                out(i, low.or(bit.shl(4)));
            });
        }
    }

    #[inline(always)]
    unsafe fn scales<W: Word>(rows: W::Rows, out: impl FnMut(usize, W)) {
        // SAFETY: the caller's promise.
        unsafe {
            eight_bytes(scales_and_mins(W::piece(rows, 0))[0], out);
        }
    }

    #[inline(always)]
    unsafe fn mins<W: Word>(rows: W::Rows, out: impl FnMut(usize, W)) {
        // SAFETY: the caller's promise.
        unsafe {
            eight_bytes(scales_and_mins(W::piece(rows, 0))[1], out);
        }
    }
}

impl Integers for BlockQ6K {
    const WEIGHTS: usize = SUPER;
    const SUB: usize = 16;
    const CENTRE: u32 = 32;
    const D: usize = offset_of!(BlockQ6K, d);

    #[inline(always)]
    unsafe fn fours<W: Word>(rows: W::Rows, mut out: impl FnMut(usize, W)) {
        // SAFETY: the caller's promise.
        unsafe {
            // Each half of 128 is four planes of 32: low nibbles of 64 bytes, then their high nibbles; the two top bits of plane
            // `p` are bit pair `p` of 32 bytes.
            for half in 0..2 {
                for part in 0..2 {
                    let high = W::piece(rows, offset_of!(BlockQ6K, qh) + 32 * half + 16 * part);
                    for low_plane in 0..2 {
                        let low = W::piece(rows, offset_of!(BlockQ6K, ql) + 64 * half + 32 * low_plane + 16 * part);
                        for i in 0..4 {
                            for plane in [low_plane, low_plane + 2] {
                                let q = low[i].shr(4 * (plane as u32 / 2)).and(NIBBLES);
                                let top = high[i].shr(2 * plane as u32).and(PAIRS);
                                out(32 * half + 8 * plane + 4 * part + i, q.or(top.shl(4)));
                            }
                        }
                    }
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn scales<W: Word>(rows: W::Rows, mut out: impl FnMut(usize, W)) {
        // SAFETY: the caller's promise.
        unsafe {
            let words = W::piece(rows, offset_of!(BlockQ6K, scales));
            for j in 0..16 {
                out(j, words[j / 4].shl(24 - 8 * (j as u32 % 4)).sar(24));
            }
        }
    }
}

/// The low nibbles of 16 bytes, then the high ones. An array, as compilers put a closure here that they need not expand in
/// place and then call every word's operation.
#[inline(always)]
unsafe fn nibbles<W: Word>(words: [W; 4]) -> [W; 8] {
    // SAFETY: the caller's promise.
    unsafe {
        let [a, b, c, d] = words;
        let high = |word: W| word.shr(4).and(NIBBLES);
        [a.and(NIBBLES), b.and(NIBBLES), c.and(NIBBLES), d.and(NIBBLES), high(a), high(b), high(c), high(d)]
    }
}

/// Bits `4 i` to `4 i + 3`, each the fifth of a byte.
#[inline(always)]
unsafe fn fifth_bits<W: Word>(bits: W, i: usize) -> W {
    // The product holds the four bits 7 places apart, which takes each to the low bit of a byte.
    // SAFETY: the caller's promise.
    unsafe { bits.shr(4 * i as u32).and(15).mul(0x0020_4081).and(BITS).shl(4) }
}

/// Each half of 128 weights holds four planes of 32 in the bit pairs of 32 bytes.
#[inline(always)]
unsafe fn bit_pairs<W: Word>(rows: W::Rows, at: usize, mut out: impl FnMut(usize, W)) {
    for quarter in 0..4 {
        // SAFETY: the caller's promise.
        unsafe {
            let words = W::piece(rows, at + 16 * quarter);
            for plane in 0..4 {
                for i in 0..4 {
                    out(32 * (quarter / 2) + 8 * plane + 4 * (quarter % 2) + i, words[i].shr(2 * plane as u32).and(PAIRS));
                }
            }
        }
    }
}

/// Of each 64 weights, the low nibbles of 32 bytes come first.
#[inline(always)]
unsafe fn paired_nibbles<W: Word>(rows: W::Rows, at: usize, mut out: impl FnMut(usize, W)) {
    for part in 0..8 {
        // SAFETY: the caller's promise.
        unsafe {
            let words = W::piece(rows, at + 16 * part);
            for i in 0..4 {
                let place = 16 * (part / 2) + 4 * (part % 2) + i;
                out(place, words[i].and(NIBBLES));
                out(place + 8, words[i].shr(4).and(NIBBLES));
            }
        }
    }
}

/// The 8 scales and 8 minimums of a Q4_K or Q5_K super-block, 6 bits each, four to a word. They are packed in the 12 bytes
/// after the two factors: the first four in the low six bits of words 1 and 2; the others have their low four bits in word 3
/// and their high two bits on top of words 1 and 2.
#[inline(always)]
unsafe fn scales_and_mins<W: Word>(words: [W; 4]) -> [[W; 2]; 2] {
    // SAFETY: the caller's promise.
    unsafe {
        let [_, a, b, c] = words;
        let scales = [a.and(0x3f3f_3f3f), c.and(NIBBLES).or(a.shr(6).and(PAIRS).shl(4))];
        let mins = [b.and(0x3f3f_3f3f), c.shr(4).and(NIBBLES).or(b.shr(6).and(PAIRS).shl(4))];
        [scales, mins]
    }
}

#[inline(always)]
unsafe fn eight_bytes<W: Word>(words: [W; 2], mut out: impl FnMut(usize, W)) {
    for j in 0..8 {
        // SAFETY: the caller's promise.
        unsafe { out(j, words[j / 4].shr(8 * (j as u32 % 4)).and(255)) };
    }
}

#[inline(always)]
unsafe fn bytes_of<W: Word>(words: [W; 4], mut out: impl FnMut(usize, W)) {
    for j in 0..16 {
        // SAFETY: the caller's promise.
        unsafe { out(j, words[j / 4].shr(8 * (j as u32 % 4)).and(255)) };
    }
}
