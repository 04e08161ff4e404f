//! What lies in the store and belongs to nobody.

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
        // A manifest that cannot be read may need any of them.
        let Some(used) = self.used() else { return Ok(()) };
        for digest in model.digests().filter(|d| !used.iter().any(|u| blob_file(u) == blob_file(d))) {
            if let Some(path) = self.blob_path(digest) {
                match fs::remove_file(path) {
                    Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e.into()),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Digests of all blobs that manifests name; `None` when one of them cannot be read.
    pub(crate) fn used(&self) -> Option<Vec<String>> {
        let manifest = |name: ModelName| -> Option<Manifest> {
            serde_json::from_slice(&read_limited(&self.manifest_path(&name), MANIFEST_BYTES_MAX).ok()?).ok()
        };
        let manifests = self.names().into_iter().map(manifest).collect::<Option<Vec<_>>>()?;
        Some(manifests.into_iter().flat_map(|m| m.layers.into_iter().chain([m.config])).map(|layer| layer.digest).collect())
    }

    /// Removes what processes that ended without a word left half written, and downloads that nobody went on with, both after
    /// a day.
    ///
    /// # Errors
    /// When the folder of the blobs cannot be read.
    pub fn sweep(&self) -> io::Result<()> {
        let blobs = self.folder().join("blobs");
        if !blobs.is_dir() {
            return Ok(());
        }
        for entry in fs::read_dir(blobs)?.flatten() {
            let name = entry.file_name();
            let is_part = |name: &str| [".part", ".parts", ".parts-new"].iter().any(|end| name.ends_with(end));
            let is_staged = |name: &str| name.starts_with("staging-") && name.ends_with("-partial");
            let unfinished = name.to_str().is_some_and(|name| is_staged(name) || name.starts_with("sha256-") && is_part(name));
            let age = entry.metadata().and_then(|m| m.modified()).ok().and_then(|at| at.elapsed().ok());
            if unfinished && age.is_some_and(|age| age > STAGED_MAX) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}
