//! Tokens to text as they come: never half a character, never part of a stop text.

/// What one more token did.
#[derive(Debug, PartialEq, Eq)]
pub enum Emitted {
    /// Text to send, possibly empty while bytes are held back.
    Text(String),
    /// A stop text was met; this is what came before it.
    Stopped(String),
}

/// Collects the bytes of an answer, and lets go of what is certain to be part of it.
#[derive(Debug)]
pub struct TextStream {
    stops: Vec<String>,
    /// Bytes that may be the first of a character.
    bytes: Vec<u8>,
    /// Text that may be the first of a stop.
    held: String,
}

impl TextStream {
    /// A stream that ends at the first of `stops`, none of which is empty.
    pub fn new(stops: Vec<String>) -> TextStream {
        TextStream { stops, bytes: Vec::new(), held: String::new() }
    }

    /// Adds the bytes of one token.
    pub fn push(&mut self, piece: &[u8]) -> Emitted {
        self.bytes.extend_from_slice(piece);
        self.take_characters();
        self.release()
    }

    /// The rest at the end of the answer; bytes that never became a character give one U+FFFD.
    pub fn finish(&mut self) -> Emitted {
        if !self.bytes.is_empty() {
            self.bytes.clear();
            self.held.push(char::REPLACEMENT_CHARACTER);
        }
        match self.release() {
            Emitted::Text(mut text) => {
                text.push_str(&std::mem::take(&mut self.held));
                Emitted::Text(text)
            }
            stopped @ Emitted::Stopped(_) => stopped,
        }
    }

    /// Moves whole characters to `held`. Bytes that can start no character become U+FFFD at once.
    fn take_characters(&mut self) {
        loop {
            match std::str::from_utf8(&self.bytes) {
                Ok(text) => {
                    self.held.push_str(text);
                    self.bytes.clear();
                    return;
                }
                Err(e) => {
                    let valid = e.valid_up_to();
                    self.held.push_str(&String::from_utf8_lossy(&self.bytes[..valid]));
                    let Some(bad) = e.error_len() else {
                        self.bytes.drain(..valid);
                        return;
                    };
                    self.held.push(char::REPLACEMENT_CHARACTER);
                    self.bytes.drain(..valid + bad);
                }
            }
        }
    }

    /// Lets go of all text that no stop can begin in.
    fn release(&mut self) -> Emitted {
        if let Some(at) = self.stops.iter().filter_map(|stop| self.held.find(stop.as_str())).min() {
            self.held.truncate(at);
            return Emitted::Stopped(std::mem::take(&mut self.held));
        }
        let begins_stop = |at: &usize| self.stops.iter().any(|stop| stop.starts_with(&self.held[*at..]));
        let keep_from = self.held.char_indices().map(|(at, _)| at).find(begins_stop).unwrap_or(self.held.len());
        let held = self.held.split_off(keep_from);
        Emitted::Text(std::mem::replace(&mut self.held, held))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(stops: &[&str], pieces: &[&[u8]], expected: &[&str], stopped: bool) {
        let mut stream = TextStream::new(stops.iter().map(|s| (*s).to_owned()).collect());
        let mut found = Vec::new();
        for piece in pieces {
            match stream.push(piece) {
                Emitted::Text(text) => found.push(text),
                Emitted::Stopped(text) => {
                    found.push(text);
                    assert!(stopped, "no stop was expected in {found:?}");
                    return assert_eq!(found, expected);
                }
            }
        }
        match stream.finish() {
            Emitted::Text(text) => found.push(text),
            Emitted::Stopped(text) => found.push(text),
        }
        assert!(!stopped, "a stop was expected");
        assert_eq!(found, expected);
    }

    #[test]
    fn b17_characters_are_never_split() {
        check(&[], &["é".as_bytes(), &[0xf0, 0x9f], &[0x94, 0xa5], b"!"], &["é", "", "🔥", "!", ""], false);
    }

    #[test]
    fn b17_half_a_character_at_the_end_is_replaced_once() {
        check(&[], &[b"a", &[0xf0, 0x9f]], &["a", "", "\u{fffd}"], false);
        check(&[], &[&[0xff, b'a']], &["\u{fffd}a", ""], false);
    }

    #[test]
    fn stops_are_held_back_and_cut() {
        check(&["END"], &[b"one E", b"N", b"D two"], &["one ", "", ""], true);
        check(&["END"], &[b"one E", b"N", b"O"], &["one ", "", "ENO", ""], false);
        check(&["b", "ab"], &[b"xab"], &["x"], true);
        check(&["END"], &[b"EN"], &["", "EN"], false);
    }
}
