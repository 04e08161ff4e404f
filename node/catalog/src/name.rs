//! Model names: `[scheme://][host[:port]/][namespace/]model[:tag]`.

use std::fmt;

pub(crate) const HOST: &str = "registry.ollama.ai";
const NAMESPACE: &str = "library";
const TAG: &str = "latest";
const HOST_LEN_MAX: usize = 350;
const PART_LEN_MAX: usize = 80;

/// A complete name. Every part is made of letters, digits and a few marks, so it is safe as a folder name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ModelName {
    host: String,
    namespace: String,
    model: String,
    tag: String,
}

/// A text that is no model name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("invalid model name")]
pub struct NameError;

impl ModelName {
    /// Parses a name and fills in what it leaves out. Spaces around it are ignored.
    ///
    /// # Errors
    /// When a part is missing where one was announced, too long, or holds other characters.
    pub fn parse(text: &str) -> Result<ModelName, NameError> {
        let text = text.trim();
        let text = text.split_once("://").map_or(text, |(_, rest)| rest);
        let (path, tag) = match text.rsplit_once(':') {
            Some((path, tag)) if !tag.contains('/') => (path, tag),
            _ => (text, TAG),
        };
        let parts: Vec<&str> = path.split('/').collect();
        let (host, namespace, model) = match parts[..] {
            [model] => (HOST, NAMESPACE, model),
            [namespace, model] => (HOST, namespace, model),
            [host, namespace, model] => (host, namespace, model),
            _ => return Err(NameError),
        };
        let valid = part(host, HOST_LEN_MAX, "_-.:")
            && part(namespace, PART_LEN_MAX, "_-")
            && part(model, PART_LEN_MAX, "_-.")
            && part(tag, PART_LEN_MAX, "_-.");
        if !valid {
            return Err(NameError);
        }
        Ok(ModelName { host: host.into(), namespace: namespace.into(), model: model.into(), tag: tag.into() })
    }

    /// The name of a manifest's path below the manifests folder.
    pub(crate) fn from_parts(parts: [&str; 4]) -> Result<ModelName, NameError> {
        ModelName::parse(&format!("{}/{}/{}:{}", parts[0], parts[1], parts[2], parts[3]))
    }

    /// Who made the model.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The model without its maker and tag.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// Host, namespace, model and tag: the folders of its manifest.
    pub(crate) fn parts(&self) -> [&str; 4] {
        [&self.host, &self.namespace, &self.model, &self.tag]
    }

    /// Whether two names mean the same model: case does not count.
    pub fn matches(&self, other: &ModelName) -> bool {
        self.parts().iter().zip(other.parts()).all(|(a, b)| a.eq_ignore_ascii_case(b))
    }

    /// All four parts: `host/namespace/model:tag`.
    pub fn full(&self) -> String {
        format!("{}/{}/{}:{}", self.host, self.namespace, self.model, self.tag)
    }
}

/// The shortest form that means the same, always with its tag.
impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host != HOST {
            write!(f, "{}/{}/", self.host, self.namespace)?;
        } else if self.namespace != NAMESPACE {
            write!(f, "{}/", self.namespace)?;
        }
        write!(f, "{}:{}", self.model, self.tag)
    }
}

fn part(text: &str, len_max: usize, marks: &str) -> bool {
    let first = text.chars().next().is_some_and(|c| c.is_ascii_alphanumeric() || c == '_');
    first && text.len() <= len_max && text.chars().all(|c| c.is_ascii_alphanumeric() || marks.contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, shown: &str) {
        assert_eq!(ModelName::parse(text).map(|n| n.to_string()), Ok(shown.into()), "{text}");
    }

    #[test]
    fn what_is_left_out_is_filled_in() {
        check("qwen3", "qwen3:latest");
        check(" qwen3:0.6b ", "qwen3:0.6b");
        check("library/qwen3", "qwen3:latest");
        check("registry.ollama.ai/library/qwen3:latest", "qwen3:latest");
        check("someone/qwen3", "someone/qwen3:latest");
        check("http://localhost:5000/a/b:c", "localhost:5000/a/b:c");
        check("hf.co/org/repo:Q4_K_M", "hf.co/org/repo:Q4_K_M");
    }

    #[test]
    fn c03_what_is_no_name_is_refused() {
        let long = "x".repeat(10 << 10);
        for text in [
            "",
            ":",
            "a:",
            "/a",
            "a/",
            "../x",
            "a/b/c/d",
            "a b",
            "-rf",
            "a:b:c",
            "a/..",
            &"x".repeat(81),
            "a@sha256",
            "é",
            "a\u{0}b",
            "a\nb",
            "h?q/a/b",
            "h#f/a/b",
            "u:p@h/a/b",
            &long,
        ] {
            assert_eq!(ModelName::parse(text), Err(NameError), "{text}");
        }
    }

    #[test]
    fn case_does_not_count() {
        assert!(ModelName::parse("Qwen3:0.6B").unwrap().matches(&ModelName::parse("qwen3:0.6b").unwrap()));
    }
}
