//! Products by quant type and shape: bytes of weights a second for one row of inputs, as decode reads them, and products a
//! second for sixty-four, as prefill computes them. One thread.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kernels::{Activations, Input, Level, Pool, QuantType, Weights, product};
use testkit::{Random, random_weights};

/// `(n_out, n_in)`: gate and up, and down, of a model of 0.6 billion weights.
const SHAPES: [(usize, usize); 2] = [(3072, 1024), (1024, 3072)];
/// Rows of a prompt.
const N_PREFILL: usize = 64;

fn products(c: &mut Criterion) {
    let pool = Pool::new(1, Level::detect());
    for quant in QuantType::ALL {
        for (n_out, n_in) in SHAPES {
            let bytes = random_weights(quant, n_out, n_in, &mut Random(1));
            let weights = Weights::new(quant, n_in, &bytes);
            let x: Vec<f32> = (0..N_PREFILL * n_in).map(|i| (i % 13) as f32 - 6.0).collect();
            let (mut y, mut forms) = (vec![0.0; N_PREFILL * n_out], Activations::default());
            let mut run = |group: &str, n_rows: usize, throughput: Throughput| {
                let mut group = c.benchmark_group(group);
                group.throughput(throughput);
                group.bench_function(BenchmarkId::new(format!("{quant}"), format!("{n_out}x{n_in}")), |b| {
                    b.iter(|| product(&pool, &[weights], Input::Rows(&x[..n_rows * n_in]), &mut forms, &mut y[..n_rows * n_out]));
                });
            };
            run("decode, bytes of weights", 1, Throughput::Bytes(bytes.len() as u64));
            run("prefill, products", N_PREFILL, Throughput::Elements((N_PREFILL * n_out * n_in) as u64));
        }
    }
}

criterion_group!(benches, products);
criterion_main!(benches);
