//! `POST /v1/chat/completions`.

use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use scheduler::{Done, Event, Piece, ToolCall};
use serde_json::{Map, Value, json};

use super::{envelope, event, finish_reason, messages, now, options, refuse, reply, think, usage};
use crate::App;
use crate::answer::{call_id, logprobs_json, random_id};
use crate::caller::Caller;
use crate::error::ApiError;
use crate::json::Fields;
use crate::ollama::chat::{Asked, begin};
use crate::ollama::model::Found;

pub(super) async fn chat(State(app): State<App>, caller: Caller, body: Bytes) -> Response {
    answer(&app, caller, &body, &|_, _| Map::new()).await.unwrap_or_else(refuse)
}

/// What a dialect adds to an answer of this shape, once the answer is done.
pub(crate) type Extra = dyn Fn(&Found, &Done) -> Map<String, Value> + Sync;

/// Serves a chat; `extra` is added to the whole answer, or to the last object of a stream.
pub(crate) async fn answer(app: &App, caller: Caller, body: &Bytes, extra: &'static Extra) -> Result<Response, ApiError> {
    let fields = Fields::parse_compat("ChatCompletionRequest", body)?;
    let model = fields.text("model")?.unwrap_or_default().to_owned();
    let streamed = fields.truth("stream")?.unwrap_or(false);
    let with_usage = fields.object("stream_options")?.is_some_and(|o| o.get("include_usage") == Some(&json!(true)));
    let Asked { found, begun } = begin(app, caller, &native(&fields)?).await?;
    let events = begun.answer()?;
    let context = events.context();
    let head = Head { id: random_id("chatcmpl-", 12), created: now(), model };
    if streamed {
        let mut stream = Stream { head, with_usage, n_calls: 0, begun: false };
        return Ok(context.tell(events.stream("text/event-stream", move |event| match event {
            Event::Piece(piece) => stream.piece(&piece),
            Event::Done(done) => stream.done(&done, extra(&found, &done)),
            Event::Failed(failure) => self::event(&envelope(&failure.into())),
            Event::Began(_) | Event::Rendered(_) | Event::Embedded(_) => String::new(),
        })));
    }
    let whole = events.fold().await?;
    let mut message = json!({ "role": "assistant", "content": whole.piece.text });
    if !whole.piece.thinking.is_empty() {
        message["reasoning"] = json!(whole.piece.thinking);
    }
    let calls = calls_json(&whole.piece.calls, 0);
    if !calls.is_empty() {
        message["tool_calls"] = json!(calls);
    }
    let mut choice = json!({ "index": 0, "message": message, "finish_reason": finish_reason(whole.done.reason, calls.len()) });
    if !whole.piece.logprobs.is_empty() {
        choice["logprobs"] = json!({ "content": logprobs_json(&whole.piece.logprobs) });
    }
    let mut object = head.object("chat.completion", &[choice]);
    object.insert("usage".into(), usage(&whole.done));
    object.extend(extra(&found, &whole.done));
    Ok(context.tell(reply(&Value::Object(object))))
}

/// The request in Ollama's words.
fn native(fields: &Fields) -> Result<Fields, ApiError> {
    let mut native = Map::new();
    native.insert("messages".into(), json!(messages::native(fields)?));
    let mut options = options(fields, &["max_tokens", "max_completion_tokens"], &[("temperature", 1.0), ("top_p", 1.0)])?;
    match fields.get("stop") {
        None => {}
        Some(Value::String(stop)) => _ = options.insert("stop".into(), json!([stop])),
        Some(Value::Array(stops)) => {
            _ = options.insert("stop".into(), stops.iter().filter(|s| s.is_string()).cloned().collect());
        }
        Some(other) => return Err(fields.wrong("stop", other, "string or slice of strings")),
    }
    native.insert("options".into(), Value::Object(options));
    if let Some(format) = fields.object("response_format")? {
        match format.get("type").and_then(Value::as_str) {
            Some("json_object") => _ = native.insert("format".into(), json!("json")),
            Some("json_schema") => {
                let schema = format.get("json_schema").and_then(|s| s.get("schema"));
                let schema = schema.filter(|s| s.is_object()).ok_or_else(|| {
                    ApiError::bad_request("response_format asks for json_schema, and json_schema.schema is no object")
                })?;
                native.insert("format".into(), schema.clone());
            }
            _ => {}
        }
    }
    if let Some(think) = think(fields)? {
        native.insert("think".into(), think);
    }
    for name in ["model", "tools", "tool_choice", "logprobs", "top_logprobs", "keep_alive"] {
        if let Some(value) = fields.get(name) {
            native.insert(name.into(), value.clone());
        }
    }
    Ok(Fields::new("ChatCompletionRequest", native))
}

/// What every object of an answer begins with.
struct Head {
    id: String,
    created: i64,
    model: String,
}

impl Head {
    fn object(&self, kind: &str, choices: &[Value]) -> Map<String, Value> {
        let object = json!({ "id": self.id, "object": kind, "created": self.created, "model": self.model,
            "system_fingerprint": "fp_ollama", "choices": choices });
        object.as_object().cloned().unwrap_or_default()
    }
}

/// A streamed answer.
struct Stream {
    head: Head,
    with_usage: bool,
    n_calls: usize,
    begun: bool,
}

impl Stream {
    fn chunk(&self, choices: &[Value]) -> Map<String, Value> {
        self.head.object("chat.completion.chunk", choices)
    }

    /// One chunk with a delta, whose first names the role.
    fn delta(&mut self, delta: Value, logprobs: Option<Value>) -> String {
        let mut whole = Map::new();
        if !std::mem::replace(&mut self.begun, true) {
            whole.insert("role".into(), json!("assistant"));
        }
        whole.extend(delta.as_object().cloned().unwrap_or_default());
        let mut choice = json!({ "index": 0, "delta": whole, "finish_reason": null });
        if let Some(logprobs) = logprobs {
            choice["logprobs"] = json!({ "content": logprobs });
        }
        event(&Value::Object(self.chunk(&[choice])))
    }

    fn piece(&mut self, piece: &Piece) -> String {
        let mut text = String::new();
        let mixed = !piece.thinking.is_empty() && !piece.text.is_empty();
        if mixed {
            text += &self.delta(json!({ "reasoning": piece.thinking }), None);
        }
        let mut delta = json!({ "content": piece.text });
        if !mixed && !piece.thinking.is_empty() {
            delta["reasoning"] = json!(piece.thinking);
        }
        if !piece.calls.is_empty() {
            delta["tool_calls"] = json!(calls_json(&piece.calls, self.n_calls));
            self.n_calls += piece.calls.len();
        }
        let logprobs = (!piece.logprobs.is_empty()).then(|| json!(logprobs_json(&piece.logprobs)));
        text + &self.delta(delta, logprobs)
    }

    fn done(&mut self, done: &Done, extra: Map<String, Value>) -> String {
        let mut text = if self.begun { String::new() } else { self.delta(json!({ "content": "" }), None) };
        let choice = json!({ "index": 0, "delta": {}, "finish_reason": finish_reason(done.reason, self.n_calls) });
        let mut last = self.chunk(&[choice]);
        last.extend(extra);
        text += &event(&Value::Object(last));
        if self.with_usage {
            let mut chunk = self.chunk(&[]);
            chunk.insert("usage".into(), usage(done));
            text += &event(&Value::Object(chunk));
        }
        text + "data: [DONE]\n\n"
    }
}

/// Calls with their arguments as text, counted from `index`.
pub(super) fn calls_json(calls: &[ToolCall], index: usize) -> Vec<Value> {
    let call = |(at, call): (usize, &ToolCall)| {
        let arguments = Value::Object(call.arguments.clone()).to_string();
        json!({ "id": call_id(), "index": index + at, "type": "function", "function": { "name": call.name, "arguments": arguments } })
    };
    calls.iter().enumerate().map(call).collect()
}
