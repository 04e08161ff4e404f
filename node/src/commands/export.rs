//! `lantern export`: a model as one file, for another machine.

use std::fs::OpenOptions;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use catalog::ModelName;
use serde_json::json;

use super::table;
use crate::config::Config;

pub(super) fn export(config: &Config, model: &str, file: Option<&Path>, as_json: bool) -> Result<()> {
    let name = ModelName::parse(model).with_context(|| format!("{model:?} cannot be a model's name"))?;
    let file = file.map_or_else(|| PathBuf::from(name.to_string().replace([':', '/'], "-") + ".tar"), Path::to_owned);
    let shown = file.display();
    let store = config.store();
    store.find(&name)?;
    // A file that is there is somebody's.
    let out = OpenOptions::new().write(true).create_new(true).open(&file).with_context(|| format!("cannot write {shown}"))?;
    let bar = table::bar(0, format!("exporting {name}"));
    let written = store.export(&name, BufWriter::new(&out), &mut |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    if let Err(error) = written.map_err(anyhow::Error::from).and_then(|()| Ok(out.sync_all()?)) {
        // Half an archive is none.
        _ = std::fs::remove_file(&file);
        return Err(error.context(format!("cannot export {name}")));
    }
    bar.finish_and_clear();
    let size = out.metadata()?.len();
    if as_json {
        println!("{}", json!({ "name": name.to_string(), "file": file, "size": size }));
    } else {
        println!("exported {name} to {shown} ({}); elsewhere: lantern import {shown}", table::bytes(size));
    }
    Ok(())
}
