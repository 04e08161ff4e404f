//! Constrained answers: whatever the logits say, what is chosen under a constraint satisfies it.

#![allow(clippy::unwrap_used, reason = "tests")]

use engine::{AnswerFormat, AnswerParser, Constraint, GrammarError, Grammars, Model};
use kernels::QuantType;
use serde_json::{Value, json};
use testkit::{Random, Shape, tiny_model};

fn model() -> Model {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), tiny_model(&Shape::tiny("llama"), QuantType::Q8_0, 1).bytes()).unwrap();
    Model::open(file.path()).unwrap()
}

/// Bytes chosen by random logits, a little in favour of what ends texts, lists and objects, until the answer is complete.
fn walk(model: &Model, constraint: &Constraint, format: AnswerFormat, seed: u64) -> Result<String, GrammarError> {
    let tokenizer = model.tokenizer();
    let mut grammar = Grammars::new(tokenizer)?.compile(constraint, format)?;
    let (mut random, mut bytes) = (Random(seed), Vec::new());
    for _ in 0..4000 {
        let mut logits: Vec<f32> = (0..tokenizer.n_vocab()).map(|_| random.float()).collect();
        for end in b"\"]}" {
            logits[usize::from(end - b'!')] += 0.5;
        }
        grammar.mask(&mut logits)?;
        let token = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap() as u32;
        if tokenizer.is_end(token) {
            return Ok(String::from_utf8(bytes).unwrap());
        }
        bytes.extend_from_slice(tokenizer.control_text(token).map_or(tokenizer.piece(token), str::as_bytes));
        if grammar.accept(token)? {
            return Ok(String::from_utf8(bytes).unwrap());
        }
    }
    panic!("no end after {:?}", String::from_utf8_lossy(&bytes));
}

fn plain() -> AnswerFormat {
    AnswerFormat::of_template("")
}

#[test]
fn g17_g18_what_is_chosen_is_what_was_asked_for() {
    let model = model();
    let schema = json!({
        "type": "object",
        "properties": {
            "colour": { "enum": ["red", "green"] },
            "age": { "type": "integer", "minimum": 0, "maximum": 150 },
            "tags": { "type": "array", "items": { "$ref": "#/$defs/tag" }, "minItems": 1, "maxItems": 2 },
        },
        "required": ["colour", "age", "tags"],
        "additionalProperties": false,
        "$defs": { "tag": { "type": "string", "pattern": "^[a-c]{2}$" } },
    });
    for seed in 0..8 {
        let any: Value = serde_json::from_str(&walk(&model, &Constraint::Json, plain(), seed).unwrap()).unwrap();
        assert!(any.is_object());
        let text = walk(&model, &Constraint::Schema(schema.clone()), plain(), seed).unwrap();
        let value: Value = serde_json::from_str(&text).unwrap();
        assert!(value["colour"] == "red" || value["colour"] == "green", "{text}");
        assert!(value["age"].as_u64().is_some_and(|age| age <= 150), "{text}");
        let tags = value["tags"].as_array().unwrap();
        assert!((1..=2).contains(&tags.len()) && tags.iter().all(|t| t.as_str().unwrap().len() == 2), "{text}");
        assert_eq!(value.as_object().unwrap().len(), 3, "{text}");
    }
}

#[test]
fn a_required_call_parses_in_every_format() {
    let model = model();
    let parameters = json!({ "type": "object", "properties": { "city": { "$ref": "#/$defs/city" } }, "required": ["city"],
        "additionalProperties": false, "$defs": { "city": { "enum": ["Rome", "Oslo"] } } });
    let tools = vec![("get".to_owned(), parameters.clone()), ("set".to_owned(), parameters)];
    let templates = [
        "",
        "<tool_call>",
        "[TOOL_CALLS]",
        "<|python_tag|>",
        "<|tool_call|>",
        "<|tool_call_start|>",
        "functools[",
        "<tool_call> <function=",
    ];
    for template in templates {
        let format = AnswerFormat::of_template(template);
        for seed in 0..4 {
            let text = walk(&model, &Constraint::Call(tools.clone()), format, seed).unwrap();
            let mut parser = AnswerParser::new(format, "", vec!["get".into(), "set".into()], true);
            let (first, last) = (parser.push(&text), parser.finish());
            let calls = [first.calls, last.calls].concat();
            assert_eq!((calls.len(), first.content + &last.content), (1, String::new()), "{template:?}: {text}");
            assert!(["Rome", "Oslo"].contains(&calls[0].arguments["city"].as_str().unwrap()), "{text}");
        }
    }
}

fn check_refused(schema: Value, part: &str) {
    let model = model();
    let found = walk(&model, &Constraint::Schema(schema), plain(), 1).unwrap_err().to_string();
    assert!(found.contains(part), "{found:?} does not say {part:?}");
}

#[test]
fn f05_f06_f07_f08_f12_schemas_that_are_refused() {
    let nested = |n: usize| (0..n).fold(json!({ "type": "string" }), |inner, _| json!({ "items": inner }));
    check_refused(nested(33), "levels, the limit is 32");
    check_refused(json!({ "enum": (0..2001).collect::<Vec<_>>() }), "parts, the limit is 2000");
    check_refused(json!({ "description": "x".repeat(70_000) }), "bytes, the limit is 65536");
    check_refused(json!({ "type": "string", "pattern": "(?=a)b" }), "cannot be used");
    check_refused(json!({ "type": "string", "pattern": r"(a)\1" }), "cannot be used");
    check_refused(json!({ "type": "string", "pattern": "*a" }), "cannot be used");
    check_refused(json!({ "type": "string", "pattern": "(((a" }), "cannot be used");
    check_refused(json!({ "type": "string", "pattern": "(".repeat(30_000) }), "cannot be used");
    check_refused(json!({ "type": "object", "no_such_keyword": 1, "dependentSchemas": {} }), "dependentSchemas");
    check_refused(json!({ "$ref": "#/$defs/missing" }), "cannot be used");
    check_refused(json!({ "$ref": "http://example.com/schema" }), "cannot be used");
    check_refused(json!(true), "no object");
}

#[test]
fn f05_f06_f08_f11_schemas_that_are_counted_and_end() {
    let model = model();
    let of = |schema: Value| walk(&model, &Constraint::Schema(schema), plain(), 3);
    // Linear matching: an automaton has no catastrophic patterns.
    let text: String = serde_json::from_str(&of(json!({ "type": "string", "pattern": "^(a|a)*$" })).unwrap()).unwrap();
    assert!(text.bytes().all(|b| b == b'a'));
    // Counted, not unrolled, or refused.
    _ = of(json!({ "type": "string", "maxLength": 1_000_000_000 }));
    _ = of(json!({ "type": "array", "maxItems": 1_000_000_000, "items": { "type": "null" } }));
    _ = of(json!({ "type": "string", "pattern": "^((a{1,1000}){1,1000}){1,1000}$" }));
    let linked = json!({ "$ref": "#/$defs/a", "$defs": { "a": { "$ref": "#/$defs/b" }, "b": { "$ref": "#/$defs/a" } } });
    assert!(of(linked).is_err(), "a reference to nothing but itself");
    assert!(of(json!({ "type": "integer", "minimum": 5, "maximum": 4 })).is_err(), "nothing satisfies it");
}
