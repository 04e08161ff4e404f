//! The tools a request offers, as templates show them, and which of them must be called.

use scheduler::Constraint;
use serde_json::{Map, Value, json};

use crate::error::ApiError;
use crate::json::Fields;

/// Tools of one request.
const N_TOOLS_MAX: usize = 128;
/// What templates are shown of a tool's parameters, and of each property.
const OF_PARAMETERS: [&str; 5] = ["type", "$defs", "items", "required", "properties"];
const OF_PROPERTY: [&str; 7] = ["anyOf", "type", "items", "description", "enum", "properties", "required"];

/// A tool on offer.
pub(super) struct Tool {
    name: String,
    /// What the template shows.
    shown: Value,
    /// The schema of its arguments as it came.
    parameters: Value,
}

/// The request's tools.
pub(super) fn read(fields: &Fields) -> Result<Vec<Tool>, ApiError> {
    let list = fields.list("tools")?;
    if list.len() > N_TOOLS_MAX {
        return Err(ApiError::bad_request(format!("the request has {} tools, the limit is {N_TOOLS_MAX}", list.len())));
    }
    list.iter().enumerate().map(|(index, tool)| read_tool(fields, index, tool)).collect()
}

fn read_tool(fields: &Fields, index: usize, tool: &Value) -> Result<Tool, ApiError> {
    let wrong = |part: &str, found: &Value, needed: &str| fields.wrong(&format!("tools[{index}]{part}"), found, needed);
    let function = &tool["function"];
    let Value::Object(given) = function else { return Err(wrong(".function", function, "api.ToolFunction")) };
    let Some(name) = given.get("name").and_then(Value::as_str) else {
        return Err(wrong(".function.name", &function["name"], "string"));
    };
    let parameters = match given.get("parameters") {
        None | Some(Value::Null) => json!({ "type": "object", "properties": {} }),
        Some(parameters @ Value::Object(_)) => parameters.clone(),
        Some(other) => return Err(wrong(".function.parameters", other, "api.ToolFunctionParameters")),
    };
    let mut shown = Map::new();
    shown.insert("name".into(), json!(name));
    if let Some(description) = given.get("description").filter(|d| d.is_string()) {
        shown.insert("description".into(), description.clone());
    }
    shown.insert("parameters".into(), shown_parameters(&parameters));
    let kind = tool["type"].as_str().unwrap_or("function");
    Ok(Tool { name: name.to_owned(), shown: json!({ "type": kind, "function": shown }), parameters })
}

fn shown_parameters(parameters: &Value) -> Value {
    let mut shown = only(parameters, &OF_PARAMETERS);
    if let Some(Value::Object(properties)) = shown.get_mut("properties") {
        properties.values_mut().for_each(|property| *property = shown_property(property));
    }
    shown
}

fn shown_property(property: &Value) -> Value {
    let mut shown = only(property, &OF_PROPERTY);
    if let Some(Value::Object(properties)) = shown.get_mut("properties") {
        properties.values_mut().for_each(|inner| *inner = shown_property(inner));
    }
    if let Some(Value::Array(choices)) = shown.get_mut("anyOf") {
        choices.iter_mut().for_each(|choice| *choice = shown_property(choice));
    }
    shown
}

/// The entries of an object that have one of these names, in its own order.
fn only(value: &Value, names: &[&str]) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.iter().filter(|(key, _)| names.contains(&key.as_str())).map(|(k, v)| (k.clone(), v.clone())).collect(),
        ),
        other => other.clone(),
    }
}

/// The tools the template is to show, and the call the answer must be: `tool_choice` is an extension of this dialect that
/// OpenAI's has, `auto` (as without it), `none`, `required`, or the name of a function.
pub(super) fn choose(fields: &Fields, tools: Vec<Tool>) -> Result<(Vec<Value>, Option<Constraint>), ApiError> {
    let choice = fields.get("tool_choice");
    let kind = choice.and_then(|c| c.as_str().or(c["type"].as_str()));
    let name = choice.and_then(|c| c["function"]["name"].as_str().or(c["name"].as_str()));
    let name = name.or(kind.filter(|kind| tools.iter().any(|tool| tool.name == *kind)));
    let callable: Vec<&Tool> = match (kind, name) {
        (None, None) if choice.is_none() => Vec::new(),
        (Some("auto"), None) => Vec::new(),
        (Some("none"), _) => return Ok((Vec::new(), None)),
        (Some("required" | "any"), _) if tools.is_empty() => {
            return Err(ApiError::bad_request("tool_choice asks for a call, and the request has no tools"));
        }
        (Some("required" | "any"), _) => tools.iter().collect(),
        (_, Some(name)) => {
            let found: Vec<&Tool> = tools.iter().filter(|tool| tool.name == name).collect();
            if found.is_empty() {
                return Err(ApiError::bad_request(format!("tool_choice names {name:?}, which is none of the request's tools")));
            }
            found
        }
        _ => {
            let choice = choice.unwrap_or(&Value::Null);
            let message = format!("tool_choice is {choice}, needed is \"auto\", \"none\", \"required\" or a function's name");
            return Err(ApiError::bad_request(message));
        }
    };
    let call = callable.iter().map(|tool| (tool.name.clone(), tool.parameters.clone())).collect::<Vec<_>>();
    Ok((tools.into_iter().map(|tool| tool.shown).collect(), (!call.is_empty()).then_some(Constraint::Call(call))))
}
