//! `POST /api/chat`: messages in, the next message out.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use axum::extract::{ConnectInfo, FromRequestParts, State};
use axum::http::HeaderMap;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use scheduler::{Client, DoneReason, Event, Input, KeepAlive, Request};
use serde_json::{Value, json};

use super::answer::{Shape, at_once, respond};
use super::model::{Found, find};
use super::{keep_alive, options};
use crate::App;
use crate::error::ApiError;
use crate::json::Fields;

/// Messages of one request.
const N_MESSAGES_MAX: usize = 4096;
/// Alternatives a client may ask for at each token.
const TOP_LOGPROBS_MAX: i64 = 20;

pub(super) async fn chat(State(app): State<App>, peer: Peer, headers: HeaderMap, body: Bytes) -> Response {
    let accepted = Instant::now();
    answer(&app, peer, &headers, &body, accepted).await.unwrap_or_else(IntoResponse::into_response)
}

async fn answer(app: &App, peer: Peer, headers: &HeaderMap, body: &Bytes, accepted: Instant) -> Result<Response, ApiError> {
    let fields = Fields::parse("ChatRequest", body)?;
    check_top_logprobs(&fields)?;
    let model = fields.text("model")?.unwrap_or_default().to_owned();
    if model.trim().is_empty() {
        return Err(ApiError::bad_request("model is required"));
    }
    let found = find(app, &model).await?;
    let keep_alive = keep_alive::parse(fields.get("keep_alive"))?;
    let messages = messages(&fields, &found)?;
    let streamed = fields.truth("stream")?.unwrap_or(true);
    let unload = messages.is_empty() && keep_alive == Some(KeepAlive::For(Duration::ZERO));
    let input = if unload {
        Input::Unload
    } else {
        check_capabilities(&fields, &found, "chat")?;
        if !fields.list("tools")?.is_empty() {
            return Err(no_tools(&found));
        }
        if messages.is_empty() { Input::Load } else { chat_input(&fields, &found, messages)? }
    };
    let options =
        options::parse(&found.installed.parameters(), fields.object("options")?, fields.truth("shift")?.unwrap_or(true))?;
    let request = Request { model: found.file, client: client(peer, headers), input, options, keep_alive, accepted };
    let events = app.scheduler.submit(request)?;
    if unload {
        wait(events).await?;
        return Ok(at_once(&model, Shape::Chat, DoneReason::Unload));
    }
    Ok(respond(model, Shape::Chat, streamed, events).await)
}

/// The model's own messages come first; its system prompt too, unless the request begins with one.
fn chat_input(fields: &Fields, found: &Found, messages: Vec<Value>) -> Result<Input, ApiError> {
    let mut all = history(found);
    all.extend(messages);
    if all[0]["role"] != "system"
        && let Some(system) = found.installed.system().filter(|s| !s.is_empty())
    {
        all.insert(0, json!({ "role": "system", "content": system }));
    }
    let truncate = fields.truth("truncate")?.unwrap_or(true);
    Ok(Input::Chat {
        messages: all,
        truncate,
        context: Vec::new(),
        render_only: fields.truth("_debug_render_only")?.unwrap_or(false),
    })
}

/// The request's messages, with roles in lower case and everything else as it came.
fn messages(fields: &Fields, found: &Found) -> Result<Vec<Value>, ApiError> {
    let list = fields.list("messages")?;
    if list.len() > N_MESSAGES_MAX {
        return Err(ApiError::bad_request(format!("the request has {} messages, the limit is {N_MESSAGES_MAX}", list.len())));
    }
    list.iter().enumerate().map(|(index, message)| read_message(fields, found, index, message)).collect()
}

fn read_message(fields: &Fields, found: &Found, index: usize, message: &Value) -> Result<Value, ApiError> {
    let Value::Object(map) = message else {
        return Err(fields.wrong(&format!("messages[{index}]"), message, "api.Message"));
    };
    let get = |name: &str| {
        map.get(name)
            .or_else(|| map.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, v)| v))
            .filter(|v| !v.is_null())
    };
    let text = |name: &str| match get(name) {
        None => Ok(String::new()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(other) => Err(fields.wrong(&format!("messages[{index}].{name}"), other, "string")),
    };
    if get("images").is_some_and(|images| images.as_array().is_none_or(|list| !list.is_empty())) {
        return Err(ApiError::bad_request(no_images(found)));
    }
    let mut result = json!({ "role": text("role")?.to_lowercase(), "content": text("content")? });
    for name in ["thinking", "tool_name", "tool_call_id"] {
        if get(name).is_some() {
            result[name] = Value::String(text(name)?);
        }
    }
    if let Some(calls) = get("tool_calls") {
        result["tool_calls"] = calls.clone();
    }
    Ok(result)
}

/// Messages that the model's own description puts before every conversation.
pub(super) fn history(found: &Found) -> Vec<Value> {
    found.installed.messages().into_iter().map(|m| json!({ "role": m.role, "content": m.content })).collect()
}

pub(super) fn no_images(found: &Found) -> String {
    format!("{} does not support images", found.installed.name)
}

/// A model that lacks tools is refused as clients expect; one that has them cannot use them here yet.
fn no_tools(found: &Found) -> ApiError {
    if found.can("tools") {
        return ApiError::bad_request("tools are not supported by this version of Lantern");
    }
    ApiError::bad_request(format!("{} does not support tools", found.installed.name.full()))
}

/// Refuses what the model, or this version, cannot do: nothing is silently left out.
pub(super) fn check_capabilities(fields: &Fields, found: &Found, verb: &str) -> Result<(), ApiError> {
    let name = found.installed.name.to_string();
    if !found.can("completion") {
        return Err(ApiError::bad_request(format!("{name:?} does not support {verb}")));
    }
    let think = match fields.get("think") {
        None | Some(Value::Bool(false)) => false,
        Some(Value::Bool(true)) => true,
        Some(Value::String(level)) if ["high", "medium", "low", "max"].contains(&level.as_str()) => true,
        Some(Value::String(level)) => {
            let message =
                format!("invalid think value: {level:?} (must be \"high\", \"medium\", \"low\", \"max\", true, or false)");
            return Err(ApiError::bad_request(message));
        }
        Some(_) => {
            let message = "think must be a boolean or string (\"high\", \"medium\", \"low\", \"max\", true, or false)";
            return Err(ApiError::bad_request(message));
        }
    };
    if think {
        return Err(ApiError::bad_request(match found.can("thinking") {
            true => "think is not supported by this version of Lantern".to_owned(),
            false => format!("{name:?} does not support thinking"),
        }));
    }
    if fields.get("format").is_some_and(|format| format != "") {
        return Err(ApiError::bad_request("format is not supported by this version of Lantern"));
    }
    if fields.truth("logprobs")?.unwrap_or(false) {
        return Err(ApiError::bad_request("logprobs are not supported by this version of Lantern"));
    }
    Ok(())
}

pub(super) fn check_top_logprobs(fields: &Fields) -> Result<(), ApiError> {
    match fields.integer("top_logprobs")? {
        Some(n) if !(0..=TOP_LOGPROBS_MAX).contains(&n) => Err(ApiError::bad_request("top_logprobs must be between 0 and 20")),
        _ => Ok(()),
    }
}

/// Waits for the one event that ends a request without text.
pub(super) async fn wait(mut events: tokio::sync::mpsc::Receiver<Event>) -> Result<(), ApiError> {
    match events.recv().await {
        Some(Event::Failed(failure)) => Err(failure.into()),
        Some(_) => Ok(()),
        None => Err(ApiError::internal("the engine stopped unexpectedly")),
    }
}

/// Whose turn a request takes: its token where it sends one, else its address.
pub(super) fn client(peer: Peer, headers: &HeaderMap) -> Client {
    let token = headers.get(axum::http::header::AUTHORIZATION).and_then(|v| v.to_str().ok());
    Client(token.map_or_else(|| peer.0.map_or_else(String::new, |a| a.ip().to_string()), String::from))
}

/// The caller's address; none for a call within the process.
pub(super) struct Peer(Option<SocketAddr>);

impl<S: Sync> FromRequestParts<S> for Peer {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Peer, Self::Rejection> {
        Ok(Peer(parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0)))
    }
}
