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

use access::Need;
use axum::response::Response;
use axum::routing::{delete, get, post};
use serde_json::json;

pub(crate) use chat::Asked;

use crate::routes::Routes;
use crate::{API_VERSION, json, rules};

pub(crate) fn routes() -> Routes {
    Routes::default()
        .add("/", Need::Use, get(running))
        .add("/api/version", Need::Use, get(version))
        .add("/api/status", Need::Use, get(status).head(rules::method_not_allowed))
        .add("/api/tags", Need::Use, get(tags::tags))
        .add("/api/show", Need::Use, post(show::show))
        .add("/api/ps", Need::Use, get(ps::ps).head(rules::method_not_allowed))
        .add("/api/generate", Need::Use, post(generate::generate))
        .add("/api/chat", Need::Use, post(chat::chat))
        .add("/api/embed", Need::Use, post(embed::embed))
        .add("/api/embeddings", Need::Use, post(embed::embeddings))
        .add("/api/me", Need::Use, post(account::me))
        .add("/api/signout", Need::Use, post(account::sign_out))
        .add("/api/user/keys/{key}", Need::Use, delete(account::sign_out))
        .add("/api/experimental/web_search", Need::Use, post(account::web_search))
        .add("/api/experimental/web_fetch", Need::Use, post(account::web_fetch))
        .add("/api/experimental/model-recommendations", Need::Use, get(account::recommendations).head(rules::method_not_allowed))
        .add("/api/copy", Need::Change, post(manage::copy))
        .add("/api/delete", Need::Change, delete(manage::delete))
        .add("/api/pull", Need::Change, post(pull::pull))
        .add("/api/create", Need::Change, post(create::create))
        .add("/api/push", Need::Change, post(account::push))
        // Weights may have any size; they go to disk as they come.
        .add_stream("/api/blobs/{digest}", Need::Change, post(blobs::create).head(blobs::head))
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
