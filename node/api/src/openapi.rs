//! `GET /openapi.json`: what there is to call, for programs. A test holds it against the routes.

use access::Need;
use axum::response::Response;
use axum::routing::get;
use serde_json::{Map, Value, json};

use crate::json;
use crate::routes::Routes;
use crate::rules;

pub(crate) fn routes() -> Routes {
    Routes::default().add("/openapi.json", Need::Use, get(serve).head(rules::method_not_allowed))
}

async fn serve() -> Response {
    json::reply(&document())
}

fn document() -> Value {
    let mut paths = Map::new();
    for (path, method, summary, fields) in OPERATIONS {
        let mut operation = json!({ "summary": summary, "responses": { "default": { "description": "An answer, or an error that says why not" } } });
        let names = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
        let parameter = |name: &str| json!({ "name": name.trim_start_matches('*'), "in": "path", "required": true, "schema": { "type": "string" } });
        let parameters: Vec<Value> = names.map(parameter).collect();
        if !parameters.is_empty() {
            operation["parameters"] = json!(parameters);
        }
        if !fields.is_empty() {
            let (kind, schema) = body(fields);
            operation["requestBody"] = json!({ "required": true, "content": { kind: { "schema": schema } } });
        }
        let item = paths.entry(path.replace("{*", "{")).or_insert_with(|| json!({}));
        item[method] = operation;
    }
    json!({
        "openapi": "3.1.0",
        "info": { "title": "Lantern", "version": env!("CARGO_PKG_VERSION"), "summary": "Local models in the dialects of Ollama, OpenAI, Anthropic and LM Studio" },
        "paths": paths,
        "components": { "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } } },
        "security": [{}, { "token": [] }],
    })
}

/// A path, its method, what it does, and the fields of the body it takes: names with their types (see [`schema`]), or the name
/// of a list of such.
type Operation = (&'static str, &'static str, &'static str, &'static str);

/// Fields of every answer in the Ollama dialect.
const ANSWER: &str = "model:text stream:truth format:text|object options:object think:truth|text logprobs:truth top_logprobs:integer \
    truncate:truth shift:truth keep_alive:number|text _debug_render_only:truth";
/// Fields of every answer in the other dialects.
const SAMPLING: &str =
    "model:text stream:truth temperature:number top_p:number seed:integer num_ctx:integer keep_alive:number|text";
const CHAT: &str = "messages:list max_tokens:integer max_completion_tokens:integer stop:text|list tools:list tool_choice:any \
    response_format:object reasoning_effort:text logprobs:truth top_logprobs:integer stream_options:object";
const COMPLETIONS: &str = "prompt:text suffix:text max_tokens:integer stop:text|list stream_options:object";
const EMBEDDINGS: &str = "model:text input:text|texts dimensions:integer encoding_format:text";
const CREATE: &str = "model:text from:text files:object template:text system:text license:text|texts parameters:object \
    messages:messages quantize:text renderer:text parser:text requires:text stream:truth";
const RESPONSES: &str =
    "input:text|list instructions:text max_output_tokens:integer tools:list tool_choice:any text:object reasoning:object";
const MESSAGES: &str = "messages:list max_tokens:integer system:text|list top_k:integer stop_sequences:texts tools:list \
    tool_choice:object thinking:object";
const LISTS: [(&str, &str); 8] = [
    ("ANSWER", ANSWER),
    ("SAMPLING", SAMPLING),
    ("CHAT", CHAT),
    ("COMPLETIONS", COMPLETIONS),
    ("EMBEDDINGS", EMBEDDINGS),
    ("CREATE", CREATE),
    ("RESPONSES", RESPONSES),
    ("MESSAGES", MESSAGES),
];

const OPERATIONS: [Operation; 37] = [
    ("/", "get", "Says that the server runs", ""),
    ("/openapi.json", "get", "This document", ""),
    ("/api/version", "get", "The version of the Ollama API", ""),
    ("/api/status", "get", "Whether there is a cloud", ""),
    ("/api/tags", "get", "Installed models", ""),
    ("/api/ps", "get", "Models in memory", ""),
    ("/api/show", "post", "Everything about a model", "model:text verbose:truth system:text"),
    (
        "/api/generate",
        "post",
        "An answer to a prompt",
        "ANSWER prompt:text suffix:text system:text template:text raw:truth context:integers",
    ),
    ("/api/chat", "post", "The next message of a chat", "ANSWER messages:messages tools:list tool_choice:any"),
    ("/api/embed", "post", "Vectors of texts", "ANSWER input:text|texts dimensions:integer"),
    ("/api/embeddings", "post", "The vector of one text", "model:text prompt:text options:object keep_alive:number|text"),
    ("/api/copy", "post", "A second name for a model", "source:text destination:text"),
    ("/api/delete", "delete", "Removes a model", "model:text"),
    ("/api/pull", "post", "Downloads a model", "model:text stream:truth"),
    ("/api/push", "post", "Always refused: models stay here", "model:text stream:truth"),
    ("/api/create", "post", "A model made of another, or of uploaded weights", "CREATE"),
    ("/api/blobs/{digest}", "head", "Whether a blob is here", ""),
    ("/api/blobs/{digest}", "post", "Uploads a blob", "BYTES"),
    ("/api/me", "post", "There are no accounts", ""),
    ("/api/signout", "post", "There are no accounts", ""),
    ("/api/user/keys/{key}", "delete", "There are no accounts", ""),
    ("/api/experimental/web_search", "post", "There is no cloud", "query:text"),
    ("/api/experimental/web_fetch", "post", "There is no cloud", "url:text"),
    ("/api/experimental/model-recommendations", "get", "What to begin with", ""),
    ("/v1/chat/completions", "post", "OpenAI: the next message of a chat", "SAMPLING CHAT"),
    ("/v1/completions", "post", "OpenAI: an answer to a prompt", "SAMPLING COMPLETIONS"),
    ("/v1/embeddings", "post", "OpenAI: vectors of texts", "EMBEDDINGS"),
    ("/v1/responses", "post", "OpenAI: a response", "SAMPLING RESPONSES"),
    ("/v1/audio/transcriptions", "post", "OpenAI: always refused, as no model here hears", "FORM"),
    ("/v1/models", "get", "OpenAI: installed models", ""),
    ("/v1/models/{model}", "get", "OpenAI: one model", ""),
    ("/v1/messages", "post", "Anthropic: the next message of a chat", "SAMPLING MESSAGES"),
    ("/api/v0/models", "get", "LM Studio: installed models", ""),
    ("/api/v0/models/{*model}", "get", "LM Studio: one model", ""),
    ("/api/v0/chat/completions", "post", "LM Studio: the next message of a chat", "SAMPLING CHAT"),
    ("/api/v0/completions", "post", "LM Studio: an answer to a prompt", "SAMPLING COMPLETIONS"),
    ("/api/v0/embeddings", "post", "LM Studio: vectors of texts", "EMBEDDINGS"),
];

/// The media type and schema of a body with these fields; further ones are ignored. `model` is needed.
fn body(fields: &str) -> (&'static str, Value) {
    if fields == "BYTES" {
        return ("application/octet-stream", json!({ "type": "string", "format": "binary" }));
    }
    if fields == "FORM" {
        let properties = json!({ "model": { "type": "string" }, "file": { "type": "string", "format": "binary" } });
        return ("multipart/form-data", json!({ "type": "object", "properties": properties, "required": ["model", "file"] }));
    }
    let mut properties = Map::new();
    for word in fields.split_whitespace() {
        let known = LISTS.iter().find(|(name, _)| *name == word).map_or(word, |(_, fields)| fields);
        for (name, kinds) in known.split_whitespace().filter_map(|field| field.split_once(':')) {
            let kinds: Vec<Value> = kinds.split('|').map(schema).collect();
            properties.insert(name.into(), if kinds.len() == 1 { kinds[0].clone() } else { json!({ "anyOf": kinds }) });
        }
    }
    let required: Vec<&str> = if properties.contains_key("model") { vec!["model"] } else { Vec::new() };
    ("application/json", json!({ "type": "object", "properties": properties, "required": required }))
}

/// The schema of a kind of field.
fn schema(kind: &str) -> Value {
    match kind {
        "text" => json!({ "type": "string" }),
        "truth" => json!({ "type": "boolean" }),
        "list" => json!({ "type": "array" }),
        "texts" => json!({ "type": "array", "items": { "type": "string" } }),
        "integers" => json!({ "type": "array", "items": { "type": "integer" } }),
        "messages" => {
            let text = json!({ "type": "string" });
            let properties =
                json!({ "role": text, "content": text, "thinking": text, "tool_calls": { "type": "array" }, "tool_name": text });
            json!({ "type": "array", "items": { "type": "object", "properties": properties, "required": ["role"] } })
        }
        "any" => json!({}),
        // `number`, `integer` and `object` have JSON Schema's own names.
        plain => json!({ "type": plain }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_is_told() {
        let mut told: Vec<&str> = OPERATIONS.into_iter().map(|(path, ..)| path).collect();
        told.sort_unstable();
        told.dedup();
        let mut served = crate::all_routes().paths;
        served.sort_unstable();
        assert_eq!(told, served);
    }
}
