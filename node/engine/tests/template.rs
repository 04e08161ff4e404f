//! Templates render byte for byte as Python's jinja2 renders them under transformers' settings. `scripts/golden/templates.py`
//! wrote the expected digests.

#![allow(clippy::unwrap_used, reason = "tests")]

use engine::{Conversation, Template, TemplateError};
use serde_json::Value;
use sha2::{Digest, Sha256};

fn fixture() -> Value {
    serde_json::from_str(include_str!("fixtures/templates.json")).unwrap()
}

fn render(source: &str, conversation: &Value, add_generation_prompt: bool) -> Result<String, TemplateError> {
    let now = fixture()["now"].as_str().unwrap().parse().unwrap();
    let more: Vec<(&str, Value)> =
        conversation.get("enable_thinking").map(|v| ("enable_thinking", v.clone())).into_iter().collect();
    let messages = &conversation["messages"];
    Template::new(source, "<BOS>", "<EOS>").render(&Conversation {
        messages,
        tools: conversation.get("tools"),
        add_generation_prompt,
        more: &more,
        now,
    })
}

#[test]
fn published_templates_render_as_jinja2_does() {
    let Some(data) = testkit::test_data() else { return };
    let fixture = fixture();
    let expected = fixture["expected"].as_object().unwrap();
    let mut wrong = Vec::new();
    let mut n_cases = 0;
    for (name, rows) in expected {
        let source = std::fs::read_to_string(data.join(format!("templates/{name}.jinja"))).unwrap();
        for (case, digest) in rows.as_object().unwrap() {
            let (conversation, generate) = case.split_once('/').unwrap();
            let found = render(&source, &fixture["conversations"][conversation], generate == "true");
            let found_digest =
                found.as_ref().ok().map(|text| Sha256::digest(text).iter().map(|b| format!("{b:02x}")).collect::<String>());
            n_cases += 1;
            if found_digest.as_deref() != digest.as_str() {
                let reason = found.map_or_else(
                    |e| e.to_string(),
                    |text| {
                        if digest.is_null() { "should be refused".into() } else { format!("other text of {} bytes", text.len()) }
                    },
                );
                wrong.push(format!("{name} {case}: {reason}"));
            }
        }
    }
    let names = std::fs::read_dir(data.join("templates")).unwrap().count();
    assert_eq!(expected.len(), names, "the fixture covers every template");
    assert!(wrong.is_empty(), "{} of {n_cases} cases differ:\n{}", wrong.len(), wrong.join("\n"));
}

fn check_refused(source: &str, part: &str) {
    let conversation = serde_json::json!({"messages": [{"role": "user", "content": "hi"}]});
    let error = render(source, &conversation, true).unwrap_err().to_string();
    assert!(error.contains(part), "{error:?} does not say {part:?}");
}

#[test]
fn runaway_and_broken_templates_are_refused() {
    check_refused("{% for i in range(100000) %}{% for j in range(100000) %}x{% endfor %}{% endfor %}", "steps");
    check_refused("{% if %}", "cannot be used");
    check_refused("{{ raise_exception('only two roles') }}", "only two roles");
    check_refused(&"x".repeat(65_537), "65537 bytes");
    check_refused("{{ messages | no_such_filter }}", "no_such_filter");
    check_refused(
        "{% set ns = namespace(s='x' * 1000) %}{% for i in range(5000) %}{{ ns.s }}{% endfor %}",
        "wrote 5000000 bytes",
    );
}

/// Nothing of the host is in reach: no attribute of Python's objects, no other file, no environment, no endless recursion.
#[test]
fn f01_f02_f03_what_templates_reach_for() {
    let conversation = serde_json::json!({"messages": [{"role": "user", "content": "hi"}]});
    for source in [
        "{{ messages.__class__ }}",
        "{{ messages.__class__.__mro__[1].__subclasses__() }}",
        "{{ ''.__class__.__base__.__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{{ self.__init__.__globals__ }}",
        "{{ namespace.__init__.__globals__ }}",
        "{{ raise_exception.__globals__ }}",
        "{{ config }}{{ request }}{{ environ }}{{ env }}",
        "{{ messages[0].content.format(messages) }}",
        "{{ '{0.__class__}'.format(messages) }}",
        "{{ messages | attr('__class__') }}",
        "{% include '/etc/passwd' %}",
        "{% import '/etc/passwd' as x %}{{ x }}",
        "{% extends '/etc/passwd' %}",
        "{% from '/etc/passwd' import x %}",
        "{% set x = lipsum %}{{ x }}",
        "{{ debug() }}",
        "{{ open('/etc/passwd') }}{{ exec('1') }}{{ __import__('os') }}",
    ] {
        // An error, or nothing: never more than what the messages hold.
        let text = render(source, &conversation, true).unwrap_or_default();
        assert!(["", "hi"].contains(&text.trim()), "{source} gave {text:?}");
    }
    for source in [
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{{ 'x' * 1000000000 }}",
        "{% for i in range(1000000000) %}x{% endfor %}",
        "{{ range(1000000000) | list | length }}",
        "{{ 'x'.ljust(1000000000) }}",
        "{{ '%1000000000s' % 'x' }}",
        "{{ '%1000000000s' | format('x') }}",
        "{{ 'x' | center(1000000000) }}",
        "{{ 'x\\ny' | indent(1000000000) }}",
        "{{ 'x'.center(1000000000) }}{{ 'x'.zfill(1000000000) }}{{ 'x'.rjust(1000000000) }}",
        "{{ messages | tojson(indent=1000000000) }}",
        "{{ ['x'] * 1000000000 }}",
    ] {
        assert!(render(source, &conversation, true).is_err(), "{source}");
    }
}
