//! Values and JSON as Python templates see them.

use std::borrow::Cow;
use std::fmt::{self, Display};
use std::sync::Arc;

use minijinja::value::{Enumerator, Kwargs, Object, ObjectRepr, Rest, Value, ValueKind, ValueOrKwargs};
use minijinja::{Environment, Error, ErrorKind, State, filters};

/// A JSON null. The engine's own none iterates as an empty list and holds nothing, where Python raises; this one's only item
/// is an error.
#[derive(Debug)]
struct None;

impl Object for None {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Iterable
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        let error = Error::new(ErrorKind::InvalidOperation, "none is not iterable");
        Enumerator::Iter(Box::new(std::iter::once(Value::from(error))))
    }

    fn is_true(self: &Arc<Self>) -> bool {
        false
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("None")
    }
}

/// A JSON value for a template.
pub(super) fn value(json: &serde_json::Value) -> Value {
    match json {
        serde_json::Value::Null => Value::from_object(None),
        serde_json::Value::Bool(truth) => Value::from(*truth),
        serde_json::Value::Number(number) => {
            let whole = number.as_i64().map(Value::from).or_else(|| number.as_u64().map(Value::from));
            whole.unwrap_or_else(|| Value::from(number.as_f64().unwrap_or(f64::NAN)))
        }
        serde_json::Value::String(text) => Value::from(text),
        serde_json::Value::Array(items) => Value::from(items.iter().map(value).collect::<Vec<_>>()),
        serde_json::Value::Object(entries) => Value::from_pairs(entries.iter().map(|(key, item)| (key.clone(), value(item)))),
    }
}

/// Python's `is None`.
/// Spaces that a filter may put before a line.
const WIDTH_MAX: usize = 256;

fn is_none(value: &Value) -> bool {
    value.is_none() || value.downcast_object_ref::<None>().is_some()
}

/// Filters and tests that differ from Python's: those that give a generator there, which has no length and no JSON form,
/// and take none for an empty list; `indent`, which keeps a last newline; and what is none or iterable.
pub(super) fn add_filters(environment: &mut Environment) {
    type Arguments = Rest<ValueOrKwargs>;
    environment.add_filter("map", |state: &mut State, value: Value, arguments: Arguments| {
        filters::map(state, list(value), arguments).map(generator)
    });
    environment.add_filter("select", |state: &mut State, value: Value, test: Option<Cow<'_, str>>, arguments: Arguments| {
        filters::select(state, list(value), test, arguments).map(generator)
    });
    environment.add_filter("reject", |state: &mut State, value: Value, test: Option<Cow<'_, str>>, arguments: Arguments| {
        filters::reject(state, list(value), test, arguments).map(generator)
    });
    environment.add_filter(
        "selectattr",
        |state: &mut State, value: Value, name: Cow<'_, str>, test: Option<Cow<'_, str>>, arguments: Arguments| {
            filters::selectattr(state, list(value), name, test, arguments).map(generator)
        },
    );
    environment.add_filter(
        "rejectattr",
        |state: &mut State, value: Value, name: Cow<'_, str>, test: Option<Cow<'_, str>>, arguments: Arguments| {
            filters::rejectattr(state, list(value), name, test, arguments).map(generator)
        },
    );
    environment.add_filter("format", |state: &mut State, format: &Value, arguments: Arguments| {
        // Widths of more than three digits, and those that come as arguments, would fill memory with spaces.
        let text = format.as_str().unwrap_or_default();
        let wide = text.contains('*') || text.as_bytes().windows(4).any(|part| part.iter().all(u8::is_ascii_digit));
        if wide { Err(too_wide(text)) } else { filters::format(state, format, arguments) }
    });
    environment.add_filter("indent", indent);
    environment.add_filter("tojson", to_json);
    environment.add_test("none", is_none);
    environment.add_test("iterable", |value: &Value| !is_none(value) && value.try_iter().is_ok());
}

fn too_wide(found: impl Display) -> Error {
    Error::new(ErrorKind::InvalidOperation, format!("{found:.40} is wider than {WIDTH_MAX} characters"))
}

fn list(value: Value) -> Value {
    if is_none(&value) { Value::from(Vec::<Value>::new()) } else { value }
}

fn generator(items: Vec<Value>) -> Value {
    Value::make_iterable(move || items.clone().into_iter())
}

/// Every line but the first, and the first if asked, behind `width` spaces; empty lines stay empty unless `blank` is set.
fn indent(text: String, width: Option<usize>, first: Option<bool>, blank: Option<bool>, named: Kwargs) -> Result<String, Error> {
    let width = width.or(named.get("width")?).unwrap_or(4);
    if width > WIDTH_MAX {
        return Err(too_wide(width));
    }
    let first = first.or(named.get("first")?).unwrap_or(false);
    let blank = blank.or(named.get("blank")?).unwrap_or(false);
    named.assert_all_used()?;
    let line = |(index, line): (usize, &str)| match index == 0 && !first || index > 0 && line.is_empty() && !blank {
        true => line.to_owned(),
        false => " ".repeat(width) + line,
    };
    Ok(text.split('\n').enumerate().map(line).collect::<Vec<_>>().join("\n"))
}

/// Python's `json.dumps` with `ensure_ascii=False` as the default: `, ` and `: ` between items, or lines with `indent`.
fn to_json(value: &Value, options: Kwargs) -> Result<String, Error> {
    let indent: Option<usize> = options.get("indent")?;
    if let Some(width) = indent.filter(|width| *width > WIDTH_MAX) {
        return Err(too_wide(width));
    }
    let sort_keys: Option<bool> = options.get("sort_keys")?;
    let separators: Option<Vec<String>> = options.get("separators")?;
    let ascii: Option<bool> = options.get("ensure_ascii")?;
    options.assert_all_used()?;
    let style = Style {
        indent,
        sort_keys: sort_keys.unwrap_or(false),
        ascii: ascii.unwrap_or(false),
        item: separators
            .as_ref()
            .and_then(|s| s.first())
            .cloned()
            .unwrap_or_else(|| if indent.is_some() { ",".into() } else { ", ".into() }),
        key: separators.as_ref().and_then(|s| s.get(1)).cloned().unwrap_or_else(|| ": ".into()),
    };
    let mut out = String::new();
    write_json(value, &style, 0, &mut out)?;
    Ok(out)
}

struct Style {
    indent: Option<usize>,
    sort_keys: bool,
    ascii: bool,
    item: String,
    key: String,
}

fn write_json(value: &Value, style: &Style, depth: usize, out: &mut String) -> Result<(), Error> {
    match value.kind() {
        ValueKind::Undefined => return Err(Error::new(ErrorKind::InvalidOperation, "an undefined value has no JSON form")),
        _ if is_none(value) => out.push_str("null"),
        ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
        ValueKind::Number => out.push_str(&value.to_string()),
        ValueKind::Map => {
            let mut keys: Vec<Value> = value.try_iter()?.collect();
            if style.sort_keys {
                keys.sort_by_key(ToString::to_string);
            }
            write_items('{', '}', keys.into_iter(), style, depth, out, |key, out| {
                write_text(&key.to_string(), style.ascii, out);
                out.push_str(&style.key);
                write_json(&value.get_item(&key)?, style, depth + 1, out)
            })?;
        }
        ValueKind::Seq => {
            let items = value.try_iter()?;
            write_items('[', ']', items, style, depth, out, |item, out| write_json(&item, style, depth + 1, out))?;
        }
        ValueKind::String => write_text(&value.to_string(), style.ascii, out),
        other => return Err(Error::new(ErrorKind::InvalidOperation, format!("a {other} has no JSON form"))),
    }
    Ok(())
}

fn write_items(
    open: char,
    close: char,
    items: impl Iterator<Item = Value>,
    style: &Style,
    depth: usize,
    out: &mut String,
    mut write: impl FnMut(Value, &mut String) -> Result<(), Error>,
) -> Result<(), Error> {
    let line = |depth: usize, out: &mut String| {
        if let Some(indent) = style.indent {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', indent * depth));
        }
    };
    out.push(open);
    let mut empty = true;
    for item in items {
        if !std::mem::take(&mut empty) {
            out.push_str(&style.item);
        }
        line(depth + 1, out);
        write(item, out)?;
    }
    if !empty {
        line(depth, out);
    }
    out.push(close);
    Ok(())
}

/// A JSON text with Python's escapes: quotes, backslashes and control characters, and with `ascii` all that is not.
fn write_text(text: &str, ascii: bool, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            c if u32::from(c) < 0x20 => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c if ascii && !c.is_ascii() => {
                c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| out.push_str(&format!("\\u{unit:04x}")))
            }
            c => out.push(c),
        }
    }
    out.push('"');
}
