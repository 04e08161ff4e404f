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
            let function = &mut tool["function"];
            sort(function, &FUNCTION);
            if let Some(parameters) = function.get_mut("parameters") {
                properties(parameters, &PARAMETERS);
            }
            tool
        })
        .collect()
}

/// Sorts what has properties, and these. Lists of nothing are left out.
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
    value.retain(|name, value| !(["required", "enum", "anyOf"].contains(&name.as_str()) && value == &Value::Array(Vec::new())));
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
