//! `POST /v1/responses`: the newer shape of a chat, in which an answer is a list of items.

mod input;
mod stream;

use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;
use scheduler::{Done, ToolCall};
use serde_json::{Map, Value, json};

use super::{now, refuse, reply};
use crate::App;
use crate::answer::{call_id, random_id};
use crate::caller::Caller;
use crate::error::ApiError;
use crate::json::Fields;
use crate::ollama::chat::{Asked, begin};

pub(super) async fn responses(State(app): State<App>, caller: Caller, body: Bytes) -> Response {
    answer(&app, caller, &body).await.unwrap_or_else(refuse)
}

async fn answer(app: &App, caller: Caller, body: &Bytes) -> Result<Response, ApiError> {
    let fields = Fields::parse_compat("ResponsesRequest", body)?;
    let streamed = fields.truth("stream")?.unwrap_or(false);
    let head = Head::new(&fields)?;
    let Asked { begun, .. } = begin(app, caller, &input::native(&fields)?).await?;
    let events = begun.answer()?;
    let context = events.context();
    if streamed {
        let mut stream = stream::Stream::new(head);
        let mut response = events.stream("text/event-stream", move |event| stream.event(event));
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        return Ok(context.tell(response));
    }
    let whole = events.fold().await?;
    let mut output = Vec::new();
    if !whole.piece.thinking.is_empty() {
        output.push(reasoning(&random_id("rs_", 12), &whole.piece.thinking));
    }
    if whole.piece.calls.is_empty() {
        output.push(message(&random_id("msg_", 12), &whole.piece.text, "completed"));
    }
    output.extend(whole.piece.calls.iter().map(|c| call(&random_id("fc_", 12), &call_id(), c, "completed")));
    Ok(context.tell(reply(&head.response("completed", &output, Some(&whole.done)))))
}

/// What every state of a response repeats from the request.
struct Head {
    id: String,
    created: i64,
    base: Map<String, Value>,
}

impl Head {
    fn new(fields: &Fields) -> Result<Head, ApiError> {
        let echo = |name: &str| fields.get(name).cloned().unwrap_or(Value::Null);
        let or = |name: &str, default: Value| fields.get(name).cloned().unwrap_or(default);
        let format = fields.object("text")?.and_then(|t| t.get("format")).cloned().unwrap_or_else(|| json!({ "type": "text" }));
        let base = json!({
            "model": echo("model"), "instructions": echo("instructions"), "tools": or("tools", json!([])),
            "tool_choice": or("tool_choice", json!("auto")), "truncation": or("truncation", json!("disabled")),
            "parallel_tool_calls": true, "text": { "format": format }, "top_p": or("top_p", json!(1.0)),
            "temperature": or("temperature", json!(1.0)), "presence_penalty": 0, "frequency_penalty": 0, "top_logprobs": 0,
            "reasoning": echo("reasoning"), "max_output_tokens": echo("max_output_tokens"), "max_tool_calls": null,
            "store": false, "background": or("background", json!(false)), "service_tier": "default", "metadata": {},
            "previous_response_id": echo("previous_response_id"), "safety_identifier": null, "prompt_cache_key": null,
        });
        Ok(Head { id: random_id("resp_", 12), created: now(), base: base.as_object().cloned().unwrap_or_default() })
    }

    /// The response in some state; with `done` it is complete.
    fn response(&self, status: &str, output: &[Value], done: Option<&Done>) -> Value {
        let mut response = Map::new();
        response.insert("id".into(), json!(self.id));
        response.insert("object".into(), json!("response"));
        response.insert("created_at".into(), json!(self.created));
        response.insert("completed_at".into(), done.map_or(Value::Null, |_| json!(now())));
        response.insert("status".into(), json!(status));
        response.insert("incomplete_details".into(), Value::Null);
        response.insert("error".into(), Value::Null);
        response.insert("output".into(), json!(output));
        response.extend(self.base.clone());
        let usage = done.map_or(Value::Null, |done| {
            json!({ "input_tokens": done.n_prompt, "output_tokens": done.n_decoded, "total_tokens": done.n_prompt + done.n_decoded,
                "input_tokens_details": { "cached_tokens": 0 }, "output_tokens_details": { "reasoning_tokens": 0 } })
        });
        response.insert("usage".into(), usage);
        Value::Object(response)
    }
}

fn reasoning(id: &str, text: &str) -> Value {
    json!({ "id": id, "type": "reasoning", "summary": [{ "type": "summary_text", "text": text }], "encrypted_content": text })
}

fn message(id: &str, text: &str, status: &str) -> Value {
    json!({ "id": id, "type": "message", "role": "assistant", "status": status, "content": [text_part(text)] })
}

fn text_part(text: &str) -> Value {
    json!({ "type": "output_text", "text": text, "annotations": [], "logprobs": [] })
}

fn call(id: &str, call_id: &str, call: &ToolCall, status: &str) -> Value {
    let arguments = Value::Object(call.arguments.clone()).to_string();
    json!({ "id": id, "type": "function_call", "status": status, "call_id": call_id, "name": call.name, "arguments": arguments })
}
