//! The Ollama dialect, one file per endpoint.

mod account;
mod answer;
mod ask;
pub(crate) mod blobs;
pub(crate) mod chat;
mod create;
pub(crate) mod embed;
pub(crate) mod generate;
pub(crate) mod keep_alive;
mod manage;
mod messages;
pub(crate) mod model;
mod options;
mod ps;
pub(crate) mod pull;
mod show;
mod tags;
mod tools;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::response::Response;
use axum::routing::{delete, get, post};
use serde_json::json;

pub(crate) use chat::Asked;

use crate::{API_VERSION, App, json, rules};

/// Every path, for pointing out a stray slash.
pub(crate) const PATHS: [&str; 10] = [
    "/api/version",
    "/api/tags",
    "/api/show",
    "/api/ps",
    "/api/generate",
    "/api/chat",
    "/api/copy",
    "/api/delete",
    "/api/pull",
    "/api/status",
];

pub(crate) fn routes() -> Router<App> {
    Router::new()
        .route("/", get(running))
        .route("/api/version", get(version))
        .route("/api/status", get(status).head(rules::method_not_allowed))
        .route("/api/tags", get(tags::tags))
        .route("/api/show", post(show::show))
        .route("/api/ps", get(ps::ps).head(rules::method_not_allowed))
        .route("/api/generate", post(generate::generate))
        .route("/api/chat", post(chat::chat))
        .route("/api/embed", post(embed::embed))
        .route("/api/embeddings", post(embed::embeddings))
        .route("/api/copy", post(manage::copy))
        .route("/api/delete", delete(manage::delete))
        .route("/api/pull", post(pull::pull))
        .route("/api/create", post(create::create))
        .route("/api/push", post(account::push))
        .route("/api/me", post(account::me))
        .route("/api/signout", post(account::sign_out))
        .route("/api/user/keys/{key}", delete(account::sign_out))
        .route("/api/experimental/web_search", post(account::web_search))
        .route("/api/experimental/web_fetch", post(account::web_fetch))
        .route("/api/experimental/model-recommendations", get(account::recommendations).head(rules::method_not_allowed))
        .route(
            "/api/blobs/{digest}",
            // Weights may have any size; they go to disk as they come.
            post(blobs::create).head(blobs::head).layer(DefaultBodyLimit::disable()),
        )
}

async fn running() -> &'static str {
    "Ollama is running"
}

async fn version() -> Response {
    json::reply(&json!({ "version": API_VERSION }))
}

/// There is no cloud behind a Lantern.
async fn status() -> Response {
    json::reply(&json!({ "cloud": { "disabled": true, "source": "config" } }))
}
