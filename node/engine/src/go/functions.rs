//! The functions templates may call, and how values are compared and shown.

use std::cmp::Ordering;

use serde_json::{Value, json};

/// Their names.
pub(super) const NAMES: [&str; 19] = [
    "and",
    "or",
    "not",
    "eq",
    "ne",
    "lt",
    "le",
    "gt",
    "ge",
    "len",
    "index",
    "slice",
    "print",
    "printf",
    "println",
    "json",
    "currentDate",
    "yesterdayDate",
    "toTypeScriptType",
];

/// Calls a function; the errors are those of its operands.
pub(super) fn call(name: &str, operands: &[Value], dates: &[String; 2]) -> Result<Value, String> {
    let needs =
        |n: usize| if operands.len() < n { Err(format!("{name} wants {n} operands, found {}", operands.len())) } else { Ok(()) };
    match name {
        "not" => needs(1).map(|()| json!(!truth(&operands[0]))),
        "eq" => needs(2).map(|()| json!(operands[1..].iter().any(|other| same(&operands[0], other)))),
        "ne" => needs(2).map(|()| json!(!same(&operands[0], &operands[1]))),
        "lt" | "le" | "gt" | "ge" => {
            needs(2)?;
            let order = compare(&operands[0], &operands[1])?;
            Ok(json!(match name {
                "lt" => order == Ordering::Less,
                "le" => order != Ordering::Greater,
                "gt" => order == Ordering::Greater,
                _ => order != Ordering::Less,
            }))
        }
        "len" => {
            needs(1)?;
            match &operands[0] {
                Value::String(text) => Ok(json!(text.len())),
                Value::Array(items) => Ok(json!(items.len())),
                Value::Object(map) => Ok(json!(map.len())),
                Value::Null => Ok(json!(0)),
                other => Err(format!("len of {other}")),
            }
        }
        "index" => {
            needs(1)?;
            operands[1..].iter().try_fold(operands[0].clone(), |value, key| index(&value, key))
        }
        "slice" => needs(1).and_then(|()| slice(&operands[0], &operands[1..])),
        "print" => Ok(json!(operands.iter().map(shown).collect::<String>())),
        "println" => Ok(json!(operands.iter().map(shown).collect::<Vec<_>>().join(" ") + "\n")),
        "printf" => needs(1).and_then(|()| printf(&shown(&operands[0]), &operands[1..])),
        "json" => needs(1).map(|()| json!(as_json(&operands[0]))),
        "currentDate" => Ok(json!(dates[0])),
        "yesterdayDate" => Ok(json!(dates[1])),
        "toTypeScriptType" => needs(1).map(|()| json!(type_script(&operands[0]))),
        other => Err(format!("function {other:?} not defined")),
    }
}

/// Whether a value counts as true: nothing, zero and what is empty do not.
pub(super) fn truth(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(truth) => *truth,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

/// A value as text: texts as they are, lists and objects as JSON.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::Array(_) | Value::Object(_) => as_json(value),
    }
}

/// JSON as Go writes it: without spaces, and with escapes for what matters to HTML.
fn as_json(value: &Value) -> String {
    let text = value.to_string();
    text.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        // What is not there compares as an empty text.
        (Value::Null, Value::String(text)) | (Value::String(text), Value::Null) => text.is_empty(),
        _ => a == b,
    }
}

fn compare(a: &Value, b: &Value) -> Result<Ordering, String> {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => Ok(a.as_f64().partial_cmp(&b.as_f64()).unwrap_or(Ordering::Equal)),
        (Value::String(a), Value::String(b)) => Ok(a.cmp(b)),
        _ => Err(format!("incompatible types for comparison: {a} and {b}")),
    }
}

fn index(value: &Value, key: &Value) -> Result<Value, String> {
    match (value, key) {
        (Value::Array(items), Value::Number(at)) => {
            let found = at.as_u64().and_then(|at| items.get(usize::try_from(at).ok()?));
            found.cloned().ok_or_else(|| format!("index out of range: {at} of {}", items.len()))
        }
        (Value::Object(map), Value::String(key)) => Ok(map.get(key).cloned().unwrap_or_default()),
        (Value::Null, _) => Ok(Value::Null),
        _ => Err(format!("can't index {value} with {key}")),
    }
}

fn slice(value: &Value, bounds: &[Value]) -> Result<Value, String> {
    let len = match value {
        Value::Array(items) => items.len(),
        Value::String(text) => text.len(),
        other => return Err(format!("slice of {other}")),
    };
    let bound = |at: usize, default: usize| match bounds.get(at) {
        None => Ok(default),
        Some(bound) => {
            let found = bound.as_u64().and_then(|n| usize::try_from(n).ok()).filter(|n| *n <= len);
            found.ok_or_else(|| format!("slice out of range: {bound} of {len}"))
        }
    };
    let (from, to) = (bound(0, 0)?, bound(1, len)?);
    let range = from..to.max(from);
    match value {
        Value::Array(items) => Ok(Value::from(items[range].to_vec())),
        _ => {
            let text = value.as_str().unwrap_or_default();
            text.get(range).map(Value::from).ok_or_else(|| "slice within a character".into())
        }
    }
}

/// `%s`, `%v`, `%q`, `%d`, `%t`, `%f` and `%%`, with widths and precisions that are left out of account.
fn printf(format: &str, operands: &[Value]) -> Result<Value, String> {
    let (mut out, mut operands) = (String::new(), operands.iter());
    let mut characters = format.chars();
    while let Some(c) = characters.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let verb = characters.by_ref().find(|c| !(c.is_ascii_digit() || "+-# .".contains(*c)));
        match verb {
            Some('%') => out.push('%'),
            Some('s' | 'v' | 'd' | 't' | 'f' | 'g') => out.push_str(&operands.next().map_or("%!(MISSING)".into(), shown)),
            Some('q') => out.push_str(&operands.next().map_or("%!(MISSING)".into(), |v| Value::from(shown(v)).to_string())),
            other => return Err(format!("printf knows no %{}", other.unwrap_or(' '))),
        }
    }
    Ok(json!(out))
}

/// The type of a property of a tool, as TypeScript writes it.
fn type_script(property: &Value) -> String {
    let one = |kind: &str| match kind {
        "string" => "string".to_owned(),
        "integer" | "number" => "number".to_owned(),
        "boolean" => "boolean".to_owned(),
        "array" => {
            let items = property.get("items").filter(|items| items.is_object());
            items.map_or("any[]".into(), |items| format!("{}[]", type_script(items)))
        }
        "object" => "Record<string, any>".to_owned(),
        "null" => "null".to_owned(),
        _ => "any".to_owned(),
    };
    if let Some(Value::Array(choices)) = property.get("anyOf") {
        return choices.iter().map(type_script).collect::<Vec<_>>().join(" | ");
    }
    match property.get("type") {
        Some(Value::String(kind)) => one(kind),
        Some(Value::Array(kinds)) => kinds.iter().filter_map(Value::as_str).map(one).collect::<Vec<_>>().join(" | "),
        _ => "any".into(),
    }
}
