//! What templates are filled in with: JSON whose copies share texts and lists.

use std::rc::Rc;

use serde::ser::{Serialize, Serializer};
use serde_json::{Number, Value};

/// A value in a template. A copy costs the same whatever it holds.
#[derive(Debug, Clone, Default)]
pub(super) enum Datum {
    #[default]
    Nothing,
    Truth(bool),
    Number(Number),
    Text(Rc<str>),
    List(List),
    Map(Rc<[(Rc<str>, Datum)]>),
}

/// Items of a list, or a part of them.
#[derive(Debug, Clone)]
pub(super) struct List {
    all: Rc<[Datum]>,
    from: usize,
    to: usize,
}

impl List {
    pub(super) fn items(&self) -> &[Datum] {
        &self.all[self.from..self.to]
    }

    /// Items `from` to `to` of these, which there must be.
    pub(super) fn part(&self, from: usize, to: usize) -> List {
        List { all: self.all.clone(), from: self.from + from, to: self.from + to }
    }
}

impl Datum {
    pub(super) fn map(entries: impl IntoIterator<Item = (&'static str, Datum)>) -> Datum {
        Datum::Map(entries.into_iter().map(|(name, value)| (name.into(), value)).collect())
    }

    /// The entry of a map.
    pub(super) fn get(&self, name: &str) -> Option<&Datum> {
        let Datum::Map(entries) = self else { return None };
        entries.iter().find(|(known, _)| &**known == name).map(|(_, value)| value)
    }

    pub(super) fn as_text(&self) -> Option<&str> {
        if let Datum::Text(text) = self { Some(text) } else { None }
    }

    /// A whole number that is not negative.
    pub(super) fn as_count(&self) -> Option<usize> {
        if let Datum::Number(number) = self { usize::try_from(number.as_u64()?).ok() } else { None }
    }

    /// What it is, for errors.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Datum::Nothing => "nothing",
            Datum::Truth(_) => "a truth",
            Datum::Number(_) => "a number",
            Datum::Text(_) => "a text",
            Datum::List(_) => "a list",
            Datum::Map(_) => "an object",
        }
    }

    /// JSON as Go writes it: without spaces, and with escapes for what matters to HTML.
    pub(super) fn json(&self) -> String {
        let text = serde_json::to_string(self).expect("data are JSON");
        text.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
    }
}

impl From<bool> for Datum {
    fn from(truth: bool) -> Datum {
        Datum::Truth(truth)
    }
}

impl From<usize> for Datum {
    fn from(number: usize) -> Datum {
        Datum::Number(number.into())
    }
}

impl From<&str> for Datum {
    fn from(text: &str) -> Datum {
        Datum::Text(text.into())
    }
}

impl From<String> for Datum {
    fn from(text: String) -> Datum {
        Datum::Text(text.into())
    }
}

impl From<&Value> for Datum {
    fn from(value: &Value) -> Datum {
        match value {
            Value::Null => Datum::Nothing,
            Value::Bool(truth) => Datum::Truth(*truth),
            Value::Number(number) => Datum::Number(number.clone()),
            Value::String(text) => text.as_str().into(),
            Value::Array(items) => items.as_slice().into(),
            Value::Object(map) => Datum::Map(map.iter().map(|(name, value)| (name.as_str().into(), value.into())).collect()),
        }
    }
}

impl From<&[Value]> for Datum {
    fn from(items: &[Value]) -> Datum {
        Datum::List(List { from: 0, to: items.len(), all: items.iter().map(Datum::from).collect() })
    }
}

impl Serialize for Datum {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Datum::Nothing => serializer.serialize_none(),
            Datum::Truth(truth) => serializer.serialize_bool(*truth),
            Datum::Number(number) => number.serialize(serializer),
            Datum::Text(text) => serializer.serialize_str(text),
            Datum::List(list) => serializer.collect_seq(list.items()),
            Datum::Map(entries) => serializer.collect_map(entries.iter().map(|(name, value)| (&**name, value))),
        }
    }
}
