//! `lantern pull`: a model from a registry, with a bar for each layer.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::table;
use crate::client::Client;
use crate::config::Config;

pub(super) async fn pull(config: &Config, model: &str, as_json: bool) -> Result<()> {
    let client = Client::connect(config).await?;
    follow(&client, "/api/pull", json!({ "model": model }), model, as_json).await?;
    if !as_json {
        println!("pulled {model}; try: lantern run {model}");
    }
    Ok(())
}

/// Follows work on a model to its end, with a bar where bytes are told.
pub(super) async fn follow(client: &Client, path: &str, body: Value, model: &str, as_json: bool) -> Result<()> {
    let verb = path.trim_start_matches("/api/");
    let mut lines = client.lines(path, body).await?;
    let bar = table::bar(0, "");
    while let Some(object) = lines.next().await.with_context(|| format!("cannot {verb} {model}"))? {
        if as_json {
            println!("{object}");
            continue;
        }
        bar.set_message(object["status"].as_str().unwrap_or_default().to_owned());
        if let Some(total) = object["total"].as_u64() {
            bar.set_length(total);
            bar.set_position(object["completed"].as_u64().unwrap_or(0));
        }
    }
    bar.finish_and_clear();
    Ok(())
}
