//! The messages of a chat.

use serde_json::{Map, Value, json};

use super::ask::no_images;
use super::model::Found;
use crate::error::ApiError;
use crate::json::Fields;

/// Messages of one request.
const N_MESSAGES_MAX: usize = 4096;

/// The request's messages, with roles in lower case.
pub(super) fn messages(fields: &Fields, found: &Found) -> Result<Vec<Value>, ApiError> {
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
    let text = |name: &str| match any_case(map, name) {
        None => Ok(String::new()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(other) => Err(fields.wrong(&format!("messages[{index}].{name}"), other, "string")),
    };
    if any_case(map, "images").is_some_and(|images| images.as_array().is_none_or(|list| !list.is_empty())) {
        return Err(ApiError::bad_request(no_images(found)));
    }
    let mut result = json!({ "role": text("role")?.to_lowercase(), "content": text("content")? });
    for name in ["thinking", "tool_name", "tool_call_id"] {
        if any_case(map, name).is_some() {
            result[name] = Value::String(text(name)?);
        }
    }
    if let Some(calls) = any_case(map, "tool_calls") {
        let at = format!("messages[{index}].tool_calls");
        let list = calls.as_array().ok_or_else(|| fields.wrong(&at, calls, "slice"))?;
        if !list.is_empty() {
            result["tool_calls"] = list.iter().map(|call| read_call(fields, &at, call)).collect::<Result<_, _>>()?;
        }
    }
    Ok(result)
}

/// A call that was made earlier, as templates read it.
fn read_call(fields: &Fields, at: &str, call: &Value) -> Result<Value, ApiError> {
    let function = call.as_object().and_then(|map| any_case(map, "function")).unwrap_or(call);
    let Value::Object(function) = function else {
        return Err(fields.wrong(&format!("{at}.function"), function, "api.ToolCallFunction"));
    };
    let name = match any_case(function, "name") {
        None => "",
        Some(Value::String(name)) => name,
        Some(other) => return Err(fields.wrong(&format!("{at}.function.name"), other, "string")),
    };
    let arguments = match any_case(function, "arguments") {
        None => json!({}),
        Some(arguments @ Value::Object(_)) => arguments.clone(),
        Some(other) => return Err(fields.wrong(&format!("{at}.function.arguments"), other, "map")),
    };
    let mut result = json!({ "type": "function", "function": { "name": name, "arguments": arguments } });
    if let Some(id) = call.get("id").filter(|id| id.is_string()) {
        result["id"] = id.clone();
    }
    Ok(result)
}

fn any_case<'a>(map: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    let other = || map.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value);
    map.get(name).or_else(other).filter(|value| !value.is_null())
}
