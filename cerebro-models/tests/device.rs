//! Training on a GPU: what is said where there is none, and the same training where there is one.

#[cfg(feature = "cuda")]
use std::sync::Arc;

use cerebro_core::data::{MemoryPartition, Tensor};
use cerebro_core::{
    Cancellation, Config, Device, ModelBuilder, ModelError, PartitionId, Pass, Seed, Slot, Split,
    State, TrialId, Unit,
};
#[cfg(feature = "cuda")]
use cerebro_models::TrainingState;
use cerebro_models::loss::Loss;
use cerebro_models::{Trainer, nn, runtime};
use ndarray::{Array1, Array2};

fn rows() -> MemoryPartition {
    let mut rng = Seed(3).rng();
    let x = Array2::from_shape_fn((96, 8), |_| rng.normal() as f32);
    let y = Array1::from_shape_fn(96, |row| i64::from(x[[row, 0]] > x[[row, 1]]));
    let tensors = [("x", Tensor::from(x.into_dyn())), ("y", Tensor::from(y.into_dyn()))];
    MemoryPartition::new(PartitionId(0), tensors).unwrap()
}

fn trainer() -> Trainer {
    Trainer::new(nn::mlp(8, &[16], 2), Loss::cross_entropy()).input("x").target("y")
}

/// One unit, with gradients accumulated over `accumulate` batches: the loss and the State after.
fn unit(
    trainer: &Trainer,
    device: Device,
    accumulate: i64,
    start: Option<&State>,
) -> Result<(f64, State), ModelError> {
    let config = Config::new()
        .with("optimizer", "adam")
        .with("learning_rate", 0.01)
        .with("batch_size", 16)
        .with("accumulate", accumulate);
    let mut model = trainer.build(&config, &Slot { device, ..Slot::default() })?;
    match start {
        Some(state) => model.restore(state)?,
        None => model.initialize(Seed(1))?,
    }
    let cancellation = Cancellation::new();
    let unit = Unit { trial: TrialId(0), epoch: 0, split: Split::Train, partition: PartitionId(0) };
    let pass = Pass::new(unit, Seed(1), &cancellation, &|_| ());
    let metrics = model.train(&rows(), &pass)?;
    Ok((metrics.value("loss").expect("every trial has a loss"), model.state()?))
}

#[test]
#[cfg(not(feature = "cuda"))]
fn a_build_without_gpus_says_how_to_get_one_with_them() {
    runtime::install().unwrap();
    let error = unit(&trainer(), Device::Cuda(0), 1, None).unwrap_err();
    let message = error.to_string();
    for part in ["cuda:0", "feature `cuda` of cerebro-models"] {
        assert!(message.contains(part), "`{part}` is not in\n{message}");
    }
}

/// Whether this machine trains on `cuda:0`; if not, the error must say what is missing, and that a
/// CPU is to be asked for by name.
#[cfg(feature = "cuda")]
fn has_gpu() -> bool {
    runtime::install().unwrap();
    let Err(error) = unit(&trainer(), Device::Cuda(0), 1, None) else { return true };
    let message = error.to_string();
    let library = runtime::load().unwrap().library().display().to_string();
    for part in ["cuda:0", "install_cuda()", "CUDA 13", "the device `cpu`", &library] {
        assert!(message.contains(part), "`{part}` is not in\n{message}");
    }
    println!("skipped: there is no GPU here:\n{message}");
    false
}

#[test]
#[cfg(feature = "cuda")]
fn a_trial_trains_on_a_gpu_as_on_a_cpu_or_says_why_not() {
    if !has_gpu() {
        return;
    }
    let trainer = trainer();
    for accumulate in [1, 3] {
        let on = |device, start: Option<&State>| unit(&trainer, device, accumulate, start).unwrap();
        let (loss, expected) = on(Device::Cpu, None);
        let (gpu_loss, state) = on(Device::Cuda(0), None);
        assert!((loss - gpu_loss).abs() < 1e-4 * loss, "{gpu_loss} for {loss}");
        let kept: Arc<TrainingState> = state.downcast().unwrap();
        assert_eq!(kept.device(), Device::Cuda(0));
        assert_eq!(kept.names().find_map(|name| kept.values(name)), None);
        assert_eq!(state.bytes(), expected.bytes());

        // The State goes on where it is, on another device, and from its portable form.
        let (there, _) = on(Device::Cuda(0), Some(&state));
        let (here, moved) = on(Device::Cpu, Some(&state));
        let (again, _) = on(Device::Cuda(0), Some(&State::from(state.to_vec())));
        assert!((there - here).abs() < 1e-4 * here, "{there} for {here}");
        assert_eq!(there, again);
        assert_eq!(moved.downcast::<TrainingState>().unwrap().device(), Device::Cpu);
    }
}
