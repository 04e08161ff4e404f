//! A GGUF file in, pieces of text out. Synchronous, one caller: the scheduler's engine thread.
//!
//! [`Model::open`] maps and checks a file. A [`Session`] holds one sequence; [`step`] extends several at once;
//! [`Sampler`] turns logits into a token and [`TextStream`] tokens into text.

pub mod budget;
mod embed;
mod gguf;
mod go;
mod grammar;
mod hyperparams;
mod keys;
mod kv_cache;
mod map;
mod matrix;
mod model;
mod parse;
mod quantize;
mod rope;
mod sampler;
mod saved;
mod session;
mod step;
mod stream;
mod template;
mod tokenizer;

pub use candle_core::quantized::gguf_file::Value as MetadataValue;
pub use embed::{EmbedError, Embedding, Pooling};
pub use gguf::{Header, HeaderError, TensorInfo};
pub use go::{GoConversation, GoTemplate, GoTemplateError, GoThink};
pub use grammar::{Constraint, Grammar, GrammarError, Grammars};
pub use hyperparams::{FAMILIES, Hyperparams, HyperparamsError};
pub use kernels::{KvType, Level, Pool, QuantType, Threads, dot_peak, read_bandwidth};
pub use map::{Map, return_freed_memory};
pub use model::{Model, OpenError};
pub use parse::{AnswerFormat, AnswerParser, Parsed, ToolCall};
pub use quantize::{Mixture, QuantizeError, quantize};
pub use rope::Rope;
pub use sampler::{NoValidNumbers, Sampler, SamplerOptions};
pub use saved::{Saved, SavedError};
pub use session::Session;
pub use step::{Slice, StepError, step};
pub use stream::{Emitted, TextStream};
pub use template::{Conversation, Template, TemplateError};
pub use tokenizer::{Specials, Tokenizer, VocabularyError};
