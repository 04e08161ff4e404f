//! The chat template in the file (Jinja) to a prompt, as Python's transformers library renders it: blocks trimmed on both
//! sides, loop controls, `tojson` without HTML escapes, `raise_exception` and `strftime_now`.

mod python;
mod source;

use jiff::civil::DateTime;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Value;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Output, State, UndefinedBehavior};

/// Instructions a template may run; real ones need some thousands.
const N_STEPS_MAX: u64 = 1_000_000;
/// Bytes of a template's source.
const SOURCE_BYTES_MAX: usize = 64 << 10;
/// Bytes a prompt may have beyond twice what went in.
const OUTPUT_BYTES_EXTRA: usize = 1 << 20;

/// Why a template gave no prompt.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    #[error("the model's template cannot be used: {0}")]
    Syntax(String),
    #[error("the model's template refused the messages: {0}")]
    Render(String),
    #[error("the model's template has {found} bytes, the limit is {SOURCE_BYTES_MAX}")]
    TooLong { found: usize },
    #[error("the model's template ran more than {N_STEPS_MAX} steps")]
    Steps,
    #[error("the model's template wrote {found} bytes, the limit for these messages is {limit}")]
    Output { found: usize, limit: usize },
}

/// A chat template and the texts of the tokens it may name.
pub struct Template {
    source: String,
    bos: String,
    eos: String,
}

/// What a template renders.
pub struct Conversation<'a> {
    /// A list of messages, each an object with a role.
    pub messages: &'a serde_json::Value,
    /// A list of tools, if any are offered.
    pub tools: Option<&'a serde_json::Value>,
    /// Whether the prompt ends where the assistant begins to speak.
    pub add_generation_prompt: bool,
    /// Further names, such as `enable_thinking`.
    pub more: &'a [(&'a str, serde_json::Value)],
    /// What `strftime_now` tells.
    pub now: DateTime,
}

impl Template {
    /// A template with the texts of the first and last token of a sequence. Its syntax is checked when it first renders.
    pub fn new(source: &str, bos: &str, eos: &str) -> Template {
        Template { source: source.into(), bos: bos.into(), eos: eos.into() }
    }

    /// Renders a conversation.
    ///
    /// # Errors
    /// When the template cannot be parsed, refuses the messages, or exceeds its limits of steps and output.
    pub fn render(&self, conversation: &Conversation) -> Result<String, TemplateError> {
        if self.source.len() > SOURCE_BYTES_MAX {
            return Err(TemplateError::TooLong { found: self.source.len() });
        }
        let now = conversation.now;
        let mut environment = environment();
        environment.add_function("strftime_now", move |format: &str| {
            jiff::fmt::strtime::format(format, now).map_err(|e| Error::new(ErrorKind::InvalidOperation, e.to_string()))
        });
        let source = source::rewritten(&self.source);
        let template = environment.template_from_str(&source).map_err(|e| TemplateError::Syntax(message(&e)))?;
        let mut context = vec![
            ("messages", python::value(conversation.messages)),
            ("add_generation_prompt", Value::from(conversation.add_generation_prompt)),
            ("bos_token", Value::from(&self.bos)),
            ("eos_token", Value::from(&self.eos)),
            ("tools", python::value(conversation.tools.unwrap_or(&serde_json::Value::Null))),
        ];
        context.extend(conversation.more.iter().map(|(name, value)| (*name, python::value(value))));
        let text = template.render(Value::from_pairs(context)).map_err(|e| match e.kind() {
            ErrorKind::OutOfFuel => TemplateError::Steps,
            _ => TemplateError::Render(message(&e)),
        })?;
        let n_in =
            self.source.len() + conversation.messages.to_string().len() + conversation.tools.map_or(0, |t| t.to_string().len());
        let limit = 2 * n_in + OUTPUT_BYTES_EXTRA;
        if text.len() > limit { Err(TemplateError::Output { found: text.len(), limit }) } else { Ok(text) }
    }
}

/// The innermost reason, without the engine's source excerpt.
fn message(error: &Error) -> String {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    let text = innermost.to_string();
    text.lines().next().unwrap_or_default().chars().take(300).collect()
}

fn environment<'a>() -> Environment<'a> {
    let mut environment = Environment::new();
    // It tells of the engine, not of the conversation.
    environment.remove_global("debug");
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.expect("the standard delimiters are valid"));
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_undefined_behavior(UndefinedBehavior::Lenient);
    environment.set_fuel(Some(N_STEPS_MAX));
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_function("raise_exception", |text: &str| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, text.to_owned()))
    });
    python::add_filters(&mut environment);
    environment.add_function(source::MARKUP_SUM, source::markup_sum);
    environment.set_formatter(|out: &mut Output, _: &mut State, value: &Value| {
        write!(out, "{value}").map_err(|_| Error::new(ErrorKind::WriteFailure, "the prompt could not be written"))
    });
    environment
}
