//! The header's numbers and texts by the names of its architecture, each checked as it is read.

use crate::gguf::Header;
use crate::hyperparams::HyperparamsError;

/// Width of anything.
pub(crate) const WIDTH_MAX: i128 = 1 << 20;

/// The header's values under the names of its architecture.
pub(crate) struct Keys<'a> {
    pub(crate) header: &'a Header,
    pub(crate) architecture: &'a str,
}

impl Keys<'_> {
    pub(crate) fn name(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture)
    }

    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        self.header.text(&self.name(key))
    }

    pub(crate) fn wrong(&self, key: &str, found: impl ToString, needed: String) -> HyperparamsError {
        HyperparamsError::Value { key: self.name(key), found: found.to_string(), needed }
    }

    pub(crate) fn integer(&self, key: &str) -> Option<i128> {
        self.header.integer(&self.name(key))
    }

    pub(crate) fn optional_count(&self, key: &str, max: i128) -> Result<Option<usize>, HyperparamsError> {
        if !self.header.metadata.contains_key(&self.name(key)) {
            return Ok(None);
        }
        let found = self.integer(key).ok_or_else(|| self.wrong(key, "no whole number", format!("1 to {max}")))?;
        let count = usize::try_from(found).ok().filter(|_| (1..=max).contains(&found));
        count.map(Some).ok_or_else(|| self.wrong(key, found, format!("1 to {max}")))
    }

    pub(crate) fn count(&self, key: &str, max: i128) -> Result<usize, HyperparamsError> {
        self.optional_count(key, max)?.ok_or_else(|| HyperparamsError::Missing(self.name(key)))
    }

    pub(crate) fn positive(&self, key: &str, default: Option<f32>) -> Result<f32, HyperparamsError> {
        self.optional_positive(key)?.or(default).ok_or_else(|| HyperparamsError::Missing(self.name(key)))
    }

    pub(crate) fn optional_positive(&self, key: &str) -> Result<Option<f32>, HyperparamsError> {
        match self.header.float(&self.name(key)) {
            Some(found) if !(found.is_finite() && found > 0.0) => Err(self.wrong(key, found, "a finite number above 0".into())),
            found => Ok(found),
        }
    }

    /// The first of these that the file says.
    pub(crate) fn first_positive(&self, keys: &[&str], default: f32) -> Result<f32, HyperparamsError> {
        for key in keys {
            if let Some(found) = self.optional_positive(key)? {
                return Ok(found);
            }
        }
        Ok(default)
    }
}
