//! Text to tokens and back, from the vocabulary in a GGUF file. Merging and word pieces are done by the `tokenizers`
//! crate; this file cuts text as the file's metadata asks and turns tokens into bytes.

mod bytes;
mod pieces;
mod split;
mod vocabulary;

use std::collections::HashMap;

use ahash::AHashMap;
use aho_corasick::{AhoCorasick, MatchKind};
use tokenizers::models::bpe::BPE;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::{Model, NormalizedString, Normalizer, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer};

use crate::gguf::Header;
use bytes::byte_char;
use pieces::pieces;
use split::Split;
use vocabulary::{Kind, TokenKind, Vocabulary};

/// Why a vocabulary was refused.
#[derive(Debug, thiserror::Error)]
pub enum VocabularyError {
    #[error("the file has no {0}")]
    Missing(&'static str),
    #[error("damaged vocabulary: {0}")]
    Invalid(String),
    #[error("tokenizer {found} is not supported; supported are gpt2 (BPE), llama (SentencePiece), gemma4 and bert (WordPiece)")]
    Kind { found: String },
    #[error("pre-tokenizer {found} is not supported; supported are {}", split::NAMES)]
    PreTokenizer { found: String },
}

/// Which special tokens a text may contain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Specials {
    /// What a template wrote: control tokens are recognised, except where the text holds `guard` inside them (see
    /// [`Tokenizer::guard`]). Guards are removed.
    Parse { guard: Option<char> },
    /// What a user wrote: the text of a control token is text like any other.
    AsText,
}

/// The vocabulary of one model.
pub struct Tokenizer {
    method: Method,
    /// Markers that are one token wherever they stand, with their ids in the order of the matcher's patterns.
    markers: Matcher,
    /// Markers and control tokens.
    specials: Matcher,
    /// The bytes each token stands for, one after the other.
    pieces: Vec<u8>,
    /// Where each token's bytes end.
    piece_ends: Vec<u32>,
    kinds: Vec<TokenKind>,
    /// Texts of the control tokens.
    controls: HashMap<u32, String>,
    ends: Vec<u32>,
    bos: Option<u32>,
    add_bos: bool,
    /// The token after a text that is made a vector.
    separator: Option<u32>,
    /// The texts of the tokens that begin and end a sequence; empty where there is none.
    bos_and_eos: [String; 2],
}

enum Method {
    /// Words of bytes, each byte written as one character of a fixed table.
    ByteLevel {
        bpe: BPE,
        split: Split,
    },
    /// Characters with spaces written `▁`, bytes as a fall-back.
    Spaces {
        bpe: BPE,
        split: Option<Split>,
        space_first: bool,
    },
    WordPiece {
        model: WordPiece,
    },
}

struct Matcher {
    automaton: AhoCorasick,
    ids: Vec<u32>,
}

/// How SentencePiece writes a space.
const SPACE: char = '\u{2581}';

impl Tokenizer {
    /// Reads and checks the vocabulary of a header.
    ///
    /// # Errors
    /// When a part is missing, inconsistent, or of a kind this build does not know.
    pub fn read(header: &Header) -> Result<Tokenizer, VocabularyError> {
        let mut vocabulary = Vocabulary::read(header)?;
        let pre = header.text("tokenizer.ggml.pre").unwrap_or("default");
        let (pieces, piece_ends) = pieces(&vocabulary);
        let of_kind = |wanted: &[TokenKind]| Matcher::new(&vocabulary, wanted);
        let (markers, specials) = (of_kind(&[TokenKind::UserDefined])?, of_kind(&[TokenKind::UserDefined, TokenKind::Control])?);
        let ends = ends(header, &vocabulary);
        let bos_and_eos =
            [vocabulary.bos, vocabulary.eos].map(|id| id.map(|id| vocabulary.tokens[id as usize].clone()).unwrap_or_default());
        let of_control = |id: &u32| vocabulary.kinds[*id as usize] == TokenKind::Control;
        let controls = (0..vocabulary.tokens.len() as u32).filter(of_control);
        let controls = controls.map(|id| (id, vocabulary.tokens[id as usize].clone())).collect();
        // Last, as it takes the texts of the tokens.
        let (method, bos_by_kind) = match vocabulary.kind {
            Kind::Gpt2 => {
                let (split, whole_words) =
                    Split::named(pre).ok_or_else(|| VocabularyError::PreTokenizer { found: pre.chars().take(80).collect() })?;
                (Method::ByteLevel { bpe: merging(&mut vocabulary, whole_words, false)?, split }, pre == "llama-bpe")
            }
            Kind::Bert => (word_pieces(&vocabulary)?, true),
            Kind::Llama => {
                vocabulary.merges = merges_from_scores(&vocabulary);
                let space_first = header.truth("tokenizer.ggml.add_space_prefix").unwrap_or(true);
                (Method::Spaces { bpe: merging(&mut vocabulary, false, true)?, split: None, space_first }, true)
            }
            Kind::Gemma4 => (
                Method::Spaces {
                    bpe: merging(&mut vocabulary, false, true)?,
                    split: Some(Split::newlines()),
                    space_first: false,
                },
                true,
            ),
        };
        Ok(Tokenizer {
            method,
            markers,
            specials,
            pieces,
            piece_ends,
            controls,
            ends,
            bos: vocabulary.bos,
            separator: separator(header, &vocabulary),
            add_bos: header.truth("tokenizer.ggml.add_bos_token").unwrap_or(bos_by_kind) && vocabulary.bos.is_some(),
            bos_and_eos,
            kinds: vocabulary.kinds,
        })
    }

    /// Entries of the vocabulary.
    pub fn n_vocab(&self) -> usize {
        self.piece_ends.len()
    }

    /// The token a sequence starts with, if the model wants one.
    pub fn bos(&self) -> Option<u32> {
        self.bos.filter(|_| self.add_bos)
    }

    /// The tokens that stand before and after a text that is made a vector.
    pub fn around_embedded(&self) -> (Option<u32>, Option<u32>) {
        (self.bos(), self.separator)
    }

    /// The text of the tokens that begin and end a sequence, as templates refer to them.
    pub fn bos_and_eos_text(&self) -> (&str, &str) {
        let [bos, eos] = &self.bos_and_eos;
        (bos, eos)
    }

    /// Tokens that end an answer.
    pub fn ends(&self) -> &[u32] {
        &self.ends
    }

    /// The text of a control token, which [`Tokenizer::piece`] leaves out; `None` for all others.
    pub fn control_text(&self, token: u32) -> Option<&str> {
        self.controls.get(&token).map(String::as_str)
    }

    /// Whether a token ends the answer.
    pub fn is_end(&self, token: u32) -> bool {
        self.ends.contains(&token)
    }

    /// The tokens of a text. No token is added in front; see [`Tokenizer::bos`].
    pub fn encode(&self, text: &str, specials: Specials) -> Vec<u32> {
        let (matcher, guard) = match specials {
            Specials::Parse { guard } => (&self.specials, guard),
            Specials::AsText => (&self.markers, None),
        };
        let mut tokens = Vec::new();
        let mut at = 0;
        for found in matcher.automaton.find_iter(text) {
            if found.start() > at {
                self.encode_plain(&text[at..found.start()], at == 0 || !tokens.is_empty(), guard, &mut tokens);
            }
            tokens.push(matcher.ids[found.pattern().as_usize()]);
            at = found.end();
        }
        if at < text.len() {
            self.encode_plain(&text[at..], true, guard, &mut tokens);
        }
        tokens
    }

    /// `text` with `guard` put inside each control token's text, so that [`Specials::Parse`] takes it as plain text.
    pub fn guard(&self, text: &str, guard: char) -> String {
        let mut guarded = String::with_capacity(text.len());
        let mut at = 0;
        for found in self.specials.automaton.find_iter(text) {
            let id = self.specials.ids[found.pattern().as_usize()];
            if self.kinds[id as usize] == TokenKind::Control {
                let first = text[found.start()..].chars().next().map_or(0, char::len_utf8);
                guarded.push_str(&text[at..found.start() + first]);
                guarded.push(guard);
                at = found.start() + first;
            }
        }
        guarded.push_str(&text[at..]);
        guarded
    }

    /// The bytes a token stands for; none for control tokens. They need not be whole characters.
    ///
    /// # Panics
    /// When `token` is not in the vocabulary.
    pub fn piece(&self, token: u32) -> &[u8] {
        let end = |index: usize| self.piece_ends[index] as usize;
        let index = token as usize;
        &self.pieces[if index == 0 { 0 } else { end(index - 1) }..end(index)]
    }

    /// The text of a sequence of tokens; bytes that are no characters become U+FFFD.
    pub fn decode(&self, tokens: &[u32]) -> String {
        let bytes: Vec<u8> = tokens.iter().flat_map(|&t| self.piece(t)).copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn encode_plain(&self, text: &str, after_special: bool, guard: Option<char>, tokens: &mut Vec<u32>) {
        let unguarded;
        let text = match guard {
            Some(guard) if text.contains(guard) => {
                unguarded = text.replace(guard, "");
                &unguarded
            }
            _ => text,
        };
        match &self.method {
            Method::ByteLevel { bpe, split } => {
                split.words(text, &mut |word| push(bpe, &word.bytes().map(byte_char).collect::<String>(), tokens));
            }
            Method::Spaces { bpe, split, space_first } => {
                let mut marked = text.replace(' ', "\u{2581}");
                if *space_first && after_special {
                    marked.insert(0, SPACE);
                }
                match split {
                    Some(split) => split.words(&marked, &mut |word| push(bpe, word, tokens)),
                    None => push(bpe, &marked, tokens),
                }
            }
            Method::WordPiece { model } => push_words(model, text, tokens),
        }
    }
}

/// Appends the tokens of one word.
fn push(bpe: &BPE, word: &str, tokens: &mut Vec<u32>) {
    let merged = bpe.tokenize(word).expect("a BPE model without drop-out gives tokens for every text");
    tokens.extend(merged.into_iter().map(|token| token.id));
}

/// Lower-cases, strips accents, cuts at white space and punctuation, and appends the pieces of each word.
fn push_words(model: &WordPiece, text: &str, tokens: &mut Vec<u32>) {
    let mut normalized = NormalizedString::from(text);
    let plain = BertNormalizer::new(true, true, Some(true), true);
    plain.normalize(&mut normalized).expect("the BERT rules apply to every text");
    let mut words = PreTokenizedString::from(normalized.get());
    BertPreTokenizer.pre_tokenize(&mut words).expect("the BERT rules cut every text");
    for (word, _, _) in words.get_splits(OffsetReferential::Normalized, OffsetType::Byte) {
        let pieces = model.tokenize(word).expect("the unknown token stands for every other word");
        tokens.extend(pieces.into_iter().map(|token| token.id));
    }
}

fn merging(vocabulary: &mut Vocabulary, whole_words: bool, bytes_as_fallback: bool) -> Result<BPE, VocabularyError> {
    let unknown = vocabulary.unknown.map(|id| vocabulary.tokens[id as usize].clone());
    let ids: AHashMap<String, u32> = std::mem::take(&mut vocabulary.tokens).into_iter().zip(0..).collect();
    let mut builder = BPE::builder()
        .vocab_and_merges(ids, std::mem::take(&mut vocabulary.merges))
        .ignore_merges(whole_words)
        .byte_fallback(bytes_as_fallback);
    if let Some(unknown) = unknown {
        builder = builder.unk_token(unknown);
    }
    builder.build().map_err(|e| VocabularyError::Invalid(format!("the merges do not fit the tokens: {e}")))
}

/// SentencePiece files hold scores instead of merges: the pair whose union scores best merges first. Every way to cut a
/// token in two known parts is a merge with the rank of the token's score; equal scores go by the order of the file.
fn merges_from_scores(vocabulary: &Vocabulary) -> Vec<(String, String)> {
    let ids: HashMap<&str, usize> = vocabulary.tokens.iter().map(String::as_str).zip(0..).collect();
    let mut merges = Vec::new();
    for (id, token) in vocabulary.tokens.iter().enumerate() {
        if vocabulary.kinds[id] != TokenKind::Normal && vocabulary.kinds[id] != TokenKind::UserDefined {
            continue;
        }
        let score = vocabulary.scores.get(id).copied().unwrap_or(0.0);
        for (at, _) in token.char_indices().skip(1) {
            let (left, right) = token.split_at(at);
            if let (Some(l), Some(r)) = (ids.get(left), ids.get(right)) {
                merges.push((score, id, *l, *r, (left.to_owned(), right.to_owned())));
            }
        }
    }
    merges.sort_by(|a, b| b.0.total_cmp(&a.0).then((a.1, a.2, a.3).cmp(&(b.1, b.2, b.3))));
    merges.into_iter().map(|merge| merge.4).collect()
}

/// GGUF marks the start of a word with `▁` and leaves continuations bare; the model wants bare starts and `##`.
fn word_pieces(vocabulary: &Vocabulary) -> Result<Method, VocabularyError> {
    let mut ids = AHashMap::new();
    for ((token, kind), id) in vocabulary.tokens.iter().zip(&vocabulary.kinds).zip(0u32..) {
        let text = match token.strip_prefix(SPACE) {
            Some(start) => start.to_owned(),
            None if *kind == TokenKind::Normal && !token.starts_with('[') => format!("##{token}"),
            None => token.clone(),
        };
        ids.entry(text).or_insert(id);
    }
    let unknown = vocabulary.unknown.ok_or(VocabularyError::Missing("tokenizer.ggml.unknown_token_id"))?;
    let model = WordPiece::builder()
        .vocab(ids)
        .unk_token(vocabulary.tokens[unknown as usize].clone())
        .max_input_chars_per_word(100)
        .build()
        .map_err(|e| VocabularyError::Invalid(e.to_string()))?;
    Ok(Method::WordPiece { model })
}

/// What ends a text for BERT, and for other models whose files ask for it.
fn separator(header: &Header, vocabulary: &Vocabulary) -> Option<u32> {
    let encodes = vocabulary.kind == Kind::Bert;
    let asked = header.truth("tokenizer.ggml.add_eos_token").unwrap_or(encodes);
    vocabulary.separator.filter(|_| encodes).or(vocabulary.eos).filter(|_| asked)
}

/// Tokens after which an answer is over: those the file names, and control tokens with a text that means it.
fn ends(header: &Header, vocabulary: &Vocabulary) -> Vec<u32> {
    const TEXTS: [&str; 10] = [
        "<|im_end|>",
        "<|eot_id|>",
        "<|eom_id|>",
        "<|endoftext|>",
        "<|end_of_text|>",
        "<end_of_turn>",
        "<|end|>",
        "<|eot|>",
        "</s>",
        "<EOT>",
    ];
    let named = ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"];
    let mut ends: Vec<u32> = named.iter().filter_map(|key| u32::try_from(header.integer(key)?).ok()).collect();
    let controls = vocabulary.tokens.iter().zip(&vocabulary.kinds).zip(0u32..);
    ends.extend(
        controls.filter(|((text, kind), _)| **kind == TokenKind::Control && TEXTS.contains(&text.as_str())).map(|(_, id)| id),
    );
    ends.retain(|id| (*id as usize) < vocabulary.tokens.len());
    ends
}

impl Matcher {
    fn new(vocabulary: &Vocabulary, wanted: &[TokenKind]) -> Result<Matcher, VocabularyError> {
        let entries = vocabulary.tokens.iter().zip(&vocabulary.kinds).zip(0u32..);
        let (texts, ids): (Vec<&str>, Vec<u32>) = entries
            .filter(|((text, kind), _)| wanted.contains(kind) && !text.is_empty())
            .map(|((text, _), id)| (text.as_str(), id))
            .unzip();
        let automaton = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(texts);
        let automaton = automaton.map_err(|e| VocabularyError::Invalid(format!("the special tokens are too large: {e}")))?;
        Ok(Matcher { automaton, ids })
    }
}
