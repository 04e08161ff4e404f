//! `GET /api/ps`: the models in memory.

use std::time::{Duration, Instant, SystemTime};

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::model::{describe, local_time, parse_name, read};
use crate::{App, json};

/// How far away "never" is shown: the end of Go's durations.
const FOREVER: Duration = Duration::from_secs(292 * 365 * 24 * 3600);

pub(super) async fn ps(State(app): State<App>) -> Response {
    let mut residents = app.scheduler.residents();
    let now = Instant::now();
    residents.sort_by_key(|r| std::cmp::Reverse(r.expires(now).unwrap_or(now + FOREVER)));
    let listed = read(&app, move |app| Ok(residents.iter().filter_map(|r| entry(app, r)).collect::<Vec<_>>())).await;
    listed.map_or_else(IntoResponse::into_response, |models| json::reply(&json!({ "models": models })))
}

fn entry(app: &App, resident: &scheduler::Resident) -> Option<Value> {
    // A model may be deleted while it is still in memory; it is then no longer shown.
    let installed = app.store.find(&parse_name(&resident.name).ok()?).ok()?;
    let found = describe(app, installed).ok()?;
    let now = Instant::now();
    let left = resident.expires(now).map_or(FOREVER, |at| at.saturating_duration_since(now));
    Some(json!({
        "name": found.installed.name.to_string(),
        "model": found.installed.name.to_string(),
        "size": resident.size,
        "digest": found.installed.digest,
        "details": found.details(),
        "expires_at": local_time(SystemTime::now() + left),
        "size_vram": 0,
        "context_length": resident.n_ctx,
    }))
}
