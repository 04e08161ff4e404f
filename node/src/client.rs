//! How commands reach a server: the running daemon, or the same router in this process when none answers.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use axum::Router;
use axum::body::Body;
use futures_util::stream;
use http::{Method, Request, Response, header};
use http_body_util::BodyExt;
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tokio::fs::File;
use tokio::io::AsyncReadExt;
use tower::ServiceExt;

use crate::config::Config;
use crate::serve;

/// How long a daemon may take to answer a first knock.
const KNOCK: Duration = Duration::from_millis(500);

/// Bytes of a file that are sent at a time.
const UPLOAD_BYTES: usize = 1 << 20;

/// A server to talk to.
pub(crate) struct Client {
    base: String,
    way: Way,
    token: Option<String>,
}

enum Way {
    Daemon(HttpClient<HttpConnector, Body>),
    InProcess(Router),
}

impl Client {
    /// The daemon at the configured address, or an engine in this process.
    pub(crate) async fn connect(config: &Config) -> Result<Client> {
        let daemon = Client::daemon(config);
        // A daemon that refuses is one that answers.
        let knock = daemon.answer(Method::GET, "/api/version", Body::empty());
        match tokio::time::timeout(KNOCK, knock).await {
            Ok(Ok(_)) => Ok(daemon),
            _ => Ok(Client {
                base: "http://localhost".into(),
                way: Way::InProcess(serve::router(config, None, true)?),
                token: config.token.clone(),
            }),
        }
    }

    /// The daemon, for commands that make no sense without one.
    pub(crate) fn daemon(config: &Config) -> Client {
        Client {
            base: config.url(),
            way: Way::Daemon(HttpClient::builder(TokioExecutor::new()).build_http()),
            token: config.token.clone(),
        }
    }

    /// Sends a request and gives its answer, read to the end.
    pub(crate) async fn json(&self, method: Method, path: &str, body: Option<Value>) -> Result<Value> {
        let bytes = self.send(method, path, body).await?.into_body().collect().await.context("the answer broke off")?.to_bytes();
        if bytes.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&bytes).context("the server answered something that is not JSON")
    }

    /// Sends a request and gives the objects of its answer as they come.
    pub(crate) async fn lines(&self, path: &str, body: Value) -> Result<Lines> {
        let response = self.send(Method::POST, path, Some(body)).await?;
        Ok(Lines { body: response.into_body(), buffer: Vec::new() })
    }

    /// Brings a file into the store, unless it is there, and tells its digest.
    pub(crate) async fn upload(&self, path: &Path) -> Result<String> {
        let owned = path.to_owned();
        let digest = tokio::task::spawn_blocking(move || catalog::digest_of(&owned)).await.context("hashing failed")??;
        let blob = format!("/api/blobs/{digest}");
        if self.answer(Method::HEAD, &blob, Body::empty()).await?.status().is_success() {
            return Ok(digest);
        }
        let file = File::open(path).await?;
        success(self.answer(Method::POST, &blob, stream_of(file)).await?).await?;
        Ok(digest)
    }

    /// Sends a request and gives its answer, whatever it is.
    async fn answer(&self, method: Method, path: &str, body: Body) -> Result<Response<Body>> {
        let request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        let request = match &self.token {
            Some(token) => request.header(header::AUTHORIZATION, format!("Bearer {token}")),
            None => request,
        };
        let request =
            request.header(header::CONTENT_TYPE, "application/json").body(body).context("the address cannot be used")?;
        match &self.way {
            Way::Daemon(client) => {
                let answer = client.request(request).await.with_context(|| format!("no server answers at {}", self.base))?;
                Ok(answer.map(Body::new))
            }
            Way::InProcess(router) => router.clone().oneshot(request).await.context("the engine failed"),
        }
    }

    /// Sends a request; an answer that is no success becomes its error text.
    async fn send(&self, method: Method, path: &str, body: Option<Value>) -> Result<Response<Body>> {
        let body = body.map_or_else(Body::empty, |value| Body::from(value.to_string()));
        success(self.answer(method, path, body).await?).await
    }
}

/// The answer, if it is a success; else its error text.
async fn success(response: Response<Body>) -> Result<Response<Body>> {
    if response.status().is_success() {
        return Ok(response);
    }
    let status = response.status();
    let bytes = response.into_body().collect().await.context("the answer broke off")?.to_bytes();
    let error = serde_json::from_slice::<Value>(&bytes).ok().and_then(|v| Some(v["error"].as_str()?.to_owned()));
    bail!(error.unwrap_or_else(|| format!("the server answered {status}")))
}

/// The bytes of a file, some at a time.
fn stream_of(file: File) -> Body {
    let next = |mut file: File| async move {
        let mut part = vec![0; UPLOAD_BYTES];
        match file.read(&mut part).await {
            Ok(0) => None,
            Ok(n) => {
                part.truncate(n);
                Some((Ok(part), file))
            }
            Err(error) => Some((Err(error), file)),
        }
    };
    Body::from_stream(stream::unfold(file, next))
}

/// An answer that comes line by line.
pub(crate) struct Lines {
    body: Body,
    buffer: Vec<u8>,
}

impl Lines {
    /// The next object; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Value>> {
        loop {
            if let Some(at) = self.buffer.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=at).collect();
                return object(&line).map(Some);
            }
            match self.body.frame().await {
                Some(frame) => {
                    let frame = frame.context("the answer broke off")?;
                    self.buffer.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
                }
                None if self.buffer.is_empty() => return Ok(None),
                None => return object(&std::mem::take(&mut self.buffer)).map(Some),
            }
        }
    }
}

fn object(line: &[u8]) -> Result<Value> {
    let value: Value = serde_json::from_slice(line).context("the server answered something that is not JSON")?;
    match value["error"].as_str() {
        Some(error) => bail!("{error}"),
        None => Ok(value),
    }
}
