//! Request, Event and Done: the only types callers and engine thread share.

use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::{Constraint, GoTemplate, SamplerOptions, ToolCall};
use serde_json::Value;

use crate::ModelFile;

/// What a client asks for.
#[derive(Debug)]
pub struct Request {
    pub model: ModelFile,
    pub client: Client,
    pub input: Input,
    pub options: Options,
    /// Replaces the model's duration when given.
    pub keep_alive: Option<KeepAlive>,
    /// When the request was accepted; every duration counts from here.
    pub accepted: Instant,
}

/// Whose turn it is: requests are taken fairly among clients.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Client {
    pub name: String,
    /// Whether the bounds of one client hold for it, see [`crate::Limits`].
    pub bounded: bool,
}

/// What to compute.
#[derive(Debug)]
pub enum Input {
    /// Make the model resident, nothing more.
    Load,
    /// Let the model go when its running requests have ended.
    Unload,
    /// Messages through the model's template.
    Chat {
        messages: Vec<Value>,
        /// What is used instead of the template in the model's file.
        template: Option<Arc<GoTemplate>>,
        /// Tools on offer, as the template shows them.
        tools: Vec<Value>,
        /// What is said of thinking to a model that can.
        think: Option<Think>,
        /// Whether the oldest messages may be dropped when the prompt is too long.
        truncate: bool,
        /// Tokens of earlier turns that come before the rendered prompt.
        context: Vec<u32>,
    },
    /// Texts to make vectors of, in which no special token is recognised.
    Embed {
        texts: Vec<String>,
        /// Whether what does not fit is cut; otherwise it is an error.
        truncate: bool,
    },
    /// Two texts with a gap between them, which the answer fills.
    Gap { template: Arc<GoTemplate>, prompt: String, suffix: String, think: Option<Think> },
    /// A prompt as it is, in which special tokens are recognised.
    Text {
        prompt: String,
        context: Vec<u32>,
        /// Whether the middle may be cut out when it is too long.
        truncate: bool,
    },
}

/// Whether and how hard a model is to think before it answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Think {
    Off,
    /// With a level such as `low`, where one is named.
    On(Option<String>),
}

/// How to compute.
#[derive(Debug, Clone, Default)]
pub struct Options {
    pub sampler: SamplerOptions,
    /// Context length; `None` for the server's.
    pub n_ctx: Option<usize>,
    /// Most tokens to decode; `None` for as many as the context has room for.
    pub n_predict: Option<usize>,
    /// Texts that end the answer.
    pub stop: Vec<String>,
    /// Tokens kept at the front when the context is shifted; `None` keeps the whole prompt.
    pub n_keep: Option<usize>,
    /// Whether a full context makes room by forgetting its older half.
    pub shift: bool,
    /// What the answer must be; its thinking is free.
    pub constraint: Option<Constraint>,
    /// Whether the probability of each token is told, and of how many others that were likeliest in its place.
    pub logprobs: Option<usize>,
    /// Answer with the text of the prompt and compute nothing.
    pub render_only: bool,
}

/// How long a model stays in memory after its last request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeepAlive {
    For(Duration),
    Forever,
}

/// What comes back.
#[derive(Debug)]
pub enum Event {
    /// The prompt is about to be computed: what of it, and in how much context.
    Began(Began),
    /// More of the answer.
    Piece(Piece),
    /// The prompt, for `render_only`.
    Rendered(String),
    /// All vectors, for texts to embed: the end of such a request.
    Embedded(Embedded),
    /// The end.
    Done(Box<Done>),
    /// The end, with a reason.
    Failed(Failure),
}

/// What is known of an answer before its first token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Began {
    /// Context length the answer has.
    pub n_ctx: usize,
    /// Messages that did not fit and were left out, the oldest first.
    pub n_dropped: usize,
    /// Tokens that did not fit and were cut out of the middle.
    pub n_cut: usize,
}

/// Part of an answer. Texts never end within a character.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Piece {
    pub thinking: String,
    pub text: String,
    /// Calls of tools, each whole.
    pub calls: Vec<ToolCall>,
    /// Of the tokens decoded since the last piece, where asked for; their text may be held back for a while.
    pub logprobs: Vec<Logprob>,
}

/// How likely a token was.
#[derive(Debug, Clone, PartialEq)]
pub struct Logprob {
    /// The bytes the token stands for.
    pub token: Vec<u8>,
    /// Natural logarithm of its probability before any sampling option.
    pub logprob: f32,
    /// The likeliest tokens in its place, best first.
    pub top: Vec<(Vec<u8>, f32)>,
}

/// The vectors of some texts, in their order.
#[derive(Debug)]
pub struct Embedded {
    /// Each of length one.
    pub vectors: Vec<Vec<f32>>,
    /// Tokens of all texts.
    pub n_prompt: usize,
    pub times: Times,
}

/// Why an answer ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DoneReason {
    /// The model ended its answer.
    Stop,
    /// A text that was to end it was met.
    StopText,
    Length,
    Load,
    Unload,
}

/// The four instants, and how long loading took.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    pub accepted: Instant,
    pub started: Instant,
    pub first_piece: Instant,
    pub finished: Instant,
    /// From acceptance until the model was resident.
    pub load: Duration,
}

/// Sums up an answer.
#[derive(Debug)]
pub struct Done {
    pub reason: DoneReason,
    /// Prompt tokens, those reused from an earlier request included.
    pub n_prompt: usize,
    /// Prompt tokens that needed no computing.
    pub n_reused: usize,
    /// Tokens decoded.
    pub n_decoded: usize,
    /// How often a full context forgot its older half.
    pub n_shifts: usize,
    /// Tokens guessed by prompt lookup, and how many of them were right.
    pub n_drafted: usize,
    pub n_accepted: usize,
    pub times: Times,
    /// Tokens of prompt and answer.
    pub context: Vec<u32>,
}

/// Why there is no answer, or no more of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub kind: FailureKind,
    pub message: String,
}

/// Whose fault a failure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// The request cannot be served as it is.
    Request,
    /// Too little memory now.
    Memory,
    /// The model or the machine.
    Server,
}

impl Failure {
    pub(crate) fn request(message: impl ToString) -> Failure {
        Failure { kind: FailureKind::Request, message: message.to_string() }
    }

    pub(crate) fn server(message: impl ToString) -> Failure {
        Failure { kind: FailureKind::Server, message: message.to_string() }
    }
}
