//! Linear layers within small networks: the same weights after some steps with Cerebro's own
//! products of matrices, and the same bits with any number of threads.

use cerebro_core::Slot;
use cerebro_core::data::{MemoryPartition, Tensor};
use cerebro_core::{PartitionId, Seed};
use ndarray::{Array1, Array2};

use super::networks::{Small, agree_in, operators};
use super::{rules, train_on};
use crate::graph::Dialect;
use crate::kernels::{
    ADAM, GELU, LINEAR, LINEAR_INPUT_GRADIENT, LINEAR_WEIGHT_GRADIENT, PRODUCT, RELU_GRADIENT, SGD,
    in_domain, of_product,
};
use crate::loss::Loss;
use crate::nn;
use crate::onnx::Attribute;
use crate::optim::{Clipping, Optimizer};
use crate::program::Program;
use crate::step::Task;
use crate::training::{InputShapes, Threads, TrainingSpec};

/// How a linear layer is written.
#[derive(Clone, Copy, Debug)]
enum Form {
    /// `Gemm` with weights by output, as PyTorch exports them.
    Turned,
    /// `Gemm` with weights by input.
    Plain,
    /// `MatMul` and `Add`, for inputs of any rank.
    Apart,
}

impl Small {
    fn linear(mut self, columns: usize, form: Form) -> Self {
        let inner = *self.shape.last().unwrap();
        let dims = if matches!(form, Form::Turned) { [columns, inner] } else { [inner, columns] };
        let weight = self.weight(&dims, 0.0);
        let bias = self.weight(&[columns], 0.0);
        let mut shape = self.shape.clone();
        *shape.last_mut().unwrap() = columns;
        if matches!(form, Form::Apart) {
            return self.node("MatMul", &[weight], &[], &shape).node("Add", &[bias], &[], &shape);
        }
        let turned = i64::from(matches!(form, Form::Turned));
        self.node("Gemm", &[weight, bias], &[("transB", Attribute::Int(turned))], &shape)
    }
}

fn agree(what: &str, expected: &[&'static str], network: impl Fn() -> Small) {
    agree_in(Dialect::FusedProducts, what, expected, network);
}

fn absent(network: impl Fn() -> Small, names: &[&'static str]) {
    let nodes = operators(network, Dialect::FusedProducts);
    for name in names {
        assert!(!nodes.iter().any(|op| op == in_domain(name)), "{name} in {nodes:?}");
    }
}

#[test]
fn linear_layers_train_as_the_standard_operators_do() {
    let all = [LINEAR, LINEAR_INPUT_GRADIENT, LINEAR_WEIGHT_GRADIENT];
    // No multiples of a tile, more than one share of rows, one row.
    for [rows, inputs, hidden, outputs] in [[7, 13, 19, 3], [300, 5, 70, 33], [1, 40, 16, 2]] {
        for form in [Form::Turned, Form::Plain, Form::Apart] {
            let network = || {
                let small = Small::new(&[rows, inputs]).linear(hidden, form).plain("Relu");
                small.linear(16, form).plain("Relu").linear(outputs, form)
            };
            agree(&format!("{rows} {inputs} {hidden} {outputs} {form:?}"), &all, network);
            absent(network, &["Gemm", "MatMul", "Add", "Relu", RELU_GRADIENT]);
        }
    }
}

#[test]
fn slopes_of_an_activation_become_part_of_the_product_before_them() {
    for shape in [&[7, 13][..], &[3, 5, 13]] {
        let network = || {
            let small = Small::new(shape).linear(19, Form::Apart).plain("Gelu");
            small.linear(5, Form::Apart)
        };
        agree(&format!("{shape:?}"), &[GELU, LINEAR_INPUT_GRADIENT], network);
    }
}

#[test]
fn linear_layers_over_sequences_train_as_the_standard_operators_do() {
    let network = || {
        let small = Small::new(&[4, 5, 6]).linear(18, Form::Apart).plain("Relu");
        small.linear(7, Form::Apart).plain("Tanh").linear(3, Form::Apart)
    };
    let all = [LINEAR, PRODUCT, LINEAR_INPUT_GRADIENT, LINEAR_WEIGHT_GRADIENT];
    agree("sequences", &all, network);
    absent(network, &["Gemm", "MatMul", "Add", "Relu", RELU_GRADIENT]);
}

#[test]
fn what_something_else_reads_too_is_not_taken_into_a_product() {
    let network = || {
        let small = Small::new(&[6, 5]).linear(8, Form::Turned);
        let sums = small.value();
        let small = small.plain("Relu");
        let rectified = small.value();
        let small = small.linear(8, Form::Turned).node("Add", &[sums], &[], &[6, 8]);
        small.node("Add", &[rectified], &[], &[6, 8])
    };
    agree("two readers", &[LINEAR, PRODUCT, LINEAR_WEIGHT_GRADIENT, RELU_GRADIENT], network);
}

#[test]
fn products_that_own_kernels_do_not_make_stay() {
    // One column, a scaled product, products of a batch of matrices.
    let network = || {
        let mut small = Small::new(&[6, 5]);
        let weight = small.weight(&[5, 4], 0.0);
        let bias = small.weight(&[4], 0.0);
        let alpha = [("alpha", Attribute::Float(0.5))];
        small.node("Gemm", &[weight, bias], &alpha, &[6, 4]).linear(1, Form::Turned)
    };
    agree("others", &[LINEAR_WEIGHT_GRADIENT], network);
    assert!(
        operators(network, Dialect::FusedProducts).iter().filter(|op| *op == "Gemm").count() >= 2
    );
}

#[test]
fn large_layers_train_as_the_standard_operators_do() {
    let of_product = of_product(SGD).unwrap();
    for rows in [9, 130] {
        for form in [Form::Turned, Form::Plain, Form::Apart] {
            let network = || {
                let small = Small::new(&[rows, 131]).linear(277, form).plain("Tanh");
                small.linear(120, form).plain("Tanh").linear(2, form)
            };
            let all = [LINEAR, PRODUCT, LINEAR_WEIGHT_GRADIENT, of_product];
            agree(&format!("{rows} {form:?}"), &all, network);
        }
    }
}

/// Updates of large weights run beside nodes that read other weights, or the same.
#[test]
fn weights_that_are_multiplied_by_weights_train_as_the_standard_operators_do() {
    let [rows, wide, narrow] = [9, 210, 190];
    let low_rank = || {
        let mut small = Small::new(&[rows, wide]);
        let [a, b] = [[wide, narrow], [narrow, wide]].map(|dims| small.weight(&dims, 0.0));
        let x = small.value();
        let product = small.of("MatMul", &[&a, &b], &[], &[wide, wide]);
        small.of("MatMul", &[&x, &product], &[], &[rows, wide]);
        small
    };
    agree("low rank", &[], low_rank);
    let tied = || {
        let mut small = Small::new(&[rows, wide]);
        let w = small.weight(&[wide, narrow], 0.0);
        let x = small.value();
        let hidden = small.of("MatMul", &[&x, &w], &[], &[rows, narrow]);
        let turned = [("transB", Attribute::Int(1))];
        small.of("Gemm", &[&hidden, &w], &turned, &[rows, wide]);
        small
    };
    agree("tied", &[], tied);
}

/// A perceptron with a large layer.
fn large(optimizer: &Optimizer) -> Program {
    let spec = TrainingSpec::new(Loss::cross_entropy(), optimizer.kind());
    let length = optimizer.hyperparameters(1, optimizer.learning_rate).len();
    Program::new(nn::mlp(131, &[277], 3), spec, None, length).unwrap()
}

/// The variables of the large perceptron after three steps, with `threads`.
fn large_after(optimizer: &Optimizer, threads: usize) -> Vec<f32> {
    let rows = 9;
    let mut rng = Seed(2).rng();
    let x = Array2::from_shape_fn((rows, 131), |_| rng.normal() as f32);
    let y = Array1::from_shape_fn(rows, |_| rng.below(3) as i64);
    let tensors = [("x", Tensor::from(x.into_dyn())), ("y", Tensor::from(y.into_dyn()))];
    let partition = MemoryPartition::new(PartitionId(0), tensors).unwrap();
    let slot = Slot { threads, ..Slot::default() };
    train_on(&large(optimizer), optimizer, &partition, &slot, Dialect::FusedProducts, 3)
}

#[test]
fn an_update_that_takes_in_a_product_gives_the_bits_of_the_update_after_it() {
    for optimizer in rules().into_iter().flat_map(|rule| [rule.clone(), rule.weight_decay(0.1)]) {
        // Clipping reads the gradients too, so that they must be there; so far off it changes none.
        let apart = optimizer.clone().clipping(Clipping::Norm(1e9));
        let [one, two] = [&optimizer, &apart].map(|optimizer| large_after(optimizer, 1));
        assert_eq!(one, two, "{optimizer:?}");
    }
}

#[test]
fn updates_of_large_parameters_have_the_same_bits_with_any_number_of_threads() {
    for optimizer in rules().into_iter().chain([Optimizer::lamb(0.01).weight_decay(0.1)]) {
        let alone = large_after(&optimizer, 1);
        assert_eq!(large_after(&optimizer, 2), alone, "{optimizer:?}: with two threads");
    }
}

#[test]
fn updates_take_in_products_where_nothing_else_reads_the_gradient() {
    let taken_in = |optimizer: &Optimizer| {
        let shapes = InputShapes::rows(9);
        let model =
            large(optimizer).draw(Task::Step, Dialect::FusedProducts, Threads::One, &shapes);
        let name = in_domain(of_product(ADAM).unwrap());
        model.unwrap().graph.nodes.iter().filter(|node| node.op == name).count()
    };
    // The last layer is small.
    assert_eq!(taken_in(&Optimizer::adam(0.1)), 1);
    assert_eq!(taken_in(&Optimizer::adam(0.1).clipping(Clipping::Norm(1.0))), 0);
}
