//! `lantern run`: one answer, or a chat with history.

use std::io::{IsTerminal, Read, Write};
use std::time::Duration;

use anyhow::{Context, Result};
use indicatif::ProgressBar;
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;
use serde_json::{Value, json};

use crate::client::Client;
use crate::config::Config;

/// Bytes read from a pipe; longer input does not fit any context here.
const PIPE_BYTES_MAX: u64 = 8 << 20;

pub(super) async fn run(config: &Config, model: &str, prompt: &str, keep_alive: Option<String>, as_json: bool) -> Result<()> {
    let client = Client::connect(config).await?;
    let mut chat = Chat { client, model: model.into(), keep_alive, as_json, messages: Vec::new() };
    let piped = piped_input()?;
    if prompt.is_empty() && piped.is_none() {
        return chat.converse().await;
    }
    let parts: Vec<&str> = [Some(prompt), piped.as_deref()].into_iter().flatten().filter(|p| !p.is_empty()).collect();
    chat.ask(parts.join("\n\n")).await
}

struct Chat {
    client: Client,
    model: String,
    keep_alive: Option<String>,
    as_json: bool,
    messages: Vec<Value>,
}

impl Chat {
    /// Reads lines until the end; each is asked with everything said before.
    async fn converse(&mut self) -> Result<()> {
        // A model that does not exist should not be found out after the first question.
        let load = json!({ "model": self.model, "keep_alive": self.keep_alive });
        let spinner = spinner(&format!("loading {}", self.model));
        let loaded = self.client.json(http::Method::POST, "/api/generate", Some(load)).await;
        spinner.finish_and_clear();
        loaded?;
        println!("{} is ready. /help lists what else you can type, /bye ends.", self.model);
        let mut editor = DefaultEditor::new().context("the terminal cannot be read")?;
        loop {
            let line = match editor.readline(">>> ") {
                Ok(line) => line,
                Err(ReadlineError::Interrupted) => continue,
                Err(ReadlineError::Eof) => return Ok(()),
                Err(e) => return Err(e).context("the terminal cannot be read"),
            };
            let line = line.trim();
            if line.is_empty() {
                continue;
            }
            // History is a comfort; a line that cannot be kept is still asked.
            _ = editor.add_history_entry(line);
            match line {
                "/bye" | "/exit" | "/quit" => return Ok(()),
                "/clear" => {
                    self.messages.clear();
                    println!("forgotten");
                }
                "/help" | "/?" => println!("/clear  forget what was said\n/bye    end\nCtrl-C  stop an answer"),
                question => {
                    if let Err(error) = self.ask(question.to_owned()).await {
                        eprintln!("lantern: {error:#}");
                    }
                }
            }
        }
    }

    /// Asks one question and prints the answer as it comes. Ctrl-C stops it.
    async fn ask(&mut self, question: String) -> Result<()> {
        self.messages.push(json!({ "role": "user", "content": question }));
        let body = json!({ "model": self.model, "messages": self.messages, "keep_alive": self.keep_alive });
        let waiting = spinner(&self.model);
        let lines = self.client.lines("/api/chat", body).await;
        waiting.finish_and_clear();
        let mut lines = lines?;
        let mut answer = String::new();
        loop {
            let object = tokio::select! {
                object = lines.next() => object?,
                _ = tokio::signal::ctrl_c() => {
                    println!();
                    break;
                }
            };
            let Some(object) = object else { break };
            let text = object["message"]["content"].as_str().unwrap_or_default();
            answer.push_str(text);
            if self.as_json {
                println!("{object}");
            } else {
                print!("{text}");
                std::io::stdout().flush().context("the answer cannot be written")?;
            }
        }
        if !self.as_json {
            println!();
        }
        self.messages.push(json!({ "role": "assistant", "content": answer }));
        Ok(())
    }
}

/// What a pipe or file on standard input holds; `None` when it is a terminal.
fn piped_input() -> Result<Option<String>> {
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    stdin.take(PIPE_BYTES_MAX).read_to_end(&mut bytes).context("standard input cannot be read")?;
    Ok(Some(String::from_utf8_lossy(&bytes).trim_end().to_owned()))
}

/// A sign on standard error that something is being waited for; nothing when that is no terminal.
fn spinner(message: &str) -> ProgressBar {
    let spinner = ProgressBar::new_spinner().with_message(message.to_owned());
    spinner.enable_steady_tick(Duration::from_millis(100));
    spinner
}
