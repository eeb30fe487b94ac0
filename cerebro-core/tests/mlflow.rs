//! Runs on an MLflow server: a real one, and ones that fail.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use cerebro_core::observe::{Event, MlFlow, MlFlowError, Observer, Outcome, Summary, TrialStatus};
use cerebro_core::{Config, Metrics, Objective, Seed, Statistic, TrialId};

fn metrics(loss: f64) -> Metrics {
    let mut metrics = Metrics::new();
    metrics.record("loss", Statistic::mean(loss, 10));
    metrics
}

/// An experiment of three trials: one completes, one is a clone that fails, one is cut off.
fn events() -> Vec<(u64, Event)> {
    let config = Config::new().with("learning_rate", 0.125).with("hidden", [64, 32]);
    let started = |trial, parent| Event::TrialStarted {
        trial: TrialId(trial),
        config: config.clone(),
        seed: Seed(1),
        parent,
    };
    let epoch = |trial, epoch: u32, loss| Event::EpochCompleted {
        trial: TrialId(trial),
        epoch,
        train: metrics(loss + 1.0),
        validation: metrics(loss),
        value: loss,
        visit_order: Vec::new(),
    };
    let status = |trial, status| Event::TrialStatus { trial: TrialId(trial), status };
    let summary = Summary {
        outcome: Outcome::Stopped,
        completed: 1,
        failed: 1,
        stopped: 1,
        best: Some((TrialId(0), 0.25, 2)),
        ..Summary::default()
    };
    vec![
        (
            0,
            Event::ExperimentStarted {
                name: "digits".to_owned(),
                seed: Seed(7),
                objective: Objective::minimize("loss"),
                epochs: 2,
                trials: Some(3),
                planned_epochs: None,
                workers: Vec::new(),
                partitions: Vec::new(),
            },
        ),
        (1, started(0, None)),
        (2, epoch(0, 1, 0.5)),
        (3, epoch(0, 2, 0.25)),
        (3, status(0, TrialStatus::Completed)),
        (3, started(1, Some(TrialId(0)))),
        (4, epoch(1, 1, f64::NAN)),
        (5, status(1, TrialStatus::Failed { reason: "the loss diverged".to_owned() })),
        (5, started(2, None)),
        (6, Event::ExperimentEnded { summary }),
    ]
}

fn tell(observer: &mut MlFlow) -> Result<(), String> {
    for (at, event) in events() {
        let told = observer.observe(Duration::from_secs(at), &event);
        told.map_err(|error| error.to_string())?;
    }
    Ok(())
}

const READER: &str = r#"
import json, sys
from mlflow.tracking import MlflowClient

client = MlflowClient(sys.argv[1])
experiment = client.get_experiment_by_name("it's a test")
runs = {}
for run in client.search_runs([experiment.experiment_id], max_results=100):
    metrics = {
        key: [[m.step, m.value] for m in client.get_metric_history(run.info.run_id, key)]
        for key in run.data.metrics
    }
    tags = {k: v for k, v in run.data.tags.items() if k not in ("mlflow.user", "mlflow.source.name")}
    runs[run.info.run_name] = {
        "id": run.info.run_id, "status": run.info.status, "params": run.data.params,
        "metrics": metrics, "tags": tags, "took": run.info.end_time - run.info.start_time,
    }
print(json.dumps(runs).replace("NaN", '"NaN"'))
"#;

/// A server, stopped when dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Server {
    /// Starts a server on a free port and waits until it says which.
    fn start(python: &str, folder: &std::path::Path) -> (Self, String) {
        let log = folder.join("mlflow.db");
        let mut child = Command::new(python)
            .args(["-m", "mlflow", "server", "--host", "127.0.0.1", "--port", "0"])
            .args(["--workers", "1", "--backend-store-uri"])
            .arg(format!("sqlite:///{}", log.display()))
            .arg("--artifacts-destination")
            .arg(folder.join("artifacts"))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let server = Self(child);
        let url = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| {
                let at = line.find("running on http://")?;
                line[at..].split_whitespace().nth(2).map(str::to_owned)
            })
            .expect("the server says where it is running");
        // What it writes later must have somewhere to go.
        std::thread::spawn(move || lines.for_each(drop));
        (server, url)
    }
}

#[test]
fn an_mlflow_server_has_runs_with_parameters_metrics_and_how_they_ended() {
    let Ok(python) = std::env::var("CEREBRO_MLFLOW_PYTHON") else {
        eprintln!("skipped: CEREBRO_MLFLOW_PYTHON names no python with the package mlflow");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let (server, url) = Server::start(&python, folder.path());
    let mut observer = MlFlow::connect(&url, "it's a test").unwrap();
    tell(&mut observer).unwrap();
    MlFlow::connect(&format!("{url}/"), "it's a test").expect("the experiment is there already");

    let output = Command::new(&python).args(["-c", READER, &url]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    drop(server);
    let runs: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let whole = &runs["digits"];
    assert_eq!(whole["status"], "KILLED", "{runs:#}");
    assert_eq!(whole["params"]["seed"], "7");
    assert_eq!(whole["metrics"]["best_value"], serde_json::json!([[2, 0.25]]));
    assert_eq!(whole["tags"]["cerebro.best_run"], runs["trial-0"]["id"]);

    let first = &runs["trial-0"];
    assert_eq!(first["status"], "FINISHED");
    assert_eq!(first["took"], 2000);
    assert_eq!(first["tags"]["mlflow.parentRunId"], whole["id"]);
    let params = serde_json::json!({ "learning_rate": "0.125", "hidden": "[64, 32]" });
    assert_eq!(first["params"], params);
    let expected = serde_json::json!({
        "train/loss": [[1, 1.5], [2, 1.25]],
        "validation/loss": [[1, 0.5], [2, 0.25]],
    });
    assert_eq!(first["metrics"], expected);

    let clone = &runs["trial-1"];
    assert_eq!(clone["status"], "FAILED");
    assert_eq!(clone["tags"]["cerebro.cloned_from"], "trial-0");
    assert_eq!(clone["tags"]["cerebro.failure"], "the loss diverged");
    assert_eq!(clone["metrics"]["validation/loss"], serde_json::json!([[1, "NaN"]]));
    assert_eq!(runs["trial-2"]["status"], "KILLED", "it had not ended");
}

/// A server that gives `answers`, one per connection, and is gone then. Returns its URL.
fn answering(answers: Vec<String>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for answer in answers {
            let Ok((mut stream, _)) = listener.accept() else { return };
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut length = 0;
            for line in reader.by_ref().lines() {
                let line = line.unwrap_or_default().to_ascii_lowercase();
                if let Some(value) = line.strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
                if line.is_empty() {
                    break;
                }
            }
            let _ = reader.read_exact(&mut vec![0; length]);
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    url
}

fn answer(status: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}")
}

#[test]
fn a_server_that_is_not_there_or_is_none_is_an_error_at_once() {
    for url in ["127.0.0.1:5000", "https://127.0.0.1:5000", "http://"] {
        let error = MlFlow::connect(url, "digits").unwrap_err();
        assert!(matches!(error, MlFlowError::Address { .. }), "{error}");
    }
    let error = MlFlow::connect(&answering(vec![]), "digits").unwrap_err().to_string();
    assert!(error.contains("is it running?") && error.contains("http://127.0.0.1:"), "{error}");

    let page = answering(vec![answer("200 OK", "<html>Hello</html>")]);
    let error = MlFlow::connect(&page, "digits").unwrap_err().to_string();
    assert!(error.contains("is no MLflow server") && error.contains("<html>"), "{error}");

    let denied = answering(vec![answer("403 Forbidden", "{\"message\": \"who are you?\"}")]);
    let error = MlFlow::connect(&denied, "digits").unwrap_err().to_string();
    assert!(error.contains("status 403") && error.contains("who are you?"), "{error}");
}

#[test]
fn a_server_that_goes_away_ends_the_observer_with_an_error() {
    let made = answer("200 OK", "{\"experiment_id\": \"1\"}");
    let full = answer("507 Insufficient Storage", "{\"message\": \"the disk is full\"}");
    let mut observer = MlFlow::connect(&answering(vec![made, full]), "digits").unwrap();
    let error = tell(&mut observer).unwrap_err();
    assert!(error.contains("start a run") && error.contains("the disk is full"), "{error}");
}
