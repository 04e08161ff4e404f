//! Prompt lookup: what followed the last few tokens when they stood together before, in the prompt or in the answer, is
//! guessed to follow again. A guess is checked beside the row that is computed anyway, so it changes the time an answer
//! takes and nothing else.

/// Tokens that must agree for a guess, at least.
const N_AGREE_MIN: usize = 2;
/// Of several places the one where more agree is taken, up to this many.
const N_AGREE_MAX: usize = 16;
/// How likely each guessed token is right where two, three, or more tokens agree, before a request has shown its own luck.
const LIKELY: [f32; 3] = [0.5, 0.7, 0.8];
/// `LIKELY` counts as much as this many guessed tokens of the request.
const N_BEFORE: f32 = 8.0;
/// Sizes of a guess, and how long a step of four and of eight rows takes, of a step of one: medians of a 0.6 B model at Q4_0 on one
/// thread with AVX-512, before tiles were multiplied in registers. Where memory bounds a step more than there, guesses cost less than this.
const SIZES: [(usize, f32); 2] = [(3, 1.35), (7, 1.8)];

/// Rows of a step at most when some of them are guessed: whole tiles of every processor's products.
pub const N_GUESSED_MAX: usize = 8;

/// What one request guesses, and how well.
#[derive(Debug, Clone)]
pub struct Draft {
    on: bool,
    /// Tokens guessed.
    pub n_drafted: usize,
    /// Those of them that were right.
    pub n_accepted: usize,
    /// The request's luck where two, three, or more tokens agree.
    luck: [Luck; 3],
    /// Which of them the last guess tried.
    last: usize,
}

/// How many guessed tokens were right, of those reached: the first wrong one ends a guess. Where it is too poor for a guess, it
/// stays so for the request, as nothing is learnt any more.
#[derive(Debug, Clone, Copy)]
struct Luck {
    n_right: f32,
    n_reached: f32,
}

impl Draft {
    /// Guesses for one request, or none at all.
    pub fn new(on: bool) -> Draft {
        let luck = LIKELY.map(|likely| Luck { n_right: likely * N_BEFORE, n_reached: N_BEFORE });
        Draft { on, n_drafted: 0, n_accepted: 0, luck, last: 0 }
    }

    /// Appends to `pending` at most `n_max` tokens that may follow `held` and what is pending, as many as are worth their time.
    pub fn guess(&mut self, held: &[u32], n_max: usize, pending: &mut Vec<u32>) {
        // The context is only searched if something may come of it.
        let hopeful = self.on && self.luck.iter().any(|luck| luck.worth(n_max) > 0);
        let Some((n_agreeing, at)) = hopeful.then(|| recurrence(held, pending)).flatten() else { return };
        self.last = (n_agreeing - N_AGREE_MIN).min(LIKELY.len() - 1);
        let n = self.luck[self.last].worth(n_max);
        // This may reach into what is being guessed: a text that repeats itself goes on doing so.
        (at..at + n).for_each(|i| pending.push(token(held, pending, i)));
    }

    /// Learns that of `n_drafted` guessed tokens the first `n_accepted` were right.
    pub fn learn(&mut self, n_drafted: usize, n_accepted: usize) {
        self.n_drafted += n_drafted;
        self.n_accepted += n_accepted;
        let luck = &mut self.luck[self.last];
        luck.n_right += n_accepted as f32;
        luck.n_reached += n_drafted.min(n_accepted + 1) as f32;
    }
}

impl Luck {
    /// The size of guess with which a step gives most tokens for its time; 0 where none gives more than a step alone.
    fn worth(self, n_max: usize) -> usize {
        let likely = self.n_right / self.n_reached;
        let mut best = (1.0, 0);
        for (n, cost) in SIZES.map(|(n, cost)| (n.min(n_max), cost)) {
            // The sampled token, and each guessed one if those before it are right.
            let n_tokens: f32 = (0..=n as i32).map(|i| likely.powi(i)).sum();
            if n_tokens / cost > best.0 {
                best = (n_tokens / cost, n);
            }
        }
        best.1
    }
}

/// Token `index` of what is held and pending.
fn token(held: &[u32], pending: &[u32], index: usize) -> u32 {
    if index < held.len() { held[index] } else { pending[index - held.len()] }
}

/// The latest longest run that agrees with the end: its length, and the place after it.
fn recurrence(held: &[u32], pending: &[u32]) -> Option<(usize, usize)> {
    let len = held.len() + pending.len();
    let mut best = None;
    for at in (1..len).rev() {
        let agrees = |i: &usize| token(held, pending, at - 1 - i) == token(held, pending, len - 1 - i);
        let n_agreeing = (0..at.min(N_AGREE_MAX)).take_while(agrees).count();
        if n_agreeing >= N_AGREE_MIN && best.is_none_or(|(most, _)| n_agreeing > most) {
            best = Some((n_agreeing, at));
            if n_agreeing == N_AGREE_MAX {
                break;
            }
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(tokens: &[u32], n_max: usize, expected: &[u32]) {
        for n_pending in 0..=tokens.len().min(2) {
            let (held, pending) = tokens.split_at(tokens.len() - n_pending);
            let mut guess = pending.to_vec();
            Draft::new(true).guess(held, n_max, &mut guess);
            assert_eq!(&guess[n_pending..], expected, "{tokens:?}");
        }
    }

    #[test]
    fn what_followed_before_is_guessed() {
        check(&[], 4, &[]);
        check(&[1, 2, 3, 4, 5], 4, &[]);
        check(&[1, 2, 9, 8, 7, 1, 2], 3, &[9, 8, 7]);
        // The latest place, unless an earlier one agrees for longer.
        check(&[1, 2, 9, 1, 2, 8, 3, 1, 2], 1, &[8]);
        check(&[3, 1, 2, 9, 1, 2, 8, 3, 1, 2], 1, &[9]);
        // One token that recurs says little.
        check(&[5, 6, 5], 4, &[]);
        // A loop goes on.
        check(&[4, 1, 2, 1, 2, 1, 2], 7, &[1, 2, 1, 2, 1, 2, 1]);
        check(&[6, 6, 6], 3, &[6, 6, 6]);
    }

    /// How many tokens are guessed where `n_agreeing` agree.
    fn n_guessed(draft: &mut Draft, n_agreeing: u32) -> usize {
        let run = 1..=n_agreeing;
        let held: Vec<u32> = [0].into_iter().chain(run.clone()).chain([90]).chain(run).collect();
        let mut guess = Vec::new();
        draft.guess(&held, 7, &mut guess);
        guess.len()
    }

    #[test]
    fn luck_decides_how_much_is_guessed() {
        let mut draft = Draft::new(true);
        assert_eq!([2, 3, 4, 20].map(|n| n_guessed(&mut draft, n)), [3, 3, 7, 7], "{draft:?}");
        // Where more agree, guesses are better; each has its own luck.
        for _ in 0..8 {
            assert_eq!(n_guessed(&mut draft, 2), 3);
            draft.learn(3, 0);
        }
        assert_eq!([2, 3, 4].map(|n| n_guessed(&mut draft, n)), [0, 3, 7], "{draft:?}");
        n_guessed(&mut draft, 3);
        (0..4).for_each(|_| draft.learn(3, 3));
        assert_eq!([2, 3, 4].map(|n| n_guessed(&mut draft, n)), [0, 7, 7], "{draft:?}");
        assert_eq!((draft.n_drafted, draft.n_accepted), (36, 12));
        assert_eq!(n_guessed(&mut Draft::new(false), 4), 0);
        let mut none = Vec::new();
        Draft::new(true).guess(&[1, 2, 9, 1, 2], 0, &mut none);
        assert!(none.is_empty(), "there is no room for {none:?}");
    }
}
