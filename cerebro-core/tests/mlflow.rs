//! Runs on an MLflow server: a real one, one that only remembers, and ones that fail.

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cerebro_core::experiment::{EpochRecord, TrialRecord};
use cerebro_core::observe::{Event, MlFlow, MlFlowError, Observer, Outcome, Summary, TrialStatus};
use cerebro_core::{Config, Metrics, Objective, Seed, Statistic, TrialId};
use serde_json::{Value, json};
use support::process::Process;

fn metrics(loss: f64) -> Metrics {
    let mut metrics = Metrics::new();
    metrics.record("loss", Statistic::mean(loss, 10));
    metrics
}

fn config() -> Config {
    Config::new().with("learning_rate", 0.125).with("hidden", [64, 32])
}

fn begun(id: &str) -> Event {
    Event::ExperimentStarted {
        id: Some(id.to_owned()),
        name: "digits".to_owned(),
        seed: Seed(7),
        objective: Objective::minimize("loss"),
        epochs: 2,
        trials: Some(3),
        planned_epochs: None,
        workers: Vec::new(),
        partitions: Vec::new(),
    }
}

fn epoch(trial: u64, epoch: u32, loss: f64) -> Event {
    Event::EpochCompleted {
        trial: TrialId(trial),
        epoch,
        train: metrics(loss + 1.0),
        validation: metrics(loss),
        value: loss,
        visit_order: Vec::new(),
    }
}

fn status(trial: u64, status: TrialStatus) -> Event {
    Event::TrialStatus { trial: TrialId(trial), status }
}

fn failed() -> TrialStatus {
    TrialStatus::Failed { reason: "the loss diverged".to_owned() }
}

/// An experiment of three trials: one completes, one is a clone that fails, one is cut off.
fn events() -> Vec<(u64, Event)> {
    let started = |trial, parent| Event::TrialStarted {
        trial: TrialId(trial),
        config: config(),
        seed: Seed(1),
        parent,
    };
    let summary = Summary {
        outcome: Outcome::Stopped,
        completed: 1,
        failed: 1,
        stopped: 1,
        best: Some((TrialId(0), 0.25, 2)),
        ..Summary::default()
    };
    vec![
        (0, begun("5eed")),
        (1, started(0, None)),
        (2, epoch(0, 1, 0.5)),
        (3, epoch(0, 2, 0.25)),
        (3, status(0, TrialStatus::Completed)),
        (3, started(1, Some(TrialId(0)))),
        (4, epoch(1, 1, f64::NAN)),
        (5, status(1, failed())),
        (5, started(2, None)),
        (6, Event::ExperimentEnded { summary }),
    ]
}

/// The same experiment, resumed: its last trial had an epoch more than was told, and completes.
fn later_events() -> Vec<(u64, Event)> {
    let record = |id, status, losses: &[f64]| {
        let epoch = |(epoch, loss): (u32, &f64)| EpochRecord {
            epoch,
            train: metrics(loss + 1.0),
            validation: metrics(*loss),
            value: *loss,
            version: u64::from(epoch),
            visit_order: Vec::new(),
        };
        TrialRecord {
            id: TrialId(id),
            config: Arc::new(config()),
            seed: Seed(1),
            status,
            history: (1..).zip(losses).map(epoch).collect(),
            best: Some(0),
            parent: None,
            inherited: Vec::new(),
        }
    };
    let trials = vec![
        record(0, TrialStatus::Completed, &[0.5, 0.25]),
        record(1, failed(), &[f64::NAN]),
        record(2, TrialStatus::Running, &[0.75]),
    ];
    let summary = Summary { best: Some((TrialId(2), 0.125, 2)), ..Summary::default() };
    vec![
        (0, begun("5eed")),
        (0, Event::ExperimentResumed { trials, warnings: Vec::new() }),
        (1, epoch(2, 2, 0.125)),
        (1, status(2, TrialStatus::Completed)),
        (2, Event::ExperimentEnded { summary }),
    ]
}

fn tell(observer: &mut MlFlow, events: Vec<(u64, Event)>) -> Result<(), String> {
    for (at, event) in events {
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

/// Starts a server on a free port and waits until it says which.
fn start(python: &str, folder: &Path) -> (Process, String) {
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
    let server = Process(child);
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

/// What the server has of its runs, by their names.
fn read(python: &str, url: &str) -> Value {
    let output = Command::new(python).args(["-c", READER, url]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn an_mlflow_server_has_runs_with_parameters_metrics_and_how_they_ended() {
    let Ok(python) = std::env::var("CEREBRO_MLFLOW_PYTHON") else {
        eprintln!("skipped: CEREBRO_MLFLOW_PYTHON names no python with the package mlflow");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let (_server, url) = start(&python, folder.path());
    let mut observer = MlFlow::connect(&url, "it's a test").unwrap();
    tell(&mut observer, events()).unwrap();
    let runs = read(&python, &url);
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

    // The experiment is there already, on the server too.
    let mut observer = MlFlow::connect(&format!("{url}/"), "it's a test").unwrap();
    tell(&mut observer, later_events()).unwrap();
    let resumed = read(&python, &url);
    for same in ["trial-0", "trial-1"] {
        assert_eq!(resumed[same], runs[same]);
    }
    for on in ["digits", "trial-2"] {
        assert_eq!(resumed[on]["id"], runs[on]["id"], "it went on in its run");
        assert_eq!(resumed[on]["status"], "FINISHED");
    }
    let losses = serde_json::json!([[1, 0.75], [2, 0.125]]);
    assert_eq!(resumed["trial-2"]["metrics"]["validation/loss"], losses);
}

/// A server that gives `answer` each request's path and body, until it answers nothing. Returns its URL.
fn serving(mut answer: impl FnMut(&str, &str) -> Option<String> + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut request = String::new();
            reader.read_line(&mut request).unwrap();
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
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            let path = request.split(' ').nth(1).unwrap_or_default();
            let Some(answer) = answer(path, &String::from_utf8(body).unwrap()) else { return };
            // Who asked may have gone.
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    url
}

/// A server that gives `answers`, one per request, and is gone then.
fn answering(answers: Vec<String>) -> String {
    let mut answers = answers.into_iter();
    serving(move |_, _| answers.next())
}

fn answer(status: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}")
}

/// What a server remembers of its runs, in the form in which it gives them.
type Runs = Arc<Mutex<Vec<Value>>>;

/// A server that remembers runs, as MLflow does, and lists them one by one.
fn remembering(runs: &Runs) -> String {
    let runs = Arc::clone(runs);
    serving(move |path, body| {
        let asked: Value = serde_json::from_str(body).unwrap_or_default();
        let mut runs = runs.lock().unwrap();
        let named = |run: &&mut Value| run["info"]["run_id"] == asked["run_id"];
        let told = match path.rsplit_once("mlflow/").unwrap().1 {
            "experiments/create" => json!({ "experiment_id": "1" }),
            "runs/create" => {
                let id = format!("run-{}", runs.len());
                let info =
                    json!({ "run_id": id, "run_name": asked["run_name"], "status": "RUNNING" });
                let data = json!({ "metrics": [], "params": [], "tags": asked["tags"] });
                runs.push(json!({ "info": info, "data": data }));
                json!({ "run": runs.last() })
            }
            "runs/log-batch" => {
                let run = runs.iter_mut().find(named).unwrap();
                for of in ["metrics", "params", "tags"] {
                    let more = asked[of].as_array().unwrap().iter().cloned();
                    run["data"][of].as_array_mut().unwrap().extend(more);
                }
                json!({})
            }
            "runs/update" => {
                let run = runs.iter_mut().find(named).unwrap();
                for of in ["status", "end_time"] {
                    if !asked[of].is_null() {
                        run["info"][of] = asked[of].clone();
                    }
                }
                json!({})
            }
            "runs/search" => {
                let filter = asked["filter"].as_str().unwrap();
                let (key, value) =
                    filter.strip_prefix("tags.`").unwrap().split_once("` = ").unwrap();
                let tag = json!({ "key": key, "value": value.trim_matches('\'') });
                let tagged = |run: &&Value| run["data"]["tags"].as_array().unwrap().contains(&tag);
                let tagged: Vec<&Value> = runs.iter().filter(tagged).collect();
                let page: usize =
                    asked["page_token"].as_str().map_or(0, |page| page.parse().unwrap());
                let next = (page + 1 < tagged.len()).then(|| (page + 1).to_string());
                let runs: Vec<_> = tagged.get(page).into_iter().collect();
                json!({ "runs": runs, "next_page_token": next })
            }
            other => panic!("{other}"),
        };
        Some(answer("200 OK", &told.to_string()))
    })
}

/// The steps of `validation/loss` of the runs called `name`, run by run, with how each ended.
fn losses(runs: &Runs, name: &str) -> Vec<(Vec<u64>, String)> {
    let runs = runs.lock().unwrap();
    let steps = |run: &Value| {
        let metrics = run["data"]["metrics"].as_array().unwrap().iter();
        let metrics = metrics.filter(|metric| metric["key"] == "validation/loss");
        metrics.map(|metric| metric["step"].as_u64().unwrap()).collect()
    };
    let named = runs.iter().filter(|run| run["info"]["run_name"] == name);
    named.map(|run| (steps(run), run["info"]["status"].as_str().unwrap().to_owned())).collect()
}

#[test]
fn a_resumed_experiment_goes_on_in_its_runs_and_another_one_makes_its_own() {
    let runs = Runs::default();
    let url = remembering(&runs);
    let observe = |events| tell(&mut MlFlow::connect(&url, "digits").unwrap(), events).unwrap();
    observe(events());
    let ended = runs.lock().unwrap()[1]["info"].clone();
    assert_eq!(losses(&runs, "trial-2"), [(vec![], "KILLED".to_owned())]);

    observe(later_events());
    let finished = || "FINISHED".to_owned();
    assert_eq!(runs.lock().unwrap().len(), 4, "no run is made again");
    assert_eq!(losses(&runs, "trial-0"), [(vec![1, 2], finished())]);
    assert_eq!(losses(&runs, "trial-1"), [(vec![1], "FAILED".to_owned())]);
    assert_eq!(losses(&runs, "trial-2"), [(vec![1, 2], finished())]);
    assert_eq!(losses(&runs, "digits"), [(vec![], finished())]);
    assert_eq!(runs.lock().unwrap()[1]["info"], ended, "a run that had ended keeps its time");

    let mut another = later_events();
    another[0].1 = begun("another");
    observe(another);
    assert_eq!(runs.lock().unwrap().len(), 8, "what is not found is made");
    assert_eq!(losses(&runs, "trial-0"), vec![(vec![1, 2], finished()); 2]);
}

#[test]
fn a_trial_that_was_not_recorded_goes_on_in_its_run_unless_it_has_another_config_now() {
    let runs = Runs::default();
    let url = remembering(&runs);
    let started =
        |config| Event::TrialStarted { trial: TrialId(0), config, seed: Seed(1), parent: None };
    for rate in [0.125, 0.125, 0.5] {
        let mut observer = MlFlow::connect(&url, "digits").unwrap();
        let config = Config::new().with("learning_rate", rate);
        tell(&mut observer, vec![(0, begun("5eed")), (1, started(config))]).unwrap();
        drop(observer);
    }
    let ended = (vec![], "KILLED".to_owned());
    assert_eq!(losses(&runs, "trial-0"), vec![ended; 2], "one of each Config");
}

#[test]
fn a_server_that_is_not_there_or_is_none_is_an_error_at_once() {
    for url in ["127.0.0.1:5000", "https://127.0.0.1:5000", "http://"] {
        let error = MlFlow::connect(url, "digits").unwrap_err();
        assert!(matches!(error, MlFlowError::Address { .. }), "{error}");
    }
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = MlFlow::connect(&format!("http://{gone}"), "digits").unwrap_err().to_string();
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
    let error = tell(&mut observer, events()).unwrap_err();
    assert!(error.contains("find runs") && error.contains("the disk is full"), "{error}");
}
