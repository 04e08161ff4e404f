//! Steps of a seeded model, small enough to be made here: one row after a context, as decode takes them, and a prompt.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use engine::{KvType, Level, Model, Pool, QuantType, Session, Slice, Threads, step};
use testkit::{Shape, tiny_model};

const N_PROMPT: usize = 128;

fn steps(c: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder for models");
    let pool = Pool::new(Threads::default().decode, Level::detect());
    for quant in [QuantType::Q4_0, QuantType::Q4_K, QuantType::Q8_0] {
        let file = folder.path().join(format!("{quant}.gguf"));
        let shape = Shape { n_layer: 8, n_embd: 1024, n_ff: 3072, n_head: 16, n_head_kv: 8, ..Shape::tiny("qwen3") };
        std::fs::write(&file, tiny_model(&shape, quant, 1).bytes()).expect("room for a model");
        let model = Model::open(&file).expect("a whole model");
        let tokens: Vec<u32> = (0..N_PROMPT as u32).map(|i| 7 * i % 256).collect();
        let mut session = Session::new(&model, KvType::F16, 2 * N_PROMPT).expect("memory for a session");
        let mut logits = Vec::new();
        let mut take = |session: &mut Session, tokens: &[u32]| {
            step(&model, &pool, &mut [Slice { session, tokens, n_logits: 1 }], &mut logits).expect("numbers");
        };
        let mut group = c.benchmark_group("steps, tokens");
        group.throughput(Throughput::Elements(N_PROMPT as u64));
        group.bench_function(BenchmarkId::new("prefill", quant), |b| {
            b.iter(|| {
                session.truncate(0);
                take(&mut session, &tokens);
            });
        });
        session.truncate(0);
        take(&mut session, &tokens);
        group.throughput(Throughput::Elements(1));
        group.bench_function(BenchmarkId::new("decode", quant), |b| {
            b.iter(|| {
                session.truncate(N_PROMPT - 1);
                take(&mut session, &tokens[..1]);
            });
        });
    }
}

criterion_group!(benches, steps);
criterion_main!(benches);
