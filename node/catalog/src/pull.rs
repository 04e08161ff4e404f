//! Download of a model from a registry that speaks the distribution protocol of container images, as Ollama's does.
//! Dropping the future stops the download; what has arrived stays and is taken up by the next.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use reqwest::{StatusCode, header};
use tokio::sync::Mutex;

use crate::download::{self, Download, Rate};
use crate::manifest::{Layer, MANIFEST, MODEL, Manifest};
use crate::name::{HOST, ModelName};
use crate::offers::{self, Offer};
use crate::place::{Interrupted, Place};
use crate::store::{MANIFEST_BYTES_MAX, Store, StoreError, blob_file, digest_of, is_canonical};

/// Where Ollama's models are.
pub const REGISTRY: &str = "https://registry.ollama.ai";
/// Where Hugging Face's models are. It speaks the same protocol for repositories with GGUF files: the tag is the quant type.
pub const HUB: &str = "https://hf.co";
/// Names by which the hub is called.
const HUB_HOSTS: [&str; 3] = ["hf.co", "huggingface.co", "www.huggingface.co"];
/// Layers of a model; real ones have a handful.
const N_LAYERS_MAX: usize = 64;
/// Bytes of a whole model.
const MODEL_BYTES_MAX: u64 = 1 << 44;
/// Bytes a model needs beside its weights at least: a short context and room to compute.
const BESIDE_WEIGHTS: u64 = 128 << 20;
/// What stays free of a disk: so many bytes, and one part in so many.
const DISK_KEPT: (u64, u64) = (1 << 30, 20);
/// Bytes of a refusal that are repeated to the user.
const REASON_BYTES_MAX: usize = 500;

/// Where models are pulled from.
#[derive(Debug, Clone)]
pub struct Registry {
    /// By the hosts that names give: the registry, the hub, and what the owner added.
    places: Vec<(Vec<String>, Place)>,
    /// Whether the names of `models.toml` mean its files: not for owners who have a registry of their own.
    offers: bool,
    /// Bytes of memory this machine has, where known: what needs more is not fetched.
    memory: Option<u64>,
    rate: Rate,
    /// Held while layers are fetched: models share layers, and a layer has one place to arrive at.
    turn: Arc<Mutex<()>>,
}

/// How far a pull is, in the order of the steps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    Manifest,
    /// Bytes of a layer that are here.
    Layer {
        digest: String,
        total: u64,
        completed: u64,
    },
    Verifying,
    WritingManifest,
    /// Of layers that only the name's former meaning used.
    Removing,
}

/// Why a model could not be pulled.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    #[error("pull model manifest: file does not exist")]
    NotFound,
    #[error("pull model manifest: {status}: {reason}")]
    Refused { status: u16, reason: String },
    #[error("{digest} is being fetched by another process; wait for it, or stop it")]
    Elsewhere { digest: String },
    #[error("models are pulled from {known} only, not from {host}; LANTERN_PULL_HOSTS names further hosts")]
    OtherHost { host: String, known: String },
    #[error(
        "the model needs {needs:.1} GiB of memory, this machine has {has:.1} GiB: choose a smaller model or smaller weights of it"
    )]
    TooLarge { needs: f64, has: f64 },
    #[error(
        "the model needs {needs:.1} GiB of disk, {free:.1} GiB are free and {kept:.1} of them are kept so: delete models first"
    )]
    DiskFull { needs: f64, free: f64, kept: f64 },
    #[error("the file is not the one that is listed: want {want}, got {got}; pull {source_name} to have it all the same")]
    NotAsListed { want: String, got: String, source_name: String },
    #[error("the registry's manifest cannot be used: {0}")]
    Manifest(String),
    #[error("cannot reach the registry: {0}")]
    Unreachable(String),
    #[error("max retries exceeded: {0}")]
    Network(String),
    #[error("the registry sent more than the {total} bytes of {digest}")]
    TooLong { digest: String, total: u64 },
    #[error("digest mismatch, file must be downloaded again: want {want}, got {got}")]
    Digest { want: String, got: String },
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<io::Error> for PullError {
    fn from(error: io::Error) -> PullError {
        PullError::Store(error.into())
    }
}

impl Registry {
    /// Registries at base addresses, such as [`REGISTRY`] and [`HUB`].
    ///
    /// # Errors
    /// When an address is none, or the system has no trusted certificates.
    pub fn new(base: &str, hub: &str) -> Result<Registry, String> {
        let places = vec![
            (vec![HOST.to_owned()], Place::new(base, None)?),
            (HUB_HOSTS.map(String::from).to_vec(), Place::new(hub, None)?),
        ];
        Ok(Registry {
            places,
            offers: base.trim_end_matches('/') == REGISTRY,
            memory: None,
            rate: Rate::default(),
            turn: Arc::default(),
        })
    }

    /// The same, for a machine with so much memory.
    pub fn for_memory(self, bytes: Option<u64>) -> Registry {
        Registry { memory: bytes, ..self }
    }

    /// The same, with a token that the hub is shown, and nobody else.
    ///
    /// # Errors
    /// When the hub has no address, which [`Registry::new`] has refused before.
    pub fn with_hub_token(mut self, token: String) -> Result<Registry, String> {
        let hub = &mut self.places[1].1;
        *hub = Place::new(&hub.base, Some(token))?;
        Ok(self)
    }

    /// The same, taking no more than so many bytes a second from all places together.
    pub fn at_rate(self, bytes_per_second: Option<u64>) -> Registry {
        Registry { rate: Rate::new(bytes_per_second), ..self }
    }

    /// The same, which also pulls from a host such as `registry.example.org:5000`; `http://` before it says that it has no
    /// encryption.
    ///
    /// # Errors
    /// When the text is no host.
    pub fn and_from(mut self, host: &str) -> Result<Registry, String> {
        let base = if host.contains("://") { host.to_owned() } else { format!("https://{host}") };
        let name = base.split_once("://").map_or("", |(_, name)| name).trim_end_matches('/').to_ascii_lowercase();
        self.places.push((vec![name], Place::new(&base, None)?));
        Ok(self)
    }

    /// The place that models of a host are pulled from.
    fn place(&self, host: &str) -> Result<&Place, PullError> {
        let named = |(hosts, _): &&(Vec<String>, Place)| hosts.iter().any(|h| h.eq_ignore_ascii_case(host));
        match self.places.iter().find(named) {
            Some((_, place)) => Ok(place),
            None => {
                let mut known: Vec<&str> = self.places.iter().map(|(hosts, _)| hosts[0].as_str()).collect();
                let last = known.pop().unwrap_or_default();
                Err(PullError::OtherHost { host: host.into(), known: format!("{} and {last}", known.join(", ")) })
            }
        }
    }

    /// Brings a model into the store: its layers, each checked against its digest, then its manifest. Layers that are
    /// there already are not asked for.
    ///
    /// # Errors
    /// When the registry does not have it, the network fails again and again, or the store cannot be written. The store
    /// then holds what it held before, and the bytes that have arrived for the next attempt.
    pub async fn pull(
        &self,
        store: &Store,
        name: &ModelName,
        mut progress: impl FnMut(Progress) + Send,
    ) -> Result<(), PullError> {
        let offer = offers::named(name).filter(|_| self.offers);
        let source = offer.map(|offer| ModelName::parse(&offer.source).expect("the list has names"));
        let [host, namespace, model, tag] = source.as_ref().unwrap_or(name).parts();
        let place = self.place(host)?;
        progress(Progress::Manifest);
        let repository = format!("{}/v2/{namespace}/{model}", place.base);
        let bytes = manifest(place, &format!("{repository}/manifests/{tag}")).await?;
        let manifest = parse(&bytes)?;
        if let Some(offer) = offer {
            check_offered(offer, &manifest)?;
        }
        let weights = manifest.layers.iter().filter(|layer| layer.media_type == MODEL).map(|layer| layer.size).sum::<u64>();
        if let Some(memory) = self.memory.filter(|memory| weights + BESIDE_WEIGHTS > *memory) {
            return Err(PullError::TooLarge { needs: gib(weights + BESIDE_WEIGHTS), has: gib(memory) });
        }
        store.create_blobs()?;
        let _turn = self.turn.lock().await;
        has_room(store, &manifest)?;
        let mut fresh: Vec<(&Layer, PathBuf, PathBuf)> = Vec::new();
        for layer in manifest.layers.iter().chain([&manifest.config]) {
            let blob = store.blob_path(&layer.digest).expect("digests are checked");
            let mut report = |completed| progress(Progress::Layer { digest: layer.digest.clone(), total: layer.size, completed });
            let is_here = |(other, ..): &(&Layer, PathBuf, PathBuf)| other.digest == layer.digest;
            if fresh.iter().any(is_here) || blob.metadata().is_ok_and(|m| m.len() == layer.size) {
                report(layer.size);
                continue;
            }
            let partial = blob.with_extension("part");
            let address = format!("{repository}/blobs/{}", layer.digest);
            let download = Download { place, address: &address, layer, partial: &partial, rate: &self.rate };
            download.run(report).await?;
            fresh.push((layer, partial, blob));
        }
        progress(Progress::Verifying);
        for (layer, partial, blob) in fresh {
            if let Err(PullError::Digest { .. }) = verified(layer, &partial).await {
                // Once from the beginning: a transfer may have gone wrong, a registry that lies will do it again.
                let report = |completed| progress(Progress::Layer { digest: layer.digest.clone(), total: layer.size, completed });
                let address = format!("{repository}/blobs/{}", layer.digest);
                let download = Download { place, address: &address, layer, partial: &partial, rate: &self.rate };
                download.run(report).await?;
            }
            verified(layer, &partial).await?;
            download::keep(&partial, &blob).await?;
        }
        progress(Progress::WritingManifest);
        // Reads every manifest and may remove files of gigabytes.
        let (store, name) = (store.clone(), name.clone());
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        let published = tokio::task::spawn_blocking(move || store.publish(&name, &bytes, || _ = tell.send(())));
        if told.recv().await.is_some() {
            progress(Progress::Removing);
        }
        Ok(published.await.expect("publishing does not panic")?)
    }
}

/// The manifest's bytes. One attempt: who is offline should learn it at once.
async fn manifest(place: &Place, address: &str) -> Result<Vec<u8>, PullError> {
    fetch_manifest(place, address).await.map_err(|interrupted| match interrupted {
        Interrupted::Network(reason) => PullError::Unreachable(reason),
        Interrupted::NoRanges => PullError::Unreachable("it answered what nobody asked".into()),
        Interrupted::Final(error) => error,
    })
}

async fn fetch_manifest(place: &Place, address: &str) -> Result<Vec<u8>, Interrupted> {
    let mut response = place.get(address, (header::ACCEPT, MANIFEST.into())).await?;
    let status = response.status();
    let mut bytes = Vec::new();
    while let Some(part) = response.chunk().await? {
        bytes.extend_from_slice(&part);
        if bytes.len() as u64 > MANIFEST_BYTES_MAX {
            return Err(Interrupted::Final(PullError::Manifest("it is larger than any real one".into())));
        }
    }
    match status {
        StatusCode::OK => Ok(bytes),
        StatusCode::NOT_FOUND => Err(Interrupted::Final(PullError::NotFound)),
        _ => {
            bytes.truncate(REASON_BYTES_MAX);
            let reason = String::from_utf8_lossy(&bytes).trim().to_owned();
            Err(Interrupted::Final(PullError::Refused { status: status.as_u16(), reason }))
        }
    }
}

/// Compares the digest of what has arrived; what has another is removed.
async fn verified(layer: &Layer, partial: &Path) -> Result<(), PullError> {
    let file = partial.to_owned();
    let got = tokio::task::spawn_blocking(move || digest_of(&file)).await.expect("hashing does not panic")?;
    let want = blob_file(&layer.digest).expect("digests are checked").replace('-', ":");
    if got == want {
        return Ok(());
    }
    download::discard(partial).await?;
    Err(PullError::Digest { want, got })
}

fn parse(bytes: &[u8]) -> Result<Manifest, PullError> {
    let manifest: Manifest = serde_json::from_slice(bytes).map_err(|e| PullError::Manifest(e.to_string()))?;
    if manifest.layers.len() > N_LAYERS_MAX {
        return Err(PullError::Manifest(format!("it has {} layers, the limit is {N_LAYERS_MAX}", manifest.layers.len())));
    }
    if let Some(layer) = manifest.layers.iter().chain([&manifest.config]).find(|l| !is_canonical(&l.digest)) {
        return Err(PullError::Manifest(format!("{:?} is not a digest", layer.digest)));
    }
    let all = || manifest.layers.iter().chain([&manifest.config]);
    if let Some(layer) = all().find(|layer| all().any(|other| other.digest == layer.digest && other.size != layer.size)) {
        return Err(PullError::Manifest(format!("{} has two sizes", layer.digest)));
    }
    if all().try_fold(0u64, |sum, layer| sum.checked_add(layer.size)).is_none_or(|sum| sum > MODEL_BYTES_MAX) {
        return Err(PullError::Manifest("its sizes add up to more than any disk holds".into()));
    }
    if !manifest.layers.iter().any(|l| l.media_type == MODEL) {
        return Err(PullError::Manifest("it has no GGUF model among its layers".into()));
    }
    Ok(manifest)
}

/// Refuses other weights than those that the list names.
fn check_offered(offer: &Offer, manifest: &Manifest) -> Result<(), PullError> {
    let found = manifest.layers.iter().find(|layer| layer.media_type == MODEL).map_or("", |layer| &layer.digest);
    let want = format!("sha256:{}", offer.sha256);
    if found.eq_ignore_ascii_case(&want) {
        return Ok(());
    }
    Err(PullError::NotAsListed { want, got: found.into(), source_name: offer.source.clone() })
}

/// Refuses what the disk has no room for, before any of it is fetched. What has arrived before takes none.
fn has_room(store: &Store, manifest: &Manifest) -> Result<(), PullError> {
    let missing = |layer: &Layer| {
        let blob = store.blob_path(&layer.digest).expect("digests are checked");
        let here = [blob.with_extension("part"), blob].into_iter().filter_map(|file| file.metadata().ok());
        layer.size.saturating_sub(here.map(|m| m.blocks() * 512).sum())
    };
    let needs: u64 = manifest.layers.iter().chain([&manifest.config]).map(missing).sum();
    let disk = rustix::fs::statvfs(store.folder()).map_err(io::Error::from)?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    let kept = DISK_KEPT.0.max(disk.f_blocks.saturating_mul(disk.f_frsize) / DISK_KEPT.1);
    if needs > 0 && needs.saturating_add(kept) > free {
        return Err(PullError::DiskFull { needs: gib(needs), free: gib(free), kept: gib(kept) });
    }
    Ok(())
}

fn gib(bytes: u64) -> f64 {
    bytes as f64 / (1u64 << 30) as f64
}
