//! What an answer must be, as masks over the vocabulary. The grammar work is done by the `llguidance` crate; this file says
//! what may be asked of it, within which limits, and in which words it refuses.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory, panic_utils};
use serde_json::{Map, Value, json};

use crate::map::return_freed_memory;
use crate::parse::AnswerFormat;
use crate::tokenizer::Tokenizer;

/// Bytes of a schema.
const SCHEMA_BYTES_MAX: usize = 64 << 10;
/// Nesting of a schema.
const SCHEMA_DEPTH_MAX: usize = 32;
/// Objects, lists and values in a schema.
const SCHEMA_NODES_MAX: usize = 2_000;
/// Characters of white space between two parts of JSON: a model may indent, and not go on for ever.
const WHITE_SPACE: &str = r"[ \n\r\t]{1,64}";
/// Bytes of a reason that are told.
const REASON_BYTES_MAX: usize = 300;

/// What an answer must be.
#[derive(Debug, Clone, PartialEq)]
pub enum Constraint {
    /// A JSON object.
    Json,
    /// JSON that a schema describes.
    Schema(Value),
    /// A call of one of these tools, with the schema of its arguments, as the family writes calls.
    Call(Vec<(String, Value)>),
}

/// Why an answer cannot be constrained so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GrammarError {
    #[error("the schema has {found} {what}, the limit is {limit}")]
    TooLarge { what: &'static str, found: usize, limit: usize },
    #[error("the schema cannot be used: {0}")]
    Schema(String),
    #[error("the vocabulary cannot be constrained: {0}")]
    Vocabulary(String),
    #[error("the answer could not be kept to its format: {0}")]
    Failed(String),
}

/// A vocabulary arranged for constraints, made when the first request asks: 48 MB for the 151,936 tokens of Qwen 3.
pub struct Grammars {
    factory: ParserFactory,
}

/// One answer's constraint, and how far the answer is in it.
pub struct Grammar {
    matcher: Matcher,
}

impl Grammars {
    /// Arranges a vocabulary.
    ///
    /// # Errors
    /// When it has no token that ends an answer, or one the library cannot hold.
    pub fn new(tokenizer: &Tokenizer) -> Result<Grammars, GrammarError> {
        guarded(|| {
            let failed = |reason: &str| GrammarError::Vocabulary(short(reason));
            let mut factory = ParserFactory::new_simple(&environment(tokenizer)?).map_err(|e| failed(&e.to_string()))?;
            factory.quiet();
            factory.limits_mut().verbose_errors = false;
            // The lists it is made from are some megabytes.
            return_freed_memory();
            Ok(Grammars { factory })
        })
        .map_err(GrammarError::Vocabulary)?
    }

    /// Prepares a constraint for an answer in the format of a family.
    ///
    /// # Errors
    /// When a schema is too large, or uses what cannot be guaranteed.
    pub fn compile(&self, constraint: &Constraint, format: AnswerFormat) -> Result<Grammar, GrammarError> {
        let grammar = match constraint {
            Constraint::Json => TopLevelGrammar::from_json_schema(with_limits(json!({ "type": "object" }))?),
            Constraint::Schema(schema) => TopLevelGrammar::from_json_schema(with_limits(schema.clone())?),
            Constraint::Call(tools) => TopLevelGrammar::from_lark(self.call_grammar(tools, format)?),
        };
        let matcher = guarded(|| Matcher::new(self.factory.create_parser(grammar))).map_err(GrammarError::Schema)?;
        match matcher.get_error() {
            Some(reason) => Err(GrammarError::Schema(short(&reason))),
            None => Ok(Grammar { matcher }),
        }
    }

    /// The family's marks around an object with a name and arguments.
    fn call_grammar(&self, tools: &[(String, Value)], format: AnswerFormat) -> Result<String, GrammarError> {
        let (before, after, arguments) = format.around_call();
        let call = |(name, parameters): &(String, Value)| {
            let parameters = if parameters.is_object() { parameters.clone() } else { json!({ "type": "object" }) };
            json!({
                "type": "object",
                "properties": { "name": { "const": name }, arguments: parameters },
                "required": ["name", arguments],
                "additionalProperties": false,
            })
        };
        // References inside a tool's schema point to its own root, where its definitions no longer are.
        let mut definitions = Map::new();
        for (_, parameters) in tools {
            for key in ["$defs", "definitions"] {
                if let Some(Value::Object(own)) = parameters.get(key) {
                    let all = definitions.entry(key).or_insert_with(|| json!({}));
                    all.as_object_mut().expect("made an object").extend(own.clone());
                }
            }
        }
        let mut schema = json!({ "anyOf": tools.iter().map(call).collect::<Vec<_>>() });
        schema.as_object_mut().expect("made an object").extend(definitions);
        let schema = with_limits(schema)?;
        let parts = [self.mark(before), "call".to_owned(), self.mark(after)];
        let parts: Vec<&str> = parts.iter().map(String::as_str).filter(|part| !part.is_empty()).collect();
        Ok(format!("start: {}\ncall: %json {schema}\n", parts.join(" ")))
    }

    /// A mark as the grammar spells it: control tokens by their number, all else as text.
    fn mark(&self, text: &str) -> String {
        let trie = self.factory.tok_env().tok_trie();
        let id = |name: &str| trie.token_id_at_bytes(&[&[TokTrie::SPECIAL_TOKEN_MARKER], name.as_bytes()].concat());
        // A mark is one control token, perhaps with plain text after it.
        let control = (1..=text.len()).rev().filter(|n| text.is_char_boundary(*n)).find_map(|n| Some((id(&text[..n])?, n)));
        match control {
            _ if text.is_empty() => String::new(),
            Some((id, n)) if n == text.len() => format!("<[{id}]>"),
            Some((id, n)) => format!("<[{id}]> {}", Value::from(&text[n..])),
            None => Value::from(text).to_string(),
        }
    }
}

impl Grammar {
    /// `logits` with all tokens taken out that the constraint does not allow next.
    ///
    /// # Errors
    /// When nothing is allowed, or the constraint takes too long.
    pub fn mask(&mut self, logits: &mut [f32]) -> Result<(), GrammarError> {
        let mask = self.matcher.compute_mask_or_eos().map_err(|e| failed(e.to_string()))?;
        for (token, logit) in logits.iter_mut().enumerate() {
            if !mask.is_allowed(token as u32) {
                *logit = f32::NEG_INFINITY;
            }
        }
        Ok(())
    }

    /// Goes on past a token that was allowed. Returns whether the answer is complete and can only end.
    ///
    /// # Errors
    /// When the token was not allowed.
    pub fn accept(&mut self, token: u32) -> Result<bool, GrammarError> {
        self.matcher.consume_token(token).map_err(|e| failed(e.to_string()))?;
        Ok(self.matcher.is_stopped())
    }
}

fn failed(reason: String) -> GrammarError {
    GrammarError::Failed(short(&reason))
}

/// Runs work of the library, whose panics become a reason: schemas come from clients.
fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    panic_utils::catch_unwind(AssertUnwindSafe(|| Ok(work()))).map_err(|e| short(&e.to_string()))
}

/// Tokens as the library wants them: their bytes, and control tokens as their text behind a marker.
fn environment(tokenizer: &Tokenizer) -> Result<TokEnv, GrammarError> {
    let n_vocab = u32::try_from(tokenizer.n_vocab()).expect("vocabularies have at most a million tokens");
    let word = |token: u32| match tokenizer.control_text(token) {
        Some(text) => [&[TokTrie::SPECIAL_TOKEN_MARKER], text.as_bytes()].concat(),
        None => tokenizer.piece(token).to_vec(),
    };
    let words: Vec<Vec<u8>> = (0..n_vocab).map(word).collect();
    let ends = tokenizer.ends();
    let first = *ends.first().ok_or_else(|| GrammarError::Vocabulary("no token ends an answer".into()))?;
    let trie = TokTrie::from(&TokRxInfo::new(n_vocab, first), &words).with_eos_tokens(ends);
    Ok(Arc::new(ApproximateTokEnv::new(trie)))
}

/// The schema with our choices where it leaves some, once its size is seen to be sane.
fn with_limits(schema: Value) -> Result<Value, GrammarError> {
    let check = |what, found, limit| {
        if found > limit { Err(GrammarError::TooLarge { what, found, limit }) } else { Ok(()) }
    };
    check("bytes", schema.to_string().len(), SCHEMA_BYTES_MAX)?;
    let (n_nodes, depth) = size(&schema);
    check("levels", depth, SCHEMA_DEPTH_MAX)?;
    check("parts", n_nodes, SCHEMA_NODES_MAX)?;
    let Value::Object(mut schema) = schema else {
        return Err(GrammarError::Schema("it is no object".into()));
    };
    schema.insert("x-guidance".into(), json!({ "whitespace_pattern": WHITE_SPACE, "coerce_one_of": true }));
    Ok(Value::Object(schema))
}

/// Parts and levels of a value.
fn size(value: &Value) -> (usize, usize) {
    let join = |(n, depth): (usize, usize), inner: &Value| {
        let (n_inner, inner_depth) = size(inner);
        (n + n_inner, depth.max(inner_depth + 1))
    };
    match value {
        Value::Array(items) => items.iter().fold((1, 1), join),
        Value::Object(map) => map.values().fold((1, 1), join),
        _ => (1, 1),
    }
}

/// The first line of a reason, for a client.
fn short(reason: &str) -> String {
    let line = reason.lines().find(|line| !line.trim().is_empty()).unwrap_or("unknown reason").trim();
    let line = line.trim_start_matches("panic: ");
    let end = (0..=line.len().min(REASON_BYTES_MAX)).rev().find(|at| line.is_char_boundary(*at)).unwrap_or(0);
    line[..end].to_owned()
}
