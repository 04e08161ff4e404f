//! `lantern list`

use anyhow::Result;
use http::Method;

use super::table;
use crate::client::Client;
use crate::config::Config;

pub(super) async fn list(config: &Config, json: bool) -> Result<()> {
    let answer = Client::connect(config).await?.json(Method::GET, "/api/tags", None).await?;
    if json {
        println!("{answer:#}");
        return Ok(());
    }
    let empty = Vec::new();
    let models = answer["models"].as_array().unwrap_or(&empty);
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let row = |m: &serde_json::Value| {
        vec![
            text(&m["name"]),
            text(&m["digest"]).chars().take(12).collect(),
            table::bytes(m["size"].as_u64().unwrap_or(0)),
            text(&m["details"]["parameter_size"]),
            text(&m["details"]["quantization_level"]),
            text(&m["modified_at"]).chars().take(16).collect::<String>().replace('T', " "),
        ]
    };
    table::print(&["NAME", "ID", "SIZE", "PARAMETERS", "QUANT", "MODIFIED"], &models.iter().map(row).collect::<Vec<_>>());
    Ok(())
}
