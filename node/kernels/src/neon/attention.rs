//! Scores and weighted sums of attention, on keys and values in f16 or widened to f32.

use std::arch::aarch64::*;

use half::f16;

use super::{load16, widen_f16};

/// Keys or values as they are stored.
pub(crate) trait Stored: Copy {
    /// The first four values.
    ///
    /// # Safety
    /// There are four, and the processor has NEON.
    unsafe fn load4(from: *const Self) -> float32x4_t;
    fn widen(self) -> f32;
}

impl Stored for f32 {
    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn load4(from: *const f32) -> float32x4_t {
        // SAFETY: the caller's promise.
        unsafe { vld1q_f32(from) }
    }

    fn widen(self) -> f32 {
        self
    }
}

impl Stored for f16 {
    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn load4(from: *const f16) -> float32x4_t {
        // SAFETY: the caller's promise.
        widen_f16(unsafe { vld1_u16(from.cast()) })
    }

    fn widen(self) -> f32 {
        self.to_f32()
    }
}

/// As the scalar definition. Four keys at a time, their sixteen lanes in four vectors each.
#[target_feature(enable = "neon")]
pub(crate) fn scores<W: Stored>(q: &[f32], k: &[W], out: &mut [f32]) {
    let width = q.len();
    let whole = width / 16 * 16;
    assert_eq!(k.len(), out.len() * width, "a key for each score");
    for (out, k) in out.chunks_mut(4).zip(k.chunks(4 * width)) {
        let mut lanes = [[vdupq_n_f32(0.0); 4]; 4];
        let mut keys = [k.as_ptr(); 4];
        for i in 0..4 {
            keys[i] = k[i.min(out.len() - 1) * width..].as_ptr();
        }
        // Two a round: places are moved and counted half as often.
        let twice = whole / 32 * 32;
        for at in (0..twice).step_by(32) {
            // SAFETY: the query and each key have `width` values, and `at + 32 <= width`.
            unsafe {
                add_sixteen(&mut lanes, q.as_ptr().add(at), keys.map(|k| k.add(at)));
                add_sixteen(&mut lanes, q.as_ptr().add(at + 16), keys.map(|k| k.add(at + 16)));
            }
        }
        if twice < whole {
            // SAFETY: as above, and `twice + 16 == whole`.
            unsafe { add_sixteen(&mut lanes, q.as_ptr().add(twice), keys.map(|k| k.add(twice))) };
        }
        if whole < width {
            for i in 0..out.len() {
                let (q, k) = (rest(&q[whole..]), rest(&k[i * width + whole..(i + 1) * width]));
                for part in 0..4 {
                    let (q, k) = (load16(&q[4 * part..]), load16(&k[4 * part..]));
                    lanes[i][part] = vfmaq_f32(lanes[i][part], vreinterpretq_f32_u8(q), vreinterpretq_f32_u8(k));
                }
            }
        }
        let mut sums = [0.0; 4];
        // SAFETY: the place is four floats.
        unsafe { vst1q_f32(sums.as_mut_ptr(), tree(lanes)) };
        match out.first_chunk_mut() {
            Some(four) => *four = sums,
            None => out.copy_from_slice(&sums[..out.len()]),
        }
    }
}

/// The sums of each four vectors by the tree of halves: 16 to 8, 8 to 4, then within the vector.
#[inline]
#[target_feature(enable = "neon")]
fn tree(lanes: [[float32x4_t; 4]; 4]) -> float32x4_t {
    let mut halves = [vdupq_n_f64(0.0); 4];
    for (half, [a, b, c, d]) in halves.iter_mut().zip(lanes) {
        *half = vreinterpretq_f64_f32(vaddq_f32(vaddq_f32(a, c), vaddq_f32(b, d)));
    }
    let add = |a, b| vaddq_f32(vreinterpretq_f32_f64(vzip1q_f64(a, b)), vreinterpretq_f32_f64(vzip2q_f64(a, b)));
    vpaddq_f32(add(halves[0], halves[1]), add(halves[2], halves[3]))
}

/// Adds the products of sixteen values of a query with those of four keys.
///
/// # Safety
/// There are as many.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn add_sixteen<W: Stored>(lanes: &mut [[float32x4_t; 4]; 4], q: *const f32, keys: [*const W; 4]) {
    for part in 0..4 {
        // SAFETY: the caller's promise.
        unsafe {
            let q = vld1q_f32(q.add(4 * part));
            for i in 0..4 {
                lanes[i][part] = vfmaq_f32(lanes[i][part], q, W::load4(keys[i].add(4 * part)));
            }
        }
    }
}

/// At most sixteen values, then zeros: 0 · 0 added to a lane changes nothing.
fn rest<W: Stored>(from: &[W]) -> [f32; 16] {
    let mut all = [0f32; 16];
    all.iter_mut().zip(from).for_each(|(to, from)| *to = from.widen());
    all
}

/// As the scalar definition. The sums of 64 outputs stay in sixteen registers.
#[target_feature(enable = "neon")]
pub(crate) fn add_weighted<W: Stored>(weights: &[f32], v: &[W], out: &mut [f32]) {
    let width = out.len();
    assert_eq!(v.len(), weights.len() * width, "values for each weight");
    let mut at = 0;
    while at + 64 <= width {
        part::<W, 16>(weights, v, at, out);
        at += 64;
    }
    while at + 4 <= width {
        part::<W, 1>(weights, v, at, out);
        at += 4;
    }
    for (weight, v) in weights.iter().zip(v.chunks_exact(width)) {
        out[at..].iter_mut().zip(&v[at..]).for_each(|(out, v)| *out = weight.mul_add(v.widen(), *out));
    }
}

#[inline]
#[target_feature(enable = "neon")]
fn part<W: Stored, const N: usize>(weights: &[f32], v: &[W], at: usize, out: &mut [f32]) {
    let width = out.len();
    assert!(at + 4 * N <= width && weights.len() * width == v.len());
    // SAFETY: by the line above the places are inside the outputs and the values of each weight.
    unsafe {
        let out = out.as_mut_ptr().add(at);
        let mut sums = [vdupq_n_f32(0.0); N];
        for i in 0..N {
            sums[i] = vld1q_f32(out.add(4 * i));
        }
        for (p, weight) in weights.iter().enumerate() {
            let v = v.as_ptr().add(p * width + at);
            for i in 0..N {
                sums[i] = vfmaq_n_f32(sums[i], W::load4(v.add(4 * i)), *weight);
            }
        }
        for i in 0..N {
            vst1q_f32(out.add(4 * i), sums[i]);
        }
    }
}

/// Values as f32.
#[target_feature(enable = "neon")]
pub(crate) fn widen(from: &[f16], to: &mut [f32]) {
    let ((from, from_rest), (to, to_rest)) = (from.as_chunks::<8>(), to.as_chunks_mut::<8>());
    for (from, to) in from.iter().zip(to) {
        let all = vreinterpretq_u16_u8(load16(from));
        // SAFETY: both places are four floats.
        unsafe {
            vst1q_f32(to[..4].as_mut_ptr(), widen_f16(vget_low_u16(all)));
            vst1q_f32(to[4..].as_mut_ptr(), widen_f16(vget_high_u16(all)));
        }
    }
    for (from, to) in from_rest.iter().zip(to_rest) {
        *to = from.to_f32();
    }
}
