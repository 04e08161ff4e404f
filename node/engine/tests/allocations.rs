//! A decode step allocates nothing once the first ones have made room.

#![allow(clippy::unwrap_used, reason = "tests")]
#![allow(unsafe_code, reason = "an allocator that counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};

use engine::{KvType, Level, Model, Pool, QuantType, Session, Slice, step};
use testkit::{Shape, tiny_model};

struct Counting;

static N_ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        N_ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        N_ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.realloc(place, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn decode_steps_allocate_nothing() {
    QuantType::ALL.into_iter().for_each(|quant| check("qwen3", quant));
    // Experts, convolutions, windows and norms of what is added.
    ["qwen2moe", "qwen3moe", "lfm2", "gemma3"].into_iter().for_each(|family| check(family, QuantType::Q4_0));
}

fn check(family: &'static str, quant: QuantType) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&tiny_model(&Shape::tiny(family), quant, 5).bytes()).unwrap();
    let model = Model::open(file.path()).unwrap();
    for level in Level::available() {
        let pool = Pool::new(2, level);
        let mut sessions = [Session::new(&model, KvType::F16, 64).unwrap(), Session::new(&model, KvType::F16, 64).unwrap()];
        let mut logits = Vec::new();
        let mut decode = |sessions: &mut [Session; 2], token: u32| {
            let [a, b] = sessions;
            let mut slices =
                [Slice { session: a, tokens: &[token], n_logits: 1 }, Slice { session: b, tokens: &[token, 3], n_logits: 2 }];
            step(&model, &pool, &mut slices, &mut logits).unwrap();
        };
        let mut ten_steps = || {
            let before = N_ALLOCATIONS.load(Ordering::Relaxed);
            (0..10).for_each(|token| decode(&mut sessions, token));
            sessions.iter_mut().for_each(|session| session.truncate(0));
            N_ALLOCATIONS.load(Ordering::Relaxed) - before
        };
        // A thread makes room when it first gets work of a kind, which on a busy machine may take a while.
        let n_least = (0..50).map(|_| ten_steps()).find(|n| *n == 0);
        assert_eq!(n_least, Some(0), "{family} {quant} at {level}: allocations in every ten steps");
    }
}
