//! Every level computes the same bytes as the scalar definition, for every quant type, on random rows of every length.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::cell::RefCell;

use bytemuck::cast_slice;
use kernels::{Activations, Attention, Input, KvPlanes, KvType, Level, Pool, QuantType, Weights, attend, product};

/// A small generator (SplitMix64), so that a failure names a seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in −1…1.
    fn float(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
}

/// Byte offsets of the f16 factors of a block, which must be finite numbers for a comparison to mean anything.
fn factors(quant: QuantType) -> &'static [usize] {
    match quant {
        QuantType::F32 | QuantType::F16 | QuantType::BF16 => &[],
        QuantType::Q4_0 | QuantType::Q5_0 | QuantType::Q8_0 => &[0],
        QuantType::Q4_1 | QuantType::Q5_1 | QuantType::Q4_K | QuantType::Q5_K => &[0, 2],
        QuantType::Q2_K => &[80, 82],
        QuantType::Q3_K => &[108],
        QuantType::Q6_K => &[208],
    }
}

fn random_weights(quant: QuantType, n_weights: usize, random: &mut Random) -> Vec<u8> {
    let n_blocks = n_weights / quant.block_len();
    match quant {
        QuantType::F32 => (0..n_weights).flat_map(|_| random.float().to_le_bytes()).collect(),
        QuantType::F16 => (0..n_weights).flat_map(|_| half::f16::from_f32(random.float()).to_le_bytes()).collect(),
        QuantType::BF16 => (0..n_weights).flat_map(|_| half::bf16::from_f32(random.float()).to_le_bytes()).collect(),
        _ => {
            let mut bytes: Vec<u8> = (0..n_blocks * quant.block_bytes()).map(|_| random.next() as u8).collect();
            for block in bytes.chunks_exact_mut(quant.block_bytes()) {
                for &at in factors(quant) {
                    block[at..at + 2].copy_from_slice(&half::f16::from_f32(random.float()).to_le_bytes());
                }
            }
            bytes
        }
    }
}

thread_local! {
    /// Kept from product to product, as the engine does.
    static FORMS: RefCell<Activations> = RefCell::default();
}

fn run(level: Level, n_threads: usize, weights: &[Weights], x: &[f32], n_in: usize) -> Vec<u32> {
    let n_out: usize = weights.iter().map(Weights::n_out).sum();
    let mut y = vec![0f32; x.len() / n_in * n_out];
    let pool = Pool::new(n_threads, level);
    FORMS.with_borrow_mut(|forms| product(&pool, weights, Input::Rows(x), forms, &mut y));
    y.into_iter().map(f32::to_bits).collect()
}

#[test]
fn levels_agree_on_every_type_and_length() {
    for quant in QuantType::ALL {
        let step = quant.block_len().max(1);
        let lengths: Vec<usize> = if step == 1 {
            (1..=70).chain([127, 128, 129, 1000]).collect()
        } else {
            (1..=9).chain([35]).map(|n| n * step).collect()
        };
        for n_in in lengths {
            let mut random = Random(n_in as u64);
            let bytes = random_weights(quant, 21 * n_in, &mut random);
            // The casts of a mapped file are aligned; a vector of bytes is not by itself.
            let aligned: Vec<u64> =
                bytes.chunks(8).map(|c| u64::from_le_bytes(std::array::from_fn(|i| c.get(i).copied().unwrap_or(0)))).collect();
            let bytes = &bytemuck::cast_slice::<u64, u8>(&aligned)[..bytes.len()];
            let weights = [Weights::new(quant, n_in, bytes)];
            // One row, one tile that is not whole, for which weights are unpacked slice by slice, and several tiles.
            let x: Vec<f32> = (0..11 * n_in).map(|_| random.float()).collect();
            let expected = run(Level::Scalar, 1, &weights, &x, n_in);
            for level in Level::available() {
                for n_rows in [1, 3, 6, 11] {
                    let found = run(level, 1, &weights, &x[..n_rows * n_in], n_in);
                    assert_eq!(found, expected[..n_rows * 21], "{quant} at {level}, {n_rows} rows of {n_in}");
                }
            }
        }
    }
}

#[test]
fn sums_do_not_depend_on_rows_or_threads() {
    let n_in = 512;
    for quant in QuantType::ALL {
        let mut random = Random(9);
        let bytes = random_weights(quant, 70 * n_in, &mut random);
        let aligned: Vec<u64> = bytes.chunks(8).map(|c| u64::from_le_bytes(std::array::from_fn(|i| c[i]))).collect();
        let weights = [Weights::new(quant, n_in, bytemuck::cast_slice(&aligned))];
        let x: Vec<f32> = (0..64 * n_in).map(|_| random.float()).collect();
        let level = Level::detect();
        let alone: Vec<u32> = x.chunks_exact(n_in).flat_map(|row| run(level, 1, &weights, row, n_in)).collect();
        for n_rows in (1..=9).chain([64]) {
            for n_threads in 1..=4 {
                let together = run(level, n_threads, &weights, &x[..n_rows * n_in], n_in);
                assert_eq!(together, alone[..n_rows * 70], "{quant}, {n_rows} rows, {n_threads} threads");
            }
        }
    }
}

/// Inputs as `block` of them share a factor of `max / 127`, in f64.
fn in_blocks(x: &[f32], block: usize) -> Vec<f64> {
    let blocks = x.chunks(block).map(|x| (x, f64::from(x.iter().fold(0f32, |max, x| max.max(x.abs()))) / 127.0));
    blocks.flat_map(|(x, d)| x.iter().map(move |x| (f64::from(*x) / d).round() * d)).collect()
}

/// The products are no farther from those of the unquantized inputs than blocks of 32 or 256 inputs make them.
/// `--nocapture` prints the errors, which are those of docs/measurements.md.
#[test]
fn products_are_as_exact_as_their_input_blocks() {
    let (n_in, n_out) = (2048, 64);
    // Near normal, and one in 64 of them ten times as large, as models have.
    let inputs = |random: &mut Random| -> Vec<f32> {
        let near_normal = |random: &mut Random| (0..4).map(|_| random.float()).sum::<f32>();
        (0..n_in).map(|i| near_normal(random) * if i % 64 == 17 { 10.0 } else { 1.0 }).collect()
    };
    for quant in QuantType::ALL {
        let mut random = Random(3);
        let bytes = random_weights(quant, n_out * n_in, &mut random);
        let aligned: Vec<u64> = bytes.chunks(8).map(|c| u64::from_le_bytes(std::array::from_fn(|i| c[i]))).collect();
        let weights = [Weights::new(quant, n_in, bytemuck::cast_slice(&aligned))];
        let (mut squares, mut error, mut by_32, mut by_256) = (0.0, 0.0, 0.0, 0.0);
        for _ in 0..8 {
            let x = inputs(&mut random);
            let (x32, x256) = (in_blocks(&x, 32), in_blocks(&x, 256));
            let found = run(Level::detect(), 1, &weights, &x, n_in);
            for (row, found) in found.iter().enumerate() {
                let mut w = vec![0f32; n_in];
                weights[0].dequantize_row(row, &mut w);
                let product = |x: &[f64]| -> f64 { w.iter().zip(x).map(|(w, x)| f64::from(*w) * x).sum() };
                let exact = product(&x.iter().map(|x| f64::from(*x)).collect::<Vec<_>>());
                squares += exact.powi(2);
                error += (f64::from(f32::from_bits(*found)) - exact).powi(2);
                by_32 += (product(&x32) - exact).powi(2);
                by_256 += (product(&x256) - exact).powi(2);
            }
        }
        let [error, by_32, by_256] = [error, by_32, by_256].map(|sum: f64| (sum / squares).sqrt());
        println!("{quant}: {:.2} %; blocks of 32 {:.2} %, of 256 {:.2} %", 100.0 * error, 100.0 * by_32, 100.0 * by_256);
        let allowed = match quant.block_len() {
            1 => 1e-5,
            32 => by_32,
            _ => by_256,
        };
        assert!(error <= 1.02 * allowed, "{quant}: {error}, where {allowed} is allowed");
    }
}

#[test]
fn attention_is_a_softmax_average() {
    let (n_head, n_head_kv, width, n_ctx) = (4, 2, 40, 200);
    let mut random = Random(4);
    let mut plane = |n: usize| -> Vec<half::f16> { (0..n).map(|_| half::f16::from_f32(random.float())).collect() };
    let (k, v) = (plane(n_head_kv * n_ctx * width), plane(n_head_kv * n_ctx * width));
    let q: Vec<f32> = plane(3 * n_head * width).iter().map(|q| q.to_f32() * 4.0).collect();
    let kv = KvPlanes { kv_type: KvType::F16, k: cast_slice(&k), v: cast_slice(&v), stride: 2 * n_ctx * width };
    for (window, cap) in
        [(None, None), (Some(1), None), (Some(40), None), (Some(152), None), (None, Some(2.0)), (Some(70), Some(5.0))]
    {
        let scale = 1.0 / (width as f32).sqrt();
        let attention =
            Attention { q: &q, kv, pos: 150, causal: true, window, scale, cap, n_head, n_head_kv, n_embd_head: width };
        let mut expected = Vec::new();
        for (row, q) in q.chunks_exact(n_head * width).enumerate() {
            for (head, q) in q.chunks_exact(width).enumerate() {
                let at = head / 2 * n_ctx * width;
                let dot = |p: usize| -> f64 {
                    let score =
                        (0..width).map(|i| f64::from(q[i]) * k[at + p * width + i].to_f64()).sum::<f64>() / (width as f64).sqrt();
                    cap.map_or(score, |cap| f64::from(cap) * (score / f64::from(cap)).tanh())
                };
                let seen = |p: usize| window.is_none_or(|window| 150 + row - p < window);
                let weights: Vec<f64> = (0..=150 + row).map(|p| if seen(p) { dot(p).exp() } else { 0.0 }).collect();
                let total: f64 = weights.iter().sum();
                expected.extend(
                    (0..width).map(|i| {
                        weights.iter().enumerate().map(|(p, w)| w * v[at + p * width + i].to_f64()).sum::<f64>() / total
                    }),
                );
            }
        }
        let mut scalar = vec![0f32; q.len()];
        attend(&Pool::new(1, Level::Scalar), &attention, &mut scalar);
        for (found, expected) in scalar.iter().zip(&expected) {
            assert!((f64::from(*found) - expected).abs() < 1e-5, "{found} is not {expected}");
        }
        for level in Level::available() {
            let mut out = vec![0f32; q.len()];
            attend(&Pool::new(3, level), &attention, &mut out);
            assert_eq!(out, scalar, "{level}");
        }
    }
}

/// Many rows share tiles and are computed four queries at a time; each must get what it gets alone.
#[test]
fn attention_of_a_row_does_not_depend_on_its_neighbours() {
    for (width, n_head_kv) in [(40, 2), (64, 1), (128, 2), (144, 1)] {
        let (n_head, n_ctx, n_rows) = (4, 200, 21);
        let mut random = Random(width as u64);
        let mut plane = |n: usize| -> Vec<half::f16> { (0..n).map(|_| half::f16::from_f32(random.float())).collect() };
        let (k, v) = (plane(n_head_kv * n_ctx * width), plane(n_head_kv * n_ctx * width));
        let q: Vec<f32> = plane(n_rows * n_head * width).iter().map(|q| q.to_f32() * 4.0).collect();
        let kv = KvPlanes { kv_type: KvType::F16, k: cast_slice(&k), v: cast_slice(&v), stride: 2 * n_ctx * width };
        let scale = 1.0 / (width as f32).sqrt();
        let run_in = |window: Option<usize>, level: Level, n_threads: usize, q: &[f32], pos: usize, causal: bool| {
            let mut out = vec![0f32; q.len()];
            attend(
                &Pool::new(n_threads, level),
                &Attention { q, kv, pos, causal, window, scale, cap: None, n_head, n_head_kv, n_embd_head: width },
                &mut out,
            );
            out.into_iter().map(f32::to_bits).collect::<Vec<_>>()
        };
        let run = |level, n_threads, q: &[f32], pos, causal| run_in(None, level, n_threads, q, pos, causal);
        let rows = q.chunks_exact(n_head * width).enumerate();
        let alone: Vec<u32> = rows.flat_map(|(row, q)| run(Level::Scalar, 1, q, 150 + row, true)).collect();
        let seen_by_all = run(Level::Scalar, 1, &q, 150, false);
        let last = (n_rows - 1) * n_head * width;
        assert_eq!(seen_by_all[last..], alone[last..], "the last row sees everything either way");
        assert_ne!(seen_by_all[..last], alone[..last]);
        for level in Level::available() {
            for window in [Some(5), Some(64), Some(130)] {
                let rows = q.chunks_exact(n_head * width).enumerate();
                let alone: Vec<u32> = rows.flat_map(|(row, q)| run_in(window, Level::Scalar, 1, q, 150 + row, true)).collect();
                assert_eq!(run_in(window, level, 2, &q, 150, true), alone, "heads of {width} at {level}, {window:?} positions");
            }
            for n_threads in 1..=3 {
                assert_eq!(run(level, n_threads, &q, 150, true), alone, "heads of {width} at {level}, {n_threads} threads");
            }
            assert_eq!(run(level, 2, &q, 150, false), seen_by_all, "heads of {width} at {level}, all rows see each other");
            assert_eq!(
                run(level, 1, &q[..n_head * width], 150, true),
                alone[..n_head * width],
                "heads of {width} at {level}, one row"
            );
        }
    }
}
