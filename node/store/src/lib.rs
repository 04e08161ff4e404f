//! What the owner must not lose, in one SQLite file: tokens. All SQL is here.
//!
//! The file is written ahead (WAL) and synced with every change: measured by power cuts, anything less loses changes that were
//! acknowledged.

mod tokens;

use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use rusqlite::Connection;

pub use tokens::{Access, NewToken, Token};

/// How long a change waits for another process.
const PATIENCE: Duration = Duration::from_secs(5);
/// Version of the tables; a file of a later one is left alone.
const VERSION: i64 = 1;

/// The open file.
#[derive(Debug)]
pub struct Store {
    connection: Mutex<Connection>,
}

/// Why the store could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the state folder cannot be used: {0}")]
    Folder(#[from] std::io::Error),
    #[error("the state database cannot be used: {0}")]
    Database(#[from] rusqlite::Error),
    #[error("the state database is of version {found}, this program knows up to {VERSION}: update Lantern")]
    Newer { found: i64 },
    #[error("a token named {name:?} exists already; revoke it first or choose another name")]
    NameTaken { name: String },
    #[error("no token is named {name:?}")]
    NoSuchToken { name: String },
    #[error("the system has no random numbers: {0}")]
    Random(String),
}

impl Store {
    /// Opens the file in a folder, which is made if need be, and brings its tables up to date.
    ///
    /// # Errors
    /// When the folder or file cannot be used, or was written by a later version.
    pub fn open(folder: &Path) -> Result<Store, StoreError> {
        std::fs::create_dir_all(folder)?;
        let connection = Connection::open(folder.join("lantern.db"))?;
        connection.busy_timeout(PATIENCE)?;
        connection.pragma_update(None, "journal_mode", "wal")?;
        connection.pragma_update(None, "synchronous", "full")?;
        let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
        if found > VERSION {
            return Err(StoreError::Newer { found });
        }
        if found < VERSION {
            connection.execute_batch(tokens::TABLE)?;
            connection.pragma_update(None, "user_version", VERSION)?;
        }
        Ok(Store { connection: Mutex::new(connection) })
    }
}
