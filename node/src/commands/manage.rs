//! `lantern stop`, `rm` and `cp`

use anyhow::{Context, Result};
use http::Method;
use serde_json::json;

use crate::client::Client;
use crate::config::Config;

pub(super) async fn stop(config: &Config, model: &str, as_json: bool) -> Result<()> {
    let body = json!({ "model": model, "keep_alive": 0 });
    Client::daemon(config).json(Method::POST, "/api/generate", Some(body)).await?;
    tell(as_json, &json!({ "stopped": model }), &format!("stopped {model}"));
    Ok(())
}

pub(super) async fn rm(config: &Config, models: &[String], as_json: bool) -> Result<()> {
    let client = Client::connect(config).await?;
    for model in models {
        let deleted = client.json(Method::DELETE, "/api/delete", Some(json!({ "model": model }))).await;
        deleted.with_context(|| format!("cannot delete {model}"))?;
        tell(as_json, &json!({ "deleted": model }), &format!("deleted {model}"));
    }
    Ok(())
}

pub(super) async fn cp(config: &Config, source: &str, destination: &str, as_json: bool) -> Result<()> {
    let body = json!({ "source": source, "destination": destination });
    Client::connect(config).await?.json(Method::POST, "/api/copy", Some(body)).await?;
    tell(as_json, &json!({ "source": source, "destination": destination }), &format!("copied {source} to {destination}"));
    Ok(())
}

fn tell(as_json: bool, value: &serde_json::Value, text: &str) {
    if as_json { println!("{value}") } else { println!("{text}") }
}
