//! Models in memory: opened when asked for, kept for a while, closed when others need the room.

use std::time::{Duration, Instant};

use engine::{AnswerParser, Constraint, Grammar, Grammars, KvType, Model, Session, budget};

use crate::pace::Pace;
use crate::request::{Failure, FailureKind, KeepAlive, Request};
use crate::shelf::Shelf;
use crate::{Limits, ModelFile};

/// A model in memory, as status pages show it.
#[derive(Debug, Clone)]
pub struct Resident {
    pub digest: String,
    /// The name it was last asked for by.
    pub name: String,
    /// Bytes of weights, keys and values and scratch that are counted for it.
    pub size: u64,
    pub n_ctx: usize,
    pub(crate) keep_alive: KeepAlive,
    /// Since when no request uses it.
    pub(crate) idle_since: Option<Instant>,
}

impl Resident {
    /// When it goes if nobody asks for it from now on; `None` for never.
    pub fn expires(&self, now: Instant) -> Option<Instant> {
        expiry(self.keep_alive, self.idle_since.unwrap_or(now))
    }
}

fn expiry(keep_alive: KeepAlive, last_used: Instant) -> Option<Instant> {
    match keep_alive {
        KeepAlive::For(duration) => last_used.checked_add(duration),
        KeepAlive::Forever => None,
    }
}

/// A resident model and its sessions that wait for a next turn.
pub(crate) struct Slot {
    pub(crate) file: ModelFile,
    pub(crate) model: Model,
    pub(crate) n_ctx: usize,
    /// What was asked for, where memory had room for less: asking again would give no more.
    n_ctx_asked: usize,
    kv_type: KvType,
    /// Sessions that may exist together.
    pub(crate) n_sessions: usize,
    pub(crate) n_running: usize,
    pub(crate) idle: Vec<Session>,
    pub(crate) keep_alive: KeepAlive,
    /// When the last request ended, or the model was opened.
    pub(crate) last_used: Instant,
    /// What its steps take.
    pub(crate) pace: Pace,
    /// Its vocabulary arranged for constraints, once one was asked for.
    grammars: Option<Grammars>,
}

/// Context below which a model is not worth opening.
const N_CTX_MIN: usize = 256;

impl Slot {
    /// Opens a model with as many sessions of `n_ctx` tokens as memory has room for, or one shorter session.
    pub(crate) fn open(file: &ModelFile, n_ctx: usize, limits: &Limits, now: Instant) -> Result<Slot, Failure> {
        let model = Model::open(&file.path).map_err(|e| Failure::server(format!("model {} cannot be opened: {e}", file.name)))?;
        let n_ctx = n_ctx.min(model.hyperparams().n_ctx_train);
        let n_ctx_asked = n_ctx;
        let n_embd_head = model.hyperparams().n_embd_head;
        let kv_type = if limits.kv_type.fits(n_embd_head) { limits.kv_type } else { KvType::F16 };
        if kv_type != limits.kv_type {
            tracing::warn!(model.name = %file.name, "heads of {n_embd_head} cannot be kept as {}, f16 is used", limits.kv_type);
        }
        let (n_ctx, n_sessions) = fit(&model, kv_type, n_ctx, limits.n_parallel)?;
        model.prefetch();
        tracing::info!(model.name = %file.name, n_ctx, n_sessions, kv_type = %kv_type, "opened {}", file.name);
        Ok(Slot {
            file: file.clone(),
            model,
            n_ctx,
            n_ctx_asked,
            kv_type,
            n_sessions,
            n_running: 0,
            idle: Vec::new(),
            keep_alive: limits.keep_alive,
            last_used: now,
            pace: Pace::default(),
            grammars: None,
        })
    }

    /// Whether the model need not be opened anew for the context a request names.
    pub(crate) fn has_context(&self, request: &Request) -> bool {
        request.options.n_ctx.is_none_or(|n| n.min(self.model.hyperparams().n_ctx_train) <= self.n_ctx.max(self.n_ctx_asked))
    }

    /// A constraint ready for one answer, in the format that its parser reads.
    pub(crate) fn grammar(&mut self, constraint: &Constraint, parser: Option<&AnswerParser>) -> Result<Grammar, Failure> {
        let grammars = match &self.grammars {
            Some(grammars) => grammars,
            None => self.grammars.insert(Grammars::new(self.model.tokenizer())?),
        };
        Ok(grammars.compile(constraint, parser.map_or(self.model.format(), AnswerParser::format))?)
    }

    /// When the model goes, as far as is known: a running request puts it off.
    pub(crate) fn expires(&self) -> Option<Instant> {
        expiry(self.keep_alive, self.last_used)
    }

    pub(crate) fn expired(&self, now: Instant) -> bool {
        self.n_running == 0 && self.expires().is_some_and(|at| at <= now)
    }

    /// A session for a prompt, of which it may hold a beginning: an idle one that ends where the prompt goes on, one from the
    /// shelf, or a copy of what another one shares with the prompt. Idle sessions make room, longest unused first.
    pub(crate) fn session(&mut self, prompt: &[u32], busy: &[&Session], shelf: &Shelf) -> Result<Session, Failure> {
        let no_range = |e| Failure::server(format!("no address range for a session: {e}"));
        let best = (0..self.idle.len()).max_by_key(|i| self.idle[*i].common_prefix(prompt));
        let n_best = best.map_or(0, |i| self.idle[i].common_prefix(prompt));
        if let Some(index) = best.filter(|i| n_best > 0 && n_best == self.idle[*i].tokens().len()) {
            return Ok(self.idle.remove(index));
        }
        let busy = busy.iter().max_by_key(|session| session.common_prefix(prompt));
        let n_busy = busy.map_or(0, |session| session.common_prefix(prompt));
        let n_shared = n_best.max(n_busy);
        let session = match shelf.take(&self.file.digest, &self.model, self.kv_type, self.n_ctx, prompt, n_shared) {
            Some(session) => session,
            None if n_shared == 0 => Session::new(&self.model, self.kv_type, self.n_ctx).map_err(no_range)?,
            None => {
                let other = if n_busy > n_best { busy.copied() } else { best.map(|i| &self.idle[i]) };
                other.expect("one of the two shares something").fork(&self.model, n_shared).map_err(no_range)?
            }
        };
        self.make_room(shelf);
        Ok(session)
    }

    /// A session whose memory a request for vectors uses. Encoders keep keys and values as they are.
    pub(crate) fn embedding_session(&mut self, shelf: &Shelf) -> Result<Session, Failure> {
        self.make_room(shelf);
        let kv_type = if self.model.encodes() { KvType::F16 } else { self.kv_type };
        let session = Session::new(&self.model, kv_type, self.n_ctx);
        session.map_err(|e| Failure::server(format!("no address range for a session: {e}")))
    }

    /// Lets idle sessions go, longest unused first, until one more may run.
    fn make_room(&mut self, shelf: &Shelf) {
        while !self.idle.is_empty() && self.idle.len() + self.n_running >= self.n_sessions {
            let session = self.idle.remove(0);
            // One at a time, so that memory beyond the budget is that of one session.
            if shelf.is_settled() {
                shelf.put(&self.file.digest, session);
            }
        }
    }

    pub(crate) fn status(&self) -> Resident {
        Resident {
            digest: self.file.digest.clone(),
            name: self.file.name.clone(),
            size: budget::needed_bytes(
                self.model.hyperparams(),
                self.model.file_bytes(),
                self.kv_type,
                self.n_ctx,
                self.n_sessions,
            ),
            n_ctx: self.n_ctx,
            keep_alive: self.keep_alive,
            idle_since: (self.n_running == 0).then_some(self.last_used),
        }
    }
}

/// Context length and number of sessions that memory has room for.
fn fit(model: &Model, kv_type: KvType, n_ctx: usize, n_parallel: usize) -> Result<(usize, usize), Failure> {
    let Some(available) = budget::available_bytes() else { return Ok((n_ctx, n_parallel)) };
    let needed = |n_sessions| budget::needed_bytes(model.hyperparams(), model.file_bytes(), kv_type, n_ctx, n_sessions);
    if let Some(n_sessions) = (1..=n_parallel).rev().find(|n| needed(*n) <= available) {
        return Ok((n_ctx, n_sessions));
    }
    match budget::fitting_n_ctx(model.hyperparams(), model.file_bytes(), kv_type, n_ctx, N_CTX_MIN, 1, available) {
        Some(n_ctx) => Ok((n_ctx, 1)),
        None => {
            let gib = |bytes: u64| bytes as f64 / (1u64 << 30) as f64;
            let needed = budget::needed_bytes(model.hyperparams(), model.file_bytes(), kv_type, N_CTX_MIN.min(n_ctx), 1);
            let message = format!(
                "model requires more system memory ({:.1} GiB) than is available ({:.1} GiB)",
                gib(needed),
                gib(available)
            );
            Err(Failure { kind: FailureKind::Memory, message })
        }
    }
}

/// Which idle model goes first when room is needed: the one with the shortest keep-alive, then the longest unused.
pub(crate) fn victim(slots: &[Slot]) -> Option<usize> {
    let idle = (0..slots.len()).filter(|i| slots[*i].n_running == 0);
    idle.min_by_key(|i| (slots[*i].keep_alive, slots[*i].last_used))
}

/// Time until the next idle model expires.
pub(crate) fn next_expiry(slots: &[Slot], now: Instant) -> Option<Duration> {
    slots.iter().filter(|s| s.n_running == 0).filter_map(Slot::expires).min().map(|at| at.saturating_duration_since(now))
}
