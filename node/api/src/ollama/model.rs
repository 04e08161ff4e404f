//! From the model a client names to the one on disk.

use std::sync::Arc;

use axum::http::StatusCode;
use catalog::{Installed, ModelName, StoreError};
use scheduler::{Description, GoTemplate, ModelFile};
use serde_json::{Value, json};

use crate::App;
use crate::error::ApiError;

/// An installed model and what its file says of itself.
pub(crate) struct Found {
    pub(crate) installed: Installed,
    pub(crate) file: ModelFile,
    pub(crate) description: Arc<Description>,
    /// The Modelfile's template, where it is used instead of the one in the model's file.
    pub(crate) template: Option<Arc<GoTemplate>>,
    /// What it can do: `completion`, `embedding`, `tools`, `thinking`, `insert`.
    pub(crate) capabilities: Vec<&'static str>,
}

/// Parses a name; a suffix that means a model elsewhere is refused.
pub(crate) fn parse_name(text: &str) -> Result<ModelName, ApiError> {
    parse_name_for("model is", text)
}

/// The same; `missing` says what of such a model there is none of.
pub(super) fn parse_name_for(missing: &str, text: &str) -> Result<ModelName, ApiError> {
    let (plain, is_remote) = without_place(text)?;
    if is_remote {
        let message = format!("ollama cloud is disabled: remote {missing} unavailable");
        return Err(ApiError { status: StatusCode::FORBIDDEN, message });
    }
    ModelName::parse(plain).map_err(ApiError::bad_request)
}

/// A name without `:local`, and whether its tag means a model elsewhere.
pub(super) fn without_place(text: &str) -> Result<(&str, bool), ApiError> {
    let is_remote = |name: &str| {
        let tag = name.rsplit_once(':').map_or("", |(_, tag)| tag);
        tag == "cloud" || tag.ends_with("-cloud") && !tag.contains('/')
    };
    let text = text.trim();
    let local = text.strip_suffix(":local");
    if local.is_some_and(is_remote) || text.ends_with(":local:cloud") {
        return Err(ApiError::bad_request(format!("use either :local or :cloud, not both: {text:?}")));
    }
    Ok((local.unwrap_or(text), is_remote(text)))
}

/// Looks a model up for computing; errors spell its name as the client did.
pub(crate) async fn find(app: &App, text: &str) -> Result<Found, ApiError> {
    let name = parse_name(text)?;
    let missing = ApiError::not_found(format!("model '{text}' not found"));
    read(app, move |app| {
        let installed = match app.store.find(&name) {
            Err(StoreError::NotFound { .. }) => return Err(missing),
            other => other?,
        };
        describe(app, installed)
    })
    .await
}

/// Runs work on files away from the threads that serve sockets.
pub(crate) async fn read<T: Send + 'static>(
    app: &App,
    work: impl FnOnce(&App) -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let app = app.clone();
    let done = tokio::task::spawn_blocking(move || work(&app)).await;
    done.unwrap_or_else(|_| Err(ApiError::internal("the model store could not be read")))
}

/// Adds the file's own account to an installed model.
pub(crate) fn describe(app: &App, installed: Installed) -> Result<Found, ApiError> {
    let damaged = || ApiError::internal(format!("model {} is damaged on disk: it names no model file", installed.name));
    let (digest, path) = installed.model_digest().zip(installed.model_path()).ok_or_else(damaged)?;
    let description = app.descriptions.get(digest, &path)?;
    let prefers_own = !app.go_templates || installed.config.text("renderer").is_some();
    let source = installed.template().filter(|_| !prefers_own || description.template.is_none());
    let (template, capabilities) = templates(source.as_deref(), &description);
    let file = ModelFile { name: installed.name.to_string(), digest: digest.into(), path };
    Ok(Found { installed, file, description, template, capabilities })
}

/// Which template is used, and what the model can do with it: the Modelfile's, unless it cannot be read or the one in the
/// model's file knows of tools and it does not. `source` is none where the Modelfile names a renderer, for which its template
/// only stands in.
fn templates(source: Option<&str>, description: &Description) -> (Option<Arc<GoTemplate>>, Vec<&'static str>) {
    let own = description.capabilities.clone();
    let template = source.and_then(|source| GoTemplate::parse(source).ok());
    let Some(template) = template.filter(|t| t.takes_tools() || !own.contains(&"tools")) else { return (None, own) };
    let more = [("tools", template.takes_tools()), ("thinking", template.format().thinks()), ("insert", template.takes_suffix())];
    let mut capabilities = vec![own[0]];
    capabilities.extend(more.into_iter().filter(|(_, has)| *has).map(|(name, _)| name));
    (Some(Arc::new(template)), capabilities)
}

impl Found {
    /// What a model can do.
    pub(crate) fn can(&self, capability: &str) -> bool {
        self.capabilities.contains(&capability)
    }

    /// The block that listings show of a model.
    pub(crate) fn details(&self) -> Value {
        let config = &self.installed.config;
        let or = |given: &str, own: String| if given.is_empty() { own } else { given.to_owned() };
        json!({
            "parent_model": "",
            "format": "gguf",
            "family": or(&config.model_family, self.description.architecture.clone()),
            "families": config.model_families.clone().unwrap_or_else(|| vec![self.description.architecture.clone()]),
            "parameter_size": or(&config.model_type, self.description.parameter_size()),
            "quantization_level": or(&config.file_type, self.description.quant.clone()),
        })
    }
}

/// An instant of the file system with the local offset.
pub(crate) fn local_time(at: std::time::SystemTime) -> String {
    let at = jiff::Timestamp::try_from(at).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    let zoned = at.to_zoned(jiff::tz::TimeZone::system());
    let text = zoned.strftime("%Y-%m-%dT%H:%M:%S%.f%:z").to_string();
    text.strip_suffix("+00:00").map_or(text.clone(), |utc| format!("{utc}Z"))
}
