//! The Anthropic dialect: `POST /v1/messages`. Requests become chats of the Ollama dialect.

mod input;
mod stream;

use access::Need;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use axum::routing::post;
use bytes::Bytes;
use scheduler::{DoneReason, ToolCall};
use serde_json::{Value, json};

use crate::App;
use crate::answer::random_id;
use crate::caller::Caller;
use crate::error::ApiError;
use crate::json::Fields;
use crate::ollama::chat::{Asked, begin};
use crate::openai::reply;
use crate::routes::Routes;

pub(crate) fn routes() -> Routes {
    Routes::default().add("/v1/messages", Need::Use, post(messages))
}

async fn messages(State(app): State<App>, caller: Caller, body: Bytes) -> Response {
    answer(&app, caller, &body).await.unwrap_or_else(refuse)
}

async fn answer(app: &App, caller: Caller, body: &Bytes) -> Result<Response, ApiError> {
    let fields = Fields::parse_compat("MessagesRequest", body)?;
    let model = fields.text("model")?.unwrap_or_default().to_owned();
    let streamed = fields.truth("stream")?.unwrap_or(false);
    let native = input::native(app, &fields).await?;
    let n_characters: usize = native.list("messages")?.iter().filter_map(|m| m["content"].as_str()).map(str::len).sum();
    let Asked { begun, .. } = begin(app, caller, &native).await?;
    let events = begun.answer()?;
    let context = events.context();
    let id = random_id("msg_", 24);
    if streamed {
        // What the prompt takes is known at the end; clients show an estimate until then.
        let mut stream = stream::Stream::new(&id, &model, n_characters / 4);
        let mut response = events.stream("text/event-stream", move |event| stream.event(event));
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        return Ok(context.tell(response));
    }
    let whole = events.fold().await?;
    let mut content = Vec::new();
    if !whole.piece.thinking.is_empty() {
        content.push(json!({ "type": "thinking", "thinking": whole.piece.thinking, "signature": "" }));
    }
    if !whole.piece.text.is_empty() {
        content.push(json!({ "type": "text", "text": whole.piece.text }));
    }
    content.extend(whole.piece.calls.iter().map(|call| tool_use(call, Value::Object(call.arguments.clone()))));
    let message = json!({
        "id": id, "type": "message", "role": "assistant", "model": model, "content": content,
        "stop_reason": stop_reason(whole.done.reason, whole.piece.calls.len()),
        "usage": { "input_tokens": whole.done.n_prompt, "output_tokens": whole.done.n_decoded },
    });
    Ok(context.tell(reply(&message)))
}

/// An error in this dialect's envelope.
pub(crate) fn refuse(error: ApiError) -> Response {
    let mut response = reply(&envelope(&error));
    *response.status_mut() = error.status;
    error.add_headers(&mut response);
    response
}

fn envelope(error: &ApiError) -> Value {
    let kind = match error.status {
        StatusCode::BAD_REQUEST => "invalid_request_error",
        StatusCode::UNAUTHORIZED => "authentication_error",
        StatusCode::FORBIDDEN => "permission_error",
        StatusCode::NOT_FOUND => "not_found_error",
        StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
        StatusCode::SERVICE_UNAVAILABLE => "overloaded_error",
        _ => "api_error",
    };
    json!({ "type": "error", "error": { "type": kind, "message": error.message }, "request_id": random_id("req_", 24) })
}

fn stop_reason(reason: DoneReason, n_calls: usize) -> &'static str {
    match reason {
        DoneReason::Length => "max_tokens",
        _ if n_calls > 0 => "tool_use",
        _ => "end_turn",
    }
}

fn tool_use(call: &ToolCall, input: Value) -> Value {
    json!({ "type": "tool_use", "id": random_id("toolu_", 24), "name": call.name, "input": input })
}
