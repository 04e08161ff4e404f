//! `POST /api/embed` and the older `POST /api/embeddings`: texts in, vectors out. OpenAI's embeddings use the same.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use scheduler::{Embedded, Event, FailureKind, Input, Request};
use serde_json::{Map, Value, json};

use super::model::{Found, find};
use super::{keep_alive, options};
use crate::App;
use crate::caller::Caller;
use crate::error::ApiError;
use crate::json::{self, Fields};

/// Texts of one request.
const N_INPUTS_MAX: usize = 2048;

pub(super) async fn embed(State(app): State<App>, caller: Caller, body: Bytes) -> Response {
    answer(&app, caller, &body).await.unwrap_or_else(IntoResponse::into_response)
}

async fn answer(app: &App, caller: Caller, body: &Bytes) -> Result<Response, ApiError> {
    let fields = Fields::parse("EmbedRequest", body)?;
    let model = fields.text("model")?.unwrap_or_default().to_owned();
    if model.trim().is_empty() {
        return Err(ApiError::not_found("model '' not found"));
    }
    let found = find_to_embed(app, &model).await?;
    let texts = texts(&fields, "input")?;
    let embedded = vectors(app, caller, &fields, &found, texts).await?;
    let mut object = Map::new();
    object.insert("model".into(), json!(model));
    object.insert("embeddings".into(), json!(embedded.as_ref().map_or(&[][..], |e| &e.vectors)));
    if let Some(Embedded { n_prompt, times, .. }) = &embedded {
        let ns = |d: std::time::Duration| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX).max(1);
        object.insert("total_duration".into(), json!(ns(times.finished.duration_since(times.accepted))));
        object.insert("load_duration".into(), json!(ns(times.load)));
        object.insert("prompt_eval_count".into(), json!(n_prompt));
    }
    Ok(json::reply(&Value::Object(object)))
}

pub(super) async fn embeddings(State(app): State<App>, caller: Caller, body: Bytes) -> Response {
    legacy(&app, caller, &body).await.unwrap_or_else(IntoResponse::into_response)
}

async fn legacy(app: &App, caller: Caller, body: &Bytes) -> Result<Response, ApiError> {
    let fields = Fields::parse("EmbeddingRequest", body)?;
    let model = fields.text("model")?.unwrap_or_default().to_owned();
    if model.trim().is_empty() {
        return Err(ApiError::bad_request("model is required"));
    }
    let found = find_to_embed(app, &model).await?;
    let prompt = fields.text("prompt")?.unwrap_or_default().to_owned();
    let texts = if prompt.is_empty() { Vec::new() } else { vec![prompt] };
    let embedded = vectors(app, caller, &fields, &found, texts).await?;
    let vector = embedded.and_then(|e| e.vectors.into_iter().next()).unwrap_or_default();
    Ok(json::reply(&json!({ "embedding": vector })))
}

/// Looks a model up; its error is worded as these endpoints do.
pub(crate) async fn find_to_embed(app: &App, model: &str) -> Result<Found, ApiError> {
    find(app, model).await.map_err(|error| match error.status {
        StatusCode::NOT_FOUND => ApiError::not_found(format!("model {model:?} not found, try pulling it first")),
        _ => error,
    })
}

/// A text or a list of them; `""` and nothing give none.
pub(crate) fn texts(fields: &Fields, name: &str) -> Result<Vec<String>, ApiError> {
    let invalid = || ApiError::bad_request("invalid input type");
    let texts = match fields.get(name) {
        None => Vec::new(),
        Some(Value::String(text)) if text.is_empty() => Vec::new(),
        Some(Value::String(text)) => vec![text.clone()],
        Some(Value::Array(items)) => {
            items.iter().map(|item| item.as_str().map(String::from).ok_or_else(invalid)).collect::<Result<_, _>>()?
        }
        Some(_) => return Err(invalid()),
    };
    if texts.len() > N_INPUTS_MAX {
        return Err(ApiError::bad_request(format!("the request has {} inputs, the limit is {N_INPUTS_MAX}", texts.len())));
    }
    Ok(texts)
}

/// The vectors of some texts, cut to `dimensions` where the request names them; without texts the model is only loaded.
pub(crate) async fn vectors(
    app: &App,
    caller: Caller,
    fields: &Fields,
    found: &Found,
    texts: Vec<String>,
) -> Result<Option<Embedded>, ApiError> {
    let n = fields.integer("dimensions")?.unwrap_or(0);
    let n = usize::try_from(n).map_err(|_| ApiError::bad_request(format!("dimensions is {n}, needed is 0 or more")))?;
    let truncate = fields.truth("truncate")?.unwrap_or(true);
    let request = Request {
        model: found.file.clone(),
        client: caller.client,
        input: if texts.is_empty() { Input::Load } else { Input::Embed { texts, truncate } },
        options: options::parse(&found.installed.parameters(), fields.object("options")?, true)?,
        keep_alive: keep_alive::parse(fields.get("keep_alive"))?,
        accepted: caller.accepted,
    };
    match app.scheduler.submit(request)?.recv().await {
        Some(Event::Embedded(mut embedded)) => {
            embedded.vectors.iter_mut().for_each(|vector| shorten(vector, n));
            Ok(Some(embedded))
        }
        Some(Event::Done(_)) => Ok(None),
        Some(Event::Failed(failure)) if failure.kind == FailureKind::Server => Err(ApiError::internal(failure.message)),
        Some(Event::Failed(failure)) => Err(failure.into()),
        _ => Err(ApiError::internal("the engine stopped unexpectedly")),
    }
}

/// The first `n` values of a vector, with length one again; all of it for 0 or more than it has.
fn shorten(vector: &mut Vec<f32>, n: usize) {
    if n == 0 || n >= vector.len() {
        return;
    }
    vector.truncate(n);
    let length = vector.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
    if length > 0.0 {
        vector.iter_mut().for_each(|v| *v = (f64::from(*v) / length) as f32);
    }
}
