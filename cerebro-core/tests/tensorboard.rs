//! Event files, read by the real TensorBoard.

mod support;

use std::process::Command;
use std::time::Duration;

use cerebro_core::experiment::{EpochRecord, TrialRecord};
use cerebro_core::observe::{Event, Observer, TensorBoard, TrialStatus};
use cerebro_core::{Config, Metrics, Seed, Statistic, TrialId};

const READER: &str = r#"
import json, sys
from pathlib import Path
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

runs = {}
for folder in sorted(Path(sys.argv[1]).iterdir()):
    run = EventAccumulator(str(folder)).Reload()
    def hparams(tag):
        metadata = run.SummaryMetadata("_hparams_/" + tag)
        return plugin_data_pb2.HParamsPluginData.FromString(metadata.plugin_data.content)
    start, end = hparams("session_start_info"), hparams("session_end_info")
    def python(value):
        return getattr(value, value.WhichOneof("kind"))
    runs[folder.name] = {
        "scalars": {
            tag: [[event.step, event.value] for event in run.Scalars(tag)]
            for tag in run.Tags()["scalars"]
        },
        "config": {name: python(v) for name, v in start.session_start_info.hparams.items()},
        "status": end.session_end_info.status,
        "took": end.session_end_info.end_time_secs - start.session_start_info.start_time_secs,
    }
print(json.dumps(runs))
"#;

fn metrics(loss: f64, accuracy: f64) -> Metrics {
    let mut metrics = Metrics::new();
    metrics.record("loss", Statistic::mean(loss, 10));
    metrics.record("accuracy", Statistic::mean(accuracy, 10));
    metrics
}

fn write(folder: &std::path::Path) {
    let mut observer = TensorBoard::create(folder).unwrap();
    let mut tell =
        |at: u64, event: Event| observer.observe(Duration::from_secs(at), &event).unwrap();
    for number in 0..2_u32 {
        let config = Config::new()
            .with("learning_rate", 0.125)
            .with("batch_size", 32 + i64::from(number))
            .with("optimizer", "adam")
            .with("nesterov", true)
            .with("hidden", [64, 32]);
        let trial = TrialId(u64::from(number));
        tell(1, Event::TrialStarted { trial, config, seed: Seed(1), parent: None });
    }
    for epoch in 1..=3 {
        let share = f64::from(epoch) / 4.0;
        tell(
            1 + u64::from(epoch),
            Event::EpochCompleted {
                trial: TrialId(0),
                epoch,
                train: metrics(1.0 - share, share),
                validation: metrics(if epoch == 2 { f64::NAN } else { 1.5 - share }, share),
                value: share,
                visit_order: Vec::new(),
            },
        );
    }
    tell(6, Event::TrialStatus { trial: TrialId(0), status: TrialStatus::Completed });
    let status = TrialStatus::Failed { reason: "diverged".to_owned() };
    tell(7, Event::TrialStatus { trial: TrialId(1), status });
}

/// What TensorBoard reads in `folder`; nothing where pip cannot install it.
fn read(folder: &std::path::Path) -> Option<serde_json::Value> {
    let module = "tensorboard.backend.event_processing.event_accumulator";
    let packages = ["tensorboard>=2.18,<3", "setuptools<81"];
    let Some(python) = support::python::package(module, &packages) else {
        eprintln!("skipped: pip could not install tensorboard");
        return None;
    };
    let output = Command::new("python3")
        .args(["-c", READER])
        .arg(folder)
        .env("PYTHONPATH", python)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    // Python writes NaN as JSON does not have it.
    let json = String::from_utf8(output.stdout).unwrap().replace("NaN", "null");
    Some(serde_json::from_str(&json).unwrap())
}

#[test]
fn a_resumed_experiment_is_read_from_its_first_epoch_to_its_last() {
    let folder = tempfile::tempdir().unwrap();
    let epoch = |epoch: u32| EpochRecord {
        epoch,
        train: metrics(1.0, 0.5),
        validation: metrics(0.5, 0.25),
        value: 0.5,
        version: u64::from(epoch),
        visit_order: Vec::new(),
    };
    let config = Config::new().with("batch_size", 8);
    let (id, seed) = (TrialId(0), Seed(1));
    let mut observer = TensorBoard::create(folder.path()).unwrap();
    let started = Event::TrialStarted { trial: id, config: config.clone(), seed, parent: None };
    observer.observe(Duration::ZERO, &started).unwrap();
    drop(observer);

    // As the journal has it, so that only what matters here need be said.
    let trial: TrialRecord = serde_json::from_value(serde_json::json!({
        "id": id, "config": config, "seed": seed, "status": TrialStatus::Running,
        "history": [epoch(1), epoch(2)], "best": 0,
    }))
    .unwrap();
    let resumed = Event::ExperimentResumed { trials: vec![trial], warnings: Vec::new() };
    let EpochRecord { train, validation, value, visit_order, .. } = epoch(3);
    let third =
        Event::EpochCompleted { trial: id, epoch: 3, train, validation, value, visit_order };
    let status = Event::TrialStatus { trial: id, status: TrialStatus::Completed };
    let mut observer = TensorBoard::create(folder.path()).unwrap();
    for event in [resumed, third, status] {
        observer.observe(Duration::ZERO, &event).unwrap();
    }
    let Some(runs) = read(folder.path()) else { return };
    let expected = serde_json::json!([[1, 0.5], [2, 0.5], [3, 0.5]]);
    assert_eq!(runs["trial-0"]["scalars"]["validation/loss"], expected);
}

#[test]
fn a_trial_that_trains_on_after_its_end_has_all_its_epochs_in_one_run() {
    let folder = tempfile::tempdir().unwrap();
    let (trial, config) = (TrialId(0), Config::new().with("batch_size", 8));
    let mut observer = TensorBoard::create(folder.path()).unwrap();
    let mut tell = |event: Event| observer.observe(Duration::ZERO, &event).unwrap();
    tell(Event::TrialStarted { trial, config, seed: Seed(1), parent: None });
    let epoch = |epoch: u32| Event::EpochCompleted {
        trial,
        epoch,
        train: metrics(1.0, 0.5),
        validation: metrics(0.5, 0.25),
        value: 0.5,
        visit_order: Vec::new(),
    };
    tell(epoch(1));
    tell(Event::TrialStatus { trial, status: TrialStatus::Completed });
    tell(Event::TrialStatus { trial, status: TrialStatus::Running });
    tell(epoch(2));
    tell(Event::TrialStatus { trial, status: TrialStatus::Completed });
    drop(observer);
    let Some(runs) = read(folder.path()) else { return };
    let expected = serde_json::json!([[1, 0.5], [2, 0.5]]);
    assert_eq!(runs["trial-0"]["scalars"]["validation/loss"], expected);
    assert_eq!(runs["trial-0"]["status"], 1);
}

#[test]
fn tensorboard_reads_scalars_configs_and_how_trials_ended() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path());
    write(folder.path()); // A second experiment in the same folder takes the place of the first.
    let Some(runs) = read(folder.path()) else { return };
    let (first, second) = (&runs["trial-0"], &runs["trial-1"]);
    let expected = serde_json::json!({
        "train/loss": [[1, 0.75], [2, 0.5], [3, 0.25]],
        "train/accuracy": [[1, 0.25], [2, 0.5], [3, 0.75]],
        "validation/loss": [[1, 1.25], [2, null], [3, 0.75]],
        "validation/accuracy": [[1, 0.25], [2, 0.5], [3, 0.75]],
    });
    assert_eq!(first["scalars"], expected);
    let config = serde_json::json!({
        "learning_rate": 0.125, "batch_size": 33.0, "optimizer": "adam", "nesterov": true,
        "hidden": "[64, 32]",
    });
    assert_eq!(second["config"], config);
    assert_eq!((&first["status"], &second["status"]), (&1.into(), &2.into()));
    assert!((first["took"].as_f64().unwrap() - 5.0).abs() < 1e-3, "{}", first["took"]);
}
