//! Gradients accumulated over batches: the updates are those of batches so many times as large.

use cerebro_core::data::{MemoryPartition, Partition, Tensor};
use cerebro_core::{
    Cancellation, Config, Metrics, ModelBuilder, ModelError, PartitionId, Pass, Seed, Slot, Split,
    State, TrialId, Unit,
};
use cerebro_models::loss::Loss;
use cerebro_models::metric::Metric;
use cerebro_models::{Trainer, TrainingState, nn, runtime};
use ndarray::{Array1, Array2};

const FEATURES: usize = 6;
const CLASSES: usize = 3;
const IGNORED: i64 = -100;

/// Rows of which every fifth is of no class.
fn rows(id: u32, count: usize) -> MemoryPartition {
    let mut rng = Seed(u64::from(id)).derive("rows", &[]).rng();
    let x = Array2::from_shape_fn((count, FEATURES), |_| rng.normal() as f32);
    let y = Array1::from_shape_fn(count, |row| {
        if row % 5 == 4 { IGNORED } else { rng.below(CLASSES as u64) as i64 }
    });
    let tensors = [("x", Tensor::from(x.into_dyn())), ("y", Tensor::from(y.into_dyn()))];
    MemoryPartition::new(PartitionId(id), tensors).unwrap()
}

/// Targets weigh unequally, so that the mean over rows is not the mean of the batches' means.
fn weighted() -> Loss {
    Loss::CrossEntropy {
        class_axis: 1,
        label_smoothing: 0.1,
        ignore_index: Some(IGNORED),
        class_weights: Some(vec![0.5, 2.0, 1.0]),
    }
}

fn trainer(network: nn::Network) -> Trainer {
    runtime::install().unwrap();
    Trainer::new(network, weighted()).metric(Metric::Accuracy).input("x").target("y")
}

fn config(optimizer: &str, batch_size: i64) -> Config {
    Config::new()
        .with("optimizer", optimizer)
        .with("learning_rate", 0.05)
        .with("batch_size", batch_size)
}

fn unit(
    trainer: &Trainer,
    config: &Config,
    state: Option<&State>,
    partition: &dyn Partition,
) -> Result<(Metrics, State), ModelError> {
    let mut model = trainer.build(config, &Slot::default())?;
    match state {
        Some(state) => model.restore(state)?,
        None => model.initialize(Seed(1))?,
    }
    let cancellation = Cancellation::new();
    let unit = Unit { trial: TrialId(0), epoch: 0, split: Split::Train, partition: partition.id() };
    let metrics = model.train(partition, &Pass::new(unit, Seed(1), &cancellation, &|_| ()))?;
    Ok((metrics, model.state()?))
}

/// The metrics of the first unit and the State after two, of 77 and 50 rows.
fn train(trainer: &Trainer, config: &Config) -> (Metrics, std::sync::Arc<TrainingState>) {
    let (metrics, state) = unit(trainer, config, None, &rows(0, 77)).unwrap();
    let (_, state) = unit(trainer, config, Some(&state), &rows(1, 50)).unwrap();
    (metrics, state.downcast().unwrap())
}

fn assert_alike(found: &TrainingState, expected: &TrainingState, tolerance: f32, case: &str) {
    for name in expected.names() {
        let (found, expected) = (found.values(name).unwrap(), expected.values(name).unwrap());
        for (found, expected) in found.iter().zip(expected) {
            let close = (found - expected).abs() <= tolerance * expected.abs().max(0.1);
            assert!(close, "{case}, {name}: {found} for {expected}");
        }
    }
}

#[test]
fn the_update_is_that_of_one_large_batch_and_so_is_the_last_smaller_one() {
    let trainer = trainer(nn::mlp(FEATURES, &[8], CLASSES));
    let cases = [
        config("sgd", 32).with("momentum", 0.9).with("weight_decay", 0.01),
        config("sgd", 32).with("clip_norm", 0.1),
        config("adam", 32).with("clip_value", 0.05),
        config("adamw", 32),
        config("rmsprop", 32),
        config("adagrad", 32),
        config("lamb", 32),
    ];
    for large in cases {
        let (metrics, expected) = train(&trainer, &large);
        // 77 rows are updates of 32, 32 and 13; the last one of batches of 8 and 5.
        assert_eq!(expected.steps(), 3 + 2);
        let small = large.clone().with("batch_size", 8).with("accumulate", 4);
        let (small_metrics, found) = train(&trainer, &small);
        assert_eq!(found.steps(), expected.steps());
        assert_alike(&found, &expected, 2e-4, &large.to_string());
        for (name, value) in metrics.values() {
            let found = small_metrics.value(name).unwrap();
            assert!((found - value).abs() < 1e-5, "{name}: {found} for {value}");
        }
    }
}

#[test]
fn more_batches_than_a_partition_has_make_one_update() {
    let trainer = trainer(nn::mlp(FEATURES, &[8], CLASSES));
    let whole = unit(&trainer, &config("sgd", 77), None, &rows(0, 77)).unwrap().1;
    let parts = config("sgd", 10).with("accumulate", 1000);
    let parts = unit(&trainer, &parts, None, &rows(0, 77)).unwrap().1;
    let (found, expected) = (parts.downcast().unwrap(), whole.downcast().unwrap());
    assert_alike(&found, &expected, 1e-5, "one update");
    assert_eq!(TrainingState::steps(&found), 1);
}

#[test]
fn weights_are_bit_identical_run_to_run_and_after_a_unit_that_was_cancelled() {
    let trainer = trainer(nn::mlp(FEATURES, &[8], CLASSES));
    let config = config("adam", 8).with("accumulate", 3);
    let partition = rows(0, 77);
    let first = unit(&trainer, &config, None, &partition).unwrap().1.to_vec();

    // It stops in the middle of a group, with gradients in the sums.
    let mut model = trainer.build(&config, &Slot::default()).unwrap();
    model.initialize(Seed(1)).unwrap();
    let cancellation = Cancellation::new();
    let cancel = |_| cancellation.cancel();
    let of = Unit { trial: TrialId(0), epoch: 0, split: Split::Train, partition: PartitionId(0) };
    let stopped = model.train(&partition, &Pass::new(of, Seed(1), &cancellation, &cancel));
    assert!(matches!(stopped, Err(ModelError::Cancelled)));

    let again = unit(&trainer, &config, None, &partition).unwrap().1.to_vec();
    assert_eq!(again, first);
}

#[test]
fn running_statistics_follow_each_batch() {
    let network = || nn::tabular(&[], FEATURES, &[8], CLASSES);
    let trainer = trainer(network());
    // Weights that stay: the statistics depend on the batches alone.
    let still = config("sgd", 16).with("learning_rate", 0.0);
    let rows = rows(0, 80);
    let expected = unit(&trainer, &still, None, &rows).unwrap().1.downcast().unwrap();
    let grouped = still.with("accumulate", 3);
    let found = unit(&trainer, &grouped, None, &rows).unwrap().1.downcast().unwrap();
    assert!(TrainingState::names(&expected).any(|name| name.contains("mean")));
    assert_alike(&found, &expected, 1e-6, "statistics");
}

#[test]
fn a_batch_of_ignored_targets_alone_changes_nothing() {
    let trainer = trainer(nn::mlp(FEATURES, &[8], CLASSES));
    let x = Array2::<f32>::ones((8, FEATURES));
    let y = Array1::from_elem(8, IGNORED);
    let tensors = [("x", Tensor::from(x.into_dyn())), ("y", Tensor::from(y.into_dyn()))];
    let ignored = MemoryPartition::new(PartitionId(0), tensors).unwrap();
    for config in [config("sgd", 4), config("sgd", 4).with("accumulate", 2)] {
        let mut model = trainer.build(&config, &Slot::default()).unwrap();
        model.initialize(Seed(1)).unwrap();
        let before = model.state().unwrap().downcast::<TrainingState>().unwrap();
        let after = unit(&trainer, &config, None, &ignored).unwrap().1;
        assert_alike(&after.downcast().unwrap(), &before, 0.0, "ignored");
    }
}
