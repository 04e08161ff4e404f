//! `GET /v1/models` and `GET /v1/models/{model}`.

use std::time::SystemTime;

use axum::extract::{Path, State};
use axum::response::Response;
use catalog::{Installed, StoreError};
use serde_json::{Value, json};

use super::{refuse, reply};
use crate::App;
use crate::error::ApiError;
use crate::ollama::model::{parse_name, read};

pub(super) async fn list(State(app): State<App>) -> Response {
    let listed = read(&app, |app| Ok(app.store.list().iter().map(|m| entry(&m.name.to_string(), m)).collect::<Vec<_>>())).await;
    listed.map_or_else(refuse, |models| reply(&json!({ "object": "list", "data": models })))
}

pub(super) async fn retrieve(State(app): State<App>, Path(model): Path<String>) -> Response {
    let found = async {
        let name = parse_name(&model)?;
        let asked = model.clone();
        read(&app, move |app| match app.store.find(&name) {
            Err(StoreError::NotFound { .. }) => Err(ApiError::not_found(format!("model '{name}' not found"))),
            other => Ok(entry(&asked, &other?)),
        })
        .await
    };
    found.await.map_or_else(refuse, |entry| reply(&entry))
}

fn entry(id: &str, model: &Installed) -> Value {
    let created = model.modified.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    json!({ "id": id, "object": "model", "created": created, "owned_by": model.name.namespace() })
}
