//! Bytes as characters: how byte-level vocabularies write text that need not be UTF-8.

use std::collections::HashMap;

/// The characters that byte-level vocabularies write for bytes (the table of GPT-2): printable Latin-1 stands for itself,
/// the rest is counted from U+0100.
static BYTE_CHARS: [char; 256] = {
    let mut table = ['\0'; 256];
    let (mut byte, mut others) = (0, 0);
    while byte < 256 {
        table[byte] = match byte as u8 {
            b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => byte as u8 as char,
            _ => {
                others += 1;
                char::from_u32(0x100 + others - 1).expect("the table ends at U+0143")
            }
        };
        byte += 1;
    }
    table
};

/// The character of a byte.
pub(super) fn byte_char(byte: u8) -> char {
    BYTE_CHARS[usize::from(byte)]
}

/// The byte of each character.
pub(super) fn byte_table() -> HashMap<char, u8> {
    (0..=255).map(|byte| (byte_char(byte), byte)).collect()
}
