//! HTTP in, HTTP out. [`router`] serves the dialects of Ollama, OpenAI, Anthropic and LM Studio; each endpoint has a file
//! in the folder of its dialect.

mod answer;
mod anthropic;
mod caller;
mod error;
mod guard;
mod json;
mod lmstudio;
mod ollama;
mod openai;
mod openapi;
mod routes;
mod rules;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;

use access::Origins;
use catalog::{Registry, Store};
use scheduler::{Descriptions, Scheduler};

pub use ollama::blobs::Uploads;
pub use ollama::pull::Pulls;

/// The API version clients see; some gate features on it.
pub const API_VERSION: &str = "0.33.0";

/// Reads a duration such as `5m` or `1h30m`; negative means for ever.
///
/// # Errors
/// When a unit is missing or unknown, in the words clients know.
pub fn keep_alive(text: &str) -> Result<scheduler::KeepAlive, String> {
    ollama::keep_alive::duration(text)
}

/// Handles the endpoints work with, nothing else.
#[derive(Clone)]
pub struct App {
    pub store: Store,
    /// Where models are pulled from.
    pub registry: Registry,
    pub pulls: Arc<Pulls>,
    pub uploads: Arc<Uploads>,
    pub scheduler: Scheduler,
    pub descriptions: Arc<Descriptions>,
    pub origins: Arc<Origins>,
    /// Names the owner added to those the server is addressed by.
    pub names: Arc<[String]>,
    /// Whether the Go template of a Modelfile is used where the model's file has a template too.
    pub go_templates: bool,
    /// Who may do what.
    pub mode: access::Mode,
    /// Where tokens are; without it none is valid.
    pub state: Option<Arc<store::Store>>,
    /// Whether the listener is on a loopback address.
    pub loopback: bool,
    /// This machine's name.
    pub own_name: Arc<str>,
}

/// The routes of all dialects.
fn all_routes() -> routes::Routes {
    let dialects = ollama::routes().merge(openai::routes()).merge(anthropic::routes()).merge(lmstudio::routes());
    dialects.merge(openapi::routes())
}

/// Every route, behind the Origin and Host rules.
pub fn router(app: App) -> Router {
    let routes = all_routes();
    let paths = routes.paths.into();
    routes
        .router
        .fallback(rules::not_found)
        .method_not_allowed_fallback(rules::method_not_allowed)
        // Bodies are bounded where they are read, see `Routes::add`.
        .layer(DefaultBodyLimit::disable())
        .layer(from_fn_with_state((app.clone(), paths), rules::apply))
        .with_state(app)
}
