//! `POST /api/chat`: messages in, the next message out. The other dialects' chats become requests of this one.

use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use scheduler::{Input, KeepAlive, Request};
use serde_json::{Value, json};

use super::answer::{Shape, respond};
use super::messages::messages;
use super::model::{Found, find};
use super::{ask, keep_alive, options, tools};
use crate::App;
use crate::answer::Begun;
use crate::caller::Caller;
use crate::error::ApiError;
use crate::json::Fields;

pub(super) async fn chat(State(app): State<App>, caller: Caller, body: Bytes) -> Response {
    answer(&app, caller, &body).await.unwrap_or_else(IntoResponse::into_response)
}

async fn answer(app: &App, caller: Caller, body: &Bytes) -> Result<Response, ApiError> {
    let fields = Fields::parse("ChatRequest", body)?;
    let model = fields.text("model")?.unwrap_or_default().to_owned();
    let streamed = fields.truth("stream")?.unwrap_or(true);
    let asked = begin(app, caller, &fields).await?;
    Ok(respond(model, Shape::Chat, streamed, asked.begun).await)
}

/// A chat whose answer has begun.
pub(crate) struct Asked {
    pub(crate) found: Found,
    pub(crate) begun: Begun,
}

/// Checks a request, hands it to the scheduler and waits for what comes first.
pub(crate) async fn begin(app: &App, caller: Caller, fields: &Fields) -> Result<Asked, ApiError> {
    ask::check_top_logprobs(fields)?;
    let model = fields.text("model")?.unwrap_or_default().to_owned();
    if model.trim().is_empty() {
        return Err(ApiError::bad_request("model is required"));
    }
    let found = find(app, &model).await?;
    let keep_alive = keep_alive::parse(fields.get("keep_alive"))?;
    let messages = messages(fields, &found)?;
    let shift = fields.truth("shift")?.unwrap_or(true);
    let mut options = options::parse(&found.installed.parameters(), fields.object("options")?, shift)?;
    let unload = messages.is_empty() && keep_alive == Some(KeepAlive::For(Duration::ZERO));
    let input = if unload { Input::Unload } else { input(fields, &found, messages, &mut options)? };
    let request =
        Request { model: found.file.clone(), client: caller.client, input, options, keep_alive, accepted: caller.accepted };
    let begun = Begun::wait(app.scheduler.submit(request)?).await?;
    Ok(Asked { found, begun })
}

/// Takes thoughts out of the answers before the last question.
fn forget_thoughts(messages: &mut [Value]) {
    let last = messages.iter().rposition(|message| message["role"] == "user").unwrap_or(0);
    for message in messages[..last].iter_mut().filter(|message| message["role"] == "assistant") {
        let text = message["content"].as_str().and_then(|text| text.trim_start().strip_prefix("<think>"));
        if let Some((_, said)) = text.and_then(|text| text.split_once("</think>")) {
            message["content"] = json!(said.trim_start());
        }
    }
}

/// Checks what the model must be able to do, and what is said to it: the model's own messages come first; its system prompt
/// too, unless the request begins with one.
fn input(fields: &Fields, found: &Found, messages: Vec<Value>, options: &mut scheduler::Options) -> Result<Input, ApiError> {
    let think = ask::think(fields, found, "chat")?;
    let tools = tools::read(fields)?;
    if !tools.is_empty() && !found.can("tools") {
        return Err(ApiError::bad_request(format!("{} does not support tools", found.installed.name.full())));
    }
    options.logprobs = ask::logprobs(fields)?;
    options.render_only = fields.truth("_debug_render_only")?.unwrap_or(false);
    let (tools, call) = tools::choose(fields, tools)?;
    options.constraint = call.map_or_else(|| ask::format(fields), |call| Ok(Some(call)))?;
    if messages.is_empty() {
        return Ok(Input::Load);
    }
    let system = found.installed.system().filter(|system| !system.is_empty() && messages[0]["role"] != "system");
    let mut all: Vec<Value> = system.into_iter().map(|system| json!({ "role": "system", "content": system })).collect();
    all.extend(ask::history(found));
    all.extend(messages);
    if found.installed.config.model_family == "qwen3" || found.installed.name.model() == "deepseek-r1" {
        forget_thoughts(&mut all);
    }
    Ok(Input::Chat {
        messages: all,
        template: found.template.clone(),
        tools,
        think,
        truncate: fields.truth("truncate")?.unwrap_or(true),
        context: Vec::new(),
    })
}
