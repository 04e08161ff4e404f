//! Float weights: 32 lanes in eight vectors of four, as the scalar definition's lanes lie.

use std::arch::aarch64::*;

use half::{bf16, f16};

use super::{load16, widen_f16};
use crate::scalar::{LANES, fold};

/// Eight weights as f32.
trait Load8: Copy + Default {
    /// # Safety
    /// The processor has NEON.
    unsafe fn load8(from: &[Self]) -> [float32x4_t; 2];
}

impl Load8 for f32 {
    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn load8(from: &[f32]) -> [float32x4_t; 2] {
        [vreinterpretq_f32_u8(load16(from)), vreinterpretq_f32_u8(load16(&from[4..]))]
    }
}

impl Load8 for f16 {
    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn load8(from: &[f16]) -> [float32x4_t; 2] {
        let all = vreinterpretq_u16_u8(load16(from));
        [widen_f16(vget_low_u16(all)), widen_f16(vget_high_u16(all))]
    }
}

impl Load8 for bf16 {
    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn load8(from: &[bf16]) -> [float32x4_t; 2] {
        let all = vreinterpretq_u16_u8(load16(from));
        [vget_low_u16(all), vget_high_u16(all)].map(|part| vreinterpretq_f32_u32(vshlq_n_u32::<16>(vmovl_u16(part))))
    }
}

#[inline]
#[target_feature(enable = "neon,dotprod")]
fn dot<W: Load8, const M: usize>(w: &[W], x: [&[f32]; M]) -> [f32; M] {
    let mut lanes = [[vdupq_n_f32(0.0); 8]; M];
    let whole = w.len() / LANES * LANES;
    for at in (0..whole).step_by(LANES) {
        add_lanes(&mut lanes, &w[at..], x.map(|x| &x[at..]));
    }
    if whole < w.len() {
        // The rest, padded with zeros: 0 · 0 added to a lane changes nothing.
        let mut rest_w = [W::default(); LANES];
        rest_w[..w.len() - whole].copy_from_slice(&w[whole..]);
        let rest_x = x.map(|x| {
            let mut rest = [0f32; LANES];
            rest[..w.len() - whole].copy_from_slice(&x[whole..]);
            rest
        });
        add_lanes(&mut lanes, &rest_w, std::array::from_fn(|i| &rest_x[i][..]));
    }
    lanes.map(|lanes| {
        let mut all = [0f32; LANES];
        for (part, lane) in lanes.into_iter().enumerate() {
            // SAFETY: the place is four floats.
            unsafe { vst1q_f32(all[4 * part..4 * part + 4].as_mut_ptr(), lane) };
        }
        fold(all)
    })
}

/// Adds the products of the first 32 elements.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn add_lanes<W: Load8, const M: usize>(lanes: &mut [[float32x4_t; 8]; M], w: &[W], x: [&[f32]; M]) {
    for part in 0..4 {
        // SAFETY: this function's target features are those `load8` asks for.
        let wide = unsafe { W::load8(&w[8 * part..]) };
        for (lanes, x) in lanes.iter_mut().zip(&x) {
            for (i, wide) in wide.into_iter().enumerate() {
                let x = vreinterpretq_f32_u8(load16(&x[8 * part + 4 * i..]));
                lanes[2 * part + i] = vfmaq_f32(lanes[2 * part + i], wide, x);
            }
        }
    }
}

#[target_feature(enable = "neon,dotprod")]
pub(crate) fn dot_f32<const M: usize>(w: &[f32], x: [&[f32]; M]) -> [f32; M] {
    dot(w, x)
}

#[target_feature(enable = "neon,dotprod")]
pub(crate) fn dot_f16<const M: usize>(w: &[f16], x: [&[f32]; M]) -> [f32; M] {
    dot(w, x)
}

#[target_feature(enable = "neon,dotprod")]
pub(crate) fn dot_bf16<const M: usize>(w: &[bf16], x: [&[f32]; M]) -> [f32; M] {
    dot(w, x)
}
