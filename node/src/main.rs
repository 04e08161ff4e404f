//! Lantern: a daemon that serves local models, and the commands that talk to it.

mod client;
mod commands;
mod config;
mod guide;
mod listen;
mod serve;
mod threads;

use std::process::ExitCode;

use clap::Parser;

use commands::Arguments;
use config::Config;

fn main() -> ExitCode {
    end_on_panic();
    let arguments = Arguments::parse();
    set_up_logs(arguments.is_serve());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let done = runtime.map_err(anyhow::Error::from).and_then(|runtime| {
        let config = Config::from_environment()?;
        runtime.block_on(commands::run(arguments, config))
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lantern: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A panic is a bug of ours: it is reported and ends the process, so that the system starts it anew.
fn end_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        report(info);
        std::process::abort();
    }));
}

/// The daemon tells what it does, a command only what goes wrong. `LANTERN_LOG` overrides both.
fn set_up_logs(daemon: bool) {
    use std::io::IsTerminal;

    use tracing_subscriber::EnvFilter;
    let default = if daemon { "info" } else { "warn" };
    let filter = EnvFilter::try_from_env("LANTERN_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    // Colours are for terminals: a log that is kept is read by others.
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours).with_target(false).init();
}
