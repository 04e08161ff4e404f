//! Origin rules: which web pages may read answers.

/// Schemes an entry of the owner may begin with.
const SCHEMES: [&str; 6] = ["http", "https", "chrome-extension", "safari-extension", "moz-extension", "ms-browser-extension"];

/// Pages on this machine, and applications with a window of their own.
const BUILT_IN: [&str; 5] = ["app://*", "file://*", "tauri://*", "vscode-webview://*", "vscode-file://*"];

/// The list of allowed origins.
#[derive(Debug, Clone)]
pub struct Origins {
    patterns: Vec<String>,
    all: bool,
}

/// An entry that is no origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("origin {entry:?} must begin with one of {}, or hold one *", SCHEMES.map(|s| format!("{s}://")).join(", "))]
pub struct OriginError {
    entry: String,
}

/// What a request's origin means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OriginVerdict {
    /// No browser, or a page of this very server: nothing to say.
    NotCross,
    Allowed,
    /// Allowed because every origin is.
    AllowedAll,
    Refused,
}

impl Origins {
    /// The owner's comma-separated entries and the built-in ones.
    ///
    /// # Errors
    /// When an entry has no known scheme and no `*`, or more than one `*`.
    pub fn parse(entries: &str) -> Result<Origins, OriginError> {
        let mut patterns = Vec::new();
        for entry in entries.split(',').map(str::trim).filter(|e| !e.is_empty()) {
            let known = entry.split_once("://").is_some_and(|(scheme, _)| SCHEMES.contains(&scheme));
            let n_stars = entry.matches('*').count();
            if n_stars > 1 || n_stars == 0 && !known {
                return Err(OriginError { entry: entry.into() });
            }
            patterns.push(entry.to_ascii_lowercase());
        }
        let all = patterns.iter().any(|p| p == "*");
        for host in ["localhost", "127.0.0.1", "0.0.0.0"] {
            for scheme in ["http", "https"] {
                patterns.push(format!("{scheme}://{host}"));
                patterns.push(format!("{scheme}://{host}:*"));
            }
        }
        patterns.extend(BUILT_IN.map(String::from));
        Ok(Origins { patterns, all })
    }

    /// Decides on the `Origin` of a request to `host`.
    pub fn verdict(&self, origin: Option<&str>, host: &str) -> OriginVerdict {
        let Some(origin) = origin else { return OriginVerdict::NotCross };
        let origin = origin.to_ascii_lowercase();
        if origin
            .split_once("://")
            .is_some_and(|(scheme, rest)| (scheme == "http" || scheme == "https") && rest.eq_ignore_ascii_case(host))
        {
            return OriginVerdict::NotCross;
        }
        if self.all {
            return OriginVerdict::AllowedAll;
        }
        let allowed = origin != "null" && self.patterns.iter().any(|pattern| matches(pattern, &origin));
        if allowed { OriginVerdict::Allowed } else { OriginVerdict::Refused }
    }
}

fn matches(pattern: &str, origin: &str) -> bool {
    match pattern.split_once('*') {
        Some((before, after)) => {
            origin.len() >= before.len() + after.len() && origin.starts_with(before) && origin.ends_with(after)
        }
        None => pattern == origin,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(entries: &str, origin: &str, expected: OriginVerdict) {
        assert_eq!(Origins::parse(entries).unwrap().verdict(Some(origin), "box.local:11434"), expected, "{origin}");
    }

    #[test]
    fn local_pages_and_listed_ones_pass() {
        use OriginVerdict::{Allowed, AllowedAll, NotCross, Refused};
        check("", "http://localhost:3000", Allowed);
        check("", "https://127.0.0.1", Allowed);
        check("", "app://obsidian.md", Allowed);
        check("", "http://box.local:11434", NotCross);
        check("", "http://evil.example", Refused);
        check("", "http://localhost.evil.example", Refused);
        check("", "null", Refused);
        check("", "chrome-extension://abc", Refused);
        check("https://chat.example, chrome-extension://*", "https://chat.example", Allowed);
        check("https://chat.example, chrome-extension://*", "chrome-extension://abc", Allowed);
        check("http://*.home", "http://a.home", Allowed);
        check("*", "null", AllowedAll);
    }

    #[test]
    fn entries_must_be_origins() {
        for entry in ["chat.example", "ftp://x", "http://*.*"] {
            assert!(Origins::parse(entry).is_err(), "{entry}");
        }
    }
}
