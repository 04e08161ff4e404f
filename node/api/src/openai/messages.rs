//! Messages of this dialect as those of Ollama's.

use serde_json::{Map, Value, json};

use crate::error::ApiError;
use crate::json::Fields;

/// What begins a picture in a data URL.
const PICTURES: [&str; 5] =
    ["data:image/jpeg;base64,", "data:image/jpg;base64,", "data:image/png;base64,", "data:image/webp;base64,", "data:;base64,"];

/// The request's messages; each part of a content becomes a message of its own.
pub(super) fn native(fields: &Fields) -> Result<Vec<Value>, ApiError> {
    let list = fields.list("messages")?;
    if list.is_empty() {
        return Err(ApiError::bad_request("[] is too short - 'messages'"));
    }
    let mut result = Vec::with_capacity(list.len());
    for (index, message) in list.iter().enumerate() {
        let Value::Object(message) = message else {
            return Err(fields.wrong(&format!("messages[{index}]"), message, "Message"));
        };
        one(fields, index, message, list, &mut result)?;
    }
    Ok(result)
}

fn one(
    fields: &Fields,
    index: usize,
    message: &Map<String, Value>,
    all: &[Value],
    result: &mut Vec<Value>,
) -> Result<(), ApiError> {
    let text = |name: &str| match message.get(name) {
        None | Some(Value::Null) => Ok(""),
        Some(Value::String(text)) => Ok(text.as_str()),
        Some(other) => Err(fields.wrong(&format!("messages[{index}].{name}"), other, "string")),
    };
    let role = text("role")?;
    let mut base = json!({ "role": role });
    let thinking = ["reasoning", "reasoning_content"].iter().find_map(|name| message.get(*name)?.as_str());
    if let Some(thinking) = thinking {
        base["thinking"] = json!(thinking);
    }
    let calls = match message.get("tool_calls") {
        Some(Value::Array(calls)) => calls.iter().map(call).collect::<Result<Vec<_>, _>>()?,
        _ => Vec::new(),
    };
    if !calls.is_empty() {
        base["tool_calls"] = json!(calls);
    }
    if role == "tool" {
        let id = text("tool_call_id")?;
        base["tool_call_id"] = json!(id);
        base["tool_name"] = json!(Some(text("name")?).filter(|n| !n.is_empty()).or_else(|| name_of(all, id)).unwrap_or_default());
    }
    match message.get("content") {
        None | Some(Value::Null) if calls.is_empty() => {
            return Err(ApiError::bad_request(format!("invalid message content type: <nil> (messages[{index}])")));
        }
        None | Some(Value::Null) => {
            base["content"] = json!("");
            result.push(base);
        }
        Some(Value::String(content)) => {
            base["content"] = json!(content);
            result.push(base);
        }
        Some(Value::Array(parts)) => {
            for (at, part) in parts.iter().enumerate() {
                let mut message = base.clone();
                message
                    .as_object_mut()
                    .expect("made an object")
                    .extend(content(part, &format!("messages[{index}].content[{at}]"))?);
                result.push(message);
                // Calls and thinking belong to the message once.
                base = json!({ "role": role });
            }
        }
        Some(other) => {
            let kind = crate::json::kind(other);
            return Err(ApiError::bad_request(format!("invalid message content type: {kind} (messages[{index}])")));
        }
    }
    Ok(())
}

/// One part of a content: text, or a picture.
fn content(part: &Value, at: &str) -> Result<Map<String, Value>, ApiError> {
    let invalid = || ApiError::bad_request(format!("invalid message format: {at} has type {}", part["type"]));
    let object = |value: Value| value.as_object().cloned().unwrap_or_default();
    match part["type"].as_str() {
        Some("text" | "input_text" | "output_text") => {
            let text = part["text"].as_str().ok_or_else(invalid)?;
            Ok(object(json!({ "content": text })))
        }
        Some("image_url" | "input_image") => {
            let url = part["image_url"]["url"].as_str().or(part["image_url"].as_str()).ok_or_else(invalid)?;
            if url.starts_with("http://") || url.starts_with("https://") {
                let message = "image URLs are not currently supported, please use base64 encoded data instead";
                return Err(ApiError::bad_request(message));
            }
            let data = PICTURES.iter().find_map(|start| url.strip_prefix(start));
            let data = data.ok_or_else(|| ApiError::bad_request("invalid image input"))?;
            Ok(object(json!({ "content": "", "images": [data] })))
        }
        Some("input_audio") => {
            let data = part["input_audio"]["data"].as_str().ok_or_else(invalid)?;
            Ok(object(json!({ "content": "", "images": [data] })))
        }
        _ => Err(invalid()),
    }
}

/// An earlier call, whose arguments are the text of an object here.
fn call(call: &Value) -> Result<Value, ApiError> {
    let bad = || ApiError::bad_request("invalid tool call arguments");
    let arguments = match &call["function"]["arguments"] {
        Value::Null => json!({}),
        Value::String(text) if text.is_empty() => json!({}),
        Value::String(text) => serde_json::from_str(text).ok().filter(Value::is_object).ok_or_else(bad)?,
        _ => return Err(bad()),
    };
    Ok(json!({ "id": call["id"], "function": { "name": call["function"]["name"], "arguments": arguments } }))
}

/// The function that an earlier call of this id named.
fn name_of<'a>(all: &'a [Value], id: &str) -> Option<&'a str> {
    let calls = all.iter().filter_map(|message| message["tool_calls"].as_array()).flatten();
    calls.rev().find(|call| call["id"] == id)?["function"]["name"].as_str()
}
