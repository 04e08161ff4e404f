//! What a name means.

use std::fs;

use crate::manifest::Manifest;
use crate::name::ModelName;
use crate::store::{Store, StoreError};

impl Store {
    /// Makes a name mean the model of a manifest, whose blobs are in the store, and removes blobs that only its former meaning used;
    /// `removing` is called before any is. A spelling of the name that is there already stays.
    pub(crate) fn publish(&self, name: &ModelName, manifest: &[u8], removing: impl FnOnce()) -> Result<(), StoreError> {
        let _turn = self.turn();
        self.check_whole(name, manifest)?;
        let former = self.find(name).ok();
        self.write_whole(&self.manifest_path(&self.spelt(name)), manifest)?;
        let Some(former) = former.filter(|_| !self.keeps_unused) else { return Ok(()) };
        let unused = self.unused_of(&former);
        if !unused.is_empty() {
            removing();
        }
        Store::remove_files(unused)
    }

    /// Gives a model a second name, replacing what that name meant.
    ///
    /// # Errors
    /// When the source does not exist, or the manifest cannot be written.
    pub fn copy(&self, source: &ModelName, destination: &ModelName) -> Result<(), StoreError> {
        let source = self.find(source)?;
        if source.name.matches(destination) {
            return Ok(());
        }
        self.publish(destination, &fs::read(self.manifest_path(&source.name))?, || {})
    }

    /// The name with every part as it is spelt already, where there is such a part.
    fn spelt(&self, name: &ModelName) -> ModelName {
        let known = self.names();
        let mut parts = name.parts().map(String::from);
        for level in 0..parts.len() {
            let same =
                |other: &&ModelName| other.parts().iter().zip(&parts).take(level + 1).all(|(a, b)| a.eq_ignore_ascii_case(b));
            if let Some(other) = known.iter().find(same) {
                parts[level] = other.parts()[level].to_owned();
            }
        }
        ModelName::from_parts(parts.each_ref().map(String::as_str)).unwrap_or_else(|_| name.clone())
    }

    /// Refuses a manifest that names a blob which is not here.
    fn check_whole(&self, name: &ModelName, manifest: &[u8]) -> Result<(), StoreError> {
        let damaged = |reason: String| StoreError::Damaged { name: name.to_string(), reason };
        let manifest: Manifest = serde_json::from_slice(manifest).map_err(|_| damaged("its manifest is not one".into()))?;
        match manifest.layers.iter().chain([&manifest.config]).find(|layer| self.blob(&layer.digest).is_none()) {
            Some(layer) => Err(damaged(format!("{} was removed meanwhile; try again", layer.digest))),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Facts;

    fn name(text: &str) -> ModelName {
        ModelName::parse(text).unwrap()
    }

    fn import(store: &Store, text: &str, weights: &[u8]) {
        let facts = Facts { family: "qwen3".into(), parameter_size: "3.4M".into(), quant: "Q8_0".into() };
        store.import(&name(text), &mut &weights[..], &facts, None, &mut |_| {}).unwrap();
    }

    fn names(store: &Store) -> Vec<String> {
        let mut names: Vec<String> = store.names().iter().map(ToString::to_string).collect();
        names.sort();
        names
    }

    #[test]
    fn a_spelling_stays() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path());
        import(&store, "Me/Qwen3:0.6b", b"a");
        import(&store, "me/qwen3:0.6B", b"b");
        assert_eq!(names(&store), ["Me/Qwen3:0.6b"]);
        store.copy(&name("me/qwen3:0.6b"), &name("ME/QWEN3:8b")).unwrap();
        store.copy(&name("me/qwen3:0.6b"), &name("Other")).unwrap();
        assert_eq!(names(&store), ["Me/Qwen3:0.6b", "Me/Qwen3:8b", "Other:latest"]);
    }

    #[test]
    fn what_a_name_no_longer_means_is_removed() {
        let n_blobs = |keeps: bool| {
            let folder = tempfile::tempdir().unwrap();
            let store = Store::new(folder.path()).keeping_unused(keeps);
            import(&store, "a", b"one");
            import(&store, "a", b"two");
            fs::read_dir(folder.path().join("blobs")).unwrap().count()
        };
        // Weights, and a config which both share.
        assert_eq!((n_blobs(false), n_blobs(true)), (2, 3));
    }
}
