//! What cannot be trained is refused with the operator, the node and the way out.

use super::*;
use crate::error::GraphError;
use crate::import::OPSETS;
use crate::training::Selection;

fn refusal(model: Model, spec: TrainingSpec) -> GraphError {
    match Blueprint::new(model, spec) {
        Err(error) => error,
        Ok(blueprint) => blueprint.step(&InputShapes::rows(2)).unwrap_err(),
    }
}

#[test]
fn an_unknown_operator_is_named_with_its_node_and_what_is_supported() {
    let mut node = Node::new("Frobnicate", ["x", "weight"], ["y"]);
    node.name = "/layer/frob".to_owned();
    let weight = TensorData::from_f32(&[3], &[1.0; 3]);
    let message =
        refusal(model(&[3], &[3], vec![node], vec![("weight", weight)]), spec()).to_string();
    for part in ["Frobnicate", "/layer/frob", "Gemm", "LayerNormalization"] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn operators_of_other_domains_are_named_in_full() {
    let mut node = Node::new("Gemm", ["x", "weight"], ["y"]);
    node.domain = "com.example".to_owned();
    let weight = TensorData::from_f32(&[3, 3], &[1.0; 9]);
    let message =
        refusal(model(&[3], &[3], vec![node], vec![("weight", weight)]), spec()).to_string();
    assert!(message.contains("com.example.Gemm"), "{message}");
}

#[test]
fn operator_sets_that_are_too_old_or_too_new_are_refused() {
    for opset in [OPSETS.start() - 1, OPSETS.end() + 1] {
        let mut model = linear();
        model.opsets.insert(String::new(), opset);
        let error = refusal(model, spec());
        assert!(matches!(error, GraphError::Opset { found } if found == opset), "{error}");
    }
    let mut model = linear();
    model.opsets.clear();
    assert!(matches!(refusal(model, spec()), GraphError::NoOpset));
}

#[test]
fn missing_outputs_and_parameters_are_named_with_those_that_are_there() {
    let mut wrong = spec();
    wrong.output = Some("logits".to_owned());
    let message = refusal(linear(), wrong).to_string();
    assert!(message.contains("logits") && message.contains('y'), "{message}");
    let mut wrong = spec();
    wrong.parameters = Selection::Named(vec!["fc.weight".to_owned()]);
    let message = refusal(linear(), wrong).to_string();
    assert!(message.contains("fc.weight") && message.contains("bias"), "{message}");
}

#[test]
fn a_model_without_parameters_is_refused() {
    let model = model(&[3], &[3], vec![Node::new("Relu", ["x"], ["y"])], vec![]);
    assert!(matches!(refusal(model, spec()), GraphError::NoParameter { .. }));
    let mut frozen = spec();
    frozen.frozen = vec!["*".to_owned()];
    let message = refusal(linear(), frozen).to_string();
    assert!(message.contains("patterns `*` freeze every parameter"), "{message}");
    let mut misspelt = spec();
    misspelt.frozen = vec!["weigth*".to_owned()];
    let message = refusal(linear(), misspelt).to_string();
    assert!(message.contains("`weigth*`") && message.contains("has: weight"), "{message}");
}

#[test]
fn weights_that_are_not_finite_are_refused() {
    let mut model = linear();
    let broken = TensorData::from_f32(&[2], &[0.0, f32::NAN]);
    model.graph.initializers.insert("bias".to_owned(), broken);
    let message = refusal(model, spec()).to_string();
    assert!(message.contains("bias") && message.contains("NaN"), "{message}");
}

#[test]
fn shapes_that_do_not_fit_are_refused() {
    let mut model = linear();
    let narrow = TensorData::from_f32(&[2, 2], &[1.0; 4]);
    model.graph.initializers.insert("weight".to_owned(), narrow);
    let message = refusal(model, spec()).to_string();
    assert!(message.contains("Gemm") && message.contains("[2, 2]"), "{message}");
    let blueprint = Blueprint::new(linear(), spec()).unwrap();
    let shapes = InputShapes::rows(2).with("x", [4]);
    assert!(matches!(blueprint.step(&shapes), Err(GraphError::InputShape { .. })));
}

#[test]
fn an_open_axis_must_be_given_a_size() {
    let mut model = linear();
    model.graph.inputs[0] = ValueInfo::tensor(
        "x",
        DataType::Float32,
        vec![Dimension::Unknown, Dimension::Symbol("features".to_owned())],
    );
    let blueprint = Blueprint::new(model, spec()).unwrap();
    let error = blueprint.step(&InputShapes::rows(2)).unwrap_err();
    assert!(matches!(error, GraphError::OpenShape { .. }), "{error}");
    assert!(blueprint.step(&InputShapes::rows(2).with("x", [3])).is_ok());
}

#[test]
fn a_loss_that_does_not_fit_the_output_is_refused() {
    let mut wrong = spec();
    wrong.loss = Loss::Output;
    assert!(matches!(refusal(linear(), wrong), GraphError::Loss { .. }));
    let mut wrong = spec();
    wrong.loss = Loss::CrossEntropy {
        class_axis: 1,
        label_smoothing: 0.0,
        ignore_index: None,
        class_weights: Some(vec![1.0; 5]),
    };
    let message = refusal(linear(), wrong).to_string();
    assert!(message.contains("5 class weights for 2 classes"), "{message}");
    let mut wrong = spec();
    wrong.loss = Loss::CrossEntropy {
        class_axis: 1,
        label_smoothing: 2.0,
        ignore_index: None,
        class_weights: None,
    };
    let message = refusal(linear(), wrong).to_string();
    assert!(message.contains("label smoothing is 2"), "{message}");
    for delta in [0.0, f64::NAN] {
        let mut wrong = spec();
        wrong.loss = Loss::Huber { delta };
        let message = refusal(linear(), wrong).to_string();
        assert!(message.contains("Huber's delta is"), "{message}");
    }
}

#[test]
fn a_value_that_nothing_makes_is_named() {
    let node = Node::new("Gemm", ["x", "weight", "ghost"], ["y"]);
    let weight = TensorData::from_f32(&[3, 2], &[1.0; 6]);
    let error = refusal(model(&[3], &[2], vec![node], vec![("weight", weight)]), spec());
    assert!(
        matches!(error, GraphError::NoSuchValue { ref value, .. } if value == "ghost"),
        "{error}"
    );
}
