//! Each network of `nn` trains, and its exported model computes what the trial computes.

use cerebro_core::data::{MemoryPartition, Partition, Tensor};
use cerebro_core::{
    Cancellation, Config, ModelBuilder, PartitionId, Pass, Seed, Slot, Split, TrialId, Unit,
};
use cerebro_models::loss::Loss;
use cerebro_models::nn::{self, Depth, Encoder, Network};
use cerebro_models::{Inference, Trainer, runtime};
use ndarray::{Array1, ArrayD};

const ROWS: usize = 48;

/// Floats that are larger in rows of class 1.
fn floats(row: &[usize], classes: &Array1<i64>) -> Tensor {
    let mut rng = Seed(1).rng();
    let shape: Vec<usize> = [ROWS].iter().chain(row).copied().collect();
    let values = ArrayD::from_shape_fn(shape, |index| {
        (classes[index[0]] as f64 - 0.5 + 0.5 * rng.normal()) as f32
    });
    Tensor::from(values)
}

/// Whole numbers below 8, even ones in rows of class 0.
fn indices(columns: usize, classes: &Array1<i64>) -> Tensor {
    let mut rng = Seed(2).rng();
    let values = ArrayD::from_shape_fn(vec![ROWS, columns], |index| {
        2 * rng.below(4) as i64 + classes[index[0]]
    });
    Tensor::from(values)
}

fn classes() -> Array1<i64> {
    let mut rng = Seed(3).rng();
    Array1::from_shape_fn(ROWS, |_| rng.below(2) as i64)
}

/// Trains `network` on `inputs`, of two classes, and checks what comes of it.
fn learns(network: Network, inputs: Vec<(&str, Tensor)>) {
    runtime::install().unwrap();
    let names: Vec<&str> = inputs.iter().map(|(name, _)| *name).collect();
    let labels = ("class", Tensor::from(classes().into_dyn()));
    let rows = inputs.into_iter().chain([labels]);
    let rows = MemoryPartition::new(PartitionId(0), rows).unwrap();
    let trainer = Trainer::new(network, Loss::cross_entropy()).target("class");
    let config =
        Config::new().with("optimizer", "adam").with("learning_rate", 0.003).with("batch_size", 10);
    let mut model = trainer.build(&config, &Slot::default()).unwrap();
    model.initialize(Seed(4)).unwrap();
    let cancellation = Cancellation::new();
    let pass = |epoch| {
        let (trial, split, partition) = (TrialId(0), Split::Train, rows.id());
        Pass::new(Unit { trial, epoch, split, partition }, Seed(4), &cancellation, &|_| ())
    };
    let losses: Vec<f64> = (0..12)
        .map(|epoch| model.train(&rows, &pass(epoch)).unwrap().value("loss").unwrap())
        .collect();
    assert!(losses[11] < 0.5 * losses[0], "{losses:?}");

    let expected = model.predict(&rows, &pass(0)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let export = trainer.export(&config, &model.state().unwrap()).unwrap();
    let file = export.save(folder.path(), "best").unwrap();
    let pairs: Vec<(&str, &str)> = names.iter().map(|name| (*name, *name)).collect();
    let found = Inference::from_file(file).unwrap().predict(&rows, &pairs).unwrap();
    for (found, expected) in found.as_f32().unwrap().iter().zip(expected.as_f32().unwrap()) {
        assert!((found - expected).abs() <= 1e-4 * expected.abs().max(1.0), "{found} {expected}");
    }
}

#[test]
fn a_multilayer_perceptron_learns() {
    learns(nn::mlp(6, &[16, 8], 2), vec![("input", floats(&[6], &classes()))]);
}

#[test]
fn a_tabular_network_learns() {
    let inputs =
        vec![("categories", indices(3, &classes())), ("continuous", floats(&[2], &classes()))];
    learns(nn::tabular(&[(8, 3), (8, 2), (8, 4)], 2, &[16, 8], 2), inputs);
}

#[test]
fn lenet_learns() {
    learns(nn::lenet([1, 16, 14], 2), vec![("input", floats(&[1, 16, 14], &classes()))]);
}

#[test]
fn a_convolution_over_series_learns() {
    learns(nn::conv1d([3, 20], &[8, 8], 2), vec![("input", floats(&[3, 20], &classes()))]);
}

#[test]
fn a_residual_network_learns() {
    let network = nn::resnet(Depth::Eighteen, 4, [3, 16, 16], 2);
    learns(network, vec![("input", floats(&[3, 16, 16], &classes()))]);
}

#[test]
fn a_transformer_learns() {
    let size = Encoder { width: 16, heads: 4, layers: 2, feed_forward: 32 };
    learns(nn::transformer_encoder(8, 6, size, 2), vec![("tokens", indices(6, &classes()))]);
}

#[test]
fn a_vision_transformer_learns() {
    let size = Encoder { width: 16, heads: 2, layers: 2, feed_forward: 32 };
    let network = nn::vit([3, 8, 12], 4, size, 2);
    learns(network, vec![("input", floats(&[3, 8, 12], &classes()))]);
}

#[test]
fn recurrent_layers_learn() {
    learns(nn::lstm([7, 3], 8, 2, 2), vec![("input", floats(&[7, 3], &classes()))]);
}
