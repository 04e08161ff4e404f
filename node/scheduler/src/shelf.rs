//! Sessions that left memory, kept in a folder: a model that closes, a daemon that stops or a chat that makes room for another
//! does not throw away what took long to compute.
//!
//! Files are written by a thread of their own, to a temporary name first, readable by the owner alone. The oldest go when all
//! together exceed [`BYTES_MAX`]. A file that is damaged or of another version is removed. When a file cannot be written, nothing
//! is kept any more until the daemon starts anew, and one line in the log says so.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::SystemTime;

use engine::{KvType, Model, Saved, SavedError, Session};

/// Tokens below which a session is computed anew sooner than read.
const N_WORTH: usize = 512;
/// Bytes of all files together: some tens of long chats.
const BYTES_MAX: u64 = 4 << 30;
/// Sessions that may wait to be written; their memory is still taken.
const N_WAITING_MAX: usize = 3;
const EXTENSION: &str = "session";

/// The folder of saved sessions, or none. Dropping it waits until all is written.
#[derive(Default)]
pub(crate) struct Shelf {
    folder: Option<Arc<Folder>>,
    writer: Option<(SyncSender<Leaving>, JoinHandle<()>)>,
}

struct Leaving {
    digest: String,
    session: Session,
}

struct Folder {
    path: PathBuf,
    entries: Mutex<Vec<Entry>>,
    broken: AtomicBool,
    /// Sessions on their way here, whose memory is still taken.
    n_waiting: Mutex<isize>,
    written: Condvar,
}

/// A file, and what it says of itself.
struct Entry {
    path: PathBuf,
    saved: Saved,
    bytes: u64,
    used: SystemTime,
}

impl Shelf {
    /// Looks through a folder, which is made if need be.
    pub(crate) fn open(path: &Path) -> Shelf {
        let folder = match Folder::open(path) {
            Ok(folder) => Arc::new(folder),
            Err(error) => {
                tracing::warn!("chats are not kept on disk: their folder cannot be used: {error}");
                return Shelf::default();
            }
        };
        let (sender, receiver) = sync_channel(N_WAITING_MAX);
        let writer = folder.clone();
        let thread = std::thread::Builder::new().name("sessions".into()).spawn(move || writer.write_all(&receiver));
        match thread {
            Ok(thread) => Shelf { folder: Some(folder), writer: Some((sender, thread)) },
            Err(error) => {
                tracing::warn!("chats are not kept on disk: no thread for writing them: {error}");
                Shelf::default()
            }
        }
    }

    /// Takes a session that leaves memory, if it is worth it. The caller does not wait: when a slow disk has enough to write
    /// already, the session is lost.
    pub(crate) fn put(&self, digest: &str, session: Session) {
        let (Some(folder), Some((sender, _))) = (&self.folder, &self.writer) else { return };
        if session.tokens().len() >= N_WORTH {
            folder.count(1);
            if sender.try_send(Leaving { digest: digest.to_owned(), session }).is_err() {
                folder.count(-1);
            }
        }
    }

    /// Whether all that was put here has been written.
    pub(crate) fn is_settled(&self) -> bool {
        self.folder.as_ref().is_none_or(|folder| *folder.n_waiting.lock().unwrap_or_else(PoisonError::into_inner) == 0)
    }

    /// Waits until what was put here has been written and its memory is free. Returns whether there was anything.
    pub(crate) fn settle(&self) -> bool {
        let Some(folder) = &self.folder else { return false };
        let mut n_waiting = folder.n_waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let any = *n_waiting > 0;
        while *n_waiting > 0 {
            n_waiting = folder.written.wait(n_waiting).unwrap_or_else(PoisonError::into_inner);
        }
        any
    }

    /// A session that begins as `prompt` does for at least `n_min` tokens more than worth it, the one that shares most.
    pub(crate) fn take(
        &self,
        digest: &str,
        model: &Model,
        kv_type: KvType,
        n_ctx: usize,
        prompt: &[u32],
        n_min: usize,
    ) -> Option<Session> {
        let folder = self.folder.as_ref()?;
        let path = {
            let mut entries = folder.entries();
            let common = |entry: &Entry| entry.saved.tokens.iter().zip(prompt).take_while(|(a, b)| a == b).count();
            let fitting = entries
                .iter_mut()
                .filter(|e| e.saved.digest == digest && e.saved.kv_type == kv_type && e.saved.tokens.len() <= n_ctx)
                .filter(|e| e.saved.is_turned_for(model, n_ctx));
            let best = fitting.max_by_key(|entry| common(entry))?;
            if common(best) < n_min + N_WORTH {
                return None;
            }
            best.used = SystemTime::now();
            best.path.clone()
        };
        match read(&path, digest, model, n_ctx) {
            Ok(session) => Some(session),
            Err(error) => {
                tracing::warn!("a saved chat is removed: {error}");
                folder.remove(&path);
                None
            }
        }
    }
}

impl Drop for Shelf {
    fn drop(&mut self) {
        if let Some((sender, thread)) = self.writer.take() {
            drop(sender);
            // A panic over there has already been reported by its hook.
            _ = thread.join();
        }
    }
}

fn write_to(unfinished: &Path, digest: &str, session: &Session) -> io::Result<()> {
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(unfinished)?;
    let mut to = BufWriter::with_capacity(1 << 20, file);
    session.save(digest, &mut to)?;
    to.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
}

fn read(path: &Path, digest: &str, model: &Model, n_ctx: usize) -> Result<Session, SavedError> {
    let mut from = BufReader::with_capacity(1 << 20, File::open(path)?);
    let saved = Saved::read(&mut from)?;
    if saved.digest != digest || saved.tokens.len() > n_ctx {
        return Err(SavedError::Model);
    }
    saved.restore(model, n_ctx, &mut from)
}

impl Folder {
    fn open(path: &Path) -> io::Result<Folder> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        let mut entries = Vec::new();
        for file in fs::read_dir(path)? {
            let path = file?.path();
            if path.extension().is_none_or(|e| e != EXTENSION) {
                continue;
            }
            match Entry::read(&path) {
                Ok(entry) => entries.push(entry),
                Err(error) => {
                    tracing::warn!("a saved chat is removed: {error}");
                    fs::remove_file(&path)?;
                }
            }
        }
        Ok(Folder {
            path: path.to_owned(),
            entries: Mutex::new(entries),
            broken: AtomicBool::new(false),
            n_waiting: Mutex::new(0),
            written: Condvar::new(),
        })
    }

    fn entries(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_all(&self, leaving: &Receiver<Leaving>) {
        for Leaving { digest, session } in leaving {
            if !self.broken.load(Ordering::Relaxed)
                && let Err(error) = self.write(&digest, &session)
            {
                tracing::warn!("chats are not kept on disk any more: {error}");
                self.broken.store(true, Ordering::Relaxed);
            }
            drop(session);
            self.count(-1);
        }
    }

    fn count(&self, change: isize) {
        *self.n_waiting.lock().unwrap_or_else(PoisonError::into_inner) += change;
        self.written.notify_all();
    }

    /// Writes one session; those it continues go.
    fn write(&self, digest: &str, session: &Session) -> io::Result<()> {
        let same = |entry: &Entry| entry.saved.digest == digest && entry.saved.kv_type == session.kv_type();
        if self.entries().iter().any(|e| same(e) && e.saved.tokens.starts_with(session.tokens())) {
            return Ok(());
        }
        let unfinished = self.path.join("unfinished");
        let result = write_to(&unfinished, digest, session).and_then(|()| self.publish(&unfinished));
        if result.is_err() {
            // It may not even exist.
            _ = fs::remove_file(&unfinished);
        }
        let path = result?;
        let older = |e: &&Entry| same(e) && e.path != path && session.tokens().starts_with(&e.saved.tokens);
        let continued: Vec<PathBuf> = self.entries().iter().filter(older).map(|e| e.path.clone()).collect();
        continued.iter().for_each(|path| self.remove(path));
        self.keep_within(BYTES_MAX);
        Ok(())
    }

    /// Gives a finished file its name, and makes it known.
    fn publish(&self, finished: &Path) -> io::Result<PathBuf> {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let path = self.path.join(format!("{:x}.{EXTENSION}", since.as_nanos()));
        let entry = Entry { path: path.clone(), ..Entry::read(finished).map_err(io::Error::other)? };
        let mut entries = self.entries();
        fs::rename(finished, &path)?;
        entries.push(entry);
        Ok(path)
    }

    /// Removes the files longest unused until all together take at most `bytes_max`.
    fn keep_within(&self, bytes_max: u64) {
        loop {
            let oldest = {
                let entries = self.entries();
                if entries.iter().map(|e| e.bytes).sum::<u64>() <= bytes_max {
                    return;
                }
                entries.iter().min_by_key(|e| e.used).map(|e| e.path.clone())
            };
            let Some(oldest) = oldest else { return };
            self.remove(&oldest);
        }
    }

    fn remove(&self, path: &Path) {
        self.entries().retain(|entry| entry.path != path);
        // Another daemon may have removed it.
        _ = fs::remove_file(path);
    }
}

impl Entry {
    fn read(path: &Path) -> Result<Entry, SavedError> {
        let file = File::open(path)?;
        let (bytes, used) = (file.metadata()?.len(), file.metadata()?.modified()?);
        Ok(Entry { path: path.to_owned(), saved: Saved::read(&mut BufReader::new(file))?, bytes, used })
    }
}
