//! The bytes that tokens stand for.

use super::SPACE;
use super::bytes::byte_table;
use super::vocabulary::{Kind, TokenKind, Vocabulary};

/// The bytes of every token, one after the other, and where each ends.
pub(super) fn pieces(vocabulary: &Vocabulary) -> (Vec<u8>, Vec<u32>) {
    let bytes_of = byte_table();
    let (mut pieces, mut ends) = (Vec::new(), Vec::with_capacity(vocabulary.tokens.len()));
    for (token, kind) in vocabulary.tokens.iter().zip(&vocabulary.kinds) {
        match (kind, vocabulary.kind) {
            (TokenKind::Control | TokenKind::Unused | TokenKind::Unknown, _) => {}
            (TokenKind::UserDefined, Kind::Gpt2) => pieces.extend_from_slice(token.as_bytes()),
            (TokenKind::Byte, _) => pieces.extend(byte_of(token)),
            (_, Kind::Gpt2) => {
                for c in token.chars() {
                    match bytes_of.get(&c) {
                        Some(byte) => pieces.push(*byte),
                        None => pieces.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
                    }
                }
            }
            (_, Kind::Llama | Kind::Gemma4 | Kind::Bert) => pieces.extend_from_slice(token.replace(SPACE, " ").as_bytes()),
        }
        ends.push(u32::try_from(pieces.len()).expect("the header limits all texts to 256 MiB"));
    }
    (pieces, ends)
}

/// The byte a token such as `<0x0A>` stands for.
fn byte_of(token: &str) -> Option<u8> {
    u8::from_str_radix(token.strip_prefix("<0x")?.strip_suffix('>')?, 16).ok()
}
