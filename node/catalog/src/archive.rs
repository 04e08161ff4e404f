//! A model in one file, to carry it to another machine: a tar archive in the OCI image layout, which registry tools read too.
//! It holds `oci-layout`, `index.json` (which names the manifest and the model), then every blob as `blobs/sha256/<hex>`, the
//! manifest first.
//!
//! Nothing of an archive becomes a path: entries must have these names in this order, and a blob the digest it was announced by.

use std::collections::HashMap;
use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tar::{Archive, Builder, EntryType, Header};

use crate::manifest::{MANIFEST, MODEL, Manifest};
use crate::name::ModelName;
use crate::store::{MANIFEST_BYTES_MAX, Store, StoreError, hex, is_canonical};

const LAYOUT: &str = "oci-layout";
const INDEX: &str = "index.json";
const BLOBS: &str = "blobs/sha256/";
/// The annotation that names an image.
const NAME: &str = "org.opencontainers.image.ref.name";
/// Bytes copied between two reports.
const COPY_BYTES: usize = 1 << 20;

/// Why a file is not a model's archive.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    #[error("the archive cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("it is not an archive of a model: {0}")]
    Layout(String),
    #[error("the archive is damaged: {name} has digest {got}")]
    Digest { name: String, got: String },
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Index {
    schema_version: u32,
    manifests: Vec<Described>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Described {
    media_type: String,
    digest: String,
    size: u64,
    #[serde(default)]
    annotations: HashMap<String, String>,
}

impl Store {
    /// Writes a model to `out` as an archive. `progress` is told the bytes of blobs that are written, and all there are.
    ///
    /// # Errors
    /// When the model is not here or not whole, or `out` cannot be written.
    pub fn export(&self, name: &ModelName, out: impl Write, progress: &mut dyn FnMut(u64, u64)) -> Result<(), ArchiveError> {
        let model = self.find(name)?;
        let manifest = std::fs::read(self.manifest_path(&model.name))?;
        let digest = format!("sha256:{}", hex(&Sha256::digest(&manifest)));
        let index = Index {
            schema_version: 2,
            manifests: vec![Described {
                media_type: MANIFEST.into(),
                digest: digest.clone(),
                size: manifest.len() as u64,
                annotations: HashMap::from([(NAME.into(), model.name.full())]),
            }],
        };
        let mut archive = Builder::new(out);
        let small =
            |archive: &mut Builder<_>, path: &str, bytes: &[u8]| archive.append_data(&mut head(bytes.len() as u64), path, bytes);
        small(&mut archive, LAYOUT, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        small(&mut archive, INDEX, &serde_json::to_vec(&index).expect("an index has only texts and numbers"))?;
        small(&mut archive, &path_of(&digest), &manifest)?;
        let mut done = 0;
        let mut written: Vec<&str> = Vec::new();
        for layer in [&model.manifest.config].into_iter().chain(&model.manifest.layers) {
            if written.contains(&layer.digest.as_str()) {
                continue;
            }
            written.push(&layer.digest);
            let missing = || StoreError::Damaged { name: name.to_string(), reason: format!("{} is missing", layer.digest) };
            let file = File::open(self.blob(&layer.digest).ok_or_else(missing)?)?;
            let size = file.metadata()?.len();
            let told = Told { inner: file, told: &mut |n| progress(done + n, model.size), n: 0 };
            archive.append_data(&mut head(size), path_of(&layer.digest), told)?;
            done += size;
        }
        archive.into_inner()?.flush()?;
        Ok(())
    }

    /// Reads an archive's blobs into the store. The model has no name yet: see [`Unpacked::publish`]. `progress` is told the
    /// bytes that are here.
    ///
    /// # Errors
    /// When it is no archive of a model, or damaged, or the store cannot be written. The store then holds what it held before.
    pub fn unpack(&self, source: impl Read, progress: &mut dyn FnMut(u64)) -> Result<Unpacked, ArchiveError> {
        let layout = |reason: &str| ArchiveError::Layout(reason.into());
        let mut archive = Archive::new(source);
        let mut unpacked =
            Unpacked { store: self.clone(), name: None, manifest: Vec::new(), model: PathBuf::new(), new: Vec::new() };
        let (mut waiting, mut done) = (Vec::<String>::new(), 0);
        for (position, entry) in archive.entries()?.raw(true).enumerate() {
            let mut entry = entry.map_err(|_| layout("it is no tar archive"))?;
            let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            if entry.header().entry_type() != EntryType::Regular {
                return Err(ArchiveError::Layout(format!("{:?} is no file", shown(&path))));
            }
            match (position, path.as_str()) {
                (0, LAYOUT) => _ = small(&mut entry)?,
                (1, INDEX) => {
                    let index: Index =
                        serde_json::from_slice(&small(&mut entry)?).map_err(|e| ArchiveError::Layout(e.to_string()))?;
                    let [described] = &index.manifests[..] else { return Err(layout("it holds more than one model, or none")) };
                    unpacked.name = described.annotations.get(NAME).and_then(|name| ModelName::parse(name).ok());
                    waiting.push(described.digest.clone());
                }
                (2, _) => {
                    unpacked.manifest = small(&mut entry)?;
                    let got = format!("sha256:{}", hex(&Sha256::digest(&unpacked.manifest)));
                    if waiting.pop().as_deref() != Some(&got) || path != path_of(&got) {
                        return Err(ArchiveError::Digest { name: shown(&path), got });
                    }
                    let manifest: Manifest =
                        serde_json::from_slice(&unpacked.manifest).map_err(|e| ArchiveError::Layout(e.to_string()))?;
                    let layers = || manifest.layers.iter().chain([&manifest.config]);
                    if layers().any(|layer| !is_canonical(&layer.digest)) {
                        return Err(layout("a digest is malformed"));
                    }
                    let model = manifest.layers.iter().find(|layer| layer.media_type == MODEL);
                    let model = model.ok_or_else(|| layout("it has no GGUF model"))?;
                    unpacked.model = self.blob_path(&model.digest).expect("digests are checked");
                    waiting = layers().map(|layer| layer.digest.clone()).collect();
                }
                (0 | 1, _) => {
                    return Err(ArchiveError::Layout(format!("{:?} stands where {LAYOUT} and {INDEX} do", shown(&path))));
                }
                _ => {
                    let expected = waiting.iter().find(|digest| path == path_of(digest)).cloned();
                    let expected =
                        expected.ok_or_else(|| ArchiveError::Layout(format!("{:?} belongs to no model", shown(&path))))?;
                    let (got, size, is_new) = self.write_blob(&mut entry, &mut |n| progress(done + n))?;
                    unpacked.new.extend(self.blob_path(&got).filter(|_| is_new));
                    if !got.eq_ignore_ascii_case(&expected) {
                        return Err(ArchiveError::Digest { name: shown(&path), got });
                    }
                    waiting.retain(|digest| *digest != expected);
                    done += size;
                }
            }
        }
        match waiting.first() {
            _ if unpacked.manifest.is_empty() => Err(layout("it has no manifest")),
            Some(digest) => Err(ArchiveError::Layout(format!("{digest} is missing"))),
            None => Ok(unpacked),
        }
    }
}

/// A model whose blobs are in the store, without a name. Dropped so, its blobs are removed again.
pub struct Unpacked {
    store: Store,
    name: Option<ModelName>,
    manifest: Vec<u8>,
    model: PathBuf,
    new: Vec<PathBuf>,
}

impl Unpacked {
    /// What it was called where it comes from.
    pub fn name(&self) -> Option<&ModelName> {
        self.name.as_ref()
    }

    /// The GGUF file.
    pub fn model_path(&self) -> &std::path::Path {
        &self.model
    }

    /// Gives the model a name, which may have meant another.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn publish(self, name: &ModelName) -> Result<(), StoreError> {
        self.store.publish(name, &self.manifest, || {})
    }
}

impl Drop for Unpacked {
    fn drop(&mut self) {
        let _turn = self.store.turn();
        // What a manifest names by now is somebody's; one that cannot be read may name any of them.
        let nobody = !self.store.folder().join("manifests").exists();
        let Some(used) = self.store.used().or(nobody.then(HashSet::new)) else { return };
        let file = |blob: &PathBuf| blob.file_name().and_then(|name| name.to_str()).map(String::from);
        for blob in self.new.iter().filter(|blob| !used.contains(&file(blob))) {
            // What cannot be removed now is found by nobody.
            _ = std::fs::remove_file(blob);
        }
    }
}

/// A reader that tells how far it is.
struct Told<'a, R> {
    inner: R,
    told: &'a mut dyn FnMut(u64),
    n: u64,
}

impl<R: Read> Read for Told<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        if (self.n + n as u64) / COPY_BYTES as u64 != self.n / COPY_BYTES as u64 || n == 0 {
            (self.told)(self.n + n as u64);
        }
        self.n += n as u64;
        Ok(n)
    }
}

fn path_of(digest: &str) -> String {
    format!("{BLOBS}{}", digest.trim_start_matches("sha256:").trim_start_matches("sha256-"))
}

/// The same for every export of the same model.
fn head(size: u64) -> Header {
    let mut head = Header::new_ustar();
    head.set_size(size);
    head.set_mode(0o644);
    head
}

/// The bytes of an entry that is small if it is right.
fn small(entry: &mut impl Read) -> Result<Vec<u8>, ArchiveError> {
    let mut bytes = Vec::new();
    entry.take(MANIFEST_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MANIFEST_BYTES_MAX {
        return Err(ArchiveError::Layout("a description in it is larger than any real one".into()));
    }
    Ok(bytes)
}

fn shown(path: &str) -> String {
    path.chars().take(80).collect()
}
