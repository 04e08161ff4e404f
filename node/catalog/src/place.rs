//! A place on the network that models are pulled from, and how it is asked: with a sign-in where it wants one.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::{Client, Response, StatusCode, Url, header};

use crate::away;
use crate::pull::PullError;

/// A connection may take this long to stand, and to send its next bytes.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of an answer to a sign-in.
const SIGN_IN_BYTES_MAX: usize = 64 << 10;

/// A registry's address, and what it is shown.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) base: String,
    client: Client,
    /// The owner's token for it.
    token: Option<String>,
    /// What it gave us for this token, or for nothing: shown until it wants another.
    bearer: Arc<Mutex<Option<String>>>,
}

/// Why a request gave nothing.
#[derive(Debug)]
pub(crate) enum Interrupted {
    /// Worth another attempt.
    Network(String),
    /// The server sends everything or nothing.
    NoRanges,
    Final(PullError),
}

impl From<reqwest::Error> for Interrupted {
    fn from(error: reqwest::Error) -> Interrupted {
        Interrupted::Network(innermost(&error))
    }
}

impl From<io::Error> for Interrupted {
    fn from(error: io::Error) -> Interrupted {
        Interrupted::Final(error.into())
    }
}

impl Place {
    /// A registry at an address, shown `token` if the owner has one for it.
    ///
    /// # Errors
    /// When the address is none, or the system has no trusted certificates.
    pub(crate) fn new(base: &str, token: Option<String>) -> Result<Place, String> {
        let parsed = Url::parse(base).map_err(|e| format!("{base:?} is not an address: {e}"))?;
        if !["http", "https"].contains(&parsed.scheme()) {
            return Err(format!("{base:?} begins with neither http:// nor https://"));
        }
        let at_home = !away::is_public_host(parsed.host_str().unwrap_or_default());
        let builder = Client::builder()
            .user_agent(concat!("lantern/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(PATIENCE)
            .read_timeout(PATIENCE)
            .redirect(away::redirects(at_home));
        // Who keeps a registry at home wants addresses at home; nobody else does. A proxy looks names up itself, and is at home.
        let builder = if at_home || away::has_proxy() { builder } else { builder.dns_resolver(Arc::new(away::PublicOnly)) };
        let client = builder.build().map_err(|e| innermost(&e))?;
        Ok(Place { base: base.trim_end_matches('/').to_owned(), client, token, bearer: Arc::default() })
    }

    /// Asks for an address at this place; `header` is a further one. Signs in once if the place wants that.
    pub(crate) async fn get(&self, address: &str, header: (header::HeaderName, String)) -> Result<Response, Interrupted> {
        let shown = self.bearer.lock().unwrap_or_else(PoisonError::into_inner).clone().or_else(|| self.token.clone());
        let ask = |bearer: Option<&str>| {
            let request = self.client.get(address).header(header.0.clone(), &header.1);
            match bearer {
                // The client leaves it out where a redirect leads to another host.
                Some(bearer) => request.bearer_auth(bearer),
                None => request,
            }
        };
        let response = ask(shown.as_deref()).send().await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        let challenge =
            response.headers().get(header::WWW_AUTHENTICATE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let Some(sign_in) = self.sign_in_address(address, challenge)? else { return Ok(response) };
        let bearer = self.sign_in(sign_in).await?;
        let response = ask(Some(&bearer)).send().await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            *self.bearer.lock().unwrap_or_else(PoisonError::into_inner) = Some(bearer);
        }
        Ok(response)
    }

    /// Where a challenge `Bearer realm="…",service="…",scope="…"` sends us. Nothing is sent to any other host than the one
    /// that was asked.
    fn sign_in_address(&self, asked: &str, challenge: &str) -> Result<Option<Url>, Interrupted> {
        let Some(parameters) = challenge.strip_prefix("Bearer ") else { return Ok(None) };
        let parameter = |name: &str| {
            parameters.split(',').find_map(|part| part.trim().strip_prefix(name)?.strip_prefix('=').map(|v| v.trim_matches('"')))
        };
        let Some(realm) = parameter("realm") else { return Ok(None) };
        let refused = |host: &str| {
            let reason = format!("it wants a sign-in at {host}, which is another place");
            Interrupted::Final(PullError::Refused { status: StatusCode::UNAUTHORIZED.as_u16(), reason })
        };
        let mut realm = Url::parse(realm).map_err(|_| refused("no address"))?;
        let asked = Url::parse(asked).map_err(|_| refused("no address"))?;
        if realm.origin() != asked.origin() {
            return Err(refused(realm.host_str().unwrap_or("no address")));
        }
        for name in ["service", "scope"] {
            if let Some(value) = parameter(name) {
                realm.query_pairs_mut().append_pair(name, value);
            }
        }
        Ok(Some(realm))
    }

    async fn sign_in(&self, address: Url) -> Result<String, Interrupted> {
        let mut request = self.client.get(address);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let mut response = request.send().await?;
        let status = response.status();
        let mut bytes = Vec::new();
        while let Some(part) = response.chunk().await? {
            bytes.extend_from_slice(&part);
            if bytes.len() > SIGN_IN_BYTES_MAX {
                break;
            }
        }
        let answer: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let bearer = ["token", "access_token"].iter().find_map(|name| answer[*name].as_str());
        match bearer.filter(|_| status.is_success()) {
            Some(bearer) => Ok(bearer.to_owned()),
            None => {
                let reason = "unauthorized: access denied".into();
                Err(Interrupted::Final(PullError::Refused { status: StatusCode::UNAUTHORIZED.as_u16(), reason }))
            }
        }
    }
}

/// The cause at the end of the chain, which names what happened; the outer ones only say that something did.
fn innermost(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
