//! `GET /api/tags`: the installed models.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::model::{describe, local_time, read};
use crate::{App, json};

pub(super) async fn tags(State(app): State<App>) -> Response {
    let listed = read(&app, |app| Ok(app.store.list().into_iter().filter_map(|m| entry(app, m)).collect::<Vec<_>>())).await;
    listed.map_or_else(IntoResponse::into_response, |models| json::reply(&json!({ "models": models })))
}

/// One model; left out, with a line in the log, when its file is damaged.
fn entry(app: &App, installed: catalog::Installed) -> Option<Value> {
    let name = installed.name.to_string();
    let found = match describe(app, installed) {
        Ok(found) => found,
        Err(error) => {
            tracing::warn!(model.name = %name, "not listed: {}", error.message);
            return None;
        }
    };
    let mut details = found.details();
    for (key, value) in [("context_length", found.description.n_ctx_train), ("embedding_length", found.description.n_embd)] {
        if let Some(value) = value {
            details[key] = json!(value);
        }
    }
    Some(json!({
        "name": name,
        "model": name,
        "modified_at": local_time(found.installed.modified),
        "size": found.installed.size,
        "digest": found.installed.digest,
        "details": details,
        "capabilities": found.capabilities,
    }))
}
