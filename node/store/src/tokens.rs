//! Tokens: opaque, random, kept as hashes, named by their owner.

use std::sync::PoisonError;

use jiff::{Timestamp, ToSpan};
use rusqlite::{OptionalExtension, params};
use sha2::{Digest, Sha256};

use crate::{Store, StoreError};

pub(crate) const TABLE: &str = "CREATE TABLE IF NOT EXISTS tokens (
    name TEXT PRIMARY KEY,
    hash BLOB NOT NULL UNIQUE,
    access INTEGER NOT NULL,
    created INTEGER NOT NULL,
    expires INTEGER NOT NULL,
    last_used INTEGER
) STRICT;";

/// What begins a token, so that people and scanners know one.
const PREFIX: &str = "ltn_";
/// Random bytes of a token.
const N_BYTES: usize = 32;
/// Seconds between two notes of a token's use.
const USE_INTERVAL: i64 = 60;

/// What a token allows; each includes those before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    Read,
    Write,
    Admin,
}

/// A token as listings show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    pub name: String,
    pub access: Access,
    pub created: Timestamp,
    pub expires: Timestamp,
    pub last_used: Option<Timestamp>,
}

/// A token just made: the only time its text is known.
#[derive(Debug)]
pub struct NewToken {
    pub text: String,
    pub expires: Timestamp,
}

impl Access {
    /// Every kind, with its scope.
    pub const SCOPES: [(&str, Access); 3] =
        [("mcp:read", Access::Read), ("mcp:write", Access::Write), ("mcp:admin", Access::Admin)];

    /// Its scope.
    pub fn scope(self) -> &'static str {
        Access::SCOPES[self as usize].0
    }

    /// The kind of a scope, with or without `mcp:` before it.
    pub fn named(text: &str) -> Option<Access> {
        Access::SCOPES
            .into_iter()
            .find(|(scope, _)| *scope == text || scope.strip_prefix("mcp:") == Some(text))
            .map(|(_, kind)| kind)
    }
}

impl Store {
    /// Makes a token of a name that no other has, good for some days.
    ///
    /// # Errors
    /// When the name is taken, or the file cannot be written.
    pub fn create_token(&self, name: &str, access: Access, days: u32, now: Timestamp) -> Result<NewToken, StoreError> {
        let mut bytes = [0u8; N_BYTES];
        getrandom::fill(&mut bytes).map_err(|e| StoreError::Random(e.to_string()))?;
        let text = PREFIX.to_owned() + &bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        let expires = now + (24 * i64::from(days)).hours();
        let values = params![name, hash(&text), access as i64, now.as_second(), expires.as_second()];
        let sql =
            "INSERT INTO tokens (name, hash, access, created, expires) VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (name) DO NOTHING";
        match self.lock().execute(sql, values)? {
            0 => Err(StoreError::NameTaken { name: name.into() }),
            _ => Ok(NewToken { text, expires }),
        }
    }

    /// All tokens, by name.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn tokens(&self) -> Result<Vec<Token>, StoreError> {
        let connection = self.lock();
        let mut rows = connection.prepare("SELECT name, access, created, expires, last_used FROM tokens ORDER BY name")?;
        let tokens = rows.query_map([], token)?.collect::<Result<_, _>>()?;
        Ok(tokens)
    }

    /// Ends a token at once.
    ///
    /// # Errors
    /// When there is none of this name, or the file cannot be written.
    pub fn revoke_token(&self, name: &str) -> Result<(), StoreError> {
        match self.lock().execute("DELETE FROM tokens WHERE name = ?1", [name])? {
            0 => Err(StoreError::NoSuchToken { name: name.into() }),
            _ => Ok(()),
        }
    }

    /// The token of this text, if it is known and has not expired. Its use is noted, not more than once a minute.
    ///
    /// Texts are looked up by their hash, so that how long it takes tells nothing of how near a guess was.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn check_token(&self, text: &str, now: Timestamp) -> Result<Option<Token>, StoreError> {
        let connection = self.lock();
        let sql = "SELECT name, access, created, expires, last_used FROM tokens WHERE hash = ?1 AND expires > ?2";
        let found = connection.prepare_cached(sql)?.query_row(params![hash(text), now.as_second()], token).optional()?;
        if let Some(found) = &found
            && found.last_used.is_none_or(|used| now.as_second() - used.as_second() >= USE_INTERVAL)
        {
            // A disk that is full must not lock its owner out: the note is lost, the token is not.
            _ = connection.execute("UPDATE tokens SET last_used = ?1 WHERE name = ?2", params![now.as_second(), found.name]);
        }
        Ok(found)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, rusqlite::Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a text looks like a token of this box; others are for somebody else and mean nothing here.
impl Token {
    pub fn is_one(text: &str) -> bool {
        text.starts_with(PREFIX)
    }
}

fn hash(text: &str) -> Vec<u8> {
    Sha256::digest(text).to_vec()
}

fn token(row: &rusqlite::Row) -> rusqlite::Result<Token> {
    let time = |seconds: i64| Timestamp::from_second(seconds).unwrap_or_default();
    let access = match row.get::<_, i64>(1)? {
        0 => Access::Read,
        1 => Access::Write,
        _ => Access::Admin,
    };
    Ok(Token {
        name: row.get(0)?,
        access,
        created: time(row.get(2)?),
        expires: time(row.get(3)?),
        last_used: row.get::<_, Option<i64>>(4)?.map(time),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_live_and_end() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("state")).unwrap();
        let now: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        let made = store.create_token("laptop", Access::Write, 90, now).unwrap();
        assert!(Token::is_one(&made.text) && made.text.len() == 68);
        assert!(matches!(store.create_token("laptop", Access::Read, 1, now), Err(StoreError::NameTaken { .. })));
        let found = store.check_token(&made.text, now).unwrap().unwrap();
        assert_eq!((found.name.as_str(), found.access, found.last_used), ("laptop", Access::Write, None));
        assert_eq!(store.tokens().unwrap()[0].last_used, Some(now));
        assert_eq!(store.check_token("ltn_00", now).unwrap(), None);
        let later = now + (91 * 24).hours();
        assert_eq!(store.check_token(&made.text, later).unwrap(), None, "expired");
        // Another process sees what this one does.
        let other = Store::open(&folder.path().join("state")).unwrap();
        other.revoke_token("laptop").unwrap();
        assert_eq!(store.check_token(&made.text, now).unwrap(), None);
        assert!(matches!(store.revoke_token("laptop"), Err(StoreError::NoSuchToken { .. })));
        assert!(
            !std::fs::read(folder.path().join("state/lantern.db")).unwrap().windows(20).any(|w| w == &made.text.as_bytes()[..20])
        );
    }

    #[test]
    fn j09_a_later_version_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        drop(Store::open(folder.path()).unwrap());
        let connection = rusqlite::Connection::open(folder.path().join("lantern.db")).unwrap();
        connection.pragma_update(None, "user_version", 99).unwrap();
        assert!(matches!(Store::open(folder.path()), Err(StoreError::Newer { found: 99 })));
    }
}
