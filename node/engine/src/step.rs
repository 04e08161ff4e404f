//! One ragged batch through a model: slices of several sessions in one pass over the weights.

use kernels::Pool;

use crate::model::{Model, SessionRows};
use crate::session::Session;

/// Tokens to append to one session: a slice of its prompt, or the one token just sampled.
pub struct Slice<'a> {
    pub session: &'a mut Session,
    pub tokens: &'a [u32],
    /// Whether the logits after the last token are wanted.
    pub want_logits: bool,
}

/// Why a step gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    #[error("the model is damaged on disk: its file became shorter or unreadable while it was in use")]
    Damaged,
}

/// Runs all slices through the model in one pass and appends their tokens to their sessions. Returns, in the order of the
/// slices, the logits after the last token of each slice that wants them.
///
/// What a slice gets does not depend on the other slices of the batch.
///
/// # Errors
/// When the file has changed under the mapping; the sessions then keep the tokens they had.
///
/// # Panics
/// When a slice does not fit its session, or holds a token outside the vocabulary: the caller's checks.
pub fn step(model: &Model, pool: &Pool, slices: &mut [Slice]) -> Result<Vec<Option<Vec<f32>>>, StepError> {
    let tokens: Vec<u32> = slices.iter().flat_map(|slice| slice.tokens).copied().collect();
    if tokens.is_empty() {
        return Ok(slices.iter().map(|_| None).collect());
    }
    let (mut at, mut wanted, mut sessions) = (0, Vec::new(), Vec::new());
    for slice in slices.iter_mut() {
        let rows = at..at + slice.tokens.len();
        at = rows.end;
        if slice.want_logits && !rows.is_empty() {
            wanted.push(at - 1);
        }
        sessions.push(SessionRows { rows, pos: slice.session.tokens.len(), kv: &mut slice.session.kv });
    }
    let logits = model.decoder.forward(model.hyperparams(), &tokens, &mut sessions, &wanted, pool);
    if model.damaged() {
        return Err(StepError::Damaged);
    }
    let mut rows = logits.chunks_exact(model.tokenizer().n_vocab()).map(<[f32]>::to_vec);
    let appended = slices.iter_mut().map(|slice| {
        slice.session.tokens.extend_from_slice(slice.tokens);
        if slice.want_logits && !slice.tokens.is_empty() { rows.next() } else { None }
    });
    Ok(appended.collect())
}
