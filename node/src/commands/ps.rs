//! `lantern ps`

use anyhow::Result;
use http::Method;
use serde_json::Value;

use super::table;
use crate::client::Client;
use crate::config::Config;

pub(super) async fn ps(config: &Config, json: bool) -> Result<()> {
    // Without a daemon nothing is in memory; the error says where one was looked for.
    let answer = Client::daemon(config).json(Method::GET, "/api/ps", None).await?;
    if json {
        println!("{answer:#}");
        return Ok(());
    }
    let empty = Vec::new();
    let row = |m: &Value| {
        let text = |key: &str| m[key].as_str().unwrap_or_default().to_owned();
        vec![
            text("name"),
            table::bytes(m["size"].as_u64().unwrap_or(0)),
            m["context_length"].to_string(),
            text("expires_at").chars().take(19).collect::<String>().replace('T', " "),
        ]
    };
    let rows: Vec<_> = answer["models"].as_array().unwrap_or(&empty).iter().map(row).collect();
    table::print(&["NAME", "MEMORY", "CONTEXT", "UNTIL"], &rows);
    Ok(())
}
