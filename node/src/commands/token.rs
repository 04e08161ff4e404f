//! `lantern token`: tokens of this machine's daemon.

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use jiff::Timestamp;
use serde_json::json;
use store::{Access, Store};

use super::table;
use crate::config::Config;

#[derive(Subcommand)]
pub(crate) enum Action {
    /// Make a token; it is shown once and never again
    Create {
        /// What the token is for, such as laptop
        name: String,
        /// How far it reaches: read (use), write (also change models), admin (also settings)
        #[arg(long, default_value = "write")]
        scope: String,
        /// Days until it expires
        #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u32).range(1..=3650))]
        days: u32,
    },
    /// List tokens with their scope, expiry and last use
    List,
    /// End a token at once
    Revoke {
        /// Its name
        name: String,
    },
}

pub(super) fn token(config: &Config, action: &Action, as_json: bool) -> Result<()> {
    let folder = config.state.as_deref().context("no home folder is known: set LANTERN_STATE to the folder for tokens")?;
    let store = Store::open(folder)?;
    match action {
        Action::Create { name, scope, days } => create(&store, name, scope, *days, as_json),
        Action::List => list(&store, as_json),
        Action::Revoke { name } => {
            store.revoke_token(name)?;
            if as_json {
                println!("{}", json!({ "revoked": name }));
            } else {
                println!("revoked {name}");
            }
            Ok(())
        }
    }
}

fn create(store: &Store, name: &str, scope: &str, days: u32, as_json: bool) -> Result<()> {
    let access = Access::named(scope).with_context(|| format!("the scope is {scope:?}, needed is read, write or admin"))?;
    if name.trim().is_empty() || name.len() > 100 || name.chars().any(char::is_control) {
        bail!("a token's name has 1 to 100 bytes and no control characters");
    }
    let made = store.create_token(name, access, days, Timestamp::now())?;
    if as_json {
        println!("{}", json!({ "name": name, "token": made.text, "scope": access.scope(), "expires": made.expires.to_string() }));
    } else {
        println!("{}", made.text);
        eprintln!("This is the only time the token is shown. It has {} and expires on {}.", access.scope(), day(made.expires));
        eprintln!("Clients send it as `Authorization: Bearer TOKEN`; commands take it from LANTERN_TOKEN.");
    }
    Ok(())
}

fn list(store: &Store, as_json: bool) -> Result<()> {
    let tokens = store.tokens()?;
    if as_json {
        let object = |t: &store::Token| {
            json!({ "name": t.name, "scope": t.access.scope(), "created": t.created.to_string(), "expires": t.expires.to_string(),
                "last_used": t.last_used.map(|used| used.to_string()) })
        };
        println!("{}", json!({ "tokens": tokens.iter().map(object).collect::<Vec<_>>() }));
        return Ok(());
    }
    let rows = tokens.iter().map(|t| {
        let last_used = t.last_used.map_or("never".into(), |used| used.to_string());
        vec![t.name.clone(), t.access.scope().to_owned(), day(t.expires), last_used]
    });
    table::print(&["NAME", "SCOPE", "EXPIRES", "LAST USED"], &rows.collect::<Vec<_>>());
    Ok(())
}

/// The day of an instant.
fn day(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d").to_string()
}
