//! Prompt lookup: what followed the last few tokens when they stood together before, in the prompt or in the answer, is
//! guessed to follow again. A guess is checked beside the row that is computed anyway, so it changes the time an answer
//! takes and nothing else.

/// Tokens that must agree for a guess, at least.
const N_AGREE_MIN: usize = 2;
/// Of several places the one where more agree is taken, up to this many.
const N_AGREE_MAX: usize = 4;
/// Guesses after which a request's luck is looked at.
const N_TRIAL: usize = 32;
/// Of so many guesses one must be right for guessing to go on. On x86-64 a step with seven takes 1.6 times as long as one
/// without (`lantern bench`, all right against single steps).
const N_PER_RIGHT: usize = 3;

/// What one request guesses, and how well.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    /// Tokens guessed at a time; more after a guess that was right throughout, fewer after one that was not; 0 is off.
    n_next: usize,
    /// Tokens guessed, and those that were right.
    pub(crate) n_drafted: usize,
    pub(crate) n_accepted: usize,
    /// The same since the last look.
    trial: (usize, usize),
}

impl Draft {
    /// Guesses for one request, or none at all.
    pub(crate) fn new(on: bool) -> Draft {
        Draft { n_next: if on { N_AGREE_MIN } else { 0 }, n_drafted: 0, n_accepted: 0, trial: (0, 0) }
    }

    /// Appends to `pending` at most `n_max` tokens that may follow `held` and what is pending.
    pub(crate) fn guess(&self, held: &[u32], n_max: usize, pending: &mut Vec<u32>) {
        let n = self.n_next.min(n_max);
        if let Some(at) = (n > 0).then(|| recurrence(held, pending)).flatten() {
            // This may reach into what is being guessed: a text that repeats itself goes on doing so.
            (at..at + n).for_each(|i| pending.push(token(held, pending, i)));
        }
    }

    /// Learns that of `n_drafted` guessed tokens the first `n_accepted` were right.
    pub(crate) fn learn(&mut self, n_drafted: usize, n_accepted: usize) {
        if n_drafted == 0 {
            return;
        }
        self.n_drafted += n_drafted;
        self.n_accepted += n_accepted;
        self.n_next = if n_accepted == n_drafted { self.n_next.max(2 * n_drafted) } else { n_accepted + 1 };
        self.trial = (self.trial.0 + n_drafted, self.trial.1 + n_accepted);
        if self.trial.0 >= N_TRIAL {
            if self.trial.1 * N_PER_RIGHT < self.trial.0 {
                self.n_next = 0;
            }
            self.trial = (0, 0);
        }
    }
}

/// Token `index` of what is held and pending.
fn token(held: &[u32], pending: &[u32], index: usize) -> u32 {
    if index < held.len() { held[index] } else { pending[index - held.len()] }
}

/// Where the last tokens stood before: the place after the latest longest run that agrees with the end.
fn recurrence(held: &[u32], pending: &[u32]) -> Option<usize> {
    let len = held.len() + pending.len();
    let mut best = (N_AGREE_MIN - 1, None);
    for at in (1..len).rev() {
        let agrees = |i: &usize| token(held, pending, at - 1 - i) == token(held, pending, len - 1 - i);
        let agreeing = (0..at.min(N_AGREE_MAX)).take_while(agrees).count();
        if agreeing > best.0 {
            best = (agreeing, Some(at));
            if agreeing == N_AGREE_MAX {
                break;
            }
        }
    }
    best.1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(tokens: &[u32], n_max: usize, expected: &[u32]) {
        let draft = Draft { n_next: 8, ..Draft::new(true) };
        for n_pending in 0..=tokens.len().min(2) {
            let (held, pending) = tokens.split_at(tokens.len() - n_pending);
            let mut guess = pending.to_vec();
            draft.guess(held, n_max, &mut guess);
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
        check(&[4, 1, 2, 1, 2], 5, &[1, 2, 1, 2, 1]);
        check(&[6, 6, 6], 3, &[6, 6, 6]);
    }

    #[test]
    fn luck_decides_how_much_is_guessed() {
        let mut draft = Draft::new(true);
        draft.learn(2, 2);
        draft.learn(4, 4);
        assert_eq!(draft.n_next, 8);
        draft.learn(7, 3);
        assert_eq!(draft.n_next, 4);
        assert_eq!((draft.n_drafted, draft.n_accepted), (13, 9));
        let mut unlucky = Draft::new(true);
        (0..N_TRIAL).for_each(|_| unlucky.learn(1, 0));
        let mut guess = Vec::new();
        unlucky.guess(&[1, 2, 1, 2], 4, &mut guess);
        assert!(guess.is_empty(), "guessing should have ended: {unlucky:?}");
        assert!(Draft::new(false).n_next == 0);
        // A wrong guess makes the next one shorter; steps without a guess teach nothing.
        let mut hesitant = Draft::new(true);
        hesitant.learn(2, 0);
        (0..5).for_each(|_| hesitant.learn(0, 0));
        hesitant.guess(&[1, 2, 1, 2], 4, &mut guess);
        assert_eq!(guess, [1], "{hesitant:?}");
    }
}
