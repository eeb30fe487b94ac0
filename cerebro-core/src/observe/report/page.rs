//! The page: the experiment's figures as JSON within HTML, which the page's own script draws.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::history::{Bar, History, TrialHistory};
use super::importance::importance;
use crate::config::{Config, Value};
use crate::id::{Split, TrialId};
use crate::metric::Direction;
use crate::observe::{Leaderboard, Outcome, Standing, Summary, TrialStatus};

const TEMPLATE: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/page.css");
/// One function: each file sees what those before it define.
const SCRIPT: &str = concat!(
    include_str!("page/ground.js"),
    include_str!("page/overview.js"),
    include_str!("page/curves.js"),
    include_str!("page/parallel.js"),
    include_str!("page/schedule.js"),
    include_str!("page/importance.js"),
    include_str!("page/page.js"),
);

/// Of more trials, the best are shown.
const MOST_TRIALS: usize = 1000;
/// Longer curves, all trials together, are thinned.
const MOST_POINTS: usize = 20_000;

/// The page.
pub(super) fn html(history: &History) -> String {
    let data = serde_json::to_string(&Page::of(history))
        .expect("the page's data are maps with text keys, lists, texts and finite numbers");
    // Within a script element only these could end it.
    let data = data.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026");
    let title = if history.name.is_empty() { "Experiment" } else { &history.name };
    let title = title.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let mut page = String::with_capacity(data.len() + STYLE.len() + SCRIPT.len() + 4096);
    let mut rest = TEMPLATE;
    // In the template's order, each once: what is put in is not searched again.
    for (place, text) in [
        ("{{title}}", title.as_str()),
        ("{{style}}", STYLE),
        ("{{data}}", &data),
        ("{{script}}", SCRIPT),
    ] {
        if let Some((before, after)) = rest.split_once(place) {
            page.push_str(before);
            page.push_str(text);
            rest = after;
        }
    }
    page.push_str(rest);
    page
}

/// A number with six digits, which no screen shows more of; none if it is not finite.
#[derive(Clone, Copy)]
struct Short(f64);

impl Serialize for Short {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        if !self.0.is_finite() {
            return to.serialize_none();
        }
        let short = format!("{:.5e}", self.0).parse().unwrap_or(self.0);
        if f64::fract(short) == 0.0 && short.abs() < 1e15 {
            to.serialize_i64(short as i64)
        } else {
            to.serialize_f64(short)
        }
    }
}

fn seconds(duration: Duration) -> Short {
    Short(duration.as_secs_f64())
}

/// What the page's script reads.
#[derive(Serialize)]
struct Page<'a> {
    name: &'a str,
    seed: String,
    metric: &'a str,
    maximize: bool,
    epochs: u32,
    finished: bool,
    start: Short,
    end: Short,
    /// When the experiment was taken up from its store.
    resumed: Vec<Short>,
    /// Epochs that were complete by then, and whose units are not known.
    unseen_epochs: u64,
    figures: Figures<'a>,
    data: Data,
    workers: Vec<Worker<'a>>,
    parameters: Vec<&'a str>,
    metrics: Vec<String>,
    /// The place in `metrics` of the objective.
    objective: Option<usize>,
    trials: Vec<Trial<'a>>,
    trials_left_out: usize,
    importance: Vec<Importance>,
    loads: Vec<(u32, u32, Short, Short)>,
    bar_columns: [&'static str; 10],
    /// In these parts of a second are the times of `bars`.
    bar_ticks: u64,
    bars: Vec<u64>,
    bars_left_out: u64,
}

#[derive(Serialize)]
struct Figures<'a> {
    outcome: &'static str,
    best: Option<(TrialId, Short, u32)>,
    completed: usize,
    stopped: usize,
    failed: usize,
    wall: Short,
    loading: Short,
    slots: usize,
    utilisation: Short,
    training: Short,
    validating: Short,
    train_units: u64,
    validation_units: u64,
    retried_units: u64,
    repeated_units: u64,
    lost_workers: u64,
    hops: u64,
    hop_bytes: u64,
    warnings: &'a [String],
}

#[derive(Serialize)]
struct Data {
    train_partitions: usize,
    validation_partitions: usize,
    train_rows: u64,
    validation_rows: u64,
    bytes: u64,
}

#[derive(Serialize)]
struct Worker<'a> {
    id: u32,
    name: &'a str,
    device: String,
    lanes: usize,
    computed: Short,
    absences: Vec<(Short, Option<Short>, &'a str)>,
}

#[derive(Serialize)]
struct Trial<'a> {
    id: TrialId,
    /// In the order of the page's `parameters`.
    config: Vec<Option<Parameter<'a>>>,
    status: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    best: Option<(Short, u32)>,
    started: Short,
    ended: Option<Short>,
    parent: Option<TrialId>,
    /// Whether it was cloned without the weights of its parent.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    cold: bool,
    exploits: Vec<(Short, TrialId)>,
    /// Epoch, time, then the metrics.
    curve: Vec<Vec<Short>>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Parameter<'a> {
    Number(Short),
    Other(&'a Value),
}

#[derive(Serialize)]
struct Importance {
    name: String,
    share: Short,
    chance: Short,
    groups: Vec<(String, usize, Short)>,
}

impl<'a> Page<'a> {
    fn of(history: &'a History) -> Self {
        let shown = shown(history);
        let parameters: BTreeSet<&str> =
            shown.values().flat_map(|trial| trial.config().iter().map(|(name, _)| name)).collect();
        let parameters: Vec<&str> = parameters.into_iter().collect();
        let points: usize = shown.values().map(|trial| trial.curve.len()).sum();
        let step = points.div_ceil(MOST_POINTS).max(1);
        let objective = &history.objective;
        let rows = |split: Split| {
            let of_split = history.partitions.iter().filter(move |info| info.split == split);
            of_split.fold((0, 0), |(count, rows), info| (count + 1, rows + info.rows))
        };
        let (train_partitions, train_rows) = rows(Split::Train);
        let (validation_partitions, validation_rows) = rows(Split::Validation);
        // Short experiments have units of a millisecond, long ones need not tell them so exactly.
        let bar_ticks = if history.now < Duration::from_mins(10) { 100_000 } else { 1000 };
        Page {
            name: &history.name,
            seed: history.seed.0.to_string(),
            metric: &objective.metric,
            maximize: objective.direction == Direction::Maximize,
            epochs: history.epochs,
            finished: history.finished,
            start: seconds(history.started.unwrap_or_default()),
            end: seconds(history.now),
            resumed: history.resumed.iter().map(|at| seconds(*at)).collect(),
            unseen_epochs: history.unseen_epochs,
            figures: figures(&history.summary, history.finished),
            data: Data {
                train_partitions,
                validation_partitions,
                train_rows,
                validation_rows,
                bytes: history.partitions.iter().map(|info| info.bytes).sum(),
            },
            workers: workers(history),
            metrics: history
                .metrics
                .iter()
                .map(|(split, name)| format!("{split} {name}"))
                .collect(),
            objective: history
                .metrics
                .iter()
                .position(|(split, name)| *split == Split::Validation && *name == objective.metric),
            trials: shown.iter().map(|(id, t)| trial(*id, t, &parameters, step)).collect(),
            trials_left_out: history.trials.len() - shown.len(),
            parameters,
            importance: importances(history),
            loads: history
                .loads
                .iter()
                .map(|load| (load.worker.0, load.partition.0, seconds(load.from), seconds(load.to)))
                .collect(),
            bar_columns: [
                "worker",
                "lane",
                "trial",
                "epoch",
                "partition",
                "validation",
                "from",
                "took",
                "computed",
                "end",
            ],
            bar_ticks,
            bars: history.bars.iter().flat_map(|one| bar(one, bar_ticks)).collect(),
            bars_left_out: history.bars_left_out,
        }
    }
}

/// All trials, or the best if there are too many.
fn shown(history: &History) -> BTreeMap<TrialId, &TrialHistory> {
    let all = history.trials.iter().map(|(id, trial)| (*id, trial));
    if history.trials.len() <= MOST_TRIALS {
        return all.collect();
    }
    let standings = all.map(|(id, trial)| Standing {
        trial: id,
        best: trial.best,
        status: TrialStatus::Running,
        config: Config::new(),
    });
    let board = Leaderboard::new(history.objective.clone(), standings);
    let best = board.standings().iter().take(MOST_TRIALS);
    best.map(|standing| (standing.trial, &history.trials[&standing.trial])).collect()
}

fn figures(summary: &Summary, finished: bool) -> Figures<'_> {
    Figures {
        outcome: match summary.outcome {
            _ if !finished => "running",
            Outcome::Finished => "finished",
            Outcome::Stopped => "stopped",
        },
        best: summary.best.map(|(trial, value, epoch)| (trial, Short(value), epoch)),
        completed: summary.completed,
        stopped: summary.stopped,
        failed: summary.failed,
        wall: seconds(summary.wall),
        loading: seconds(summary.loading),
        slots: summary.slots,
        utilisation: Short(summary.utilisation()),
        training: seconds(summary.training),
        validating: seconds(summary.validating),
        train_units: summary.train_units,
        validation_units: summary.validation_units,
        retried_units: summary.retried_units,
        repeated_units: summary.repeated_units,
        lost_workers: summary.lost_workers,
        hops: summary.hops,
        hop_bytes: summary.hop_bytes,
        warnings: &summary.warnings,
    }
}

fn workers(history: &History) -> Vec<Worker<'_>> {
    let mut all = Vec::with_capacity(history.workers.len());
    for (id, worker) in &history.workers {
        let absences = worker.absences.iter();
        all.push(Worker {
            id: id.0,
            name: &worker.info.name,
            device: worker.info.device.to_string(),
            lanes: worker.lanes(),
            computed: seconds(worker.computed),
            absences: absences
                .map(|away| (seconds(away.from), away.to.map(seconds), away.reason.as_str()))
                .collect(),
        });
    }
    all
}

fn trial<'a>(id: TrialId, trial: &'a TrialHistory, parameters: &[&str], step: usize) -> Trial<'a> {
    let last = trial.curve.len().saturating_sub(1);
    let best = trial.best.map(|(_, epoch)| epoch);
    let curve =
        trial.curve.iter().enumerate().filter(|(index, point)| {
            index % step == 0 || *index == last || Some(point.epoch) == best
        });
    Trial {
        id,
        config: parameters
            .iter()
            .map(|name| match trial.config().get(name)? {
                Value::Float(value) => Some(Parameter::Number(Short(*value))),
                other => Some(Parameter::Other(other)),
            })
            .collect(),
        status: trial.status.to_string(),
        reason: match &trial.status {
            TrialStatus::Failed { reason } => Some(reason),
            _ => None,
        },
        best: trial.best.map(|(value, epoch)| (Short(value), epoch)),
        started: seconds(trial.started),
        ended: trial.ended.map(seconds),
        parent: trial.parent,
        cold: trial.cold,
        exploits: trial.exploits.iter().map(|(at, source)| (seconds(*at), *source)).collect(),
        curve: curve
            .map(|(_, point)| {
                let time = [Short(f64::from(point.epoch)), seconds(point.at)];
                time.into_iter().chain(point.values.iter().map(|value| Short(*value))).collect()
            })
            .collect(),
    }
}

fn importances(history: &History) -> Vec<Importance> {
    // Trials that failed before their first epoch have no value; that they failed is not known to
    // be their Config's doing.
    let trials: Vec<(&Config, f64)> = history
        .trials
        .values()
        .filter(|trial| !trial.curve.is_empty())
        .map(|trial| (trial.config(), trial.best.map_or(f64::NAN, |(value, _)| value)))
        .collect();
    importance(&history.objective, &trials)
        .into_iter()
        .map(|one| Importance {
            name: one.name,
            share: Short(one.share),
            chance: Short(one.chance),
            groups: one
                .groups
                .into_iter()
                .map(|group| (group.label, group.trials, Short(group.median)))
                .collect(),
        })
        .collect()
}

/// In the order of the page's `bar_columns`.
fn bar(bar: &Bar, ticks: u64) -> [u64; 10] {
    let ticks = |duration: Duration| (duration.as_secs_f64() * ticks as f64) as u64;
    [
        u64::from(bar.worker.0),
        bar.lane as u64,
        bar.unit.trial.0,
        u64::from(bar.unit.epoch) + 1,
        u64::from(bar.unit.partition.0),
        u64::from(bar.unit.split == Split::Validation),
        ticks(bar.from),
        ticks(bar.to) - ticks(bar.from),
        ticks(bar.computed),
        bar.end as u64 + if bar.hopped { 4 } else { 0 },
    ]
}
