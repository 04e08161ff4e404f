//! The engine thread: admit, build a batch, step, hand out pieces, repeat. All model state belongs to it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use engine::{Level, Pool, Session, Slice, step};
use tokio::sync::mpsc;

use crate::Limits;
use crate::draft::N_GUESSED_MAX;
use crate::embedding::Embeddings;
use crate::prompt::{Prompt, prepare};
use crate::queue::{Queue, Waiting};
use crate::request::{Began, Client, Done, DoneReason, Event, Failure, Input, Request, Times};
use crate::residency::{Resident, Slot, next_expiry, victim};
use crate::running::Running;
use crate::shelf::Shelf;

/// Rows of a step at most.
pub const N_BATCH: usize = 256;
/// Tokens of a text to embed that a decoder computes before running chats have their turn; an encoder needs all of a text.
const N_EMBEDDED: usize = 64;
/// Time between looks at readers that have fallen behind.
const PAUSE: Duration = Duration::from_millis(2);
/// How long requests are let in before those who are running go on.
const ADMISSION_MAX: Duration = Duration::from_millis(50);

pub(crate) struct Worker {
    queue: Arc<Queue>,
    residents: Arc<Mutex<Vec<Resident>>>,
    limits: Limits,
    /// Reads prompts.
    pool: Pool,
    /// Writes answers, where that wants another number of threads.
    decode_pool: Option<Pool>,
    shelf: Shelf,
    slots: Vec<Slot>,
    running: Vec<Running>,
    embedding: Vec<Embeddings>,
    /// Whether models came, went or changed hands since the last look was published.
    changed: bool,
    /// What the last step gave, kept for its memory.
    logits: Vec<f32>,
}

impl Worker {
    pub(crate) fn new(queue: Arc<Queue>, residents: Arc<Mutex<Vec<Resident>>>, limits: Limits) -> Worker {
        let (threads, level) = (limits.threads, Level::detect());
        let shelf = limits.sessions.as_deref().map(Shelf::open).unwrap_or_default();
        Worker {
            queue,
            residents,
            limits,
            pool: Pool::new(threads.prefill, level),
            decode_pool: (threads.decode != threads.prefill).then(|| Pool::new(threads.decode, level)),
            shelf,
            slots: Vec::new(),
            running: Vec::new(),
            embedding: Vec::new(),
            changed: false,
            logits: Vec::new(),
        }
    }

    /// Turns until the queue is closed.
    pub(crate) fn run(&mut self) {
        while !self.queue.closed() {
            self.expire();
            self.admit();
            self.running.iter_mut().for_each(Running::send_rest);
            self.release();
            let mut computed = false;
            for index in 0..self.slots.len() {
                computed |= self.step(index);
            }
            computed |= self.embed();
            self.release();
            if std::mem::take(&mut self.changed) {
                self.publish();
            }
            if self.running.is_empty() && self.embedding.is_empty() {
                self.queue.sleep_until_work(next_expiry(&self.slots, Instant::now()));
            } else if !computed {
                self.queue.pause(PAUSE);
            }
        }
        self.release();
        for slot in &mut self.slots {
            for session in slot.idle.drain(..) {
                self.shelf.settle();
                self.shelf.put(&slot.file.digest, session);
            }
        }
    }

    /// Takes waiting requests for as long as there is one that can begin now.
    fn admit(&mut self) {
        let (queue, begun) = (self.queue.clone(), Instant::now());
        // Those who are running go on between two whose prompts take long to prepare.
        while begun.elapsed() < ADMISSION_MAX
            && let Some(waiting) = queue.take(|request| self.admissible(request))
        {
            let keep_alive = waiting.request.keep_alive;
            let digest = waiting.request.model.digest.clone();
            match waiting.request.input {
                Input::Unload => self.unload(waiting),
                _ => self.begin(waiting),
            }
            if let (Some(keep_alive), Some(slot)) = (keep_alive, self.slots.iter_mut().find(|s| s.file.digest == digest)) {
                slot.keep_alive = keep_alive;
                self.changed = true;
            }
        }
    }

    /// Whether a request can begin: its model is resident with a session to spare and the right context, or can be opened.
    fn admissible(&self, request: &Request) -> bool {
        if matches!(request.input, Input::Unload) {
            return true;
        }
        if request.client.bounded && self.n_running(&request.client) >= self.limits.n_running_per_client {
            return false;
        }
        match self.slots.iter().find(|s| s.file.digest == request.model.digest) {
            Some(slot) if slot.n_running == 0 => true,
            Some(slot) => slot.n_running < slot.n_sessions && slot.has_context(request),
            None => self.slots.len() < self.limits.n_models_max || victim(&self.slots).is_some(),
        }
    }

    /// Requests of a client that are being computed.
    fn n_running(&self, client: &Client) -> usize {
        let answers = self.running.iter().filter(|running| running.client == *client).count();
        answers + self.embedding.iter().filter(|embedding| embedding.client == *client).count()
    }

    fn begin(&mut self, waiting: Waiting) {
        let Waiting { request, events } = waiting;
        let answer = self.make_resident(&request).and_then(|index| {
            let load = request.accepted.elapsed();
            self.start(index, &request, &events, load)
        });
        // Who has the answer may ask at once what is in memory.
        self.publish();
        match answer {
            // A caller that has gone needs no answer.
            Err(failure) => _ = events.try_send(Event::Failed(failure)),
            Ok(Some(event)) => _ = events.try_send(event),
            Ok(None) => {}
        }
    }

    /// Renders the prompt and puts its session among the running ones, or gives the event that answers at once.
    fn start(
        &mut self,
        index: usize,
        request: &Request,
        events: &mpsc::Sender<Event>,
        load: Duration,
    ) -> Result<Option<Event>, Failure> {
        let slot = &mut self.slots[index];
        if matches!(request.input, Input::Load) {
            slot.last_used = Instant::now();
            return Ok(Some(answered_at_once(DoneReason::Load, request, load)));
        }
        if let Input::Embed { texts, truncate } = &request.input {
            let session = slot.embedding_session(&self.shelf)?;
            let events = events.clone();
            let embedding = Embeddings::new(request, (texts, *truncate), &slot.model, session, events, load)?;
            slot.n_running += 1;
            self.embedding.push(embedding);
            return Ok(None);
        }
        if slot.model.encodes() {
            return Err(Failure::request(format!("{:?} makes vectors and writes no text", request.model.name)));
        }
        // A shorter context than the model was opened with is had without opening it anew.
        let n_ctx = request.options.n_ctx.map_or(slot.n_ctx, |n| n.min(slot.n_ctx));
        let prompt = match prepare(&slot.model, &request.input, &request.options, n_ctx)? {
            Prompt::Rendered(text) => return Ok(Some(Event::Rendered(text))),
            Prompt::Tokens(prompt) if prompt.tokens.is_empty() => return Err(Failure::request("the prompt is empty")),
            Prompt::Tokens(prompt) => prompt,
        };
        let tokens = &prompt.tokens;
        let n_vocab = slot.model.tokenizer().n_vocab();
        if let Some(token) = tokens.iter().find(|t| **t as usize >= n_vocab) {
            return Err(Failure::request(format!("context holds token {token}, the vocabulary has {n_vocab}")));
        }
        let grammar =
            request.options.constraint.as_ref().map(|constraint| slot.grammar(constraint, prompt.parser.as_ref())).transpose()?;
        let busy: Vec<&Session> = self.running.iter().filter(|r| r.digest == slot.file.digest).map(|r| &r.session).collect();
        let session = slot.session(tokens, &busy, &self.shelf)?;
        slot.n_running += 1;
        // The channel is empty, so the only failure is a caller that has gone.
        _ = events.try_send(Event::Began(Began { n_ctx, n_dropped: prompt.n_dropped, n_cut: prompt.n_cut }));
        self.running.push(Running::new(request, session, prompt, grammar, self.limits.drafting, events.clone(), load));
        Ok(None)
    }

    /// The slot of a request's model, opened first if need be; a change of context length or a damaged file opens it anew.
    fn make_resident(&mut self, request: &Request) -> Result<usize, Failure> {
        if let Some(index) = self.slots.iter().position(|s| s.file.digest == request.model.digest) {
            let slot = &self.slots[index];
            if slot.has_context(request) && !slot.model.damaged() {
                self.slots[index].file.name.clone_from(&request.model.name);
                return Ok(index);
            }
            if slot.n_running > 0 {
                return Err(Failure::server(format!("model {} is damaged on disk", request.model.name)));
            }
            self.close(index);
        }
        while self.slots.len() >= self.limits.n_models_max {
            let index = victim(&self.slots).expect("admission asked for a model that can go");
            self.close(index);
        }
        let n_ctx = request.options.n_ctx.unwrap_or(self.limits.n_ctx);
        loop {
            match Slot::open(&request.model, n_ctx, &self.limits, Instant::now()) {
                Ok(slot) => {
                    self.slots.push(slot);
                    return Ok(self.slots.len() - 1);
                }
                Err(failure) if failure.kind == crate::FailureKind::Memory && victim(&self.slots).is_some() => {
                    let index = victim(&self.slots).expect("just seen");
                    self.close(index);
                }
                // Sessions of models just closed may still be on their way to disk.
                Err(failure) if failure.kind == crate::FailureKind::Memory && self.shelf.settle() => {}
                Err(failure) => return Err(failure),
            }
        }
    }

    fn unload(&mut self, waiting: Waiting) {
        let index = self.slots.iter().position(|s| s.file.digest == waiting.request.model.digest);
        // Where it is at work it goes when that is done: its time to stay is over.
        if let Some(index) = index.filter(|index| self.slots[*index].n_running == 0) {
            self.close(index);
        }
        self.publish();
        let load = waiting.request.accepted.elapsed();
        // A caller that has gone needs no answer.
        _ = waiting.events.try_send(answered_at_once(DoneReason::Unload, &waiting.request, load));
    }

    fn close(&mut self, index: usize) {
        let slot = self.slots.remove(index);
        self.changed = true;
        tracing::info!(model.name = %slot.file.name, "closed {}", slot.file.name);
        if !slot.model.damaged() {
            slot.idle.into_iter().for_each(|session| self.shelf.put(&slot.file.digest, session));
        }
    }

    fn expire(&mut self) {
        let now = Instant::now();
        while let Some(index) = self.slots.iter().position(|s| s.expired(now)) {
            self.close(index);
        }
    }

    /// One step of one model: a row for each session that decodes, then slices of prompts, or guesses where nobody else needs
    /// the time. Returns whether it computed.
    fn step(&mut self, index: usize) -> bool {
        let slot = &mut self.slots[index];
        let mut chosen: Vec<&mut Running> =
            self.running.iter_mut().filter(|r| r.digest == slot.file.digest && r.ready()).collect();
        // Decode rows first; prompts keep their order of arrival.
        chosen.sort_by_key(|r| !r.decodes());
        let n_decoding = chosen.iter().filter(|r| r.decodes()).count();
        if n_decoding > 0 && n_decoding == chosen.len() {
            chosen.iter_mut().for_each(|running| running.guess((N_GUESSED_MAX / n_decoding).saturating_sub(1)));
        }
        let alone = n_decoding == 0 || n_decoding == chosen.len();
        let n_rows_max = if alone { N_BATCH } else { n_decoding + slot.pace.n_prompt_rows(N_BATCH.saturating_sub(n_decoding)) };
        let mut n_rows = 0;
        let mut parts = Vec::new();
        for running in &mut chosen {
            let n = running.pending.len().min(n_rows_max - n_rows);
            let part: Vec<u32> = running.pending.drain(..n).collect();
            let n_logits = if n > 0 && running.pending.is_empty() { running.n_logits() } else { 0 };
            n_rows += n;
            parts.push((part, n_logits));
        }
        if n_rows == 0 {
            return false;
        }
        let begun = Instant::now();
        let mut slices: Vec<Slice> = chosen
            .iter_mut()
            .zip(&parts)
            .map(|(running, (tokens, n_logits))| Slice { session: &mut running.session, tokens, n_logits: *n_logits })
            .collect();
        let pool = self.decode_pool.as_ref().filter(|_| n_rows <= N_GUESSED_MAX).unwrap_or(&self.pool);
        let result = step(&slot.model, pool, &mut slices, &mut self.logits);
        drop(slices);
        slot.pace.learn(if chosen.len() > n_decoding { n_rows - n_decoding } else { 0 }, begun.elapsed());
        if let Err(e) = result {
            for running in chosen {
                running.fail(Failure::server(format!("an error was encountered while running the model: {e}")));
            }
            return true;
        }
        let mut logits = &self.logits[..];
        for (running, (_, n_logits)) in chosen.into_iter().zip(parts).filter(|(_, (_, n))| *n > 0) {
            let (own, rest) = logits.split_at(n_logits * slot.model.tokenizer().n_vocab());
            running.advance(&slot.model, own);
            logits = rest;
        }
        true
    }

    /// Goes on with every request for vectors. Returns whether there was one.
    fn embed(&mut self) -> bool {
        let n_rows = if self.running.is_empty() { N_BATCH } else { N_EMBEDDED };
        for embedding in &mut self.embedding {
            let slot = self.slots.iter().find(|s| s.file.digest == embedding.digest).expect("a running model is not closed");
            embedding.advance(&slot.model, &self.pool, n_rows);
        }
        !self.embedding.is_empty()
    }

    /// Takes back the sessions of requests that are over.
    fn release(&mut self) {
        let now = Instant::now();
        for embedding in self.embedding.extract_if(.., |e| e.over()) {
            let slot = self.slots.iter_mut().find(|s| s.file.digest == embedding.digest).expect("a running model is not closed");
            slot.n_running -= 1;
            slot.last_used = now;
            self.changed = true;
        }
        for running in self.running.extract_if(.., |r| r.over()) {
            let slot = self.slots.iter_mut().find(|s| s.file.digest == running.digest).expect("a running model is not closed");
            slot.n_running -= 1;
            slot.last_used = now;
            self.changed = true;
            if !slot.model.damaged() {
                slot.idle.push(running.session);
            }
        }
    }

    fn publish(&self) {
        let status = self.slots.iter().map(Slot::status).collect();
        *self.residents.lock().unwrap_or_else(PoisonError::into_inner) = status;
    }
}

fn answered_at_once(reason: DoneReason, request: &Request, load: Duration) -> Event {
    let now = Instant::now();
    let times = Times { accepted: request.accepted, started: now, first_piece: now, finished: now, load };
    Event::Done(Box::new(Done {
        reason,
        n_prompt: 0,
        n_reused: 0,
        n_decoded: 0,
        n_shifts: 0,
        n_drafted: 0,
        n_accepted: 0,
        times,
        context: Vec::new(),
    }))
}
