//! An answer in the two shapes of this dialect: a stream of JSON lines, or one folded body. Generate and chat differ only in
//! where the text stands.

use axum::response::{IntoResponse, Response};
use scheduler::{Done, DoneReason, Event, Piece};
use serde_json::{Map, Value, json};

use crate::answer::{Begun, Context, calls_json, logprobs_json};
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

/// The response to a request that has begun.
pub(super) async fn respond(model: String, shape: Shape, streamed: bool, begun: Begun) -> Response {
    match begun {
        // Plain JSON even where a stream was asked for.
        Begun::AtOnce(reason) => {
            let mut object = chunk(&model, shape, &Piece::default(), true, 0);
            object.insert("done_reason".into(), json!(reason_text(reason)));
            json::reply(&Value::Object(object))
        }
        Begun::Rendered(text) => {
            let mut object = chunk(&model, shape, &Piece::default(), false, 0);
            object.insert("_debug_info".into(), json!({ "rendered_template": text }));
            json::reply(&Value::Object(object))
        }
        Begun::Answer(events) if streamed => {
            let (mut n_calls, context) = (0, events.context());
            context.tell(events.stream("application/x-ndjson", move |event| {
                let object = match event {
                    Event::Piece(piece) => {
                        let object = chunk(&model, shape, &piece, false, n_calls);
                        n_calls += piece.calls.len();
                        Value::Object(object)
                    }
                    Event::Done(done) => Value::Object(last(&model, shape, &Piece::default(), &done, context)),
                    Event::Failed(failure) => ApiError::from(failure).body(),
                    Event::Began(_) | Event::Rendered(_) | Event::Embedded(_) => return String::new(),
                };
                json::escaped(&object) + "\n"
            }))
        }
        Begun::Answer(events) => {
            let context = events.context();
            match events.fold().await {
                Ok(whole) => context.tell(json::reply(&Value::Object(last(&model, shape, &whole.piece, &whole.done, context)))),
                Err(error) => error.into_response(),
            }
        }
    }
}

/// One object of the answer; its calls are counted from `n_calls`.
fn chunk(model: &str, shape: Shape, piece: &Piece, done: bool, n_calls: usize) -> Map<String, Value> {
    let mut object = Map::new();
    object.insert("model".into(), json!(model));
    object.insert("created_at".into(), json!(jiff::Timestamp::now().to_string()));
    let calls = calls_json(&piece.calls, n_calls);
    let mut place = Map::new();
    if shape == Shape::Chat {
        place.insert("role".into(), json!("assistant"));
        place.insert("content".into(), json!(piece.text));
    } else {
        place.insert("response".into(), json!(piece.text));
    }
    if !piece.thinking.is_empty() {
        place.insert("thinking".into(), json!(piece.thinking));
    }
    if !calls.is_empty() {
        place.insert("tool_calls".into(), json!(calls));
    }
    match shape {
        Shape::Chat => _ = object.insert("message".into(), Value::Object(place)),
        Shape::Generate { .. } => object.extend(place),
    }
    object.insert("done".into(), json!(done));
    if !piece.logprobs.is_empty() {
        object.insert("logprobs".into(), json!(logprobs_json(&piece.logprobs)));
    }
    object
}

/// The object that ends an answer: reason, tokens and the six metrics, in nanoseconds.
fn last(model: &str, shape: Shape, piece: &Piece, done: &Done, context: Context) -> Map<String, Value> {
    let mut object = chunk(model, shape, piece, true, 0);
    object.insert("done_reason".into(), json!(reason_text(done.reason)));
    if shape == (Shape::Generate { raw: false }) {
        object.insert("context".into(), json!(done.context));
    }
    let times = &done.times;
    let [n_dropped, n_cut] = context.lost();
    let ns = |duration: std::time::Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX).max(1);
    let metrics = [
        ("total_duration", ns(times.finished.duration_since(times.accepted))),
        ("load_duration", ns(times.load)),
        ("prompt_eval_count", done.n_prompt as u64),
        ("prompt_eval_duration", ns(times.first_piece.duration_since(times.started))),
        ("eval_count", done.n_decoded as u64),
        ("eval_duration", ns(times.finished.duration_since(times.first_piece))),
        // Not upstream's: what was cut, where something was.
        ("dropped_messages", n_dropped as u64),
        ("cut_tokens", n_cut as u64),
        ("context_shifts", done.n_shifts as u64),
    ];
    object.extend(metrics.into_iter().filter(|(_, value)| *value > 0).map(|(name, value)| (name.to_owned(), json!(value))));
    object
}

fn reason_text(reason: DoneReason) -> &'static str {
    match reason {
        DoneReason::Stop | DoneReason::StopText => "stop",
        DoneReason::Length => "length",
        DoneReason::Load => "load",
        DoneReason::Unload => "unload",
    }
}
