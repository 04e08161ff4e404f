//! Who asks: requests are taken fairly among callers.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Instant;

use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::request::Parts;
use scheduler::Client;

use crate::guard::TokenName;

/// Whose turn a request takes, and when it was accepted.
pub(crate) struct Caller {
    pub(crate) client: Client,
    pub(crate) accepted: Instant,
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Infallible;

    /// The name of a valid token, else the address a request comes from; nothing for a call within the process. What else a
    /// client says of itself does not count: it could say something else each time.
    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Caller, Infallible> {
        let token = parts.extensions.get::<TokenName>().map(|name| format!("token {}", name.0));
        let address = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|info| access::host_of(info.0.ip()));
        // Whoever works on this machine is its owner, and may have it all.
        let bounded = token.is_some() || address.is_some_and(|address| !address.is_loopback());
        let name = token.or_else(|| address.map(|address| address.to_string())).unwrap_or_default();
        Ok(Caller { client: Client { name, bounded }, accepted: Instant::now() })
    }
}
