//! `options`: the model's own parameters, then the request's on top.

use axum::http::StatusCode;
use scheduler::Options;
use serde_json::{Map, Value};

use crate::error::ApiError;

/// Stop texts of a request, and bytes of each.
const N_STOPS_MAX: usize = 64;
const STOP_BYTES_MAX: usize = 1024;
/// Shortest context, and the largest a request may name; the model's own length caps it further.
const N_CTX_MIN: i64 = 4;
const N_CTX_MAX: i64 = i32::MAX as i64;
/// Tokens always kept when the context shifts, where nothing else is said.
const N_KEEP: i64 = 4;

/// Merges parameters of the model with those of a request. `shift` is whether a full context may forget its older half.
pub(super) fn parse(model: &Map<String, Value>, request: Option<&Map<String, Value>>, shift: bool) -> Result<Options, ApiError> {
    let empty = Map::new();
    let request = request.unwrap_or(&empty);
    let values = Values { layers: [request, model] };
    let defaults = Options::default();
    let sampler = &defaults.sampler;
    let seed = values.integer("seed")?.unwrap_or(-1);
    let n_keep = values.integer("num_keep")?.unwrap_or(N_KEEP);
    let n_predict = values.integer("num_predict")?.unwrap_or(-1);
    let n_ctx = values.integer("num_ctx")?;
    Ok(Options {
        sampler: scheduler::SamplerOptions {
            temperature: values.float("temperature", 0.0)?.unwrap_or(sampler.temperature),
            top_k: values.integer("top_k")?.map_or(sampler.top_k, clamp),
            top_p: values.float("top_p", 0.0)?.unwrap_or(sampler.top_p),
            min_p: values.float("min_p", 0.0)?.unwrap_or(sampler.min_p),
            typical_p: values.float("typical_p", 0.0)?.unwrap_or(sampler.typical_p),
            repeat_last_n: values.at_least("repeat_last_n", -1)?.map_or(sampler.repeat_last_n, clamp),
            repeat_penalty: values.float("repeat_penalty", 0.0)?.unwrap_or(sampler.repeat_penalty),
            presence_penalty: values.float("presence_penalty", f64::from(f32::MIN))?.unwrap_or(sampler.presence_penalty),
            frequency_penalty: values.float("frequency_penalty", f64::from(f32::MIN))?.unwrap_or(sampler.frequency_penalty),
            // A negative seed asks for another answer each time.
            seed: u64::try_from(seed).unwrap_or_else(|_| random_seed()),
        },
        n_ctx: n_ctx.map(|n| usize::try_from(n.clamp(N_CTX_MIN, N_CTX_MAX)).expect("the clamp is positive")),
        n_predict: usize::try_from(n_predict).ok(),
        stop: values.stops()?,
        n_keep: usize::try_from(n_keep).ok(),
        shift,
        ..defaults
    })
}

struct Values<'a> {
    /// The first that has an option decides.
    layers: [&'a Map<String, Value>; 2],
}

impl Values<'_> {
    fn get(&self, key: &str) -> Option<&Value> {
        self.layers.iter().find_map(|layer| layer.get(key).filter(|v| !v.is_null()))
    }

    /// A whole number; a float is cut.
    fn integer(&self, key: &str) -> Result<Option<i64>, ApiError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let cut = || value.as_f64().map(|v| v as i64);
        value.as_i64().or_else(cut).map(Some).ok_or_else(|| wrong_type(key, "integer"))
    }

    fn at_least(&self, key: &str, min: i64) -> Result<Option<i64>, ApiError> {
        match self.integer(key)? {
            Some(value) if value < min => {
                Err(ApiError::bad_request(format!("option {key:?} is {value}, needed is {min} or more")))
            }
            other => Ok(other),
        }
    }

    fn float(&self, key: &str, min: f64) -> Result<Option<f32>, ApiError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let value = value.as_f64().ok_or_else(|| wrong_type(key, "float32"))?;
        let narrow = value as f32;
        if !narrow.is_finite() || value < min {
            let needed = if min == 0.0 { "0 or more, as a 32-bit number" } else { "a 32-bit number" };
            return Err(ApiError::bad_request(format!("option {key:?} is {value}, needed is {needed}")));
        }
        Ok(Some(narrow))
    }

    fn stops(&self) -> Result<Vec<String>, ApiError> {
        let Some(value) = self.get("stop") else { return Ok(Vec::new()) };
        let items = value.as_array().ok_or_else(|| wrong_type("stop", "array"))?;
        if items.len() > N_STOPS_MAX {
            return Err(ApiError::bad_request(format!("option \"stop\" has {} texts, the limit is {N_STOPS_MAX}", items.len())));
        }
        let stop = |item: &Value| {
            let text = item.as_str().ok_or_else(|| wrong_type("stop", "array of strings"))?;
            if text.is_empty() || text.len() > STOP_BYTES_MAX {
                return Err(ApiError::bad_request(format!(
                    "option \"stop\" has a text of {} bytes, needed are 1 to {STOP_BYTES_MAX}",
                    text.len()
                )));
            }
            Ok(text.to_owned())
        };
        items.iter().map(stop).collect()
    }
}

fn clamp(value: i64) -> i32 {
    value.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32
}

/// The server that clients know answers 500 here, and `of an array of strings` without the word type.
fn wrong_type(key: &str, needed: &str) -> ApiError {
    let of = if needed == "array of strings" { "of an" } else { "of type" };
    ApiError { status: StatusCode::INTERNAL_SERVER_ERROR, message: format!("option {key:?} must be {of} {needed}") }
}

/// A seed that differs from call to call: the hasher's own random keys.
fn random_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0)
}
