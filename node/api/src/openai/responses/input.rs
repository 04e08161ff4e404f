//! The input items of a response as a chat in Ollama's words.

use serde_json::{Map, Value, json};

use super::super::{options, think};
use crate::error::ApiError;
use crate::json::Fields;

/// The request in Ollama's words.
pub(super) fn native(fields: &Fields) -> Result<Fields, ApiError> {
    let mut native = Map::new();
    let mut messages = Vec::new();
    if let Some(instructions) = fields.text("instructions")?.filter(|i| !i.is_empty()) {
        messages.push(json!({ "role": "system", "content": instructions }));
    }
    match fields.get("input") {
        Some(Value::String(text)) => messages.push(json!({ "role": "user", "content": text })),
        Some(Value::Array(items)) => {
            let mut names = Map::new();
            for (index, item) in items.iter().enumerate() {
                one(index, item, &mut names, &mut messages)?;
            }
        }
        Some(other) => return Err(fields.wrong("input", other, "string or slice of items")),
        None => return Err(ApiError::bad_request("the request has no input")),
    }
    native.insert("messages".into(), json!(messages));
    let options = options(fields, &["max_output_tokens"], &[("temperature", 1.0)])?;
    native.insert("options".into(), Value::Object(options));
    let format = fields.object("text")?.and_then(|t| t.get("format")?.as_object());
    if let Some(format) = format.filter(|f| f.get("type") == Some(&json!("json_schema"))) {
        native.insert("format".into(), format.get("schema").cloned().unwrap_or(Value::Null));
    }
    if let Some(think) = think(fields)? {
        native.insert("think".into(), think);
    }
    let tools = fields.list("tools")?.iter().flat_map(|t| tools(t, "")).collect::<Vec<_>>();
    if !tools.is_empty() {
        native.insert("tools".into(), json!(tools));
    }
    for name in ["model", "tool_choice", "keep_alive"] {
        if let Some(value) = fields.get(name) {
            native.insert(name.into(), value.clone());
        }
    }
    Ok(Fields::new("ResponsesRequest", native))
}

/// Flat tools as nested ones; those of a namespace carry its name. Tools a server would run itself are left out.
fn tools(tool: &Value, prefix: &str) -> Vec<Value> {
    match tool["type"].as_str() {
        Some("function") => {
            let name = format!("{prefix}{}", tool["name"].as_str().unwrap_or_default());
            let function = json!({ "name": name, "description": tool["description"], "parameters": tool["parameters"] });
            vec![json!({ "type": "function", "function": function })]
        }
        Some("namespace") => {
            let inner = tool["tools"].as_array().map_or(&[][..], Vec::as_slice);
            let prefix = format!("{}.", tool["name"].as_str().unwrap_or_default());
            inner.iter().flat_map(|t| self::tools(t, &prefix)).collect()
        }
        _ => Vec::new(),
    }
}

/// Adds one item's message. `names` knows the function of each call by its id.
fn one(index: usize, item: &Value, names: &mut Map<String, Value>, messages: &mut Vec<Value>) -> Result<(), ApiError> {
    let kind = item["type"].as_str().unwrap_or(if item["role"].is_string() { "message" } else { "" });
    match kind {
        "message" => {
            let role = if item["role"] == "developer" { "system" } else { item["role"].as_str().unwrap_or("user") };
            let mut message = content(index, &item["content"])?;
            message.insert("role".into(), json!(role));
            messages.push(Value::Object(message));
        }
        "function_call" => {
            let arguments = item["arguments"].as_str().filter(|a| !a.is_empty()).unwrap_or("{}");
            let arguments: Value = serde_json::from_str(arguments)
                .ok()
                .filter(Value::is_object)
                .ok_or_else(|| ApiError::bad_request(format!("input[{index}]: invalid tool call arguments")))?;
            names.insert(item["call_id"].as_str().unwrap_or_default().into(), item["name"].clone());
            let call = json!({ "id": item["call_id"], "function": { "name": item["name"], "arguments": arguments } });
            // Calls of one turn stand in one message.
            match messages.last_mut().filter(|m| m["role"] == "assistant") {
                Some(last) => {
                    if let Some(calls) = last.get_mut("tool_calls").and_then(Value::as_array_mut) {
                        calls.push(call);
                    } else {
                        last["tool_calls"] = json!([call]);
                    }
                }
                None => messages.push(json!({ "role": "assistant", "content": "", "tool_calls": [call] })),
            }
        }
        "function_call_output" => {
            let id = item["call_id"].as_str().unwrap_or_default();
            let output = match &item["output"] {
                Value::String(text) => text.clone(),
                parts @ Value::Array(_) => {
                    content(index, parts)?.remove("content").and_then(|c| Some(c.as_str()?.to_owned())).unwrap_or_default()
                }
                other => other.to_string(),
            };
            let name = names.get(id).cloned().unwrap_or_else(|| json!(""));
            messages.push(json!({ "role": "tool", "content": output, "tool_call_id": id, "tool_name": name }));
        }
        "reasoning" => {
            let parts = item["summary"].as_array().into_iter().flatten().filter_map(|part| part["text"].as_str());
            let text: String = parts.collect();
            if !text.is_empty() {
                messages.push(json!({ "role": "assistant", "content": "", "thinking": text }));
            }
        }
        // What another server searched the web for means nothing here.
        "web_search_call" => {}
        other => return Err(ApiError::bad_request(format!("input[{index}]: unknown input item type: {other:?}"))),
    }
    Ok(())
}

/// A content as one text and its pictures.
fn content(index: usize, content: &Value) -> Result<Map<String, Value>, ApiError> {
    let (mut text, mut images) = (String::new(), Vec::new());
    match content {
        Value::String(whole) => text.push_str(whole),
        Value::Null => {}
        Value::Array(parts) => {
            for part in parts {
                match part["type"].as_str() {
                    Some("input_text" | "output_text" | "text") => text.push_str(part["text"].as_str().unwrap_or_default()),
                    Some("input_image") => {
                        let url = part["image_url"].as_str().unwrap_or_default();
                        let data = url.split_once(";base64,").filter(|(kind, _)| kind.starts_with("data:"));
                        let (_, data) =
                            data.ok_or_else(|| ApiError::bad_request(format!("input[{index}]: invalid image input")))?;
                        images.push(json!(data));
                    }
                    Some("input_file") => {
                        return Err(ApiError::bad_request(format!("input[{index}]: file inputs are not currently supported")));
                    }
                    other => {
                        let message = format!("input[{index}]: unknown content type: {:?}", other.unwrap_or_default());
                        return Err(ApiError::bad_request(message));
                    }
                }
            }
        }
        other => {
            let kind = crate::json::kind(other);
            return Err(ApiError::bad_request(format!(
                "input[{index}]: content is {kind}, needed is a string or a list of parts"
            )));
        }
    }
    let mut result = Map::new();
    result.insert("content".into(), json!(text));
    if !images.is_empty() {
        result.insert("images".into(), Value::Array(images));
    }
    Ok(result)
}
