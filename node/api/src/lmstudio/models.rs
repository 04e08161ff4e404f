//! `GET /api/v0/models` and `GET /api/v0/models/{model}`: what is installed, and what of it is in memory.

use axum::extract::{Path, State};
use axum::response::Response;
use serde_json::{Value, json};

use crate::App;
use crate::ollama::model::{Found, describe, find, read};
use crate::openai::{refuse, reply};

pub(super) async fn list(State(app): State<App>) -> Response {
    let listed = read(&app, |app| {
        let found = app.store.list().into_iter().filter_map(|installed| describe(app, installed).ok());
        Ok(found.map(|found| entry(app, &found)).collect::<Vec<_>>())
    });
    listed.await.map_or_else(refuse, |models| reply(&json!({ "object": "list", "data": models })))
}

pub(super) async fn one(State(app): State<App>, Path(model): Path<String>) -> Response {
    find(&app, &model).await.map_or_else(refuse, |found| reply(&entry(&app, &found)))
}

fn entry(app: &App, found: &Found) -> Value {
    let resident = app.scheduler.residents().into_iter().find(|resident| resident.digest == found.file.digest);
    let mut entry = json!({
        "id": found.installed.name.to_string(),
        "object": "model",
        "type": if found.can("embedding") { "embeddings" } else { "llm" },
        "publisher": found.installed.name.namespace(),
        "arch": found.description.architecture,
        "compatibility_type": "gguf",
        "quantization": found.description.quant,
        "state": if resident.is_some() { "loaded" } else { "not-loaded" },
        "max_context_length": found.description.n_ctx_train,
    });
    if let Some(resident) = resident {
        entry["loaded_context_length"] = json!(resident.n_ctx);
    }
    if found.can("tools") {
        entry["capabilities"] = json!(["tool_use"]);
    }
    entry
}
