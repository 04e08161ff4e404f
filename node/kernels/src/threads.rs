//! How many threads a product wants: prompts keep every core busy, while answers are done when memory is, which fewer threads
//! may reach.

use std::time::{Duration, Instant};

use crate::{Activations, Input, Level, Pool, QuantType, Weights, product};

/// Threads that compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Threads {
    /// While a prompt is read.
    pub prefill: usize,
    /// While answers are written.
    pub decode: usize,
}

/// Width of the measured products.
const N_IN: usize = 1024;
/// Rows of weights that answers read: 38 MB at Q4_0, more than the caches of a small machine hold.
const N_OUT_DECODE: usize = 1 << 16;
/// Rows of weights that a prompt meets, and the prompt's rows.
const N_OUT_PREFILL: usize = 1 << 12;
const N_PROMPT: usize = 64;
/// Attempts of which the best counts; the others were disturbed.
const N_ATTEMPTS: usize = 5;
/// A further thread that saves less than a thirtieth of the time is left to others.
const WORTH_IT: f64 = 29.0 / 30.0;

impl Default for Threads {
    /// One for every core this process may use.
    fn default() -> Threads {
        Threads::same(std::thread::available_parallelism().map_or(1, usize::from))
    }
}

impl Threads {
    /// `n` for both.
    pub fn same(n: usize) -> Threads {
        Threads { prefill: n, decode: n }
    }

    /// The fewest threads of at most `n_max` that are about as fast as any, by measuring products of each kind. Takes some
    /// tenths of a second and 38 MB, which it gives back.
    pub fn measure(level: Level, n_max: usize) -> Threads {
        let bytes = vec![0x11; QuantType::Q4_0.row_bytes(N_IN).expect("whole blocks") * N_OUT_DECODE];
        let weights = Weights::new(QuantType::Q4_0, N_IN, &bytes);
        let some = Weights::new(QuantType::Q4_0, N_IN, &bytes[..bytes.len() / N_OUT_DECODE * N_OUT_PREFILL]);
        let fewest = |weights: Weights, n_rows: usize| {
            let (x, mut y) = (vec![1.0; n_rows * N_IN], vec![0.0; n_rows * weights.n_out()]);
            let mut forms = Activations::default();
            let mut best = vec![Duration::MAX; n_max.max(1)];
            // In turn, so that what disturbs one disturbs all.
            for _ in 0..N_ATTEMPTS {
                for (n, best) in (1..).zip(&mut best) {
                    // One pool at a time: a large machine would have thousands of threads.
                    let pool = Pool::new(n, level);
                    let mut run = || product(&pool, &[weights], Input::Rows(&x), &mut forms, &mut y);
                    // The first finds threads that are starting, without their scratch.
                    run();
                    let begun = Instant::now();
                    run();
                    *best = begun.elapsed().min(*best);
                }
            }
            fewest(&best)
        };
        Threads { prefill: fewest(some, N_PROMPT), decode: fewest(weights, 1) }
    }
}

/// The fewest threads after which no further one is worth it, where `times[n - 1]` is what `n` threads take.
fn fewest(times: &[Duration]) -> usize {
    let mut chosen = 1;
    for n in 2..=times.len() {
        if times[n - 1].as_secs_f64() < times[chosen - 1].as_secs_f64() * WORTH_IT {
            chosen = n;
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_must_be_worth_it() {
        let of = |times: &[u64]| fewest(&times.iter().map(|ms| Duration::from_millis(*ms)).collect::<Vec<_>>());
        assert_eq!(of(&[100]), 1);
        assert_eq!(of(&[100, 52, 40, 39]), 3, "the fourth saves too little");
        assert_eq!(of(&[100, 99, 50]), 3, "the second alone saves too little");
        assert_eq!(of(&[100, 60, 61, 62]), 2, "memory is busy with two");
    }

    #[test]
    fn a_measure_stays_within_bounds() {
        let threads = Threads::measure(Level::detect(), 2);
        assert!((1..=2).contains(&threads.prefill) && (1..=2).contains(&threads.decode), "{threads:?}");
    }
}
