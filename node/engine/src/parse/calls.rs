//! The text of one or several calls to their names and arguments.

use serde_json::{Map, Value};

use super::{FENCE, ToolCall, literal};

/// Texts that may stand before, between and after calls without meaning anything more.
const ENDS: [&str; 3] = ["[/TOOL_CALLS]", "<|/tool_call|>", "</function_calls>"];

/// The calls in a text, if that is all it holds and each names a tool on offer; none otherwise.
pub(super) fn read(text: &str, marks: &[&str], tools: &[String]) -> Vec<ToolCall> {
    let text = unfenced(without_marks(text.trim(), marks));
    let found = json(text, marks).or_else(|| named(text, marks)).or_else(|| tagged(text)).or_else(|| literal::calls(text));
    found.filter(|calls| calls.iter().all(|call| tools.contains(&call.name))).unwrap_or_default()
}

/// The text without marks at both ends.
fn without_marks<'a>(text: &'a str, marks: &[&str]) -> &'a str {
    let mut text = text;
    let all = || marks.iter().chain(&ENDS);
    while let Some(rest) = all().find_map(|mark| text.strip_prefix(mark)) {
        text = rest.trim_start();
    }
    while let Some(rest) = all().find_map(|mark| text.strip_suffix(mark)) {
        text = rest.trim_end();
    }
    text
}

/// The inside of a block of code, whatever its language is called.
fn unfenced(text: &str) -> &str {
    let Some(inside) = text.strip_prefix(FENCE) else { return text };
    let inside = inside.split_once('\n').map_or("", |(_, rest)| rest);
    inside.trim_end().strip_suffix(FENCE).unwrap_or(inside).trim()
}

/// JSON objects or lists of them, one after the other.
fn json(text: &str, marks: &[&str]) -> Option<Vec<ToolCall>> {
    let mut calls = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let mut reader = serde_json::Deserializer::from_str(rest).into_iter::<Value>();
        let value = reader.next()?.ok()?;
        rest = &rest[reader.byte_offset()..];
        match value {
            Value::Array(items) => calls.extend(items.into_iter().map(call).collect::<Option<Vec<_>>>()?),
            value => calls.push(call(value)?),
        }
        rest = without_marks(rest.trim_start_matches([' ', '\n', '\r', '\t', ',', ';']), marks);
    }
    (!calls.is_empty()).then_some(calls)
}

/// `{"name": …, "arguments": {…}}`, with the parts by any of the names families have for them.
fn call(value: Value) -> Option<ToolCall> {
    let Value::Object(mut object) = value else { return None };
    if let Some(Value::Object(inner)) = object.get_mut("function") {
        object = std::mem::take(inner);
    }
    let name = ["name", "function", "tool_name"].iter().find_map(|key| object.get(*key)?.as_str().map(String::from))?;
    let given = ["arguments", "parameters", "args", "tool_arguments"].iter().find_map(|key| object.get(*key).cloned());
    Some(ToolCall { name, arguments: arguments(given.unwrap_or(Value::Null))? })
}

/// Arguments as an object, also where they are written as the text of one.
fn arguments(value: Value) -> Option<Map<String, Value>> {
    match value {
        Value::Null => Some(Map::new()),
        Value::Object(map) => Some(map),
        Value::String(text) => serde_json::from_str(&text).ok(),
        _ => None,
    }
}

/// `name[ARGS]{…}`, with an id between them in some versions, or the name and the object alone: Mistral since 2025.
fn named(text: &str, marks: &[&str]) -> Option<Vec<ToolCall>> {
    let mut calls = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let brace = rest.find('{')?;
        let (head, object) = rest.split_at(brace);
        let name = head.split('[').next()?.trim();
        let mut reader = serde_json::Deserializer::from_str(object).into_iter::<Value>();
        calls.push(ToolCall { name: name.to_owned(), arguments: arguments(reader.next()?.ok()?)? });
        rest = without_marks(object[reader.byte_offset()..].trim_start(), marks);
    }
    (!calls.is_empty()).then_some(calls)
}

/// `<function=name><parameter=key>value</parameter></function>`: Qwen3-Coder. A value that is JSON other than a text is
/// taken as such.
fn tagged(text: &str) -> Option<Vec<ToolCall>> {
    let mut calls = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (name, body) = rest.strip_prefix("<function=")?.split_once('>')?;
        let (body, after) = body.split_once("</function>").unwrap_or((body, ""));
        let mut arguments = Map::new();
        for parameter in body.split("<parameter=").skip(1) {
            let (key, value) = parameter.split_once('>')?;
            let value = value.split_once("</parameter>").map_or(value, |(value, _)| value);
            let value = value.strip_prefix('\n').unwrap_or(value);
            let value = value.strip_suffix('\n').unwrap_or(value);
            let typed = serde_json::from_str(value).ok().filter(|v: &Value| !v.is_string());
            arguments.insert(key.trim().to_owned(), typed.unwrap_or_else(|| Value::from(value)));
        }
        calls.push(ToolCall { name: name.trim().to_owned(), arguments });
        rest = after.trim_start();
    }
    (!calls.is_empty()).then_some(calls)
}
