//! NEON versions of the products, for Arm v8.2 with dot-product instructions, and with matrix products of bytes. Every function
//! equals its scalar definition to the last bit.

mod attention;
mod decode;
mod float;
mod panel;
mod peak;
mod words;

pub(crate) use attention::{Stored, add_weighted, scores, widen as widen_all};
pub(crate) use decode::decode;
pub(crate) use float::{dot_bf16, dot_f16, dot_f32};
pub(crate) use panel::{panel, panel_i8mm};
pub(crate) use peak::{peak, peak_i8mm};

use std::arch::aarch64::*;
use std::arch::asm;

/// Load of 16 bytes from the start of a slice.
#[inline]
#[target_feature(enable = "neon")]
fn load16<T: bytemuck::Pod>(from: &[T]) -> uint8x16_t {
    assert!(size_of_val(from) >= 16);
    // SAFETY: the slice holds at least 16 bytes, checked above; the load needs no alignment beyond a byte's.
    unsafe { vld1q_u8(from.as_ptr().cast()) }
}

/// `sum[i] + Σ w[4i..4i+4] · x[4i..4i+4]` in four lanes: SDOT, which the standard library does not offer on stable.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn sdot(mut sum: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
    // SAFETY: SDOT reads and writes the named registers only; the caller's target features include it.
    unsafe {
        asm!("sdot {sum:v}.4s, {w:v}.16b, {x:v}.16b", sum = inout(vreg) sum, w = in(vreg) w, x = in(vreg) x,
            options(pure, nomem, nostack, preserves_flags));
    }
    sum
}

/// `sum[i] + Σ w[4i..4i+4] · x[4 L..4 L+4]` in four lanes: SDOT by element, which the standard library does not offer on
/// stable.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn sdot_by<const L: usize>(mut sum: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
    // SAFETY: SDOT reads and writes the named registers only; the caller's target features include it.
    unsafe {
        asm!("sdot {sum:v}.4s, {w:v}.16b, {x:v}.4b[{lane}]", sum = inout(vreg) sum, w = in(vreg) w, x = in(vreg) x,
            lane = const L, options(pure, nomem, nostack, preserves_flags));
    }
    sum
}

/// `sum[2 i + j] + Σ x[8i..8i+8] · w[8j..8j+8]` in four lanes: SMMLA, which the standard library does not offer on stable.
#[inline]
#[target_feature(enable = "neon,i8mm")]
fn smmla(mut sum: int32x4_t, x: int8x16_t, w: int8x16_t) -> int32x4_t {
    // SAFETY: SMMLA reads and writes the named registers only; the caller's target features include it.
    unsafe {
        asm!("smmla {sum:v}.4s, {x:v}.16b, {w:v}.16b", sum = inout(vreg) sum, x = in(vreg) x, w = in(vreg) w,
            options(pure, nomem, nostack, preserves_flags));
    }
    sum
}

/// Four f16 values, in the low half of the register, as f32.
#[inline]
#[target_feature(enable = "neon")]
fn widen_f16(from: uint16x4_t) -> float32x4_t {
    let wide: float32x4_t;
    // SAFETY: FCVTL reads and writes the named registers only and is part of the base instruction set.
    unsafe {
        asm!("fcvtl {wide:v}.4s, {from:v}.4h", wide = out(vreg) wide, from = in(vreg) from, options(pure, nomem, nostack, preserves_flags));
    }
    wide
}
