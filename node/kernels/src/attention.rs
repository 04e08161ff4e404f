//! Attention of query rows over the keys and values of one session and layer.

use std::cell::RefCell;
use std::ops::Range;

use bytemuck::cast_slice;
use half::f16;

use crate::block::Block;
use crate::exponential::exp;
use crate::kv::widen_q8_0;
use crate::level::compiled_for;
use crate::operators::cap_softly;
use crate::pool::Start;
use crate::{KvPlanes, KvType, Level, Pool, scalar};

/// Positions per softmax tile. Tiles are cut at absolute multiples, so that a row's sums do not depend on its batch.
pub(crate) const TILE: usize = 64;
/// Rows of queries that share a tile of keys and values once it is widened to f32.
const N_ROWS: usize = 16;
/// Queries that meet a tile together, so that a key or value is loaded once for several.
const TOGETHER: usize = 4;
/// With fewer queries than this, widening a tile costs more than it saves.
const N_QUERIES_WIDENED: usize = 6;

/// One session's query rows at successive positions.
pub struct Attention<'a> {
    /// `(n_rows, n_head · n_embd_head)`, rope applied.
    pub q: &'a [f32],
    /// Keys and values; the rows' own positions are already written.
    pub kv: KvPlanes<'a>,
    /// Position of the first row.
    pub pos: usize,
    /// Whether a row sees only itself and what came before; otherwise all rows see each other.
    pub causal: bool,
    /// How many positions a row sees, itself included; all that came before if `None`.
    pub window: Option<usize>,
    /// What the products of queries and keys are multiplied by.
    pub scale: f32,
    /// Scores are kept within ± this by `cap · tanh(score / cap)`.
    pub cap: Option<f32>,
    /// Query heads.
    pub n_head: usize,
    /// Key/value heads; each serves `n_head / n_head_kv` query heads.
    pub n_head_kv: usize,
    /// Width of a head.
    pub n_embd_head: usize,
}

/// Writes the attention of every row over the positions it sees to `out`, shaped as `q`.
///
/// # Panics
/// When `out` has another shape than the queries.
pub fn attend(pool: &Pool, a: &Attention, out: &mut [f32]) {
    assert_eq!(a.q.len(), out.len(), "one output per query");
    let n_rows = a.q.len() / (a.n_head * a.n_embd_head);
    let level = pool.level();
    let heads = Start(out.as_mut_ptr());
    pool.run(n_rows.div_ceil(N_ROWS) * a.n_head_kv, |part| {
        let (block, kv_head) = (part / a.n_head_kv, part % a.n_head_kv);
        let rows = block * N_ROWS..((block + 1) * N_ROWS).min(n_rows);
        SCRATCH.with_borrow_mut(|scratch| attend_block(level, a, kv_head, rows, &heads, scratch));
    });
}

/// A thread's tile of keys and values in f32, and what the softmax of each query carries from tile to tile.
#[derive(Default)]
struct Scratch {
    k: Vec<f32>,
    v: Vec<f32>,
    softmax: Vec<Softmax>,
}

thread_local! {
    /// Some 64 kB for heads of 128.
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// The running maximum of a query's scores, and the sum of its weights relative to it.
#[derive(Clone, Copy)]
struct Softmax {
    max: f32,
    total: f32,
}

/// The heads of one key/value head for some rows: tile by tile, so that keys and values are widened once for all of them.
fn attend_block(level: Level, a: &Attention, kv_head: usize, rows: Range<usize>, heads: &Start<f32>, scratch: &mut Scratch) {
    let (width, group) = (a.n_embd_head, a.n_head / a.n_head_kv);
    let n_queries = rows.len() * group;
    let place = |query: usize| {
        let (row, head) = (rows.start + query / group, kv_head * group + query % group);
        (row, (row * a.n_head + head) * width)
    };
    scratch.softmax.clear();
    scratch.softmax.resize(n_queries, Softmax { max: f32::NEG_INFINITY, total: 0.0 });
    scratch.k.resize(TILE * width, 0.0);
    scratch.v.resize(TILE * width, 0.0);
    // SAFETY: the ranges lie inside the output, each (row, head) pair belongs to one part, and what is held together below
    // belongs to different queries.
    let out = |query: usize| unsafe { heads.at(place(query).1, width) };
    (0..n_queries).for_each(|query| out(query).fill(0.0));
    let n_all = a.pos + a.q.len() / (a.n_head * width);
    let n_positions = if a.causal { a.pos + rows.end } else { n_all };
    let begin = |row: usize| a.window.map_or(0, |window| (a.pos + row + 1).saturating_sub(window));
    for first in (begin(rows.start) / TILE * TILE..n_positions).step_by(TILE) {
        let n = TILE.min(n_positions - first);
        let row_bytes = a.kv.kv_type.row_bytes(width);
        let bytes = kv_head * a.kv.stride + first * row_bytes..kv_head * a.kv.stride + (first + n) * row_bytes;
        let (k, v) = (&a.kv.k[bytes.clone()], &a.kv.v[bytes]);
        let widened = n_queries >= N_QUERIES_WIDENED || a.kv.kv_type != KvType::F16;
        if widened {
            widen(level, a.kv.kv_type, k, &mut scratch.k[..n * width]);
            widen(level, a.kv.kv_type, v, &mut scratch.v[..n * width]);
        }
        let mut query = 0;
        while query < n_queries {
            let row = place(query).0;
            let end = if a.causal { a.pos + row + 1 } else { n_all };
            let n_seen = end.saturating_sub(first).min(n);
            // What the window has left behind.
            let skipped = begin(row).saturating_sub(first);
            if n_seen <= skipped {
                query += 1;
                continue;
            }
            let q = |query: usize| &a.q[place(query).1..][..width];
            if widened && n_seen == n && query + TOGETHER <= n_queries && begin(place(query + TOGETHER - 1).0) <= first {
                // Later rows see the whole tile as well.
                let queries = std::array::from_fn(|i| q(query + i));
                let softmax = scratch.softmax[query..].first_chunk_mut().expect("as many are left");
                let outs = std::array::from_fn(|i| out(query + i));
                attend_tile::<f32, TOGETHER>(level, a, queries, &scratch.k[..n * width], &scratch.v[..n * width], softmax, outs);
                query += TOGETHER;
                continue;
            }
            let (seen, softmax) = (skipped * width..n_seen * width, std::array::from_mut(&mut scratch.softmax[query]));
            if widened {
                attend_tile(level, a, [q(query)], &scratch.k[seen.clone()], &scratch.v[seen], softmax, [out(query)]);
            } else {
                let (k, v) = (cast_slice::<u8, f16>(k), cast_slice::<u8, f16>(v));
                attend_tile(level, a, [q(query)], &k[seen.clone()], &v[seen], softmax, [out(query)]);
            }
            query += 1;
        }
    }
    (0..n_queries).for_each(|query| out(query).iter_mut().for_each(|out| *out /= scratch.softmax[query].total));
}

/// Adds a tile of keys and values, `(n_seen, width)`, to the attention of `Q` queries.
fn attend_tile<W: Stored, const Q: usize>(
    level: Level,
    a: &Attention,
    q: [&[f32]; Q],
    k: &[W],
    v: &[W],
    softmax: &mut [Softmax; Q],
    mut out: [&mut [f32]; Q],
) {
    let mut weights = [[f32::NEG_INFINITY; TILE]; Q];
    let n_seen = k.len() / q[0].len();
    scores(level, q, k, &mut weights);
    for i in 0..Q {
        let scale = match a.cap {
            None => a.scale,
            Some(cap) => {
                weights[i][..n_seen].iter_mut().for_each(|score| *score *= a.scale);
                cap_softly(level, &mut weights[i][..n_seen], cap);
                1.0
            }
        };
        weigh(level, scale, &mut weights[i], &mut softmax[i], out[i]);
    }
    add_weighted(level, &weights, n_seen, v, &mut out);
}

/// Keys and values: f16 as they are kept, or f32 once widened. Both give the same sums.
#[cfg(target_arch = "x86_64")]
trait Stored: Block + crate::x86::Stored {}
#[cfg(target_arch = "aarch64")]
trait Stored: Block + crate::neon::Stored {}
impl Stored for f32 {}
impl Stored for f16 {}

/// The products of each query with each key.
fn scores<W: Stored, const Q: usize>(level: Level, q: [&[f32]; Q], k: &[W], out: &mut [[f32; TILE]; Q]) {
    let n = k.len() / q[0].len();
    #[cfg(target_arch = "x86_64")]
    if level == Level::Avx512 && Q == TOGETHER {
        let (q, out) = (q.first_chunk().expect("four"), out.first_chunk_mut().expect("four"));
        // SAFETY: a level other than Scalar is only made by `Level::available`, after asking the processor.
        return unsafe { crate::x86::scores4_avx512(*q, k, out) };
    }
    for i in 0..Q {
        let out = &mut out[i][..n];
        match level {
            Level::Scalar => scalar::scores(q[i], k, out),
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 | Level::AvxVnni => unsafe { crate::x86::scores_avx2(q[i], k, out) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => unsafe { crate::x86::scores_avx512(q[i], k, out) },
            // SAFETY: as above.
            #[cfg(target_arch = "aarch64")]
            Level::Dotprod | Level::I8mm => unsafe { crate::neon::scores(q[i], k, out) },
        }
    }
}

/// `out += Σ weight · v` for each query, over the first `n` weights.
fn add_weighted<W: Stored, const Q: usize>(
    level: Level,
    weights: &[[f32; TILE]; Q],
    n: usize,
    v: &[W],
    out: &mut [&mut [f32]; Q],
) {
    #[cfg(target_arch = "x86_64")]
    if level == Level::Avx512 && Q.is_multiple_of(2) {
        for i in (0..Q).step_by(2) {
            let (first, second) = out[i..].split_at_mut(1);
            let weights = [&weights[i][..n], &weights[i + 1][..n]];
            // SAFETY: as in `scores`.
            unsafe { crate::x86::add_weighted2_avx512(weights, v, [&mut *first[0], &mut *second[0]]) };
        }
        return;
    }
    for i in 0..Q {
        let (weights, out) = (&weights[i][..n], &mut *out[i]);
        match level {
            Level::Scalar => scalar::add_weighted(weights, v, out),
            // SAFETY: as in `scores`.
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 | Level::AvxVnni => unsafe { crate::x86::add_weighted_avx2(weights, v, out) },
            // SAFETY: as in `scores`.
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => unsafe { crate::x86::add_weighted_avx512(weights, v, out) },
            // SAFETY: as in `scores`.
            #[cfg(target_arch = "aarch64")]
            Level::Dotprod | Level::I8mm => unsafe { crate::neon::add_weighted(weights, v, out) },
        }
    }
}

/// Values as f32.
fn widen(level: Level, kv_type: KvType, from: &[u8], to: &mut [f32]) {
    if kv_type == KvType::Q8_0 {
        return widen_q8_0(level, cast_slice(from), to);
    }
    let from = cast_slice::<u8, f16>(from);
    assert_eq!(from.len(), to.len(), "slices differ in length");
    match level {
        Level::Scalar => to.iter_mut().zip(from).for_each(|(to, from)| *to = from.to_f32()),
        // SAFETY: as in `scores`.
        #[cfg(target_arch = "x86_64")]
        _ => unsafe { crate::x86::widen_all(from, to) },
        // SAFETY: as in `scores`.
        #[cfg(target_arch = "aarch64")]
        _ => unsafe { crate::neon::widen_all(from, to) },
    }
}

compiled_for! {
    /// Turns scores into weights relative to the largest so far; what was summed before shrinks to match.
    fn weigh(scale: f32, weights: &mut [f32; TILE], softmax: &mut Softmax, out: &mut [f32]) {
        let mut lanes = [f32::NEG_INFINITY; 16];
        for part in weights.as_chunks_mut::<16>().0 {
            for i in 0..16 {
                part[i] *= scale;
                lanes[i] = if part[i] > lanes[i] { part[i] } else { lanes[i] };
            }
        }
        let max = lanes.into_iter().fold(softmax.max, f32::max);
        if max > softmax.max {
            let shrink = exp(softmax.max - max);
            softmax.total *= shrink;
            out.iter_mut().for_each(|out| *out *= shrink);
            softmax.max = max;
        }
        let mut totals = [0f32; 16];
        for part in weights.as_chunks_mut::<16>().0 {
            for i in 0..16 {
                part[i] = exp(part[i] - max);
                totals[i] += part[i];
            }
        }
        softmax.total += totals.into_iter().fold(0.0, |sum, total| sum + total);
    }
}
