//! `lantern import`: a GGUF file, or an archive that `lantern export` wrote, into the store.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use anyhow::{Context, Result};
use catalog::{Facts, ModelName};
use indicatif::ProgressBar;
use scheduler::Description;
use serde_json::json;

use super::table;
use crate::config::Config;

pub(super) fn import(config: &Config, file: &Path, name: Option<&str>, as_json: bool) -> Result<()> {
    let shown = file.display();
    let mut source = File::open(file).with_context(|| format!("cannot open {shown}"))?;
    let n_bytes = source.metadata()?.len();
    let bar = table::bar(n_bytes, format!("importing {shown}"));
    if is_archive(&mut source)? {
        return unpack(config, source, &shown.to_string(), name, &bar, as_json);
    }
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
    config.store().import(&name, &mut source, &facts, None, &mut |done| bar.set_position(done))?;
    bar.finish_and_clear();
    tell(&name, &description, n_bytes, as_json);
    Ok(())
}

/// Whether a file is a tar archive by the mark at its place.
fn is_archive(file: &mut File) -> Result<bool> {
    let mut mark = [0; 5];
    let found = file.seek(SeekFrom::Start(257)).and_then(|_| file.read_exact(&mut mark)).is_ok() && mark == *b"ustar";
    file.rewind()?;
    Ok(found)
}

fn unpack(config: &Config, source: File, shown: &str, name: Option<&str>, bar: &ProgressBar, as_json: bool) -> Result<()> {
    let n_bytes = source.metadata()?.len();
    let store = config.store();
    let unpacked = store.unpack(BufReader::new(source), &mut |done| bar.set_position(done));
    let unpacked = unpacked.with_context(|| format!("cannot import {shown}"))?;
    // A model of which a server would refuse anything gets no name.
    let description = Description::read(unpacked.model_path()).with_context(|| format!("cannot import {shown}"))?;
    scheduler::check(unpacked.model_path()).with_context(|| format!("cannot import {shown}"))?;
    let name = match name {
        Some(text) => ModelName::parse(text).with_context(|| format!("{text:?} cannot be a model's name"))?,
        None => unpacked.name().cloned().with_context(|| format!("{shown} does not say what its model is called; use --name"))?,
    };
    unpacked.publish(&name)?;
    bar.finish_and_clear();
    tell(&name, &description, n_bytes, as_json);
    Ok(())
}

fn tell(name: &ModelName, description: &Description, n_bytes: u64, as_json: bool) {
    let (family, quant) = (&description.architecture, &description.quant);
    if as_json {
        println!("{}", json!({ "name": name.to_string(), "size": n_bytes, "family": family, "quant": quant }));
    } else {
        println!(
            "imported {name} ({}, {quant}, {}); try: lantern run {name}",
            description.parameter_size(),
            table::bytes(n_bytes)
        );
    }
}
