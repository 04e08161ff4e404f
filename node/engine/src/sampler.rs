//! Logits to a token, with the options Ollama's clients send, in its order: penalties, top-k, typical-p, top-p, min-p,
//! temperature, then a draw.

/// Sampling options with Ollama's defaults. Numbers are checked by whoever reads them: finite, and in the stated range.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplerOptions {
    /// 0 takes the most likely token.
    pub temperature: f32,
    /// Most likely tokens kept; 0 or less keeps all.
    pub top_k: i32,
    /// Smallest set whose probabilities add to this; 1 keeps all.
    pub top_p: f32,
    /// Tokens at least this likely relative to the best; 0 keeps all.
    pub min_p: f32,
    /// Locally typical sampling; 1 keeps all.
    pub typical_p: f32,
    /// Tokens looked back at by the penalties; 0 turns them off, −1 means the whole context.
    pub repeat_last_n: i32,
    /// Divides positive and multiplies negative logits of recent tokens; 1 is off.
    pub repeat_penalty: f32,
    /// Subtracted from logits of recent tokens.
    pub presence_penalty: f32,
    /// Subtracted per recent occurrence.
    pub frequency_penalty: f32,
    /// Draws are a function of this and the position.
    pub seed: u64,
}

impl Default for SamplerOptions {
    fn default() -> SamplerOptions {
        SamplerOptions {
            temperature: 0.8,
            top_k: 40,
            top_p: 0.9,
            min_p: 0.0,
            typical_p: 1.0,
            repeat_last_n: 64,
            repeat_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            seed: 0,
        }
    }
}

/// The logits held no number at all, or NaN: weights that are broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the model produced no valid numbers")]
pub struct NoValidNumbers;

/// Chooses tokens. Its lists keep their memory from token to token; only `typical_p` makes new ones.
#[derive(Debug)]
pub struct Sampler {
    options: SamplerOptions,
    candidates: Vec<Candidate>,
    recent: Vec<u32>,
}

#[derive(Debug, Clone, Copy)]
struct Candidate {
    token: u32,
    logit: f32,
    p: f32,
}

impl Sampler {
    /// A sampler for one request.
    pub fn new(options: SamplerOptions) -> Sampler {
        Sampler { options, candidates: Vec::new(), recent: Vec::new() }
    }

    /// Chooses the token that follows `tokens`.
    ///
    /// # Errors
    /// When the logits are not numbers.
    pub fn sample(&mut self, logits: &[f32], tokens: &[u32]) -> Result<u32, NoValidNumbers> {
        let Sampler { options, candidates, recent } = self;
        penalize(options, logits, tokens, recent, candidates);
        let greedy = options.temperature <= 0.0;
        let k = if greedy { 1 } else { usize::try_from(options.top_k).ok().filter(|k| *k > 0).unwrap_or(logits.len()) };
        keep_top_k(k, logits, recent, candidates)?;
        if k == 1 {
            return Ok(candidates[0].token);
        }
        if options.typical_p < 1.0 {
            keep_typical(options.typical_p, candidates);
        }
        if options.top_p < 1.0 {
            keep_top_p(options.top_p, candidates);
        }
        if options.min_p > 0.0 {
            softmax(candidates);
            let least = options.min_p * candidates[0].p;
            candidates.retain(|c| c.p >= least);
        }
        let best = candidates[0].logit;
        candidates.iter_mut().for_each(|c| c.logit = (c.logit - best) / options.temperature);
        softmax(candidates);
        let mut left = draw(options.seed, tokens.len() as u64);
        for c in candidates.iter() {
            left -= f64::from(c.p);
            if left < 0.0 {
                return Ok(c.token);
            }
        }
        Ok(candidates.last().expect("a cut keeps at least one").token)
    }
}

/// The tokens that a penalty touches, by token, with their new logits, replace what `candidates` held.
fn penalize(options: &SamplerOptions, logits: &[f32], tokens: &[u32], recent: &mut Vec<u32>, candidates: &mut Vec<Candidate>) {
    candidates.clear();
    let off = options.repeat_penalty == 1.0 && options.presence_penalty == 0.0 && options.frequency_penalty == 0.0;
    if off || options.repeat_last_n == 0 {
        return;
    }
    let n_back = usize::try_from(options.repeat_last_n).unwrap_or(tokens.len()).min(tokens.len());
    recent.clear();
    recent.extend_from_slice(&tokens[tokens.len() - n_back..]);
    recent.sort_unstable();
    for same in recent.chunk_by(|a, b| a == b) {
        let Some(&logit) = logits.get(same[0] as usize) else { continue };
        let logit = if logit > 0.0 { logit / options.repeat_penalty } else { logit * options.repeat_penalty };
        let logit = logit - (options.presence_penalty + options.frequency_penalty * same.len() as f32);
        candidates.push(Candidate { token: same[0], logit, p: 0.0 });
    }
}

/// Logits looked at together: few of a vocabulary's chunks hold one of the best.
const CHUNK: usize = 64;

/// Of the candidates, tokens of the sorted `own` with logits of their own, and all other tokens keeps the `k` of highest logit,
/// best first, equal ones by token. One pass over the logits, in which most are only compared with the `k`-th best so far.
fn keep_top_k(k: usize, logits: &[f32], own: &[u32], candidates: &mut Vec<Candidate>) -> Result<(), NoValidNumbers> {
    let order = |a: &Candidate, b: &Candidate| b.logit.total_cmp(&a.logit).then(a.token.cmp(&b.token));
    let (room, mut least, mut highest) = ((4 * k).max(256), f32::NEG_INFINITY, f32::NEG_INFINITY);
    for (first, chunk) in logits.chunks(CHUNK).enumerate().map(|(i, chunk)| (i * CHUNK, chunk)) {
        // Both without an early end, so that the compiler takes several at a time.
        let broken = chunk.iter().fold(false, |broken, l| broken | l.is_nan() | (*l == f32::INFINITY));
        let best = chunk.iter().fold(f32::NEG_INFINITY, |best, l| if *l > best { *l } else { best });
        if broken {
            return Err(NoValidNumbers);
        }
        highest = highest.max(best);
        if best < least {
            continue;
        }
        for (&logit, token) in chunk.iter().zip(first as u32..).filter(|(logit, _)| **logit >= least) {
            if own.binary_search(&token).is_err() {
                candidates.push(Candidate { token, logit, p: 0.0 });
            }
        }
        if candidates.len() > room {
            candidates.select_nth_unstable_by(k - 1, order);
            candidates.truncate(k);
            least = candidates[k - 1].logit;
        }
    }
    if highest == f32::NEG_INFINITY {
        return Err(NoValidNumbers);
    }
    if k < candidates.len() {
        candidates.select_nth_unstable_by(k - 1, order);
        candidates.truncate(k);
    }
    candidates.sort_unstable_by(order);
    Ok(())
}

/// Keeps the tokens whose surprise is nearest the expected one, up to a total probability of `p` (Meister et al. 2022).
fn keep_typical(p: f32, candidates: &mut Vec<Candidate>) {
    softmax(candidates);
    let entropy: f32 = candidates.iter().filter(|c| c.p > 0.0).map(|c| -c.p * c.p.ln()).sum();
    let mut by_distance: Vec<(f32, usize)> =
        candidates.iter().enumerate().map(|(i, c)| ((-c.p.max(f32::MIN_POSITIVE).ln() - entropy).abs(), i)).collect();
    by_distance.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let n_kept = n_reaching(p, by_distance.iter().map(|(_, i)| candidates[*i].p));
    let mut kept: Vec<usize> = by_distance[..n_kept].iter().map(|(_, i)| *i).collect();
    kept.sort_unstable();
    *candidates = kept.into_iter().map(|i| candidates[i]).collect();
}

fn keep_top_p(p: f32, candidates: &mut Vec<Candidate>) {
    softmax(candidates);
    let n_kept = n_reaching(p, candidates.iter().map(|c| c.p));
    candidates.truncate(n_kept);
}

/// How many of the probabilities, in this order, add up to `p`; at least one.
fn n_reaching(p: f32, probabilities: impl Iterator<Item = f32>) -> usize {
    let sums = probabilities.scan(0.0, |total, p| {
        let before = *total;
        *total += p;
        Some(before)
    });
    sums.take_while(|before| *before < p).count().max(1)
}

/// Probabilities of candidates sorted best first.
fn softmax(candidates: &mut [Candidate]) {
    let best = candidates[0].logit;
    let mut total = 0.0;
    for c in candidates.iter_mut() {
        c.p = (c.logit - best).exp();
        total += c.p;
    }
    candidates.iter_mut().for_each(|c| c.p /= total);
}

/// A number in 0…1 from the seed and the position alone (SplitMix64), so that batching and reuse do not change a draw.
fn draw(seed: u64, pos: u64) -> f64 {
    let z = seed.wrapping_add((pos + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(options: &SamplerOptions, logits: &[f32], tokens: &[u32]) -> Result<u32, NoValidNumbers> {
        Sampler::new(options.clone()).sample(logits, tokens)
    }

    /// Logits of the probabilities 0.5, 0.25, 0.125, 0.125.
    fn logits() -> Vec<f32> {
        [0.5f32, 0.25, 0.125, 0.125].map(f32::ln).to_vec()
    }

    /// Which tokens come out over many positions.
    fn check(options: SamplerOptions, expected: &[u32]) {
        let options = SamplerOptions { temperature: 1.0, top_k: 0, top_p: 1.0, ..options };
        check_exact(options, expected);
    }

    fn check_exact(options: SamplerOptions, expected: &[u32]) {
        let mut found: Vec<u32> = (0..400).map(|n| sample(&options, &logits(), &vec![9; n]).unwrap()).collect();
        found.sort_unstable();
        found.dedup();
        assert_eq!(found, expected);
    }

    #[test]
    fn every_cut_keeps_what_it_should() {
        let base = SamplerOptions::default;
        check(base(), &[0, 1, 2, 3]);
        check_exact(SamplerOptions { temperature: 0.0, ..base() }, &[0]);
        check_exact(SamplerOptions { temperature: 1.0, top_k: 2, top_p: 1.0, ..base() }, &[0, 1]);
        check_exact(SamplerOptions { temperature: 1.0, top_k: 0, top_p: 0.7, ..base() }, &[0, 1]);
        check(SamplerOptions { min_p: 0.4, ..base() }, &[0, 1]);
        check(SamplerOptions { typical_p: 0.2, ..base() }, &[1]);
    }

    #[test]
    fn draws_follow_the_probabilities_and_the_seed() {
        let options = SamplerOptions { temperature: 1.0, top_k: 0, top_p: 1.0, seed: 5, ..SamplerOptions::default() };
        let draws: Vec<u32> = (0..4000).map(|n| sample(&options, &logits(), &vec![9; n]).unwrap()).collect();
        let share = draws.iter().filter(|t| **t == 0).count() as f64 / 4000.0;
        assert!((share - 0.5).abs() < 0.03, "token 0 has probability 0.5, was drawn {share}");
        let again: Vec<u32> = (0..4000).map(|n| sample(&options, &logits(), &vec![9; n]).unwrap()).collect();
        assert_eq!(draws, again);
    }

    #[test]
    fn penalties_turn_from_what_was_said() {
        let greedy = SamplerOptions { temperature: 0.0, ..SamplerOptions::default() };
        let check = |options: SamplerOptions, tokens: &[u32], expected| {
            assert_eq!(sample(&options, &[2.0, 1.5, -1.0], tokens), Ok(expected));
        };
        check(greedy.clone(), &[0], 0);
        check(SamplerOptions { repeat_penalty: 1.5, ..greedy.clone() }, &[0], 1);
        check(SamplerOptions { presence_penalty: 1.0, ..greedy.clone() }, &[0], 1);
        check(SamplerOptions { frequency_penalty: 0.3, ..greedy.clone() }, &[0], 0);
        check(SamplerOptions { frequency_penalty: 0.3, ..greedy.clone() }, &[0, 0], 1);
        check(SamplerOptions { presence_penalty: 1.0, repeat_last_n: 1, ..greedy.clone() }, &[0, 2], 0);
        check(SamplerOptions { presence_penalty: 1.0, repeat_last_n: -1, ..greedy }, &[0, 2], 1);
    }

    #[test]
    fn the_best_are_those_of_a_whole_sort() {
        let mut z = 1u64;
        // Few distinct values, so that many are equal.
        let logits: Vec<f32> = (0..5000)
            .map(|_| {
                z = z.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (z >> 56) as f32 / 16.0
            })
            .collect();
        let own = [Candidate { token: 7, logit: 99.0, p: 0.0 }, Candidate { token: 4000, logit: -1.0, p: 0.0 }];
        let mut all: Vec<(u32, f32)> = (0..).zip(logits.iter().copied()).collect();
        own.iter().for_each(|c| all[c.token as usize].1 = c.logit);
        all.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        for k in [1, 2, 40, 300, 4999, 5000] {
            let mut candidates = own.to_vec();
            keep_top_k(k, &logits, &[7, 4000], &mut candidates).unwrap();
            let found: Vec<(u32, f32)> = candidates.iter().map(|c| (c.token, c.logit)).collect();
            assert_eq!(found, all[..k], "{k}");
        }
    }

    #[test]
    fn broken_numbers_are_an_error() {
        for bad in [[f32::NAN, 1.0], [1.0, f32::INFINITY], [f32::NEG_INFINITY, f32::NEG_INFINITY]] {
            assert_eq!(sample(&SamplerOptions::default(), &bad, &[]), Err(NoValidNumbers));
        }
    }
}
