//! What holds for every route: Origin and Host rules, redirects of stray slashes, and answers for paths and methods that do
//! not exist.

use std::sync::Arc;

use access::{OriginVerdict, host_allowed};
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::App;

const METHODS: &str = "GET,POST,PUT,PATCH,DELETE,HEAD,OPTIONS";
const HEADERS: &str = "Authorization,Content-Type,User-Agent,Accept,X-Requested-With,Openai-Beta,X-Stainless-Arch,X-Stainless-Async,\
    X-Stainless-Custom-Poll-Interval,X-Stainless-Helper-Method,X-Stainless-Lang,X-Stainless-Os,X-Stainless-Package-Version,\
    X-Stainless-Poll-Helper,X-Stainless-Retry-Count,X-Stainless-Runtime,X-Stainless-Runtime-Version,X-Stainless-Timeout";
/// Seconds a browser may remember a preflight: half a day.
const MAX_AGE: &str = "43200";

/// Checks origin, then host, then serves.
pub(crate) async fn apply(State((app, paths)): State<(App, Arc<[&'static str]>)>, mut request: Request, next: Next) -> Response {
    request.extensions_mut().insert(app.clone());
    let host = host(&request);
    let origin = request.headers().get(header::ORIGIN).cloned();
    let verdict = match &origin {
        None => OriginVerdict::NotCross,
        Some(value) => value.to_str().map_or(OriginVerdict::Refused, |origin| app.origins.verdict(Some(origin), &host)),
    };
    if verdict == OriginVerdict::Refused {
        return StatusCode::FORBIDDEN.into_response();
    }
    let cross = origin.filter(|_| verdict != OriginVerdict::NotCross);
    let preflight = request.method() == Method::OPTIONS;
    let mut response = match &cross {
        Some(_) if preflight => preflight_reply(),
        // On every listener: a page that rebinds its name reaches addresses at home as well.
        _ if !host_allowed(&host, &app.own_name, &app.names) => StatusCode::FORBIDDEN.into_response(),
        _ if preflight && app.loopback && is_name(&host) => StatusCode::NO_CONTENT.into_response(),
        _ => serve(request, next, &paths).await,
    };
    // What a model writes is never taken for a page, wherever a browser opens it.
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Some(origin) = cross {
        let headers = response.headers_mut();
        if verdict == OriginVerdict::AllowedAll {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        } else {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            let vary = if preflight { "Origin, Access-Control-Request-Method, Access-Control-Request-Headers" } else { "Origin" };
            headers.insert(header::VARY, HeaderValue::from_static(vary));
        }
    }
    response
}

/// The host a request is addressed to: the Host header, or the first line where that names one.
fn host(request: &Request) -> String {
    let header = request.headers().get(header::HOST).and_then(|v| v.to_str().ok());
    header.or_else(|| request.uri().host()).unwrap_or_default().to_owned()
}

/// The answer to a path that does not exist.
pub(crate) async fn not_found() -> Response {
    (StatusCode::NOT_FOUND, [(header::CONTENT_TYPE, "text/plain")], "404 page not found").into_response()
}

/// The answer to a method that a path does not have; the router adds which it has.
pub(crate) async fn method_not_allowed() -> Response {
    (StatusCode::METHOD_NOT_ALLOWED, [(header::CONTENT_TYPE, "text/plain")], "405 method not allowed").into_response()
}

async fn serve(request: Request, next: Next, paths: &[&str]) -> Response {
    let path = request.uri().path().to_owned();
    let get = request.method() == Method::GET;
    let query = request.uri().query().map(|q| format!("?{q}")).unwrap_or_default();
    let mut response = next.run(request).await;
    if response.status() == StatusCode::NOT_FOUND
        && path.len() > 1
        && path.ends_with('/')
        && paths.contains(&path.trim_end_matches('/'))
    {
        let status = if get { StatusCode::MOVED_PERMANENTLY } else { StatusCode::TEMPORARY_REDIRECT };
        let location = format!("{}{query}", path.trim_end_matches('/'));
        return (status, [(header::LOCATION, location)]).into_response();
    }
    // The router joins methods with a bare comma; clients of this dialect see a space after it.
    if let Some(allow) = response.headers().get(header::ALLOW).and_then(|v| v.to_str().ok()) {
        let spaced = allow.split(',').map(str::trim).collect::<Vec<_>>().join(", ");
        if let Ok(value) = HeaderValue::from_str(&spaced) {
            response.headers_mut().insert(header::ALLOW, value);
        }
    }
    response
}

fn preflight_reply() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(METHODS));
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(HEADERS));
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(MAX_AGE));
    response
}

/// Whether a Host header holds a name rather than an address.
fn is_name(host: &str) -> bool {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    !name.is_empty() && !name.starts_with('[') && name.parse::<std::net::IpAddr>().is_err()
}
