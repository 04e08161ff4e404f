//! Seeded numbers, and weights made of them.

use half::f16;
use kernels::QuantType;

/// SplitMix64: small, and the same everywhere.
pub struct Random(pub u64);

impl Random {
    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in −1…1.
    pub fn float(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
}

/// `n_rows` rows of `n_in` weights of a type, of a size at which activations keep their order of magnitude: blocks of random
/// integers with factors near `1 / √n_in`.
///
/// # Panics
/// When `n_in` is not whole blocks.
pub fn random_weights(quant: QuantType, n_rows: usize, n_in: usize, random: &mut Random) -> Vec<u8> {
    let n = n_rows * n_in;
    let size = (3.0 / n_in as f32).sqrt();
    let (len, bytes_each) = (quant.block_len(), quant.block_bytes());
    assert_eq!(n_in % len, 0, "rows are not whole blocks");
    match quant {
        QuantType::F32 => return (0..n).flat_map(|_| (random.float() * size).to_le_bytes()).collect(),
        QuantType::F16 => return (0..n).flat_map(|_| f16::from_f32(random.float() * size).to_le_bytes()).collect(),
        QuantType::BF16 => return (0..n).flat_map(|_| half::bf16::from_f32(random.float() * size).to_le_bytes()).collect(),
        _ => {}
    }
    let mut bytes: Vec<u8> = (0..n / len * bytes_each).map(|_| random.bits() as u8).collect();
    for block in bytes.chunks_exact_mut(bytes_each) {
        let mut put = |at: usize, value: f32| block[at..at + 2].copy_from_slice(&f16::from_f32(value).to_le_bytes());
        let d = size * (1.0 + 0.1 * random.float());
        match quant {
            QuantType::Q4_0 => put(0, d / 8.0),
            QuantType::Q4_1 => (put(0, d / 8.0), put(2, -d)).0,
            QuantType::Q5_0 => put(0, d / 16.0),
            QuantType::Q5_1 => (put(0, d / 16.0), put(2, -d)).0,
            QuantType::Q8_0 => put(0, d / 128.0),
            QuantType::Q2_K => (put(80, d / 16.0), put(82, d / 11.0)).0,
            QuantType::Q3_K => put(108, d / 80.0),
            QuantType::Q4_K => (put(0, d / 256.0), put(2, d / 35.0)).0,
            QuantType::Q5_K => (put(0, d / 512.0), put(2, d / 35.0)).0,
            QuantType::Q6_K => put(208, d / 2400.0),
            QuantType::F32 | QuantType::F16 | QuantType::BF16 => unreachable!("written above"),
        }
    }
    bytes
}
