//! The routes of an account and of services in a cloud, of which a Lantern has neither.

use axum::body::Bytes;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::error::ApiError;
use crate::json::{self, Fields};

/// There is no account to tell of.
pub(super) async fn me() -> Response {
    ApiError { status: StatusCode::SERVICE_UNAVAILABLE, message: "account unavailable".into() }.into_response()
}

pub(super) async fn sign_out() -> Response {
    ApiError { status: StatusCode::UNAUTHORIZED, message: "you are not currently signed in".into() }.into_response()
}

pub(super) async fn web_search(body: Bytes) -> Response {
    no_cloud(&body, "web search")
}

pub(super) async fn web_fetch(body: Bytes) -> Response {
    no_cloud(&body, "web fetch")
}

fn no_cloud(body: &Bytes, what: &str) -> Response {
    if let Err(error) = Fields::parse("WebRequest", body) {
        return error.into_response();
    }
    let message = format!("ollama cloud is disabled: {what} is unavailable");
    ApiError { status: StatusCode::FORBIDDEN, message }.into_response()
}

/// Pushing is off: a way out for models is a way out for data.
pub(super) async fn push(body: Bytes) -> Response {
    let fields = match Fields::parse("PushRequest", &body) {
        Ok(fields) => fields,
        Err(error) => return error.into_response(),
    };
    let name = |key: &str| Ok::<_, ApiError>(fields.text(key)?.unwrap_or_default().to_owned());
    match (name("model"), name("name")) {
        (Ok(model), Ok(name)) if model.is_empty() && name.is_empty() => {
            ApiError::bad_request("model is required").into_response()
        }
        (Ok(_), Ok(_)) => {
            let message = "push is not supported: models stay on this machine".to_owned();
            ApiError { status: StatusCode::FORBIDDEN, message }.into_response()
        }
        (Err(error), _) | (_, Err(error)) => error.into_response(),
    }
}

/// What to begin with, for clients that offer a choice: the model that is here already.
pub(super) async fn recommendations() -> Response {
    let guide =
        json!({ "model": "lantern-guide", "description": "A tiny model that knows how to use Lantern", "context_length": 2048 });
    json::reply(&json!({ "recommendations": [guide] }))
}
