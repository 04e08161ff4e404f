//! Go templates of published models and of Modelfiles.

#![allow(clippy::unwrap_used, reason = "tests")]

use engine::{GoConversation, GoTemplate, GoTemplateError};
use serde_json::{Value, json};

fn render(source: &str, messages: Value, tools: Value) -> Result<String, GoTemplateError> {
    GoTemplate::parse(source)?.render(&GoConversation {
        messages: messages.as_array().unwrap(),
        tools: tools.as_array().unwrap(),
        think: None,
        dates: ["2026-11-22".into(), "2026-11-21".into()],
    })
}

fn check(source: &str, expected: &str) {
    let messages = json!([
        { "role": "system", "content": "Be kind." },
        { "role": "user", "content": "Hi" },
        { "role": "assistant", "content": "Hello" },
        { "role": "user", "content": "Bye <b>" },
    ]);
    assert_eq!(render(source, messages, json!([])).unwrap(), expected, "{source}");
}

#[test]
fn what_the_language_has() {
    // The message list is there, so nothing is added behind.
    let check = |source: &str, expected: &str| check(&format!("{{{{ if .Messages }}}}{{{{ end }}}}{source}"), expected);
    check("a {{- /* gone */ -}} b", "ab");
    check("{{ .System }}|{{ .Nothing }}|{{ .Nothing.More }}", "Be kind.||");
    check("{{ range .Messages }}{{ .Role }} {{ end }}", "system user assistant user ");
    check("{{ range $i, $m := .Messages }}{{ $i }}{{ $m.Role }}{{ if eq $i 1 }}{{ break }}{{ end }},{{ end }}", "0system,1user");
    check("{{ range $i, $_ := .Messages }}{{ if lt $i 2 }}{{ continue }}{{ end }}{{ $i }}{{ end }}", "23");
    check("{{ range .Tools }}x{{ else }}none{{ end }}", "none");
    check("{{ $last := index .Messages 3 }}{{ $last.Content }}", "Bye <b>");
    check("{{ len .Messages }} {{ len (slice .Messages 1 3) }} {{ (index .Messages 0).Role }}", "4 2 system");
    check("{{ if and .System (not .Tools) }}yes{{ else if .Tools }}tools{{ else }}no{{ end }}", "yes");
    check("{{ if or .Tools .Nothing }}yes{{ else }}no{{ end }}", "no");
    check("{{ with .System }}{{ . }}{{ end }}{{ with .Tools }}x{{ else }}{{ len .Messages }}{{ end }}", "Be kind.4");
    check("{{ $x := 1 }}{{ range .Messages }}{{ $x = 2 }}{{ end }}{{ $x }}", "2");
    check(
        "{{ define \"a\" }}<{{ .Role }}>{{ end }}{{ range .Messages }}{{ template \"a\" . }}{{ end }}",
        "<system><user><assistant><user>",
    );
    check("{{ printf \"%s-%d-%q\" \"a\" 3 \"b\" }} {{ \"x\" | print \"y\" }}", "a-3-\"b\" yx");
    check("{{ printf \"[%4s|%-4s|%03d|%.2f|%*s]\" \"a\" \"b\" 7 1.5 3 \"c\" }}", "[   a|b   |007|1.50|  c]");
    check("{{ printf \"%05d\" -7 }} {{ slice \"añb\" 0 2 }} {{ slice \"añb\" 3 }}", "-0007 a\u{fffd} b");
    check("{{ len (printf \"a%*s\" 41 \"\") }} {{ print 1 2 \"x\" 3 }}", "42 1 2x3");
    check("{{ eq \"a\" \"b\" \"a\" }} {{ ne 1 2 }} {{ ge 2 2 }} {{ le \"a\" \"b\" }}", "true true true true");
    check("{{ json (index .Messages 3) }}", "{\"role\":\"user\",\"content\":\"Bye \\u003cb\\u003e\"}");
    check("{{ currentDate }} {{ yesterdayDate }}", "2026-11-22 2026-11-21");
    check(
        "{{ range $i, $m := .Messages }}{{ if eq (len (slice $.Messages $i)) 1 }}last {{ $m.Role }}{{ end }}{{ end }}",
        "last user",
    );
    check("{{ `raw \"text\"` }}{{ true }}{{ 1.5 }}", "raw \"text\"true1.5");
}

/// Templates of the old kind go once over each pair of turns, and end where the answer goes.
#[test]
fn templates_without_messages() {
    let source = "{{ if .System }}<|im_start|>system\n{{ .System }}<|im_end|>\n{{ end }}{{ if .Prompt }}<|im_start|>user\n{{ .Prompt }}<|im_end|>\n{{ end }}<|im_start|>assistant\n{{ .Response }}<|im_end|>\n";
    check(
        source,
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello<|im_end|>\n\
         <|im_start|>user\nBye <b><|im_end|>\n<|im_start|>assistant\n",
    );
    check(
        "[INST] {{ if .System }}{{ .System }} {{ end }}{{ .Prompt }} [/INST]",
        "[INST] Be kind. Hi [/INST]Hello[INST] Bye <b> [/INST]",
    );
    check("{{ .Prompt }}", "HiHelloBye <b>");
    // What stands behind the answer goes, reached or not.
    check("{{ .Prompt }}:{{ if .Response }}{{ .Response }};{{ end }} on", "Hi:Hello; onBye <b>:");
}

fn weather() -> Value {
    json!([{ "type": "function", "function": { "name": "get_weather", "description": "Weather of a city",
        "parameters": { "type": "object", "required": ["city"], "properties": { "city": { "type": "string", "description": "Its name" } } } } }])
}

/// The template that the registry serves with Qwen 2.5, written anew in its form.
#[test]
fn tools_and_results_in_the_form_of_qwen() {
    let source = r#"{{- if .Messages }}
{{- if or .System .Tools }}<|im_start|>system
{{- if .System }}
{{ .System }}
{{- end }}
{{- if .Tools }}

# Tools
<tools>
{{- range .Tools }}
{"type": "function", "function": {{ .Function }}}
{{- end }}
</tools>
{{- end }}<|im_end|>
{{ end }}
{{- range $i, $_ := .Messages }}
{{- $last := eq (len (slice $.Messages $i)) 1 -}}
{{- if eq .Role "user" }}<|im_start|>user
{{ .Content }}<|im_end|>
{{ else if eq .Role "assistant" }}<|im_start|>assistant
{{ if .Content }}{{ .Content }}
{{- else if .ToolCalls }}<tool_call>
{{ range .ToolCalls }}{"name": "{{ .Function.Name }}", "arguments": {{ .Function.Arguments }}}
{{ end }}</tool_call>
{{- end }}{{ if not $last }}<|im_end|>
{{ end }}
{{- else if eq .Role "tool" }}<|im_start|>user
<tool_response>
{{ .Content }}
</tool_response><|im_end|>
{{ end }}
{{- if and (ne .Role "assistant") $last }}<|im_start|>assistant
{{ end }}
{{- end }}
{{- else }}
{{- if .System }}<|im_start|>system
{{ .System }}<|im_end|>
{{ end }}{{ .Response }}{{ if .Response }}<|im_end|>{{ end }}{{ end }}"#;
    let messages = json!([
        { "role": "user", "content": "Weather in Rome?" },
        { "role": "assistant", "content": "", "tool_calls": [{ "function": { "name": "get_weather", "arguments": { "unit": "C", "city": "Rome" } } }] },
        { "role": "tool", "content": "20 °C" },
    ]);
    let expected = "<|im_start|>system\n\n# Tools\n<tools>\n{\"type\": \"function\", \"function\": {\"name\":\"get_weather\",\"description\":\"Weather of a city\",\"parameters\":{\"type\":\"object\",\"required\":[\"city\"],\"properties\":{\"city\":{\"type\":\"string\",\"description\":\"Its name\"}}}}}\n</tools><|im_end|>\n\
        <|im_start|>user\nWeather in Rome?<|im_end|>\n<|im_start|>assistant\n<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\":\"Rome\",\"unit\":\"C\"}}\n</tool_call><|im_end|>\n\
        <|im_start|>user\n<tool_response>\n20 °C\n</tool_response><|im_end|>\n<|im_start|>assistant\n";
    assert_eq!(render(source, messages, weather()).unwrap(), expected);
}

/// Go knows tools by their types: fields in their order, names sorted, lists of texts without quotes.
#[test]
fn tools_as_go_prints_them() {
    let tools = json!([{ "function": { "parameters": { "properties": {
            "b": { "enum": ["x", 1], "type": ["string", "null"], "description": "B" },
            "a": { "items": { "type": "integer", "minimum": 1 }, "type": "array", "enum": [] },
        }, "type": "object", "required": [] }, "name": "pick" }, "type": "function" }]);
    let question = json!([{ "role": "user", "content": "x" }]);
    let source = "{{ if .Messages }}{{ .Tools }}{{ end }}";
    let expected = concat!(
        r#"[{"type":"function","function":{"name":"pick","parameters":{"type":"object","properties":{"#,
        r#""a":{"type":"array","items":{"minimum":1,"type":"integer"}},"#,
        r#""b":{"type":["string","null"],"description":"B","enum":["x",1]}}}}}]"#
    );
    assert_eq!(render(source, question.clone(), tools.clone()).unwrap(), expected);
    let source = "{{ if .Messages }}{{ range .Tools }}{{ range .Function.Parameters.Properties }}{{ .Type }}{{ if .Enum }}{{ .Enum }}{{ end }} {{ end }}{{ end }}{{ end }}";
    assert_eq!(render(source, question, tools).unwrap(), "array [string null][x 1] ");
}

/// A template looks at all messages for each of them, as most do; none of it is copied.
#[test]
fn long_conversations() {
    let message = |i: usize| json!({ "role": (["user", "assistant"][i % 2]), "content": "x".repeat(100) });
    let messages: Value = (0..4096).map(message).collect();
    let source = "{{ range $i, $_ := .Messages }}{{ if eq (len (slice $.Messages $i)) 1 }}{{ .Role }}{{ end }}{{ end }}";
    assert_eq!(render(source, messages.clone(), json!([])).unwrap(), "assistant");
    assert_eq!(render("{{ .Prompt }}{{ .Response }}", messages, json!([])).unwrap().len(), 409_600);
    let same: Value = (0..4096).map(|_| json!({ "role": "user", "content": "x".repeat(4000) })).collect();
    assert_eq!(render("{{ .Prompt }}", same, json!([])).unwrap().len(), 4000 * 4096 + 2 * 4095);
}

/// What one role says in several messages is one message, and all its calls are kept.
#[test]
fn messages_of_one_role() {
    let call = |name: &str| json!({ "role": "assistant", "content": name, "tool_calls": [{ "function": { "name": name, "arguments": { "b": { "d": 1, "c": 2 }, "a": 3 } } }] });
    let messages = json!([{ "role": "user", "content": "x" }, call("one"), call("two"), { "role": "tool", "content": "y" }, { "role": "tool", "content": "z" }]);
    let source = "{{ range .Messages }}{{ .Role }}:{{ .Content }}{{ range .ToolCalls }}[{{ .Function.Index }}{{ .Function.Name }}{{ .Function.Arguments }}]{{ end }};{{ end }}";
    let arguments = r#"{"a":3,"b":{"c":2,"d":1}}"#;
    let expected = format!("user:x;assistant:one\n\ntwo[0one{arguments}][0two{arguments}];tool:y;tool:z;");
    assert_eq!(render(source, messages, json!([])).unwrap(), expected);
}

#[test]
fn gaps_are_filled_between_prefix_and_suffix() {
    let source = "{{- if .Suffix }}<|fim_prefix|>{{ .Prompt }}<|fim_suffix|>{{ .Suffix }}<|fim_middle|>{{ else }}{{ .Prompt }}{{ end }}{{ .Response }}<|end|>";
    let template = GoTemplate::parse(source).unwrap();
    assert_eq!(
        template.render_gap("a = ", "\nprint(a)", None).unwrap(),
        "<|fim_prefix|>a = <|fim_suffix|>\nprint(a)<|fim_middle|><|end|>"
    );
}

#[test]
fn types_in_typescript_and_thinking() {
    let source = "{{ if .Messages }}{{ end }}{{ range .Tools }}{{ range $name, $p := .Function.Parameters.Properties }}{{ $name }}: {{ $p.ToTypeScriptType }};{{ end }}{{ end }}";
    let mut tools = weather();
    tools[0]["function"]["parameters"]["properties"] =
        json!({ "b": { "type": "array", "items": { "type": "integer" } }, "a": { "type": ["string", "null"] } });
    assert_eq!(render(source, json!([{ "role": "user", "content": "x" }]), tools).unwrap(), "a: string | null;b: number[];");
    let think = |think| {
        let source = "{{ if .Messages }}{{ end }}{{ .Think }} {{ .ThinkLevel }} {{ .IsThinkSet }}";
        let messages = [json!({ "role": "user", "content": "x" })];
        let conversation = GoConversation { messages: &messages, think, ..GoConversation::default() };
        GoTemplate::parse(source).unwrap().render(&conversation).unwrap()
    };
    assert_eq!(
        (think(None), think(Some((true, None))), think(Some((true, Some("low")))), think(Some((false, None)))),
        ("false  false".into(), "true medium true".into(), "true low true".into(), "false  true".into())
    );
}

fn check_refused(source: &str, part: &str) {
    let error = render(source, json!([{ "role": "user", "content": "x" }]), json!([])).unwrap_err().to_string();
    assert!(error.contains(part), "{error:?} does not say {part:?}");
}

#[test]
fn b04_f01_f02_f03_f04_broken_and_endless_templates() {
    for source in [
        "{{ if .X }}",
        "{{ end }}",
        "{{ .X",
        "{{ nope .X }}",
        "{{ if }}x{{ end }}",
        "{{ \"x }}",
        "{{ template x }}",
        "{{ (.X }}",
        "{{ .X | }}",
    ] {
        check_refused(source, "template error: ");
    }
    check_refused(&"x".repeat(65_537), "65537 bytes, the limit is 65536");
    check_refused(&format!("{}x{}", "{{ if 1 }}".repeat(200), "{{ end }}".repeat(200)), "nested deeper than 64 levels");
    check_refused(&format!("{{{{ {}1{} }}}}", "(".repeat(60_000 / 2), ")".repeat(60_000 / 2)), "nested deeper than 64 levels");
    check_refused("{{ .Messages }}{{ range 1000000000 }}{{ range 1000000000 }}x{{ end }}{{ end }}", "steps");
    check_refused("{{ define \"a\" }}{{ template \"a\" . }}{{ end }}{{ template \"a\" . }}", "deeper than 64 levels");
    let long = "y".repeat(60_000);
    check_refused(&format!("{{{{ if .Messages }}}}{{{{ end }}}}{{{{ range 100 }}}}{long}{{{{ end }}}}"), "wrote more than");
    let blocks = format!(
        "{{{{ define \"a\" }}}}{}{{{{ template \"a\" }}}}{}{{{{ end }}}}{{{{ template \"a\" }}}}",
        "{{ range 1 }}".repeat(60),
        "{{ end }}".repeat(60)
    );
    check_refused(&blocks, "deeper in each other than 200 levels");
    check_refused("{{ $x := \"aaaaaaaa\" }}{{ range 45 }}{{ $x = print $x $x }}{{ end }}{{ .Messages }}", "more than 256 MiB");
    check_refused("{{ range 3000000 }}{{ $x := $ }}{{ end }}{{ .Messages }}", "steps");
    let compared = format!(
        "{{{{ $x := \"{long}\" }}}}{{{{ range 100000 }}}}{{{{ if eq $x $x }}}}{{{{ end }}}}{{{{ end }}}}{{{{ .Messages }}}}"
    );
    check_refused(&compared, "makes and compares more than 256 MiB");
    check_refused("{{ printf \"%*s%*s\" 60000 \"\" 6000 \"\" }}", "more than 65536 characters");
    check_refused("{{ index .Messages 7 }}", "index out of range");
    check_refused("{{ .Messages }}{{ template \"nope\" }}", "not defined");
}
