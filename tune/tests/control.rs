//! Control of a running experiment through its socket.
#![cfg(unix)]

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;

use cerebro_backend_local::LocalBackend;
use cerebro_core::data::{MemoryDataset, MemoryPartition, Partition};
use cerebro_core::experiment::{Experiment, ExperimentResult};
use cerebro_core::search::Random;
use cerebro_core::{
    Config, Metrics, Model, ModelError, Objective, PartitionId, Pass, Seed, Slot, Space, Split,
    State, Statistic, TrialId,
};
use cerebro_tune::control::{self, Server};
use serde_json::{Value, json};

/// Says that it trains, and does so only once the test has dropped the other end of `wait`.
struct Waiting {
    begun: mpsc::Sender<()>,
    wait: Arc<Mutex<mpsc::Receiver<()>>>,
}

impl Model for Waiting {
    fn initialize(&mut self, _: Seed) -> Result<(), ModelError> {
        Ok(())
    }

    fn restore(&mut self, _: &State) -> Result<(), ModelError> {
        Ok(())
    }

    fn state(&mut self) -> Result<State, ModelError> {
        Ok(vec![0].into())
    }

    fn train(&mut self, _: &dyn Partition, _: &Pass<'_>) -> Result<Metrics, ModelError> {
        let _ = self.begun.send(());
        let _ = self.wait.lock().unwrap().recv();
        Ok(Metrics::new())
    }

    fn evaluate(&mut self, _: &dyn Partition, _: &Pass<'_>) -> Result<Metrics, ModelError> {
        let mut metrics = Metrics::new();
        metrics.record("loss", Statistic::mean(1.0, 1));
        Ok(metrics)
    }
}

fn partition(id: u32) -> MemoryPartition {
    let x = ndarray::Array2::<f32>::zeros((4, 1)).into_dyn();
    MemoryPartition::new(PartitionId(id), [("x", x.into())]).unwrap()
}

/// An experiment of two trials whose units wait until the sender is dropped; the first has begun.
fn start(socket: &Path) -> (Server, mpsc::Sender<()>, JoinHandle<ExperimentResult>) {
    let (go, wait) = mpsc::channel();
    let (begun, has_begun) = mpsc::channel();
    let wait = Arc::new(Mutex::new(wait));
    let parts = [(Split::Train, 0), (Split::Validation, 1)];
    let parts = parts.map(|(split, id)| (split, partition(id)));
    let space = Space::builder().uniform("rate", 0.0, 1.0).build().unwrap();
    let experiment = Experiment::builder()
        .name("controlled")
        .dataset(MemoryDataset::new(parts).unwrap())
        .model(move |_: &Config, _: &Slot| {
            let (begun, wait) = (begun.clone(), Arc::clone(&wait));
            Ok(Box::new(Waiting { begun, wait }) as Box<dyn Model>)
        })
        .search(Random::new(&space, 2, Seed(1)).unwrap())
        .objective(Objective::minimize("loss"))
        .epochs(1)
        .build()
        .unwrap();
    let server = Server::start(socket, experiment.handle()).unwrap();
    let backend = Arc::new(LocalBackend::builder().workers(1).build().unwrap());
    let run = std::thread::spawn(move || experiment.run_blocking(backend).unwrap());
    has_begun.recv().unwrap();
    (server, go, run)
}

struct Client {
    reader: BufReader<UnixStream>,
}

impl Client {
    fn connect(socket: &Path) -> Self {
        Self { reader: BufReader::new(UnixStream::connect(socket).unwrap()) }
    }

    fn line(&mut self) -> Value {
        let mut line = String::new();
        self.reader.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    fn ask(&mut self, request: &str) -> Value {
        self.reader.get_mut().write_all(format!("{request}\n").as_bytes()).unwrap();
        self.line()
    }
}

#[test]
fn trials_are_listed_paused_resumed_cloned_and_stopped_while_they_run() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket");
    let (server, go, run) = start(&socket);
    let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "nobody else may connect");

    let mut client = Client::connect(&socket);
    let list = client.ask(r#"{"command": "list"}"#);
    assert_eq!(list["ok"]["name"], "controlled", "{list}");
    assert_eq!(list["ok"]["trials"].as_array().unwrap().len(), 2);

    let paused = client.ask(r#"{"command": "pause_trial", "trial": 1}"#);
    assert_eq!(paused["ok"]["status"]["status"], "paused", "{paused}");
    let resumed = client.ask(r#"{"command": "resume_trial", "trial": 1}"#);
    assert_eq!(resumed["ok"]["status"]["status"], "running", "{resumed}");
    let cloned = client.ask(r#"{"command": "clone_trial", "trial": 0, "changes": {"rate": 0.5}}"#);
    assert_eq!(cloned["ok"]["trial"], 2, "{cloned}");
    let stopped = client.ask(r#"{"command": "stop_trial", "trial": 1}"#);
    assert_eq!(stopped["ok"]["status"]["status"], "stopped", "{stopped}");

    // The same by words, over another connection.
    let words = |line: &str| {
        let words = format!("{} {line}", socket.display());
        let words: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
        control::main(&words).map_err(|error| error.to_string())
    };
    words("list").unwrap();
    words("add rate=0.25").unwrap();
    words("extend trials 1").unwrap();
    words("priority 2 5").unwrap();
    let refused = words("add rate=7.0").unwrap_err();
    assert!(refused.contains("rate") && refused.contains("space"), "{refused}");

    drop(go);
    let result = run.join().unwrap();
    let configs: Vec<f64> =
        result.trials().map(|trial| trial.config.float("rate").unwrap()).collect();
    assert_eq!(configs.len(), 5, "2, a clone, one that was added, one more of the search");
    assert_eq!(result.trial(TrialId(2)).unwrap().config.float("rate").unwrap(), 0.5);
    assert!(configs.contains(&0.25), "{configs:?}");
    let over = client.ask(r#"{"command": "pause_all"}"#);
    assert!(over["error"].as_str().unwrap().contains("has ended"), "{over}");
    drop(server);
    assert!(!socket.exists());
    let gone = words("list").unwrap_err();
    assert!(gone.contains("no experiment takes commands"), "{gone}");
}

#[test]
fn what_is_no_command_is_answered_with_what_is_wrong_and_the_next_one_is_heard() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket");
    let (_server, go, run) = start(&socket);
    let mut client = Client::connect(&socket);
    for (request, expected) in [
        ("pause", "no JSON"),
        ("{}", "no command"),
        (r#"{"command": "explode"}"#, "explode"),
        (r#"{"command": "pause_trial"}"#, "missing field `trial`"),
        (r#"{"command": "pause_trial", "trial": 77}"#, "there is no trial-77"),
        (r#"{"command": "set_priority", "trial": 0, "priority": 11}"#, "11 is no priority"),
    ] {
        let answer = client.ask(request);
        let error = answer["error"].as_str().unwrap();
        assert!(error.contains(expected), "{request}: {error}");
    }
    let stopped = client.ask(r#"{"command": "stop"}"#);
    assert_eq!(stopped, json!({ "ok": { "answer": "done" } }));
    drop(go);
    run.join().unwrap();
}

#[test]
fn a_watcher_hears_events_until_the_experiment_ends() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket");
    let (_server, go, run) = start(&socket);
    let mut client = Client::connect(&socket);
    assert_eq!(client.ask(r#"{"command": "watch"}"#)["ok"]["answer"], "watching");
    drop(go);
    run.join().unwrap();
    let mut last = Value::Null;
    for line in client.reader.lines() {
        last = serde_json::from_str(&line.unwrap()).unwrap();
    }
    assert_eq!(last["event"], "experiment_ended", "{last}");
}

#[test]
fn a_socket_that_is_taken_is_refused_and_one_that_was_left_behind_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket");
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    assert!(socket.exists(), "left behind");
    let (server, go, run) = start(&socket);
    let second = Server::start(&socket, server_handle()).unwrap_err().to_string();
    assert!(second.contains("takes commands there already"), "{second}");
    drop(go);
    run.join().unwrap();
    drop(server);

    let file = folder.path().join("file");
    std::fs::write(&file, "precious").unwrap();
    let refused = Server::start(&file, server_handle()).unwrap_err().to_string();
    assert!(refused.contains("no socket"), "{refused}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
}

fn server_handle() -> cerebro_core::experiment::ExperimentHandle {
    let space = Space::builder().uniform("rate", 0.0, 1.0).build().unwrap();
    let parts = [(Split::Train, 0), (Split::Validation, 1)];
    let parts = parts.map(|(split, id)| (split, partition(id)));
    Experiment::builder()
        .dataset(MemoryDataset::new(parts).unwrap())
        .model(|_: &Config, _: &Slot| Err(ModelError::Unsupported("anything")))
        .search(Random::new(&space, 1, Seed(1)).unwrap())
        .objective(Objective::minimize("loss"))
        .epochs(1)
        .build()
        .unwrap()
        .handle()
}
