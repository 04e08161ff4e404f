//! Download of a model from a registry that speaks the distribution protocol of container images, as Ollama's does.
//! Dropping the future stops the download; what has arrived stays and is taken up by the next.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use reqwest::{Client, StatusCode, header};
use tokio::fs::{self, File, OpenOptions};
use tokio::io::AsyncWriteExt;
use tokio::sync::Mutex;

use crate::away;
use crate::manifest::{Layer, MANIFEST, MODEL, Manifest};
use crate::name::{HOST, ModelName};
use crate::store::{MANIFEST_BYTES_MAX, Store, StoreError, blob_file, digest_of};

/// Where Ollama's models are.
pub const REGISTRY: &str = "https://registry.ollama.ai";
/// Where Hugging Face's models are. It speaks the same protocol for repositories with GGUF files: the tag is the quant type.
pub const HUB: &str = "https://hf.co";
/// Names by which the hub is called.
const HUB_HOSTS: [&str; 3] = ["hf.co", "huggingface.co", "www.huggingface.co"];
/// A connection may take this long to stand, and to send its next bytes.
const PATIENCE: Duration = Duration::from_secs(30);
/// Attempts in a row that bring no byte, after which a download gives up. The pause before each doubles.
const N_ATTEMPTS: u32 = 6;
/// Layers of a model; real ones have a handful.
const N_LAYERS_MAX: usize = 64;
/// Bytes of a whole model.
const MODEL_BYTES_MAX: u64 = 1 << 44;
/// Bytes a model needs beside its weights at least: a short context and room to compute.
const BESIDE_WEIGHTS: u64 = 128 << 20;
/// Bytes of a refusal that are repeated to the user.
const REASON_BYTES_MAX: usize = 500;

/// A place to pull models from.
#[derive(Debug, Clone)]
pub struct Registry {
    base: String,
    /// The same for models of Hugging Face.
    hub: String,
    /// Bytes of memory this machine has, where known: what needs more is not fetched.
    memory: Option<u64>,
    client: Client,
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
}

/// Why a model could not be pulled.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    #[error("pull model manifest: file does not exist")]
    NotFound,
    #[error("pull model manifest: {status}: {reason}")]
    Refused { status: u16, reason: String },
    #[error("models are pulled from {HOST} and hf.co only, not from {host}")]
    OtherHost { host: String },
    #[error(
        "the model needs {needs:.1} GiB of memory, this machine has {has:.1} GiB: choose a smaller model or smaller weights of it"
    )]
    TooLarge { needs: f64, has: f64 },
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

/// Why one attempt ended early.
enum Interrupted {
    /// Worth another attempt.
    Network(String),
    Final(PullError),
}

impl From<reqwest::Error> for Interrupted {
    fn from(error: reqwest::Error) -> Interrupted {
        Interrupted::Network(innermost(&error))
    }
}

impl From<io::Error> for Interrupted {
    fn from(error: io::Error) -> Interrupted {
        Interrupted::Final(error.into())
    }
}

impl Registry {
    /// Registries at base addresses, such as [`REGISTRY`] and [`HUB`].
    ///
    /// # Errors
    /// When an address is none, or the system has no trusted certificates.
    pub fn new(base: &str, hub: &str) -> Result<Registry, String> {
        let mut at_home = false;
        for address in [base, hub] {
            let parsed = reqwest::Url::parse(address).map_err(|e| format!("{address:?} is not an address: {e}"))?;
            if !["http", "https"].contains(&parsed.scheme()) {
                return Err(format!("{address:?} begins with neither http:// nor https://"));
            }
            at_home |= !away::is_public_host(parsed.host_str().unwrap_or_default());
        }
        let builder = Client::builder()
            .user_agent(concat!("lantern/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(PATIENCE)
            .read_timeout(PATIENCE)
            .redirect(away::redirects(at_home));
        // Who keeps a registry at home wants addresses at home; nobody else does. A proxy looks names up itself, and is at home.
        let builder = if at_home || away::has_proxy() { builder } else { builder.dns_resolver(Arc::new(away::PublicOnly)) };
        let client = builder.build().map_err(|e| innermost(&e))?;
        let plain = |address: &str| address.trim_end_matches('/').to_owned();
        Ok(Registry { base: plain(base), hub: plain(hub), memory: None, client, turn: Arc::default() })
    }

    /// The same, for a machine with so much memory.
    pub fn for_memory(self, bytes: Option<u64>) -> Registry {
        Registry { memory: bytes, ..self }
    }

    /// Brings a model into the store: its layers, each checked against its digest, then its manifest. Layers that are
    /// there already are not asked for.
    ///
    /// # Errors
    /// When the registry does not have it, the network fails again and again, or the store cannot be written. The store
    /// then holds what it held before, and the bytes that have arrived for the next attempt.
    pub async fn pull(&self, store: &Store, name: &ModelName, mut progress: impl FnMut(Progress)) -> Result<(), PullError> {
        let [host, namespace, model, tag] = name.parts();
        let base = match host.to_ascii_lowercase() {
            host if host == HOST => &self.base,
            host if HUB_HOSTS.contains(&host.as_str()) => &self.hub,
            _ => return Err(PullError::OtherHost { host: host.into() }),
        };
        progress(Progress::Manifest);
        let repository = format!("{base}/v2/{namespace}/{model}");
        let bytes = self.manifest(&format!("{repository}/manifests/{tag}")).await?;
        let manifest = parse(&bytes)?;
        let weights = manifest.layers.iter().filter(|layer| layer.media_type == MODEL).map(|layer| layer.size).sum::<u64>();
        if let Some(memory) = self.memory.filter(|memory| weights + BESIDE_WEIGHTS > *memory) {
            return Err(PullError::TooLarge { needs: gib(weights + BESIDE_WEIGHTS), has: gib(memory) });
        }
        store.create_blobs()?;
        let _turn = self.turn.lock().await;
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
            self.download(&format!("{repository}/blobs/{}", layer.digest), layer, &partial, &mut report).await?;
            fresh.push((layer, partial, blob));
        }
        progress(Progress::Verifying);
        for (layer, partial, blob) in fresh {
            if let Err(PullError::Digest { .. }) = verified(layer, &partial).await {
                // Once from the beginning: a transfer may have gone wrong, a registry that lies will do it again.
                let mut report =
                    |completed| progress(Progress::Layer { digest: layer.digest.clone(), total: layer.size, completed });
                self.download(&format!("{repository}/blobs/{}", layer.digest), layer, &partial, &mut report).await?;
            }
            verified(layer, &partial).await?;
            fs::rename(&partial, &blob).await?;
        }
        progress(Progress::WritingManifest);
        store.write_manifest(name, &bytes)?;
        Ok(())
    }

    /// The manifest's bytes. One attempt: who is offline should learn it at once.
    async fn manifest(&self, address: &str) -> Result<Vec<u8>, PullError> {
        self.fetch_manifest(address).await.map_err(|interrupted| match interrupted {
            Interrupted::Network(reason) => PullError::Unreachable(reason),
            Interrupted::Final(error) => error,
        })
    }

    async fn fetch_manifest(&self, address: &str) -> Result<Vec<u8>, Interrupted> {
        let mut response = self.client.get(address).header(header::ACCEPT, MANIFEST).send().await?;
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

    async fn download(
        &self,
        address: &str,
        layer: &Layer,
        partial: &Path,
        report: &mut impl FnMut(u64),
    ) -> Result<(), PullError> {
        let mut attempt = 0;
        loop {
            let before = length(partial);
            match self.resume(address, layer, partial, report).await {
                Ok(()) => return Ok(()),
                Err(Interrupted::Final(error)) => return Err(error),
                Err(Interrupted::Network(reason)) => {
                    if length(partial) > before {
                        attempt = 0;
                    } else {
                        wait(&mut attempt, reason).await?;
                    }
                }
            }
        }
    }

    /// Asks for the bytes that are missing from `partial` and appends them as they come.
    async fn resume(
        &self,
        address: &str,
        layer: &Layer,
        partial: &Path,
        report: &mut impl FnMut(u64),
    ) -> Result<(), Interrupted> {
        let mut completed = length(partial);
        if completed > layer.size {
            fs::remove_file(partial).await?;
            completed = 0;
        }
        report(completed);
        if completed == layer.size {
            // Of nothing there is nothing to ask for.
            OpenOptions::new().append(true).create(true).open(partial).await?;
            return Ok(());
        }
        let request = self.client.get(address).header(header::RANGE, format!("bytes={completed}-"));
        let mut response = request.send().await?;
        let mut file = match response.status() {
            StatusCode::PARTIAL_CONTENT => OpenOptions::new().append(true).create(true).open(partial).await?,
            // A server that does not know ranges sends everything.
            StatusCode::OK => {
                completed = 0;
                File::create(partial).await?
            }
            status => return Err(Interrupted::Network(format!("the registry answered {status}"))),
        };
        let sent = loop {
            match response.chunk().await {
                Ok(Some(part)) => {
                    completed += part.len() as u64;
                    if completed > layer.size {
                        break Err(Interrupted::Final(PullError::TooLong { digest: layer.digest.clone(), total: layer.size }));
                    }
                    file.write_all(&part).await?;
                    report(completed);
                }
                Ok(None) if completed < layer.size => break Err(Interrupted::Network("the download broke off".into())),
                Ok(None) => break Ok(()),
                Err(error) => break Err(error.into()),
            }
        };
        // What has arrived is kept, whatever ended the attempt.
        file.sync_all().await?;
        sent
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
    fs::remove_file(partial).await?;
    Err(PullError::Digest { want, got })
}

/// Pauses before the next attempt, or gives up.
async fn wait(attempt: &mut u32, reason: String) -> Result<(), PullError> {
    *attempt += 1;
    if *attempt == N_ATTEMPTS {
        return Err(PullError::Network(reason));
    }
    tokio::time::sleep(Duration::from_secs(1 << (*attempt - 1))).await;
    Ok(())
}

fn parse(bytes: &[u8]) -> Result<Manifest, PullError> {
    let manifest: Manifest = serde_json::from_slice(bytes).map_err(|e| PullError::Manifest(e.to_string()))?;
    if manifest.layers.len() > N_LAYERS_MAX {
        return Err(PullError::Manifest(format!("it has {} layers, the limit is {N_LAYERS_MAX}", manifest.layers.len())));
    }
    if let Some(layer) = manifest.layers.iter().chain([&manifest.config]).find(|l| blob_file(&l.digest).is_none()) {
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

fn gib(bytes: u64) -> f64 {
    bytes as f64 / (1u64 << 30) as f64
}

fn length(file: &Path) -> u64 {
    file.metadata().map_or(0, |m| m.len())
}

/// The cause at the end of the chain, which names what happened; the outer ones only say that something did.
fn innermost(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
