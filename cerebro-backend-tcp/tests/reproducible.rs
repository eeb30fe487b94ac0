//! The same seed gives the same bits: a network of ONNX operators, with dropout and batch
//! normalization, trained on threads and on clusters of several sizes, killed and resumed, beside
//! other trials, and once more in the order of a recorded run.

mod support;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use cerebro_backend_local::LocalBackend;
use cerebro_backend_tcp::TcpBackend;
use cerebro_backend_tcp::worker::{Options, Registry};
use cerebro_core::data::{MemoryDataset, MemoryPartition, Tensor};
use cerebro_core::experiment::{Experiment, ExperimentBuilder, ExperimentResult};
use cerebro_core::observe::Event;
use cerebro_core::schedule::Policy;
use cerebro_core::search::Grid;
use cerebro_core::{Backend, Config, Objective, PartitionId, Seed, Split, TrialId};
use cerebro_models::loss::Loss;
use cerebro_models::nn::{self, Network};
use cerebro_models::onnx::{Node, TensorData};
use cerebro_models::{Architecture, Trainer, runtime};
use futures::executor::block_on;
use ndarray::{Array1, Array2};
use support::Worker;

const FEATURES: usize = 6;
const CLASSES: usize = 3;
const TRIALS: u32 = 4;
const TRAIN: u32 = 4;
const EPOCHS: u32 = 2;

/// The store of the process that is killed, and after how many units it is.
const STORE: &str = "CEREBRO_TEST_STORE";
const UNITS: usize = 13;

/// Batch normalization after each hidden layer, and dropout behind the first.
fn network(hidden: usize, dropout: f32) -> Network {
    let mut network = nn::tabular(&[], FEATURES, &[hidden, hidden], CLASSES);
    let graph = &mut network.model.graph;
    let at = graph.nodes.iter().position(|node| node.op == "Relu").expect("a rectifier");
    let value = std::mem::replace(&mut graph.nodes[at].outputs[0], "rectified".to_owned());
    let node = Node::new("Dropout", ["rectified", "dropout_ratio"], [value.as_str()]);
    graph.nodes.insert(at + 1, node);
    graph.initializers.insert("dropout_ratio".to_owned(), TensorData::from_f32(&[], &[dropout]));
    network
}

fn trainer() -> Trainer {
    let network = Architecture::new(["hidden", "dropout"], |config: &Config| {
        Ok(network(config.size("hidden")?, config.float("dropout")? as f32))
    });
    Trainer::new(network, Loss::cross_entropy()).input("continuous").target("label")
}

/// Rows around one centre per class.
fn dataset() -> MemoryDataset {
    let partitions = (0..=TRAIN).map(|id| {
        let mut rng = Seed(u64::from(id)).derive("rows", &[]).rng();
        let labels = Array1::from_shape_fn(48, |_| rng.below(CLASSES as u64) as i64);
        let rows = Array2::from_shape_fn((48, FEATURES), |(row, column)| {
            let centre = if column % CLASSES == labels[row] as usize { 1.5 } else { 0.0 };
            (centre + rng.normal()) as f32
        });
        let tensors = [
            ("continuous", Tensor::from(rows.into_dyn())),
            ("label", Tensor::from(labels.into_dyn())),
        ];
        let split = if id < TRAIN { Split::Train } else { Split::Validation };
        (split, MemoryPartition::new(PartitionId(id), tensors).unwrap())
    });
    MemoryDataset::new(partitions).unwrap()
}

fn config(trial: u32) -> Config {
    Config::new()
        .with("hidden", [8, 16][trial as usize % 2])
        .with("dropout", 0.3)
        .with("optimizer", "adamw")
        .with("learning_rate", 0.01 * f64::from(trial + 1))
        .with("batch_size", 16)
}

fn experiment(configs: impl IntoIterator<Item = Config>) -> ExperimentBuilder {
    Experiment::builder()
        .dataset(dataset())
        .model(trainer())
        .search(Grid::of(configs).unwrap())
        .objective(Objective::minimize("loss"))
        .policy(Policy::Seeded)
        .epochs(EPOCHS)
        .seed(7)
        .keep_models(16)
}

fn of_trials(trials: u32) -> ExperimentBuilder {
    experiment((0..trials).map(config))
}

/// Runs it on so many threads of this process.
fn on_threads(builder: ExperimentBuilder, workers: usize) -> ExperimentResult {
    let backend = LocalBackend::builder().workers(workers).build().unwrap();
    builder.build().unwrap().run_blocking(Arc::new(backend)).unwrap()
}

/// Runs it on a cluster of so many workers.
fn on_cluster(builder: ExperimentBuilder, workers: usize) -> ExperimentResult {
    let backend = TcpBackend::builder()
        .listen("127.0.0.1:0")
        .model("network", [])
        .data("rows:")
        .workers(workers)
        .lease(Duration::from_mins(1))
        .build()
        .unwrap();
    let registry = || {
        Registry::new()
            .model("network", |_: &[u8]| Ok(Arc::new(trainer())))
            .dataset("rows", |_| Ok(Arc::new(dataset())))
    };
    let options = Options::new(backend.address().to_string()).threads_per_slot(1);
    let start = |_| Worker::with(registry(), options.clone());
    let _workers: Vec<Worker> = (0..workers).map(start).collect();
    let backend: Arc<dyn Backend> = Arc::new(backend);
    builder.build().unwrap().run_blocking(backend).unwrap()
}

/// The weights, the optimizer's state and the statistics of the first trials.
fn bits(result: &ExperimentResult) -> Vec<Vec<u8>> {
    let state = |id| block_on(result.state(TrialId(id))).unwrap().to_vec();
    (0..u64::from(TRIALS)).map(state).collect()
}

/// Says so where ONNX Runtime is missing; then nothing can be shown.
fn is_skipped() -> bool {
    let missing = runtime::load().err();
    if let Some(error) = &missing {
        println!("skipped: ONNX Runtime is not there: {error}");
    }
    missing.is_some()
}

#[test]
fn the_network_of_these_tests_does_drop_out() {
    if is_skipped() {
        return;
    }
    let without = (0..TRIALS).map(|trial| config(trial).with("dropout", 0.0));
    let (with, without) = (on_threads(of_trials(TRIALS), 1), on_threads(experiment(without), 1));
    for (with, without) in with.trials().zip(without.trials()) {
        let loss = |trial: &cerebro_core::experiment::TrialRecord| trial.history[0].value;
        assert_ne!(loss(with), loss(without), "{}", with.id);
    }
}

#[test]
fn seeded_weights_are_the_same_bits_with_1_2_and_4_workers_on_threads_and_on_clusters() {
    if is_skipped() {
        return;
    }
    let expected = bits(&on_threads(of_trials(TRIALS), 1));
    for workers in [2, 4] {
        assert_eq!(bits(&on_threads(of_trials(TRIALS), workers)), expected, "{workers} threads");
    }
    for workers in [1, 2, 4] {
        assert_eq!(bits(&on_cluster(of_trials(TRIALS), workers)), expected, "{workers} workers");
    }
}

#[test]
fn seeded_weights_are_the_same_bits_with_other_trials_added_or_removed() {
    if is_skipped() {
        return;
    }
    let expected = bits(&on_threads(of_trials(TRIALS), 2));
    let more = of_trials(TRIALS + 3);
    assert_eq!(bits(&on_threads(more, 2)), expected, "three more on threads");
    assert_eq!(bits(&on_cluster(of_trials(TRIALS + 3), 2)), expected, "three more on a cluster");
    for removed in 0..TRIALS {
        // A network without hidden units is none: it ends as soon as it begins.
        let without = (0..TRIALS).map(|trial| match config(trial) {
            config if trial == removed => config.with("hidden", 0),
            config => config,
        });
        let result = on_threads(experiment(without), 2);
        assert_eq!(result.summary().failed, 1);
        for (trial, expected) in (0..TRIALS).zip(&expected).filter(|(trial, _)| *trial != removed) {
            let state = block_on(result.state(TrialId(trial.into()))).unwrap().to_vec();
            assert!(state == *expected, "trial {trial} without trial {removed}");
        }
    }
}

#[test]
fn seeded_weights_are_the_same_bits_after_a_crash_and_a_resume_on_threads_and_on_a_cluster() {
    if is_skipped() {
        return;
    }
    let expected = bits(&on_threads(of_trials(TRIALS), 2));
    for (kind, run) in [("threads", on_threads as fn(_, _) -> _), ("cluster", on_cluster)] {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("store");
        crash(kind, &store);
        let resumed = run(of_trials(TRIALS).resume(store.to_str().unwrap()), 2);
        assert_eq!(bits(&resumed), expected, "on {kind}");
    }
}

/// Begins the experiment in a process of its own, which dies half-way.
fn crash(kind: &str, store: &Path) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "begins_and_dies", "--ignored", "--nocapture"])
        .env(STORE, format!("{kind}:{}", store.display()))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let units = lines.map_while(Result::ok).filter(|line| line.starts_with("unit")).count();
    assert!(!child.wait().unwrap().success(), "it dies");
    assert_eq!(units, UNITS);
}

#[test]
#[ignore = "the process that dies, started by the test of crashes"]
fn begins_and_dies() {
    let Ok(told) = std::env::var(STORE) else { return };
    let (kind, store) = told.split_once(':').expect("a kind and a path");
    let mut units = 0;
    let builder = of_trials(TRIALS).store(store).observer(move |_: Duration, event: &Event| {
        if let Event::UnitCompleted { .. } = event {
            units += 1;
            println!("\nunit {units}");
            if units == UNITS {
                std::process::abort();
            }
        }
    });
    let run = if kind == "threads" { on_threads } else { on_cluster };
    run(builder, 2);
}

#[test]
fn a_replay_gives_the_bits_of_the_recorded_run_on_any_cluster() {
    if is_skipped() {
        return;
    }
    let recorded = on_threads(of_trials(TRIALS).policy(Policy::default()), 2);
    let expected = bits(&recorded);
    let replay = || of_trials(TRIALS).policy(Policy::Replay(recorded.visit_orders()));
    for workers in [1, 4] {
        assert_eq!(bits(&on_threads(replay(), workers)), expected, "{workers} threads");
    }
    let replayed = on_cluster(replay(), 3);
    assert_eq!(bits(&replayed), expected);
    assert_eq!(replayed.visit_orders(), recorded.visit_orders());
}
