//! What chat and generate ask of a model in the same words: thinking, format, probabilities.

use axum::http::StatusCode;
use scheduler::{Constraint, Think};
use serde_json::{Value, json};

use super::model::Found;
use crate::error::ApiError;
use crate::json::Fields;

/// Alternatives a client may ask for at each token.
const TOP_LOGPROBS_MAX: i64 = 20;
/// How hard a model may be told to think.
const LEVELS: [&str; 4] = ["high", "medium", "low", "max"];

/// Whether the model is to think: as the request says, else yes where it can. A model that computes no text is refused.
pub(super) fn think(fields: &Fields, found: &Found, verb: &str) -> Result<Option<Think>, ApiError> {
    let name = fields.text("model")?.unwrap_or_default();
    if !found.can("completion") {
        return Err(ApiError::bad_request(format!("{name:?} does not support {verb}")));
    }
    let think = match fields.get("think") {
        None => return Ok(found.can("thinking").then_some(Think::On(None))),
        Some(Value::Bool(false)) => Think::Off,
        Some(Value::Bool(true)) => Think::On(None),
        Some(Value::String(level)) if LEVELS.contains(&level.as_str()) => Think::On(Some(level.clone())),
        Some(Value::String(level)) => {
            let message =
                format!("invalid think value: {level:?} (must be \"high\", \"medium\", \"low\", \"max\", true, or false)");
            return Err(ApiError::bad_request(message));
        }
        Some(_) => {
            let message = "think must be a boolean or string (\"high\", \"medium\", \"low\", \"max\", true, or false)";
            return Err(ApiError::bad_request(message));
        }
    };
    match (think, found.can("thinking")) {
        (Think::Off, false) => Ok(None),
        (_, false) => Err(ApiError::bad_request(format!("{name:?} does not support thinking"))),
        (think, true) => Ok(Some(think)),
    }
}

/// Characters of what a client sent that an error repeats.
const SHOWN_CHARACTERS: usize = 200;

/// What the answer must be.
pub(super) fn format(fields: &Fields) -> Result<Option<Constraint>, ApiError> {
    match fields.get("format") {
        None => Ok(None),
        Some(Value::String(format)) if format.is_empty() => Ok(None),
        Some(Value::String(format)) if format == "json" => Ok(Some(Constraint::Json)),
        Some(schema @ Value::Object(_)) => Ok(Some(Constraint::Schema(schema.clone()))),
        Some(other) => {
            let shown: String = other.to_string().chars().take(SHOWN_CHARACTERS).collect();
            let message = format!("invalid format: {shown:?}; expected \"json\" or a valid JSON Schema object");
            Err(ApiError { status: StatusCode::INTERNAL_SERVER_ERROR, message })
        }
    }
}

/// How many alternatives to each token are to be told, if probabilities are asked for.
pub(super) fn logprobs(fields: &Fields) -> Result<Option<usize>, ApiError> {
    let n_top = fields.integer("top_logprobs")?.unwrap_or(0);
    Ok(fields.truth("logprobs")?.unwrap_or(false).then(|| usize::try_from(n_top).unwrap_or(0)))
}

pub(super) fn check_top_logprobs(fields: &Fields) -> Result<(), ApiError> {
    match fields.integer("top_logprobs")? {
        Some(n) if !(0..=TOP_LOGPROBS_MAX).contains(&n) => Err(ApiError::bad_request("top_logprobs must be between 0 and 20")),
        _ => Ok(()),
    }
}

/// Messages that the model's own description puts before every conversation.
pub(super) fn history(found: &Found) -> Vec<Value> {
    found.installed.messages().into_iter().map(|m| json!({ "role": m.role, "content": m.content })).collect()
}

pub(super) fn no_images(found: &Found) -> String {
    format!("{} does not support images", found.installed.name)
}
