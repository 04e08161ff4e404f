//! A response as it comes: named events, each numbered.

use scheduler::{Done, Event, Piece, ToolCall};
use serde_json::{Value, json};

use super::super::envelope;
use super::{Head, call, message, reasoning, text_part};
use crate::answer::{call_id, random_id};
use crate::json;

/// A streamed response.
pub(super) struct Stream {
    head: Head,
    n_events: u64,
    /// Items that are complete.
    output: Vec<Value>,
    open: Open,
    thinking: String,
    text: String,
    begun: bool,
}

/// The item being written, by its id.
enum Open {
    Nothing,
    Reasoning(String),
    Message(String),
}

impl Stream {
    pub(super) fn new(head: Head) -> Stream {
        Stream {
            head,
            n_events: 0,
            output: Vec::new(),
            open: Open::Nothing,
            thinking: String::new(),
            text: String::new(),
            begun: false,
        }
    }

    /// What an event of the answer becomes.
    pub(super) fn event(&mut self, event: Event) -> String {
        let mut out = self.begin();
        match event {
            Event::Piece(piece) => out += &self.piece(&piece),
            Event::Done(done) => out += &self.done(&done),
            Event::Failed(failure) => {
                let error = envelope(&failure.into())["error"].clone();
                out += &self.named("error", json!({ "code": error["type"], "message": error["message"], "param": null }));
            }
            Event::Began(_) | Event::Rendered(_) | Event::Embedded(_) => {}
        }
        out
    }

    fn named(&mut self, kind: &str, mut fields: Value) -> String {
        fields["type"] = json!(kind);
        fields["sequence_number"] = json!(self.n_events);
        self.n_events += 1;
        format!("event: {kind}\ndata: {}\n\n", json::escaped(&fields))
    }

    fn begin(&mut self) -> String {
        if std::mem::replace(&mut self.begun, true) {
            return String::new();
        }
        let response = self.head.response("in_progress", &[], None);
        let created = self.named("response.created", json!({ "response": response }));
        created + &self.named("response.in_progress", json!({ "response": response }))
    }

    fn piece(&mut self, piece: &Piece) -> String {
        let mut out = String::new();
        if !piece.thinking.is_empty() {
            out += &self.think(&piece.thinking);
        }
        // A response is one message or calls; what is said after a call is left out.
        let called = self.output.iter().any(|item| item["type"] == "function_call");
        if !piece.text.is_empty() && !called {
            out += &self.say(&piece.text);
        }
        for call in &piece.calls {
            out += &self.close();
            out += &self.call(call);
        }
        out
    }

    fn think(&mut self, text: &str) -> String {
        let mut out = String::new();
        let index = self.output.len();
        let id = match &self.open {
            Open::Reasoning(id) => id.clone(),
            _ => {
                let id = random_id("rs_", 12);
                let item = json!({ "id": id, "type": "reasoning", "summary": [] });
                out += &self.named("response.output_item.added", json!({ "output_index": index, "item": item }));
                self.open = Open::Reasoning(id.clone());
                id
            }
        };
        self.thinking.push_str(text);
        let delta = json!({ "item_id": id, "output_index": index, "summary_index": 0, "delta": text });
        out + &self.named("response.reasoning_summary_text.delta", delta)
    }

    fn say(&mut self, text: &str) -> String {
        let mut out = String::new();
        if matches!(self.open, Open::Reasoning(_)) {
            out += &self.close();
        }
        let index = self.output.len();
        let id = match &self.open {
            Open::Message(id) => id.clone(),
            _ => {
                let id = random_id("msg_", 12);
                let item = json!({ "id": id, "type": "message", "role": "assistant", "status": "in_progress", "content": [] });
                out += &self.named("response.output_item.added", json!({ "output_index": index, "item": item }));
                let part = json!({ "item_id": id, "output_index": index, "content_index": 0, "part": text_part("") });
                out += &self.named("response.content_part.added", part);
                self.open = Open::Message(id.clone());
                id
            }
        };
        self.text.push_str(text);
        let delta = json!({ "item_id": id, "output_index": index, "content_index": 0, "delta": text, "logprobs": [] });
        out + &self.named("response.output_text.delta", delta)
    }

    fn call(&mut self, made: &ToolCall) -> String {
        let (id, call_id, index) = (random_id("fc_", 12), call_id(), self.output.len());
        let whole = call(&id, &call_id, made, "completed");
        let mut begun = call(&id, &call_id, made, "in_progress");
        begun["arguments"] = json!("");
        let arguments = whole["arguments"].clone();
        let mut out = self.named("response.output_item.added", json!({ "output_index": index, "item": begun }));
        let delta = json!({ "item_id": id, "output_index": index, "delta": arguments });
        out += &self.named("response.function_call_arguments.delta", delta);
        let done = json!({ "item_id": id, "output_index": index, "name": made.name, "arguments": arguments });
        out += &self.named("response.function_call_arguments.done", done);
        out += &self.named("response.output_item.done", json!({ "output_index": index, "item": whole }));
        self.output.push(whole);
        out
    }

    /// Completes the item being written.
    fn close(&mut self) -> String {
        let index = self.output.len();
        let (mut out, item) = match std::mem::replace(&mut self.open, Open::Nothing) {
            Open::Nothing => return String::new(),
            Open::Reasoning(id) => {
                let text = std::mem::take(&mut self.thinking);
                let done = json!({ "item_id": id, "output_index": index, "summary_index": 0, "text": text });
                (self.named("response.reasoning_summary_text.done", done), reasoning(&id, &text))
            }
            Open::Message(id) => {
                let text = std::mem::take(&mut self.text);
                let done = json!({ "item_id": id, "output_index": index, "content_index": 0, "text": text, "logprobs": [] });
                let mut out = self.named("response.output_text.done", done);
                let part = json!({ "item_id": id, "output_index": index, "content_index": 0, "part": text_part(&text) });
                out += &self.named("response.content_part.done", part);
                (out, message(&id, &text, "completed"))
            }
        };
        out += &self.named("response.output_item.done", json!({ "output_index": index, "item": item }));
        self.output.push(item);
        out
    }

    fn done(&mut self, done: &Done) -> String {
        let mut out = String::new();
        if self.output.is_empty() && matches!(self.open, Open::Nothing) {
            out += &self.say("");
        }
        out += &self.close();
        let response = self.head.response("completed", &self.output, Some(done));
        out + &self.named("response.completed", json!({ "response": response }))
    }
}
