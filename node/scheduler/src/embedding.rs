//! A request for vectors being served: its texts one after the other, a slice of prefill at a time.

use std::time::{Duration, Instant};

use engine::{EmbedError, Embedding, Model, Pool, Session, Specials};
use tokio::sync::mpsc;

use crate::request::{Client, Embedded, Event, Failure, Request, Times};

pub(crate) struct Embeddings {
    /// Digest of the model it runs on.
    pub(crate) digest: String,
    pub(crate) client: Client,
    session: Session,
    /// Texts that wait, the next one last.
    waiting: Vec<Embedding>,
    vectors: Vec<Vec<f32>>,
    n_prompt: usize,
    events: mpsc::Sender<Event>,
    accepted: Instant,
    started: Instant,
    load: Duration,
    ended: bool,
}

impl Embeddings {
    /// Texts as tokens, each with what the model wants around it, ready to be computed in `session`.
    pub(crate) fn new(
        request: &Request,
        (texts, truncate): (&[String], bool),
        model: &Model,
        session: Session,
        events: mpsc::Sender<Event>,
        load: Duration,
    ) -> Result<Embeddings, Failure> {
        let n_max = session.n_ctx().min(request.options.n_ctx.unwrap_or(usize::MAX));
        let mut waiting = texts.iter().map(|text| tokens(model, text, n_max, truncate)).collect::<Result<Vec<_>, _>>()?;
        waiting.reverse();
        Ok(Embeddings {
            digest: request.model.digest.clone(),
            client: request.client.clone(),
            session,
            n_prompt: waiting.iter().map(Embedding::n_tokens).sum(),
            vectors: Vec::with_capacity(waiting.len()),
            waiting,
            events,
            accepted: request.accepted,
            started: Instant::now(),
            load,
            ended: false,
        })
    }

    /// Whether the vectors are delivered, or nobody waits for them.
    pub(crate) fn over(&self) -> bool {
        self.ended || self.events.is_closed()
    }

    /// Computes up to `n_rows` tokens of the next text.
    pub(crate) fn advance(&mut self, model: &Model, pool: &Pool, n_rows: usize) {
        if let Some(text) = self.waiting.last_mut() {
            match text.advance(model, pool, &mut self.session, n_rows) {
                Ok(None) => return,
                Ok(Some(vector)) => {
                    self.vectors.push(vector);
                    self.waiting.pop();
                }
                Err(error @ EmbedError::Step(_)) => return self.end(Event::Failed(Failure::server(error))),
                Err(error @ EmbedError::NotNumbers) => return self.end(Event::Failed(Failure::request(error))),
            }
        }
        if self.waiting.is_empty() {
            let finished = Instant::now();
            let (accepted, started, load) = (self.accepted, self.started, self.load);
            let times = Times { accepted, started, first_piece: finished, finished, load };
            let vectors = std::mem::take(&mut self.vectors);
            self.end(Event::Embedded(Embedded { vectors, n_prompt: self.n_prompt, times }));
        }
    }

    fn end(&mut self, event: Event) {
        // The channel is empty, so the only failure is a caller that has gone.
        _ = self.events.try_send(event);
        self.ended = true;
    }
}

fn tokens(model: &Model, text: &str, n_max: usize, truncate: bool) -> Result<Embedding, Failure> {
    let (first, last) = model.tokenizer().around_embedded();
    let room = n_max.saturating_sub(usize::from(first.is_some()) + usize::from(last.is_some()));
    let mut tokens = model.tokenizer().encode(text, Specials::AsText);
    if tokens.len() > room {
        if !truncate {
            return Err(Failure::request("the input length exceeds the context length"));
        }
        tokens.truncate(room);
    }
    let mut tokens: Vec<u32> = first.into_iter().chain(tokens).chain(last).collect();
    if tokens.is_empty() {
        // A model that wants nothing around a text still has a vector for an empty one.
        tokens.extend(model.tokenizer().ends().first());
    }
    if tokens.is_empty() || tokens.len() > n_max {
        return Err(Failure::request("input after truncation exceeds maximum context length"));
    }
    Ok(Embedding::new(tokens))
}
