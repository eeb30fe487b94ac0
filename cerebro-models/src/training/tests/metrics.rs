use super::*;
use crate::metric::Metric;
use crate::training::{STATISTICS, TARGET};

/// The statistics of `metrics` for three rows of logits over four classes.
fn statistics(loss: Loss, metrics: &[Metric], y: &[f32], dims: &[usize]) -> Vec<f32> {
    let node = Node::new("Mul", ["x", "one"], ["y"]);
    let one = TensorData::from_f32(&[1], &[1.0]);
    let mut spec = TrainingSpec::new(loss, Optimizer::sgd(0.1).kind());
    spec.metrics = metrics.to_vec();
    let blueprint =
        Blueprint::new(model(&[4], &[4], vec![node], vec![("one", one)]), spec).unwrap();
    let graph = blueprint.evaluation(&InputShapes::rows(3)).unwrap();
    let mut fed = initial(&blueprint);
    let logits = vec![0.1, 0.9, 0.5, -1.0, 2.0, 1.0, 0.0, -1.0, 0.0, 0.3, 0.2, 0.1];
    fed.insert("x".to_owned(), (vec![3, 4], logits));
    fed.insert(TARGET.to_owned(), (dims.to_vec(), y.to_vec()));
    run(&graph, &fed)[STATISTICS].clone()
}

#[test]
fn shares_of_right_classes() {
    let metrics = [Metric::Accuracy, Metric::TopK { k: 2 }, Metric::TopK { k: 4 }];
    let found = statistics(Loss::cross_entropy(), &metrics, &[1.0, 1.0, 3.0], &[3]);
    assert_eq!(found[2..], [1.0, 3.0, 2.0, 3.0, 3.0, 3.0]);
}

#[test]
fn ignored_targets_count_for_no_metric() {
    let loss = Loss::CrossEntropy {
        class_axis: 1,
        label_smoothing: 0.0,
        ignore_index: Some(-100),
        class_weights: None,
    };
    let metrics = [Metric::Accuracy, Metric::TopK { k: 2 }, Metric::Perplexity];
    let found = statistics(loss, &metrics, &[1.0, -100.0, 3.0], &[3]);
    assert_eq!(found[2..6], [1.0, 2.0, 1.0, 2.0]);
    assert_eq!(found[7], 2.0);
}

#[test]
fn errors_of_regression() {
    let y = [0.1, 0.9, 0.5, -1.0, 2.0, 1.0, 0.0, 1.0, 0.0, 0.3, 0.2, 0.1];
    let metrics = [Metric::MeanAbsoluteError, Metric::RootMeanSquaredError];
    let found = statistics(Loss::MeanSquaredError, &metrics, &y, &[3, 4]);
    assert_eq!(found, [4.0, 12.0, 2.0, 12.0, 4.0, 12.0]);
}

#[test]
fn accuracy_of_logits_counts_every_output() {
    let y = [1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0];
    let loss = Loss::binary_cross_entropy_with_logits();
    let found = statistics(loss, &[Metric::Accuracy], &y, &[3, 4]);
    assert_eq!(found[2..], [10.0, 12.0]);
}
