//! One layer of a model, in parts that several connections bring at once. How much of each part has arrived is written down
//! beside the layer, so that a later attempt asks for the rest, whatever ended this one.

use std::fs::TryLockError;
use std::io::{self, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::stream::{TryStreamExt, iter};
use reqwest::{StatusCode, header};
use tokio::fs::{self, File, OpenOptions};
use tokio::io::{AsyncSeekExt, AsyncWriteExt};
use tokio::time::Instant;

use crate::manifest::Layer;
use crate::place::{Interrupted, Place};
use crate::pull::PullError;

/// Connections that bring parts at once.
const N_STREAMS: usize = 4;
/// Bytes of a part: a layer has 16 of them, within these bounds.
const N_PARTS: u64 = 16;
const PART_BYTES: (u64, u64) = (4 << 20, 64 << 20);
/// How often what has arrived of a part is made sure of and written down.
const N_NOTES: u64 = 16;
/// Attempts in a row that bring next to nothing, after which a download gives up. The pause before each doubles.
const N_ATTEMPTS: u32 = 6;
/// Answers that mean no.
const REFUSALS: [StatusCode; 3] = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN, StatusCode::NOT_FOUND];

/// A bound on bytes per second, shared by all downloads.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rate {
    bytes_per_second: Option<u64>,
    /// When the next bytes may come.
    next: Arc<Mutex<Option<Instant>>>,
}

impl Rate {
    pub(crate) fn new(bytes_per_second: Option<u64>) -> Rate {
        Rate { bytes_per_second, next: Arc::default() }
    }

    /// Waits until `n` bytes that have come were allowed to.
    async fn take(&self, n: usize) {
        let Some(rate) = self.bytes_per_second else { return };
        let until = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let begin = next.map_or_else(Instant::now, |next| next.max(Instant::now()));
            let until = begin + Duration::from_secs_f64(n as f64 / rate as f64);
            *next = Some(until);
            until
        };
        tokio::time::sleep_until(until).await;
    }
}

/// Where a layer is fetched from and to.
pub(crate) struct Download<'a> {
    pub(crate) place: &'a Place,
    pub(crate) address: &'a str,
    pub(crate) layer: &'a Layer,
    /// The layer while it is not whole.
    pub(crate) partial: &'a Path,
    pub(crate) rate: &'a Rate,
}

/// Of each part, the bytes that have arrived, and those that are on disk for good: only these are written down.
struct Notes {
    file: PathBuf,
    size: u64,
    part_bytes: u64,
    done: Vec<u64>,
    safe: Vec<u64>,
}

/// What the connections share.
struct Shared<F> {
    /// Under a lock that is never held while anything is awaited.
    state: Mutex<(Notes, F)>,
    /// Held while the notes are written.
    writing: tokio::sync::Mutex<()>,
}

impl<F: FnMut(u64)> Shared<F> {
    fn notes<T>(&self, with: impl FnOnce(&mut Notes) -> T) -> T {
        with(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner).0)
    }

    /// Tells how much is here: what the notes say, or another number.
    fn tell(&self, bytes: Option<u64>) {
        let (notes, report) = &mut *self.state.lock().unwrap_or_else(PoisonError::into_inner);
        report(bytes.unwrap_or_else(|| notes.completed()));
    }

    /// Makes sure of the first `done` bytes of a part and writes that down.
    async fn note(&self, index: usize, done: u64, file: &mut File) -> io::Result<()> {
        // What was written is known to have been only after this; a full disk shows here.
        file.flush().await?;
        file.sync_data().await?;
        let _turn = self.writing.lock().await;
        let (path, text) = self.notes(|notes| {
            notes.safe[index] = done;
            (notes.file.clone(), notes.text())
        });
        tokio::task::spawn_blocking(move || write_notes(&path, &text)).await.expect("writing does not panic")
    }
}

impl Download<'_> {
    /// Fetches what is missing. `report` is told how many bytes are here.
    ///
    /// # Errors
    /// When nothing comes for several attempts, more comes than was announced, or the disk cannot be written.
    pub(crate) async fn run(&self, report: impl FnMut(u64) + Send) -> Result<(), PullError> {
        let _held = self.hold()?;
        let notes = Notes::read(self.partial, self.layer.size);
        if notes.completed() == 0 {
            // Bytes of which nothing is known mean nothing.
            File::create(self.partial).await?;
        }
        let missing = notes.missing();
        let shared = Shared { state: Mutex::new((notes, report)), writing: tokio::sync::Mutex::default() };
        shared.tell(None);
        let parts = iter(missing.into_iter().map(Ok)).try_for_each_concurrent(N_STREAMS, |index| self.part(index, &shared));
        match parts.await {
            Err(Interrupted::NoRanges) => self.whole(&shared).await,
            other => other.map_err(last_word),
        }
    }

    /// The right to write the layer, which one process at a time has.
    fn hold(&self) -> Result<std::fs::File, PullError> {
        let file = std::fs::File::options().write(true).create(true).truncate(false).open(self.partial)?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => Err(PullError::Elsewhere { digest: self.layer.digest.clone() }),
            // Some file systems know no locks.
            Err(TryLockError::Error(_)) | Ok(()) => Ok(file),
        }
    }

    /// Fetches a part, with as many attempts as bring something.
    async fn part<F: FnMut(u64)>(&self, index: usize, shared: &Shared<F>) -> Result<(), Interrupted> {
        let mut attempt = 0;
        loop {
            let before = shared.notes(|notes| notes.done[index]);
            let enough = shared.notes(|notes| notes.part_bytes) / N_NOTES;
            match self.resume(index, shared).await {
                Err(Interrupted::Network(reason)) => {
                    if shared.notes(|notes| notes.done[index]) >= before + enough {
                        attempt = 0;
                    } else {
                        wait(&mut attempt, reason).await?;
                    }
                }
                other => return other,
            }
        }
    }

    /// Asks for what is missing of a part and writes it as it comes.
    async fn resume<F: FnMut(u64)>(&self, index: usize, shared: &Shared<F>) -> Result<(), Interrupted> {
        let (start, mut done, len) = shared.notes(|notes| (index as u64 * notes.part_bytes, notes.done[index], notes.len(index)));
        let (from, end) = (start + done, start + len);
        let mut response = self.place.get(self.address, (header::RANGE, format!("bytes={from}-{}", end - 1))).await?;
        match response.status() {
            StatusCode::PARTIAL_CONTENT if begins_at(&response, from) => {}
            StatusCode::PARTIAL_CONTENT => return Err(Interrupted::NoRanges),
            // Everything is what was asked for, if that was everything.
            StatusCode::OK if from == 0 && end == self.layer.size => {}
            StatusCode::OK => return Err(Interrupted::NoRanges),
            // Asking again does not help.
            status if REFUSALS.contains(&status) => {
                let reason = format!("of {}", self.layer.digest);
                return Err(Interrupted::Final(PullError::Refused { status: status.as_u16(), reason }));
            }
            status => return Err(Interrupted::Network(format!("the registry answered {status}"))),
        }
        let mut file = OpenOptions::new().write(true).create(true).truncate(false).open(self.partial).await?;
        file.seek(SeekFrom::Start(from)).await?;
        let note_bytes = shared.notes(|notes| notes.part_bytes) / N_NOTES;
        let mut noted = done;
        let sent = loop {
            match response.chunk().await {
                Ok(Some(bytes)) => {
                    if done + bytes.len() as u64 > len {
                        break Err(self.too_long());
                    }
                    self.rate.take(bytes.len()).await;
                    let mut rest = &bytes[..];
                    while !rest.is_empty() {
                        // Never more on disk than may be fetched again.
                        let now;
                        (now, rest) = rest.split_at(rest.len().min((noted + note_bytes - done) as usize));
                        file.write_all(now).await?;
                        done += now.len() as u64;
                        shared.notes(|notes| notes.done[index] = done);
                        if done - noted >= note_bytes {
                            shared.note(index, done, &mut file).await?;
                            noted = done;
                        }
                    }
                    shared.tell(None);
                }
                Ok(None) if done < len => break Err(Interrupted::Network("the download broke off".into())),
                Ok(None) => break Ok(()),
                Err(error) => break Err(error.into()),
            }
        };
        // What has arrived is kept, whatever ended the attempt.
        shared.note(index, done, &mut file).await?;
        sent
    }

    /// Fetches everything from the beginning, from a server that knows no other way.
    async fn whole<F: FnMut(u64)>(&self, shared: &Shared<F>) -> Result<(), PullError> {
        let mut attempt = 0;
        loop {
            shared.notes(|notes| notes.done.fill(0));
            match self.stream(shared).await {
                Err(Interrupted::Network(reason)) => wait(&mut attempt, reason).await.map_err(last_word)?,
                other => return other.map_err(last_word),
            }
        }
    }

    async fn stream<F: FnMut(u64)>(&self, shared: &Shared<F>) -> Result<(), Interrupted> {
        let mut response = self.place.get(self.address, (header::ACCEPT, "*/*".into())).await?;
        if response.status() != StatusCode::OK {
            return Err(Interrupted::Network(format!("the registry answered {}", response.status())));
        }
        let (mut file, mut done) = (File::create(self.partial).await?, 0);
        while let Some(bytes) = response.chunk().await? {
            done += bytes.len() as u64;
            if done > self.layer.size {
                return Err(self.too_long());
            }
            file.write_all(&bytes).await?;
            shared.tell(Some(done));
            self.rate.take(bytes.len()).await;
        }
        file.flush().await?;
        file.sync_data().await?;
        if done < self.layer.size {
            return Err(Interrupted::Network("the download broke off".into()));
        }
        // All that is left to do may still end before it is done.
        let (path, text) = shared.notes(|notes| {
            notes.safe = (0..notes.safe.len()).map(|index| notes.len(index)).collect();
            (notes.file.clone(), notes.text())
        });
        Ok(tokio::task::spawn_blocking(move || write_notes(&path, &text)).await.expect("writing does not panic")?)
    }

    fn too_long(&self) -> Interrupted {
        Interrupted::Final(PullError::TooLong { digest: self.layer.digest.clone(), total: self.layer.size })
    }
}

/// Removes a layer that is not what it should be, and what is known of it.
pub(crate) async fn discard(partial: &Path) -> io::Result<()> {
    remove(partial).await?;
    remove(&notes_file(partial)).await
}

/// Makes a layer that is whole the blob it is.
pub(crate) async fn keep(partial: &Path, blob: &Path) -> io::Result<()> {
    fs::rename(partial, blob).await?;
    remove(&notes_file(partial)).await
}

async fn remove(file: &Path) -> io::Result<()> {
    match fs::remove_file(file).await {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

fn notes_file(partial: &Path) -> PathBuf {
    partial.with_extension("parts")
}

fn last_word(interrupted: Interrupted) -> PullError {
    match interrupted {
        Interrupted::Final(error) => error,
        Interrupted::Network(reason) => PullError::Network(reason),
        Interrupted::NoRanges => PullError::Network("the registry ignores ranges now and then".into()),
    }
}

/// Pauses before the next attempt, or gives up.
async fn wait(attempt: &mut u32, reason: String) -> Result<(), Interrupted> {
    *attempt += 1;
    if *attempt == N_ATTEMPTS {
        return Err(Interrupted::Final(PullError::Network(reason)));
    }
    tokio::time::sleep(Duration::from_secs(1 << (*attempt - 1))).await;
    Ok(())
}

impl Notes {
    /// What an earlier attempt wrote down for a layer of `size` bytes; nothing if that makes no sense.
    fn read(partial: &Path, size: u64) -> Notes {
        let file = notes_file(partial);
        let part_bytes = (size / N_PARTS).clamp(PART_BYTES.0, PART_BYTES.1);
        let n_parts = size.div_ceil(part_bytes) as usize;
        let mut notes = Notes { file, size, part_bytes, done: vec![0; n_parts], safe: vec![0; n_parts] };
        let text = std::fs::read_to_string(&notes.file).unwrap_or_default();
        let done: Option<Vec<u64>> = text.split_whitespace().map(|n| n.parse().ok()).collect();
        let length = partial.metadata().map_or(0, |m| m.len());
        let arrived = |(index, done): (usize, &u64)| {
            *done <= notes.len(index) && (*done == 0 || index as u64 * part_bytes + done <= length)
        };
        if let Some(done) = done.filter(|done| done.len() == n_parts && done.iter().enumerate().all(arrived)) {
            notes.done.clone_from(&done);
            notes.safe = done;
        }
        notes
    }

    fn text(&self) -> String {
        self.safe.iter().map(u64::to_string).collect::<Vec<_>>().join(" ")
    }

    fn completed(&self) -> u64 {
        self.done.iter().sum()
    }

    /// Bytes of a part.
    fn len(&self, index: usize) -> u64 {
        self.part_bytes.min(self.size - index as u64 * self.part_bytes)
    }

    /// Parts of which something is missing.
    fn missing(&self) -> Vec<usize> {
        (0..self.done.len()).filter(|index| self.done[*index] < self.len(*index)).collect()
    }
}

/// Writes notes whole or not at all, power cut or not.
fn write_notes(path: &Path, text: &str) -> io::Result<()> {
    let new = path.with_extension("parts-new");
    let mut file = std::fs::File::create(&new)?;
    io::Write::write_all(&mut file, text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&new, path)
}

/// Whether an answer holds what was asked for, as far as it says.
fn begins_at(response: &reqwest::Response, from: u64) -> bool {
    let said = response.headers().get(header::CONTENT_RANGE).and_then(|value| value.to_str().ok());
    said.is_none_or(|said| {
        said.strip_prefix("bytes ").and_then(|said| said.split_once('-')).is_some_and(|(start, _)| start.parse() == Ok(from))
    })
}
