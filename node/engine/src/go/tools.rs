//! Tools in the form in which Go templates are used to see them: the fields of Ollama's own types in their order, and what is
//! named by the caller sorted.

use serde_json::{Map, Value};

const TOOL: [&str; 3] = ["type", "items", "function"];
const FUNCTION: [&str; 3] = ["name", "description", "parameters"];
const PARAMETERS: [&str; 5] = ["type", "$defs", "items", "required", "properties"];
const PROPERTY: [&str; 7] = ["anyOf", "type", "items", "description", "enum", "properties", "required"];

/// The tools with their fields in order.
pub(super) fn in_order(tools: &[Value]) -> Vec<Value> {
    tools
        .iter()
        .cloned()
        .map(|mut tool| {
            sort(&mut tool, &TOOL);
            if let Some(function) = tool.get_mut("function") {
                sort(function, &FUNCTION);
                function.get_mut("parameters").into_iter().for_each(|parameters| properties(parameters, &PARAMETERS));
            }
            tool
        })
        .collect()
}

/// Sorts what has properties, and these. A list of one type is that type, and fields that hold nothing are left out.
fn properties(value: &mut Value, fields: &[&str]) {
    sort(value, fields);
    let Value::Object(value) = value else { return };
    for name in ["items", "$defs"] {
        value.get_mut(name).into_iter().for_each(Value::sort_all_objects);
    }
    if let Some(Value::Object(named)) = value.get_mut("properties") {
        named.sort_keys();
        named.values_mut().for_each(|property| properties(property, &PROPERTY));
    }
    if let Some(Value::Array(choices)) = value.get_mut("anyOf") {
        choices.iter_mut().for_each(|choice| properties(choice, &PROPERTY));
    }
    if let Some([Value::String(kind)]) = value.get("type").and_then(Value::as_array).map(Vec::as_slice) {
        value["type"] = kind.clone().into();
    }
    value.retain(|name, value| {
        let is_empty = value.is_null() || value == "" || value.as_array().is_some_and(Vec::is_empty);
        !is_empty || name == "properties" || !fields.contains(&name.as_str())
    });
}

/// Puts the fields of an object in order; others follow.
fn sort(value: &mut Value, fields: &[&str]) {
    if let Value::Object(object) = value {
        let mut left = std::mem::take(object);
        let known = fields.iter().filter_map(|name| left.shift_remove_entry(*name));
        let mut sorted: Map<String, Value> = known.collect();
        sorted.extend(left);
        *object = sorted;
    }
}
