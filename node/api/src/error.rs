//! One error for all endpoints, rendered as the dialect spells errors.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use catalog::StoreError;
use scheduler::{Busy, DescribeError, Failure, FailureKind};
use serde_json::json;

use crate::json;

/// A status and one sentence.
#[derive(Debug, Clone)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
}

impl ApiError {
    pub(crate) fn bad_request(message: impl ToString) -> ApiError {
        ApiError { status: StatusCode::BAD_REQUEST, message: message.to_string() }
    }

    pub(crate) fn not_found(message: impl ToString) -> ApiError {
        ApiError { status: StatusCode::NOT_FOUND, message: message.to_string() }
    }

    pub(crate) fn internal(message: impl ToString) -> ApiError {
        ApiError { status: StatusCode::INTERNAL_SERVER_ERROR, message: message.to_string() }
    }

    /// Headers that go with the status, whatever the dialect.
    pub(crate) fn add_headers(&self, response: &mut Response) {
        match self.status {
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
                response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            StatusCode::UNAUTHORIZED => {
                response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            _ => {}
        }
    }

    /// The error as the Ollama dialect spells it.
    pub(crate) fn body(&self) -> serde_json::Value {
        json!({ "error": self.message })
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = json::reply(&self.body());
        *response.status_mut() = self.status;
        self.add_headers(&mut response);
        response
    }
}

impl From<Busy> for ApiError {
    fn from(busy: Busy) -> ApiError {
        let status = match busy {
            Busy::Server => StatusCode::SERVICE_UNAVAILABLE,
            Busy::Client { .. } => StatusCode::TOO_MANY_REQUESTS,
        };
        ApiError { status, message: busy.to_string() }
    }
}

impl From<Failure> for ApiError {
    fn from(failure: Failure) -> ApiError {
        let status = match failure.kind {
            FailureKind::Request => StatusCode::BAD_REQUEST,
            FailureKind::Memory | FailureKind::Server => StatusCode::INTERNAL_SERVER_ERROR,
        };
        ApiError { status, message: failure.message }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> ApiError {
        match error {
            StoreError::NotFound { .. } => ApiError::not_found(error),
            StoreError::Damaged { .. } | StoreError::Io(_) => ApiError::internal(error),
        }
    }
}

impl From<DescribeError> for ApiError {
    fn from(error: DescribeError) -> ApiError {
        ApiError::internal(error)
    }
}
