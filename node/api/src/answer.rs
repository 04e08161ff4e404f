//! An answer as every dialect receives it: what comes at once, events to render one by one, or all of them folded.

use std::convert::Infallible;
use std::hash::{BuildHasher, RandomState};

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use scheduler::{Began, Done, DoneReason, Event, Logprob, Piece, ToolCall};
use serde_json::{Map, Value, json};
use tokio::sync::mpsc::Receiver;

use crate::error::ApiError;

/// How an answer begins.
pub(crate) enum Begun {
    /// The model was loaded or unloaded, nothing more.
    AtOnce(DoneReason),
    /// The prompt, which is all that was asked for.
    Rendered(String),
    Answer(Events),
}

/// The events of an answer, the first of which has come.
pub(crate) struct Events {
    began: Option<Began>,
    first: Option<Event>,
    rest: Receiver<Event>,
}

/// A whole answer.
pub(crate) struct Whole {
    pub(crate) piece: Piece,
    pub(crate) done: Box<Done>,
}

impl Begun {
    /// Waits for the first event: with it the status is known, and nothing is sent before it.
    pub(crate) async fn wait(mut events: Receiver<Event>) -> Result<Begun, ApiError> {
        let mut first = events.recv().await;
        let mut began = None;
        if let Some(Event::Began(known)) = first {
            began = Some(known);
            first = events.recv().await;
        }
        match first {
            None => Err(stopped()),
            Some(Event::Failed(failure)) => Err(failure.into()),
            Some(Event::Rendered(text)) => Ok(Begun::Rendered(text)),
            Some(Event::Done(done)) if matches!(done.reason, DoneReason::Load | DoneReason::Unload) => {
                Ok(Begun::AtOnce(done.reason))
            }
            Some(Event::Embedded(_) | Event::Began(_)) => Err(stopped()),
            Some(event) => Ok(Begun::Answer(Events { began, first: Some(event), rest: events })),
        }
    }

    /// The events of a request that asked for text.
    pub(crate) fn answer(self) -> Result<Events, ApiError> {
        match self {
            Begun::Answer(events) => Ok(events),
            Begun::AtOnce(_) | Begun::Rendered(_) => Err(ApiError::bad_request("the request asks for no text")),
        }
    }
}

impl Events {
    async fn next(&mut self) -> Option<Event> {
        match self.first.take() {
            Some(event) => Some(event),
            None => self.rest.recv().await,
        }
    }

    /// Says in the head of a response how much context the answer has, and what of the messages did not fit: nothing is cut
    /// silently.
    pub(crate) fn context(&self) -> Context {
        Context(self.began)
    }

    /// Waits for all of the answer.
    pub(crate) async fn fold(mut self) -> Result<Whole, ApiError> {
        let mut all = Piece::default();
        loop {
            match self.next().await {
                Some(Event::Piece(piece)) => {
                    all.thinking.push_str(&piece.thinking);
                    all.text.push_str(&piece.text);
                    all.calls.extend(piece.calls);
                    all.logprobs.extend(piece.logprobs);
                }
                Some(Event::Done(done)) => return Ok(Whole { piece: all, done }),
                Some(Event::Failed(failure)) => return Err(failure.into()),
                Some(Event::Rendered(_) | Event::Embedded(_) | Event::Began(_)) | None => return Err(stopped()),
            }
        }
    }

    /// A body that is written as the events come: `render` turns each into text. Dropping the body drops the receiver, which
    /// cancels the request.
    pub(crate) fn stream<F>(self, content_type: &'static str, render: F) -> Response
    where
        F: FnMut(Event) -> String + Send + 'static,
    {
        let next = |(mut events, mut render): (Events, F)| async move {
            let event = events.next().await?;
            let text = Bytes::from(render(event));
            Some((Ok::<_, Infallible>(text), (events, render)))
        };
        let mut response = Response::new(Body::from_stream(stream::unfold((self, render), next)));
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        response
    }
}

/// What a response says of its context.
#[derive(Clone, Copy)]
pub(crate) struct Context(Option<Began>);

impl Context {
    /// Adds it to the head of a response.
    pub(crate) fn tell(self, mut response: Response) -> Response {
        if let Some(began) = self.0 {
            let mut tell = |name: &'static str, n: usize| _ = response.headers_mut().insert(name, HeaderValue::from(n));
            tell("lantern-context-length", began.n_ctx);
            if began.n_dropped > 0 {
                tell("lantern-dropped-messages", began.n_dropped);
            }
            if began.n_cut > 0 {
                tell("lantern-cut-tokens", began.n_cut);
            }
        }
        response
    }

    /// Messages that were left out, and tokens that were cut out.
    pub(crate) fn lost(self) -> [usize; 2] {
        self.0.map_or([0, 0], |began| [began.n_dropped, began.n_cut])
    }
}

fn stopped() -> ApiError {
    ApiError::internal("the engine stopped unexpectedly")
}

/// `prefix` and `n` characters of `a–z0–9` that no other answer has.
pub(crate) fn random_id(prefix: &str, n: usize) -> String {
    const DIGITS: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let mut id = prefix.to_owned();
    while id.len() < prefix.len() + n {
        // The keys of each state are random.
        let mut bits = RandomState::new().hash_one(id.len());
        for _ in 0..12.min(prefix.len() + n - id.len()) {
            id.push(char::from(DIGITS[(bits % 36) as usize]));
            bits /= 36;
        }
    }
    id
}

/// A call as the Ollama and OpenAI dialects number and name it.
pub(crate) fn call_id() -> String {
    random_id("call_", 8)
}

/// Calls as the Ollama dialect writes them, counted from `index`.
pub(crate) fn calls_json(calls: &[ToolCall], index: usize) -> Vec<Value> {
    let call = |(at, call): (usize, &ToolCall)| json!({ "id": call_id(), "function": { "index": index + at, "name": call.name, "arguments": call.arguments } });
    calls.iter().enumerate().map(call).collect()
}

/// Probabilities as the Ollama and OpenAI dialects write them.
pub(crate) fn logprobs_json(logprobs: &[Logprob]) -> Vec<Value> {
    let entry = |bytes: &[u8], logprob: f32| {
        let mut entry = Map::new();
        entry.insert("token".into(), json!(String::from_utf8_lossy(bytes)));
        entry.insert("logprob".into(), json!(logprob));
        if !bytes.is_empty() {
            entry.insert("bytes".into(), json!(bytes));
        }
        entry
    };
    let whole = |l: &Logprob| {
        let mut whole = entry(&l.token, l.logprob);
        if !l.top.is_empty() {
            whole.insert(
                "top_logprobs".into(),
                l.top.iter().map(|(bytes, logprob)| Value::Object(entry(bytes, *logprob))).collect(),
            );
        }
        Value::Object(whole)
    };
    logprobs.iter().map(whole).collect()
}
