//! Linear layers within small networks: the same weights after some steps with Cerebro's own
//! products of matrices, and the same bits with any number of threads.

use super::networks::{Small, agree_in, operators};
use crate::graph::Dialect;
use crate::kernels::{
    LINEAR, LINEAR_INPUT_GRADIENT, LINEAR_WEIGHT_GRADIENT, PRODUCT, RELU_GRADIENT, in_domain,
};
use crate::onnx::Attribute;

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
