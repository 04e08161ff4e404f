//! What this machine could do at most: the measure that `lantern bench` holds its results against.

use std::hint::black_box;
use std::time::Instant;

use crate::{Level, Pool};

/// Bytes each thread reads: far more than any cache holds.
const READ_BYTES: usize = 128 << 20;
/// Rounds of sixteen dot products a thread computes: some ten milliseconds.
const N_ROUNDS: usize = 2_000_000;
/// Attempts of which the best counts; the others were disturbed.
const N_ATTEMPTS: usize = 5;

/// Bytes per second that all threads of the pool together read from memory, each front to back.
pub fn read_bandwidth(pool: &Pool) -> f64 {
    let n = pool.n_threads();
    let memory = vec![1u64; n * READ_BYTES / size_of::<u64>()];
    let seconds = best(|| {
        pool.run(n, |part| {
            let share = &memory[part * memory.len() / n..(part + 1) * memory.len() / n];
            black_box(share.iter().fold(0u64, |sum, value| sum.wrapping_add(*value)));
        });
    });
    (n * READ_BYTES) as f64 / seconds
}

/// Products of 8-bit numbers per second that all threads compute from registers, or `None` at the scalar level, which has
/// no instruction to measure.
pub fn dot_peak(pool: &Pool) -> Option<f64> {
    let n = pool.n_threads();
    let n_products = match pool.level() {
        Level::Scalar => return None,
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 | Level::AvxVnni => 16 * 32,
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => 16 * 64,
        #[cfg(target_arch = "aarch64")]
        Level::Dotprod => 16 * 16,
        #[cfg(target_arch = "aarch64")]
        Level::I8mm => 16 * 32,
    };
    let seconds = best(|| {
        pool.run(n, |_| match pool.level() {
            Level::Scalar => {}
            // SAFETY: a level other than Scalar is only made by `Level::available`, after asking the processor.
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => unsafe { crate::x86::peak_avx2(N_ROUNDS) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Level::AvxVnni => unsafe { crate::x86::peak_avx_vnni(N_ROUNDS) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => unsafe { crate::x86::peak_avx512(N_ROUNDS) },
            // SAFETY: as above.
            #[cfg(target_arch = "aarch64")]
            Level::Dotprod => unsafe { crate::neon::peak(N_ROUNDS) },
            // SAFETY: as above.
            #[cfg(target_arch = "aarch64")]
            Level::I8mm => unsafe { crate::neon::peak_i8mm(N_ROUNDS) },
        });
    });
    Some((n * N_ROUNDS * n_products) as f64 / seconds)
}

fn best(run: impl Fn()) -> f64 {
    let attempts = (0..N_ATTEMPTS).map(|_| {
        let begun = Instant::now();
        run();
        begun.elapsed().as_secs_f64()
    });
    attempts.fold(f64::INFINITY, f64::min)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_level_with_instructions_has_a_peak() {
        for level in Level::available() {
            let peak = dot_peak(&Pool::new(1, level));
            assert_eq!(peak.is_some(), level != Level::Scalar, "{level}");
            assert!(peak.is_none_or(|peak| peak > 1e9), "{level}: {peak:?}");
        }
        assert!(read_bandwidth(&Pool::new(2, Level::Scalar)) > 1e8);
    }
}
