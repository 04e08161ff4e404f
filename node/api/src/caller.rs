//! Who asks: requests are taken fairly among callers.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use access::Place;
use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::HeaderMap;
use axum::http::request::Parts;
use scheduler::Client;

use crate::guard::TokenName;

/// What a proxy says of a request.
pub(crate) fn through_proxy(headers: &HeaderMap) -> Option<(Place, Option<IpAddr>)> {
    access::through_proxy(|name| Some(headers.get_all(name).iter().next_back()?.to_str().unwrap_or_default().to_owned()))
}

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
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
        let proxied = through_proxy(&parts.headers);
        let address = peer.map(|peer| access::host_of(proxied.and_then(|(_, address)| address).unwrap_or(peer)));
        // Whoever works on this machine is its owner, and may have it all.
        let bounded = token.is_some() || proxied.is_some() || address.is_some_and(|address| !address.is_loopback());
        let name = token.or_else(|| address.map(|address| address.to_string())).unwrap_or_default();
        Ok(Caller { client: Client { name, bounded }, accepted: Instant::now() })
    }
}
