//! The models folder: `manifests/<host>/<namespace>/<model>/<tag>` and `blobs/sha256-<hex>`.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use sha2::{Digest, Sha256};

use crate::installed::Installed;
use crate::manifest::{Config, LICENSE, Layer, MODEL, Manifest};
use crate::name::ModelName;

/// Bytes of a manifest or config; real ones have some hundreds.
pub(crate) const MANIFEST_BYTES_MAX: u64 = 1 << 20;
/// Bytes read at a time when a file is copied into the store.
const COPY_BYTES: usize = 1 << 20;

/// A models folder. It may change under us: every call looks again.
#[derive(Debug, Clone)]
pub struct Store {
    folder: PathBuf,
    /// See [`Store::turn`].
    pub(crate) changing: Arc<Mutex<()>>,
    /// Whether blobs stay that no model uses any more.
    pub(crate) keeps_unused: bool,
}

/// What a model file says of itself, for its config.
#[derive(Debug, Clone)]
pub struct Facts {
    pub family: String,
    pub parameter_size: String,
    pub quant: String,
}

/// Why the store could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("model {name} not found")]
    NotFound { name: String },
    #[error("model {name} is damaged on disk: {reason}")]
    Damaged { name: String, reason: String },
    #[error("cannot write the model store: {0}")]
    Io(#[from] io::Error),
}

impl Store {
    /// The store in a folder, which need not exist yet.
    pub fn new(folder: impl Into<PathBuf>) -> Store {
        Store { folder: folder.into(), changing: Arc::default(), keeps_unused: false }
    }

    /// The same, in which blobs stay when a name gets another meaning.
    #[must_use]
    pub fn keeping_unused(self, keeps_unused: bool) -> Store {
        Store { keeps_unused, ..self }
    }

    /// Where the store is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Every readable model, newest first. Damaged manifests and foreign files are left out.
    pub fn list(&self) -> Vec<Installed> {
        let mut found: Vec<Installed> = self.names().into_iter().filter_map(|name| self.read(name).ok()).collect();
        let seconds = |m: &Installed| m.modified.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs());
        found.sort_by(|a, b| seconds(b).cmp(&seconds(a)).then_with(|| a.name.cmp(&b.name)));
        found
    }

    /// The model of a name, whatever the case it is spelt in.
    ///
    /// # Errors
    /// When there is none, or its manifest cannot be read.
    pub fn find(&self, name: &ModelName) -> Result<Installed, StoreError> {
        let exact = self.manifest_path(name);
        let spelt = if exact.is_file() { Some(name.clone()) } else { self.names().into_iter().find(|n| n.matches(name)) };
        self.read(spelt.ok_or_else(|| StoreError::NotFound { name: name.to_string() })?)
    }

    /// Removes a name, and every blob that no other model uses.
    ///
    /// # Errors
    /// When there is no such model, or files cannot be removed.
    pub fn remove(&self, name: &ModelName) -> Result<(), StoreError> {
        let _turn = self.turn();
        let installed = self.find(name)?;
        let path = self.manifest_path(&installed.name);
        fs::remove_file(&path)?;
        for folder in path.ancestors().skip(1).take(3) {
            // Fails when other tags, models or namespaces are left, which is right.
            if fs::remove_dir(folder).is_err() {
                break;
            }
        }
        self.remove_unused(&installed)
    }

    /// Adds a model file under a name: the bytes become a blob, with a config and, if given, a licence beside it.
    /// `progress` is told the bytes written so far.
    ///
    /// # Errors
    /// When the source cannot be read or the store not written. Nothing is visible until all of it is.
    pub fn import(
        &self,
        name: &ModelName,
        source: &mut dyn Read,
        facts: &Facts,
        license: Option<&str>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), StoreError> {
        let (digest, size, _) = self.write_blob(source, progress)?;
        let mut layers = vec![Layer { media_type: MODEL.into(), digest, size }];
        if let Some(text) = license {
            let (digest, size, _) = self.write_blob(&mut text.as_bytes(), &mut |_| {})?;
            layers.push(Layer { media_type: LICENSE.into(), digest, size });
        }
        let config = serde_json::to_vec(&Config::of(facts)).expect("a config has only texts");
        let (digest, size, _) = self.write_blob(&mut config.as_slice(), &mut |_| {})?;
        let manifest = Manifest::new(Layer::config(digest, size), layers);
        let manifest = serde_json::to_vec(&manifest).expect("a manifest has only texts and numbers");
        self.publish(name, &manifest, || {})
    }

    /// Names of all manifests that lie where one may: four levels deep, in plain folders with valid names.
    pub(crate) fn names(&self) -> Vec<ModelName> {
        self.manifests().0
    }

    /// The same, and whether there can be no other manifest: nothing is unreadable, a link, or of a name that means nothing here.
    pub(crate) fn manifests(&self) -> (Vec<ModelName>, bool) {
        let (mut paths, mut is_all) = (vec![(self.folder.join("manifests"), Vec::<String>::new())], true);
        for level in 0..4 {
            let mut inside = Vec::new();
            let wanted = |kind: fs::FileType| if level == 3 { kind.is_file() } else { kind.is_dir() };
            for (folder, parts) in paths {
                let Ok(entries) = fs::read_dir(folder) else {
                    is_all = false;
                    continue;
                };
                for entry in entries {
                    let facts = |entry: fs::DirEntry| Some((entry.file_type().ok()?, entry.file_name().into_string().ok()?));
                    match entry.ok().and_then(facts) {
                        Some((kind, name)) if wanted(kind) => {
                            inside.push([parts.as_slice(), &[name]].concat());
                        }
                        // What an editor or a desktop left is no manifest.
                        Some((kind, _)) if level < 3 && kind.is_file() => {}
                        _ => is_all = false,
                    }
                }
            }
            let path = |parts: &Vec<String>| parts.iter().fold(self.folder.join("manifests"), |path, part| path.join(part));
            paths = inside.into_iter().map(|parts| (path(&parts), parts)).collect();
        }
        let mut names = Vec::with_capacity(paths.len());
        for (_, parts) in paths {
            match ModelName::from_parts([&parts[0], &parts[1], &parts[2], &parts[3]]) {
                Ok(name) => names.push(name),
                Err(_) => is_all &= parts[3].starts_with('.'),
            }
        }
        (names, is_all)
    }

    fn read(&self, name: ModelName) -> Result<Installed, StoreError> {
        let damaged = |reason: &str| StoreError::Damaged { name: name.to_string(), reason: reason.into() };
        let path = self.manifest_path(&name);
        let modified = fs::metadata(&path)?.modified()?;
        let bytes = read_limited(&path, MANIFEST_BYTES_MAX)
            .map_err(|e| damaged(&format!("its manifest cannot be read ({})", e.kind())))?;
        let manifest: Manifest = serde_json::from_slice(&bytes).map_err(|_| damaged("its manifest is not one"))?;
        let layers = || manifest.layers.iter().chain([&manifest.config]);
        let size =
            layers().try_fold(0u64, |sum, layer| sum.checked_add(layer.size)).ok_or_else(|| damaged("its sizes overflow"))?;
        if layers().any(|layer| self.blob_path(&layer.digest).is_none()) {
            return Err(damaged("a digest is malformed"));
        }
        let config = self.blob_path(&manifest.config.digest).and_then(|path| read_limited(&path, MANIFEST_BYTES_MAX).ok());
        let config = config
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .ok_or_else(|| damaged("its config is missing or not one"))?;
        let (digest, blobs) = (hex(&Sha256::digest(&bytes)), self.folder.join("blobs"));
        Ok(Installed { digest, modified, size, config, manifest, blobs, name })
    }

    pub(crate) fn manifest_path(&self, name: &ModelName) -> PathBuf {
        name.parts().iter().fold(self.folder.join("manifests"), |path, part| path.join(part))
    }

    /// The file of a blob that is here.
    pub fn blob(&self, digest: &str) -> Option<PathBuf> {
        self.blob_path(digest).filter(|path| path.is_file())
    }

    pub(crate) fn blob_path(&self, digest: &str) -> Option<PathBuf> {
        blob_file(digest).map(|file| self.folder.join("blobs").join(file))
    }

    /// Makes the folder of the blobs, if it is not there.
    pub(crate) fn create_blobs(&self) -> io::Result<PathBuf> {
        let blobs = self.folder.join("blobs");
        fs::create_dir_all(&blobs)?;
        Ok(blobs)
    }

    /// Streams bytes into the blob of their digest. Tells digest and size, and whether it was not here before.
    pub(crate) fn write_blob(
        &self,
        source: &mut dyn Read,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(String, u64, bool), StoreError> {
        let (staging, mut file) = Staging::new(&self.create_blobs()?)?;
        let (mut hasher, mut size, mut buffer) = (Sha256::new(), 0u64, vec![0; COPY_BYTES]);
        loop {
            let n = source.read(&mut buffer)?;
            if n == 0 {
                break;
            }
            hasher.update(&buffer[..n]);
            file.write_all(&buffer[..n])?;
            size += n as u64;
            progress(size);
        }
        file.sync_all()?;
        let digest = format!("sha256:{}", hex(&hasher.finalize()));
        let is_new = self.has_blob(&digest) == Some(false);
        fs::rename(&staging.0, self.blob_path(&digest).expect("our own digest is well formed"))?;
        Ok((digest, size, is_new))
    }

    /// Writes a small file so that it is seen whole or not at all.
    pub(crate) fn write_whole(&self, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
        let folder = path.parent().expect("a manifest lies in a folder");
        fs::create_dir_all(folder)?;
        // Beside the blobs: what lies among the manifests is read as one.
        let (staging, mut file) = Staging::new(&self.create_blobs()?)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&staging.0, path)?;
        Ok(())
    }
}

/// A file that is removed unless it was renamed.
pub(crate) struct Staging(pub(crate) PathBuf);

/// Numbers staging files, of which one process may write several.
static N_STAGED: AtomicU64 = AtomicU64::new(0);

impl Staging {
    /// A new file in a folder. Processes in containers may have the same number: a name that is taken is left alone.
    pub(crate) fn new(folder: &Path) -> io::Result<(Staging, File)> {
        loop {
            let number = N_STAGED.fetch_add(1, Ordering::Relaxed);
            let path = folder.join(format!("staging-{}-{number}-partial", std::process::id()));
            match File::create_new(&path) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                other => return other.map(|file| (Staging(path), file)),
            }
        }
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // Gone after a rename, which is the usual case.
        _ = fs::remove_file(&self.0);
    }
}

/// `sha256:<64 hex>` as a file name; `None` for anything else.
pub(crate) fn blob_file(digest: &str) -> Option<String> {
    let hex = digest.strip_prefix("sha256:").or_else(|| digest.strip_prefix("sha256-"))?;
    (hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit())).then(|| format!("sha256-{}", hex.to_ascii_lowercase()))
}

/// Whether a digest is spelt as digests are: one spelling, so that equal ones are equal texts.
pub(crate) fn is_canonical(digest: &str) -> bool {
    blob_file(digest).is_some_and(|file| file.replacen('-', ":", 1) == digest)
}

pub(crate) fn read_limited(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than any real one"));
    }
    Ok(bytes)
}

/// The digest of a file, `sha256:<hex>`.
///
/// # Errors
/// When it cannot be read.
pub fn digest_of(path: &Path) -> io::Result<String> {
    let (mut file, mut hasher, mut buffer) = (File::open(path)?, Sha256::new(), vec![0; COPY_BYTES]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(format!("sha256:{}", hex(&hasher.finalize()))),
            n => hasher.update(&buffer[..n]),
        }
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> ModelName {
        ModelName::parse(text).unwrap()
    }

    fn store_with(names: &[&str]) -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path());
        let facts = Facts { family: "qwen3".into(), parameter_size: "3.4M".into(), quant: "Q8_0".into() };
        for n in names {
            store.import(&name(n), &mut &b"weights"[..], &facts, Some("free"), &mut |_| {}).unwrap();
        }
        (folder, store)
    }

    fn files(folder: &Path) -> usize {
        fs::read_dir(folder).map_or(0, |entries| entries.count())
    }

    #[test]
    fn what_is_imported_is_found_and_listed() {
        let (_folder, store) = store_with(&["a"]);
        let found = store.find(&name("A:LATEST")).unwrap();
        assert_eq!((found.name.to_string(), found.config.model_family.as_str()), ("a:latest".into(), "qwen3"));
        assert_eq!(fs::read(found.model_path().unwrap()).unwrap(), b"weights");
        assert_eq!((found.licenses(), found.digest.len()), (vec!["free".to_owned()], 64));
        assert_eq!(store.list().len(), 1);
    }

    #[test]
    fn shared_blobs_outlive_one_name() {
        let (folder, store) = store_with(&["a"]);
        store.copy(&name("a"), &name("b:1")).unwrap();
        assert_eq!(store.find(&name("a")).unwrap().digest, store.find(&name("b:1")).unwrap().digest);
        store.remove(&name("a")).unwrap();
        assert!(store.find(&name("b:1")).unwrap().model_path().unwrap().is_file());
        store.remove(&name("b:1")).unwrap();
        assert_eq!((files(&folder.path().join("blobs")), store.list().len()), (0, 0));
        assert!(matches!(store.remove(&name("a")), Err(StoreError::NotFound { .. })));
    }

    #[test]
    fn c22_c23_junk_is_ignored() {
        let (folder, store) = store_with(&["a", "b"]);
        let manifests = folder.path().join("manifests/registry.ollama.ai/library");
        fs::write(manifests.join("a/latest"), "{broken").unwrap();
        fs::write(manifests.join("b/bad name"), "x").unwrap();
        fs::create_dir_all(manifests.join("c/latest")).unwrap();
        std::os::unix::fs::symlink("/", manifests.join("root")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(manifests.join("b/socket")).unwrap();
        let blobs = folder.path().join("blobs");
        fs::create_dir(blobs.join(format!("sha256-{}", "c".repeat(64)))).unwrap();
        std::os::unix::fs::symlink("/", blobs.join("sha256-link")).unwrap();
        fs::write(blobs.join("notes.txt"), "x").unwrap();
        assert_eq!(store.list().iter().map(|m| m.name.to_string()).collect::<Vec<_>>(), ["b:latest"]);
        assert!(matches!(store.find(&name("a")), Err(StoreError::Damaged { .. })));
        // What is not understood is not touched either: one of its manifests may need what seems unused.
        let before = files(&blobs);
        store.remove(&name("b")).unwrap();
        store.sweep(true).unwrap();
        assert_eq!((files(&blobs), store.list().len()), (before, 0));
    }

    #[test]
    fn c01_digests_never_leave_the_folder() {
        for digest in [
            "sha256:../../etc/passwd",
            "sha256:",
            "md5:00",
            &format!("sha256:{}/", "a".repeat(63)),
            &format!("sha256:{}\n", "a".repeat(64)),
        ] {
            assert_eq!(blob_file(digest), None, "{digest}");
        }
        assert!(blob_file(&format!("sha256-{}", "A".repeat(64))).is_some());
    }
}
