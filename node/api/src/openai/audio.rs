//! `POST /v1/audio/transcriptions`: the form is read as clients send it, and refused for the one thing no model here can do.

use axum::extract::multipart::MultipartError;
use axum::extract::{FromRequest, Multipart, Request, State};
use axum::response::Response;

use crate::App;
use crate::error::ApiError;
use crate::ollama::model;

/// Bytes of the form, the file included.
pub(super) const FORM_BYTES_MAX: usize = 25 << 20;
const NAME_BYTES_MAX: usize = 1000;

pub(super) async fn transcriptions(State(app): State<App>, request: Request) -> Response {
    let refusal = match refusal(&app, request).await {
        Ok(refusal) | Err(refusal) => refusal,
    };
    super::refuse(refusal)
}

/// What is wrong with the form, or with the model it names.
async fn refusal(app: &App, request: Request) -> Result<ApiError, ApiError> {
    let bad = |error: MultipartError| ApiError {
        status: error.status(),
        message: format!("the form cannot be read: {}", error.body_text()),
    };
    let form = Multipart::from_request(request, &()).await;
    let mut form = form.map_err(|e| ApiError::bad_request(format!("the form cannot be read: {}", e.body_text())))?;
    let (mut name, mut n_bytes) = (String::new(), None);
    while let Some(mut field) = form.next_field().await.map_err(bad)? {
        match field.name() {
            Some("model") => {
                let mut bytes = Vec::new();
                while let Some(part) = field.chunk().await.map_err(bad)? {
                    // No name is as long.
                    bytes.extend(part.iter().take(NAME_BYTES_MAX - bytes.len()));
                }
                name = String::from_utf8_lossy(&bytes).into_owned();
            }
            Some("file") => {
                let mut n = 0;
                while let Some(part) = field.chunk().await.map_err(bad)? {
                    n += part.len();
                }
                n_bytes = Some(n);
            }
            // Language, prompt and format of an answer there will not be.
            _ => {}
        }
    }
    if name.is_empty() {
        return Err(ApiError::bad_request("model is required"));
    }
    match n_bytes {
        None => return Err(ApiError::bad_request("file is required: no such file")),
        Some(0) => return Err(ApiError::bad_request("audio file is empty")),
        Some(_) => {}
    }
    let found = model::find(app, &name).await?;
    Ok(ApiError::bad_request(format!("{:?} does not support audio", found.file.name)))
}
