//! Events to the two shapes of an answer: a stream of JSON lines, or one folded body. Generate and chat differ only in where
//! the text stands.

use std::convert::Infallible;

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use scheduler::{Done, DoneReason, Event};
use serde_json::{Map, Value, json};
use tokio::sync::mpsc::Receiver;

use crate::error::ApiError;
use crate::json;

/// Where an endpoint puts its text.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// `response`, with the tokens in `context` unless the prompt was raw.
    Generate { raw: bool },
    /// `message`.
    Chat,
}

/// The answer of a request that computes.
pub(super) async fn respond(model: String, shape: Shape, streamed: bool, mut events: Receiver<Event>) -> Response {
    // The status is known with the first event: nothing is sent before it.
    let first = match events.recv().await {
        None => return ApiError::internal("the engine stopped unexpectedly").into_response(),
        Some(Event::Failed(failure)) => return ApiError::from(failure).into_response(),
        Some(Event::Rendered(text)) => return rendered(&model, shape, &text),
        Some(Event::Done(done)) if matches!(done.reason, DoneReason::Load | DoneReason::Unload) => {
            return at_once(&model, shape, done.reason);
        }
        Some(event) => event,
    };
    if streamed { lines(model, shape, first, events) } else { folded(&model, shape, first, events).await }
}

/// The answer to a request that only loads or unloads: plain JSON even where a stream was asked for.
pub(super) fn at_once(model: &str, shape: Shape, reason: DoneReason) -> Response {
    let mut object = chunk(model, shape, "", true);
    object.insert("done_reason".into(), json!(reason_text(reason)));
    json::reply(&Value::Object(object))
}

fn rendered(model: &str, shape: Shape, text: &str) -> Response {
    let mut object = chunk(model, shape, "", false);
    object.insert("_debug_info".into(), json!({ "rendered_template": text }));
    json::reply(&Value::Object(object))
}

/// One JSON object a line, each sent as it comes. Dropping the body drops the receiver, which cancels the request.
fn lines(model: String, shape: Shape, first: Event, events: Receiver<Event>) -> Response {
    let next = move |(first, mut events): (Option<Event>, Receiver<Event>)| {
        let model = model.clone();
        async move {
            let event = match first {
                Some(event) => event,
                None => events.recv().await?,
            };
            let object = match event {
                Event::Piece(text) => Value::Object(chunk(&model, shape, &text, false)),
                Event::Done(done) => Value::Object(last(&model, shape, "", &done)),
                Event::Failed(failure) => ApiError::from(failure).body(),
                Event::Rendered(_) => return None,
            };
            let line = Bytes::from(json::escaped(&object) + "\n");
            Some((Ok::<_, Infallible>(line), (None, events)))
        }
    };
    let mut response = Response::new(Body::from_stream(stream::unfold((Some(first), events), next)));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    response
}

async fn folded(model: &str, shape: Shape, first: Event, mut events: Receiver<Event>) -> Response {
    let mut all = String::new();
    let mut event = Some(first);
    loop {
        match event {
            Some(Event::Piece(text)) => all.push_str(&text),
            Some(Event::Done(done)) => return json::reply(&Value::Object(last(model, shape, &all, &done))),
            Some(Event::Failed(failure)) => return ApiError::from(failure).into_response(),
            Some(Event::Rendered(_)) | None => return ApiError::internal("the engine stopped unexpectedly").into_response(),
        }
        event = events.recv().await;
    }
}

fn chunk(model: &str, shape: Shape, text: &str, done: bool) -> Map<String, Value> {
    let mut object = Map::new();
    object.insert("model".into(), json!(model));
    object.insert("created_at".into(), json!(jiff::Timestamp::now().to_string()));
    match shape {
        Shape::Generate { .. } => object.insert("response".into(), json!(text)),
        Shape::Chat => object.insert("message".into(), json!({ "role": "assistant", "content": text })),
    };
    object.insert("done".into(), json!(done));
    object
}

/// The object that ends an answer: reason, tokens and the six metrics, in nanoseconds.
fn last(model: &str, shape: Shape, text: &str, done: &Done) -> Map<String, Value> {
    let mut object = chunk(model, shape, text, true);
    object.insert("done_reason".into(), json!(reason_text(done.reason)));
    if shape == (Shape::Generate { raw: false }) {
        object.insert("context".into(), json!(done.context));
    }
    let times = &done.times;
    let ns = |duration: std::time::Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX).max(1);
    let metrics = [
        ("total_duration", ns(times.finished.duration_since(times.accepted))),
        ("load_duration", ns(times.load)),
        ("prompt_eval_count", done.n_prompt as u64),
        ("prompt_eval_duration", ns(times.first_piece.duration_since(times.started))),
        ("eval_count", done.n_decoded as u64),
        ("eval_duration", ns(times.finished.duration_since(times.first_piece))),
    ];
    object.extend(metrics.into_iter().filter(|(_, value)| *value > 0).map(|(name, value)| (name.to_owned(), json!(value))));
    object
}

fn reason_text(reason: DoneReason) -> &'static str {
    match reason {
        DoneReason::Stop => "stop",
        DoneReason::Length => "length",
        DoneReason::Load => "load",
        DoneReason::Unload => "unload",
    }
}
