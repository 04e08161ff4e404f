//! `keep_alive`: seconds as a number, or a duration as Go writes it.

use std::time::Duration;

use scheduler::KeepAlive;
use serde_json::Value;

use crate::error::ApiError;

/// Longer than this means for ever: some 290 years, as far as Go's durations reach.
const SECONDS_MAX: f64 = 9.2e9;

/// Reads the field of a request.
pub(super) fn parse(value: Option<&Value>) -> Result<Option<KeepAlive>, ApiError> {
    match value {
        None => Ok(None),
        Some(Value::Number(number)) => Ok(Some(seconds(number.as_f64().unwrap_or(-1.0)))),
        Some(Value::String(text)) => duration(text).map(Some).map_err(ApiError::bad_request),
        Some(other) => Err(ApiError::bad_request(format!("Unsupported type: '{}'", crate::json::kind(other)))),
    }
}

fn seconds(seconds: f64) -> KeepAlive {
    if (0.0..=SECONDS_MAX).contains(&seconds) { KeepAlive::For(Duration::from_secs_f64(seconds)) } else { KeepAlive::Forever }
}

/// A duration such as `5m`, `1h30m`, `1.5s`, `300ms`; negative means for ever.
pub(crate) fn duration(text: &str) -> Result<KeepAlive, String> {
    let (negative, digits) = match text.strip_prefix(['-', '+']) {
        Some(rest) => (text.starts_with('-'), rest),
        None => (false, text),
    };
    if digits == "0" {
        return Ok(KeepAlive::For(Duration::ZERO));
    }
    let (mut rest, mut total) = (digits, 0.0);
    if rest.is_empty() {
        return Err(format!("time: invalid duration {text:?}"));
    }
    while !rest.is_empty() {
        let n = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let amount: f64 = rest[..n].parse().map_err(|_| format!("time: invalid duration {text:?}"))?;
        let unit_len = rest[n..].find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len() - n);
        let factor = match &rest[n..n + unit_len] {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "" => return Err(format!("time: missing unit in duration {text:?}")),
            unit => return Err(format!("time: unknown unit {unit:?} in duration {text:?}")),
        };
        total += amount * factor;
        rest = &rest[n + unit_len..];
    }
    Ok(seconds(if negative && total > 0.0 { -1.0 } else { total }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn e20_every_form() {
        let check = |value: Value, expected: Result<KeepAlive, &str>| {
            let found = parse(Some(&value)).map(|k| k.unwrap()).map_err(|e| e.message);
            assert_eq!(found, expected.map_err(String::from), "{value}");
        };
        let seconds = |s: f64| Ok(KeepAlive::For(Duration::from_secs_f64(s)));
        check(json!(0), seconds(0.0));
        check(json!(1.5), seconds(1.5));
        check(json!(-1), Ok(KeepAlive::Forever));
        check(json!(1e300), Ok(KeepAlive::Forever));
        check(json!("5m"), seconds(300.0));
        check(json!("1h30m"), seconds(5400.0));
        check(json!("300ms"), seconds(0.3));
        check(json!("-1m"), Ok(KeepAlive::Forever));
        check(json!("0"), seconds(0.0));
        check(json!("0s"), seconds(0.0));
        check(json!("10"), Err("time: missing unit in duration \"10\""));
        check(json!("-1"), Err("time: missing unit in duration \"-1\""));
        check(json!("5x"), Err("time: unknown unit \"x\" in duration \"5x\""));
        check(json!(""), Err("time: invalid duration \"\""));
        check(json!(true), Err("Unsupported type: 'bool'"));
    }
}
