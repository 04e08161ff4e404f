//! Fixed worker threads that split a parallel region into parts.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

/// Threads that compute. The caller is worker 0, so a pool of one starts no thread.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    level: crate::Level,
    /// Held during a region: callers on other threads wait for their turn.
    turn: Mutex<()>,
}

struct Shared {
    region: Mutex<Region>,
    begun: Condvar,
    ended: Condvar,
    /// Number of the newest region; workers spin on it a little before they sleep.
    epoch: AtomicUsize,
    next_part: AtomicUsize,
    /// Workers that have not left the current region.
    n_inside: AtomicUsize,
}

struct Region {
    epoch: usize,
    n_parts: usize,
    body: Option<&'static (dyn Fn(usize) + Sync)>,
    closing: bool,
}

/// Looks at the epoch this often before sleeping: some microseconds, about the gap between two operators.
const N_SPINS: usize = 2_000;

impl Pool {
    /// A pool of `n_threads` (at least one, the caller included) that runs the kernels of `level`.
    pub fn new(n_threads: usize, level: crate::Level) -> Pool {
        let shared = Arc::new(Shared {
            region: Mutex::new(Region { epoch: 0, n_parts: 0, body: None, closing: false }),
            begun: Condvar::new(),
            ended: Condvar::new(),
            epoch: AtomicUsize::new(0),
            next_part: AtomicUsize::new(0),
            n_inside: AtomicUsize::new(0),
        });
        let start = |index: usize| {
            let shared = shared.clone();
            let builder = std::thread::Builder::new().name(format!("kernel-{index}"));
            builder.spawn(move || shared.work()).expect("the system can start a thread")
        };
        let workers = (1..n_threads.max(1)).map(start).collect();
        Pool { shared, workers, level, turn: Mutex::new(()) }
    }

    /// Threads that take part in a region.
    pub fn n_threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// The kernels this pool runs.
    pub fn level(&self) -> crate::Level {
        self.level
    }

    /// Calls `body(part)` for every part below `n_parts`, split over the threads, and returns when all are done.
    ///
    /// # Panics
    /// When `body` panics on the calling thread.
    pub fn run(&self, n_parts: usize, body: impl Fn(usize) + Sync) {
        if self.workers.is_empty() || n_parts < 2 {
            return (0..n_parts).for_each(body);
        }
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let body: &(dyn Fn(usize) + Sync) = &body;
        // SAFETY: only the lifetime is lengthened. Workers use the reference between taking a part and leaving the region,
        // and this function returns, or unwinds through `Wait`, only after every worker has left.
        let body: &'static (dyn Fn(usize) + Sync) = unsafe { std::mem::transmute(body) };
        self.shared.next_part.store(0, Ordering::Relaxed);
        self.shared.n_inside.store(self.workers.len(), Ordering::Relaxed);
        {
            let mut region = self.shared.lock();
            region.epoch += 1;
            (region.n_parts, region.body) = (n_parts, Some(body));
            self.shared.epoch.store(region.epoch, Ordering::Release);
        }
        self.shared.begun.notify_all();
        let _wait = Wait(&self.shared);
        self.shared.take_parts(n_parts, body);
    }
}

impl Pool {
    /// Calls `body(index, row)` for each row of `n` values of `out`, split over the threads.
    ///
    /// # Panics
    /// When `out` is not whole rows.
    pub fn run_rows<T: Send>(&self, out: &mut [T], n: usize, body: impl Fn(usize, &mut [T]) + Sync) {
        assert_eq!(out.len() % n, 0, "outputs are not whole rows");
        let start = Start(out.as_mut_ptr());
        self.run(out.len() / n, |index| {
            // SAFETY: every part runs once, and no two rows overlap.
            body(index, unsafe { start.at(index * n, n) });
        });
    }
}

/// Where the output of a region begins, of which every part takes other places.
pub(crate) struct Start<T>(pub(crate) *mut T);

impl<T> Start<T> {
    /// `len` values from place `at` on.
    ///
    /// # Safety
    /// They are inside the output, and no other reference to them is alive.
    #[expect(clippy::mut_from_ref, reason = "parts hold disjoint places")]
    pub(crate) unsafe fn at(&self, at: usize, len: usize) -> &mut [T] {
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(at), len) }
    }
}

// SAFETY: parts take disjoint places, of values that may move between threads.
unsafe impl<T: Send> Sync for Start<T> {}

impl Drop for Pool {
    fn drop(&mut self) {
        {
            let mut region = self.shared.lock();
            region.closing = true;
            region.epoch += 1;
            self.shared.epoch.store(region.epoch, Ordering::Release);
        }
        self.shared.begun.notify_all();
        for worker in self.workers.drain(..) {
            // A worker that panicked has already said so on standard error.
            _ = worker.join();
        }
    }
}

/// Waits for all workers to leave the region, also when the caller's own part panics.
struct Wait<'a>(&'a Shared);

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        for _ in 0..N_SPINS {
            if self.0.n_inside.load(Ordering::Acquire) == 0 {
                return;
            }
            std::hint::spin_loop();
        }
        let mut region = self.0.lock();
        while self.0.n_inside.load(Ordering::Acquire) > 0 {
            region = self.0.ended.wait(region).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Region> {
        self.region.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_parts(&self, n_parts: usize, body: &(dyn Fn(usize) + Sync)) {
        loop {
            let part = self.next_part.fetch_add(1, Ordering::Relaxed);
            if part >= n_parts {
                return;
            }
            body(part);
        }
    }

    fn work(&self) {
        let mut seen = 0;
        loop {
            for _ in 0..N_SPINS {
                if self.epoch.load(Ordering::Acquire) != seen {
                    break;
                }
                std::hint::spin_loop();
            }
            let (n_parts, body) = {
                let mut region = self.lock();
                while region.epoch == seen {
                    region = self.begun.wait(region).unwrap_or_else(PoisonError::into_inner);
                }
                seen = region.epoch;
                if region.closing {
                    return;
                }
                (region.n_parts, region.body.expect("a region has a body"))
            };
            self.take_parts(n_parts, body);
            if self.n_inside.fetch_sub(1, Ordering::AcqRel) == 1 {
                let _region = self.lock();
                self.ended.notify_one();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Level;

    #[test]
    fn rows_are_each_given_once() {
        let pool = Pool::new(3, Level::Scalar);
        let mut out = vec![0; 7 * 5];
        for round in 1..=100 {
            pool.run_rows(&mut out, 5, |index, row| row.iter_mut().for_each(|value| *value += index + 1));
            assert!(out.chunks(5).enumerate().all(|(index, row)| row == [round * (index + 1); 5]), "{out:?}");
        }
    }

    #[test]
    fn every_part_runs_once() {
        for n_threads in 1..=4 {
            let pool = Pool::new(n_threads, Level::Scalar);
            for n_parts in [0, 1, 2, 7, 100] {
                let counts: Vec<AtomicUsize> = (0..n_parts).map(|_| AtomicUsize::new(0)).collect();
                for _ in 0..200 {
                    pool.run(n_parts, |part| _ = counts[part].fetch_add(1, Ordering::Relaxed));
                }
                assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 200), "{n_threads} threads, {n_parts} parts");
            }
        }
    }
}
