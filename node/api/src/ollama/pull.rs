//! `POST /api/pull`: a model from the registry. Clients that ask for the same model share one download, which stops when
//! the last of them has gone.

use std::collections::HashMap;
use std::convert::Infallible;
use std::pin::pin;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use catalog::{ModelName, Progress, PullError, StoreError};
use futures_util::stream;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::model::parse_name;
use crate::App;
use crate::error::ApiError;
use crate::json::{self, Fields};

/// Between two objects that tell of the same layer.
const INTERVAL: Duration = Duration::from_millis(60);

/// The downloads that are going on, by full name.
#[derive(Default)]
pub struct Pulls(Mutex<HashMap<String, watch::Sender<Log>>>);

/// The objects of a download so far. The last one is replaced while only its numbers change.
#[derive(Default, Clone)]
struct Log {
    lines: Vec<Value>,
    ended: bool,
    /// What a failure is, for those who want one answer.
    failed: Option<StatusCode>,
}

pub(super) async fn pull(State(app): State<App>, body: Bytes) -> Response {
    answer(&app, &body).await.unwrap_or_else(IntoResponse::into_response)
}

async fn answer(app: &App, body: &Bytes) -> Result<Response, ApiError> {
    let fields = Fields::parse("PullRequest", body)?;
    let text = match fields.text("model")?.filter(|m| !m.is_empty()) {
        Some(model) => model,
        None => fields.text("name")?.unwrap_or_default(),
    };
    let name = parse_name(text)?;
    let streamed = fields.truth("stream")?.unwrap_or(true);
    let follower = Follower { log: join(app, &name), n_told: 0, last: None };
    if streamed { Ok(lines(follower)) } else { last(follower).await }
}

/// Takes part in the download of a model, which begins if nobody waits for it yet.
fn join(app: &App, name: &ModelName) -> watch::Receiver<Log> {
    let mut pulls = app.pulls.0.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(log) = pulls.get(&name.full()) {
        return log.subscribe();
    }
    let (log, follower) = watch::channel(Log::default());
    pulls.insert(name.full(), log.clone());
    tokio::spawn(download(app.clone(), name.clone(), log));
    follower
}

async fn download(app: App, name: ModelName, log: watch::Sender<Log>) {
    let tell = |object: Value, ended: bool| {
        log.send_modify(|log| {
            if log.lines.last().is_some_and(|last| last["status"] == object["status"]) {
                log.lines.pop();
            }
            log.lines.push(object);
            log.ended = ended;
        });
    };
    let mut pace = Pace::default();
    let report = |progress: Progress| {
        if pace.tells(&progress) {
            tell(object(&progress), false);
        }
    };
    let mut pull = pin!(app.registry.pull(&app.store, &name, report));
    let result = loop {
        tokio::select! {
            result = &mut pull => break Some(result),
            () = log.closed() => {
                let mut pulls = app.pulls.0.lock().unwrap_or_else(PoisonError::into_inner);
                // Somebody may have come in this moment.
                if log.receiver_count() == 0 {
                    pulls.remove(&name.full());
                    break None;
                }
            }
        }
    };
    let Some(result) = result else {
        tracing::info!("stopped pulling {name}: nobody waits for it");
        return;
    };
    // From here on a client that asks begins anew; those who follow learn how this one ended.
    app.pulls.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&name.full());
    match result {
        Ok(()) => {
            tracing::info!("pulled {name}");
            tell(json!({ "status": "success" }), true);
        }
        Err(error) => {
            tracing::warn!("could not pull {name}: {error}");
            log.send_modify(|log| log.failed = Some(status(&error)));
            tell(json!({ "error": error.to_string() }), true);
        }
    }
}

/// Bytes come by the thousand times a second; clients want to see them move.
#[derive(Default)]
pub(super) struct Pace(Option<Instant>);

impl Pace {
    /// Whether progress is worth telling now.
    pub(super) fn tells(&mut self, progress: &Progress) -> bool {
        let moving = matches!(progress, Progress::Layer { total, completed, .. } if 0 < *completed && completed < total);
        let tells = !moving || self.0.is_none_or(|told| told.elapsed() >= INTERVAL);
        if tells {
            self.0 = Some(Instant::now());
        }
        tells
    }
}

/// Whose fault it is that a model did not come.
pub(super) fn status(error: &PullError) -> StatusCode {
    match error {
        PullError::NotFound => StatusCode::NOT_FOUND,
        PullError::OtherHost { .. } => StatusCode::FORBIDDEN,
        PullError::TooLarge { .. } => StatusCode::BAD_REQUEST,
        PullError::DiskFull { .. } => StatusCode::INSUFFICIENT_STORAGE,
        PullError::Store(StoreError::Io(error)) if error.kind() == std::io::ErrorKind::StorageFull => {
            StatusCode::INSUFFICIENT_STORAGE
        }
        PullError::Store(_) => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::BAD_GATEWAY,
    }
}

pub(super) fn object(progress: &Progress) -> Value {
    match progress {
        Progress::Manifest => json!({ "status": "pulling manifest" }),
        Progress::Layer { digest, total, completed } => {
            let hex = digest.trim_start_matches("sha256:");
            let mut object =
                json!({ "status": format!("pulling {}", &hex[..12.min(hex.len())]), "digest": digest, "total": total });
            if *completed > 0 {
                object["completed"] = json!(completed);
            }
            object
        }
        Progress::Verifying => json!({ "status": "verifying sha256 digest" }),
        Progress::WritingManifest => json!({ "status": "writing manifest" }),
        Progress::Removing => json!({ "status": "removing unused layers" }),
    }
}

/// One client's way through the log.
struct Follower {
    log: watch::Receiver<Log>,
    /// Objects that will not change any more and have been told.
    n_told: usize,
    last: Option<Value>,
}

impl Follower {
    /// The objects since the last call, and whether they are the end. `None` when the download has vanished.
    async fn next(&mut self) -> Option<(Vec<Value>, bool)> {
        if self.log.borrow().lines.is_empty() || self.last.is_some() {
            self.log.changed().await.ok()?;
        }
        let log = self.log.borrow_and_update().clone();
        let news: Vec<Value> =
            log.lines[self.n_told..].iter().filter(|line| Some(*line) != self.last.as_ref()).cloned().collect();
        self.n_told = log.lines.len().saturating_sub(1);
        self.last = log.lines.last().cloned();
        Some((news, log.ended))
    }
}

fn lines(follower: Follower) -> Response {
    let next = |follower: Option<Follower>| async move {
        let mut follower = follower?;
        let (news, ended) = follower.next().await?;
        let text: String = news.iter().map(|object| json::escaped(object) + "\n").collect();
        Some((Ok::<_, Infallible>(Bytes::from(text)), (!ended).then_some(follower)))
    };
    let mut response = Response::new(Body::from_stream(stream::unfold(Some(follower), next)));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    response
}

async fn last(mut follower: Follower) -> Result<Response, ApiError> {
    loop {
        match follower.next().await {
            Some((_, false)) => {}
            Some((news, true)) => {
                let last = news.into_iter().next_back().unwrap_or_default();
                return match last["error"].as_str() {
                    Some(error) => {
                        let status = follower.log.borrow().failed.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                        Err(ApiError { status, message: error.to_owned() })
                    }
                    None => Ok(json::reply(&last)),
                };
            }
            None => return Err(ApiError::internal("the download stopped unexpectedly")),
        }
    }
}
