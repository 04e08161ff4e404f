//! One request being served: what its session still has to compute, and what its caller has not read yet.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use engine::{AnswerParser, Emitted, Grammar, Model, Parsed, Sampler, Session, TextStream};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::choose::{Chooser, Chosen};
use crate::draft::Draft;
use crate::prompt::{Tokens, shorten};
use crate::request::{Client, Done, DoneReason, Event, Failure, Logprob, Options, Piece, Request, Times};

/// Longest an answer may take.
const WALL_TIME_MAX: Duration = Duration::from_secs(30 * 60);

/// Longest a reader may leave a full channel unread.
const STALL_MAX: Duration = Duration::from_secs(30);

pub(crate) struct Running {
    /// Digest of the model it runs on.
    pub(crate) digest: String,
    pub(crate) client: Client,
    pub(crate) session: Session,
    /// Context the request has, at most the session's.
    n_ctx: usize,
    n_shifts: usize,
    /// Tokens to compute: the rest of the prompt, or the one sampled last and what is guessed to follow it.
    pub(crate) pending: Vec<u32>,
    /// How many of them are guessed.
    n_guessed: usize,
    draft: Draft,
    options: Options,
    chooser: Chooser,
    /// Tells thinking and calls from the rest, unless the prompt was raw.
    parser: Option<AnswerParser>,
    /// Probabilities that were not sent yet.
    logprobs: Vec<Logprob>,
    events: mpsc::Sender<Event>,
    text: TextStream,
    /// What the channel had no room for. While there is any, the session rests.
    unsent: VecDeque<Event>,
    /// Since when there is.
    blocked: Option<Instant>,
    ended: bool,
    n_prompt: usize,
    n_reused: usize,
    n_decoded: usize,
    n_predict: usize,
    accepted: Instant,
    started: Instant,
    first_piece: Option<Instant>,
    load: Duration,
}

impl Running {
    /// A session about to compute `prompt`, of which it may hold a beginning already.
    pub(crate) fn new(
        request: &Request,
        mut session: Session,
        Tokens { tokens: prompt, parser, n_ctx, .. }: Tokens,
        grammar: Option<Grammar>,
        drafting: bool,
        events: mpsc::Sender<Event>,
        load: Duration,
    ) -> Running {
        // The last token is always computed: its logits are the first ones wanted.
        let n_reused = session.common_prefix(&prompt[..prompt.len() - 1]);
        session.truncate(n_reused);
        let options = request.options.clone();
        let room = if options.shift { usize::MAX } else { n_ctx - prompt.len() };
        let n_predict = options.n_predict.unwrap_or(n_ctx).min(10 * n_ctx).min(room.max(1));
        Running {
            digest: request.model.digest.clone(),
            client: request.client.clone(),
            pending: prompt[n_reused..].to_vec(),
            n_guessed: 0,
            draft: Draft::new(drafting),
            n_prompt: prompt.len(),
            n_reused,
            n_decoded: 0,
            n_predict,
            text: TextStream::new(options.stop.clone()),
            chooser: Chooser::new(Sampler::new(options.sampler.clone()), grammar, options.logprobs),
            parser,
            logprobs: Vec::new(),
            session,
            n_ctx,
            n_shifts: 0,
            options,
            events,
            unsent: VecDeque::new(),
            blocked: None,
            ended: false,
            accepted: request.accepted,
            started: Instant::now(),
            first_piece: None,
            load,
        }
    }

    /// Whether it has tokens to compute now.
    pub(crate) fn ready(&self) -> bool {
        !self.ended && self.unsent.is_empty()
    }

    /// Whether it only needs one more row: it decodes.
    pub(crate) fn decodes(&self) -> bool {
        self.pending.len() == 1 + self.n_guessed && self.n_decoded > 0
    }

    /// Guesses at most `n_max` tokens to compute beside the one a decoding session needs.
    pub(crate) fn guess(&mut self, n_max: usize) {
        let room = self.n_ctx - self.session.tokens().len() - 1;
        let left = self.n_predict - self.n_decoded - 1;
        self.draft.guess(self.session.tokens(), n_max.min(room).min(left), &mut self.pending);
        self.n_guessed = self.pending.len() - 1;
    }

    /// How many logits the next step owes it, if it computes all that is pending.
    pub(crate) fn n_logits(&self) -> usize {
        1 + self.n_guessed
    }

    /// Whether nothing is left to do: the answer is delivered, or its reader has gone or stopped reading.
    pub(crate) fn over(&self) -> bool {
        let stalled = self.blocked.is_some_and(|since| since.elapsed() > STALL_MAX);
        self.ended && self.unsent.is_empty() || self.events.is_closed() || stalled
    }

    /// Tries to send what did not fit.
    pub(crate) fn send_rest(&mut self) {
        while let Some(event) = self.unsent.pop_front() {
            if let Err(TrySendError::Full(event)) = self.events.try_send(event) {
                self.unsent.push_front(event);
                self.blocked.get_or_insert_with(Instant::now);
                return;
            }
        }
        self.blocked = None;
    }

    /// Goes on with the logits after the last `n_logits` tokens of the session, `(n_logits, n_vocab)`. Guesses are right as
    /// long as they are what is sampled; what follows a wrong one is forgotten.
    pub(crate) fn advance(&mut self, model: &Model, logits: &[f32]) {
        let n_guessed = std::mem::take(&mut self.n_guessed);
        let n_sure = self.session.tokens().len() - n_guessed;
        for (n_right, logits) in logits.chunks_exact(model.tokenizer().n_vocab()).enumerate() {
            let (known, guessed) = self.session.tokens().split_at(n_sure + n_right);
            let chosen = self.chooser.choose(model, self.parser.as_mut(), logits, known);
            let right = chosen.as_ref().ok().map(|c| &c.token) == guessed.first();
            let end = chosen.map(|chosen| self.take(model, chosen));
            if right && matches!(end, Ok(None)) {
                continue;
            }
            self.draft.learn(n_guessed, n_right + usize::from(right));
            self.session.truncate(n_sure + n_right);
            match end {
                Ok(None) => self.make_room(),
                Ok(Some(reason)) => self.finish(reason),
                Err(failure) => self.fail(failure),
            }
            return;
        }
    }

    /// Sends the text of a sampled token, which is then pending. Returns why the answer ends with it, if it does.
    fn take(&mut self, model: &Model, chosen: Chosen) -> Option<DoneReason> {
        let token = chosen.token;
        self.pending.clear();
        self.n_decoded += 1;
        self.first_piece.get_or_insert_with(Instant::now);
        if model.tokenizer().is_end(token) {
            return Some(DoneReason::Stop);
        }
        self.logprobs.extend(chosen.logprob);
        // The marks of some families are control tokens, which show nothing of themselves.
        let mark = self.parser.as_ref().and_then(|parser| parser.mark(model.tokenizer().control_text(token)?));
        match self.text.push(mark.map_or(model.tokenizer().piece(token), str::as_bytes)) {
            Emitted::Stopped(text) => {
                self.send_text(&text);
                return Some(DoneReason::StopText);
            }
            Emitted::Text(text) => self.send_text(&text),
        }
        self.pending.push(token);
        if chosen.completes {
            return Some(DoneReason::Stop);
        }
        if self.n_decoded >= self.n_predict || self.started.elapsed() > WALL_TIME_MAX {
            return Some(DoneReason::Length);
        }
        None
    }

    /// Sees to it that the session has room for what is pending, or ends.
    fn make_room(&mut self) {
        if self.session.tokens().len() + self.pending.len() > self.n_ctx {
            if self.options.shift {
                self.shift();
            } else {
                self.finish(DoneReason::Length);
            }
        }
    }

    /// Forgets the older half of what follows the kept tokens; the rest is computed anew at its new positions.
    fn shift(&mut self) {
        let mut tokens = self.session.tokens().to_vec();
        tokens.append(&mut self.pending);
        let n_keep = self.options.n_keep.unwrap_or(self.n_prompt);
        shorten(&mut tokens, n_keep, self.n_ctx);
        self.n_shifts += 1;
        // The last token is computed even where a repetitive text has shifted onto itself.
        let n_same = self.session.common_prefix(&tokens[..tokens.len() - 1]);
        self.session.truncate(n_same);
        self.pending = tokens.split_off(n_same);
    }

    /// Ends with an error.
    pub(crate) fn fail(&mut self, failure: Failure) {
        self.send(Event::Failed(failure));
        self.ended = true;
    }

    fn finish(&mut self, reason: DoneReason) {
        let (Emitted::Text(rest) | Emitted::Stopped(rest)) = self.text.finish();
        self.send_text(&rest);
        if let Some(parsed) = self.parser.as_mut().map(AnswerParser::finish) {
            self.send_parsed(parsed);
        }
        let finished = Instant::now();
        let times = Times {
            accepted: self.accepted,
            started: self.started,
            first_piece: self.first_piece.unwrap_or(finished),
            finished,
            load: self.load,
        };
        self.send(Event::Done(Box::new(Done {
            reason,
            n_prompt: self.n_prompt,
            n_reused: self.n_reused,
            n_decoded: self.n_decoded,
            n_shifts: self.n_shifts,
            n_drafted: self.draft.n_drafted,
            n_accepted: self.draft.n_accepted,
            times,
            // The last token of an answer is not computed.
            context: [self.session.tokens(), &self.pending].concat(),
        })));
        self.ended = true;
    }

    fn send_text(&mut self, text: &str) {
        let parsed = match &mut self.parser {
            Some(parser) => parser.push(text),
            None => Parsed { content: text.to_owned(), ..Parsed::default() },
        };
        self.send_parsed(parsed);
    }

    fn send_parsed(&mut self, parsed: Parsed) {
        let logprobs = std::mem::take(&mut self.logprobs);
        if !parsed.is_empty() || !logprobs.is_empty() {
            let Parsed { thinking, content, calls } = parsed;
            self.send(Event::Piece(Piece { thinking, text: content, calls, logprobs }));
        }
    }

    fn send(&mut self, event: Event) {
        self.unsent.push_back(event);
        self.send_rest();
    }
}
