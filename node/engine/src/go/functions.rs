//! The functions templates may call, and how values are compared and shown.

use std::cmp::Ordering;
use std::iter::Peekable;
use std::str::Chars;

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

/// Characters one `printf` may add to what it prints: templates count with widths.
const PADDING_MAX: usize = 65_536;
/// Digits behind the point that a number is printed with at most.
const N_DIGITS_MAX: usize = 64;

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
        "print" => Ok(json!(print(operands))),
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

/// A value as text: texts as they are, lists of texts and numbers as Go prints them, other lists and objects as JSON.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::Array(items) if !items.iter().any(|item| item.is_array() || item.is_object()) => {
            format!("[{}]", items.iter().map(shown).collect::<Vec<_>>().join(" "))
        }
        Value::Array(_) | Value::Object(_) => as_json(value),
    }
}

/// JSON as Go writes it: without spaces, and with escapes for what matters to HTML.
fn as_json(value: &Value) -> String {
    let text = value.to_string();
    text.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

/// Operands after each other, with a space between two of which neither is a text.
fn print(operands: &[Value]) -> String {
    let mut out = String::new();
    for (index, operand) in operands.iter().enumerate() {
        if index > 0 && !operand.is_string() && !operands[index - 1].is_string() {
            out.push(' ');
        }
        out.push_str(&shown(operand));
    }
    out
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

/// `%s`, `%v`, `%d`, `%t`, `%f`, `%g`, `%q` and `%%`, with widths that are numbers or `*`; precisions count for `%s` and `%f`.
fn printf(format: &str, operands: &[Value]) -> Result<Value, String> {
    let (mut out, mut operands) = (String::new(), operands.iter());
    let mut padding_left = PADDING_MAX;
    let mut rest = format.chars().peekable();
    while let Some(c) = rest.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut flags = String::new();
        while let Some(flag) = rest.next_if(|c| "+-# 0".contains(*c)) {
            flags.push(flag);
        }
        let mut number = |rest: &mut Peekable<Chars>| {
            if rest.next_if_eq(&'*').is_some() {
                return operands.next().and_then(Value::as_u64).map_or(0, |n| usize::try_from(n).unwrap_or(usize::MAX));
            }
            let digits = std::iter::from_fn(|| rest.next_if(char::is_ascii_digit));
            digits.fold(0usize, |n, digit| n.saturating_mul(10).saturating_add(digit as usize - '0' as usize))
        };
        let width = number(&mut rest);
        let precision = rest.next_if_eq(&'.').map(|_| number(&mut rest));
        let mut operand = || operands.next();
        let text = match rest.next() {
            Some('%') => Some("%".into()),
            Some('f') => operand().map(|v| match v.as_f64() {
                Some(x) => format!("{x:.*}", precision.unwrap_or(6).min(N_DIGITS_MAX)),
                None => shown(v),
            }),
            Some('s') => operand().map(|v| shown(v).chars().take(precision.unwrap_or(usize::MAX)).collect()),
            Some('v' | 'd' | 't' | 'g') => operand().map(shown),
            Some('q') => operand().map(|v| Value::from(shown(v)).to_string()),
            other => return Err(format!("printf knows no %{}", other.unwrap_or(' '))),
        }
        .unwrap_or_else(|| "%!(MISSING)".into());
        let n_missing = width.saturating_sub(text.chars().count());
        padding_left =
            padding_left.checked_sub(n_missing).ok_or(format!("printf pads with more than {PADDING_MAX} characters"))?;
        let padding = |c: &str| c.repeat(n_missing);
        match (flags.contains('-'), flags.contains('0')) {
            (true, _) => out.extend([text, padding(" ")]),
            (false, true) => out.extend([padding("0"), text]),
            (false, false) => out.extend([padding(" "), text]),
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
