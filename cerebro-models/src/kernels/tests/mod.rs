//! Fused graphs compute what standard graphs compute.

mod networks;
mod products;

use std::ops::RangeInclusive;

use cerebro_core::data::{MemoryPartition, Partition, Tensor};
use cerebro_core::{PartitionId, Seed, Slot};
use ndarray::{Array1, Array2};

use super::DOMAIN;
use crate::graph::{Dialect, write_in_place};
use crate::loss::Loss;
use crate::nn;
use crate::optim::{Clipping, Decay, Optimizer, Update};
use crate::program::Program;
use crate::runtime;
use crate::schedule::Progress;
use crate::state::TrainingState;
use crate::step::{Feed, Scalars, SlotCache, Stepper, Task};
use crate::training::{InputShapes, ParameterGroup, Threads, TrainingSpec};

/// Odd sizes, so that vector code has remainders.
const ROWS: usize = 7;
const FEATURES: usize = 13;
const CLASSES: usize = 3;

fn program(optimizer: &Optimizer, loss: Loss) -> Program {
    let mut spec = TrainingSpec::new(loss, optimizer.kind());
    let pattern = "*.bias".to_owned();
    spec.groups = vec![ParameterGroup { pattern, learning_rate: 0.3, weight_decay: 0.0 }];
    let length = optimizer.hyperparameters(1, optimizer.learning_rate).len();
    Program::new(nn::mlp(FEATURES, &[19], CLASSES), spec, None, length).unwrap()
}

/// All variables after some steps of the multilayer perceptron in `dialect`.
fn train(optimizer: &Optimizer, loss: Loss, dialect: Dialect) -> Vec<f32> {
    runtime::install().unwrap();
    let mut rng = Seed(2).rng();
    let x = Array2::from_shape_fn((ROWS, FEATURES), |_| rng.normal() as f32);
    let y = Array1::from_shape_fn(ROWS, |_| rng.below(CLASSES as u64) as i64);
    let tensors = [("x", Tensor::from(x.into_dyn())), ("y", Tensor::from(y.into_dyn()))];
    let partition = MemoryPartition::new(PartitionId(0), tensors).unwrap();
    train_on(&program(optimizer, loss), optimizer, &partition, &Slot::default(), dialect, 3)
}

/// All variables of `program` after `count` steps on the whole of `partition`, whose tensor `y` is
/// the target and whose first other tensor is the input: the same bits whether steps write them
/// where they read them or elsewhere.
fn train_on(
    program: &Program,
    optimizer: &Optimizer,
    partition: &MemoryPartition,
    slot: &Slot,
    dialect: Dialect,
    count: u64,
) -> Vec<f32> {
    let runtime = runtime::install().unwrap();
    let state = || {
        let state = TrainingState::initial(program.variables(), |variable, buffer| {
            let initializer = program.initializers().get(&variable.name);
            let fill = |initializer: &crate::init::Initializer| {
                let seed = Seed(1).derive(&variable.name, &[]);
                initializer.fill(seed, &variable.dims, buffer.slice_mut());
            };
            initializer.map(fill).is_some()
        });
        state.unwrap()
    };
    let shapes = InputShapes::rows(partition.rows());
    let mut stepper = Stepper::new(runtime, slot, program, Task::Step, dialect, &shapes).unwrap();
    let interface = stepper.interface();
    let columns =
        [(&interface.inputs[0], "x", None), (interface.target.as_ref().unwrap(), "y", None)];
    let mut feed = Feed::new(partition, &columns).unwrap();
    let rows: Vec<u32> = (0..partition.rows() as u32).collect();
    let mut cache = SlotCache::new(*slot);
    let mut steps = |state: TrainingState, steps: RangeInclusive<u64>| {
        let mut renewal = cache.take_renewal(program, &state).unwrap();
        for step in steps {
            let hyperparameters = optimizer.hyperparameters(step, optimizer.learning_rate);
            let scalars = Scalars { hyperparameters: &hyperparameters, seed: 0 };
            stepper.step(&mut feed, &rows, &scalars, &mut renewal).unwrap();
        }
        let live = cache.keep_renewal(program, renewal);
        state.after(Progress::default(), live)
    };
    let values = |state: &TrainingState| -> Vec<f32> {
        state.entries().flat_map(|(_, buffer)| buffer.slice()).copied().collect()
    };
    let in_place = values(&steps(state(), 1..=count));
    let apart = values(&(1..=count).fold(state(), |state, step| steps(state, step..=step)));
    let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&in_place), bits(&apart), "where the steps write changes what they compute");
    in_place
}

/// Those that update each element by itself.
fn rules() -> [Optimizer; 11] {
    let momentum = Optimizer::sgd(0.1).momentum(0.9);
    let [centered, centered_momentum] = [0.0, 0.9].map(|momentum| {
        let mut optimizer = Optimizer::rmsprop(0.001);
        optimizer.update = Update::RmsProp { alpha: 0.9, epsilon: 1e-6, momentum, centered: true };
        optimizer
    });
    [
        Optimizer::sgd(0.1),
        momentum.clone(),
        momentum.nesterov(),
        Optimizer::adam(0.01),
        Optimizer::adamw(0.01),
        Optimizer::rmsprop(0.01),
        Optimizer::rmsprop(0.01).momentum(0.9),
        centered,
        centered_momentum,
        Optimizer::adagrad(0.01),
        Optimizer::lion(0.001),
    ]
}

#[test]
fn an_update_in_one_node_gives_the_bits_of_the_standard_update() {
    // A loss of standard operators in both dialects, so that gradients are the same.
    let loss = || Loss::CrossEntropy {
        class_axis: 1,
        label_smoothing: 0.0,
        ignore_index: Some(-1),
        class_weights: None,
    };
    for optimizer in rules() {
        let standard = train(&optimizer, loss(), Dialect::Standard);
        assert_eq!(train(&optimizer, loss(), Dialect::Fused), standard, "{optimizer:?}");
    }
}

/// Both dialects give nearly the same variables.
fn close(optimizer: &Optimizer) {
    let loss = Loss::cross_entropy;
    let standard = train(optimizer, loss(), Dialect::Standard);
    let fused = train(optimizer, loss(), Dialect::Fused);
    for (fused, standard) in fused.iter().zip(standard) {
        let close = (fused - standard).abs() <= 1e-6 + 1e-5 * standard.abs();
        assert!(close, "{optimizer:?}: {fused} {standard}");
    }
}

/// Not to the bit: ONNX Runtime makes the sum of gradient and pull a part of the matrix product.
#[test]
fn an_update_in_one_node_pulls_and_clips_as_the_standard_update_does() {
    for rule in rules() {
        let decayed = rule.weight_decay(0.1);
        close(&decayed);
        close(&decayed.clipping(Clipping::Norm(0.1)));
    }
}

/// Not to the bit: squares are summed in another order.
#[test]
fn lamb_in_one_node_follows_the_standard_update() {
    let plain = Optimizer::lamb(0.01);
    let decoupled = plain.clone().weight_decay(0.1);
    let coupled = Optimizer { decay: Decay::Coupled, ..decoupled.clone() };
    let clipped = decoupled.clone().clipping(Clipping::Norm(0.1));
    [plain, decoupled, coupled, clipped].iter().for_each(close);
}

#[test]
fn only_fused_graphs_have_operators_of_the_domain() {
    let program = program(&Optimizer::adam(0.01), Loss::cross_entropy());
    let own_nodes = |dialect| {
        let model =
            program.draw(Task::Step, dialect, Threads::One, &InputShapes::rows(ROWS)).unwrap();
        model.graph.nodes.iter().filter(|node| node.domain == DOMAIN).count()
    };
    assert_eq!(own_nodes(Dialect::Standard), 0);
    // The loss, the gradient of one rectifier, an update of weights and one of biases, whose learning
    // rate is another one.
    assert_eq!(own_nodes(Dialect::Fused), 4);
    // Two linear layers, two gradients by weights and biases, one by the hidden layer through its
    // rectifier, the loss and the updates.
    assert_eq!(own_nodes(Dialect::FusedProducts), 8);
}

#[test]
fn fused_updates_write_every_weight_and_slot_in_place() {
    for optimizer in rules().into_iter().chain([Optimizer::lamb(0.01)]) {
        let program = program(&optimizer, Loss::cross_entropy());
        let in_place = |dialect| {
            let shapes = InputShapes::rows(ROWS);
            let mut model = program.draw(Task::Step, dialect, Threads::One, &shapes).unwrap();
            let variables = program.variables().iter();
            let variables: Vec<_> =
                variables.map(|v| (v.input.as_str(), v.output.as_deref().unwrap())).collect();
            write_in_place(&mut model.graph, &variables)
        };
        for dialect in [Dialect::Fused, Dialect::FusedProducts] {
            assert!(in_place(dialect).iter().all(|&is_in_place| is_in_place), "{optimizer:?}");
        }
        assert!(!in_place(Dialect::Standard).contains(&true));
    }
}
