//! Networks that draw random numbers: a variational autoencoder that computes its own loss.

use std::sync::Arc;

use cerebro_core::data::{MemoryPartition, Partition, Tensor};
use cerebro_core::{
    Cancellation, Config, Metrics, ModelBuilder, PartitionId, Pass, Seed, Slot, Split, TrialId,
    Unit,
};
use cerebro_models::loss::Loss;
use cerebro_models::onnx::{
    Attribute, DataType, Dimension, Graph, Model, Node, TensorData, ValueInfo,
};
use cerebro_models::{Trainer, TrainingState, runtime};
use ndarray::Array2;

const FEATURES: usize = 6;
const LATENT: usize = 2;

fn constant(name: &str, value: f32) -> Node {
    let value = TensorData::from_f32(&[], &[value]);
    Node::new("Constant", [], [name]).with("value", Attribute::Tensor(value))
}

/// `x -> mean, log variance -> mean + noise exp(log variance / 2) -> reconstruction`, and the squared
/// error with the divergence of the latent numbers from the normal distribution (Kingma and Welling
/// 2013, "Auto-encoding variational Bayes", appendix B).
fn autoencoder() -> Model {
    let nodes = vec![
        constant("half", 0.5),
        constant("minus_one", -1.0),
        Node::new("MatMul", ["x", "encoder"], ["code"]),
        Node::new("Split", ["code", "sizes"], ["mean", "variance"]).with("axis", 1),
        Node::new("RandomNormalLike", ["mean"], ["noise"]),
        Node::new("Mul", ["variance", "half"], ["halved"]),
        Node::new("Exp", ["halved"], ["deviation"]),
        Node::new("Mul", ["noise", "deviation"], ["moved"]),
        Node::new("Add", ["mean", "moved"], ["latent"]),
        Node::new("MatMul", ["latent", "decoder"], ["reconstruction"]),
        Node::new("Sub", ["reconstruction", "x"], ["error"]),
        Node::new("ReduceSumSquare", ["error", "columns"], ["squared"]),
        Node::new("Exp", ["variance"], ["exponential"]),
        Node::new("Mul", ["mean", "mean"], ["square"]),
        Node::new("Sum", ["square", "exponential", "minus_one"], ["sum"]),
        Node::new("Sub", ["sum", "variance"], ["parts"]),
        Node::new("ReduceSum", ["parts", "columns"], ["doubled"]),
        Node::new("Mul", ["doubled", "half"], ["divergence"]),
        Node::new("Add", ["squared", "divergence"], ["rows"]),
        Node::new("ReduceMean", ["rows"], ["loss"]).with("keepdims", 0),
    ];
    let mut rng = Seed(3).rng();
    let mut weight = |dims: &[usize]| {
        let values: Vec<f32> =
            (0..dims.iter().product()).map(|_| 0.5 * rng.normal() as f32).collect();
        TensorData::from_f32(dims, &values)
    };
    let rows = Dimension::Symbol("batch".to_owned());
    let dims = vec![rows, Dimension::Size(FEATURES)];
    let graph = Graph {
        nodes,
        inputs: vec![ValueInfo::tensor("x", DataType::Float32, dims)],
        outputs: vec![ValueInfo::tensor("loss", DataType::Float32, vec![])],
        initializers: [
            ("encoder".to_owned(), weight(&[FEATURES, 2 * LATENT])),
            ("decoder".to_owned(), weight(&[LATENT, FEATURES])),
            ("columns".to_owned(), TensorData::from_i64(&[1], &[1])),
            ("sizes".to_owned(), TensorData::from_i64(&[2], &[LATENT as i64; 2])),
        ]
        .into(),
        ..Graph::default()
    };
    Model::new(graph, 18)
}

fn rows() -> MemoryPartition {
    let mut rng = Seed(7).rng();
    // Two numbers make each row.
    let factors = Array2::from_shape_fn((100, LATENT), |_| rng.normal() as f32);
    let weights = Array2::from_shape_fn((LATENT, FEATURES), |_| rng.normal() as f32);
    let x = Tensor::from(factors.dot(&weights).into_dyn());
    MemoryPartition::new(PartitionId(0), [("x", x)]).unwrap()
}

/// The losses of 30 epochs of training, the State after them, and the loss when it is evaluated
/// twice.
fn train(seed: u64) -> (Vec<f64>, Arc<TrainingState>, [f64; 2]) {
    runtime::install().unwrap();
    let trainer = Trainer::new(autoencoder(), Loss::Output).input("x");
    let config =
        Config::new().with("optimizer", "adam").with("learning_rate", 0.02).with("batch_size", 16);
    let rows = rows();
    let mut model = trainer.build(&config, &Slot::default()).unwrap();
    model.initialize(Seed(1)).unwrap();
    let cancellation = Cancellation::new();
    let unit = |epoch, split| Unit { trial: TrialId(0), epoch, split, partition: rows.id() };
    let loss = |metrics: Metrics| metrics.value("loss").unwrap();
    let losses = (0..30).map(|epoch| {
        let unit = unit(epoch, Split::Train);
        let pass = Pass::new(unit, Seed(seed), &cancellation, &|_| ());
        loss(model.train(&rows, &pass).unwrap())
    });
    let losses = losses.collect();
    let evaluated = [30, 31].map(|epoch| {
        let unit = unit(epoch, Split::Validation);
        let pass = Pass::new(unit, Seed(seed), &cancellation, &|_| ());
        loss(model.evaluate(&rows, &pass).unwrap())
    });
    (losses, model.state().unwrap().downcast().unwrap(), evaluated)
}

#[test]
fn noise_in_a_network_follows_from_the_seed_and_trains() {
    let (losses, state, evaluated) = train(1);
    assert!(losses[29] < 0.7 * losses[0], "{losses:?}");
    assert!((evaluated[0] - losses[29]).abs() < 0.2 * losses[29], "{evaluated:?} {losses:?}");
    assert_eq!(evaluated[0], evaluated[1]);
    let (again, same, _) = train(1);
    assert_eq!(losses, again);
    for name in state.names() {
        assert_eq!(state.values(name), same.values(name));
    }
    let (others, ..) = train(2);
    assert_ne!(losses, others);
}
