//! How text is cut into words before BPE merges within each: the rule that `tokenizer.ggml.pre` names.
//!
//! A rule is a list of patterns; each cuts the pieces that the one before left into matches and what lies between. The
//! patterns are those of the models' authors, in the syntax of a matcher whose time is linear in the text. It has no
//! look-ahead, which the authors use for one thing only: `\s+(?!\S)`, a run of white space without its last character if
//! a word follows. Here that is `\s+` and a cut of the match afterwards.

use regex::Regex;

/// One pattern of a rule.
struct Pattern {
    regex: Regex,
    /// White-space runs give their last character to the word that follows.
    leaves_last_space: bool,
}

/// A rule: patterns applied one after the other.
pub(super) struct Split(Vec<Pattern>);

const LLAMA3: &str = r"'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+";
const QWEN2: &str = r"'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+";
const QWEN35: &str = r"'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+";
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+";
const GPT4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+";
const DEEPSEEK_LETTERS: &str = r"\s?[A-Za-z\u{b5}\u{c0}-\u{d6}\u{d8}-\u{f6}\u{f8}-\u{1ba}\u{1bc}-\u{1bf}\u{1c4}-\u{293}\u{295}-\u{2af}\u{370}-\u{373}\u{376}\u{377}\u{37b}-\u{37d}\u{37f}\u{386}\u{388}-\u{38a}\u{38c}\u{38e}-\u{3a1}\u{3a3}-\u{3f5}\u{3f7}-\u{481}\u{48a}-\u{52f}\u{531}-\u{556}\u{10a0}-\u{10c5}\u{13a0}-\u{13f5}\u{13f8}-\u{13fd}\u{1c90}-\u{1cba}\u{1cbd}-\u{1cbf}\u{1d00}-\u{1d2b}\u{1d6b}-\u{1d77}\u{1d79}-\u{1d9a}\u{1e00}-\u{1f15}\u{1f18}-\u{1f1d}\u{1f20}-\u{1f45}\u{1f48}-\u{1f4d}\u{1f50}-\u{1f57}\u{1f59}\u{1f5b}\u{1f5d}\u{1f5f}-\u{1f7d}\u{1f80}-\u{1fb4}\u{1fb6}-\u{1fbc}\u{1fbe}\u{1fc2}-\u{1fc4}\u{1fc6}-\u{1fcc}\u{1fd0}-\u{1fd3}\u{1fd6}-\u{1fdb}\u{1fe0}-\u{1fec}\u{1ff2}-\u{1ff4}\u{1ff6}-\u{1ffc}\u{2102}\u{2107}\u{210a}-\u{2113}\u{2115}\u{2119}-\u{211d}\u{2124}\u{2126}\u{2128}\u{212a}-\u{212d}\u{212f}-\u{2134}\u{2139}\u{213c}-\u{213f}\u{2145}-\u{2149}\u{214e}\u{2183}\u{2184}\u{2c00}-\u{2c7b}\u{2c7e}-\u{2ce4}\u{2ceb}-\u{2cee}\u{2cf2}\u{2cf3}\u{a640}-\u{a66d}\u{a680}-\u{a69b}\u{a722}-\u{a76f}\u{a771}-\u{a787}\u{a78b}-\u{a78e}\u{ab70}-\u{abbf}\u{fb00}-\u{fb06}\u{fb13}-\u{fb17}\u{ff21}-\u{ff3a}\u{ff41}-\u{ff5a}\u{10400}-\u{1044f}\u{104b0}-\u{104d3}\u{104d8}-\u{104fb}\u{10c80}-\u{10cb2}\u{10cc0}-\u{10cf2}\u{118a0}-\u{118df}\u{1e900}-\u{1e943}]+";
const DEEPSEEK_MARKS: &str = r"\s?[!-/:-~\u{ff01}-\u{ff0f}\u{ff1a}-\u{ff5e}\u{2018}-\u{201f}\u{3000}-\u{3002}]+";
const DEEPSEEK_CJK: &str = r"[\u{4e00}-\u{9fa5}\u{800}-\u{4e00}\u{ac00}-\u{d7ff}]+";
const DEEPSEEK3: &str = r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+"##;

/// The names a file may give, for the message that refuses another.
pub(super) const NAMES: &str = "llama-bpe, qwen2, qwen35, gpt-2, starcoder, smollm, refact, command-r, codeshell, tekken, gpt-4o, falcon, \
    deepseek-llm, deepseek-coder, deepseek-v3, mpt, olmo, stablelm2, dbrx, smaug-bpe, chatglm-bpe, default";

impl Split {
    /// The rule of a name, and whether a whole word in the vocabulary is taken without merging.
    pub(super) fn named(name: &str) -> Option<(Split, bool)> {
        let patterns: &[&str] = match name {
            "llama-bpe" | "llama3" | "llama-v3" | "falcon3" | "falcon-h1" | "pixtral" | "lfm2" | "dbrx" | "smaug-bpe"
            | "chatglm-bpe" | "glm4" | "glm5" => &[LLAMA3],
            "qwen2" | "deepseek-r1-qwen" | "stablelm2" | "megrez" | "hunyuan" | "solar-open" | "grok-2" | "kormo" => &[QWEN2],
            "qwen35" => &[QWEN35],
            "gpt-2" | "phi-2" | "mpt" | "olmo" | "jais" | "trillion" | "granite-docling" | "exaone4" | "roberta-bpe" => &[GPT2],
            "starcoder" | "smollm" | "refact" | "command-r" | "codeshell" | "exaone" | "minerva-7b" => &[r"\p{N}", GPT2],
            "tekken" => &[TEKKEN],
            "gpt-4o" | "llama4" => &[GPT4O],
            "falcon" => &[r"[\p{P}\$\+<=>\^~\|`]+", GPT2, "[0-9][0-9][0-9]"],
            "deepseek-llm" => &["[\r\n]", DEEPSEEK_LETTERS, DEEPSEEK_MARKS, r"\s+$", DEEPSEEK_CJK, r"\p{N}+"],
            "deepseek-coder" => &["[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", DEEPSEEK_CJK, r"\p{N}"],
            "deepseek-v3" => &[r"\p{N}{1,3}", r"[\u{4e00}-\u{9fa5}\u{3040}-\u{309f}\u{30a0}-\u{30ff}]+", DEEPSEEK3],
            "default" => &[r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"],
            _ => return None,
        };
        let whole_words = matches!(
            name,
            "llama-bpe" | "llama3" | "llama-v3" | "falcon3" | "falcon-h1" | "pixtral" | "lfm2" | "tekken" | "glm4" | "glm5"
        );
        Some((Split::new(patterns), whole_words))
    }

    /// Newline runs apart from everything else: the rule of vocabularies that merge across words.
    pub(super) fn newlines() -> Split {
        Split::new(&[r"[^\n]+|\n+"])
    }

    fn new(patterns: &[&str]) -> Split {
        let pattern = |source: &&str| Pattern {
            regex: Regex::new(source).expect("the patterns of this file are valid"),
            leaves_last_space: source.ends_with(r"|\s+"),
        };
        Split(patterns.iter().map(pattern).collect())
    }

    /// Calls `each` with every word of `text` in order.
    pub(super) fn words<'a>(&self, text: &'a str, each: &mut impl FnMut(&'a str)) {
        split(&self.0, text, each);
    }
}

fn split<'a>(patterns: &[Pattern], text: &'a str, each: &mut impl FnMut(&'a str)) {
    let Some((pattern, rest)) = patterns.split_first() else {
        return each(text);
    };
    let mut at = 0;
    while let Some(found) = pattern.regex.find_at(text, at) {
        let end = pattern.end(text, found.start(), found.end());
        if found.start() > at {
            split(rest, &text[at..found.start()], each);
        }
        split(rest, &text[found.start()..end], each);
        at = end;
    }
    if at < text.len() {
        split(rest, &text[at..], each);
    }
}

impl Pattern {
    /// Where a match ends once its last space has been left to the word that follows it.
    fn end(&self, text: &str, start: usize, end: usize) -> usize {
        let matched = &text[start..end];
        let mut back = matched.chars().rev();
        let Some(last) = back.next() else { return end };
        let run_of_spaces =
            self.leaves_last_space && end < text.len() && last.is_whitespace() && matched.chars().all(char::is_whitespace);
        // A run that ends in a newline came from `\s*[\r\n]+`, where the pattern has that part, and stays whole.
        let newline_part = matches!(last, '\r' | '\n') && self.regex.as_str().contains(r"\s*[\r\n]+");
        if run_of_spaces && !newline_part && back.next().is_some() { end - last.len_utf8() } else { end }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, text: &str, expected: &[&str]) {
        let mut words = Vec::new();
        Split::named(name).unwrap().0.words(text, &mut |word| words.push(word));
        assert_eq!(words, expected, "{name}");
    }

    #[test]
    fn spaces_leave_their_last_to_the_word() {
        check("gpt-2", "a   b\n\n c  ", &["a", "  ", " b", "\n\n", " c", "  "]);
        check("qwen2", "a   b\n\n c\n  d", &["a", "  ", " b", "\n\n", " c", "\n", " ", " d"]);
    }

    #[test]
    fn digits_by_rule() {
        check("llama-bpe", "12345", &["123", "45"]);
        check("qwen2", "123", &["1", "2", "3"]);
        check("falcon", "1234", &["123", "4"]);
    }
}
