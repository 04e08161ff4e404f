//! Calls written as Python writes them, with literals for arguments: `[get(city="Rome"), add(a=1, b=[2, 3])]`, also with a
//! trailing `.call` as Llama 3 writes calls of its own tools.

use serde_json::{Map, Value};

use super::ToolCall;

/// Nesting of lists and dictionaries.
const DEPTH_MAX: usize = 32;

/// The calls in a text, if that is all it holds.
pub(super) fn calls(text: &str) -> Option<Vec<ToolCall>> {
    let text = text.trim();
    let text = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    let mut reader = Reader { rest: text };
    let mut calls = Vec::new();
    loop {
        reader.skip_blank();
        calls.push(reader.call()?);
        reader.skip_blank();
        if reader.rest.is_empty() {
            return Some(calls);
        }
        if !reader.take(',') && !reader.take(';') {
            return None;
        }
    }
}

struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    fn skip_blank(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn take(&mut self, c: char) -> bool {
        self.skip_blank();
        match self.rest.strip_prefix(c) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn name(&mut self) -> Option<String> {
        self.skip_blank();
        let end = self.rest.find(|c: char| !(c.is_alphanumeric() || "_.-".contains(c))).unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(end);
        self.rest = rest;
        (!name.is_empty() && !name.starts_with(|c: char| c.is_ascii_digit())).then(|| name.to_owned())
    }

    fn call(&mut self) -> Option<ToolCall> {
        let name = self.name()?;
        let name = name.strip_suffix(".call").unwrap_or(&name).to_owned();
        let mut arguments = Map::new();
        if !self.take('(') {
            return None;
        }
        while !self.take(')') {
            let key = self.name()?;
            if !self.take('=') {
                return None;
            }
            arguments.insert(key, self.value(0)?);
            if !self.take(',') && !self.rest.trim_start().starts_with(')') {
                return None;
            }
        }
        Some(ToolCall { name, arguments })
    }

    fn value(&mut self, depth: usize) -> Option<Value> {
        self.skip_blank();
        match self.rest.chars().next()? {
            _ if depth > DEPTH_MAX => None,
            quote @ ('"' | '\'') => self.text(quote).map(Value::from),
            '[' | '(' => {
                let close = if self.take('[') { ']' } else { ')' };
                if close == ')' {
                    self.take('(');
                }
                let mut items = Vec::new();
                while !self.take(close) {
                    items.push(self.value(depth + 1)?);
                    if !self.take(',') && !self.rest.trim_start().starts_with(close) {
                        return None;
                    }
                }
                Some(Value::from(items))
            }
            '{' => {
                self.take('{');
                let mut map = Map::new();
                while !self.take('}') {
                    let Value::String(key) = self.value(depth + 1)? else { return None };
                    if !self.take(':') {
                        return None;
                    }
                    map.insert(key, self.value(depth + 1)?);
                    if !self.take(',') && !self.rest.trim_start().starts_with('}') {
                        return None;
                    }
                }
                Some(Value::Object(map))
            }
            _ => self.word(),
        }
    }

    /// A number or one of the words for true, false and nothing.
    fn word(&mut self) -> Option<Value> {
        let end = self.rest.find([',', ')', ']', '}', ':', ' ', '\n']).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        match word {
            "True" | "true" => Some(Value::Bool(true)),
            "False" | "false" => Some(Value::Bool(false)),
            "None" | "null" => Some(Value::Null),
            number => serde_json::from_str(number).ok().filter(Value::is_number),
        }
    }

    /// A text in quotes, with the escapes that Python and JSON share.
    fn text(&mut self, quote: char) -> Option<String> {
        self.take(quote);
        let mut text = String::new();
        let mut characters = self.rest.char_indices();
        while let Some((at, c)) = characters.next() {
            match c {
                '\\' => match characters.next()?.1 {
                    'n' => text.push('\n'),
                    't' => text.push('\t'),
                    'r' => text.push('\r'),
                    other => text.push(other),
                },
                c if c == quote => {
                    self.rest = &self.rest[at + c.len_utf8()..];
                    return Some(text);
                }
                c => text.push(c),
            }
        }
        None
    }
}
