//! Mutates model files and templates and feeds them to the readers that must survive anything: `fuzz TARGET SECONDS`.
//!
//! Coverage-guided fuzzers need a nightly compiler, which the toolchain here is not. This one knows the format instead: it
//! starts from whole small files and changes bytes, lengths, counts and types where the format keeps them. A panic ends it
//! with the case's number, from which the same bytes come again.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use engine::{Conversation, Header, QuantType, Specials, Template, Tokenizer};
use testkit::{Random, Shape, tiny_model};

/// Longest a single case may take.
const CASE_MAX: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (target, seconds) = (arguments.next().unwrap_or_default(), arguments.next().and_then(|s| s.parse().ok()).unwrap_or(60));
    let run: fn(&mut Random) = match target.as_str() {
        "header" => header,
        "vocabulary" => vocabulary,
        "template" => template,
        _ => {
            eprintln!("usage: fuzz header|vocabulary|template [SECONDS]");
            return ExitCode::from(2);
        }
    };
    // A panic inside a case is the failure looked for; its number tells how to make it again.
    let begun = Instant::now();
    let mut case = 0u64;
    while begun.elapsed() < Duration::from_secs(seconds) {
        let started = Instant::now();
        let survived = std::panic::catch_unwind(|| run(&mut Random(case))).is_ok();
        if !survived || started.elapsed() > CASE_MAX {
            eprintln!("{target}: case {case} {} after {:?}", if survived { "was slow" } else { "panicked" }, started.elapsed());
            return ExitCode::FAILURE;
        }
        case += 1;
    }
    println!("{target}: {case} cases in {seconds} s, none failed");
    ExitCode::SUCCESS
}

/// A whole small file; the weights are left out, their places are not.
fn seed(random: &mut Random) -> (Vec<u8>, usize) {
    let family = ["llama", "qwen2", "qwen3"][pick(random, 3)];
    let quant = QuantType::ALL[pick(random, QuantType::ALL.len())];
    let shape = Shape { n_layer: 1, n_embd: 256, n_ff: 256, n_vocab: 262, untied: false, ..Shape::tiny(family) };
    let (header, data) = tiny_model(&shape, quant, 1).parts();
    let n = header.len();
    ([header, data].concat(), n)
}

fn header(random: &mut Random) {
    let (mut bytes, n_header) = seed(random);
    mutate(&mut bytes, n_header, random);
    // Either way is right; what counts is that it comes back.
    _ = Header::read(&bytes);
}

fn vocabulary(random: &mut Random) {
    let (mut bytes, n_header) = seed(random);
    mutate(&mut bytes, n_header, random);
    let Ok(header) = Header::read(&bytes) else { return };
    let Ok(tokenizer) = Tokenizer::read(&header) else { return };
    let text: String = (0..pick(random, 200)).filter_map(|_| char::from_u32((random.bits() % 0x3000) as u32)).collect();
    for specials in [Specials::AsText, Specials::Parse { guard: None }] {
        let tokens = tokenizer.encode(&text, specials);
        assert!(tokens.iter().all(|t| (*t as usize) < tokenizer.n_vocab()), "a token outside the vocabulary");
        _ = tokenizer.decode(&tokens);
    }
}

fn template(random: &mut Random) {
    const PARTS: [&str; 24] = [
        "{% for m in messages %}",
        "{% endfor %}",
        "{% if m %}",
        "{% else %}",
        "{% endif %}",
        "{{ m.content }}",
        "{{ m['role'] | trim }}",
        "{% set x = 1 %}",
        "{% macro f(a) %}",
        "{% endmacro %}",
        "{{ f(1) }}",
        "{{ messages | tojson(indent=2) }}",
        "{{- '",
        "' }}",
        "\\n",
        " + ",
        "{% generation %}",
        "{% endgeneration %}",
        "{{ 'a' | safe + 'b' }}",
        "{% break %}",
        "{{ range(10) | list }}",
        "{{ x[1:] }}",
        "}}",
        "{#",
    ];
    let source: String = (0..pick(random, 30)).map(|_| PARTS[pick(random, PARTS.len())]).collect();
    let messages = serde_json::json!([{ "role": "user", "content": "hello" }, { "role": "assistant", "content": null }]);
    let now = "2026-01-02T03:04:05".parse().expect("a date");
    let conversation = Conversation { messages: &messages, tools: None, add_generation_prompt: true, more: &[], now };
    _ = Template::new(&source, "<s>", "</s>").render(&conversation);
}

/// Changes one to eight places of the header: a byte, a number of four or eight bytes, or where the file ends.
fn mutate(bytes: &mut Vec<u8>, n_header: usize, random: &mut Random) {
    const NUMBERS: [u64; 12] = [0, 1, 2, 7, 31, 255, 65_536, 1 << 31, u32::MAX as u64, 1 << 62, u64::MAX - 7, u64::MAX];
    for _ in 0..=pick(random, 8) {
        let n = n_header.min(bytes.len());
        if n < 9 {
            return;
        }
        let at = pick(random, n - 8);
        match pick(random, 5) {
            0 => bytes[at] = random.bits() as u8,
            1 => bytes[at] ^= 1 << pick(random, 8),
            2 => bytes[at..at + 4].copy_from_slice(&(NUMBERS[pick(random, NUMBERS.len())] as u32).to_le_bytes()),
            3 => bytes[at..at + 8].copy_from_slice(&NUMBERS[pick(random, NUMBERS.len())].to_le_bytes()),
            _ if pick(random, 10) == 0 => bytes.truncate(at),
            _ => bytes.swap(at, at + 7),
        }
    }
}

fn pick(random: &mut Random, n: usize) -> usize {
    (random.bits() % n.max(1) as u64) as usize
}
