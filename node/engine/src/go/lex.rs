//! Source to tokens.

use serde_json::{Value, json};

/// A word of an action, or the text before one.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    Text(String),
    Open,
    Close,
    Word(String),
    Variable(String),
    Field(String),
    /// A field of what stands right before it.
    FieldOf(String),
    Dot,
    Literal(Value),
    Mark(&'static str),
}

/// The tokens of a source. Text between actions is one of them.
pub(super) fn tokens(source: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut rest = source;
    let mut trims = false;
    loop {
        let (text, after) = rest.split_once("{{").map_or((rest, None), |(text, after)| (text, Some(after)));
        let text = if trims { text.trim_start() } else { text };
        let Some(after) = after else {
            push_text(&mut tokens, text);
            return Ok(tokens);
        };
        let trims_before = after.starts_with("- ") || after.starts_with("-\n") || after.starts_with("-\t");
        push_text(&mut tokens, if trims_before { text.trim_end() } else { text });
        let inside = if trims_before { &after[1..] } else { after };
        if inside.trim_start().starts_with("/*") {
            let (_, end) = inside.split_once("*/").ok_or("unclosed comment")?;
            trims = end.starts_with(" -}}");
            rest = end.trim_start_matches(" -").strip_prefix("}}").ok_or("comment ends before closing delimiter")?;
            continue;
        }
        tokens.push(Token::Open);
        (rest, trims) = action(inside, &mut tokens)?;
        tokens.push(Token::Close);
    }
}

fn push_text(tokens: &mut Vec<Token>, text: &str) {
    if !text.is_empty() {
        tokens.push(Token::Text(text.to_owned()));
    }
}

/// The tokens up to the closing delimiter; what follows it, and whether white space after it goes.
fn action<'a>(source: &'a str, tokens: &mut Vec<Token>) -> Result<(&'a str, bool), String> {
    let mut rest = source;
    loop {
        let blank = rest.len() - rest.trim_start().len();
        if blank > 0 && rest.trim_start().starts_with("-}}") {
            return Ok((&rest.trim_start()[3..], true));
        }
        rest = &rest[blank..];
        if let Some(after) = rest.strip_prefix("}}") {
            return Ok((after, false));
        }
        let c = rest.chars().next().ok_or("unclosed action")?;
        rest = match c {
            '"' => {
                let end = quoted_end(rest).ok_or("unterminated quoted string")?;
                let text = serde_json::from_str::<String>(&rest[..end]).map_err(|_| format!("bad string {}", &rest[..end]))?;
                tokens.push(Token::Literal(json!(text)));
                &rest[end..]
            }
            '`' => {
                let (text, after) = rest[1..].split_once('`').ok_or("unterminated raw quoted string")?;
                tokens.push(Token::Literal(json!(text)));
                after
            }
            '.' => {
                let (name, after) = word(&rest[1..]);
                let joined = blank == 0
                    && matches!(tokens.last(), Some(Token::Field(_) | Token::FieldOf(_) | Token::Variable(_) | Token::Mark(")")));
                tokens.push(match name {
                    "" => Token::Dot,
                    name if joined => Token::FieldOf(name.to_owned()),
                    name => Token::Field(name.to_owned()),
                });
                after
            }
            '$' => {
                let (name, after) = word(&rest[1..]);
                tokens.push(Token::Variable(name.to_owned()));
                after
            }
            '0'..='9' | '-' | '+' => {
                let end = rest[1..].find(|c: char| !(c.is_ascii_alphanumeric() || c == '.')).map_or(rest.len(), |n| n + 1);
                let number = rest[..end].trim_start_matches('+');
                tokens.push(Token::Literal(serde_json::from_str(number).map_err(|_| format!("bad number {number:?}"))?));
                &rest[end..]
            }
            c if c.is_alphabetic() || c == '_' => {
                let (name, after) = word(rest);
                tokens.push(match name {
                    "true" => Token::Literal(json!(true)),
                    "false" => Token::Literal(json!(false)),
                    "nil" => Token::Literal(Value::Null),
                    name => Token::Word(name.to_owned()),
                });
                after
            }
            _ => {
                let mark = [":=", "=", "|", "(", ")", ","].into_iter().find(|mark| rest.starts_with(mark));
                let mark = mark.ok_or_else(|| format!("unexpected {c:?} in a command"))?;
                tokens.push(Token::Mark(mark));
                &rest[mark.len()..]
            }
        };
    }
}

fn quoted_end(text: &str) -> Option<usize> {
    let mut escape = false;
    text.char_indices().skip(1).find_map(|(at, c)| match c {
        _ if escape => {
            escape = false;
            None
        }
        '\\' => {
            escape = true;
            None
        }
        '"' => Some(at + 1),
        _ => None,
    })
}

fn word(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(text.len()))
}
