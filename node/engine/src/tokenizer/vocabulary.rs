//! The vocabulary as the file's metadata gives it, checked.

use candle_core::quantized::gguf_file::Value;

use super::VocabularyError;
use crate::gguf::Header;

/// Bytes of one token's text; real ones stay below a thousand.
const TOKEN_BYTES_MAX: usize = 64 * 1024;
/// Entries of a vocabulary; the largest published has some 262,000.
const N_TOKENS_MAX: usize = 1 << 20;

/// The kinds of vocabulary, by the names files have for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Gpt2,
    Llama,
    Gemma4,
    Bert,
}

impl Kind {
    fn named(name: &str) -> Result<Kind, VocabularyError> {
        match name {
            "gpt2" => Ok(Kind::Gpt2),
            "llama" => Ok(Kind::Llama),
            "gemma4" => Ok(Kind::Gemma4),
            "bert" => Ok(Kind::Bert),
            other => Err(VocabularyError::Kind { found: other.chars().take(80).collect() }),
        }
    }
}

/// What a token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TokenKind {
    Normal,
    Unknown,
    /// Belongs to templates, is never typed by a user and never shown.
    Control,
    /// A marker such as `<tool_call>`: one token wherever its text stands, and shown.
    UserDefined,
    Unused,
    Byte,
}

/// Tokens with their kinds and scores, and the ids with a role.
#[derive(Debug)]
pub(super) struct Vocabulary {
    pub(super) kind: Kind,
    pub(super) tokens: Vec<String>,
    pub(super) kinds: Vec<TokenKind>,
    pub(super) scores: Vec<f32>,
    pub(super) merges: Vec<(String, String)>,
    pub(super) bos: Option<u32>,
    pub(super) eos: Option<u32>,
    pub(super) separator: Option<u32>,
    pub(super) unknown: Option<u32>,
}

impl Vocabulary {
    pub(super) fn read(header: &Header) -> Result<Vocabulary, VocabularyError> {
        let tokens = header.array("tokenizer.ggml.tokens").ok_or(VocabularyError::Missing("tokenizer.ggml.tokens"))?;
        if tokens.is_empty() || tokens.len() > N_TOKENS_MAX {
            return Err(VocabularyError::Invalid(format!(
                "the vocabulary has {} tokens, needed are 1 to {N_TOKENS_MAX}",
                tokens.len()
            )));
        }
        let tokens = tokens.iter().map(token_text).collect::<Result<Vec<_>, _>>()?;
        let special = |key: &'static str| special_id(header, key, tokens.len());
        Ok(Vocabulary {
            kinds: kinds(header, tokens.len())?,
            scores: scores(header, tokens.len())?,
            merges: merges(header)?,
            // BERT calls it the token of the class.
            bos: special("tokenizer.ggml.bos_token_id")?.or(special("tokenizer.ggml.cls_token_id")?),
            eos: special("tokenizer.ggml.eos_token_id")?,
            // The format's own spelling.
            separator: special("tokenizer.ggml.seperator_token_id")?,
            unknown: special("tokenizer.ggml.unknown_token_id")?,
            kind: Kind::named(header.text("tokenizer.ggml.model").ok_or(VocabularyError::Missing("tokenizer.ggml.model"))?)?,
            tokens,
        })
    }
}

fn token_text(value: &Value) -> Result<String, VocabularyError> {
    match value {
        Value::String(text) if text.len() <= TOKEN_BYTES_MAX => Ok(text.clone()),
        Value::String(text) => {
            Err(VocabularyError::Invalid(format!("a token has {} bytes, the limit is {TOKEN_BYTES_MAX}", text.len())))
        }
        other => Err(VocabularyError::Invalid(format!("a token is {:?}, needed is a text", other.value_type()))),
    }
}

fn kinds(header: &Header, n_tokens: usize) -> Result<Vec<TokenKind>, VocabularyError> {
    let Some(values) = header.array("tokenizer.ggml.token_type") else {
        return Ok(vec![TokenKind::Normal; n_tokens]);
    };
    same_length("tokenizer.ggml.token_type", values.len(), n_tokens)?;
    let kind = |value: &Value| match value {
        Value::I32(2) | Value::U32(2) => Ok(TokenKind::Unknown),
        Value::I32(3) | Value::U32(3) => Ok(TokenKind::Control),
        Value::I32(4) | Value::U32(4) => Ok(TokenKind::UserDefined),
        Value::I32(5) | Value::U32(5) => Ok(TokenKind::Unused),
        Value::I32(6) | Value::U32(6) => Ok(TokenKind::Byte),
        Value::I32(_) | Value::U32(_) => Ok(TokenKind::Normal),
        other => Err(VocabularyError::Invalid(format!("a token type is {:?}, needed is a 32-bit number", other.value_type()))),
    };
    values.iter().map(kind).collect()
}

fn scores(header: &Header, n_tokens: usize) -> Result<Vec<f32>, VocabularyError> {
    let Some(values) = header.array("tokenizer.ggml.scores") else { return Ok(Vec::new()) };
    same_length("tokenizer.ggml.scores", values.len(), n_tokens)?;
    let score = |value: &Value| match value {
        Value::F32(score) => Ok(*score),
        other => Err(VocabularyError::Invalid(format!("a score is {:?}, needed is a 32-bit float", other.value_type()))),
    };
    values.iter().map(score).collect()
}

/// Merges are written `left right`, each side one or more characters without a plain space, except that a side may be
/// spaces in files with raw text: the split is the first space after the first character.
fn merges(header: &Header) -> Result<Vec<(String, String)>, VocabularyError> {
    let Some(values) = header.array("tokenizer.ggml.merges") else { return Ok(Vec::new()) };
    let merge = |value: &Value| {
        let Value::String(text) = value else { return None };
        let after_first = text.chars().next()?.len_utf8();
        let space = after_first + text[after_first..].find(' ')?;
        Some((text[..space].to_owned(), text[space + 1..].to_owned()))
    };
    let broken = || VocabularyError::Invalid("a merge is not two texts with a space between".into());
    values.iter().map(|value| merge(value).ok_or_else(broken)).collect()
}

fn special_id(header: &Header, key: &'static str, n_tokens: usize) -> Result<Option<u32>, VocabularyError> {
    if !header.metadata.contains_key(key) {
        return Ok(None);
    }
    let found = header.integer(key).ok_or_else(|| VocabularyError::Invalid(format!("{key} is not a number")))?;
    let id = u32::try_from(found).ok().filter(|id| (*id as usize) < n_tokens);
    id.map(Some).ok_or_else(|| VocabularyError::Invalid(format!("{key} is {found}, the vocabulary has {n_tokens} tokens")))
}

fn same_length(key: &str, found: usize, needed: usize) -> Result<(), VocabularyError> {
    if found == needed { Ok(()) } else { Err(VocabularyError::Invalid(format!("{key} has {found} items, needed are {needed}"))) }
}
