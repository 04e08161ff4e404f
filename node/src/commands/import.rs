//! `lantern import`: a GGUF file into the store.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result};
use catalog::{Facts, ModelName, Store};
use indicatif::{ProgressBar, ProgressStyle};
use scheduler::Description;
use serde_json::json;

use super::table;
use crate::config::Config;

pub(super) fn import(config: &Config, file: &Path, name: Option<&str>, as_json: bool) -> Result<()> {
    let shown = file.display();
    let mut source = File::open(file).with_context(|| format!("cannot open {shown}"))?;
    let n_bytes = source.metadata()?.len();
    // Everything a server would refuse is refused here, before a byte is copied.
    let description = Description::read(file).with_context(|| format!("cannot import {shown}"))?;
    scheduler::check(file).with_context(|| format!("cannot import {shown}"))?;
    let stem = file.file_stem().and_then(|s| s.to_str()).unwrap_or_default();
    let text = name.map_or_else(|| stem.to_lowercase(), String::from);
    let name = ModelName::parse(&text).with_context(|| format!("{text:?} cannot be a model's name; choose one with --name"))?;
    let facts = Facts {
        family: description.architecture.clone(),
        parameter_size: description.parameter_size(),
        quant: description.quant.clone(),
    };
    let bar = ProgressBar::new(n_bytes);
    bar.set_style(ProgressStyle::with_template("{msg} [{bar:30}] {bytes} of {total_bytes}, {eta} left")?.progress_chars("=> "));
    bar.set_message(format!("importing {name}"));
    Store::new(&config.models).import(&name, &mut source, &facts, None, &mut |done| bar.set_position(done))?;
    bar.finish_and_clear();
    if as_json {
        println!("{}", json!({ "name": name.to_string(), "size": n_bytes, "family": facts.family, "quant": facts.quant }));
    } else {
        println!(
            "imported {name} ({}, {}, {}); try: lantern run {name}",
            facts.parameter_size,
            facts.quant,
            table::bytes(n_bytes)
        );
    }
    Ok(())
}
