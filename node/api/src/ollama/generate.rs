//! `POST /api/generate`: one prompt, one answer.

use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use scheduler::{DoneReason, Input, KeepAlive, Request};
use serde_json::{Value, json};

use super::answer::{Shape, at_once, respond};
use super::model::{Found, find};
use super::{chat, keep_alive, options};
use crate::App;
use crate::error::ApiError;
use crate::json::Fields;

pub(super) async fn generate(State(app): State<App>, peer: super::chat::Peer, headers: HeaderMap, body: Bytes) -> Response {
    let accepted = Instant::now();
    answer(&app, peer, &headers, &body, accepted).await.unwrap_or_else(IntoResponse::into_response)
}

async fn answer(
    app: &App,
    peer: super::chat::Peer,
    headers: &HeaderMap,
    body: &Bytes,
    accepted: Instant,
) -> Result<Response, ApiError> {
    let fields = Fields::parse("GenerateRequest", body)?;
    chat::check_top_logprobs(&fields)?;
    let model = fields.text("model")?.unwrap_or_default().to_owned();
    if model.trim().is_empty() {
        return Err(ApiError::not_found("model '' not found"));
    }
    let found = find(app, &model).await?;
    let keep_alive = keep_alive::parse(fields.get("keep_alive"))?;
    let prompt = fields.text("prompt")?.unwrap_or_default();
    let raw = fields.truth("raw")?.unwrap_or(false);
    let (shape, streamed) = (Shape::Generate { raw }, fields.truth("stream")?.unwrap_or(true));
    let unload = prompt.is_empty() && keep_alive == Some(KeepAlive::For(Duration::ZERO));
    let input = if unload { Input::Unload } else { input(&fields, &found, prompt, raw)? };
    let shift = fields.truth("shift")?.unwrap_or(true);
    let options = options::parse(&found.installed.parameters(), fields.object("options")?, shift)?;
    let request = Request { model: found.file, client: chat::client(peer, headers), input, options, keep_alive, accepted };
    let events = app.scheduler.submit(request)?;
    if unload {
        chat::wait(events).await?;
        return Ok(at_once(&model, shape, DoneReason::Unload));
    }
    Ok(respond(model, shape, streamed, events).await)
}

/// Checks what the model must be able to do, and what the prompt becomes.
fn input(fields: &Fields, found: &Found, prompt: &str, raw: bool) -> Result<Input, ApiError> {
    let system = fields.text("system")?.filter(|s| !s.is_empty());
    let template = fields.text("template")?.filter(|s| !s.is_empty());
    let context = context(fields)?;
    if raw && (system.is_some() || template.is_some() || !context.is_empty()) {
        return Err(ApiError::bad_request("raw mode does not support template, system, or context"));
    }
    chat::check_capabilities(fields, found, "generate")?;
    if !fields.text("suffix")?.unwrap_or_default().is_empty() {
        return Err(ApiError::bad_request(format!("{} does not support insert", found.installed.name.full())));
    }
    if template.is_some() {
        return Err(ApiError::bad_request("a template of the request is not supported: the model's own template is used"));
    }
    if !fields.list("images")?.is_empty() {
        return Err(ApiError::bad_request(chat::no_images(found)));
    }
    if prompt.is_empty() {
        return Ok(Input::Load);
    }
    if raw {
        return Ok(Input::Text { prompt: prompt.to_owned(), context });
    }
    let mut messages: Vec<Value> = Vec::new();
    if let Some(system) = system.map(String::from).or_else(|| found.installed.system()) {
        messages.push(json!({ "role": "system", "content": system }));
    }
    if context.is_empty() {
        messages.extend(chat::history(found));
    }
    messages.push(json!({ "role": "user", "content": prompt }));
    let truncate = fields.truth("truncate")?.unwrap_or(true);
    Ok(Input::Chat { messages, truncate, context, render_only: fields.truth("_debug_render_only")?.unwrap_or(false) })
}

fn context(fields: &Fields) -> Result<Vec<u32>, ApiError> {
    let token = |value: &Value| {
        let token = value.as_u64().and_then(|t| u32::try_from(t).ok());
        token.ok_or_else(|| ApiError::bad_request(format!("context holds {value}, needed are token ids")))
    };
    fields.list("context")?.iter().map(token).collect()
}
