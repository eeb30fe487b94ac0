//! `tune control`: sends a command and shows the answer.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;

use cerebro_core::experiment::{Answer, Command, ExperimentStatus};
use cerebro_core::observe::hyperparameters;
use serde_json::Value;

use super::words::request;
use crate::run::AnyError;

/// How commands are given.
pub const HELP: &str = "\
Usage: tune control SOCKET [--json] COMMAND

--json shows answers as JSON. The commands:

  list                          how the experiment and its trials stand
  watch                         events as they happen, a line of JSON each
  pause [TRIAL]                 finish running units and start no others, of one trial or of all
  resume [TRIAL]                let what was paused go on
  stop [TRIAL]                  end a trial, or the experiment
  clone TRIAL [--from cold|latest|best] [NAME=VALUE ...]
                                start a trial like this one, but for some hyperparameters
  add NAME=VALUE ...            start a trial with this Config
  extend epochs N               train every trial N epochs in all
  extend trials N               have the search start N more trials
  narrow FILE                   take future Configs from the [space] of FILE
  priority TRIAL LEVEL          -10 to 10; units of higher ones start first
  json LINE                     send a line of JSON as it is
";

/// Sends the command that the words after `control` say, and shows the answer.
pub fn main(words: &[String]) -> Result<(), AnyError> {
    let [socket, words @ ..] = words else {
        return Err(format!("which socket? It is what `--control` named.\n\n{HELP}").into());
    };
    let (json, words) = match words {
        [first, rest @ ..] if first == "--json" => (true, rest),
        words => (false, words),
    };
    if words.is_empty() {
        return Err(format!("which command?\n\n{HELP}").into());
    }
    let request = request(words)
        .map_err(|error| format!("{error}\n`tune control SOCKET` alone lists the commands"))?;
    let stream = UnixStream::connect(socket).map_err(|error| {
        format!(
            "no experiment takes commands at {socket} ({error}); is it running, with `--control`?"
        )
    })?;
    (&stream).write_all(format!("{request}\n").as_bytes())?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut lines = BufReader::new(&stream).lines();
    let line = lines.next().ok_or("the experiment ended before it answered")??;
    let answer: Value = serde_json::from_str(&line)?;
    if let Some(error) = answer["error"].as_str() {
        return Err(error.into());
    }
    let mut stdout = std::io::stdout().lock();
    if request["command"] == "watch" {
        for line in lines {
            writeln!(stdout, "{}", line?)?;
        }
    } else if request["command"] == "list" && !json {
        let status: ExperimentStatus = serde_json::from_value(answer["ok"].clone())?;
        write!(stdout, "{}", table(&status))?;
    } else if json {
        writeln!(stdout, "{}", answer["ok"])?;
    } else {
        writeln!(stdout, "{}", done(&request, &answer["ok"])?)?;
    }
    Ok(())
}

/// What came of a command, for people.
fn done(request: &Value, answer: &Value) -> Result<String, serde_json::Error> {
    if request["command"] == "stop" {
        return Ok("the experiment stops at the next batches; `--resume` goes on".to_owned());
    }
    let command: Command = serde_json::from_value(request.clone())?;
    Ok(match serde_json::from_value(answer.clone())? {
        Answer::Trial { trial, status } => format!("{trial} is {status}"),
        Answer::Started { trial } => format!("{trial} has started"),
        Answer::Extended { continued } if !continued.is_empty() => {
            let trials: Vec<String> = continued.iter().map(ToString::to_string).collect();
            format!("done: {command}; these had completed theirs and go on: {}", trials.join(", "))
        }
        _ => format!("done: {command}"),
    })
}

/// How everything stands, for people; a line of at most 80 columns per trial but for its Config.
fn table(status: &ExperimentStatus) -> String {
    let mut text = String::new();
    let ExperimentStatus { name, at, workers, running_units, .. } = status;
    let paused = if status.paused { ", paused" } else { "" };
    let planned =
        status.planned.map_or(String::new(), |planned| format!(" ({planned} by the search)"));
    let count = |n: usize, thing| format!("{n} {thing}{}", if n == 1 { "" } else { "s" });
    let _ = writeln!(
        text,
        "{name}: {}{planned}, {}, {} running, {:.0} s{paused}",
        count(status.trials.len(), "trial"),
        count(*workers, "worker"),
        count(*running_units, "unit"),
        at.as_secs_f64(),
    );
    if let Some(trouble) = &status.store_trouble {
        let _ = writeln!(text, "waiting for the store: {trouble}");
    }
    let _ = writeln!(text, "trial       status     epochs    latest      best  config");
    for trial in &status.trials {
        let held = if trial.held { "held" } else { "" };
        let shown = if held.is_empty() { trial.status.to_string() } else { held.to_owned() };
        let number =
            |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.4}"));
        let _ = writeln!(
            text,
            "{:<10}  {:<9}  {:>6}  {:>8}  {:>8}  {}",
            trial.id.to_string(),
            shown,
            format!("{}/{}", trial.completed_epochs, trial.epochs),
            number(trial.latest),
            number(trial.best.map(|(value, _)| value)),
            hyperparameters(&trial.config).collect::<Vec<_>>().join(" "),
        );
    }
    if status.trials.iter().any(|trial| trial.held) {
        text.push_str("held: paused by a person; `resume TRIAL` lets it go on\n");
    }
    text
}
