//! The Modelfile: what a model is made of, as people write it.

use serde_json::{Map, Value, json};

/// A parsed Modelfile.
#[derive(Debug, Default, PartialEq)]
pub struct Modelfile {
    /// A model's name, or the path of a file.
    pub from: String,
    pub template: Option<String>,
    pub system: Option<String>,
    pub licenses: Vec<String>,
    pub parameters: Map<String, Value>,
    /// What other programs read: `renderer`, `parser` and `requires`.
    pub config: Map<String, Value>,
    /// Role and text.
    pub messages: Vec<(String, String)>,
}

/// Why a text is no Modelfile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModelfileError {
    #[error("no FROM line")]
    NoFrom,
    #[error(
        "(line {line}): command must be one of \"from\", \"license\", \"template\", \"system\", \"adapter\", \"draft\", \
         \"renderer\", \"parser\", \"parameter\", \"message\", or \"requires\", found {found:?}"
    )]
    Command { line: usize, found: String },
    #[error("(line {line}): {command} is not supported")]
    Unsupported { line: usize, command: String },
    #[error("(line {line}): unexpected EOF: a quote is not closed")]
    Quote { line: usize },
    #[error("(line {line}): unknown parameter '{name}'")]
    Parameter { line: usize, name: String },
    #[error("(line {line}): parameter {name} is {found:?}, needed is {needed}")]
    Value { line: usize, name: String, found: String, needed: &'static str },
    #[error("(line {line}): message role must be one of \"system\", \"user\", or \"assistant\"")]
    Role { line: usize },
}

/// Parameters and their types.
const INTEGERS: [&str; 11] = [
    "num_ctx",
    "num_batch",
    "num_gpu",
    "main_gpu",
    "num_thread",
    "num_keep",
    "seed",
    "num_predict",
    "top_k",
    "repeat_last_n",
    "draft_num_predict",
];
const FLOATS: [&str; 7] =
    ["temperature", "top_p", "min_p", "typical_p", "repeat_penalty", "presence_penalty", "frequency_penalty"];
/// Parameters that meant something once.
const FORMER: [&str; 9] = [
    "penalize_newline",
    "low_vram",
    "f16_kv",
    "logits_all",
    "vocab_only",
    "use_mlock",
    "mirostat",
    "mirostat_tau",
    "mirostat_eta",
];

impl Modelfile {
    /// The text of a file in UTF-8, or in UTF-16 that begins with its mark. `None` for other bytes.
    pub fn text(bytes: &[u8]) -> Option<String> {
        let utf16 = |unit: fn([u8; 2]) -> u16| {
            let units: Vec<u16> = bytes.chunks_exact(2).map(|pair| unit([pair[0], pair[1]])).collect();
            String::from_utf16(&units).ok().filter(|_| bytes.len().is_multiple_of(2))
        };
        match bytes {
            [0xff, 0xfe, ..] => utf16(u16::from_le_bytes),
            [0xfe, 0xff, ..] => utf16(u16::from_be_bytes),
            _ => String::from_utf8(bytes.to_vec()).ok(),
        }
    }

    /// Parses a Modelfile: an instruction a line, in any order and case; values bare, in quotes, or in three quotes over lines.
    ///
    /// # Errors
    /// When a line is none of it, or there is no FROM.
    pub fn parse(text: &str) -> Result<Modelfile, ModelfileError> {
        let mut file = Modelfile::default();
        let mut rest = text.trim_start_matches('\u{feff}');
        let mut line = 1;
        while !rest.is_empty() {
            let (first, after) = rest.split_once('\n').unwrap_or((rest, ""));
            if first.trim().is_empty() || first.trim_start().starts_with('#') {
                (rest, line) = (after, line + 1);
                continue;
            }
            let here = rest.trim_start();
            let (command, value) = here.split_at(here.find(char::is_whitespace).unwrap_or(here.len()));
            let command = command.to_ascii_lowercase();
            // Parameters and messages have a name before their value.
            let (name, value) = match command.as_str() {
                "parameter" | "message" => {
                    let value = value.trim_start_matches([' ', '\t']);
                    value.split_at(value.find([' ', '\t', '\n', '\r']).unwrap_or(value.len()))
                }
                _ => ("", value),
            };
            let (value, after) = value_of(value).ok_or(ModelfileError::Quote { line })?;
            file.set(line, &command, name, value)?;
            line += here[..here.len() - after.len()].matches('\n').count();
            rest = after;
        }
        if file.from.is_empty() { Err(ModelfileError::NoFrom) } else { Ok(file) }
    }

    fn set(&mut self, line: usize, command: &str, name: &str, value: String) -> Result<(), ModelfileError> {
        match command {
            "from" => self.from = value,
            "template" => self.template = Some(value),
            "system" => self.system = Some(value),
            "license" => self.licenses.push(value),
            "renderer" | "parser" | "requires" => _ = self.config.insert(command.into(), value.into()),
            "parameter" => self.set_parameter(line, name, &value)?,
            "message" if ["system", "user", "assistant"].contains(&name) => self.messages.push((name.into(), value)),
            "message" => return Err(ModelfileError::Role { line }),
            "adapter" | "draft" => {
                return Err(ModelfileError::Unsupported { line, command: command.to_uppercase() });
            }
            other => return Err(ModelfileError::Command { line, found: other.chars().take(40).collect() }),
        }
        Ok(())
    }

    fn set_parameter(&mut self, line: usize, name: &str, value: &str) -> Result<(), ModelfileError> {
        let wrong = |needed| ModelfileError::Value { line, name: name.into(), found: value.into(), needed };
        let value = if name == "stop" {
            let stops = self.parameters.entry("stop").or_insert_with(|| json!([]));
            stops.as_array_mut().expect("only stops are put here").push(json!(value));
            return Ok(());
        } else if INTEGERS.contains(&name) {
            json!(value.parse::<i64>().map_err(|_| wrong("a whole number"))?)
        } else if FLOATS.contains(&name) {
            json!(value.parse::<f64>().ok().filter(|v| v.is_finite()).ok_or_else(|| wrong("a number"))?)
        } else if name == "use_mmap" {
            json!(value.parse::<bool>().map_err(|_| wrong("true or false"))?)
        } else if FORMER.contains(&name) {
            return Ok(());
        } else {
            return Err(ModelfileError::Parameter { line, name: name.into() });
        };
        self.parameters.insert(name.into(), value);
        Ok(())
    }
}

/// A value and what follows its line; `None` when its quote is not closed.
fn value_of(text: &str) -> Option<(String, &str)> {
    let text = text.trim_start_matches([' ', '\t']);
    for quote in ["\"\"\"", "\""] {
        if let Some(inside) = text.strip_prefix(quote) {
            let (value, after) = inside.split_once(quote)?;
            return Some((value.to_owned(), after.split_once('\n').map_or("", |(_, after)| after)));
        }
    }
    let (value, after) = text.split_once('\n').unwrap_or((text, ""));
    Some((value.trim_end().to_owned(), after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_instruction() {
        let text = "\u{feff}# a comment\n\nFROM ./model.gguf\nparameter temperature 0.5\nPARAMETER num_ctx 512\r\nPARAMETER stop \"<|end|>\"\n\
            PARAMETER stop END\nPARAMETER mirostat 1\nSYSTEM \"\"\"\nBe kind.\nAnd brief.\"\"\"\ntemplate {{ .Prompt }}\nLICENSE \"MIT\"\n\
            MESSAGE user Hi\nMESSAGE assistant \"\"\"Hello,\nyou.\"\"\"\nREQUIRES 0.5\nRENDERER qwen3-coder";
        let file = Modelfile::parse(text).unwrap();
        assert_eq!((file.from.as_str(), file.template.as_deref()), ("./model.gguf", Some("{{ .Prompt }}")));
        assert_eq!(file.system.as_deref(), Some("\nBe kind.\nAnd brief."));
        assert_eq!(Value::Object(file.config), json!({ "requires": "0.5", "renderer": "qwen3-coder" }));
        assert_eq!(file.licenses, ["MIT"]);
        let expected = json!({ "temperature": 0.5, "num_ctx": 512, "stop": ["<|end|>", "END"] });
        assert_eq!(Value::Object(file.parameters), expected);
        let messages = [("user", "Hi"), ("assistant", "Hello,\nyou.")].map(|(r, t)| (r.to_owned(), t.to_owned()));
        assert_eq!(file.messages, messages);
    }

    #[test]
    fn every_encoding() {
        let text = "\u{feff}FROM x\nSYSTEM Größe";
        let units = || text.encode_utf16();
        let le: Vec<u8> = units().flat_map(u16::to_le_bytes).collect();
        let be: Vec<u8> = units().flat_map(u16::to_be_bytes).collect();
        for bytes in [text.as_bytes(), &le, &be] {
            let file = Modelfile::parse(&Modelfile::text(bytes).unwrap()).unwrap();
            assert_eq!((file.from.as_str(), file.system.as_deref()), ("x", Some("Größe")));
        }
        assert_eq!((Modelfile::text(&[b'F', 0xff]), Modelfile::text(&le[..5])), (None, None));
    }

    fn check(text: &str, expected: &str) {
        assert_eq!(Modelfile::parse(text).unwrap_err().to_string(), expected, "{text:?}");
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        check("", "no FROM line");
        check("# only\n", "no FROM line");
        check("FROM x\nSYSTEM \"\"\"a\nb", "(line 2): unexpected EOF: a quote is not closed");
        check("FROM x\n\nPARAMETER warmth 1", "(line 3): unknown parameter 'warmth'");
        check("FROM x\nPARAMETER top_k many", "(line 2): parameter top_k is \"many\", needed is a whole number");
        check("FROM x\nMESSAGE robot hi", "(line 2): message role must be one of \"system\", \"user\", or \"assistant\"");
        check("FROM x\nADAPTER y", "(line 2): ADAPTER is not supported");
        assert!(
            Modelfile::parse("FROM x\nSYSTEM \"\"\"a\nb\"\"\"\nCOOK y")
                .unwrap_err()
                .to_string()
                .starts_with("(line 4): command must be one of")
        );
    }
}
