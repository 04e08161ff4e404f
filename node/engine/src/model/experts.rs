//! Feed-forward parts of which a token uses a few: a router scores them, and only those it chooses are read.

use kernels::{Activations, Input, Pool, exp};

use crate::hyperparams::{ExpertCounts, Hyperparams};
use crate::matrix::Group;

/// The experts of one layer.
pub(crate) struct Experts {
    /// A score for each expert.
    pub(crate) router: Group,
    pub(crate) experts: Vec<Expert>,
    /// The one that every token uses, and a row whose product with the token says how much of it.
    pub(crate) shared: Option<(Expert, Vec<f32>)>,
}

/// One feed-forward part.
pub(crate) struct Expert {
    pub(crate) gate_up: Group,
    pub(crate) down: Group,
}

/// Which rows go where, on their way there and back. It keeps its memory from step to step.
#[derive(Default)]
pub(crate) struct Routing {
    /// Experts and their shares, `(n_rows, n_used)`.
    chosen: Vec<(usize, f32)>,
    order: Vec<usize>,
    /// Rows of one expert, with its share of each.
    rows: Vec<(usize, f32)>,
    gathered: Vec<f32>,
    /// The router's scores, then gate · up of one expert.
    wide: Vec<f32>,
    given: Vec<f32>,
}

impl Experts {
    /// What the experts give for rows of normed values `x`, `(n_rows, n_embd)`, replaces `out`. Each row is summed in the order
    /// of the experts, whatever rows it is computed with.
    pub(crate) fn forward(
        &self,
        h: &Hyperparams,
        x: &[f32],
        pool: &Pool,
        forms: &mut Activations,
        routing: &mut Routing,
        out: &mut Vec<f32>,
    ) {
        let Routing { chosen, order, rows, gathered, wide, given } = routing;
        let counts = h.experts.expect("a layer has experts where the numbers say so");
        let (n, n_rows) = (h.n_embd, x.len() / h.n_embd);
        self.router.apply(n_rows, Input::Rows(x), pool, forms, wide);
        chosen.clear();
        wide.chunks_exact(counts.n).for_each(|scores| choose(scores, counts, order, chosen));
        out.clear();
        out.resize(x.len(), 0.0);
        for (index, expert) in self.experts.iter().enumerate() {
            rows.clear();
            gathered.clear();
            for (row, chosen) in chosen.chunks_exact(counts.n_used).enumerate() {
                if let Some((_, weight)) = chosen.iter().find(|(expert, _)| *expert == index) {
                    rows.push((row, *weight));
                    gathered.extend_from_slice(&x[row * n..][..n]);
                }
            }
            if rows.is_empty() {
                continue;
            }
            expert.forward(h, gathered, pool, forms, wide, given);
            for ((row, weight), given) in rows.iter().zip(given.chunks_exact(n)) {
                out[row * n..][..n].iter_mut().zip(given).for_each(|(out, given)| *out += weight * given);
            }
        }
        if let Some((expert, gate)) = &self.shared {
            expert.forward(h, x, pool, forms, wide, given);
            for ((out, given), x) in out.chunks_exact_mut(n).zip(given.chunks_exact(n)).zip(x.chunks_exact(n)) {
                let score: f32 = x.iter().zip(gate).map(|(x, gate)| x * gate).sum();
                let weight = 1.0 / (1.0 + exp(-score));
                out.iter_mut().zip(given).for_each(|(out, given)| *out += weight * given);
            }
        }
    }

    /// The sum of `count` over the matrices that a token meets.
    pub(crate) fn total(&self, h: &Hyperparams, count: impl Fn(&Group) -> u64) -> u64 {
        let of = |expert: &Expert| count(&expert.gate_up) + count(&expert.down);
        let used = h.experts.map_or(0, |counts| counts.n_used);
        let shared = self.shared.as_ref().map_or(0, |(expert, _)| of(expert));
        count(&self.router) + self.experts.iter().take(used).map(of).sum::<u64>() + shared
    }
}

impl Expert {
    fn forward(&self, h: &Hyperparams, x: &[f32], pool: &Pool, forms: &mut Activations, wide: &mut Vec<f32>, out: &mut Vec<f32>) {
        let n_rows = x.len() / h.n_embd;
        self.gate_up.apply(n_rows, Input::Rows(x), pool, forms, wide);
        self.down.apply(n_rows, Input::Gated(h.gate, wide), pool, forms, out);
    }
}

/// Adds the experts with the highest scores and their shares to `chosen`: softmax over all, of which those not used are left out. Of
/// equal scores the first expert's counts for more.
fn choose(scores: &[f32], counts: ExpertCounts, order: &mut Vec<usize>, chosen: &mut Vec<(usize, f32)>) {
    let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let total: f32 = scores.iter().map(|score| exp(score - max)).sum();
    order.clear();
    order.extend(0..scores.len());
    order.sort_unstable_by(|a, b| scores[*b].total_cmp(&scores[*a]).then(a.cmp(b)));
    order.truncate(counts.n_used);
    let share = |expert: usize| exp(scores[expert] - max) / total;
    let used: f32 = if counts.normalized { order.iter().map(|expert| share(*expert)).sum() } else { 1.0 };
    chosen.extend(order.iter().map(|expert| (*expert, share(*expert) / used)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_are_chosen_with_their_shares() {
        let counts = ExpertCounts { n: 4, n_used: 2, n_ff: 1, n_ff_shared: None, normalized: true };
        let scores = [1f32.ln(), 3f32.ln(), 0.5f32.ln(), 3f32.ln()];
        let close = |found: &[(usize, f32)], expected: [(usize, f32); 2]| {
            assert_eq!(found.len(), 2);
            assert!(found.iter().zip(expected).all(|(a, b)| a.0 == b.0 && (a.1 - b.1).abs() < 1e-6), "{found:?}");
        };
        let chosen = |counts| {
            let mut chosen = Vec::new();
            choose(&scores, counts, &mut Vec::new(), &mut chosen);
            chosen
        };
        close(&chosen(counts), [(1, 0.5), (3, 0.5)]);
        close(&chosen(ExpertCounts { normalized: false, ..counts }), [(1, 0.4), (3, 0.4)]);
    }
}
