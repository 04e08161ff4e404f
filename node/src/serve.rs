//! Composition root: builds each part by hand, binds, waits, shuts down in order.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use access::Mode;
use anyhow::{Context, Result};
use api::App;
use axum::Router;
use catalog::Store;
use scheduler::{Descriptions, Limits, Scheduler};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::config::Config;
use crate::guide;
use crate::listen;
use crate::threads;

/// The parts wired together, without a port: what the daemon serves and what a command uses when no daemon answers. Chats that
/// leave memory are kept in the folder `sessions`, if there is one.
pub(crate) fn router(config: &Config, sessions: Option<PathBuf>, loopback: bool) -> Result<Router> {
    let store = config.store();
    if guide::install_if_empty(&store)? {
        tracing::info!("installed {} in an empty store", guide::NAME);
    }
    let threads = config.threads.or_else(|| threads::remembered(config.cache.as_deref())).unwrap_or_default();
    let own_name = sysinfo::System::host_name().unwrap_or_default();
    let state = config.state.as_deref().map(store::Store::open).transpose();
    let state = match state {
        Ok(state) => state.map(Arc::new),
        Err(error) if config.mode == Mode::Tokens => return Err(error).context("LANTERN_ACCESS asks for tokens"),
        Err(error) => {
            tracing::warn!("no token is valid: {error}");
            None
        }
    };
    Ok(api::router(App {
        names: config.names.clone().into(),
        go_templates: config.go_templates,
        mode: config.mode,
        state,
        store,
        registry: config.registry.clone().for_memory(scheduler::report::total_bytes()),
        pulls: Arc::default(),
        uploads: Arc::default(),
        scheduler: Scheduler::start(Limits { threads, sessions, ..config.limits.clone() }),
        descriptions: Arc::new(Descriptions::default()),
        origins: Arc::new(config.origins.clone()),
        loopback,
        own_name: own_name.into(),
    }))
}

/// Looks at the start and every day for what belongs to nobody.
fn sweep(store: Store) {
    tokio::spawn(async move {
        for first in std::iter::once(true).chain(std::iter::repeat(false)) {
            let store = store.clone();
            let swept = tokio::task::spawn_blocking(move || store.sweep(first)).await;
            if let Ok(Err(error)) = swept {
                tracing::warn!("files that belong to nobody could not be removed: {error}");
            }
            tokio::time::sleep(Duration::from_secs(24 * 3600)).await;
        }
    });
}

/// Serves until told to stop; running answers may finish.
pub(crate) async fn serve(mut config: Config) -> Result<()> {
    let listener = TcpListener::bind((config.host.as_str(), config.port)).await;
    let listener = listener.with_context(|| {
        format!(
            "cannot listen on {}:{}; is another server running there? OLLAMA_HOST names another address",
            config.host, config.port
        )
    })?;
    let address: SocketAddr = listener.local_addr().context("the listener has no address")?;
    config.threads = Some(threads::chosen(config.threads, config.cache.as_deref()));
    sweep(config.store());
    let router = router(&config, config.sessions.clone(), address.ip().is_loopback())?;
    // Before anybody is told that it runs: a stop that comes at once is a stop as any other.
    let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    print_welcome(address);
    if config.mode == Mode::Open {
        tracing::warn!("LANTERN_ACCESS=open: everybody who reaches {address} may use, change and delete models");
    }
    listen::serve(listener, router, stopped(signals)).await;
    tracing::info!("stopped");
    Ok(())
}

/// Waits for Ctrl-C or a service manager's stop.
async fn stopped(signals: (std::io::Result<Signal>, std::io::Result<Signal>)) {
    let (Ok(mut terminate), Ok(mut interrupt)) = signals else {
        // Without signal handlers the default action still stops the process.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping: running answers may finish");
}

/// Tells on standard output how to talk to the daemon. Nobody need be reading.
fn print_welcome(address: SocketAddr) {
    let (version, guide) = (env!("CARGO_PKG_VERSION"), guide::NAME);
    let text = format!(
        "Lantern {version} serves at http://{address}

  chat here:           lantern run {guide}
  any Ollama client:   OLLAMA_HOST=http://{address}
  with curl:           curl http://{address}/api/chat -d '{{\"model\":\"{guide}\",\"messages\":[{{\"role\":\"user\",\"content\":\"Who are you?\"}}]}}'

Ctrl-C stops it.
"
    );
    _ = std::io::stdout().write_all(text.as_bytes());
}
