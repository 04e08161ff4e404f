//! `lantern create`: a model as a Modelfile describes it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use catalog::Modelfile;
use serde_json::{Value, json};

use super::pull::follow;
use crate::client::Client;
use crate::config::Config;

pub(super) async fn create(config: &Config, name: &str, file: &Path, quantize: Option<&str>, as_json: bool) -> Result<()> {
    let shown = file.display();
    let bytes = std::fs::read(file).with_context(|| format!("cannot read {shown}"))?;
    let text = Modelfile::text(&bytes).with_context(|| format!("{shown} is no text in UTF-8 or UTF-16"))?;
    let modelfile = Modelfile::parse(&text).with_context(|| format!("{shown} cannot be used"))?;
    let client = Client::connect(config).await?;
    let mut body = json!({ "model": name, "parameters": modelfile.parameters, "license": modelfile.licenses });
    for (key, value) in [("template", &modelfile.template), ("system", &modelfile.system)] {
        if let Some(value) = value {
            body[key] = json!(value);
        }
    }
    modelfile.config.iter().for_each(|(name, value)| body[name] = value.clone());
    if !modelfile.messages.is_empty() {
        let message = |(role, content): &(String, String)| json!({ "role": role, "content": content });
        body["messages"] = modelfile.messages.iter().map(message).collect::<Vec<Value>>().into();
    }
    if let Some(quantize) = quantize {
        body["quantize"] = json!(quantize);
    }
    match weights(file, &modelfile.from) {
        Some(path) => {
            let digest = client.upload(&path).await.with_context(|| format!("cannot use {}", path.display()))?;
            let base = path.file_name().and_then(|n| n.to_str()).unwrap_or("model.gguf").to_owned();
            body["files"] = json!({ base: digest });
        }
        None if modelfile.from.contains(['\\']) || modelfile.from.ends_with(".gguf") => {
            bail!("FROM names {}, and there is no such file beside {shown}", modelfile.from);
        }
        None => body["from"] = json!(modelfile.from),
    }
    follow(&client, "/api/create", body, name, as_json).await?;
    if !as_json {
        println!("created {name}; try: lantern run {name}");
    }
    Ok(())
}

/// The file that FROM names, if it names one: a path from where the Modelfile is.
fn weights(modelfile: &Path, from: &str) -> Option<PathBuf> {
    let path = modelfile.parent().unwrap_or(Path::new("")).join(from);
    path.is_file().then_some(path)
}
