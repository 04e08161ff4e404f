//! Words of eight rows.

use std::arch::aarch64::*;

use super::widen_f16;
use crate::word::{Side, Word};

/// A word of each of eight rows.
#[derive(Clone, Copy)]
pub(super) struct Eight(pub(super) [uint32x4_t; 2]);

impl Word for Eight {
    type Rows = [*const u8; 8];

    /// A 4 by 4 matrix of words in each half, rows and columns exchanged.
    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn piece(rows: [*const u8; 8], at: usize) -> [Eight; 4] {
        let mut out = [Eight([vdupq_n_u32(0); 2]); 4];
        for half in 0..2 {
            let mut z = [vdupq_n_u32(0); 4];
            for r in 0..4 {
                // SAFETY: the caller's promise; a load of bytes needs no alignment.
                z[r] = vreinterpretq_u32_u8(unsafe { vld1q_u8(rows[4 * half + r].add(at)) });
            }
            let pairs = [vtrn1q_u32(z[0], z[1]), vtrn2q_u32(z[0], z[1]), vtrn1q_u32(z[2], z[3]), vtrn2q_u32(z[2], z[3])];
            let (a, b) = (vreinterpretq_u64_u32(pairs[0]), vreinterpretq_u64_u32(pairs[1]));
            let (c, d) = (vreinterpretq_u64_u32(pairs[2]), vreinterpretq_u64_u32(pairs[3]));
            out[0].0[half] = vreinterpretq_u32_u64(vtrn1q_u64(a, c));
            out[1].0[half] = vreinterpretq_u32_u64(vtrn1q_u64(b, d));
            out[2].0[half] = vreinterpretq_u32_u64(vtrn2q_u64(a, c));
            out[3].0[half] = vreinterpretq_u32_u64(vtrn2q_u64(b, d));
        }
        out
    }

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn word(rows: [*const u8; 8], at: usize) -> Eight {
        let mut words = [0u32; 8];
        for r in 0..8 {
            // SAFETY: the caller's promise.
            words[r] = unsafe { rows[r].add(at).cast::<u32>().read_unaligned() };
        }
        // SAFETY: both places are four words.
        unsafe { Eight([vld1q_u32(words.as_ptr()), vld1q_u32(words.as_ptr().add(4))]) }
    }

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn and(self, mask: u32) -> Eight {
        Eight([vandq_u32(self.0[0], vdupq_n_u32(mask)), vandq_u32(self.0[1], vdupq_n_u32(mask))])
    }

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn or(self, other: Eight) -> Eight {
        Eight([vorrq_u32(self.0[0], other.0[0]), vorrq_u32(self.0[1], other.0[1])])
    }

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn add(self, value: u32) -> Eight {
        Eight([vaddq_u32(self.0[0], vdupq_n_u32(value)), vaddq_u32(self.0[1], vdupq_n_u32(value))])
    }

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn xor(self, mask: u32) -> Eight {
        Eight([veorq_u32(self.0[0], vdupq_n_u32(mask)), veorq_u32(self.0[1], vdupq_n_u32(mask))])
    }

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn sub_bytes(self, value: u8) -> Eight {
        let value = vdupq_n_u8(value);
        let [a, b] = self.0;
        let (a, b) = (vsubq_u8(vreinterpretq_u8_u32(a), value), vsubq_u8(vreinterpretq_u8_u32(b), value));
        Eight([vreinterpretq_u32_u8(a), vreinterpretq_u32_u8(b)])
    }

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn mul(self, factor: u32) -> Eight {
        Eight([vmulq_n_u32(self.0[0], factor), vmulq_n_u32(self.0[1], factor)])
    }

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn shl(self, n: u32) -> Eight {
        Eight([vshlq_u32(self.0[0], vdupq_n_s32(n as i32)), vshlq_u32(self.0[1], vdupq_n_s32(n as i32))])
    }

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn shr(self, n: u32) -> Eight {
        Eight([vshlq_u32(self.0[0], vdupq_n_s32(-(n as i32))), vshlq_u32(self.0[1], vdupq_n_s32(-(n as i32)))])
    }

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn sar(self, n: u32) -> Eight {
        Eight([
            vreinterpretq_u32_s32(vshlq_s32(vreinterpretq_s32_u32(self.0[0]), vdupq_n_s32(-(n as i32)))),
            vreinterpretq_u32_s32(vshlq_s32(vreinterpretq_s32_u32(self.0[1]), vdupq_n_s32(-(n as i32)))),
        ])
    }
}

impl Side<8> for Eight {
    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn store(self, to: &mut [u32; 8]) {
        for half in 0..2 {
            // SAFETY: the place is four words.
            unsafe { vst1q_u32(to[4 * half..4 * half + 4].as_mut_ptr(), self.0[half]) };
        }
    }

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn store_float(self, to: &mut [f32; 8]) {
        for half in 0..2 {
            let floats = vcvtq_f32_s32(vreinterpretq_s32_u32(self.0[half]));
            // SAFETY: the place is four floats.
            unsafe { vst1q_f32(to[4 * half..4 * half + 4].as_mut_ptr(), floats) };
        }
    }

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn widen(halves: &[u16; 8], to: &mut [f32; 8]) {
        for half in 0..2 {
            // SAFETY: both places are four numbers.
            unsafe { vst1q_f32(to[4 * half..4 * half + 4].as_mut_ptr(), widen_f16(vld1_u16(halves[4 * half..].as_ptr()))) };
        }
    }
}
