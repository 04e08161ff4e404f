//! `POST /v1/embeddings`.

use axum::extract::State;
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Value, json};

use super::{refuse, reply};
use crate::App;
use crate::caller::Caller;
use crate::error::ApiError;
use crate::json::Fields;
use crate::ollama::embed::{find_to_embed, texts, vectors};

pub(crate) async fn embeddings(State(app): State<App>, caller: Caller, body: Bytes) -> Response {
    answer(&app, caller, &body).await.unwrap_or_else(refuse)
}

async fn answer(app: &App, caller: Caller, body: &Bytes) -> Result<Response, ApiError> {
    let fields = Fields::parse_compat("EmbeddingRequest", body)?;
    let model = fields.text("model")?.unwrap_or_default().to_owned();
    let as_base64 = match fields.text("encoding_format")?.unwrap_or("float") {
        "float" => false,
        "base64" => true,
        other => {
            let message = format!("Invalid value for 'encoding_format' = {other}. Supported values: ['float', 'base64'].");
            return Err(ApiError::bad_request(message));
        }
    };
    let mut inputs = texts(&fields, "input")?;
    if inputs.is_empty() {
        match fields.get("input") {
            // Here an empty text has a vector.
            Some(Value::String(_)) => inputs.push(String::new()),
            _ => return Err(ApiError::bad_request("invalid input")),
        }
    }
    let found = find_to_embed(app, &model).await?;
    let embedded = vectors(app, caller, &fields, &found, inputs).await?;
    let embedded = embedded.ok_or_else(|| ApiError::internal("the engine stopped unexpectedly"))?;
    let shown = |vector: &Vec<f32>| match as_base64 {
        true => json!(STANDARD.encode(vector.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>())),
        false => json!(vector),
    };
    let entry =
        |(index, vector): (usize, &Vec<f32>)| json!({ "object": "embedding", "embedding": shown(vector), "index": index });
    let data: Vec<Value> = embedded.vectors.iter().enumerate().map(entry).collect();
    let usage = json!({ "prompt_tokens": embedded.n_prompt, "total_tokens": embedded.n_prompt });
    Ok(reply(&json!({ "object": "list", "data": data, "model": model, "usage": usage })))
}
