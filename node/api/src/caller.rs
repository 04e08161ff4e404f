//! Who asks: requests are taken fairly among callers.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Instant;

use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::request::Parts;
use scheduler::Client;

/// Whose turn a request takes, and when it was accepted.
pub(crate) struct Caller {
    pub(crate) client: Client,
    pub(crate) accepted: Instant,
}

/// Headers in which clients send a token, by dialect.
const TOKENS: [&str; 2] = ["authorization", "x-api-key"];

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Infallible;

    /// The token a request carries, else the address it comes from; nothing for a call within the process.
    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Caller, Infallible> {
        let token = TOKENS.iter().find_map(|name| parts.headers.get(*name)?.to_str().ok().map(String::from));
        let address = || parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip().to_string());
        Ok(Caller { client: Client(token.or_else(address).unwrap_or_default()), accepted: Instant::now() })
    }
}
