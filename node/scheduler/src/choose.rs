//! The next token of an answer: sampled, under the answer's constraint where it has one, and how likely it was.

use engine::{AnswerParser, Grammar, GrammarError, Model, Sampler};

use crate::request::{Failure, Logprob};

/// Chooses the tokens of one answer.
pub(crate) struct Chooser {
    sampler: Sampler,
    grammar: Option<Grammar>,
    /// How many alternatives to each token are told.
    logprobs: Option<usize>,
    /// Logits of what is allowed, kept for its memory.
    masked: Vec<f32>,
}

/// A chosen token.
pub(crate) struct Chosen {
    pub(crate) token: u32,
    /// Whether the answer is complete with it.
    pub(crate) completes: bool,
    pub(crate) logprob: Option<Logprob>,
}

impl Chooser {
    pub(crate) fn new(sampler: Sampler, grammar: Option<Grammar>, logprobs: Option<usize>) -> Chooser {
        Chooser { sampler, grammar, logprobs, masked: Vec::new() }
    }

    /// Chooses what follows `known` from the logits. The constraint holds from the first token of the content: thinking is
    /// free, and so is not to think, which shows with the first token that opens no thinking.
    pub(crate) fn choose(
        &mut self,
        model: &Model,
        parser: Option<&mut AnswerParser>,
        logits: &[f32],
        known: &[u32],
    ) -> Result<Chosen, Failure> {
        let token = self.free(model, parser, logits, known)?;
        let (token, completes) = match token {
            Some(token) => (token, false),
            None => self.constrained(model, logits, known)?,
        };
        let logprob = self.logprobs.map(|n_top| logprob(model, logits, token, n_top));
        Ok(Chosen { token, completes, logprob })
    }

    /// A token that no constraint holds for; `None` where one does.
    fn free(
        &mut self,
        model: &Model,
        parser: Option<&mut AnswerParser>,
        logits: &[f32],
        known: &[u32],
    ) -> Result<Option<u32>, Failure> {
        if self.grammar.is_some() {
            let Some(parser) = parser else { return Ok(None) };
            if parser.in_content() {
                return Ok(None);
            }
            let token = self.sampler.sample(logits, known).map_err(Failure::server)?;
            if parser.thinks() || parser.may_open_thinking(&shown(model, token)) {
                return Ok(Some(token));
            }
            parser.skip_thinking();
            return Ok(None);
        }
        self.sampler.sample(logits, known).map(Some).map_err(Failure::server)
    }

    fn constrained(&mut self, model: &Model, logits: &[f32], known: &[u32]) -> Result<(u32, bool), Failure> {
        let grammar = self.grammar.as_mut().expect("only asked where there is one");
        self.masked.clear();
        self.masked.extend_from_slice(logits);
        grammar.mask(&mut self.masked).map_err(Failure::from)?;
        let token = self.sampler.sample(&self.masked, known).map_err(|_| no_token_fits(logits))?;
        let completes = if model.tokenizer().is_end(token) { true } else { grammar.accept(token).map_err(Failure::from)? };
        Ok((token, completes))
    }
}

/// Nothing could be chosen: either the model gave no numbers, or the vocabulary has nothing the constraint allows.
fn no_token_fits(logits: &[f32]) -> Failure {
    if logits.iter().any(|l| l.is_nan() || *l == f32::INFINITY) {
        return Failure::server(engine::NoValidNumbers);
    }
    Failure::request("the answer cannot be kept to its format: no token of the model's vocabulary fits")
}

impl From<GrammarError> for Failure {
    fn from(error: GrammarError) -> Failure {
        match error {
            GrammarError::TooLarge { .. } | GrammarError::Schema(_) => Failure::request(error),
            GrammarError::Vocabulary(_) | GrammarError::Failed(_) => Failure::server(error),
        }
    }
}

/// The text of a token, that of control tokens included.
fn shown(model: &Model, token: u32) -> String {
    let tokenizer = model.tokenizer();
    tokenizer.control_text(token).map_or_else(|| String::from_utf8_lossy(tokenizer.piece(token)).into_owned(), String::from)
}

/// How likely a token was among all, by the softmax of the logits.
fn logprob(model: &Model, logits: &[f32], token: u32, n_top: usize) -> Logprob {
    let best = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let total: f64 = logits.iter().map(|logit| f64::from(logit - best).exp()).sum();
    let of = |token: u32| logits[token as usize] - best - total.ln() as f32;
    let mut order: Vec<u32> = (0..logits.len() as u32).collect();
    let by_logit = |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
    if n_top > 0 && n_top < order.len() {
        order.select_nth_unstable_by(n_top - 1, by_logit);
    }
    order.truncate(n_top);
    order.sort_unstable_by(by_logit);
    let bytes = |token: u32| model.tokenizer().piece(token).to_vec();
    Logprob { token: bytes(token), logprob: of(token), top: order.into_iter().map(|t| (bytes(t), of(t))).collect() }
}
