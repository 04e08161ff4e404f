//! Messages of this dialect as those of Ollama's.

use serde_json::{Map, Value, json};

use crate::App;
use crate::error::ApiError;
use crate::json::Fields;
use crate::ollama::model::find;

/// The request in Ollama's words.
pub(super) async fn native(app: &App, fields: &Fields) -> Result<Fields, ApiError> {
    let model = fields.text("model")?.unwrap_or_default();
    if model.is_empty() {
        return Err(ApiError::bad_request("model is required"));
    }
    let n_predict = fields.integer("max_tokens")?.filter(|n| *n > 0);
    let n_predict = n_predict.ok_or_else(|| ApiError::bad_request("max_tokens is required and must be positive"))?;
    let list = fields.list("messages")?;
    if list.is_empty() {
        return Err(ApiError::bad_request("messages is required"));
    }
    let mut messages = Vec::new();
    let system = system(fields)?;
    if !system.is_empty() {
        messages.push(json!({ "role": "system", "content": system }));
    }
    let mut names = Map::new();
    for (index, message) in list.iter().enumerate() {
        one(index, message, &mut names, &mut messages)?;
    }
    let mut options = Map::new();
    options.insert("num_predict".into(), json!(n_predict));
    for name in ["temperature", "top_p"] {
        options.extend(fields.number(name)?.map(|n| (name.to_owned(), n.clone())));
    }
    for name in ["top_k", "num_ctx"] {
        options.extend(fields.integer(name)?.map(|n| (name.to_owned(), json!(n))));
    }
    let stops = fields.list("stop_sequences")?;
    if let Some(other) = stops.iter().find(|stop| !stop.is_string()) {
        return Err(fields.wrong("stop_sequences", other, "string"));
    }
    if !stops.is_empty() {
        options.insert("stop".into(), stops.into());
    }
    let mut native = Map::new();
    native.insert("model".into(), json!(model));
    native.insert("messages".into(), json!(messages));
    native.insert("options".into(), Value::Object(options));
    let (tools, choice) = tools(fields)?;
    native.extend(tools.into_iter().map(|tools| ("tools".to_owned(), tools)));
    native.extend(choice.into_iter().map(|choice| ("tool_choice".to_owned(), choice)));
    native.extend(fields.get("keep_alive").map(|value| ("keep_alive".to_owned(), value.clone())));
    // On a model that cannot think the wish is dropped.
    if let Some(think) = think(fields)?
        && find(app, model).await?.can("thinking")
    {
        native.insert("think".into(), think);
    }
    Ok(Fields::new("MessagesRequest", native))
}

fn system(fields: &Fields) -> Result<String, ApiError> {
    match fields.get("system") {
        None => Ok(String::new()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(Value::Array(blocks)) => Ok(blocks.iter().filter_map(|block| block["text"].as_str()).collect()),
        Some(other) => Err(fields.wrong("system", other, "string or slice of blocks")),
    }
}

/// The tools in Ollama's shape, and which of them must be called.
fn tools(fields: &Fields) -> Result<(Option<Value>, Option<Value>), ApiError> {
    let tool = |tool: &Value| {
        let function = json!({ "name": tool["name"], "description": tool["description"], "parameters": tool["input_schema"] });
        json!({ "type": "function", "function": function })
    };
    let list = fields.list("tools")?;
    // Tools that the server runs itself have a type and no schema; there are none here.
    let own: Vec<Value> = list.iter().filter(|t| t.get("input_schema").is_some()).map(tool).collect();
    let choice = fields.object("tool_choice")?;
    let choice = choice.and_then(|choice| match choice.get("type").and_then(Value::as_str) {
        Some("any") => Some(json!("required")),
        Some("none") => Some(json!("none")),
        Some("tool") => Some(json!({ "function": { "name": choice.get("name") } })),
        _ => None,
    });
    Ok(((!own.is_empty()).then(|| json!(own)), choice))
}

fn think(fields: &Fields) -> Result<Option<Value>, ApiError> {
    match fields.object("thinking")?.and_then(|t| t.get("type")).and_then(Value::as_str) {
        Some("enabled" | "adaptive") => return Ok(Some(json!(true))),
        Some("disabled") => return Ok(Some(json!(false))),
        _ => {}
    }
    let effort = fields.object("output_config")?.and_then(|c| c.get("effort")).and_then(Value::as_str);
    Ok(effort.map(|effort| if effort == "xhigh" { json!("high") } else { json!(effort) }))
}

/// Adds one message's messages: results of tools come before the text of their turn.
fn one(index: usize, message: &Value, names: &mut Map<String, Value>, messages: &mut Vec<Value>) -> Result<(), ApiError> {
    let wrong = |what: &str| ApiError::bad_request(format!("messages[{index}]: {what}"));
    let role = message["role"].as_str().ok_or_else(|| wrong("role is required"))?;
    let blocks = match &message["content"] {
        Value::String(text) => {
            messages.push(json!({ "role": role, "content": text }));
            return Ok(());
        }
        Value::Array(blocks) => blocks,
        _ => return Err(wrong("content must be a string or a list of blocks")),
    };
    let (mut text, mut thinking, mut calls, mut images) = (String::new(), String::new(), Vec::new(), Vec::new());
    for block in blocks {
        match block["type"].as_str() {
            Some("text") => text.push_str(block["text"].as_str().ok_or_else(|| wrong("a text block has no text"))?),
            Some("thinking") => thinking.push_str(block["thinking"].as_str().unwrap_or_default()),
            Some("image") => images.push(image(block)?),
            Some("tool_use") => {
                let (Some(id), Some(name)) = (block["id"].as_str(), block["name"].as_str()) else {
                    return Err(wrong("a tool_use block needs id and name"));
                };
                names.insert(id.into(), json!(name));
                let input = if block["input"].is_object() { block["input"].clone() } else { json!({}) };
                calls.push(json!({ "id": id, "function": { "name": name, "arguments": input } }));
            }
            Some("tool_result") => {
                let id = block["tool_use_id"].as_str().unwrap_or_default();
                let name = names.get(id).cloned().unwrap_or_else(|| json!(""));
                let content = result_text(&block["content"]);
                messages.push(json!({ "role": "tool", "content": content, "tool_call_id": id, "tool_name": name }));
            }
            // Blocks of tools that a server runs itself, and those of versions to come, are left out.
            _ => {}
        }
    }
    if !text.is_empty() || !calls.is_empty() || !images.is_empty() || !thinking.is_empty() {
        let mut message = json!({ "role": role, "content": text });
        for (name, list) in [("tool_calls", calls), ("images", images)] {
            if !list.is_empty() {
                message[name] = json!(list);
            }
        }
        if !thinking.is_empty() {
            message["thinking"] = json!(thinking);
        }
        messages.push(message);
    }
    Ok(())
}

fn image(block: &Value) -> Result<Value, ApiError> {
    let kind = block["source"]["type"].as_str().unwrap_or_default();
    if kind != "base64" {
        let message = format!("invalid image source type: {kind}. Only base64 images are supported.");
        return Err(ApiError::bad_request(message));
    }
    Ok(block["source"]["data"].clone())
}

fn result_text(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(blocks) => blocks.iter().filter_map(|block| block["text"].as_str()).collect(),
        _ => String::new(),
    }
}
