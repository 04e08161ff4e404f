//! A text's vector: what the model makes of its tokens, pooled as the file says, with length one.

use kernels::Pool;

use crate::model::{Model, Network};
use crate::session::Session;
use crate::step::{Slice, StepError};

/// How the values of a text's tokens become one vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// Their mean; also where a file says nothing.
    Mean,
    /// The first token's.
    First,
    /// The last token's.
    Last,
}

/// A vector being computed, slice by slice.
pub struct Embedding {
    tokens: Vec<u32>,
    n_done: usize,
    sum: Vec<f32>,
}

/// Why a text has no vector.
#[derive(Debug, thiserror::Error)]
pub enum EmbedError {
    #[error(transparent)]
    Step(#[from] StepError),
    #[error("embedding contains NaN or Inf values")]
    NotNumbers,
}

impl Embedding {
    /// A vector of these tokens, of which there is at least one.
    ///
    /// # Panics
    /// When there is none.
    pub fn new(tokens: Vec<u32>) -> Embedding {
        assert!(!tokens.is_empty(), "a vector of no tokens");
        Embedding { tokens, n_done: 0, sum: Vec::new() }
    }

    /// Tokens of the text.
    pub fn n_tokens(&self) -> usize {
        self.tokens.len()
    }

    /// Computes up to `n_max` more tokens, or all of them where each sees every other. The session belongs to this text alone.
    /// Returns the vector once it is complete: `n_embd` values whose squares add up to one.
    ///
    /// # Errors
    /// When the file has changed under the mapping, or the values are not numbers.
    ///
    /// # Panics
    /// When the tokens do not fit the session, or one is outside the vocabulary: the caller's checks.
    pub fn advance(
        &mut self,
        model: &Model,
        pool: &Pool,
        session: &mut Session,
        n_max: usize,
    ) -> Result<Option<Vec<f32>>, EmbedError> {
        let n_embd = model.hyperparams().n_embd;
        let pooling = model.hyperparams().pooling.unwrap_or(Pooling::Mean);
        assert!(self.tokens.len() <= session.n_ctx(), "{} tokens in a session of {}", self.tokens.len(), session.n_ctx());
        let values = match &model.network {
            Network::Encoder(encoder) => {
                self.n_done = self.tokens.len();
                encoder.forward(model.hyperparams(), session, &self.tokens, pool)
            }
            Network::Decoder(decoder) => {
                if self.n_done == 0 {
                    session.truncate(0);
                }
                let end = (self.n_done + n_max).min(self.tokens.len());
                let tokens = &self.tokens[self.n_done..end];
                let n_logits = match pooling {
                    Pooling::Mean | Pooling::First => tokens.len(),
                    Pooling::Last => usize::from(end == self.tokens.len()),
                };
                let mut values = Vec::new();
                decoder.hidden(model.hyperparams(), &mut [Slice { session, tokens, n_logits }], pool, &mut values);
                session.tokens.extend_from_slice(tokens);
                self.n_done = end;
                values
            }
        };
        if model.damaged() {
            return Err(StepError::Damaged.into());
        }
        self.pool(pooling, n_embd, &values);
        if self.n_done < self.tokens.len() {
            return Ok(None);
        }
        let length = self.sum.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
        if !length.is_finite() {
            return Err(EmbedError::NotNumbers);
        }
        let factor = if length > 0.0 { 1.0 / length } else { 0.0 };
        Ok(Some(self.sum.iter().map(|v| (f64::from(*v) * factor) as f32).collect()))
    }

    fn pool(&mut self, pooling: Pooling, n_embd: usize, values: &[f32]) {
        let mut rows = values.chunks_exact(n_embd);
        match pooling {
            Pooling::Mean => {
                self.sum.resize(n_embd, 0.0);
                rows.for_each(|row| self.sum.iter_mut().zip(row).for_each(|(sum, v)| *sum += v));
            }
            Pooling::First if self.sum.is_empty() => self.sum.extend(rows.next().into_iter().flatten()),
            Pooling::First => {}
            Pooling::Last => {
                if let Some(row) = rows.next_back() {
                    self.sum = row.to_vec();
                }
            }
        }
    }
}
