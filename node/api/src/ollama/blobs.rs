//! `HEAD` and `POST /api/blobs/:digest`: bytes into the store, ahead of the model that is made of them.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use catalog::UploadError;
use futures_util::StreamExt;
use scheduler::Client;

use crate::App;
use crate::caller::Caller;
use crate::error::ApiError;

/// Uploads at once, of one client and of all.
const N_OF_CLIENT_MAX: usize = 4;
const N_MAX: usize = 16;
/// Longest a client may send nothing.
const IDLE_MAX: Duration = Duration::from_secs(30);

/// The uploads that are going on, by client.
#[derive(Default)]
pub struct Uploads(Mutex<HashMap<Client, usize>>);

/// Bytes that are written at once.
const WRITE_BYTES: usize = 1 << 20;

/// One of them.
struct Turn {
    uploads: Arc<Uploads>,
    client: Client,
}

pub(super) async fn head(State(app): State<App>, Path(digest): Path<String>) -> Response {
    match app.store.has_blob(&digest) {
        Some(true) => StatusCode::OK.into_response(),
        Some(false) => StatusCode::NOT_FOUND.into_response(),
        None => StatusCode::BAD_REQUEST.into_response(),
    }
}

pub(super) async fn create(State(app): State<App>, Path(digest): Path<String>, caller: Caller, body: Body) -> Response {
    match app.store.has_blob(&digest) {
        None => ApiError::bad_request("invalid digest format").into_response(),
        Some(true) => StatusCode::OK.into_response(),
        Some(false) => receive(&app, &digest, caller, body)
            .await
            .map_or_else(IntoResponse::into_response, |()| StatusCode::CREATED.into_response()),
    }
}

async fn receive(app: &App, digest: &str, caller: Caller, body: Body) -> Result<(), ApiError> {
    let _turn = turn(&app.uploads, caller.client)?;
    let mut upload = app.store.upload().map_err(|e| write_error(&e))?;
    let mut parts = body.into_data_stream();
    let mut waiting = Vec::with_capacity(WRITE_BYTES);
    loop {
        let part = tokio::time::timeout(IDLE_MAX, parts.next()).await;
        let part = part.map_err(|_| ApiError::bad_request(format!("nothing came for {} seconds", IDLE_MAX.as_secs())))?;
        let Some(part) = part else { break };
        let part = part.map_err(|_| ApiError::bad_request("the upload broke off"))?;
        waiting.extend_from_slice(&part);
        if waiting.len() >= WRITE_BYTES {
            // Hashing takes time, and a slow card more: others are served meanwhile.
            tokio::task::block_in_place(|| upload.write(&waiting)).map_err(|e| write_error(&e))?;
            waiting.clear();
        }
    }
    tokio::task::block_in_place(|| upload.write(&waiting)).map_err(|e| write_error(&e))?;
    let digest = digest.to_owned();
    let done = tokio::task::spawn_blocking(move || upload.finish(&digest)).await;
    match done.map_err(|_| ApiError::internal("the upload could not be stored"))? {
        Ok(()) => Ok(()),
        Err(UploadError::Io(error)) => Err(write_error(&error)),
        Err(error @ (UploadError::NotADigest | UploadError::Digest { .. })) => Err(ApiError::bad_request(error)),
    }
}

/// A full disk has a status of its own.
pub(super) fn write_error(error: &io::Error) -> ApiError {
    if error.kind() == io::ErrorKind::StorageFull {
        let message = "the disk is full: remove models, or make room, and try again".to_owned();
        return ApiError { status: StatusCode::INSUFFICIENT_STORAGE, message };
    }
    ApiError::internal(format!("cannot write the model store: {error}"))
}

fn turn(uploads: &Arc<Uploads>, client: Client) -> Result<Turn, ApiError> {
    let mut all = uploads.0.lock().unwrap_or_else(PoisonError::into_inner);
    let (n_all, n_own) = (all.values().sum::<usize>(), all.get(&client).copied().unwrap_or(0));
    if n_own >= N_OF_CLIENT_MAX || n_all >= N_MAX {
        let message =
            format!("{n_all} uploads are going on, {n_own} of them yours; the limits are {N_MAX} and {N_OF_CLIENT_MAX}");
        return Err(ApiError { status: StatusCode::TOO_MANY_REQUESTS, message });
    }
    *all.entry(client.clone()).or_default() += 1;
    Ok(Turn { uploads: uploads.clone(), client })
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut all = self.uploads.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(n) = all.get_mut(&self.client) {
            *n -= 1;
            if *n == 0 {
                all.remove(&self.client);
            }
        }
    }
}
