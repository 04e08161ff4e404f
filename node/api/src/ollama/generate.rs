//! `POST /api/generate`: one prompt, one answer.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use scheduler::{GoTemplate, Input, KeepAlive, Options, Request};
use serde_json::{Value, json};

use super::answer::{Shape, respond};
use super::model::{Found, find};
use super::{ask, keep_alive, options};
use crate::App;
use crate::answer::Begun;
use crate::caller::Caller;
use crate::error::ApiError;
use crate::json::Fields;

pub(super) async fn generate(State(app): State<App>, caller: Caller, body: Bytes) -> Response {
    answer(&app, caller, &body).await.unwrap_or_else(IntoResponse::into_response)
}

async fn answer(app: &App, caller: Caller, body: &Bytes) -> Result<Response, ApiError> {
    let fields = Fields::parse("GenerateRequest", body)?;
    let model = fields.text("model")?.unwrap_or_default().to_owned();
    let raw = fields.truth("raw")?.unwrap_or(false);
    let streamed = fields.truth("stream")?.unwrap_or(true);
    let asked = begin(app, caller, &fields).await?;
    Ok(respond(model, Shape::Generate { raw }, streamed, asked.begun).await)
}

/// Checks a request, hands it to the scheduler and waits for what comes first.
pub(crate) async fn begin(app: &App, caller: Caller, fields: &Fields) -> Result<super::Asked, ApiError> {
    ask::check_top_logprobs(fields)?;
    let model = fields.text("model")?.unwrap_or_default().to_owned();
    if model.trim().is_empty() {
        return Err(ApiError::not_found("model '' not found"));
    }
    let found = find(app, &model).await?;
    let keep_alive = keep_alive::parse(fields.get("keep_alive"))?;
    let prompt = fields.text("prompt")?.unwrap_or_default();
    let shift = fields.truth("shift")?.unwrap_or(true);
    let mut options = options::parse(&found.installed.parameters(), fields.object("options")?, shift)?;
    let unload = prompt.is_empty() && keep_alive == Some(KeepAlive::For(Duration::ZERO));
    let input = if unload { Input::Unload } else { input(fields, &found, prompt, &mut options)? };
    let request =
        Request { model: found.file.clone(), client: caller.client, input, options, keep_alive, accepted: caller.accepted };
    let begun = Begun::wait(app.scheduler.submit(request)?).await?;
    Ok(super::Asked { found, begun })
}

/// Checks what the model must be able to do, and what the prompt becomes.
fn input(fields: &Fields, found: &Found, prompt: &str, options: &mut Options) -> Result<Input, ApiError> {
    let raw = fields.truth("raw")?.unwrap_or(false);
    let system = fields.text("system")?.filter(|s| !s.is_empty());
    let template = fields.text("template")?.filter(|s| !s.is_empty());
    let context = context(fields)?;
    if raw && (system.is_some() || template.is_some() || !context.is_empty()) {
        return Err(ApiError::bad_request("raw mode does not support template, system, or context"));
    }
    let think = ask::think(fields, found, "generate")?;
    let suffix = fields.text("suffix")?.unwrap_or_default();
    if !suffix.is_empty() && !found.can("insert") {
        return Err(ApiError::bad_request(format!("{} does not support insert", found.installed.name.full())));
    }
    let template = match template {
        Some(source) => Some(Arc::new(GoTemplate::parse(source).map_err(ApiError::bad_request)?)),
        None => found.template.clone(),
    };
    if !fields.list("images")?.is_empty() {
        return Err(ApiError::bad_request(ask::no_images(found)));
    }
    options.constraint = ask::format(fields)?;
    options.logprobs = ask::logprobs(fields)?;
    options.render_only = fields.truth("_debug_render_only")?.unwrap_or(false);
    if prompt.is_empty() {
        return Ok(Input::Load);
    }
    if let Some(template) = template.clone().filter(|_| !suffix.is_empty()) {
        return Ok(Input::Gap { template, prompt: prompt.to_owned(), suffix: suffix.to_owned(), think });
    }
    let truncate = fields.truth("truncate")?.unwrap_or(true);
    if raw {
        return Ok(Input::Text { prompt: prompt.to_owned(), context, truncate });
    }
    let mut messages: Vec<Value> = Vec::new();
    if let Some(system) = system.map(String::from).or_else(|| found.installed.system()) {
        messages.push(json!({ "role": "system", "content": system }));
    }
    if context.is_empty() {
        messages.extend(ask::history(found));
    }
    messages.push(json!({ "role": "user", "content": prompt }));
    Ok(Input::Chat { messages, template, tools: Vec::new(), think, truncate, context })
}

fn context(fields: &Fields) -> Result<Vec<u32>, ApiError> {
    let token = |value: &Value| {
        let token = value.as_u64().and_then(|t| u32::try_from(t).ok());
        token.ok_or_else(|| ApiError::bad_request(format!("context holds {value}, needed are token ids")))
    };
    fields.list("context")?.iter().map(token).collect()
}
