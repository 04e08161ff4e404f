//! What is rewritten in a template before it is parsed, because the engine has no word for it.

use std::borrow::Cow;
use std::sync::LazyLock;

use minijinja::value::{Rest, Value};
use minijinja::{Error, HtmlEscape};
use regex::{Captures, Regex};

/// Name of the function that adds texts of which some are marked safe.
pub(super) const MARKUP_SUM: &str = "__markup_sum";

/// `{% generation %}` marks what a training run learns from and renders its body: a condition that always holds. A sum with
/// a text marked `safe` escapes its other texts for HTML, as Python's markup type does: a call of [`markup_sum`].
pub(super) fn rewritten(source: &str) -> Cow<'_, str> {
    static GENERATION: LazyLock<Regex> = LazyLock::new(|| pattern(r"\{%([-+]?)\s*(end)?generation\s*([-+]?)%\}"));
    static SUM: LazyLock<Regex> =
        LazyLock::new(|| pattern(r"\{\{([-+]?)([^{}]*\|\s*safe\s*\+[^{}]*|[^{}]*\+[^{}]*\|\s*safe\s*)([-+]?)\}\}"));
    let generation = GENERATION.replace_all(source, |found: &Captures| {
        let word = if found.get(2).is_some() { "endif" } else { "if true" };
        format!("{{%{} {word} {}%}}", &found[1], &found[3])
    });
    let sums = SUM.replace_all(&generation, |found: &Captures| match terms(&found[2]) {
        terms if terms.len() > 1 => format!("{{{{{} {MARKUP_SUM}({}) {}}}}}", &found[1], terms.join(", "), &found[3]),
        _ => found[0].to_owned(),
    });
    match sums {
        Cow::Owned(text) => Cow::Owned(text),
        Cow::Borrowed(_) => generation,
    }
}

/// Adds texts from left to right; once one of the two sides is marked safe, the other is escaped and the sum is safe.
pub(super) fn markup_sum(terms: Rest<Value>) -> Result<Value, Error> {
    let escaped = |value: &Value| {
        // Python writes a single quote as `&#39;` and a double one as `&#34;`.
        HtmlEscape(&value.to_string()).to_string().replace("&quot;", "&#34;").replace("&#x27;", "&#39;").replace("&#x2f;", "/")
    };
    let sum = |left: Value, right: &Value| match (left.is_safe(), right.is_safe()) {
        (false, false) => Value::from(format!("{left}{right}")),
        (true, true) => Value::from_safe_string(format!("{left}{right}")),
        (true, false) => Value::from_safe_string(format!("{left}{}", escaped(right))),
        (false, true) => Value::from_safe_string(format!("{}{right}", escaped(&left))),
    };
    let mut terms = terms.0.into_iter();
    let first = terms.next().unwrap_or_default();
    Ok(terms.fold(first, |left, right| sum(left, &right)))
}

/// The terms of a sum: cut at each `+` outside quotes and brackets.
fn terms(expression: &str) -> Vec<&str> {
    let (mut terms, mut start, mut depth, mut quote) = (Vec::new(), 0, 0, None);
    let mut characters = expression.char_indices();
    while let Some((at, c)) = characters.next() {
        match (quote, c) {
            (Some(_), '\\') => _ = characters.next(),
            (Some(open), _) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, '(' | '[') => depth += 1,
            (None, ')' | ']') => depth -= 1,
            (None, '+') if depth == 0 => {
                terms.push(expression[start..at].trim());
                start = at + 1;
            }
            (None, _) => {}
        }
    }
    terms.push(expression[start..].trim());
    terms
}

fn pattern(source: &str) -> Regex {
    Regex::new(source).expect("the patterns of this file are valid")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(source: &str, expected: &str) {
        assert_eq!(rewritten(source), expected);
    }

    #[test]
    fn only_what_must_be_is_rewritten() {
        check("{%- generation -%}a{% endgeneration %}", "{%- if true -%}a{% endif %}");
        check(r#"{{ "a+b"|safe + x["k"] + f(1 + 2) }}"#, r#"{{ __markup_sum("a+b"|safe, x["k"], f(1 + 2)) }}"#);
        check("{{ a + b }}{{ c | safe }}", "{{ a + b }}{{ c | safe }}");
    }
}
