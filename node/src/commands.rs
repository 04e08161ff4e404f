//! The command line: what can be asked, and the file that answers it.

pub(crate) mod bench;
mod create;
mod doctor;
mod export;
mod import;
mod list;
mod manage;
mod models;
mod ps;
mod pull;
mod run;
mod show;
mod table;
mod token;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::config::Config;
use crate::serve::serve;

/// Serve local models to every Ollama client, and talk to them.
///
/// Without a command Lantern serves. Commands talk to the running daemon at OLLAMA_HOST, or start the engine themselves
/// when none answers.
#[derive(Parser)]
#[command(version, after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Print the answer as JSON, for programs
    #[arg(long, global = true)]
    json: bool,
}

const AFTER_HELP: &str = "\
Examples:
  lantern                                   serve at 127.0.0.1:11434
  OLLAMA_HOST=0.0.0.0 lantern serve         serve the whole network
  lantern run lantern-guide                 chat in the terminal
  lantern run lantern-guide 'Who are you?'  one answer
  cat notes.txt | lantern run MODEL 'Sum up:'
  lantern bench qwen3:0.6b                  measure prefill and decode
  lantern models                            what can be pulled by a short name, and whether it fits
  lantern pull qwen3:0.6b                   download a model
  lantern import model.gguf --name mine     add a model file
  lantern export qwen3:0.6b model.tar       carry a model to another machine, where import reads it
  lantern create mine -f Modelfile          make a model out of another one, or of a file

Environment:
  OLLAMA_HOST               address to serve at or to talk to [127.0.0.1:11434]
  OLLAMA_MODELS             folder of the models [~/.ollama/models]
  OLLAMA_KEEP_ALIVE         how long a model stays in memory [5m]
  OLLAMA_CONTEXT_LENGTH     context in tokens where a request names none [4096]
  OLLAMA_KV_CACHE_TYPE      how keys and values are kept: f16, or q8_0 (also for q4_0) in half the memory [f16]
  OLLAMA_NUM_PARALLEL       sessions of one model that run together [4]
  OLLAMA_MAX_LOADED_MODELS  models in memory together [3]
  OLLAMA_MAX_QUEUE          requests that may wait [512]
  OLLAMA_ORIGINS            further web origins that may call, comma-separated
  OLLAMA_GO_TEMPLATE        false uses the template in a model's file where it has one [true]
  OLLAMA_NOPRUNE            true keeps files in the store that no model uses any more [false]
  LANTERN_REGISTRY          where models are pulled from [https://registry.ollama.ai]
  LANTERN_HUB               where models named hf.co/USER/REPOSITORY:QUANT are pulled from [https://hf.co]
  LANTERN_PULL_HOSTS        further hosts that models may be pulled from, comma-separated
  LANTERN_PULL_RATE         bytes a second that pulls may take together, such as 2.5M [no bound]
  HF_TOKEN                  what Hugging Face is shown, for models behind a sign-in
  LANTERN_SESSIONS          where long chats are kept while out of memory; off keeps none [~/.cache/lantern/sessions]
  LANTERN_THREADS           threads that compute: 4, or 4/3 for prompts and answers [measured at the first start]
  LANTERN_ACCESS            who may: standard (use is open at home, change is for this machine and for tokens), tokens
                            (everything wants one), open (no rules at all) [standard]
  LANTERN_CLIENT_RUNNING    requests of one token, or of another machine without one, that run together [4]
  LANTERN_CLIENT_WAITING    and that may wait; one more is told to come back later [64]
  LANTERN_NAMES             further names the server is addressed by, comma-separated
  LANTERN_TOKEN             the token commands show a daemon that wants one
  LANTERN_STATE             where tokens are kept [~/.local/state/lantern]
  LANTERN_LOG               what to log: error, warn, info, debug

Exit codes: 0 done, 1 failed (the reason is on standard error), 2 wrong arguments.";

#[derive(Subcommand)]
enum Command {
    /// Serve models over HTTP until stopped
    Serve,
    /// Chat with a model, or get one answer
    Run {
        /// The model, such as lantern-guide or qwen3:0.6b
        model: String,
        /// A prompt for one answer; without it and with a terminal, a chat begins. A pipe is read as part of the prompt
        prompt: Vec<String>,
        /// How long the model stays in memory afterwards, such as 10m or -1m for ever
        #[arg(long, value_name = "DURATION", allow_hyphen_values = true)]
        keep_alive: Option<String>,
    },
    /// List the installed models
    #[command(visible_alias = "ls")]
    List,
    /// Show details of a model
    Show {
        /// The model
        model: String,
    },
    /// List models that can be pulled by a short name, with size, memory, speed and licence
    Models,
    /// List the models in memory
    Ps,
    /// Unload a model
    Stop {
        /// The model
        model: String,
    },
    /// Delete models
    Rm {
        /// The models
        #[arg(required = true)]
        models: Vec<String>,
    },
    /// Give a model a second name
    Cp {
        /// The model
        source: String,
        /// Its second name
        destination: String,
    },
    /// Download a model
    Pull {
        /// The model, such as qwen3:0.6b
        model: String,
    },
    /// Write a model to one file, for another machine
    Export {
        /// The model
        model: String,
        /// The file, which must not be there yet [the model's name, with .tar]
        file: Option<PathBuf>,
    },
    /// Add a GGUF file, or what `lantern export` wrote, to the store
    Import {
        /// The file
        file: PathBuf,
        /// What to call it [the file's name, or the name it was exported by]
        #[arg(long)]
        name: Option<String>,
    },
    /// Measure how fast this machine runs a model, and how near that is to what it could do
    Bench(bench::Options),
    /// Make a model as a Modelfile describes it
    Create {
        /// Name of the new model
        name: String,
        /// The Modelfile
        #[arg(short, long, default_value = "Modelfile")]
        file: PathBuf,
        /// Smaller weights: Q8_0, Q4_0, Q4_K_M, Q5_K_M or Q6_K, from weights in F32, F16 or BF16
        #[arg(short, long)]
        quantize: Option<String>,
    },
    /// Check processor, memory, disk, kernels, power meters and clock
    Doctor,
    /// Make, list and revoke tokens, which let other machines change models here
    Token {
        #[command(subcommand)]
        action: token::Action,
    },
}

impl Arguments {
    /// Whether this starts the daemon.
    pub(crate) fn is_serve(&self) -> bool {
        matches!(self.command, None | Some(Command::Serve))
    }
}

/// Runs the command.
pub(crate) async fn run(arguments: Arguments, config: Config) -> Result<()> {
    let json = arguments.json;
    match arguments.command.unwrap_or(Command::Serve) {
        Command::Serve => serve(config).await,
        Command::Run { model, prompt, keep_alive } => run::run(&config, &model, &prompt.join(" "), keep_alive, json).await,
        Command::List => list::list(&config, json).await,
        Command::Show { model } => show::show(&config, &model, json).await,
        Command::Models => models::models(&config, json),
        Command::Ps => ps::ps(&config, json).await,
        Command::Stop { model } => manage::stop(&config, &model, json).await,
        Command::Rm { models } => manage::rm(&config, &models, json).await,
        Command::Cp { source, destination } => manage::cp(&config, &source, &destination, json).await,
        Command::Pull { model } => pull::pull(&config, &model, json).await,
        Command::Export { model, file } => export::export(&config, &model, file.as_deref(), json),
        Command::Import { file, name } => import::import(&config, &file, name.as_deref(), json),
        Command::Create { name, file, quantize } => create::create(&config, &name, &file, quantize.as_deref(), json).await,
        Command::Bench(options) => bench::bench(&config, &options, json),
        Command::Doctor => doctor::doctor(&config, json),
        Command::Token { action } => token::token(&config, &action, json),
    }
}
