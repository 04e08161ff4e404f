//! `POST /api/create`: a model out of another one, or out of uploaded weights.

use std::convert::Infallible;
use std::path::PathBuf;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use catalog::{Created, Facts, Message, ModelName, Recipe, StoreError};
use futures_util::stream;
use scheduler::{Description, GoTemplate, Mixture, QuantizeError, quantize};
use serde_json::{Map, Value, json};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::blobs::write_error;
use super::{options, pull};
use crate::App;
use crate::error::ApiError;
use crate::json::{self, Fields};

/// Stands for weights that have no digest yet.
const NO_DIGEST: &str = "0000000000000000000";

pub(super) async fn create(State(app): State<App>, body: Bytes) -> Response {
    answer(&app, &body).await.unwrap_or_else(IntoResponse::into_response)
}

/// What was asked for, checked as far as can be before the first line is sent.
struct Wish {
    name: ModelName,
    source: Source,
    quantize: Option<Mixture>,
    recipe: Recipe,
}

enum Source {
    Model(ModelName),
    /// Digest of uploaded weights.
    File(String),
}

async fn answer(app: &App, body: &Bytes) -> Result<Response, ApiError> {
    let fields = Fields::parse("CreateRequest", body)?;
    let wish = wish(app, &fields)?;
    let (lines, mut receiver) = unbounded_channel();
    tokio::spawn(work(app.clone(), wish, lines));
    if fields.truth("stream")?.unwrap_or(true) {
        return Ok(streamed(receiver));
    }
    let mut last = Ok(json!({}));
    while let Some(line) = receiver.recv().await {
        last = line;
    }
    last.map(|line| json::reply(&line))
}

fn wish(app: &App, fields: &Fields) -> Result<Wish, ApiError> {
    let text = match fields.text("model")?.filter(|m| !m.is_empty()) {
        Some(model) => model,
        None => fields.text("name")?.unwrap_or_default(),
    };
    let name = ModelName::parse(text).map_err(ApiError::bad_request)?;
    let from = fields.text("from")?.filter(|from| !from.is_empty());
    let files = fields.object("files")?.filter(|files| !files.is_empty());
    for unsupported in ["adapters", "draft_files"] {
        if fields.object(unsupported)?.is_some_and(|files| !files.is_empty()) {
            return Err(ApiError::bad_request(format!("{unsupported} are not supported: a model has one file of weights")));
        }
    }
    let source = match (from, files) {
        (Some(from), _) => Source::Model(ModelName::parse(from).map_err(ApiError::bad_request)?),
        (None, Some(files)) => Source::File(weights(app, files)?),
        (None, None) => return Err(ApiError::bad_request("neither 'from' or 'files' was specified")),
    };
    let template = fields.text("template")?.filter(|t| !t.is_empty()).map(String::from);
    if let Some(template) = &template {
        GoTemplate::parse(template).map_err(ApiError::bad_request)?;
    }
    let parameters = fields.object("parameters")?.cloned().unwrap_or_default();
    options::parse(&Map::new(), Some(&parameters), true)?;
    let wanted = fields.text("quantize")?.or(fields.text("quantization")?).filter(|q| !q.is_empty());
    let quantize = wanted.map(|name| Mixture::named(name).ok_or_else(|| unknown_mixture(name))).transpose()?;
    Ok(Wish {
        name,
        source,
        quantize,
        recipe: Recipe {
            template,
            system: fields.text("system")?.filter(|s| !s.is_empty()).map(String::from),
            licenses: licenses(fields)?,
            parameters,
            messages: messages(fields)?,
            config: config(fields)?,
            ..Recipe::default()
        },
    })
}

/// What other programs read of a model.
fn config(fields: &Fields) -> Result<Map<String, Value>, ApiError> {
    let mut config = Map::new();
    for name in ["renderer", "parser", "requires"] {
        config.extend(fields.text(name)?.filter(|text| !text.is_empty()).map(|text| (name.to_owned(), json!(text))));
    }
    Ok(config)
}

fn unknown_mixture(name: &str) -> ApiError {
    let all: Vec<&str> = Mixture::NAMES.iter().map(|(name, _)| *name).collect();
    ApiError::bad_request(format!("unsupported quantization type {name} - supported types are {}", all.join(", ")))
}

/// The digest of the one file of weights that must be among the files.
fn weights(app: &App, files: &Map<String, Value>) -> Result<String, ApiError> {
    for name in files.keys() {
        let path = PathBuf::from(name);
        if path.is_absolute() || path.components().any(|part| part == std::path::Component::ParentDir) {
            return Err(ApiError::bad_request("file path must be relative"));
        }
    }
    let mut digests = files.values().map(|value| value.as_str().unwrap_or_default());
    let (Some(digest), None) = (digests.next(), digests.next()) else {
        return Err(ApiError::bad_request(format!("{} files were given, needed is one GGUF file", files.len())));
    };
    match app.store.has_blob(digest) {
        None => Err(ApiError::bad_request("invalid digest format")),
        Some(false) => Err(ApiError::internal(format!("blob {digest} does not exist: upload it first"))),
        Some(true) => Ok(digest.replace("sha256-", "sha256:")),
    }
}

fn licenses(fields: &Fields) -> Result<Vec<String>, ApiError> {
    match fields.get("license") {
        None => Ok(Vec::new()),
        Some(Value::String(text)) if text.is_empty() => Ok(Vec::new()),
        Some(Value::String(text)) => Ok(vec![text.clone()]),
        Some(Value::Array(items)) => {
            let text = |item: &Value| item.as_str().map(String::from).ok_or_else(|| fields.wrong("license", item, "string"));
            items.iter().map(text).collect()
        }
        Some(other) => Err(fields.wrong("license", other, "string or slice of strings")),
    }
}

fn messages(fields: &Fields) -> Result<Vec<Message>, ApiError> {
    let one = |message: &Value| match (message["role"].as_str(), message["content"].as_str()) {
        (Some(role), Some(content)) => Ok(Message { role: role.into(), content: content.into() }),
        _ => Err(fields.wrong("messages", message, "api.Message")),
    };
    fields.list("messages")?.iter().map(one).collect()
}

type Line = Result<Value, ApiError>;

/// Carries a wish out and tells how far it is; the last line is success or the reason why not. A caller that has gone is not
/// told, and the model is made all the same.
async fn work(app: App, mut wish: Wish, lines: UnboundedSender<Line>) {
    let tell = |line: Line| _ = lines.send(line);
    let mut pace = pull::Pace::default();
    let report = |progress| {
        if pace.tells(&progress) {
            tell(Ok(pull::object(&progress)));
        }
    };
    if let Source::Model(from) = &wish.source
        && matches!(app.store.find(from), Err(StoreError::NotFound { .. }))
        && let Err(error) = app.registry.pull(&app.store, from, report).await
    {
        return tell(Err(ApiError { status: pull::status(&error), message: error.to_string() }));
    }
    let done = tokio::task::spawn_blocking(move || {
        let result = make(&app, &mut wish, &mut |line| _ = lines.send(Ok(line)));
        _ = lines.send(result.map(|()| json!({ "status": "success" })));
    });
    if done.await.is_err() {
        tracing::error!("creating a model failed unexpectedly");
    }
}

fn make(app: &App, wish: &mut Wish, tell: &mut dyn FnMut(Value)) -> Result<(), ApiError> {
    let status = |text: String| json!({ "status": text });
    let mut digest = match &wish.source {
        Source::Model(from) => {
            let base = app.store.find(from)?;
            let digest = base.model_digest().map(String::from);
            wish.recipe.base = Some(base);
            digest.ok_or_else(|| ApiError::bad_request(format!("{from} has no weights")))?
        }
        Source::File(digest) => {
            tell(status("parsing GGUF".into()));
            digest.clone()
        }
    };
    let mut path = app.store.blob(&digest).ok_or_else(|| ApiError::internal(format!("blob {digest} does not exist")))?;
    let mut new = matches!(wish.source, Source::File(_));
    if let Some(mixture) = wish.quantize {
        let draft = app.store.draft().map_err(|e| write_error(&e))?;
        let from = describe(&path)?.quant;
        let text = format!("quantizing {from} model to {}", mixture.name());
        let mut told = 0;
        quantize(&path, mixture, draft.path(), &mut |done, total| {
            // A line for each hundredth.
            if (done - told) * 100 >= total || done == total {
                told = done;
                tell(json!({ "status": text, "digest": NO_DIGEST, "total": total, "completed": done }));
            }
        })
        .map_err(quantize_error)?;
        tell(status("verifying conversion".into()));
        digest = draft.finish().map_err(|e| write_error(&e))?;
        path = app.store.blob(&digest).ok_or_else(|| ApiError::internal("the new weights have vanished"))?;
        new = true;
    }
    if new {
        let description = describe(&path)?;
        // What a server would refuse is refused before it has a name.
        scheduler::check(&path).map_err(ApiError::bad_request)?;
        wish.recipe.facts = Some(Facts {
            family: description.architecture.clone(),
            parameter_size: description.parameter_size(),
            quant: description.quant.clone(),
        });
        wish.recipe.weights = Some(digest);
    }
    app.store.create(&wish.name, &wish.recipe, |progress| {
        tell(status(match progress {
            Created::Existing(digest) => format!("using existing layer {digest}"),
            Created::New(digest) => format!("creating new layer {digest}"),
            Created::WritingManifest => "writing manifest".into(),
        }));
    })?;
    tracing::info!("created {}", wish.name);
    Ok(())
}

fn describe(path: &std::path::Path) -> Result<Description, ApiError> {
    Description::read(path).map_err(|e| ApiError::bad_request(format!("supplied file was not in GGUF format: {e}")))
}

fn quantize_error(error: QuantizeError) -> ApiError {
    match error {
        QuantizeError::Io(error) => write_error(&error),
        QuantizeError::Source => ApiError { status: StatusCode::INTERNAL_SERVER_ERROR, message: error.to_string() },
        QuantizeError::Header(_) | QuantizeError::Tensor { .. } => ApiError::bad_request(error),
    }
}

fn streamed(receiver: UnboundedReceiver<Line>) -> Response {
    let next = |mut receiver: UnboundedReceiver<Line>| async move {
        let line = receiver.recv().await?.unwrap_or_else(|error| error.body());
        Some((Ok::<_, Infallible>(Bytes::from(json::escaped(&line) + "\n")), receiver))
    };
    let mut response = Response::new(Body::from_stream(stream::unfold(receiver, next)));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    response
}
