//! The seam between waiting and computing. Callers submit a [`Request`] and receive [`Event`]s; one engine thread makes
//! models resident and turns the wheel: admit, build a batch, step, hand out pieces, repeat.
//!
//! Cancelling is dropping the receiver: the session ends at its next token, or at the end of the current slice of prefill.

mod choose;
mod describe;
mod draft;
mod embedding;
mod pace;
mod prompt;
mod queue;
mod request;
mod residency;
mod running;
mod shelf;
mod worker;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

pub use engine::{Constraint, GoTemplate, GoTemplateError, KvType, SamplerOptions, Threads, ToolCall};
use tokio::sync::mpsc;

pub use describe::{DescribeError, Description, Descriptions};
pub use draft::{Draft, N_GUESSED_MAX};
use queue::Queue;
pub use request::{
    Began, Client, Done, DoneReason, Embedded, Event, Failure, FailureKind, Input, KeepAlive, Logprob, Options, Piece, Request,
    Think, Times,
};
pub use residency::Resident;
pub use worker::N_BATCH;
use worker::Worker;

/// Opens a model as a first request would and closes it again.
///
/// # Errors
/// The reason why it cannot be served.
pub fn check(path: &std::path::Path) -> Result<(), engine::OpenError> {
    engine::Model::open(path).map(drop)
}

/// Writes a model file with smaller weights; see [`engine::quantize`].
pub use engine::{Mixture, QuantizeError, quantize};

/// Facts about the engine for the command line's report.
pub mod report {
    pub use engine::budget::{available_bytes, total_bytes};
    pub use engine::{FAMILIES, Level, QuantType, return_freed_memory};
}

/// Limits the owner sets.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Requests that may wait; one more is refused.
    pub queue_len_max: usize,
    /// Requests of one bounded client that may wait, and that run together.
    pub n_waiting_per_client: usize,
    pub n_running_per_client: usize,
    /// Sessions of one model that run together.
    pub n_parallel: usize,
    /// Models resident together.
    pub n_models_max: usize,
    /// Context length where a request names none.
    pub n_ctx: usize,
    /// How long a model stays after its last request.
    pub keep_alive: KeepAlive,
    /// Threads that compute, the engine thread included.
    pub threads: Threads,
    /// How keys and values are kept, where a model's heads fit the type.
    pub kv_type: KvType,
    /// The folder for sessions that left memory; `None` keeps none.
    pub sessions: Option<PathBuf>,
    /// Whether what may come next is guessed from what has been said, which changes speed and not text.
    pub drafting: bool,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            queue_len_max: 512,
            n_waiting_per_client: 64,
            n_running_per_client: 4,
            n_parallel: 4,
            n_models_max: 3,
            n_ctx: 4096,
            keep_alive: KeepAlive::For(Duration::from_secs(300)),
            threads: Threads::default(),
            kv_type: KvType::F16,
            sessions: None,
            drafting: true,
        }
    }
}

/// A model file to compute with.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ModelFile {
    /// What people call it; used in messages.
    pub name: String,
    /// Identity of the weights: requests with the same digest share one resident model.
    pub digest: String,
    pub path: PathBuf,
}

/// Events a slow reader may leave unread before its session pauses: some seconds of text.
const EVENTS_MAX: usize = 256;

/// Stack of the engine thread, where templates and schemas of clients are gone through.
const STACK_BYTES: usize = 8 << 20;

/// Handle to the engine thread. Dropping the last one ends it.
#[derive(Clone)]
pub struct Scheduler {
    inner: Arc<Inner>,
}

struct Inner {
    queue: Arc<Queue>,
    residents: Arc<Mutex<Vec<Resident>>>,
    thread: Option<JoinHandle<()>>,
}

/// Why a request may not wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Busy {
    /// Too many wait.
    #[error("server busy, please try again.  maximum pending requests exceeded")]
    Server,
    /// Too many of this client.
    #[error("{waiting} requests of yours are waiting already; send more when some have been answered")]
    Client { waiting: usize },
}

impl Scheduler {
    /// Starts the engine thread.
    ///
    /// # Panics
    /// When the system cannot start a thread.
    pub fn start(limits: Limits) -> Scheduler {
        let queue = Arc::new(Queue::new(limits.queue_len_max, limits.n_waiting_per_client));
        let residents = Arc::new(Mutex::new(Vec::new()));
        let worker_parts = (queue.clone(), residents.clone());
        let run = move || {
            Worker::new(worker_parts.0, worker_parts.1, limits).run();
        };
        let thread = std::thread::Builder::new()
            .name("engine".into())
            .stack_size(STACK_BYTES)
            .spawn(run)
            .expect("the system can start a thread");
        Scheduler { inner: Arc::new(Inner { queue, residents, thread: Some(thread) }) }
    }

    /// Hands a request over and returns what will come back. The last event is `Done`, `Embedded`, `Rendered` or `Failed`.
    ///
    /// # Errors
    /// When too many requests wait already.
    pub fn submit(&self, request: Request) -> Result<mpsc::Receiver<Event>, Busy> {
        let (sender, receiver) = mpsc::channel(EVENTS_MAX);
        self.inner.queue.push(request, sender)?;
        Ok(receiver)
    }

    /// Models in memory now.
    pub fn residents(&self) -> Vec<Resident> {
        self.inner.residents.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.queue.close();
        if let Some(thread) = self.thread.take() {
            // A panic on the engine thread has already been reported by its hook.
            _ = thread.join();
        }
    }
}
