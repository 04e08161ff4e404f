//! One Config from the environment, checked before any port opens. The names and meanings are Ollama's.

use std::env;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use access::{Mode, Origins};
use anyhow::{Context, Result, bail};
use catalog::{HUB, REGISTRY, Registry, Store};
use scheduler::{KeepAlive, KvType, Limits, Threads};

const PORT: u16 = 11434;

/// What the owner has set.
pub(crate) struct Config {
    /// Address and port to listen on, or to find the daemon at.
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) models: PathBuf,
    pub(crate) registry: Registry,
    pub(crate) limits: Limits,
    /// Threads that compute, where the owner says so.
    pub(crate) threads: Option<Threads>,
    /// Where what can be made again is kept, if anywhere.
    pub(crate) cache: Option<PathBuf>,
    /// Where the daemon keeps chats that leave memory, if anywhere.
    pub(crate) sessions: Option<PathBuf>,
    pub(crate) origins: Origins,
    /// Names, beside this machine's own, that the server may be addressed by.
    pub(crate) names: Vec<String>,
    /// Whether Go templates come before those in model files.
    pub(crate) go_templates: bool,
    /// Whether blobs stay that no model uses any more.
    pub(crate) keeps_unused: bool,
    /// Who may do what.
    pub(crate) mode: Mode,
    /// Where tokens are kept.
    pub(crate) state: Option<PathBuf>,
    /// What commands show a daemon that wants a token.
    pub(crate) token: Option<String>,
}

impl Config {
    /// Reads `OLLAMA_*`; what is unset has Ollama's default.
    pub(crate) fn from_environment() -> Result<Config> {
        let (host, port) = host(&text("OLLAMA_HOST"));
        let defaults = Limits::default();
        let limits = Limits {
            queue_len_max: number("OLLAMA_MAX_QUEUE")?.unwrap_or(defaults.queue_len_max),
            n_waiting_per_client: number("LANTERN_CLIENT_WAITING")?.filter(|n| *n > 0).unwrap_or(defaults.n_waiting_per_client),
            n_running_per_client: number("LANTERN_CLIENT_RUNNING")?.filter(|n| *n > 0).unwrap_or(defaults.n_running_per_client),
            n_parallel: number("OLLAMA_NUM_PARALLEL")?.filter(|n| *n > 0).unwrap_or(defaults.n_parallel),
            n_models_max: number("OLLAMA_MAX_LOADED_MODELS")?.filter(|n| *n > 0).unwrap_or(defaults.n_models_max),
            n_ctx: number("OLLAMA_CONTEXT_LENGTH")?.filter(|n| *n > 0).unwrap_or(defaults.n_ctx),
            keep_alive: keep_alive(&text("OLLAMA_KEEP_ALIVE"))?.unwrap_or(defaults.keep_alive),
            threads: defaults.threads,
            kv_type: match text("OLLAMA_KV_CACHE_TYPE").as_str() {
                "" => defaults.kv_type,
                // Who wants them that small gets the smallest there is.
                "q4_0" => KvType::Q8_0,
                name => KvType::named(name).with_context(|| format!("OLLAMA_KV_CACHE_TYPE is {name}, needed is f16 or q8_0"))?,
            },
            sessions: None,
            drafting: defaults.drafting,
        };
        let origins = Origins::parse(&text("OLLAMA_ORIGINS")).context("OLLAMA_ORIGINS cannot be used")?;
        let or =
            |name: &str, default: &str| Some(text(name)).filter(|base| !base.is_empty()).unwrap_or_else(|| default.to_owned());
        let registry = Registry::new(&or("LANTERN_REGISTRY", REGISTRY), &or("LANTERN_HUB", HUB));
        let registry = registry.map_err(|e| anyhow::anyhow!("LANTERN_REGISTRY or LANTERN_HUB cannot be used: {e}"))?;
        let registry = pulling(registry)?;
        let (threads, cache) = (threads(&text("LANTERN_THREADS"))?, cache());
        let sessions = sessions(&text("LANTERN_SESSIONS"), cache.as_deref());
        let mode = text("LANTERN_ACCESS");
        let mode = Mode::named(&mode).with_context(|| format!("LANTERN_ACCESS is {mode}, needed is standard, tokens or open"))?;
        let names = text("LANTERN_NAMES").split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect();
        let token = Some(text("LANTERN_TOKEN")).filter(|token| !token.is_empty());
        let state = state(&text("LANTERN_STATE"));
        Ok(Config {
            names,
            go_templates: truth("OLLAMA_GO_TEMPLATE").unwrap_or(true),
            keeps_unused: truth("OLLAMA_NOPRUNE").unwrap_or(false),
            mode,
            state,
            token,
            host,
            port,
            models: models(&text("OLLAMA_MODELS"))?,
            registry,
            limits,
            threads,
            cache,
            sessions,
            origins,
        })
    }

    /// The store of models.
    pub(crate) fn store(&self) -> Store {
        Store::new(&self.models).keeping_unused(self.keeps_unused)
    }

    /// Where clients on this machine reach the daemon.
    pub(crate) fn url(&self) -> String {
        let reachable = match self.host.parse::<IpAddr>() {
            Ok(address) if address.is_unspecified() => Ipv4Addr::LOCALHOST.to_string(),
            Ok(IpAddr::V6(address)) => format!("[{address}]"),
            _ => self.host.clone(),
        };
        format!("http://{reachable}:{}", self.port)
    }
}

/// A variable without the spaces and quotes around it.
fn text(name: &str) -> String {
    env::var(name).unwrap_or_default().trim().trim_matches(['"', '\'']).trim().to_owned()
}

/// Whether a variable says yes; what is neither yes nor no is yes.
fn truth(name: &str) -> Option<bool> {
    let text = text(name).to_ascii_lowercase();
    (!text.is_empty()).then(|| !["0", "false", "f"].contains(&text.as_str()))
}

fn number(name: &str) -> Result<Option<usize>> {
    match text(name).as_str() {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(|_| anyhow::anyhow!("{name} is {text:?}, needed is a whole number")),
    }
}

/// `[scheme://]host[:port][/path]`; a port that is none gives the default.
fn host(text: &str) -> (String, u16) {
    let (default, rest) = match text.split_once("://") {
        Some(("http", rest)) => (80, rest),
        Some(("https", rest)) => (443, rest),
        Some((_, rest)) => (PORT, rest),
        None => (PORT, text),
    };
    let rest = rest.split('/').next().unwrap_or_default();
    let (host, port) = if let Some((v6, after)) = rest.strip_prefix('[').and_then(|r| r.split_once(']')) {
        (v6, after.strip_prefix(':'))
    } else if rest.matches(':').count() > 1 {
        (rest, None)
    } else {
        rest.split_once(':').map_or((rest, None), |(host, port)| (host, Some(port)))
    };
    let port = port.map_or(default, |port| port.parse().unwrap_or(PORT));
    (if host.is_empty() { Ipv4Addr::LOCALHOST.to_string() } else { host.to_owned() }, port)
}

/// Seconds, or a duration with units; negative means for ever.
fn keep_alive(text: &str) -> Result<Option<KeepAlive>> {
    if text.is_empty() {
        return Ok(None);
    }
    if let Ok(seconds) = text.parse::<i64>() {
        let forever = KeepAlive::Forever;
        return Ok(Some(u64::try_from(seconds).map_or(forever, |s| KeepAlive::For(Duration::from_secs(s)))));
    }
    api::keep_alive(text).map(Some).map_err(|e| anyhow::anyhow!("OLLAMA_KEEP_ALIVE cannot be used: {e}"))
}

/// A number of threads, or one for prompts and one for answers with a slash between them.
fn threads(text: &str) -> Result<Option<Threads>> {
    if text.is_empty() {
        return Ok(None);
    }
    let count = |text: &str| text.trim().parse::<usize>().ok().filter(|n| *n > 0);
    let (prefill, decode) = text.split_once('/').unwrap_or((text, text));
    match (count(prefill), count(decode)) {
        (Some(prefill), Some(decode)) => Ok(Some(Threads { prefill, decode })),
        _ => {
            bail!("LANTERN_THREADS is {text:?}, needed is a number such as 4, or one for prompts and one for answers such as 4/3")
        }
    }
}

/// What the owner has set about pulling beside where from.
fn pulling(registry: Registry) -> Result<Registry> {
    let rate = text("LANTERN_PULL_RATE");
    let rate = rate_of(&rate)
        .with_context(|| format!("LANTERN_PULL_RATE is {rate}, needed are bytes a second such as 500K, 2.5M or 1G"))?;
    let mut registry = registry.at_rate(rate);
    for host in text("LANTERN_PULL_HOSTS").split(',').map(str::trim).filter(|host| !host.is_empty()) {
        registry = registry.and_from(host).map_err(|e| anyhow::anyhow!("LANTERN_PULL_HOSTS cannot be used: {e}"))?;
    }
    match text("HF_TOKEN") {
        token if token.is_empty() => Ok(registry),
        token => registry.with_hub_token(token).map_err(|e| anyhow::anyhow!("LANTERN_HUB cannot be used: {e}")),
    }
}

/// Bytes a second with a decimal unit; `Some(None)` where nothing is said.
#[expect(clippy::option_option, reason = "nothing is said, or something that is no rate")]
fn rate_of(text: &str) -> Option<Option<u64>> {
    if text.is_empty() {
        return Some(None);
    }
    let (number, unit) = match text.as_bytes()[text.len() - 1].to_ascii_uppercase() {
        b'K' => (&text[..text.len() - 1], 1e3),
        b'M' => (&text[..text.len() - 1], 1e6),
        b'G' => (&text[..text.len() - 1], 1e9),
        _ => (text, 1.0),
    };
    let rate = number.parse::<f64>().ok()? * unit;
    (1e3..=1e12).contains(&rate).then_some(Some(rate as u64))
}

fn cache() -> Option<PathBuf> {
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    Some(cache.or_else(|| Some(env::home_dir()?.join(".cache")))?.join("lantern"))
}

/// The folder for what must not be lost.
fn state(text: &str) -> Option<PathBuf> {
    if !text.is_empty() {
        return Some(PathBuf::from(text));
    }
    let state = env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    Some(state.or_else(|| Some(env::home_dir()?.join(".local/state")))?.join("lantern"))
}

/// `off`, a folder, or one in the cache folder.
fn sessions(text: &str, cache: Option<&Path>) -> Option<PathBuf> {
    match text {
        "off" => None,
        "" => Some(cache?.join("sessions")),
        folder => Some(PathBuf::from(folder)),
    }
}

fn models(text: &str) -> Result<PathBuf> {
    if !text.is_empty() {
        return Ok(PathBuf::from(text));
    }
    match env::home_dir() {
        Some(home) => Ok(home.join(".ollama/models")),
        None => bail!("no home folder is known: set OLLAMA_MODELS to the folder for models"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_as_people_write_them() {
        let check = |text, expected: (&str, u16)| assert_eq!(host(text), (expected.0.to_owned(), expected.1), "{text}");
        check("", ("127.0.0.1", 11434));
        check("0.0.0.0", ("0.0.0.0", 11434));
        check("0.0.0.0:80", ("0.0.0.0", 80));
        check("http://box.local", ("box.local", 80));
        check("https://box.local/path", ("box.local", 443));
        check("http://box.local:11434/", ("box.local", 11434));
        check(":1234", ("127.0.0.1", 1234));
        check("[::1]:1234", ("::1", 1234));
        check("::1", ("::1", 11434));
        check("host:bad", ("host", 11434));
    }

    #[test]
    fn threads_for_prompts_and_answers() {
        assert_eq!(threads("").unwrap(), None);
        assert_eq!(threads("3").unwrap(), Some(Threads { prefill: 3, decode: 3 }));
        assert_eq!(threads("4/3").unwrap(), Some(Threads { prefill: 4, decode: 3 }));
        for wrong in ["0", "4/", "/3", "four", "4/3/2"] {
            assert!(threads(wrong).unwrap_err().to_string().contains("such as 4/3"), "{wrong}");
        }
    }

    #[test]
    fn rates_have_units() {
        let check = |text, expected| assert_eq!(rate_of(text), expected, "{text}");
        check("", Some(None));
        check("500K", Some(Some(500_000)));
        check("2.5m", Some(Some(2_500_000)));
        check("1500", Some(Some(1_500)));
        for wrong in ["M", "fast", "-1M", "0", "1e300", "5MB"] {
            check(wrong, None);
        }
    }

    #[test]
    fn keep_alive_may_be_bare_seconds() {
        assert_eq!(keep_alive("10").unwrap(), Some(KeepAlive::For(Duration::from_secs(10))));
        assert_eq!(keep_alive("-1").unwrap(), Some(KeepAlive::Forever));
        assert_eq!(keep_alive("5m").unwrap(), Some(KeepAlive::For(Duration::from_secs(300))));
        assert!(keep_alive("soon").is_err());
    }
}
