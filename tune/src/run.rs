//! Running a [`Plan`]: observers, store, control, leaderboard, export.

use std::error::Error;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cerebro_core::Backend;
use cerebro_core::experiment::{
    Answer, Command, ExperimentBuilder, ExperimentError, ExperimentHandle, ExperimentResult, Reply,
};
use cerebro_core::observe::{
    Event, HtmlReport, JsonLines, Leaderboard, MlFlow, ObserveError, Observer, Progress,
    TensorBoard, TimedEvent, TrialLogs,
};
use cerebro_core::store::StoreError;
use cerebro_models::{Trainer, runtime};
use futures::executor::block_on;
use serde_json::json;

use super::arguments::Options;
use super::control;
use super::document::Misuse;
use super::plan::{Output, Plan};

/// Any error, on its way to the terminal.
pub type AnyError = Box<dyn Error + Send + Sync>;

/// How often the report is written while an experiment runs.
const REPORT: Duration = Duration::from_secs(15);

/// Reads the experiment's file and runs it.
///
/// `stopper` is given the handle before anything runs, so that Ctrl-C can stop it.
pub fn run(options: &Options, stopper: impl FnOnce(ExperimentHandle)) -> Result<(), AnyError> {
    let asked = options.asked.iter().map(|words| control::command(words));
    let asked = asked.collect::<Result<Vec<Command>, String>>().map_err(Misuse)?;
    let mut plan = Plan::read(&options.file)?;
    if let Some(count) = options.workers {
        plan.place = plan.place.with_workers(count);
    }
    if options.check {
        println!("{} is in order", options.file.display());
        return Ok(());
    }
    let library =
        if plan.place.has_gpus() { runtime::install_cuda()? } else { runtime::install()? };
    eprintln!("ONNX Runtime  {}", library.library().display());
    fs::create_dir_all(&plan.output.folder).map_err(|error| {
        let folder = plan.output.folder.display();
        format!("cannot create the folder {folder} (`folder` in [output]): {error}")
    })?;

    let experiment = observed(plan.experiment, &plan.output, options)?;
    let experiment = match (plan.store, options.resume) {
        (Some(location), false) => experiment.store(location),
        (Some(location), true) => experiment.resume(location),
        (None, false) => experiment,
        (None, true) => {
            let file = options.file.display();
            return Err(Misuse(format!(
                "{file} has no `store`, so there is nothing to resume; add [store] with a `url`"
            ))
            .into());
        }
    };
    let experiment = experiment.build()?;
    let handle = experiment.handle();
    stopper(handle.clone());
    #[cfg(unix)]
    let _server = match &options.control {
        Some(socket) => Some(super::control::Server::start(socket, handle.clone())?),
        None => None,
    };
    let backend: Arc<dyn Backend> = plan.place.build()?;
    // Carried out before anything else, whether or not the experiment had ended.
    let asked = asked.into_iter().map(|command| (command.clone(), handle.send(command)));
    let refusal = std::thread::spawn({
        let asked: Vec<_> = asked.collect();
        move || refused(asked, &handle)
    });
    let result = experiment.run_blocking(backend).map_err(|error| advised(error, options))?;
    if let Ok(Some(refusal)) = refusal.join() {
        return Err(refusal.into());
    }
    conclude(&result, &plan.trainer, &plan.output, options.json)
}

/// Why a command was refused, if one was: then the experiment stops, since nobody wants it otherwise.
fn refused(asked: Vec<(Command, Reply<Answer>)>, handle: &ExperimentHandle) -> Option<String> {
    asked.into_iter().find_map(|(command, reply)| {
        let error = block_on(reply).err()?;
        handle.stop();
        Some(format!("cannot {command}: {error}"))
    })
}

fn observed(
    experiment: ExperimentBuilder,
    output: &Output,
    options: &Options,
) -> Result<ExperimentBuilder, AnyError> {
    let at = |name: &str| output.folder.join(name);
    let mut experiment = experiment;
    experiment = if options.json {
        experiment.observer(Stdout)
    } else {
        experiment.observer(Progress::new())
    };
    if output.report {
        let report = HtmlReport::create(at("report.html"))?.every(REPORT);
        let report = if options.resume { report.after(at("events.jsonl")) } else { report };
        experiment = experiment.observer(report);
    }
    if output.events {
        experiment = experiment.observer(JsonLines::create(at("events.jsonl"))?);
    }
    if output.trial_logs {
        experiment = experiment.observer(TrialLogs::create(at("logs"))?);
    }
    if let Some((url, name)) = &output.mlflow {
        experiment = experiment.observer(MlFlow::connect(url, name)?);
    }
    if output.tensorboard {
        experiment = experiment.observer(TensorBoard::create(at("tensorboard"))?);
    }
    Ok(experiment)
}

/// Writes events to standard output.
#[derive(Debug)]
struct Stdout;

impl Observer for Stdout {
    fn observe(&mut self, at: Duration, event: &Event) -> Result<(), ObserveError> {
        if matches!(event, Event::UnitProgress { .. }) {
            return Ok(());
        }
        say(&serde_json::to_value(TimedEvent { at, event: event.clone() })?)?;
        Ok(())
    }
}

/// Writes a line of JSON whole and at once, for whoever follows.
fn say(value: &serde_json::Value) -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(format!("{value}\n").as_bytes())?;
    stdout.flush()
}

/// The error with advice for this program's users, where the library's is for programmers.
fn advised(error: ExperimentError, options: &Options) -> AnyError {
    let file = options.file.display();
    match &error {
        ExperimentError::Store(StoreError::Occupied { store, name }) => format!(
            "{store} holds the experiment \"{name}\" already; go on with it by `tune {file} --resume`, \
             or give `url` in [store] of {file} another place"
        )
        .into(),
        ExperimentError::Store(StoreError::Vacant { store }) => format!(
            "{store} holds no experiment to go on with; check `url` in [store] of {file}, or begin \
             one there by leaving out `--resume`"
        )
        .into(),
        ExperimentError::Store(StoreError::ChangedEpochs { recorded, found }) => format!(
            "the experiment cannot go on: it began with `epochs = {recorded}`, and {file} says \
             {found}; write `epochs = {recorded}` and go on by \
             `tune {file} --resume --extend-epochs {found}`"
        )
        .into(),
        ExperimentError::Store(StoreError::Changed { what, .. }) if what.starts_with("the search") => {
            format!(
                "{error}. For more trials, or a narrower space, leave {file} as it was and go on by \
                 `tune {file} --resume --extend-trials N`, or with `--narrow FILE`"
            )
            .into()
        }
        ExperimentError::Store(StoreError::Location { .. }) => format!(
            "{error} (`url` in [store] of {file})"
        )
        .into(),
        _ => error.into(),
    }
}

/// Shows the leaderboard and exports the best model.
fn conclude(
    result: &ExperimentResult,
    trainer: &Trainer,
    output: &Output,
    json: bool,
) -> Result<(), AnyError> {
    if !json {
        println!("\n{}\n{}", Leaderboard::from(result).top(output.leaderboard), result.summary());
    }
    let best = result.best()?;
    let mut files: Vec<PathBuf> = Vec::new();
    if output.export {
        let state = block_on(result.state(best.id))?;
        files.push(trainer.export(best.best_config(), &state)?.save(&output.folder, "best")?);
        files.push(output.folder.join("best.safetensors"));
    }
    let others = [
        (output.report, "report.html"),
        (output.events, "events.jsonl"),
        (output.trial_logs, "logs"),
        (output.tensorboard, "tensorboard"),
    ];
    let others = others.into_iter().filter(|(written, _)| *written);
    files.extend(others.map(|(_, name)| output.folder.join(name)));
    if json {
        say(&json!({
            "event": "result",
            "best": best.id,
            "value": best.best_value(),
            "config": best.best_config(),
            "files": files,
        }))?;
        return Ok(());
    }
    println!("best model    {}", best.id);
    for (name, value) in best.best_config().iter() {
        println!("              {name} = {value}");
    }
    for file in files {
        println!("wrote         {}", file.display());
    }
    Ok(())
}
