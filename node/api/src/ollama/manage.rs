//! `POST /api/copy` and `DELETE /api/delete`.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use catalog::{ModelName, StoreError};

use super::model::{read, without_place};
use crate::App;
use crate::error::ApiError;
use crate::json::Fields;

pub(super) async fn copy(State(app): State<App>, body: Bytes) -> Response {
    copy_answer(&app, &body).await.map_or_else(IntoResponse::into_response, |()| StatusCode::OK.into_response())
}

async fn copy_answer(app: &App, body: &Bytes) -> Result<(), ApiError> {
    let fields = Fields::parse("CopyRequest", body)?;
    let (source, destination) = (fields.text("source")?.unwrap_or_default(), fields.text("destination")?.unwrap_or_default());
    let from = ModelName::parse(source).map_err(|_| ApiError::bad_request(format!("source {source:?} is invalid")))?;
    let to =
        ModelName::parse(destination).map_err(|_| ApiError::bad_request(format!("destination {destination:?} is invalid")))?;
    let missing = ApiError::not_found(format!("model {source:?} not found"));
    read(app, move |app| match app.store.copy(&from, &to) {
        Err(StoreError::NotFound { .. }) => Err(missing),
        other => Ok(other?),
    })
    .await
}

pub(super) async fn delete(State(app): State<App>, body: Bytes) -> Response {
    delete_answer(&app, &body).await.map_or_else(IntoResponse::into_response, |()| StatusCode::OK.into_response())
}

async fn delete_answer(app: &App, body: &Bytes) -> Result<(), ApiError> {
    let fields = Fields::parse("DeleteRequest", body)?;
    let text = match fields.text("model")?.filter(|m| !m.is_empty()) {
        Some(model) => model.to_owned(),
        None => fields.text("name")?.unwrap_or_default().to_owned(),
    };
    if text.trim().is_empty() {
        return Err(ApiError::bad_request("model is required"));
    }
    let (plain, _) = without_place(&text)?;
    let name = ModelName::parse(plain).map_err(|_| ApiError::bad_request(format!("name {text:?} is invalid")))?;
    read(app, move |app| match app.store.remove(&name) {
        Err(StoreError::NotFound { .. }) => Err(ApiError::not_found(format!("model '{text}' not found"))),
        other => Ok(other?),
    })
    .await
}
