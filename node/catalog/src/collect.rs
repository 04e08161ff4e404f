//! What lies in the store and belongs to nobody.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::time::Duration;
use std::{fs, io};

use crate::installed::Installed;
use crate::manifest::Manifest;
use crate::name::ModelName;
use crate::store::{MANIFEST_BYTES_MAX, Store, StoreError, blob_file, read_limited};

/// How old a half-written file must be to belong to nobody.
const STAGED_MAX: Duration = Duration::from_secs(24 * 3600);

impl Store {
    /// Removes the blobs of a model that no manifest names.
    pub(crate) fn remove_unused(&self, model: &Installed) -> Result<(), StoreError> {
        Store::remove_files(self.unused_of(model))
    }

    /// Files of the blobs of a model that no manifest names. None where a manifest cannot be read: it may need any of them.
    pub(crate) fn unused_of(&self, model: &Installed) -> Vec<PathBuf> {
        let Some(used) = self.used() else { return Vec::new() };
        let unused = model.digests().filter(|digest| !used.contains(&blob_file(digest)));
        unused.filter_map(|digest| self.blob(digest)).collect()
    }

    pub(crate) fn remove_files(files: Vec<PathBuf>) -> Result<(), StoreError> {
        for file in files {
            match fs::remove_file(file) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e.into()),
                _ => {}
            }
        }
        Ok(())
    }

    /// Files of all blobs that manifests name; `None` when one of them cannot be read, or may lie where it is not seen.
    pub(crate) fn used(&self) -> Option<HashSet<Option<String>>> {
        let (names, is_all) = self.manifests();
        if !is_all || self.has_other_manifests() {
            return None;
        }
        let manifest = |name: ModelName| -> Option<Manifest> {
            serde_json::from_slice(&read_limited(&self.manifest_path(&name), MANIFEST_BYTES_MAX).ok()?).ok()
        };
        let manifests = names.into_iter().map(manifest).collect::<Option<Vec<_>>>()?;
        Some(
            manifests
                .into_iter()
                .flat_map(|m| m.layers.into_iter().chain([m.config]))
                .map(|layer| blob_file(&layer.digest))
                .collect(),
        )
    }

    /// Whether there may be manifests in a folder beside that of all others, as programs to come may have one.
    fn has_other_manifests(&self) -> bool {
        let strange = |name: &OsStr| name.as_encoded_bytes().starts_with(b"manifest") && name != "manifests";
        let entries = fs::read_dir(self.folder()).and_then(|entries| entries.collect::<io::Result<Vec<_>>>());
        entries.map_or(true, |entries| entries.iter().any(|entry| strange(&entry.file_name())))
    }

    /// Removes what is older than a day and belongs to nobody: what processes that ended without a word left half written, and
    /// downloads that nobody went on with. At a start, `prunes` removes blobs that no model uses as well; none of them is part of a
    /// download that goes on.
    ///
    /// # Errors
    /// When the folder of the blobs cannot be read.
    pub fn sweep(&self, prunes: bool) -> io::Result<()> {
        let blobs = self.folder().join("blobs");
        if !blobs.is_dir() {
            return Ok(());
        }
        let _turn = self.turn();
        let used = if prunes && !self.keeps_unused { self.used() } else { None };
        for entry in fs::read_dir(blobs)?.flatten() {
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            let unused = used.as_ref().is_some_and(|used| is_blob(name) && !used.contains(&Some(name.to_owned())));
            let age = entry.metadata().and_then(|m| m.modified()).ok().and_then(|at| at.elapsed().ok());
            if (is_unfinished(name) || unused) && age.is_some_and(|age| age > STAGED_MAX) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

fn is_blob(file: &str) -> bool {
    blob_file(file).as_deref() == Some(file)
}

/// Whether a file is one that we, or Ollama, write a blob to before it is one.
fn is_unfinished(file: &str) -> bool {
    let is_part = [".part", ".parts", ".parts-new"].iter().any(|end| file.ends_with(end)) || file.contains("-partial");
    file.starts_with("staging-") && file.ends_with("-partial") || file.starts_with("sha256-") && is_part
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::time::SystemTime;

    use super::*;
    use crate::Facts;

    #[test]
    fn what_belongs_to_nobody_goes_after_a_day() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path());
        let facts = Facts { family: "qwen3".into(), parameter_size: "3.4M".into(), quant: "Q8_0".into() };
        store.import(&ModelName::parse("a").unwrap(), &mut &b"weights"[..], &facts, None, &mut |_| {}).unwrap();
        let blobs = folder.path().join("blobs");
        let files = || {
            let mut all: Vec<_> = fs::read_dir(&blobs).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
            all.sort();
            all
        };
        let of_model = files();
        let orphan = format!("sha256-{}", "a".repeat(64));
        let old = SystemTime::now() - STAGED_MAX - Duration::from_secs(60);
        let add = |name: &str, at: SystemTime| File::create(blobs.join(name)).unwrap().set_modified(at).unwrap();
        for name in ["staging-1-2-partial", &format!("{orphan}.part"), &format!("{orphan}-partial-0"), &orphan] {
            add(name, old);
        }
        add("somebody's notes", old);
        add(&format!("sha256-{}.part", "b".repeat(64)), SystemTime::now());
        of_model.iter().for_each(|name| add(name, old));
        store.clone().keeping_unused(true).sweep(true).unwrap();
        store.sweep(false).unwrap();
        assert!(files().contains(&orphan));
        // Where manifests may lie that are not seen, every blob may be one of theirs.
        let manifests = folder.path().join("manifests");
        let (away, host) = (folder.path().join("away"), manifests.join("registry.ollama.ai"));
        fs::rename(&manifests, &away).unwrap();
        store.sweep(true).unwrap();
        fs::rename(&away, &manifests).unwrap();
        for strange in [folder.path().join("manifests-v2"), host.join("library/a/of a folder")] {
            fs::create_dir(&strange).unwrap();
            store.sweep(true).unwrap();
            fs::remove_dir(&strange).unwrap();
        }
        let linked = manifests.join("elsewhere");
        std::os::unix::fs::symlink(&host, &linked).unwrap();
        store.sweep(true).unwrap();
        fs::remove_file(&linked).unwrap();
        // What a desktop leaves is no manifest.
        fs::write(host.join(".DS_Store"), "").unwrap();
        assert!(files().contains(&orphan) && of_model.iter().all(|name| files().contains(name)), "{:?}", files());
        store.sweep(true).unwrap();
        assert_eq!(files().len(), of_model.len() + 2, "{:?}", files());
        assert!(of_model.iter().all(|name| files().contains(name)));
    }
}
