//! The OpenAI dialect: requests become those of the Ollama dialect, answers are written in this one's shapes. The LM Studio
//! dialect shares its chat and completions.

mod audio;
pub(crate) mod chat;
pub(crate) mod completions;
pub(crate) mod embeddings;
mod messages;
mod models;
mod responses;

use access::Need;
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use axum::routing::{get, post};
use scheduler::{Done, DoneReason};
use serde_json::{Map, Value, json};

use crate::error::ApiError;
use crate::routes::Routes;
use crate::{json, rules};

pub(crate) fn routes() -> Routes {
    Routes::default()
        .add("/v1/chat/completions", Need::Use, post(chat::chat))
        .add("/v1/completions", Need::Use, post(completions::completions))
        .add("/v1/embeddings", Need::Use, post(embeddings::embeddings))
        .add("/v1/responses", Need::Use, post(responses::responses))
        .add_stream(
            "/v1/audio/transcriptions",
            Need::Use,
            post(audio::transcriptions).layer(DefaultBodyLimit::max(audio::FORM_BYTES_MAX)),
        )
        .add("/v1/models", Need::Use, get(models::list).head(rules::method_not_allowed))
        .add("/v1/models/{model}", Need::Use, get(models::retrieve).head(rules::method_not_allowed))
}

/// A JSON body with the newline this dialect ends with.
pub(crate) fn reply(value: &Value) -> Response {
    let mut response = Response::new((json::escaped(value) + "\n").into());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// An error in this dialect's envelope.
pub(crate) fn refuse(error: ApiError) -> Response {
    let mut response = reply(&envelope(&error));
    *response.status_mut() = error.status;
    error.add_headers(&mut response);
    response
}

pub(crate) fn envelope(error: &ApiError) -> Value {
    let kind = match error.status {
        StatusCode::BAD_REQUEST => "invalid_request_error",
        StatusCode::NOT_FOUND => "not_found_error",
        _ => "api_error",
    };
    json!({ "error": { "message": error.message, "type": kind, "param": null, "code": null } })
}

/// One event of a stream.
pub(crate) fn event(value: &Value) -> String {
    format!("data: {}\n\n", json::escaped(value))
}

/// Seconds since 1970.
pub(crate) fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

/// Tokens of an answer.
pub(crate) fn usage(done: &Done) -> Value {
    json!({ "prompt_tokens": done.n_prompt, "completion_tokens": done.n_decoded, "total_tokens": done.n_prompt + done.n_decoded })
}

pub(crate) fn finish_reason(reason: DoneReason, n_calls: usize) -> &'static str {
    match reason {
        DoneReason::Length => "length",
        _ if n_calls > 0 => "tool_calls",
        _ => "stop",
    }
}

/// Sampling fields as Ollama's options; `defaults` are those the dialect states where the request does not.
///
/// # Errors
/// When one has another type.
pub(crate) fn options(
    fields: &json::Fields,
    n_predict: &[&str],
    defaults: &[(&str, f64)],
) -> Result<Map<String, Value>, ApiError> {
    let mut options: Map<String, Value> = defaults.iter().map(|(name, default)| ((*name).to_owned(), json!(default))).collect();
    for name in n_predict.iter().rev() {
        options.extend(fields.integer(name)?.map(|n| ("num_predict".to_owned(), json!(n))));
    }
    for name in ["seed", "top_k", "num_ctx"] {
        options.extend(fields.integer(name)?.map(|n| (name.to_owned(), json!(n))));
    }
    for name in ["temperature", "top_p", "min_p", "frequency_penalty", "presence_penalty"] {
        options.extend(fields.number(name)?.map(|n| (name.to_owned(), n.clone())));
    }
    Ok(options)
}

/// Whether to think, as `reasoning_effort` or `reasoning.effort` say it, in Ollama's words.
pub(crate) fn think(fields: &json::Fields) -> Result<Option<Value>, ApiError> {
    let nested = fields.object("reasoning")?.and_then(|r| r.get("effort")).filter(|e| !e.is_null());
    let Some(effort) = fields.get("reasoning_effort").or(nested) else { return Ok(None) };
    let think = match effort.as_str() {
        Some("none") => json!(false),
        Some("minimal" | "low") => json!("low"),
        Some(level @ ("medium" | "high" | "max")) => json!(level),
        Some("xhigh" | "ultra") => json!("max"),
        _ => {
            return Err(ApiError::bad_request(format!(
                "invalid reasoning value: {effort} (must be \"minimal\", \"low\", \"medium\", \"high\", \"xhigh\", \"ultra\", \"max\", or \"none\")"
            )));
        }
    };
    Ok(Some(think))
}
