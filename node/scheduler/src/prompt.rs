//! From messages or text to the tokens of a prompt, cut to the context as Ollama cuts it.

use engine::{Conversation, Model, Specials};
use serde_json::Value;

use crate::request::{Failure, Input, Options};

/// What the input becomes.
pub(crate) enum Prompt {
    Tokens(Vec<u32>),
    Rendered(String),
}

/// Room a prompt must leave for at least one token of the answer.
const ANSWER_ROOM: usize = 1;

/// Renders and tokenizes the input of a request for a context of `n_ctx`.
pub(crate) fn prepare(model: &Model, input: &Input, options: &Options, n_ctx: usize) -> Result<Prompt, Failure> {
    match input {
        Input::Load | Input::Unload => Ok(Prompt::Tokens(Vec::new())),
        Input::Chat { messages, truncate, context, render_only } => {
            let (text, guard) = fitting(model, messages, *truncate, n_ctx.saturating_sub(context.len()))?;
            if *render_only {
                return Ok(Prompt::Rendered(text.replace(guard, "")));
            }
            let mut tokens = context.clone();
            tokens.extend(encode(model, &text, Some(guard), context.is_empty()));
            if tokens.len() + ANSWER_ROOM > n_ctx {
                return Err(too_long(tokens.len(), n_ctx));
            }
            Ok(Prompt::Tokens(tokens))
        }
        Input::Text { prompt, context } => {
            let mut tokens = context.clone();
            tokens.extend(encode(model, prompt, None, context.is_empty()));
            if tokens.len() + ANSWER_ROOM > n_ctx {
                if !options.shift {
                    return Err(too_long(tokens.len(), n_ctx));
                }
                shorten(&mut tokens, options.n_keep.unwrap_or(usize::MAX), n_ctx);
            }
            Ok(Prompt::Tokens(tokens))
        }
    }
}

/// Cuts the middle out so that about half of the window after the kept tokens is free: what stays is
/// `n_ctx − max((n_ctx − n_keep) / 2, 1)` long.
pub(crate) fn shorten(tokens: &mut Vec<u32>, n_keep: usize, n_ctx: usize) {
    // At least two places after the kept tokens are needed for half of them to be something.
    let n_keep = n_keep.min(n_ctx.saturating_sub(2));
    let n_left = n_ctx - ((n_ctx - n_keep) / 2).max(1);
    if tokens.len() > n_left {
        tokens.drain(n_keep..tokens.len() - (n_left - n_keep));
    }
}

fn too_long(n_prompt: usize, n_ctx: usize) -> Failure {
    Failure::request(format!(
        "the request of {n_prompt} tokens exceeds the available context size of {n_ctx} tokens; shorten it or raise num_ctx"
    ))
}

fn encode(model: &Model, text: &str, guard: Option<char>, first: bool) -> Vec<u32> {
    let tokens = model.tokenizer().encode(text, Specials::Parse { guard });
    match model.tokenizer().bos() {
        Some(bos) if first && tokens.first() != Some(&bos) => [vec![bos], tokens].concat(),
        _ => tokens,
    }
}

/// Renders the messages; while the prompt is too long and may be cut, the oldest message that is not a system message goes.
/// The last message always stays.
fn fitting(model: &Model, messages: &[Value], truncate: bool, n_ctx: usize) -> Result<(String, char), Failure> {
    let guard = unused_mark(messages);
    let mut messages: Vec<Value> = messages.iter().map(|m| guarded(model, m, guard)).collect();
    loop {
        let text = render(model, &messages)?;
        if !truncate || encode(model, &text, Some(guard), true).len() + ANSWER_ROOM <= n_ctx {
            return Ok((text, guard));
        }
        let last = messages.len() - 1;
        let Some(oldest) = messages[..last].iter().position(|m| m["role"] != "system") else { return Ok((text, guard)) };
        messages.remove(oldest);
    }
}

fn render(model: &Model, messages: &[Value]) -> Result<String, Failure> {
    let Some(template) = model.template() else {
        // A base model without a template continues what it is given.
        let texts: Vec<&str> = messages.iter().filter_map(|m| m["content"].as_str()).collect();
        return Ok(texts.join("\n"));
    };
    let conversation = Conversation {
        messages: &Value::Array(messages.to_vec()),
        tools: None,
        add_generation_prompt: true,
        more: &[],
        now: jiff::Zoned::now().datetime(),
    };
    template.render(&conversation).map_err(Failure::request)
}

/// The message with every text guarded, so that no user can write a control token.
fn guarded(model: &Model, message: &Value, guard: char) -> Value {
    match message {
        Value::String(text) => Value::String(model.tokenizer().guard(text, guard)),
        Value::Array(items) => items.iter().map(|item| guarded(model, item, guard)).collect(),
        Value::Object(entries) => entries.iter().map(|(key, item)| (key.clone(), guarded(model, item, guard))).collect(),
        other => other.clone(),
    }
}

/// A code point that Unicode gives to programs for their own use and that no message holds.
fn unused_mark(messages: &[Value]) -> char {
    let text = Value::Array(messages.to_vec()).to_string();
    ('\u{fdd0}'..='\u{fdef}').find(|mark| !text.contains(*mark)).unwrap_or('\u{10ffff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(n_tokens: u32, n_keep: usize, n_ctx: usize, expected: &[u32]) {
        let mut tokens = (0..n_tokens).collect();
        shorten(&mut tokens, n_keep, n_ctx);
        assert_eq!(tokens, expected);
    }

    #[test]
    fn the_middle_goes() {
        check(20, 2, 10, &[0, 1, 16, 17, 18, 19]);
        check(20, 0, 10, &[15, 16, 17, 18, 19]);
        check(20, 100, 10, &[0, 1, 2, 3, 4, 5, 6, 7, 19]);
        check(3, 2, 10, &[0, 1, 2]);
    }
}
