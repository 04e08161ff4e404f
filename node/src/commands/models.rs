//! `lantern models`: what can be pulled by a short name, and whether it fits here.

use anyhow::Result;
use catalog::{ModelName, Offer, offers};
use serde_json::json;

use super::table;
use crate::config::Config;

/// The context that memory is told for.
const N_CTX: u64 = 4096;

pub(super) fn models(config: &Config, as_json: bool) -> Result<()> {
    let store = config.store();
    let memory = scheduler::report::total_bytes();
    let is_here = |offer: &Offer| ModelName::parse(&offer.name).is_ok_and(|name| store.find(&name).is_ok());
    let fits = |offer: &Offer| memory.is_none_or(|memory| offer.memory(N_CTX) <= memory);
    if as_json {
        let object = |offer: &Offer| {
            json!({ "name": offer.name, "source": offer.source, "file": offer.file, "sha256": offer.sha256, "size": offer.bytes,
                "memory_estimated": offer.memory(N_CTX), "num_ctx": N_CTX, "context_length": offer.context,
                "pi5_tokens_per_second_estimated": offer.tokens_per_second(), "license": offer.licence,
                "good_for": offer.good_for, "installed": is_here(offer), "fits": fits(offer) })
        };
        println!("{:#}", json!({ "models": offers().iter().map(object).collect::<Vec<_>>() }));
        return Ok(());
    }
    let row = |offer: &Offer| {
        let embeds = offer.good_for == "embeddings";
        let state = if is_here(offer) {
            "installed"
        } else if fits(offer) {
            ""
        } else {
            "too large here"
        };
        vec![
            offer.name.clone(),
            table::bytes(offer.bytes),
            table::bytes(offer.memory(N_CTX)),
            offer.context.to_string(),
            if embeds { String::new() } else { format!("{:.0}", offer.tokens_per_second()) },
            offer.licence.clone(),
            offer.good_for.clone(),
            state.into(),
        ]
    };
    let head = ["NAME", "SIZE", "MEMORY*", "CONTEXT", "TOKENS/S*", "LICENCE", "GOOD FOR", ""];
    table::print(&head, &offers().iter().map(row).collect::<Vec<_>>());
    println!(
        "\n* estimated: memory with a context of {N_CTX} tokens; tokens/s that the memory of a Raspberry Pi 5 allows at most."
    );
    println!("lantern pull NAME fetches one. Other names are those of the Ollama library, and hf.co/USER/REPOSITORY:QUANT.");
    Ok(())
}
