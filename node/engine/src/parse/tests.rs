use serde_json::json;

use super::*;

/// The answer in pieces of every length gives the same thinking, content and calls.
fn check(template: &str, prompt: &str, answer: &str, thinking: &str, content: &str, calls: &[(&str, Value)]) {
    let format = AnswerFormat::of_template(template);
    let tools = ["get", "add"].map(String::from).to_vec();
    let characters: Vec<char> = answer.chars().collect();
    for n in 1..=characters.len().max(1) {
        let mut parser = AnswerParser::new(format, prompt, tools.clone(), true);
        let mut all = Parsed::default();
        characters.chunks(n).for_each(|part| all.add(parser.push(&part.iter().collect::<String>())));
        all.add(parser.finish());
        let found: Vec<(&str, Value)> = all.calls.iter().map(|c| (c.name.as_str(), Value::Object(c.arguments.clone()))).collect();
        assert_eq!((all.thinking.as_str(), all.content.as_str()), (thinking, content), "pieces of {n}: {answer:?}");
        assert_eq!(found, calls, "pieces of {n}: {answer:?}");
    }
}

const QWEN: &str = "<tool_call> <think></think>";
const LLAMA: &str = "<|python_tag|>";
const MISTRAL: &str = "[TOOL_CALLS]";

fn rome() -> Value {
    json!({ "city": "Rome" })
}

#[test]
fn thinking_is_told_apart() {
    check(QWEN, "", "<think>\nHm <b>\n</think>\n\nYes.", "Hm <b>\n", "Yes.", &[]);
    check(QWEN, "x<think>\n", "\nHm\n</think>\n\nYes. ", "Hm\n", "Yes. ", &[]);
    check(QWEN, "", "\n Yes <think> no", "", "\n Yes <think> no", &[]);
    check(QWEN, "", "<thin", "", "<thin", &[]);
    check(QWEN, "", "<think>never ends", "never ends", "", &[]);
    check("[THINK][/THINK]", "", "[THINK]Hm[/THINK]Yes", "Hm", "Yes", &[]);
    check("", "", "<think>x</think>", "", "<think>x</think>", &[]);
}

#[test]
fn calls_between_marks() {
    let call = "<tool_call>\n{\"name\": \"get\", \"arguments\": {\"city\": \"Rome\"}}\n</tool_call>";
    check(QWEN, "", call, "", "", &[("get", rome())]);
    check(QWEN, "", &format!("Let me see.\n\n{call}\n{call}\n"), "", "Let me see.", &[("get", rome()), ("get", rome())]);
    check(QWEN, "", &format!("<think>a</think>\n\n{call}"), "a", "", &[("get", rome())]);
    let unknown = call.replace("get", "other");
    check(QWEN, "", &unknown, "", &unknown, &[]);
    check(QWEN, "", "<tool_call>{broken</tool_call> x", "", "<tool_call>{broken</tool_call> x", &[]);
    let coder = "<tool_call>\n<function=add>\n<parameter=a>\n1\n</parameter>\n<parameter=b>\ntwo words\n</parameter>\n</function>\n</tool_call>";
    check(QWEN, "", coder, "", "", &[("add", json!({ "a": 1, "b": "two words" }))]);
    let lfm = "<|tool_call_start|>[get(city=\"Rome\"), add(a=1.5, b=[True, None])]<|tool_call_end|>Looking.";
    check("<|tool_call_start|>", "", lfm, "", "Looking.", &[("get", rome()), ("add", json!({ "a": 1.5, "b": [true, null] }))]);
    let granite = "<|tool_call|>[{\"name\": \"get\", \"arguments\": {\"city\": \"Rome\"}}]";
    check("<|tool_call|>", "", granite, "", "", &[("get", rome())]);
    let cut = "<tool_call>\n{\"name\": \"get\", \"arguments\": {\"city\": \"Rome\"}}";
    check(QWEN, "", cut, "", "", &[("get", rome())]);
}

#[test]
fn calls_of_llama() {
    check(LLAMA, "", "{\"name\": \"get\", \"parameters\": {\"city\": \"Rome\"}}", "", "", &[("get", rome())]);
    check(LLAMA, "", "<|python_tag|>{\"name\": \"get\", \"parameters\": {\"city\": \"Rome\"}}", "", "", &[("get", rome())]);
    check(LLAMA, "", "<|python_tag|>get.call(city=\"Rome\")", "", "", &[("get", rome())]);
    let two = "{\"name\": \"get\", \"parameters\": {\"city\": \"Rome\"}}; {\"name\": \"add\", \"parameters\": {\"a\": \"1\"}}";
    check(LLAMA, "", two, "", "", &[("get", rome()), ("add", json!({ "a": "1" }))]);
    check(LLAMA, "", "{\"weather\": 1}", "", "{\"weather\": 1}", &[]);
    check(LLAMA, "", "[get(city='Rome')]", "", "", &[("get", rome())]);
    check(LLAMA, "", "Rome is {\"name\": \"get\"}", "", "Rome is {\"name\": \"get\"}", &[]);
    let deep = format!("[get(city={}1", "[".repeat(100_000));
    let mut parser = AnswerParser::new(AnswerFormat::of_template(LLAMA), "", vec!["get".into()], true);
    assert!(parser.push(&deep).is_empty());
    assert_eq!(parser.finish().content, deep, "E19: no recursion without bound");
}

#[test]
fn calls_of_mistral() {
    check(MISTRAL, "", "[TOOL_CALLS] [{\"name\": \"get\", \"arguments\": {\"city\": \"Rome\"}}]", "", "", &[("get", rome())]);
    check(MISTRAL, "", "[TOOL_CALLS]get[ARGS]{\"city\": \"Rome\"}", "", "", &[("get", rome())]);
    let two = "Yes.[TOOL_CALLS]get[CALL_ID]a1[ARGS]{\"city\": \"Rome\"}[TOOL_CALLS]add[ARGS]{}";
    check(MISTRAL, "", two, "", "Yes.", &[("get", rome()), ("add", json!({}))]);
    check(MISTRAL, "", "[TOOL_CALLS]get{\"city\": \"Rome\"}", "", "", &[("get", rome())]);
}

#[test]
fn calls_without_marks() {
    check("", "", "```json\n{\"name\": \"get\", \"arguments\": {\"city\": \"Rome\"}}\n```", "", "", &[("get", rome())]);
    check("", "", "```tool_code\nget(city=\"Rome\")\n```", "", "", &[("get", rome())]);
    check(
        "",
        "",
        "{\"function\": {\"name\": \"get\", \"arguments\": \"{\\\"city\\\": \\\"Rome\\\"}\"}}",
        "",
        "",
        &[("get", rome())],
    );
    check("", "", "```rust\nfn main() {}\n```\nSo.", "", "```rust\nfn main() {}\n```\nSo.", &[]);
    check("", "", "é", "", "é", &[]);
    check("", "", "  ``", "", "  ``", &[]);
}

#[test]
fn without_tools_calls_are_text() {
    let mut parser = AnswerParser::new(AnswerFormat::of_template(QWEN), "", Vec::new(), true);
    let answer = "<think>a</think><tool_call>{}</tool_call>";
    let mut all = parser.push(answer);
    all.add(parser.finish());
    assert_eq!((all.thinking.as_str(), all.content.as_str()), ("a", "<tool_call>{}</tool_call>"));
}

#[test]
fn thinking_nobody_wants_is_left_out() {
    let mut parser = AnswerParser::new(AnswerFormat::of_template(QWEN), "", Vec::new(), false);
    let mut all = parser.push("<think>a</think>b");
    all.add(parser.finish());
    assert_eq!((all.thinking.as_str(), all.content.as_str()), ("", "b"));
}
