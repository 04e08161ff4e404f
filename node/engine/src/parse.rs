//! Thinking and tool calls back out of an answer's text. How a family marks them is told from its template.

mod calls;
mod literal;

use serde_json::{Map, Value};

/// A call the model asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolCall {
    pub name: String,
    pub arguments: Map<String, Value>,
}

/// What some text of an answer turned out to be.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Parsed {
    pub thinking: String,
    pub content: String,
    pub calls: Vec<ToolCall>,
}

impl Parsed {
    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        self.thinking.is_empty() && self.content.is_empty() && self.calls.is_empty()
    }

    fn add(&mut self, other: Parsed) {
        self.thinking.push_str(&other.thinking);
        self.content.push_str(&other.content);
        self.calls.extend(other.calls);
    }
}

/// The marks a family puts around its thinking and its calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnswerFormat {
    thinking: Option<Marks>,
    calls: Calls,
}

/// Texts around something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Marks {
    open: &'static str,
    close: &'static str,
}

/// How calls are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Calls {
    /// Each call, or a list of them, between two marks: Qwen, Hermes, Granite 4, LFM2.
    Between(Marks),
    /// All that follows a mark: Mistral, Granite 3, Phi-4, Firefunction. With `bare`, an answer that begins with a brace is
    /// a call too: Llama 3.
    After { open: &'static str, bare: bool },
    /// An answer that begins with a brace, a bracket or a code fence: Gemma, Phi-3 and whatever else was taught to write JSON.
    Bare,
}

const THINK: Marks = Marks { open: "<think>", close: "</think>" };
const THINK_MISTRAL: Marks = Marks { open: "[THINK]", close: "[/THINK]" };
/// What begins and ends a block of code in Markdown.
const FENCE: &str = "```";
/// Marks between the parts of one of Mistral's calls.
const MISTRAL_PARTS: [&str; 2] = ["[ARGS]", "[CALL_ID]"];

impl AnswerFormat {
    /// The format that a template of this source asks the model for.
    pub fn of_template(source: &str) -> AnswerFormat {
        let has = |mark: &str| source.contains(mark);
        let thinking = [THINK, THINK_MISTRAL].into_iter().find(|marks| has(marks.open) && has(marks.close));
        let between = |open, close| Calls::Between(Marks { open, close });
        let calls = if has("[TOOL_CALLS]") {
            Calls::After { open: "[TOOL_CALLS]", bare: false }
        } else if has("<|tool_call_start|>") || has("<|tool_list_start|>") {
            between("<|tool_call_start|>", "<|tool_call_end|>")
        } else if has("<tool_call>") {
            between("<tool_call>", "</tool_call>")
        } else if has("<|tool_call|>") {
            Calls::After { open: "<|tool_call|>", bare: false }
        } else if has("functools[") || has(" functools") {
            Calls::After { open: "functools", bare: false }
        } else if has("<|python_tag|>") || has("Environment: ipython") {
            Calls::After { open: "<|python_tag|>", bare: true }
        } else {
            Calls::Bare
        };
        AnswerFormat { thinking, calls }
    }

    /// Whether answers may begin with thinking.
    pub fn thinks(&self) -> bool {
        self.thinking.is_some()
    }

    /// How long ids of calls must be for the family's template, where it minds.
    pub fn call_id_len(&self) -> Option<usize> {
        matches!(self.calls, Calls::After { open: "[TOOL_CALLS]", .. }).then_some(9)
    }

    /// Texts of control tokens that must reach the parser, though no client may see them.
    pub fn marks(&self) -> Vec<&'static str> {
        let mut marks: Vec<&str> = self.thinking.iter().flat_map(|m| [m.open, m.close]).collect();
        match self.calls {
            Calls::Between(Marks { open, close }) => marks.extend([open, close]),
            Calls::After { open, .. } => marks.push(open),
            Calls::Bare => {}
        }
        marks.extend(MISTRAL_PARTS);
        marks
    }

    /// What ends thinking that a prompt has opened, where it ends with the mark that opens it.
    pub fn closing_of(&self, prompt: &str) -> Option<&'static str> {
        self.thinking.filter(|marks| prompt.trim_end().ends_with(marks.open)).map(|marks| marks.close)
    }

    /// Text that comes before and after the JSON of one call, for an answer that must be one; and the name it has for the
    /// arguments.
    pub fn around_call(&self) -> (&'static str, &'static str, &'static str) {
        match self.calls {
            Calls::Between(Marks { open: "<tool_call>", close }) => ("<tool_call>\n", close, "arguments"),
            Calls::After { open: "[TOOL_CALLS]", .. } => ("[TOOL_CALLS][", "]", "arguments"),
            Calls::After { open: "<|tool_call|>", .. } => ("<|tool_call|>[", "]", "arguments"),
            Calls::After { open: "functools", .. } => ("functools[", "]", "arguments"),
            Calls::After { .. } => ("", "", "parameters"),
            Calls::Between(_) => ("<|tool_call_start|>", "<|tool_call_end|>", "arguments"),
            Calls::Bare => ("", "", "arguments"),
        }
    }
}

/// Where in an answer the parser is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Before anything but white space, where thinking may open.
    Start,
    /// White space before the first thought is left out.
    Thinking {
        marks: Marks,
        begun: bool,
    },
    /// After thinking, before anything but white space.
    AfterThinking,
    /// Before the first text of the content, which may be a bare call.
    Opening,
    Content,
    /// Inside a call, whose text is held until it is whole.
    Call {
        close: Option<&'static str>,
    },
}

/// Reads an answer piece by piece.
#[derive(Debug)]
pub struct AnswerParser {
    format: AnswerFormat,
    /// Names of the tools on offer; without any, calls are text like any other.
    tools: Vec<String>,
    /// Whether thinking is told. Otherwise it is read and left out.
    tells_thinking: bool,
    place: Place,
    /// Text whose meaning is not yet known.
    held: String,
    n_calls: usize,
}

impl AnswerParser {
    /// A parser for an answer to `prompt`, whose end may have opened the thinking already.
    pub fn new(format: AnswerFormat, prompt: &str, tools: Vec<String>, tells_thinking: bool) -> AnswerParser {
        let place = match format.thinking {
            Some(marks) if prompt.trim_end().ends_with(marks.open) => Place::Thinking { marks, begun: false },
            Some(_) => Place::Start,
            None if tools.is_empty() => Place::Content,
            None => Place::Opening,
        };
        AnswerParser { format, tools, tells_thinking, place, held: String::new(), n_calls: 0 }
    }

    /// The format it reads.
    pub fn format(&self) -> AnswerFormat {
        self.format
    }

    /// The mark that a control token's text is, if it is one of the family's.
    pub fn mark(&self, control: &str) -> Option<&'static str> {
        self.format.marks().into_iter().find(|mark| *mark == control)
    }

    /// Whether the content of the answer has begun, or what comes next begins it.
    pub fn in_content(&self) -> bool {
        !matches!(self.place, Place::Start | Place::Thinking { .. })
    }

    /// Whether the answer is amid its thinking.
    pub fn thinks(&self) -> bool {
        matches!(self.place, Place::Thinking { .. })
    }

    /// Whether `text` as the next of an answer may still open thinking that is wanted.
    pub fn may_open_thinking(&self, text: &str) -> bool {
        let open = self.format.thinking.map_or("", |marks| marks.open);
        let said = [&self.held, text].concat();
        let said = said.trim_start();
        self.tells_thinking && self.place == Place::Start && (open.starts_with(said) || said.starts_with(open))
    }

    /// Goes on as an answer without thinking; what was held as its beginning is dropped.
    pub fn skip_thinking(&mut self) {
        if self.place == Place::Start {
            self.held.clear();
            self.place = Place::Opening;
        }
    }

    /// Takes more text of the answer.
    pub fn push(&mut self, text: &str) -> Parsed {
        self.held.push_str(text);
        let mut parsed = Parsed::default();
        while self.advance(&mut parsed, false) {}
        self.tell(parsed)
    }

    /// The rest, at the end of the answer: what never became a call is content.
    pub fn finish(&mut self) -> Parsed {
        let mut parsed = Parsed::default();
        while self.advance(&mut parsed, true) {}
        let rest = std::mem::take(&mut self.held);
        match self.place {
            Place::Thinking { .. } => parsed.thinking.push_str(&rest),
            // White space alone is no answer after thinking or a call.
            Place::AfterThinking => {}
            _ if self.n_calls > 0 && rest.trim().is_empty() => {}
            _ => parsed.content.push_str(&rest),
        }
        self.tell(parsed)
    }

    fn tell(&self, parsed: Parsed) -> Parsed {
        if self.tells_thinking { parsed } else { Parsed { thinking: String::new(), ..parsed } }
    }

    /// Makes one step over the held text. Returns whether another may be possible.
    fn advance(&mut self, parsed: &mut Parsed, last: bool) -> bool {
        match self.place {
            Place::Start => self.open_thinking(last),
            Place::Thinking { marks, begun } => self.think(marks, begun, parsed),
            Place::AfterThinking => {
                let n_blank = self.held.len() - self.held.trim_start().len();
                self.held.drain(..n_blank);
                let some = !self.held.is_empty();
                if some {
                    self.place = Place::Opening;
                }
                some
            }
            Place::Opening => self.open_content(last),
            Place::Content => self.content(parsed, last),
            Place::Call { close } => self.call(close, parsed, last),
        }
    }

    fn open_thinking(&mut self, last: bool) -> bool {
        let marks = self.format.thinking.expect("only a format with thinking starts so");
        let text = self.held.trim_start();
        if let Some(rest) = text.strip_prefix(marks.open) {
            self.held = rest.to_owned();
            self.place = Place::Thinking { marks, begun: false };
            return true;
        }
        // The model did not think: what it wrote is content, with its white space.
        let waits = marks.open.starts_with(text) && !last;
        if !waits {
            self.place = Place::Opening;
        }
        !waits
    }

    fn think(&mut self, marks: Marks, begun: bool, parsed: &mut Parsed) -> bool {
        if !begun {
            let n_blank = self.held.len() - self.held.trim_start().len();
            self.held.drain(..n_blank);
        }
        let found = self.held.find(marks.close);
        let end = found.unwrap_or_else(|| safe_len(&self.held, marks.close));
        parsed.thinking.extend(self.held.drain(..end));
        self.place = Place::Thinking { marks, begun: begun || end > 0 };
        if found.is_some() {
            self.held.drain(..marks.close.len());
            self.place = Place::AfterThinking;
        }
        found.is_some()
    }

    fn open_content(&mut self, last: bool) -> bool {
        let text = self.held.trim_start();
        let bare = !self.tools.is_empty() && matches!(self.format.calls, Calls::Bare | Calls::After { bare: true, .. });
        if bare && FENCE.starts_with(text) && !last {
            return false;
        }
        let begins_call = text.starts_with(['{', '[']) || text.starts_with(FENCE);
        self.place = if bare && begins_call { Place::Call { close: None } } else { Place::Content };
        true
    }

    fn content(&mut self, parsed: &mut Parsed, last: bool) -> bool {
        let mark = match self.format.calls {
            _ if self.tools.is_empty() => None,
            Calls::Between(marks) => Some((marks.open, Some(marks.close))),
            Calls::After { open, .. } => Some((open, None)),
            Calls::Bare => None,
        };
        let Some((open, close)) = mark else {
            parsed.content.push_str(&std::mem::take(&mut self.held));
            return false;
        };
        let found = self.held.find(open);
        // White space before a call belongs to neither.
        let end = match found {
            Some(at) => at,
            None if last => self.held.len(),
            None => safe_len(&self.held, open),
        };
        let told = self.held[..end].trim_end().len();
        match found {
            Some(at) => {
                parsed.content.push_str(&self.held[..told]);
                self.held.drain(..at);
                self.place = Place::Call { close };
                true
            }
            None if last => false,
            None => {
                parsed.content.extend(self.held.drain(..told));
                false
            }
        }
    }

    /// Reads a call once it is whole: its closing mark is there, or the answer is over.
    fn call(&mut self, close: Option<&'static str>, parsed: &mut Parsed, last: bool) -> bool {
        let end = match close.and_then(|close| self.held.find(close).map(|at| at + close.len())) {
            Some(end) => end,
            None if last => self.held.len(),
            None => return false,
        };
        let text: String = self.held.drain(..end).collect();
        let found = calls::read(&text, &self.format.marks(), &self.tools);
        self.place = Place::Content;
        if found.is_empty() {
            // Not a call after all. At the end of the answer the text must not be looked at again.
            parsed.content.push_str(&text);
            return !self.held.is_empty();
        }
        self.n_calls += found.len();
        parsed.add(Parsed { calls: found, ..Parsed::default() });
        !self.held.is_empty()
    }
}

/// Bytes of `text` before what may be the beginning of `mark`.
fn safe_len(text: &str, mark: &str) -> usize {
    text.char_indices().map(|(at, _)| at).find(|at| mark.starts_with(&text[*at..])).unwrap_or(text.len())
}

#[cfg(test)]
mod tests;
