//! One ragged batch through a model: slices of several sessions in one pass over the weights.

use kernels::Pool;

use crate::model::{Model, Network};
use crate::session::Session;

/// Tokens to append to one session: a slice of its prompt, or the token just sampled and what is guessed to follow it.
pub struct Slice<'a> {
    pub session: &'a mut Session,
    pub tokens: &'a [u32],
    /// How many of the last tokens want the logits of what follows them.
    pub n_logits: usize,
}

/// Why a step gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    #[error("the model is damaged on disk: its file became shorter or unreadable while it was in use")]
    Damaged,
}

/// Runs all slices through the model in one pass and appends their tokens to their sessions. `logits`, which keeps its memory
/// from step to step, becomes `(Σ n_logits, n_vocab)`: what each slice asked for, in the order of the slices.
///
/// What a slice gets does not depend on the other slices of the batch. After the first steps nothing is allocated.
///
/// # Errors
/// When the file has changed under the mapping; the sessions then keep the tokens they had.
///
/// # Panics
/// When a slice does not fit its session, wants more logits than it has tokens, holds a token outside the vocabulary, or the
/// model is an encoder: the caller's checks.
pub fn step(model: &Model, pool: &Pool, slices: &mut [Slice], logits: &mut Vec<f32>) -> Result<(), StepError> {
    assert!(slices.iter().all(|slice| slice.n_logits <= slice.tokens.len()), "a slice wants more logits than it has tokens");
    for slice in &*slices {
        let (n_tokens, n_ctx) = (slice.session.tokens.len() + slice.tokens.len(), slice.session.n_ctx());
        assert!(n_tokens <= n_ctx, "{n_tokens} tokens are beyond the context of {n_ctx}");
    }
    logits.clear();
    if slices.iter().all(|slice| slice.tokens.is_empty()) {
        return Ok(());
    }
    let Network::Decoder(decoder) = &model.network else { panic!("an encoder gives no logits") };
    decoder.forward(model.hyperparams(), slices, pool, logits);
    if model.damaged() {
        return Err(StepError::Damaged);
    }
    slices.iter_mut().for_each(|slice| slice.session.tokens.extend_from_slice(slice.tokens));
    Ok(())
}
