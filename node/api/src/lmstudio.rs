//! The LM Studio dialect, `/api/v0`: OpenAI's shapes with what an answer took and what computed it.

mod models;

use access::Need;
use axum::extract::State;
use axum::response::Response;
use axum::routing::{get, post};
use bytes::Bytes;
use scheduler::{Done, DoneReason};
use serde_json::{Map, Value, json};

use crate::App;
use crate::caller::Caller;
use crate::ollama::model::Found;
use crate::openai::{chat, completions, embeddings, refuse};
use crate::routes::Routes;
use crate::rules;

pub(crate) fn routes() -> Routes {
    Routes::default()
        .add("/api/v0/models", Need::Use, get(models::list).head(rules::method_not_allowed))
        .add("/api/v0/models/{*model}", Need::Use, get(models::one).head(rules::method_not_allowed))
        .add("/api/v0/chat/completions", Need::Use, post(chat_completions))
        .add("/api/v0/completions", Need::Use, post(text_completions))
        .add("/api/v0/embeddings", Need::Use, post(embeddings::embeddings))
}

async fn chat_completions(State(app): State<App>, caller: Caller, body: Bytes) -> Response {
    chat::answer(&app, caller, &body, &extra).await.unwrap_or_else(refuse)
}

async fn text_completions(State(app): State<App>, caller: Caller, body: Bytes) -> Response {
    completions::answer(&app, caller, &body, &extra).await.unwrap_or_else(refuse)
}

/// What this dialect adds to an answer: `stats`, `model_info` and `runtime`. Times are in seconds.
fn extra(found: &Found, done: &Done) -> Map<String, Value> {
    let times = &done.times;
    let generation = times.finished.duration_since(times.first_piece).as_secs_f64();
    // The first token comes out of the prompt; the others take the time after it.
    let n_after_first = done.n_decoded.saturating_sub(1) as f64;
    let stats = json!({
        "tokens_per_second": if generation > 0.0 { n_after_first / generation } else { 0.0 },
        "time_to_first_token": times.first_piece.duration_since(times.accepted).as_secs_f64(),
        "generation_time": generation,
        "stop_reason": match done.reason {
            DoneReason::Length => "maxPredictedTokensReached",
            DoneReason::StopText => "stopStringFound",
            _ => "eosFound",
        },
    });
    let model_info = json!({
        "arch": found.description.architecture,
        "quant": found.description.quant,
        "format": "gguf",
        "context_length": found.description.n_ctx_train,
    });
    let runtime = json!({ "name": "lantern", "version": env!("CARGO_PKG_VERSION"), "supported_formats": ["gguf"] });
    [("stats", stats), ("model_info", model_info), ("runtime", runtime)]
        .map(|(name, value)| (name.to_owned(), value))
        .into_iter()
        .collect()
}
