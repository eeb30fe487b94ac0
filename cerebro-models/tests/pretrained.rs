//! Trials that start from the weights of another training.

use cerebro_core::data::{MemoryPartition, Tensor};
use cerebro_core::{
    Cancellation, Config, ModelBuilder, PartitionId, Pass, Seed, Slot, Split, TrialId, Unit,
};
use cerebro_models::loss::Loss;
use cerebro_models::nn::{self, Network};
use cerebro_models::onnx::{DataType, TensorData};
use cerebro_models::{Pretrained, PretrainedError, Trainer, TrainingState, runtime};
use ndarray::{Array1, Array2};
use std::sync::Arc;

fn config() -> Config {
    Config::new().with("optimizer", "adam").with("learning_rate", 0.01).with("batch_size", 8)
}

/// A network with running statistics.
fn network(classes: usize) -> Network {
    nn::tabular(&[], 4, &[6], classes)
}

fn trainer(classes: usize) -> Trainer {
    runtime::install().unwrap();
    Trainer::new(network(classes), Loss::cross_entropy()).input("x").target("y")
}

fn initial(trainer: &Trainer, seed: u64) -> Arc<TrainingState> {
    let mut model = trainer.build(&config(), &Slot::default()).unwrap();
    model.initialize(Seed(seed)).unwrap();
    model.state().unwrap().downcast().unwrap()
}

/// The State after one unit.
fn trained(trainer: &Trainer, classes: i64) -> cerebro_core::State {
    let mut rng = Seed(3).derive("rows", &[]).rng();
    let x = Array2::from_shape_fn((32, 4), |_| rng.normal() as f32);
    let y = Array1::from_shape_fn(32, |row| row as i64 % classes);
    let tensors = [("x", Tensor::from(x.into_dyn())), ("y", Tensor::from(y.into_dyn()))];
    let rows = MemoryPartition::new(PartitionId(0), tensors).unwrap();
    let mut model = trainer.build(&config(), &Slot::default()).unwrap();
    model.initialize(Seed(1)).unwrap();
    let cancellation = Cancellation::new();
    let split = Split::Train;
    let unit = Unit { trial: TrialId(0), epoch: 0, split, partition: PartitionId(0) };
    model.train(&rows, &Pass::new(unit, Seed(1), &cancellation, &|_| ())).unwrap();
    model.state().unwrap()
}

#[test]
fn what_an_export_wrote_is_where_the_next_training_starts() {
    let first = trainer(3);
    let state = trained(&first, 3);
    let folder = tempfile::tempdir().unwrap();
    let onnx = first.export(&config(), &state).unwrap().save(folder.path(), "best").unwrap();
    let state: Arc<TrainingState> = state.downcast().unwrap();
    for file in [onnx.clone(), onnx.with_extension("safetensors")] {
        let next = trainer(3).pretrained(Pretrained::from_file(&file).unwrap());
        let report = next.pretrained_report(&config()).unwrap();
        assert!(report.missing.is_empty() && report.unused.is_empty(), "{report}");
        let start = initial(&next, 99);
        assert_eq!(start.steps(), 0);
        let mut names = 0;
        for name in state.names() {
            assert_eq!(start.values(name), state.values(name), "{name} of {}", file.display());
            names += 1;
        }
        assert_eq!(names, report.loaded.len());
        assert!(report.loaded.iter().any(|name| name.contains("mean")), "statistics too: {report}");
    }
}

#[test]
fn another_head_is_refused_until_it_is_excepted_and_then_trains_alone() {
    let first = trainer(3);
    let state = trained(&first, 3);
    let export = first.export(&config(), &state).unwrap();
    let weights = Pretrained::from_model(export.model());

    let error = trainer(5).pretrained(weights.clone()).check(&config()).unwrap_err();
    let error = std::error::Error::source(&error).unwrap().to_string();
    for part in ["`last.weight` has the shape [3, 6] and should have [5, 6]", "`except`"] {
        assert!(error.contains(part), "{error}");
    }

    let next = trainer(5).pretrained(weights.except("last.*")).freeze("hidden*");
    let report = next.pretrained_report(&config()).unwrap();
    assert_eq!(report.missing, ["last.weight", "last.bias"]);
    // What is excepted is drawn as it would be without, from the trial's seed.
    let (start, plain) = (initial(&next, 7), initial(&trainer(5), 7));
    assert_eq!(start.values("last.weight"), plain.values("last.weight"));
    let after: Arc<TrainingState> = trained(&next, 5).downcast().unwrap();
    let source: Arc<TrainingState> = state.downcast().unwrap();
    assert_eq!(after.values("hidden1.weight"), source.values("hidden1.weight"));
    assert_ne!(after.values("last.weight"), initial(&next, 1).values("last.weight"));
}

#[test]
fn names_and_types_of_other_tools_are_brought_to_those_of_the_network() {
    let half =
        |values: &[f64], dims: &[usize]| TensorData::from_f64(DataType::Bfloat16, dims, values);
    let weights = Pretrained::new([
        ("module.hidden1.weight".to_owned(), half(&[0.5; 24], &[6, 4])),
        ("head.kernel".to_owned(), half(&[-0.25; 18], &[3, 6])),
    ]);
    let renamed = |name: &str| (name == "head.kernel").then(|| "last.weight".to_owned());
    let next = trainer(3).pretrained(weights.strip_prefix("module.").rename(renamed));
    let start = initial(&next, 1);
    assert_eq!(start.values("hidden1.weight").unwrap(), [0.5; 24]);
    assert_eq!(start.values("last.weight").unwrap(), [-0.25; 18]);
}

#[test]
fn a_worker_in_another_process_starts_from_the_same_weights() {
    let first = trainer(3);
    let export = first.export(&config(), &trained(&first, 3)).unwrap();
    let next = trainer(3).pretrained(Pretrained::from_model(export.model()).except("last.bias"));
    let blueprint = next.blueprint().unwrap();
    let there = Trainer::from_blueprint(&blueprint.bytes).unwrap();
    assert_eq!(there.blueprint().unwrap(), blueprint);
    let (here, there) = (initial(&next, 5), initial(&there, 5));
    for name in here.names() {
        assert_eq!(here.values(name), there.values(name), "{name}");
    }
    for end in [blueprint.bytes.len() - 1, blueprint.bytes.len() / 2] {
        assert!(Trainer::from_blueprint(&blueprint.bytes[..end]).is_err());
    }
}

#[test]
fn weights_that_cannot_be_meant_are_refused() {
    let refusal = |weights: Pretrained| {
        let error = trainer(3).pretrained(weights).check(&config()).unwrap_err();
        std::error::Error::source(&error).unwrap().to_string()
    };
    let strange = [("model.fc.weight".to_owned(), TensorData::from_f32(&[2], &[1.0, 2.0]))];
    let message = refusal(Pretrained::new(strange));
    for part in ["none of the 1", "`model.fc.weight`", "`strip_prefix`"] {
        assert!(message.contains(part), "{message}");
    }
    let broken = [("last.bias".to_owned(), TensorData::from_f32(&[3], &[0.0, f32::NAN, 0.0]))];
    let message = refusal(Pretrained::new(broken));
    assert!(message.contains("`last.bias` holds NaN"), "{message}");

    let folder = tempfile::tempdir().unwrap();
    let cut = folder.path().join("weights.safetensors");
    std::fs::write(&cut, [9, 0, 0, 0, 0, 0, 0, 0, b'{']).unwrap();
    let error = Pretrained::from_file(&cut).unwrap_err();
    assert!(matches!(error, PretrainedError::NotSafetensors { bytes: 9, .. }), "{error}");
    let error = Pretrained::from_file(folder.path().join("none.safetensors")).unwrap_err();
    assert!(error.to_string().contains("none.safetensors"), "{error}");
    let error = Pretrained::from_file("weights.pt").unwrap_err();
    assert!(error.to_string().contains("neither `.safetensors` nor `.onnx`"), "{error}");
}
