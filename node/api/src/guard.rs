//! Whether a caller may do what a route does, by where it is and by its token; see `access` for the rules.

use std::io::Read;
use std::net::SocketAddr;
use std::time::Duration;

use access::{Need, Place, Reach, Verdict};
use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use store::{Access, Token};
use tokio::sync::{Semaphore, SemaphorePermit};
use zstd::stream::read::Decoder;

use crate::caller::through_proxy;
use crate::error::ApiError;
use crate::json::BODY_BYTES_MAX;
use crate::{App, anthropic, openai};

/// Header in which Anthropic's clients send a token.
const API_KEY: &str = "x-api-key";
/// Bytes a compressed body may refer back to, as a power of two: what browsers take.
const WINDOW_LOG_MAX: u32 = 23;
/// Bytes, in KiB, of large bodies that may be on their way at once: a client cannot hold more memory than that by sending slowly.
static LARGE_BODIES: Semaphore = Semaphore::const_new(128 << 10);
/// How long a body may take: what a slow line needs for the largest.
const BODY_TIME_MAX: Duration = Duration::from_secs(300);
/// Bytes of a body from which on its memory is given back at once.
const LARGE_BODY: usize = 1 << 20;
/// What a page's form can send without asking first.
const SIMPLE_TYPES: [&str; 3] = ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"];

/// The name of a caller's valid token.
#[derive(Debug, Clone)]
pub(crate) struct TokenName(pub(crate) String);

/// Serves a request if its caller may.
pub(crate) async fn check(need: Need, mut request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    match allowed(need, &request) {
        Ok(name) => {
            if let Some(name) = name {
                request.extensions_mut().insert(TokenName(name));
            }
            next.run(request).await
        }
        Err(error) => refuse(&path, error),
    }
}

/// Reads a request's body, so that one which is too long or does not come is refused in the words of its dialect.
pub(crate) async fn read_body(request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let announced = parts.headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|len| len > BODY_BYTES_MAX as u64) {
        return refuse(parts.uri.path(), too_long());
    }
    let mut room = Room::default();
    let read = tokio::time::timeout(BODY_TIME_MAX, bytes_of(body, &parts.headers, &mut room)).await;
    let (response, is_large) = match read.unwrap_or_else(|_| Err(broken_off())) {
        Ok(bytes) => {
            let is_large = bytes.len() > LARGE_BODY;
            (next.run(Request::from_parts(parts, Body::from(bytes))).await, is_large)
        }
        Err(error) => (refuse(parts.uri.path(), error), true),
    };
    if is_large {
        // It came in thousands of pieces, whose memory the C library would keep.
        scheduler::report::return_freed_memory();
    }
    response
}

/// What a body takes of the memory for large ones. It is taken as the bytes come: who announces much and sends little holds little.
#[derive(Default)]
struct Room {
    permit: Option<SemaphorePermit<'static>>,
    kib: u32,
}

impl Room {
    /// Takes what a body of `len` bytes needs.
    fn grow(&mut self, len: usize) -> Result<(), ApiError> {
        let wanted = if len > LARGE_BODY { (len >> 10) as u32 } else { 0 };
        if wanted <= self.kib {
            return Ok(());
        }
        let Ok(more) = LARGE_BODIES.try_acquire_many(wanted - self.kib) else {
            let message = "too many large requests are on their way; try again in a moment".to_owned();
            return Err(ApiError { status: StatusCode::SERVICE_UNAVAILABLE, message });
        };
        match &mut self.permit {
            Some(permit) => permit.merge(more),
            None => self.permit = Some(more),
        }
        self.kib = wanted;
        Ok(())
    }
}

fn broken_off() -> ApiError {
    ApiError::bad_request("the request's body broke off or did not come")
}

fn too_long() -> ApiError {
    ApiError {
        status: StatusCode::PAYLOAD_TOO_LARGE,
        message: format!("the request's body is larger than {} MiB", BODY_BYTES_MAX >> 20),
    }
}

/// The whole of a body.
async fn bytes_of(mut body: Body, headers: &HeaderMap, room: &mut Room) -> Result<Bytes, ApiError> {
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| broken_off())?.into_data() else { continue };
        if bytes.len() + data.len() > BODY_BYTES_MAX {
            return Err(too_long());
        }
        room.grow(bytes.len() + data.len())?;
        bytes.extend_from_slice(&data);
    }
    let bytes = expanded(bytes.freeze(), headers)?;
    room.grow(bytes.len())?;
    Ok(bytes)
}

/// The bytes of a body that may be compressed as Codex does it.
fn expanded(bytes: Bytes, headers: &HeaderMap) -> Result<Bytes, ApiError> {
    let encoding = headers.get(header::CONTENT_ENCODING).and_then(|v| v.to_str().ok()).unwrap_or("identity").trim();
    if encoding.eq_ignore_ascii_case("identity") {
        return Ok(bytes);
    }
    if !encoding.eq_ignore_ascii_case("zstd") {
        let message = format!("a body compressed by {encoding:.40} cannot be read; zstd can");
        return Err(ApiError { status: StatusCode::UNSUPPORTED_MEDIA_TYPE, message });
    }
    let damaged = || ApiError::bad_request("the request's body is no zstd data, or damaged");
    let mut out = Vec::new();
    tokio::task::block_in_place(|| {
        let mut decoder = Decoder::new(&bytes[..])?;
        decoder.window_log_max(WINDOW_LOG_MAX)?;
        decoder.take(BODY_BYTES_MAX as u64 + 1).read_to_end(&mut out)
    })
    .map_err(|_| damaged())?;
    if out.len() > BODY_BYTES_MAX { Err(too_long()) } else { Ok(out.into()) }
}

/// An error as the dialect of a path spells it.
fn refuse(path: &str, error: ApiError) -> Response {
    match path {
        _ if path.starts_with("/v1/messages") => anthropic::refuse(error),
        _ if path.starts_with("/v1/") || path.starts_with("/api/v0/") => openai::refuse(error),
        _ => error.into_response(),
    }
}

/// The name of the caller's token, if it has one; an error if it may not do this.
fn allowed(need: Need, request: &Request) -> Result<Option<String>, ApiError> {
    let app = request.extensions().get::<App>().expect("every request carries the app");
    let headers = request.headers();
    if request.uri().query().is_some_and(|query| query.contains("ltn_")) {
        return Err(ApiError::bad_request("a token belongs in the Authorization header, where no log writes it down"));
    }
    // A command that runs the engine itself has no address, and the user's own files at hand.
    let Some(ConnectInfo(address)) = request.extensions().get::<ConnectInfo<SocketAddr>>() else { return Ok(None) };
    let place = through_proxy(headers).map_or_else(|| Place::of(address.ip()), |(place, _)| place.max(Place::of(address.ip())));
    let from_browser = headers.contains_key(header::ORIGIN) || headers.contains_key("sec-fetch-site");
    let token = token(app, headers)?;
    let reach = token.as_ref().map(|token| match token.access {
        Access::Read => Reach::Read,
        Access::Write => Reach::Write,
        Access::Admin => Reach::Admin,
    });
    match app.mode.decide(need, place, from_browser, reach) {
        Verdict::Allowed if need == Need::Change && from_browser && simple(headers) => Err(ApiError {
            status: StatusCode::UNSUPPORTED_MEDIA_TYPE,
            message: "a page must send application/json to change something".into(),
        }),
        Verdict::Allowed => Ok(token.map(|token| token.name)),
        Verdict::NeedsToken(reach) => {
            let message = format!("a token with {} is needed: make one on the box with `lantern token create`", scope(reach));
            Err(ApiError { status: StatusCode::UNAUTHORIZED, message })
        }
        Verdict::TooWeak(reach) => {
            let message = format!("the token does not reach this far: {} is needed", scope(reach));
            Err(ApiError { status: StatusCode::FORBIDDEN, message })
        }
        Verdict::Refused => Err(ApiError {
            status: StatusCode::FORBIDDEN,
            message:
                "only private networks are served; LANTERN_ACCESS=tokens serves tokens through a proxy, open serves everybody"
                    .into(),
        }),
    }
}

fn scope(reach: Reach) -> &'static str {
    match reach {
        Reach::Read => Access::Read.scope(),
        Reach::Write => Access::Write.scope(),
        Reach::Admin => Access::Admin.scope(),
    }
}

/// The caller's token. What is none of ours is left out of account, as clients send keys of other services; one of ours that
/// is unknown or has expired is an error.
fn token(app: &App, headers: &HeaderMap) -> Result<Option<Token>, ApiError> {
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok());
    let bearer = text(header::AUTHORIZATION.as_str()).and_then(|v| v.split_once(' '));
    let bearer = bearer.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, text)| text);
    let Some(text) = [bearer, text(API_KEY)].into_iter().flatten().map(str::trim).find(|text| Token::is_one(text)) else {
        return Ok(None);
    };
    let unknown = || ApiError { status: StatusCode::UNAUTHORIZED, message: "the token is unknown or has expired".into() };
    let state = app.state.as_ref().ok_or_else(unknown)?;
    // It may wait for the disk.
    match tokio::task::block_in_place(|| state.check_token(text, jiff::Timestamp::now())) {
        Ok(token) => token.map(Some).ok_or_else(unknown),
        Err(error) => {
            tracing::error!("a token could not be checked: {error}");
            Err(ApiError::internal("the token could not be checked"))
        }
    }
}

/// Whether a body has a type that a browser sends without asking the server first.
fn simple(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default().to_ascii_lowercase();
    kind.is_empty() || SIMPLE_TYPES.iter().any(|simple| kind.starts_with(simple))
}
