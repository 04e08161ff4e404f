//! `POST /v1/completions`: a prompt through the model's template.

use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use scheduler::Event;
use serde_json::{Map, Value, json};

use super::chat::Extra;
use super::{envelope, event, finish_reason, now, options, refuse, reply, usage};
use crate::App;
use crate::answer::random_id;
use crate::caller::Caller;
use crate::error::ApiError;
use crate::json::Fields;
use crate::ollama::{Asked, generate::begin};

pub(super) async fn completions(State(app): State<App>, caller: Caller, body: Bytes) -> Response {
    answer(&app, caller, &body, &|_, _| Map::new()).await.unwrap_or_else(refuse)
}

/// Serves a completion; `extra` is added to the whole answer, or to the last object of a stream.
pub(crate) async fn answer(app: &App, caller: Caller, body: &Bytes, extra: &'static Extra) -> Result<Response, ApiError> {
    let fields = Fields::parse_compat("CompletionRequest", body)?;
    let model = fields.text("model")?.unwrap_or_default().to_owned();
    let streamed = fields.truth("stream")?.unwrap_or(false);
    let with_usage = fields.object("stream_options")?.is_some_and(|o| o.get("include_usage") == Some(&json!(true)));
    let Asked { found, begun } = begin(app, caller, &native(&fields)?).await?;
    let events = begun.answer()?;
    let context = events.context();
    let (id, created) = (random_id("cmpl-", 12), now());
    let object = move |text: &str, reason: Option<&str>| {
        let choice = json!({ "text": text, "index": 0, "finish_reason": reason });
        let object = json!({ "id": id, "object": "text_completion", "created": created, "model": model,
            "system_fingerprint": "fp_ollama", "choices": [choice] });
        object.as_object().cloned().unwrap_or_default()
    };
    if streamed {
        let none = json!({ "prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0 });
        let chunk = move |text: &str, reason: Option<&str>, more: Map<String, Value>| {
            let mut chunk = object(text, reason);
            if with_usage {
                chunk.insert("usage".into(), none.clone());
            }
            chunk.extend(more);
            chunk
        };
        return Ok(context.tell(events.stream("text/event-stream", move |event| match event {
            Event::Piece(piece) => self::event(&Value::Object(chunk(&piece.text, None, Map::new()))),
            Event::Done(done) => {
                let last = chunk("", Some(finish_reason(done.reason, 0)), extra(&found, &done));
                let mut text = self::event(&Value::Object(last));
                if with_usage {
                    let mut counts = chunk("", None, Map::new());
                    counts.insert("choices".into(), json!([]));
                    counts.insert("usage".into(), usage(&done));
                    text += &self::event(&Value::Object(counts));
                }
                text + "data: [DONE]\n\n"
            }
            Event::Failed(failure) => self::event(&envelope(&failure.into())),
            Event::Began(_) | Event::Rendered(_) | Event::Embedded(_) => String::new(),
        })));
    }
    let whole = events.fold().await?;
    let mut object = object(&whole.piece.text, Some(finish_reason(whole.done.reason, 0)));
    object.insert("usage".into(), usage(&whole.done));
    object.extend(extra(&found, &whole.done));
    Ok(context.tell(reply(&Value::Object(object))))
}

/// The request in Ollama's words. Thinking has no place in this shape and is off.
fn native(fields: &Fields) -> Result<Fields, ApiError> {
    let mut native = Map::new();
    let prompt = fields.text("prompt")?.unwrap_or_default();
    if prompt.is_empty() {
        return Err(ApiError::bad_request("the request has no prompt"));
    }
    let mut options = options(fields, &["max_tokens"], &[("temperature", 1.0), ("top_p", 1.0)])?;
    let wrong_stop =
        |found: &Value| ApiError::bad_request(format!("invalid type for 'stop' field: {}", crate::json::kind(found)));
    match fields.get("stop") {
        None => {}
        Some(Value::String(stop)) => _ = options.insert("stop".into(), json!([stop])),
        Some(Value::Array(stops)) => {
            if let Some(other) = stops.iter().find(|stop| !stop.is_string()) {
                return Err(wrong_stop(other));
            }
            options.insert("stop".into(), json!(stops));
        }
        Some(other) => return Err(wrong_stop(other)),
    }
    native.insert("options".into(), Value::Object(options));
    native.insert("think".into(), json!(false));
    for name in ["model", "prompt", "suffix", "keep_alive"] {
        if let Some(value) = fields.get(name) {
            native.insert(name.into(), value.clone());
        }
    }
    Ok(Fields::new("CompletionRequest", native))
}
