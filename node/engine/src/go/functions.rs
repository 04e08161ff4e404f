//! The functions templates may call, and how values are compared and shown.

use std::cmp::Ordering;
use std::iter::Peekable;
use std::str::Chars;

use super::datum::Datum;

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
pub(super) fn call(name: &str, operands: &[Datum], dates: &[String; 2]) -> Result<Datum, String> {
    let needs =
        |n: usize| if operands.len() < n { Err(format!("{name} wants {n} operands, found {}", operands.len())) } else { Ok(()) };
    match name {
        "not" => needs(1).map(|()| (!truth(&operands[0])).into()),
        "eq" => needs(2).map(|()| operands[1..].iter().any(|other| same(&operands[0], other)).into()),
        "ne" => needs(2).map(|()| (!same(&operands[0], &operands[1])).into()),
        "lt" | "le" | "gt" | "ge" => {
            needs(2)?;
            let order = compare(&operands[0], &operands[1])?;
            Ok(match name {
                "lt" => order == Ordering::Less,
                "le" => order != Ordering::Greater,
                "gt" => order == Ordering::Greater,
                _ => order != Ordering::Less,
            }
            .into())
        }
        "len" => {
            needs(1)?;
            match &operands[0] {
                Datum::Text(text) => Ok(text.len().into()),
                Datum::List(list) => Ok(list.items().len().into()),
                Datum::Map(entries) => Ok(entries.len().into()),
                Datum::Nothing => Ok(0.into()),
                other => Err(format!("len of {}", other.kind())),
            }
        }
        "index" => {
            needs(1)?;
            operands[1..].iter().try_fold(operands[0].clone(), |value, key| index(&value, key))
        }
        "slice" => needs(1).and_then(|()| slice(&operands[0], &operands[1..])),
        "print" => Ok(print(operands).into()),
        "println" => Ok((operands.iter().map(shown).collect::<Vec<_>>().join(" ") + "\n").into()),
        "printf" => needs(1).and_then(|()| printf(&shown(&operands[0]), &operands[1..])).map(Datum::from),
        "json" => needs(1).map(|()| operands[0].json().into()),
        "currentDate" => Ok(dates[0].as_str().into()),
        "yesterdayDate" => Ok(dates[1].as_str().into()),
        "toTypeScriptType" => needs(1).map(|()| type_script(&operands[0]).into()),
        other => Err(format!("function {other:?} not defined")),
    }
}

/// Whether a value counts as true: nothing, zero and what is empty do not.
pub(super) fn truth(value: &Datum) -> bool {
    match value {
        Datum::Nothing => false,
        Datum::Truth(truth) => *truth,
        Datum::Number(number) => number.as_f64() != Some(0.0),
        Datum::Text(text) => !text.is_empty(),
        Datum::List(list) => !list.items().is_empty(),
        Datum::Map(entries) => !entries.is_empty(),
    }
}

/// A value as text: texts as they are, lists of texts and numbers as Go prints them, other lists and objects as JSON.
pub(super) fn shown(value: &Datum) -> String {
    match value {
        Datum::Nothing => String::new(),
        Datum::Text(text) => text.to_string(),
        Datum::List(list) if !list.items().iter().any(|item| matches!(item, Datum::List(_) | Datum::Map(_))) => {
            let inside = |item: &Datum| if matches!(item, Datum::Nothing) { "<nil>".into() } else { shown(item) };
            format!("[{}]", list.items().iter().map(inside).collect::<Vec<_>>().join(" "))
        }
        Datum::Truth(_) | Datum::Number(_) | Datum::List(_) | Datum::Map(_) => value.json(),
    }
}

/// Operands after each other, with a space between two of which neither is a text.
fn print(operands: &[Datum]) -> String {
    let mut out = String::new();
    for (index, operand) in operands.iter().enumerate() {
        if index > 0 && operand.as_text().is_none() && operands[index - 1].as_text().is_none() {
            out.push(' ');
        }
        out.push_str(&shown(operand));
    }
    out
}

/// Whether two texts, numbers or truths are the same. What is not there compares as an empty text.
fn same(a: &Datum, b: &Datum) -> bool {
    match (a, b) {
        (Datum::Number(a), Datum::Number(b)) => a.as_f64() == b.as_f64(),
        (Datum::Nothing, Datum::Text(text)) | (Datum::Text(text), Datum::Nothing) => text.is_empty(),
        (Datum::Text(a), Datum::Text(b)) => a == b,
        (Datum::Truth(a), Datum::Truth(b)) => a == b,
        (Datum::Nothing, Datum::Nothing) => true,
        _ => false,
    }
}

fn compare(a: &Datum, b: &Datum) -> Result<Ordering, String> {
    match (a, b) {
        (Datum::Number(a), Datum::Number(b)) => Ok(a.as_f64().partial_cmp(&b.as_f64()).unwrap_or(Ordering::Equal)),
        (Datum::Text(a), Datum::Text(b)) => Ok(a.cmp(b)),
        _ => Err(format!("{} and {} cannot be compared", a.kind(), b.kind())),
    }
}

fn index(value: &Datum, key: &Datum) -> Result<Datum, String> {
    match (value, key) {
        (Datum::List(list), Datum::Number(at)) => {
            let found = key.as_count().and_then(|at| list.items().get(at));
            found.cloned().ok_or_else(|| format!("index out of range: {at} of {}", list.items().len()))
        }
        (Datum::Map(_), Datum::Text(key)) => Ok(value.get(key).cloned().unwrap_or_default()),
        (Datum::Nothing, _) => Ok(Datum::Nothing),
        _ => Err(format!("{} has no item at {}", value.kind(), key.kind())),
    }
}

fn slice(value: &Datum, bounds: &[Datum]) -> Result<Datum, String> {
    let len = match value {
        Datum::List(list) => list.items().len(),
        Datum::Text(text) => text.len(),
        other => return Err(format!("slice of {}", other.kind())),
    };
    let bound = |at: usize, default: usize| match bounds.get(at) {
        None => Ok(default),
        Some(bound) => {
            bound.as_count().filter(|n| *n <= len).ok_or_else(|| format!("slice out of range: {} of {len}", shown(bound)))
        }
    };
    let (from, to) = (bound(0, 0)?, bound(1, len)?);
    let to = to.max(from);
    match value {
        Datum::List(list) => Ok(Datum::List(list.part(from, to))),
        // Bounds count bytes. A character that is cut becomes a mark, where Go would leave half of it.
        _ => Ok(String::from_utf8_lossy(&value.as_text().unwrap_or_default().as_bytes()[from..to]).as_ref().into()),
    }
}

/// `%s`, `%v`, `%d`, `%t`, `%f`, `%g`, `%q` and `%%`, with widths that are numbers or `*`; precisions count for `%s` and `%f`.
fn printf(format: &str, operands: &[Datum]) -> Result<String, String> {
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
                return operands.next().and_then(Datum::as_count).unwrap_or(0);
            }
            let digits = std::iter::from_fn(|| rest.next_if(char::is_ascii_digit));
            digits.fold(0usize, |n, digit| n.saturating_mul(10).saturating_add(digit as usize - '0' as usize))
        };
        let width = number(&mut rest);
        let precision = rest.next_if_eq(&'.').map(|_| number(&mut rest));
        let mut operand = || operands.next();
        let text = match rest.next() {
            Some('%') => Some("%".into()),
            Some('f') => operand().map(|v| match v {
                Datum::Number(x) => format!("{:.*}", precision.unwrap_or(6).min(N_DIGITS_MAX), x.as_f64().unwrap_or_default()),
                _ => shown(v),
            }),
            Some('s') => operand().map(|v| shown(v).chars().take(precision.unwrap_or(usize::MAX)).collect()),
            Some('v' | 'd' | 't' | 'g') => operand().map(shown),
            Some('q') => operand().map(|v| Datum::from(shown(v)).json()),
            other => return Err(format!("printf knows no %{}", other.unwrap_or(' '))),
        }
        .unwrap_or_else(|| "%!(MISSING)".into());
        let n_missing = width.saturating_sub(text.chars().count());
        padding_left =
            padding_left.checked_sub(n_missing).ok_or_else(|| format!("printf pads with more than {PADDING_MAX} characters"))?;
        let padding = |c: &str| c.repeat(n_missing);
        match (flags.contains('-'), flags.contains('0')) {
            (true, _) => out.extend([text, padding(" ")]),
            (false, true) => {
                let digits = text.trim_start_matches('-');
                out.extend([&text[..text.len() - digits.len()], &padding("0"), digits]);
            }
            (false, false) => out.extend([padding(" "), text]),
        }
    }
    Ok(out)
}

/// The type of a property of a tool, as TypeScript writes it.
fn type_script(property: &Datum) -> String {
    let one = |kind: &str| match kind {
        "string" => "string".to_owned(),
        "integer" | "number" => "number".to_owned(),
        "boolean" => "boolean".to_owned(),
        "array" => {
            let items = property.get("items").filter(|items| matches!(items, Datum::Map(_)));
            items.map_or("any[]".into(), |items| format!("{}[]", type_script(items)))
        }
        "object" => "Record<string, any>".to_owned(),
        "null" => "null".to_owned(),
        _ => "any".to_owned(),
    };
    let all = |parts: Vec<String>| parts.join(" | ");
    match (property.get("anyOf"), property.get("type")) {
        (Some(Datum::List(choices)), _) => all(choices.items().iter().map(type_script).collect()),
        (_, Some(Datum::Text(kind))) => one(kind),
        (_, Some(Datum::List(kinds))) => all(kinds.items().iter().filter_map(Datum::as_text).map(one).collect()),
        _ => "any".into(),
    }
}
