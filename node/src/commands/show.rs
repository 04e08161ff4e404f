//! `lantern show`

use anyhow::Result;
use http::Method;
use serde_json::{Value, json};

use crate::client::Client;
use crate::config::Config;

/// Lines of a template shown; `--json` has the whole.
const N_LINES_SHOWN: usize = 6;

pub(super) async fn show(config: &Config, model: &str, as_json: bool) -> Result<()> {
    let answer = Client::connect(config).await?.json(Method::POST, "/api/show", Some(json!({ "model": model }))).await?;
    if as_json {
        println!("{answer:#}");
        return Ok(());
    }
    let text = |value: &Value| value.as_str().unwrap_or("unknown").to_owned();
    let info = |key: &str| {
        let architecture = answer["model_info"]["general.architecture"].as_str().unwrap_or_default();
        answer["model_info"][format!("{architecture}.{key}")].to_string()
    };
    let capabilities: Vec<&str> = answer["capabilities"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    println!("  {:<16}{}", "architecture", text(&answer["details"]["family"]));
    println!("  {:<16}{}", "parameters", text(&answer["details"]["parameter_size"]));
    println!("  {:<16}{}", "quant type", text(&answer["details"]["quantization_level"]));
    println!("  {:<16}{}", "context", info("context_length"));
    println!("  {:<16}{}", "embedding", info("embedding_length"));
    println!("  {:<16}{}", "capabilities", capabilities.join(", "));
    for part in ["system", "parameters", "template", "license"] {
        if let Some(value) = answer[part].as_str() {
            println!("\n  {part}");
            value.lines().take(N_LINES_SHOWN).for_each(|line| println!("    {line}"));
            if value.lines().count() > N_LINES_SHOWN {
                println!("    … (lantern show --json has the whole)");
            }
        }
    }
    Ok(())
}
