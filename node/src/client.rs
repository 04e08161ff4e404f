//! How commands reach a server: the running daemon, or the same router in this process when none answers.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use axum::Router;
use axum::body::Body;
use http::{Method, Request, Response, header};
use http_body_util::BodyExt;
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tower::ServiceExt;

use crate::config::Config;
use crate::serve;

/// How long a daemon may take to answer a first knock.
const KNOCK: Duration = Duration::from_millis(500);

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
        let knock = daemon.answer(Method::GET, "/api/version", None);
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

    /// Sends a request and gives its answer, whatever it is.
    async fn answer(&self, method: Method, path: &str, body: Option<Value>) -> Result<Response<Body>> {
        let body = body.map_or_else(Body::empty, |value| Body::from(value.to_string()));
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
        let response = self.answer(method, path, body).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let bytes = response.into_body().collect().await.context("the answer broke off")?.to_bytes();
        let error = serde_json::from_slice::<Value>(&bytes).ok().and_then(|v| Some(v["error"].as_str()?.to_owned()));
        bail!(error.unwrap_or_else(|| format!("the server answered {status}")))
    }
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
