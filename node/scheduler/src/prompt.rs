//! From messages or text to the tokens of a prompt, cut to the context as Ollama cuts it.

use engine::{AnswerFormat, AnswerParser, Conversation, GoConversation, GoTemplate, GoThink, Model, Specials, TemplateError};
use serde_json::{Value, json};

use crate::request::{Failure, Input, Options, Think};

/// What the input becomes.
pub(crate) enum Prompt {
    Tokens(Tokens),
    Rendered(String),
}

/// A prompt ready to be computed.
#[derive(Default)]
pub(crate) struct Tokens {
    pub(crate) tokens: Vec<u32>,
    /// What reads the answer, unless the prompt was raw.
    pub(crate) parser: Option<AnswerParser>,
    /// Messages left out because they did not fit.
    pub(crate) n_dropped: usize,
    /// Tokens cut out because they did not fit.
    pub(crate) n_cut: usize,
    /// Context it was made for.
    pub(crate) n_ctx: usize,
}

/// Room a prompt must leave for at least one token of the answer.
const ANSWER_ROOM: usize = 1;

/// Bytes of a text that are read first for each token it may have.
const FIRST_LOOK_BYTES: usize = 16;
/// Tokens at the edge of a part that may be others in the whole.
const SEAM_TOKENS: usize = 64;

/// Renders and tokenizes the input of a request for text, for a context of `n_ctx`.
pub(crate) fn prepare(model: &Model, input: &Input, options: &Options, n_ctx: usize) -> Result<Prompt, Failure> {
    match input {
        Input::Load | Input::Unload | Input::Embed { .. } => Ok(Prompt::Tokens(Tokens::default())),
        Input::Chat { messages, template, tools, think, truncate, context } => {
            let chat = Chat { model, template: template.as_deref(), tools, think: think.as_ref() };
            let (text, guard, n_dropped) = chat.fitting(messages, *truncate, n_ctx.saturating_sub(context.len()))?;
            if options.render_only {
                return Ok(Prompt::Rendered(text.replace(guard, "")));
            }
            let mut tokens = context.clone();
            let room = n_ctx.saturating_sub(context.len() + ANSWER_ROOM);
            let encoded = encode_within(model, &text, Some(guard), context.is_empty(), room);
            tokens.extend(encoded.map_err(|n| too_long(context.len() + n, n_ctx))?);
            let names = tools.iter().filter_map(|tool| tool["function"]["name"].as_str().map(String::from)).collect();
            let told = think.as_ref() != Some(&Think::Off);
            let parser = Some(AnswerParser::new(chat.format(), &text, names, told));
            Ok(Prompt::Tokens(Tokens { tokens, parser, n_dropped, n_cut: 0, n_ctx }))
        }
        Input::Gap { template, prompt, suffix, think } => {
            let texts = [json!(prompt), json!(suffix)];
            let guard = unused_mark(&texts, &[]);
            let [prompt, suffix] = texts.map(|text| model.tokenizer().guard(text.as_str().unwrap_or_default(), guard));
            let text = template.render_gap(&prompt, &suffix, go_think(think.as_ref())).map_err(Failure::request)?;
            if options.render_only {
                return Ok(Prompt::Rendered(text.replace(guard, "")));
            }
            let tokens = encode_within(model, &text, Some(guard), true, n_ctx.saturating_sub(ANSWER_ROOM));
            let tokens = tokens.map_err(|n| too_long(n, n_ctx))?;
            Ok(Prompt::Tokens(Tokens { tokens, n_ctx, ..Tokens::default() }))
        }
        Input::Text { prompt, .. } if options.render_only => Ok(Prompt::Rendered(prompt.clone())),
        Input::Text { prompt, context, truncate } => {
            let room = n_ctx.saturating_sub(context.len() + ANSWER_ROOM);
            let (encoded, n_whole) = match encode_within(model, prompt, None, context.is_empty(), room) {
                Ok(tokens) => (tokens, None),
                Err(n) if !(options.shift && *truncate) => return Err(too_long(context.len() + n, n_ctx)),
                Err(n) => (both_ends(model, prompt, context.is_empty(), n_ctx), Some(context.len() + n)),
            };
            let mut tokens = [context.as_slice(), &encoded].concat();
            let n_whole = n_whole.map_or(tokens.len(), |at_least| at_least.max(tokens.len()));
            if tokens.len() + ANSWER_ROOM > n_ctx {
                shorten(&mut tokens, options.n_keep.unwrap_or(usize::MAX), n_ctx);
            }
            Ok(Prompt::Tokens(Tokens { n_cut: n_whole - tokens.len(), tokens, n_ctx, ..Tokens::default() }))
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
        "the request of at least {n_prompt} tokens exceeds the available context size of {n_ctx} tokens; shorten it or raise num_ctx"
    ))
}

/// The tokens of a text, or how many they are at least where that is more than `n_max`. A text that is much too long is not read to
/// its end: whoever sends megabytes would stop everybody's answers.
fn encode_within(model: &Model, text: &str, guard: Option<char>, first: bool, n_max: usize) -> Result<Vec<u32>, usize> {
    let mut len = (n_max + SEAM_TOKENS) * FIRST_LOOK_BYTES;
    while len < text.len() {
        let n = encode(model, &text[..text.floor_char_boundary(len)], guard, first).len();
        if n > n_max + SEAM_TOKENS {
            return Err(n - SEAM_TOKENS);
        }
        len *= 2;
    }
    let tokens = encode(model, text, guard, first);
    if tokens.len() > n_max { Err(tokens.len()) } else { Ok(tokens) }
}

/// Tokens of the beginning and of the end of a text: of each more than a context of `n_ctx` holds, or all of it.
fn both_ends(model: &Model, text: &str, first: bool, n_ctx: usize) -> Vec<u32> {
    let mut len = (n_ctx + SEAM_TOKENS) * FIRST_LOOK_BYTES;
    while 2 * len < text.len() {
        let head = encode(model, &text[..text.floor_char_boundary(len)], None, first);
        let tail = encode(model, &text[text.ceil_char_boundary(text.len() - len)..], None, false);
        if head.len().min(tail.len()) > n_ctx + SEAM_TOKENS {
            return [&head[..n_ctx], &tail[SEAM_TOKENS..]].concat();
        }
        len *= 2;
    }
    encode(model, text, None, first)
}

fn encode(model: &Model, text: &str, guard: Option<char>, first: bool) -> Vec<u32> {
    let tokens = model.tokenizer().encode(text, Specials::Parse { guard });
    match model.tokenizer().bos() {
        Some(bos) if first && tokens.first() != Some(&bos) => [vec![bos], tokens].concat(),
        _ => tokens,
    }
}

/// What every rendering of a conversation shares.
struct Chat<'a> {
    model: &'a Model,
    template: Option<&'a GoTemplate>,
    tools: &'a [Value],
    think: Option<&'a Think>,
}

impl Chat<'_> {
    /// Renders the messages without the oldest that are not system messages, as many as must go for the prompt to fit if it
    /// may be cut. The last message always stays. Tells how many went.
    fn fitting(&self, messages: &[Value], truncate: bool, n_ctx: usize) -> Result<(String, char, usize), Failure> {
        let guard = unused_mark(messages, self.tools);
        let mut messages: Vec<Value> = for_template(messages, self.format());
        messages.iter_mut().for_each(|message| *message = guarded(self.model, message, guard));
        let tools: Vec<Value> = self.tools.iter().map(|tool| guarded(self.model, tool, guard)).collect();
        let whole = self.render(&messages, &tools)?;
        let room = n_ctx.saturating_sub(ANSWER_ROOM);
        let fits = |text: &str| encode_within(self.model, text, Some(guard), true, room).is_ok();
        let last = messages.len() - 1;
        let n_droppable = messages[..last].iter().filter(|m| m["role"] != "system").count();
        if !truncate || n_droppable == 0 || fits(&whole) {
            return Ok((whole, guard, 0));
        }
        // The fewest that must go are found by halving: each look renders and tokenizes everything that stays.
        let without = |n_dropped: usize| {
            let mut left = n_dropped;
            let stays = |(index, message): &(usize, &Value)| {
                let goes = *index < last && message["role"] != "system" && left > 0;
                left -= usize::from(goes);
                !goes
            };
            let kept: Vec<Value> = messages.iter().enumerate().filter(stays).map(|(_, message)| message.clone()).collect();
            self.render(&kept, &tools)
        };
        let (mut too_few, mut enough) = (0, n_droppable);
        let mut text = without(enough)?;
        while enough - too_few > 1 {
            let middle = too_few.midpoint(enough);
            // A template may refuse what begins with an answer: then the question before it goes, and the answer with it.
            match without(middle) {
                Ok(shorter) if fits(&shorter) => (enough, text) = (middle, shorter),
                _ => too_few = middle,
            }
        }
        Ok((text, guard, enough))
    }

    fn format(&self) -> AnswerFormat {
        self.template.map_or(self.model.format(), GoTemplate::format)
    }

    fn render(&self, messages: &[Value], tools: &[Value]) -> Result<String, Failure> {
        let mut text = match self.template {
            Some(template) => self.render_go(template, messages, tools)?,
            None => self.render_jinja(messages, tools)?,
        };
        if self.think == Some(&Think::Off)
            && let Some(close) = self.format().closing_of(&text)
        {
            // The template has no switch: the model is told that it has thought already.
            text.push_str(&format!("\n{close}\n\n"));
        }
        Ok(text)
    }

    fn render_go(&self, template: &GoTemplate, messages: &[Value], tools: &[Value]) -> Result<String, Failure> {
        let today = jiff::Zoned::now().date();
        let dates = [today, today.yesterday().unwrap_or(today)].map(|date| date.to_string());
        template.render(&GoConversation { messages, tools, think: go_think(self.think), dates }).map_err(Failure::request)
    }

    fn render_jinja(&self, messages: &[Value], tools: &[Value]) -> Result<String, Failure> {
        let Some(template) = self.model.template() else {
            // A base model without a template continues what it is given.
            let texts: Vec<&str> = messages.iter().filter_map(|m| m["content"].as_str()).collect();
            return Ok(texts.join("\n"));
        };
        let tools = (!tools.is_empty()).then(|| Value::from(tools));
        let render = |messages: &[Value]| {
            let conversation = Conversation {
                messages: &Value::from(messages),
                tools: tools.as_ref(),
                add_generation_prompt: true,
                more: &self.think_names(),
                now: jiff::Zoned::now().datetime(),
            };
            template.render(&conversation)
        };
        match (render(messages), told_by_user(messages)) {
            // A family without a system role, such as Gemma 2.
            (Err(TemplateError::Render(_)), Some(messages)) => render(&messages),
            (rendered, _) => rendered,
        }
        .map_err(Failure::request)
    }

    /// The names by which templates ask whether to think.
    fn think_names(&self) -> Vec<(&'static str, Value)> {
        let Some(think) = self.think else { return Vec::new() };
        let on = json!(think != &Think::Off);
        let mut names = vec![("enable_thinking", on.clone()), ("thinking", on)];
        if let Think::On(Some(level)) = think {
            names.push(("reasoning_effort", json!(level)));
        }
        names
    }
}

fn go_think(think: Option<&Think>) -> GoThink<'_> {
    think.map(|think| match think {
        Think::Off => (false, None),
        Think::On(level) => (true, level.as_deref()),
    })
}

/// The messages with what the system says put before the first thing the user says. `None` if they do not begin so.
fn told_by_user(messages: &[Value]) -> Option<Vec<Value>> {
    let n_system = messages.iter().take_while(|message| message["role"] == "system").count();
    let (system, others) = messages.split_at(n_system);
    let mut others = others.to_vec();
    let user = others.first_mut().filter(|message| n_system > 0 && message["role"] == "user")?;
    let texts = system.iter().chain([&*user]).filter_map(|message| message["content"].as_str());
    user["content"] = json!(texts.collect::<Vec<_>>().join("\n\n"));
    Some(others)
}

/// Messages with the names that templates know beside those of the clients, and with ids of calls as the family wants them.
fn for_template(messages: &[Value], format: AnswerFormat) -> Vec<Value> {
    // Calls and results without ids belong together in their order.
    let (mut n_calls, mut n_results) = (0, 0);
    let mut messages = messages.to_vec();
    for message in &mut messages {
        for (ours, theirs) in [("thinking", "reasoning_content"), ("tool_name", "name")] {
            if let Some(value) = message.get(ours).cloned() {
                message[theirs] = value;
            }
        }
        let Some(len) = format.call_id_len() else { continue };
        if message["role"] == "tool" {
            message["tool_call_id"] = json!(short_id(message["tool_call_id"].as_str(), n_results, len));
            n_results += 1;
        }
        for call in message.get_mut("tool_calls").and_then(Value::as_array_mut).into_iter().flatten() {
            call["id"] = json!(short_id(call["id"].as_str(), n_calls, len));
            n_calls += 1;
        }
    }
    messages
}

/// An id of `len` letters and digits: the one given if it is such, else one made of it, or of the number.
fn short_id(given: Option<&str>, number: usize, len: usize) -> String {
    match given.filter(|id| !id.is_empty()) {
        Some(id) if id.len() == len && id.bytes().all(|b| b.is_ascii_alphanumeric()) => id.to_owned(),
        Some(id) => {
            // FNV-1a: the same id gives the same short one in the call and in its result.
            let hash = id.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
            format!("{hash:016x}")[16 - len..].to_owned()
        }
        None => format!("{number:0len$}"),
    }
}

/// The message with every text guarded, so that no user can write a control token.
fn guarded(model: &Model, message: &Value, guard: char) -> Value {
    match message {
        Value::String(text) => Value::String(model.tokenizer().guard(text, guard)),
        Value::Array(items) => items.iter().map(|item| guarded(model, item, guard)).collect(),
        Value::Object(entries) => {
            entries.iter().map(|(key, item)| (model.tokenizer().guard(key, guard), guarded(model, item, guard))).collect()
        }
        other => other.clone(),
    }
}

/// A code point that Unicode gives to programs for their own use and that no message holds.
fn unused_mark(messages: &[Value], tools: &[Value]) -> char {
    let text = Value::from(messages).to_string() + &Value::from(tools).to_string();
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
