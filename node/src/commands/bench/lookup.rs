//! What prompt lookup gives on answers that repeat parts of their prompt. The answers are written down beforehand, so that a
//! model of any quality measures the same: what it would have sampled is replaced by what is written, and guesses are right
//! where they agree with that.

use std::time::Instant;

use anyhow::Result;
use engine::{Session, Slice, Specials, step};
use scheduler::{Draft, N_GUESSED_MAX};
use serde_json::{Value, json};

use super::Bench;

/// Tasks: a prompt, a line of dashes, and an answer.
const TASKS: [(&str, &str); 3] =
    [("summary", include_str!("summary.txt")), ("edit", include_str!("edit.txt")), ("JSON", include_str!("json.txt"))];

impl Bench<'_> {
    /// Tokens per second of each task's answer, with guesses and without, medians of the runs; none where the model's context
    /// is too short for the task.
    pub(super) fn lookup(&self) -> Result<Value> {
        TASKS.into_iter().map(|(name, text)| self.task(name, text)).collect()
    }

    fn task(&self, name: &str, text: &str) -> Result<Value> {
        let (prompt, answer) = text.split_once("----\n").expect("a task has both");
        let [prompt, answer] = [prompt, answer].map(|text| self.model.tokenizer().encode(text, Specials::AsText));
        let n_ctx = prompt.len() + answer.len();
        let mut measured = json!({ "task": name, "n_prompt": prompt.len(), "n_answer": answer.len(), "tps": null });
        if n_ctx > self.model.hyperparams().n_ctx_train {
            return Ok(measured);
        }
        let mut session = self.session(n_ctx)?;
        self.read(&mut session, &prompt)?;
        let mut draft = Draft::new(false);
        for (key, on) in [("alone_tps", false), ("tps", true)] {
            measured[key] = self
                .median(|| {
                    session.truncate(prompt.len());
                    let begun = Instant::now();
                    draft = self.replay(&mut session, &answer, Draft::new(on))?;
                    Ok(answer.len() as f64 / begun.elapsed().as_secs_f64())
                })?
                .into();
        }
        (measured["n_drafted"], measured["n_accepted"]) = (draft.n_drafted.into(), draft.n_accepted.into());
        Ok(measured)
    }

    /// Decodes as if `answer` were sampled; returns what was guessed.
    fn replay(&self, session: &mut Session, answer: &[u32], mut draft: Draft) -> Result<Draft> {
        let (mut logits, mut rest) = (Vec::new(), answer);
        while let Some((sampled, after)) = rest.split_first() {
            let n_before = session.tokens().len();
            let mut pending = vec![*sampled];
            draft.guess(session.tokens(), after.len().min(N_GUESSED_MAX - 1), &mut pending);
            let slice = Slice { session, tokens: &pending, n_logits: pending.len() };
            step(self.model, self.decode_pool, &mut [slice], &mut logits)?;
            let guesses = &pending[1..];
            let n_right = guesses.iter().zip(after).take_while(|(guess, token)| guess == token).count();
            draft.learn(guesses.len(), n_right);
            session.truncate(n_before + 1 + n_right);
            rest = &after[n_right..];
        }
        Ok(draft)
    }
}
