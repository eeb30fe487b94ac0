//! What a trial of a network does in a slot, seen through the traits of the core.

use cerebro_core::data::{MemoryPartition, Partition, Tensor};
use cerebro_core::{
    Cancellation, Config, Metrics, ModelBuilder, ModelError, PartitionId, Pass, Seed, Slot, Split,
    State, TrialId, Unit,
};
use cerebro_models::loss::Loss;
use cerebro_models::metric::Metric;
use cerebro_models::training::ParameterGroup;
use cerebro_models::{Architecture, Inference, Trainer, TrainingState, nn, runtime};
use ndarray::{Array1, Array2};

const FEATURES: usize = 6;
const CLASSES: usize = 3;

/// Rows around one centre per class; the class is the nearest centre.
fn blobs(id: u32, rows: usize) -> MemoryPartition {
    let mut rng = Seed(u64::from(id)).derive("blobs", &[]).rng();
    let labels = Array1::from_shape_fn(rows, |_| rng.below(CLASSES as u64) as i64);
    let x = Array2::from_shape_fn((rows, FEATURES), |(row, column)| {
        let centre = if column as i64 % CLASSES as i64 == labels[row] { 1.5 } else { 0.0 };
        (centre + 0.5 * rng.normal()) as f32
    });
    partition(id, x, labels)
}

fn partition(id: u32, x: Array2<f32>, y: Array1<i64>) -> MemoryPartition {
    let tensors = [("x", Tensor::from(x.into_dyn())), ("y", Tensor::from(y.into_dyn()))];
    MemoryPartition::new(PartitionId(id), tensors).unwrap()
}

fn trainer() -> Trainer {
    runtime::install().unwrap();
    let network = Architecture::new(["hidden"], |config: &Config| {
        Ok(nn::mlp(FEATURES, &config.sizes("hidden")?, CLASSES))
    });
    Trainer::new(network, Loss::cross_entropy())
        .metric(Metric::Accuracy)
        .input("x")
        .target("y")
        .default("optimizer", "sgd")
        .default("momentum", 0.9)
}

fn config(learning_rate: f64) -> Config {
    Config::new().with("hidden", [16]).with("learning_rate", learning_rate).with("batch_size", 16)
}

/// Runs `unit` of the trial that has `seed`, from `state` or else from the beginning.
fn run(
    trainer: &Trainer,
    config: &Config,
    seed: Seed,
    state: Option<&State>,
    epoch: u32,
    partition: &dyn Partition,
) -> Result<(Metrics, State), ModelError> {
    let mut model = trainer.build(config, &Slot::default())?;
    match state {
        Some(state) => model.restore(state)?,
        None => model.initialize(seed)?,
    }
    let cancellation = Cancellation::new();
    let unit = Unit { trial: TrialId(0), epoch, split: Split::Train, partition: partition.id() };
    let metrics = model.train(partition, &Pass::new(unit, seed, &cancellation, &|_| ()))?;
    Ok((metrics, model.state()?))
}

/// The State after `epochs` epochs over `partitions` in order.
fn train(
    trainer: &Trainer,
    config: &Config,
    seed: Seed,
    partitions: &[MemoryPartition],
    epochs: u32,
) -> State {
    let mut state = None;
    for epoch in 0..epochs {
        for partition in partitions {
            let result = run(trainer, config, seed, state.as_ref(), epoch, partition);
            state = Some(result.unwrap().1);
        }
    }
    state.unwrap()
}

fn evaluate(trainer: &Trainer, config: &Config, state: &State, on: &MemoryPartition) -> Metrics {
    let mut model = trainer.build(config, &Slot::default()).unwrap();
    model.restore(state).unwrap();
    let cancellation = Cancellation::new();
    let unit = Unit { trial: TrialId(0), epoch: 0, split: Split::Validation, partition: on.id() };
    model.evaluate(on, &Pass::new(unit, Seed(0), &cancellation, &|_| ())).unwrap()
}

fn predict(trainer: &Trainer, config: &Config, state: &State, on: &MemoryPartition) -> Tensor {
    let mut model = trainer.build(config, &Slot::default()).unwrap();
    model.restore(state).unwrap();
    let cancellation = Cancellation::new();
    let unit = Unit { trial: TrialId(0), epoch: 0, split: Split::Validation, partition: on.id() };
    model.predict(on, &Pass::new(unit, Seed(0), &cancellation, &|_| ())).unwrap()
}

#[test]
fn a_network_learns() {
    let trainer = trainer();
    let partitions = [blobs(0, 200), blobs(1, 201)];
    let held_out = blobs(2, 300);
    let state = train(&trainer, &config(0.05), Seed(1), &partitions, 4);
    let metrics = evaluate(&trainer, &config(0.05), &state, &held_out);
    assert!(metrics.value("accuracy").unwrap() > 0.95, "{metrics:?}");
    assert!(metrics.value("loss").unwrap() < 0.2, "{metrics:?}");
}

#[test]
fn weights_are_bit_identical_run_to_run_and_through_bytes() {
    let partitions = [blobs(0, 100), blobs(1, 90)];
    let first = train(&trainer(), &config(0.1), Seed(1), &partitions, 2).to_vec();
    assert_eq!(train(&trainer(), &config(0.1), Seed(1), &partitions, 2).to_vec(), first);
    assert_ne!(train(&trainer(), &config(0.1), Seed(2), &partitions, 2).to_vec(), first);

    let trainer = trainer();
    let mut bytes: Option<Vec<u8>> = None;
    for epoch in 0..2 {
        for partition in &partitions {
            let state = bytes.take().map(State::from);
            let unit = run(&trainer, &config(0.1), Seed(1), state.as_ref(), epoch, partition);
            bytes = Some(unit.unwrap().1.to_vec());
        }
    }
    assert_eq!(bytes.unwrap(), first);
}

#[test]
fn the_size_of_a_state_is_known_before_the_first_unit() {
    let trainer = trainer();
    for optimizer in ["sgd", "rmsprop"] {
        for width in [8, 64] {
            let config = config(0.01).with("optimizer", optimizer).with("hidden", [width]);
            let said = trainer.state_bytes(&config).unwrap();
            let state = train(&trainer, &config, Seed(1), &[blobs(0, 64)], 2);
            let written = state.to_vec().len() as u64;
            assert!((written..written + 640).contains(&said), "{said}, and it has {written} bytes");
        }
    }
    assert_eq!(trainer.state_bytes(&Config::new()), None, "a Config that the model refuses");
}

#[test]
fn trials_that_take_turns_in_a_slot_train_as_they_would_alone() {
    let partitions = [blobs(0, 100), blobs(1, 90)];
    let alone = |rate| train(&trainer(), &config(rate), Seed(1), &partitions, 2).to_vec();

    let trainer = trainer();
    let mut states: [Option<State>; 2] = [None, None];
    for epoch in 0..2 {
        for partition in &partitions {
            for (state, rate) in states.iter_mut().zip([0.1, 0.02]) {
                let unit = run(&trainer, &config(rate), Seed(1), state.as_ref(), epoch, partition);
                *state = Some(unit.unwrap().1);
            }
        }
    }
    let [first, second] = states.map(|state| state.unwrap().to_vec());
    assert_eq!(first, alone(0.1));
    assert_eq!(second, alone(0.02));
}

#[test]
fn the_state_that_a_unit_starts_from_stays_as_it_was() {
    let trainer = trainer();
    let partition = blobs(0, 100);
    let (_, before) = run(&trainer, &config(0.1), Seed(1), None, 0, &partition).unwrap();
    let bytes = before.to_vec();
    let (_, after) = run(&trainer, &config(0.1), Seed(1), Some(&before), 1, &partition).unwrap();
    assert_eq!(before.to_vec(), bytes);
    assert_ne!(after.to_vec(), bytes);
    let retried = run(&trainer, &config(0.1), Seed(1), Some(&before), 1, &partition).unwrap().1;
    assert_eq!(retried.to_vec(), after.to_vec());
}

#[test]
fn the_last_smaller_batch_is_trained_on() {
    let trainer = trainer();
    let steps = |rows| {
        let (metrics, state) =
            run(&trainer, &config(0.1), Seed(1), None, 0, &blobs(0, rows)).unwrap();
        let weight = metrics.iter().find(|(name, _)| *name == "loss").unwrap().1;
        assert!(format!("{weight:?}").contains(&format!("weight: {rows}.0")), "{weight:?}");
        state.downcast::<TrainingState>().unwrap().steps()
    };
    assert_eq!(steps(32), 2);
    assert_eq!(steps(33), 3);
    assert_eq!(steps(16), 1);
}

#[test]
fn evaluation_does_not_depend_on_how_rows_are_batched() {
    let trainer = trainer();
    let rows = blobs(0, 300);
    let state = train(&trainer, &config(0.1), Seed(1), &[blobs(1, 64)], 1);
    let by_256 = evaluate(&trainer, &config(0.1), &state, &rows).value("loss").unwrap();
    let all_at_once = config(0.1).with("batch_size", 300);
    let at_once = evaluate(&trainer, &all_at_once, &state, &rows).value("loss").unwrap();
    assert!((by_256 / at_once - 1.0).abs() < 1e-5, "{by_256} {at_once}");
}

#[test]
fn an_exported_model_gives_the_predictions_of_the_trial() {
    let trainer = trainer();
    let rows = blobs(0, 300);
    let state = train(&trainer, &config(0.1), Seed(1), &[blobs(1, 64)], 2);
    let expected = predict(&trainer, &config(0.1), &state, &rows);

    let folder = tempfile::tempdir().unwrap();
    let export = trainer.export(&config(0.1), &state).unwrap();
    let file = export.save(folder.path().join("results"), "best").unwrap();
    let found = Inference::from_file(&file).unwrap().predict(&rows, &[("input", "x")]).unwrap();
    assert_eq!(found.shape(), [300, CLASSES]);
    for (found, expected) in found.as_f32().unwrap().iter().zip(expected.as_f32().unwrap()) {
        assert!((found - expected).abs() <= 1e-5 * expected.abs().max(1.0), "{found} {expected}");
    }

    let weights = std::fs::read(file.with_extension("safetensors")).unwrap();
    let weights = safetensors::SafeTensors::deserialize(&weights).unwrap();
    let mut names = weights.names();
    names.sort_unstable();
    assert_eq!(names, ["hidden1.bias", "hidden1.weight", "last.bias", "last.weight"]);
}

#[test]
fn a_state_of_another_architecture_is_refused_by_name() {
    let trainer = trainer();
    let state = train(&trainer, &config(0.1), Seed(1), &[blobs(0, 32)], 1);
    let wider = config(0.1).with("hidden", [17]);
    let deeper = config(0.1).with("hidden", [16, 16]);
    for state in [state.clone(), State::from(state.to_vec())] {
        let refusal = |config: &Config| {
            let mut model = trainer.build(config, &Slot::default()).unwrap();
            model.restore(&state).unwrap_err().to_string()
        };
        let message = refusal(&wider);
        assert!(message.contains("`hidden1.weight`") && message.contains("[17, 6]"), "{message}");
        let message = refusal(&deeper);
        assert!(message.contains("hidden2") || message.contains("last.weight"), "{message}");
    }
    let cut = State::from(state.to_vec()[..100].to_vec());
    let mut model = trainer.build(&config(0.1), &Slot::default()).unwrap();
    let message = model.restore(&cut).unwrap_err().to_string();
    assert!(message.contains("100 bytes"), "{message}");
}

#[test]
fn frozen_weights_stay_and_groups_have_their_own_rates() {
    let still =
        ParameterGroup { pattern: "last.bias".to_owned(), learning_rate: 0.0, weight_decay: 1.0 };
    let trainer = trainer().freeze("hidden1.*").group(still);
    let mut model = trainer.build(&config(0.1), &Slot::default()).unwrap();
    model.initialize(Seed(1)).unwrap();
    let before = model.state().unwrap().downcast::<TrainingState>().unwrap();
    let (_, after) = run(&trainer, &config(0.1), Seed(1), None, 0, &blobs(0, 64)).unwrap();
    let (after, bytes) = (after.downcast::<TrainingState>().unwrap(), after.to_vec());
    for name in ["hidden1.weight", "hidden1.bias", "last.bias"] {
        assert_eq!(after.values(name), before.values(name), "{name}");
    }
    assert_ne!(after.values("last.weight"), before.values("last.weight"));
    // What is frozen is part of the State all the same.
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert!(tensors.tensor("hidden1.weight").is_ok());
}

#[test]
fn divergence_is_told_with_the_step() {
    let trainer = trainer();
    let error = run(&trainer, &config(1e30), Seed(1), None, 0, &blobs(0, 160)).unwrap_err();
    assert!(matches!(error, ModelError::Diverged { step, .. } if step > 0), "{error}");
}

#[test]
fn a_value_that_is_no_number_is_told_with_tensor_and_row() {
    let trainer = trainer();
    let mut x = Array2::zeros((40, FEATURES));
    x[[33, 2]] = f32::NAN;
    let rows = partition(0, x, Array1::zeros(40));
    let error = run(&trainer, &config(0.1), Seed(1), None, 0, &rows).unwrap_err().to_string();
    assert!(error.contains("row 33 of tensor `x` holds NaN"), "{error}");
}

#[test]
fn a_label_that_is_no_class_is_told_with_row_and_classes() {
    let trainer = trainer();
    let mut y = Array1::zeros(40);
    for wrong in [3, -1] {
        y[7] = wrong;
        let rows = partition(0, Array2::zeros((40, FEATURES)), y.clone());
        let error = run(&trainer, &config(0.1), Seed(1), None, 0, &rows).unwrap_err().to_string();
        let expected = format!("row 7 of tensor `y` is {wrong}, but the model has 3 classes");
        assert!(error.contains(&expected), "{error}");
    }
}

#[test]
fn data_that_do_not_fit_the_network_are_told_with_shapes_and_names() {
    let trainer = trainer();
    let narrow = partition(0, Array2::zeros((40, 5)), Array1::zeros(40));
    let error = run(&trainer, &config(0.1), Seed(1), None, 0, &narrow).unwrap_err().to_string();
    assert!(error.contains("shape [6]") && error.contains("shape [5]"), "{error}");

    let unnamed = [("features", Tensor::from(Array2::<f32>::zeros((40, 6)).into_dyn()))];
    let unnamed = MemoryPartition::new(PartitionId(0), unnamed).unwrap();
    let error = run(&trainer, &config(0.1), Seed(1), None, 0, &unnamed).unwrap_err().to_string();
    assert!(error.contains("no tensor `x`") && error.contains("features"), "{error}");
}

#[test]
fn a_cancelled_unit_stops_at_the_next_batch_and_leaves_the_state() {
    let trainer = trainer();
    let rows = blobs(0, 160);
    let mut model = trainer.build(&config(0.1), &Slot::default()).unwrap();
    model.initialize(Seed(1)).unwrap();
    let before = model.state().unwrap().to_vec();
    let cancellation = Cancellation::new();
    let done = std::cell::Cell::new(0);
    let progress = |rows| {
        done.set(done.get() + rows);
        cancellation.cancel();
    };
    let unit = Unit { trial: TrialId(0), epoch: 0, split: Split::Train, partition: rows.id() };
    let pass = Pass::new(unit, Seed(1), &cancellation, &progress);
    let error = model.train(&rows, &pass).unwrap_err();
    assert!(matches!(error, ModelError::Cancelled));
    assert_eq!(done.get(), 16);
    assert_eq!(model.state().unwrap().to_vec(), before);
}

#[test]
fn slots_that_start_at_once_all_train() {
    let trainer = trainer();
    let partition = blobs(0, 64);
    let start = std::sync::Barrier::new(4);
    std::thread::scope(|scope| {
        let train = |number: u32| {
            let (trainer, partition, start) = (&trainer, &partition, &start);
            move || {
                let mut model = trainer.build(&config(0.1), &Slot { number, ..Slot::default() })?;
                model.initialize(Seed(1))?;
                let cancellation = Cancellation::new();
                let unit = Unit {
                    trial: TrialId(0),
                    epoch: 0,
                    split: Split::Train,
                    partition: partition.id(),
                };
                start.wait();
                model.train(partition, &Pass::new(unit, Seed(1), &cancellation, &|_| ()))
            }
        };
        let threads: Vec<_> = (0..4).map(|number| scope.spawn(train(number))).collect();
        for thread in threads {
            thread.join().unwrap().unwrap();
        }
    });
}

#[test]
fn a_batch_larger_than_a_partition_is_told_with_both_sizes() {
    let trainer = trainer();
    let refused = run(&trainer, &config(0.1), Seed(1), None, 0, &blobs(3, 10)).unwrap_err();
    let text = refused.to_string();
    assert!(matches!(refused, ModelError::Config(_)), "no other attempt would go better");
    for part in ["`batch_size` = 16", "at most 10", "partition-3"] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn a_schedule_goes_on_through_the_state_and_reports_its_rate() {
    let partitions = [blobs(0, 64), blobs(1, 40)];
    let cosine = config(0.1)
        .with("schedule", "cosine")
        .with("schedule_epochs", 2)
        .with("warmup_epochs", 0.25)
        .with("epoch_rows", 104);
    let trainer = trainer();
    let mut state: Option<State> = None;
    let mut rates = Vec::new();
    for epoch in 0..2 {
        for partition in &partitions {
            // Each unit starts from bytes, as on another worker.
            let from = state.take().map(|state| State::from(state.to_vec()));
            let done = run(&trainer, &cosine, Seed(1), from.as_ref(), epoch, partition);
            let (metrics, after) = done.unwrap();
            rates.push(metrics.value("learning_rate").unwrap());
            state = Some(after);
        }
    }
    let shared = train(&trainer, &cosine, Seed(1), &partitions, 2);
    assert_eq!(state.unwrap().to_vec(), shared.to_vec());

    // The mean of the formula over the steps of each unit.
    let rate = |rows: f64| {
        let (warmup, length) = (26.0, 208.0);
        if rows < warmup {
            return 0.1 * (1.0 / 3.0 + 2.0 / 3.0 * rows / warmup);
        }
        0.05 * (1.0 + (std::f64::consts::PI * (rows - warmup) / (length - warmup)).cos())
    };
    let mut begin = 0.0;
    for (found, rows) in rates.iter().zip([64.0, 40.0, 64.0, 40.0]) {
        let steps = (0..).map(|step| 16.0 * f64::from(step)).take_while(|&at| at < rows);
        let steps: Vec<f64> = steps.map(|at| rate(begin + at)).collect();
        let expected = steps.iter().sum::<f64>() / steps.len() as f64;
        assert!((found - expected).abs() < 1e-12, "{found} {expected}");
        begin += rows;
    }
}

#[test]
fn a_plateau_lowers_the_rate_of_a_trial_that_does_not_learn() {
    let trainer = trainer();
    // Too small a rate to change the loss by the threshold, from the first epoch on.
    let stuck = config(1e-12)
        .with("schedule", "plateau")
        .with("schedule_patience", 1)
        .with("schedule_factor", 0.5);
    let partition = blobs(0, 48);
    let mut state: Option<State> = None;
    let mut rates = Vec::new();
    for epoch in 0..6 {
        let from = state.take().map(|state| State::from(state.to_vec()));
        let done = run(&trainer, &stuck, Seed(1), from.as_ref(), epoch, &partition).unwrap();
        rates.push(done.0.value("learning_rate").unwrap() / 1e-12);
        state = Some(done.1);
    }
    let expected = [1.0, 1.0, 1.0, 0.5, 0.5, 0.25];
    for (found, expected) in rates.iter().zip(expected) {
        assert!((found - expected).abs() < 1e-9, "{rates:?}");
    }
}
