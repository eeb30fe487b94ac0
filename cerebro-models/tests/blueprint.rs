//! A trainer that was made from a blueprint, as a worker in another process makes it.

use cerebro_core::data::{MemoryPartition, Tensor};
use cerebro_core::{
    Cancellation, Config, ModelBuilder, PartitionId, Pass, Seed, Slot, Split, TrialId, Unit,
};
use cerebro_models::loss::Loss;
use cerebro_models::metric::Metric;
use cerebro_models::nn::{self, NetworkSpec};
use cerebro_models::onnx::TensorData;
use cerebro_models::training::ParameterGroup;
use cerebro_models::{Architecture, Trainer, runtime};
use ndarray::{Array1, Array2};

const FEATURES: usize = 20;

fn trainer(architecture: impl Into<Architecture>) -> Trainer {
    runtime::install().unwrap();
    Trainer::new(architecture, Loss::cross_entropy())
        .metric(Metric::Accuracy)
        .input("x")
        .target("y")
        .freeze("last.bias")
        .group(ParameterGroup {
            pattern: "*.bias".to_owned(),
            learning_rate: 0.5,
            weight_decay: 0.0,
        })
        .default("optimizer", "adamw")
        .default("weight_decay", 0.01)
}

fn rows() -> MemoryPartition {
    let x = Array2::from_shape_fn((100, FEATURES), |(row, column)| {
        ((row * (column + 3)) % 17) as f32 / 8.0 - 1.0
    });
    let y = Array1::from_shape_fn(100, |row| (row % 3) as i64);
    let tensors = [("x", Tensor::from(x.into_dyn())), ("y", Tensor::from(y.into_dyn()))];
    MemoryPartition::new(PartitionId(0), tensors).unwrap()
}

/// The State after two epochs, written.
fn train(trainer: &Trainer, config: &Config) -> Vec<u8> {
    let mut model = trainer.build(config, &Slot::default()).unwrap();
    model.initialize(Seed(3)).unwrap();
    let cancellation = Cancellation::new();
    for epoch in 0..2 {
        let unit =
            Unit { trial: TrialId(0), epoch, split: Split::Train, partition: PartitionId(0) };
        let metrics = model.train(&rows(), &Pass::new(unit, Seed(3), &cancellation, &|_| ()));
        assert!(metrics.unwrap().value("accuracy").is_some());
    }
    model.state().unwrap().to_vec()
}

fn trains_to_the_same_bits(original: &Trainer, config: &Config) {
    let blueprint = original.blueprint().unwrap();
    assert_eq!(blueprint.name, Trainer::BLUEPRINT);
    let equal = Trainer::from_blueprint(&blueprint.bytes).unwrap();
    assert_eq!(train(&equal, config), train(original, config));
}

#[test]
fn a_trainer_of_a_named_builder_trains_to_the_same_bits() {
    let spec =
        NetworkSpec::Mlp { inputs: FEATURES.into(), hidden: "hidden".into(), outputs: 3.into() };
    let config = Config::new().with("learning_rate", 0.01).with("batch_size", 16);
    trains_to_the_same_bits(&trainer(spec), &config.with("hidden", [24, 8]));
}

#[test]
fn a_trainer_of_a_graph_trains_to_the_same_bits_from_drawn_and_from_given_weights() {
    let mut network = nn::mlp(FEATURES, &[30, 40], 3);
    let given: Vec<f32> = (0..40 * 30).map(|index| (index % 7) as f32 * 0.01).collect();
    network.model.graph.initializers["hidden2.weight"] = TensorData::from_f32(&[40, 30], &given);
    network.initializers.remove("hidden2.weight");
    let config = Config::new().with("learning_rate", 0.01).with("batch_size", 16);
    trains_to_the_same_bits(&trainer(network), &config);
}

#[test]
fn a_trainer_of_a_blueprint_refuses_the_same_configs() {
    let spec =
        NetworkSpec::Mlp { inputs: FEATURES.into(), hidden: "hidden".into(), outputs: 3.into() };
    let original = trainer(spec);
    let equal = Trainer::from_blueprint(&original.blueprint().unwrap().bytes).unwrap();
    let config = Config::new().with("learning_rate", 0.01).with("batch_size", 16);
    for config in [config.clone().with("hiden", [4]), config] {
        let refusal = |trainer: &Trainer| trainer.check(&config).unwrap_err().to_string();
        assert_eq!(refusal(&equal), refusal(&original));
        assert!(refusal(&equal).contains("hid"), "{}", refusal(&equal));
    }
}

#[test]
fn bytes_that_are_no_blueprint_are_refused() {
    let text = Trainer::from_blueprint(b"a forest").unwrap_err().to_string();
    assert!(text.contains("blueprint") && text.contains("8 bytes"), "{text}");
}
