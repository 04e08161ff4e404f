//! A message as it comes: blocks that are started, added to and stopped.

use scheduler::{Done, Event, Piece};
use serde_json::{Value, json};

use super::{envelope, stop_reason, tool_use};
use crate::json;

/// A streamed message.
pub(super) struct Stream {
    message: Value,
    begun: bool,
    /// The kind of the block being written.
    open: Option<&'static str>,
    n_blocks: usize,
    n_calls: usize,
}

impl Stream {
    pub(super) fn new(id: &str, model: &str, n_input: usize) -> Stream {
        let message = json!({ "id": id, "type": "message", "role": "assistant", "model": model, "content": [],
            "stop_reason": null, "usage": { "input_tokens": n_input, "output_tokens": 0 } });
        Stream { message, begun: false, open: None, n_blocks: 0, n_calls: 0 }
    }

    /// What an event of the answer becomes.
    pub(super) fn event(&mut self, event: Event) -> String {
        let mut out = String::new();
        if !std::mem::replace(&mut self.begun, true) {
            out += &named("message_start", json!({ "message": self.message }));
        }
        match event {
            Event::Piece(piece) => out + &self.piece(&piece),
            Event::Done(done) => out + &self.done(&done),
            Event::Failed(failure) => out + &named("error", envelope(&failure.into())),
            Event::Began(_) | Event::Rendered(_) | Event::Embedded(_) => out,
        }
    }

    fn piece(&mut self, piece: &Piece) -> String {
        let mut out = String::new();
        if !piece.thinking.is_empty() {
            out += &self.text("thinking", &piece.thinking);
        }
        if !piece.text.is_empty() {
            out += &self.text("text", &piece.text);
        }
        for call in &piece.calls {
            out += &self.close();
            let (index, arguments) = (self.n_blocks, Value::Object(call.arguments.clone()).to_string());
            out += &named("content_block_start", json!({ "index": index, "content_block": tool_use(call, json!({})) }));
            let delta = json!({ "type": "input_json_delta", "partial_json": arguments });
            out += &named("content_block_delta", json!({ "index": index, "delta": delta }));
            self.open = Some("tool_use");
            out += &self.close();
            self.n_calls += 1;
        }
        out
    }

    /// Adds to a block of text or thinking, which is started if another kind was being written.
    fn text(&mut self, kind: &'static str, text: &str) -> String {
        let mut out = String::new();
        if self.open != Some(kind) {
            out += &self.close();
            let mut block = json!({ "type": kind });
            block[kind] = json!("");
            if kind == "thinking" {
                block["signature"] = json!("");
            }
            out += &named("content_block_start", json!({ "index": self.n_blocks, "content_block": block }));
            self.open = Some(kind);
        }
        let mut delta = json!({ "type": format!("{kind}_delta") });
        delta[kind] = json!(text);
        out + &named("content_block_delta", json!({ "index": self.n_blocks, "delta": delta }))
    }

    fn close(&mut self) -> String {
        if self.open.take().is_none() {
            return String::new();
        }
        self.n_blocks += 1;
        named("content_block_stop", json!({ "index": self.n_blocks - 1 }))
    }

    fn done(&mut self, done: &Done) -> String {
        let delta = json!({ "stop_reason": stop_reason(done.reason, self.n_calls), "stop_sequence": null });
        let usage = json!({ "input_tokens": done.n_prompt, "output_tokens": done.n_decoded });
        self.close() + &named("message_delta", json!({ "delta": delta, "usage": usage })) + &named("message_stop", json!({}))
    }
}

fn named(kind: &str, fields: Value) -> String {
    let mut object = json!({ "type": kind });
    if let (Value::Object(object), Value::Object(fields)) = (&mut object, fields) {
        object.extend(fields);
    }
    format!("event: {kind}\ndata: {}\n\n", json::escaped(&object))
}
