//! Every line of the vocabulary test sets gives the ids that the models' own tokenizers give, and decodes back.

#![allow(clippy::unwrap_used, reason = "tests")]

use engine::{Header, Map, Specials, Tokenizer};
use std::fs::File;
use std::time::Instant;

fn open(name: &str) -> Option<Tokenizer> {
    let path = testkit::test_data()?.join(format!("vocab/ggml-vocab-{name}.gguf"));
    let map = Map::open(File::open(path).unwrap()).unwrap();
    Some(Tokenizer::read(&Header::read(&map).unwrap()).unwrap())
}

/// How decoding gives the text back.
enum Back {
    /// To the byte.
    Exact,
    /// With the space that SentencePiece puts in front.
    SpaceFirst,
    /// Lower-cased and without accents, so only the tokens come back.
    Tokens,
}

fn check(name: &str, back: Back) {
    let Some(tokenizer) = open(name) else { return };
    let read = |suffix: &str| {
        let folder = testkit::test_data().unwrap();
        std::fs::read_to_string(folder.join(format!("vocab/ggml-vocab-{name}.gguf.{suffix}"))).unwrap()
    };
    let inputs = read("inp");
    let texts: Vec<&str> = inputs.split("\n__ggml_vocab_test__\n").collect();
    let outputs = read("out");
    let lines: Vec<&str> = outputs.lines().collect();
    // The last separator is followed by nothing: one text more than lines, and it is empty.
    assert_eq!(texts.len(), lines.len() + usize::from(texts.last() == Some(&"")), "{name}");
    let mut wrong = Vec::new();
    for (text, line) in texts.iter().zip(&lines) {
        let expected: Vec<u32> = line.split_whitespace().map(|id| id.parse().unwrap()).collect();
        let found = tokenizer.encode(text, Specials::AsText);
        if found != expected {
            wrong.push(format!("{text:?}: {found:?}, expected {expected:?}"));
            continue;
        }
        let decoded = tokenizer.decode(&found);
        match back {
            Back::Exact => assert_eq!(decoded, *text, "{name}"),
            Back::SpaceFirst => assert_eq!(decoded, if text.is_empty() { String::new() } else { format!(" {text}") }, "{name}"),
            Back::Tokens if found.contains(&100) => {}
            Back::Tokens => assert_eq!(tokenizer.encode(&decoded, Specials::AsText), expected, "{name}: {decoded:?}"),
        }
    }
    assert!(wrong.is_empty(), "{name}: {} of {} differ\n{}", wrong.len(), lines.len(), wrong.join("\n"));
}

macro_rules! vocabularies {
    ($($test:ident: $name:literal, $back:ident;)*) => { $(#[test] fn $test() { check($name, Back::$back); })* };
}
vocabularies! {
    llama_bpe: "llama-bpe", Exact;
    qwen2: "qwen2", Exact;
    qwen35: "qwen35", Exact;
    gpt_2: "gpt-2", Exact;
    starcoder: "starcoder", Exact;
    deepseek_llm: "deepseek-llm", Exact;
    falcon: "falcon", Exact;
    llama_spm: "llama-spm", SpaceFirst;
    phi_3: "phi-3", SpaceFirst;
    gemma_4: "gemma-4", Exact;
    bert_bge: "bert-bge", Tokens;
}

/// B16: what a user writes stays text, what the template writes becomes a special token.
#[test]
fn b16_special_tokens_in_user_text_are_text() {
    let tokenizer = tiny();
    let (start, end) = (257, 258);
    let plain = Specials::Parse { guard: None };
    assert_eq!(tokenizer.encode("<|im_start|>a<|im_end|>", plain)[0], start);
    assert!(!tokenizer.encode("<|im_start|>a<|im_end|>", Specials::AsText).contains(&start));
    let guard = '\u{fdd0}';
    let user = tokenizer.guard("x<|im_end|>y", guard);
    let found = tokenizer.encode(&format!("<|im_start|>{user}<|im_end|>"), Specials::Parse { guard: Some(guard) });
    assert_eq!(found.iter().filter(|t| **t == end).count(), 1, "only the template's own end counts");
    let text: Vec<u8> = found.iter().flat_map(|t| tokenizer.piece(*t)).copied().collect();
    assert_eq!(String::from_utf8(text).unwrap(), "x<|im_end|>y", "and the user's text is whole");
    assert_eq!(tokenizer.encode("a<tool_call>", Specials::AsText).last(), Some(&259), "markers are tokens wherever they stand");
}

fn tiny() -> Tokenizer {
    let bytes = testkit::tiny_model(&testkit::Shape::tiny("qwen3"), engine::QuantType::Q8_0, 1).bytes();
    Tokenizer::read(&Header::read(&bytes).unwrap()).unwrap()
}

/// B13 and B14: splitting and merging stay near linear whatever the text. The bound is generous, a quadratic method would
/// need hours.
#[test]
fn b14_a_mebibyte_of_one_character() {
    for name in ["qwen2", "gpt-2", "llama-spm"] {
        let Some(tokenizer) = open(name) else { return };
        for text in ["a".repeat(1 << 20), " ".repeat(1 << 20), "ab1,".repeat(1 << 18), "é".repeat(1 << 19)] {
            let begun = Instant::now();
            let tokens = tokenizer.encode(&text, Specials::AsText);
            assert_eq!(tokenizer.decode(&tokens).trim_start(), text.trim_start());
            assert!(begun.elapsed().as_secs() < 20, "{name}: {:?} for {:?}…", begun.elapsed(), &text[..4]);
        }
    }
}
