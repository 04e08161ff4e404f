//! Bodies in and out, with the habits of the server that clients were written for: keys in any case, bytes after the first
//! value ignored, `<`, `>` and `&` escaped in answers.

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;
use serde::de::Deserialize;
use serde_json::{Map, Value};

use crate::error::ApiError;

/// Bytes of a request's body.
pub(crate) const BODY_BYTES_MAX: usize = 16 << 20;
/// Nesting of a request's body.
const DEPTH_MAX: usize = 64;
/// Values in a request: each takes some seventy bytes once it is parsed.
const N_VALUES_MAX: usize = 500_000;
/// Bytes of one text in a request.
const TEXT_BYTES_MAX: usize = 8 << 20;
/// Items of one list in a request.
const LIST_LEN_MAX: usize = 65_536;

/// The fields of a request's body.
#[derive(Debug)]
pub(crate) struct Fields {
    /// The request's name in error messages.
    request: &'static str,
    map: Map<String, Value>,
}

impl Fields {
    /// Parses a body that must be one JSON object.
    pub(crate) fn parse(request: &'static str, body: &Bytes) -> Result<Fields, ApiError> {
        if body.iter().all(u8::is_ascii_whitespace) {
            return Err(ApiError::bad_request("missing request body"));
        }
        Fields::read(request, body)
    }

    /// The same for dialects other than Ollama's, which say `EOF` of a body without anything in it.
    pub(crate) fn parse_compat(request: &'static str, body: &Bytes) -> Result<Fields, ApiError> {
        if body.iter().all(u8::is_ascii_whitespace) {
            return Err(ApiError::bad_request("EOF"));
        }
        Fields::read(request, body)
    }

    /// Fields made from those of another dialect.
    pub(crate) fn new(request: &'static str, map: Map<String, Value>) -> Fields {
        Fields { request, map }
    }

    fn read(request: &'static str, body: &Bytes) -> Result<Fields, ApiError> {
        check_depth(body)?;
        let mut reader = serde_json::Deserializer::from_slice(body);
        let value = Value::deserialize(&mut reader).map_err(|e| ApiError::bad_request(syntax_error(body, &e)))?;
        check_sizes(&value)?;
        match value {
            Value::Object(map) => Ok(Fields { request, map }),
            other => {
                Err(ApiError::bad_request(format!("json: cannot unmarshal {} into Go value of type api.{request}", kind(&other))))
            }
        }
    }

    /// A field by name: the exact spelling, else any case. `null` counts as absent.
    pub(crate) fn get(&self, name: &str) -> Option<&Value> {
        let found =
            self.map.get(name).or_else(|| self.map.iter().rev().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, v)| v));
        found.filter(|value| !value.is_null())
    }

    /// A text field.
    pub(crate) fn text(&self, name: &str) -> Result<Option<&str>, ApiError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(self.wrong(name, other, "string")),
        }
    }

    /// A truth field.
    pub(crate) fn truth(&self, name: &str) -> Result<Option<bool>, ApiError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Bool(truth)) => Ok(Some(*truth)),
            Some(other) => Err(self.wrong(name, other, "bool")),
        }
    }

    /// A whole-number field.
    pub(crate) fn integer(&self, name: &str) -> Result<Option<i64>, ApiError> {
        match self.get(name) {
            None => Ok(None),
            Some(value) => value.as_i64().map(Some).ok_or_else(|| self.wrong(name, value, "int")),
        }
    }

    /// A field that is a number.
    pub(crate) fn number(&self, name: &str) -> Result<Option<&Value>, ApiError> {
        match self.get(name) {
            Some(value) if !value.is_number() => Err(self.wrong(name, value, "float64")),
            other => Ok(other),
        }
    }

    /// A list field.
    pub(crate) fn list(&self, name: &str) -> Result<&[Value], ApiError> {
        match self.get(name) {
            None => Ok(&[]),
            Some(Value::Array(items)) => Ok(items),
            Some(other) => Err(self.wrong(name, other, "slice")),
        }
    }

    /// An object field.
    pub(crate) fn object(&self, name: &str) -> Result<Option<&Map<String, Value>>, ApiError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(map)),
            Some(other) => Err(self.wrong(name, other, "map")),
        }
    }

    /// The error of a field that has another type.
    pub(crate) fn wrong(&self, name: &str, found: &Value, needed: &str) -> ApiError {
        let (found, request) = (kind(found), self.request);
        ApiError::bad_request(format!("json: cannot unmarshal {found} into Go struct field {request}.{name} of type {needed}"))
    }
}

/// A JSON answer.
pub(crate) fn reply(value: &Value) -> Response {
    let mut response = Response::new(Body::from(escaped(value)));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    response
}

/// JSON text in which the characters that matter to HTML and scripts are written as escapes. They only occur in texts.
pub(crate) fn escaped(value: &Value) -> String {
    let text = value.to_string();
    if !text.contains(['<', '>', '&', '\u{2028}', '\u{2029}']) {
        return text;
    }
    text.replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
        .replace('\u{2028}', "\\u2028")
        .replace('\u{2029}', "\\u2029")
}

/// What a value is, as the error messages name it.
pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Refuses deep nesting, and more values than any client has use for, before anything is built from them.
fn check_depth(body: &[u8]) -> Result<(), ApiError> {
    let (mut depth, mut in_text, mut escape, mut n_values) = (0usize, false, false, 0usize);
    for byte in body {
        match byte {
            _ if escape => escape = false,
            b'\\' if in_text => escape = true,
            b'"' => in_text = !in_text,
            b',' | b':' if !in_text => {
                n_values += 1;
                if n_values > N_VALUES_MAX {
                    return Err(ApiError::bad_request(format!("the request has more than {N_VALUES_MAX} values")));
                }
            }
            b'[' | b'{' if !in_text => {
                depth += 1;
                if depth > DEPTH_MAX {
                    return Err(ApiError::bad_request(format!("the request is nested deeper than {DEPTH_MAX} levels")));
                }
            }
            b']' | b'}' if !in_text => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return Ok(());
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn check_sizes(value: &Value) -> Result<(), ApiError> {
    match value {
        Value::String(text) if text.len() > TEXT_BYTES_MAX => {
            Err(ApiError::bad_request(format!("a text has {} bytes, the limit is {TEXT_BYTES_MAX}", text.len())))
        }
        Value::Array(items) if items.len() > LIST_LEN_MAX => {
            Err(ApiError::bad_request(format!("a list has {} items, the limit is {LIST_LEN_MAX}", items.len())))
        }
        Value::Array(items) => items.iter().try_for_each(check_sizes),
        Value::Object(map) => map.values().try_for_each(check_sizes),
        _ => Ok(()),
    }
}

/// A parse error in the words clients know.
fn syntax_error(body: &[u8], error: &serde_json::Error) -> String {
    if error.is_eof() {
        return "unexpected EOF".into();
    }
    let line_start = body.split_inclusive(|b| *b == b'\n').take(error.line().saturating_sub(1)).map(<[u8]>::len).sum::<usize>();
    let at = (line_start + error.column()).saturating_sub(1);
    match std::str::from_utf8(body) {
        Err(_) => "the request is not valid UTF-8".into(),
        Ok(_) => match body.get(at) {
            Some(byte) if byte.is_ascii_graphic() => {
                format!(
                    "invalid character '{}' looking for beginning of value (line {}, column {})",
                    char::from(*byte),
                    error.line(),
                    error.column()
                )
            }
            _ => format!("invalid JSON at line {}, column {}", error.line(), error.column()),
        },
    }
}
