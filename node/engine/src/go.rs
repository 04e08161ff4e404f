//! Go templates, as Modelfiles hold them: the part of Go's `text/template` that published templates use. Nothing of the host can
//! be reached from one, and steps and output are bounded.

mod cut;
mod datum;
mod functions;
mod lex;
mod parse;
mod run;
mod tools;

use serde_json::Value;

use crate::parse::AnswerFormat;
use datum::Datum;
use parse::Node;

/// Bytes of a template's source.
const SOURCE_BYTES_MAX: usize = 64 << 10;
/// Nodes a template may run; real ones need some thousands.
const N_STEPS_MAX: usize = 1_000_000;
/// Bytes a prompt may have beyond twice what went in.
const OUTPUT_BYTES_EXTRA: usize = 1 << 20;

/// Why a template cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GoTemplateError {
    #[error("template error: {0}")]
    Syntax(String),
    #[error("template error: {found} bytes, the limit is {SOURCE_BYTES_MAX}")]
    TooLong { found: usize },
    #[error("the template cannot be filled in: {0}")]
    Run(String),
    #[error("the template ran more than {N_STEPS_MAX} steps")]
    Steps,
    #[error("the template wrote more than the {limit} bytes allowed for these messages")]
    Output { limit: usize },
}

/// A parsed template.
#[derive(Debug)]
pub struct GoTemplate {
    root: Vec<Node>,
    /// For the last turn, where it does not go over messages: the root up to where the answer goes.
    last: Vec<Node>,
    /// Named by `define`.
    named: Vec<(String, Vec<Node>)>,
    source_bytes: usize,
    /// Whether it goes over all messages itself.
    takes_messages: bool,
    /// Whether it can offer tools, and fill gaps.
    takes_tools: bool,
    takes_suffix: bool,
    format: AnswerFormat,
}

/// Whether to think, and how hard, where the request says.
pub type GoThink<'a> = Option<(bool, Option<&'a str>)>;

/// What a template is filled in with.
#[derive(Debug, Default)]
pub struct GoConversation<'a> {
    /// Messages as objects with `role`, `content` and what else they have.
    pub messages: &'a [Value],
    pub tools: &'a [Value],
    pub think: GoThink<'a>,
    /// What `currentDate` tells, as year, month and day, and the day before.
    pub dates: [String; 2],
}

impl GoTemplate {
    /// Parses a template.
    ///
    /// # Errors
    /// When it is too long, or no valid template.
    pub fn parse(source: &str) -> Result<GoTemplate, GoTemplateError> {
        if source.len() > SOURCE_BYTES_MAX {
            return Err(GoTemplateError::TooLong { found: source.len() });
        }
        let (mut root, named) = parse::parse(source).map_err(GoTemplateError::Syntax)?;
        let uses = |name: &str| source.contains(&format!(".{name}"));
        if !uses("Messages") && !uses("Response") {
            root.extend(parse::parse("{{ .Response }}").map_err(GoTemplateError::Syntax)?.0);
        }
        Ok(GoTemplate {
            last: cut::up_to_response(&root),
            root,
            named,
            source_bytes: source.len(),
            takes_messages: uses("Messages"),
            takes_tools: uses("Tools"),
            takes_suffix: uses("Suffix"),
            format: AnswerFormat::of_template(source),
        })
    }

    /// How it asks the model to mark its thinking and its calls.
    pub fn format(&self) -> AnswerFormat {
        self.format
    }

    /// Whether it shows tools to the model.
    pub fn takes_tools(&self) -> bool {
        self.takes_tools
    }

    /// Whether it can fill a gap between two texts.
    pub fn takes_suffix(&self) -> bool {
        self.takes_suffix
    }

    /// The prompt for a conversation.
    ///
    /// # Errors
    /// When a function is given what it cannot take, or a limit is reached.
    pub fn render(&self, conversation: &GoConversation) -> Result<String, GoTemplateError> {
        let (messages, tools) = (collated(conversation.messages), tools::in_order(conversation.tools));
        let n_in = self.source_bytes
            + Value::from(conversation.messages).to_string().len()
            + Value::from(conversation.tools).to_string().len();
        let mut run = run::Run::new(&self.named, &conversation.dates, N_STEPS_MAX, 2 * n_in + OUTPUT_BYTES_EXTRA);
        let think = think_flags(conversation.think);
        if self.takes_messages {
            let systems: Vec<&str> =
                messages.iter().filter(|m| m["role"] == "system").filter_map(|m| m["content"].as_str()).collect();
            let (system, messages) = (Datum::from(systems.join("\n\n")), Datum::from(messages.as_slice()));
            let names = [("messages", messages), ("tools", tools.as_slice().into()), ("system", system), ("response", "".into())];
            run.execute(&self.root, &Datum::map(names.into_iter().chain(think)))?;
            return Ok(run.out);
        }
        let turn = |system: &str, prompt: &str, response: &str| {
            let names = [("system", system.into()), ("prompt", prompt.into()), ("response", response.into())];
            Datum::map(names.into_iter().chain(think.clone()))
        };
        // Once for each pair of turns; the last time only up to where the answer goes.
        let (mut system, mut prompt, mut response) = ("", "", "");
        for message in &messages {
            let content = message["content"].as_str().unwrap_or_default();
            let role = message["role"].as_str().unwrap_or_default();
            let begins =
                role == "system" && !(prompt.is_empty() && response.is_empty()) || role == "user" && !response.is_empty();
            if begins {
                run.execute(&self.root, &turn(system, prompt, response))?;
                (system, prompt, response) = ("", "", "");
            }
            match role {
                "system" => system = content,
                "user" => prompt = content,
                "assistant" => response = content,
                // The template has no place for it.
                _ => {}
            }
        }
        run.execute(&self.last, &turn(system, prompt, response))?;
        Ok(run.out)
    }

    /// The prompt to fill a gap between two texts.
    ///
    /// # Errors
    /// As [`GoTemplate::render`].
    pub fn render_gap(&self, prompt: &str, suffix: &str, think: GoThink) -> Result<String, GoTemplateError> {
        let dates = [String::new(), String::new()];
        let limit = 2 * (self.source_bytes + prompt.len() + suffix.len()) + OUTPUT_BYTES_EXTRA;
        let mut run = run::Run::new(&self.named, &dates, N_STEPS_MAX, limit);
        let names = [("prompt", prompt.into()), ("suffix", suffix.into()), ("response", "".into())];
        run.execute(&self.root, &Datum::map(names.into_iter().chain(think_flags(think))))?;
        Ok(run.out)
    }
}

/// What a template may ask of thinking.
fn think_flags(think: GoThink) -> [(&'static str, Datum); 3] {
    let level = think.and_then(|(on, level)| level.or(on.then_some("medium"))).unwrap_or_default();
    [("think", think.is_some_and(|(on, _)| on).into()), ("think_level", level.into()), ("is_think_set", think.is_some().into())]
}

/// Messages in which those of one role that follow each other are one, except results of tools; arguments of calls by name.
/// The calls of such messages are all kept, where Go keeps those of the first.
fn collated(messages: &[Value]) -> Vec<Value> {
    let mut all: Vec<Value> = Vec::with_capacity(messages.len());
    for message in messages {
        let mut message = message.clone();
        for call in message.get_mut("tool_calls").and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(Value::Object(function)) = call.get_mut("function") {
                function.entry("index").or_insert(0.into());
                function.get_mut("arguments").into_iter().for_each(Value::sort_all_objects);
            }
        }
        match all.last_mut() {
            Some(last) if last["role"] == message["role"] && last["role"] != "tool" => merge(last, &message),
            _ => all.push(message),
        }
    }
    all
}

/// Adds what a message says, and the calls it makes, to the one before.
fn merge(last: &mut Value, message: &Value) {
    if !last["content"].is_string() {
        last["content"] = "".into();
    }
    if let Value::String(text) = &mut last["content"] {
        text.push_str("\n\n");
        text.push_str(message["content"].as_str().unwrap_or_default());
    }
    let Some(calls) = message["tool_calls"].as_array() else { return };
    match last["tool_calls"].as_array_mut() {
        Some(known) => known.extend_from_slice(calls),
        None => last["tool_calls"] = calls.as_slice().into(),
    }
}
