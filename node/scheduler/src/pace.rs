//! How many rows of a prompt fit beside running chats, so that none of them waits long: a step costs one pass over the weights,
//! whoever takes part, and something for each row of a prompt. Both are learnt from the steps themselves.

use std::time::Duration;

/// How long a step should take while someone decodes: no chat shall wait more than 250 ms, and predictions err.
const AIM: Duration = Duration::from_millis(150);
/// Prompt rows that ride along whatever the prediction says, so that every prompt gets on.
const N_ROWS_MIN: usize = 8;
/// What a new measure counts beside those before.
const NEW: f64 = 0.5;

/// What steps of a model take, in seconds.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// A step in which chats decode and nothing else.
    decode: Option<f64>,
    /// Each row of a prompt on top of it.
    row: Option<f64>,
}

impl Pace {
    /// Rows of prompts that may ride along with chats that decode, of at most `n_max`.
    pub(crate) fn n_prompt_rows(&self, n_max: usize) -> usize {
        let Some(row) = self.row else { return n_max };
        let left = AIM.as_secs_f64() - self.decode.unwrap_or(0.0);
        // A negative number becomes 0.
        ((left / row) as usize).max(N_ROWS_MIN).min(n_max)
    }

    /// Learns from a step of `n_prompt` rows of prompts and any number of rows that decode.
    pub(crate) fn learn(&mut self, n_prompt: usize, took: Duration) {
        let took = took.as_secs_f64();
        if n_prompt == 0 {
            return mix(&mut self.decode, took);
        }
        // No less than a tenth for the rows: the step may have been quicker than the decode before it.
        let rows = (took - self.decode.unwrap_or(0.0)).max(took / 10.0);
        mix(&mut self.row, rows / n_prompt as f64);
    }
}

fn mix(value: &mut Option<f64>, new: f64) {
    *value = Some(value.map_or(new, |old| (1.0 - NEW) * old + NEW * new));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: usize) -> Duration {
        Duration::from_millis(n as u64)
    }

    #[test]
    fn the_pass_over_the_weights_is_not_the_rows() {
        // A pass takes 70 ms and a row 4. Read as a rate, small steps look slow, become smaller, and end at the minimum.
        let mut pace = Pace::default();
        assert_eq!(pace.n_prompt_rows(200), 200, "nothing is known yet");
        pace.learn(9, ms(70 + 9 * 4));
        for _ in 0..20 {
            pace.learn(0, ms(70));
            let n = pace.n_prompt_rows(200);
            pace.learn(n, ms(70 + 4 * n));
        }
        // (150 − 70) / 4, or one less as floats round.
        assert!((19..=20).contains(&pace.n_prompt_rows(200)));
    }

    #[test]
    fn every_prompt_gets_on() {
        let mut pace = Pace::default();
        pace.learn(0, ms(400));
        pace.learn(8, ms(900));
        assert_eq!(pace.n_prompt_rows(200), N_ROWS_MIN);
        assert_eq!(pace.n_prompt_rows(3), 3);
        pace.learn(8, ms(1));
        assert!(pace.n_prompt_rows(200) >= N_ROWS_MIN);
    }
}
