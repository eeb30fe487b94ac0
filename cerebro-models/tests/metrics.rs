//! Metrics merged over batches and partitions of unequal size, against what scikit-learn 1.9 gives
//! for all rows at once.

use cerebro_core::data::{MemoryPartition, Tensor};
use cerebro_core::{
    Cancellation, Config, Metrics, ModelBuilder, PartitionId, Pass, Seed, Slot, Split, TrialId,
    Unit,
};
use cerebro_models::loss::Loss;
use cerebro_models::metric::{Average, Metric};
use cerebro_models::onnx::{DataType, Dimension, Graph, Model, Node, TensorData, ValueInfo};
use cerebro_models::{Trainer, runtime};
use ndarray::{Array1, Array2};

/// A network whose outputs are its inputs.
fn identity(width: usize) -> Model {
    let rows = |name: &str| {
        let dims = vec![Dimension::Symbol("batch".to_owned()), Dimension::Size(width)];
        ValueInfo::tensor(name, DataType::Float32, dims)
    };
    let graph = Graph {
        nodes: vec![Node::new("Mul", ["x", "one"], ["y"])],
        inputs: vec![rows("x")],
        outputs: vec![rows("y")],
        initializers: [("one".to_owned(), TensorData::from_f32(&[1], &[1.0]))].into(),
        ..Graph::default()
    };
    Model::new(graph, 18)
}

/// The metrics of two training units and of two validation units, each of the rows before `cut`
/// and of those after; training is in batches of 3 and does not move the weights.
fn measured(
    loss: Loss,
    metrics: &[Metric],
    outputs: &[f32],
    target: &dyn Fn(std::ops::Range<usize>) -> Tensor,
    (rows, cut): (usize, usize),
) -> [Metrics; 2] {
    runtime::install().unwrap();
    let width = outputs.len() / rows;
    let mut trainer = Trainer::new(identity(width), loss).input("x").target("y");
    for metric in metrics {
        trainer = trainer.metric(*metric);
    }
    let config = Config::new().with("optimizer", "sgd").with("learning_rate", 0.0);
    let config = config.with("batch_size", 3);
    [Split::Train, Split::Validation].map(|split| {
        let mut merged = Metrics::new();
        for (id, range) in [0..cut, cut..rows].into_iter().enumerate() {
            let x = outputs[range.start * width..range.end * width].to_vec();
            let x = Array2::from_shape_vec((range.len(), width), x).unwrap();
            let tensors = [("x", Tensor::from(x.into_dyn())), ("y", target(range))];
            let partition = MemoryPartition::new(PartitionId(id as u32), tensors).unwrap();
            let mut model = trainer.build(&config, &Slot::default()).unwrap();
            model.initialize(Seed(1)).unwrap();
            let cancellation = Cancellation::new();
            let unit = Unit { trial: TrialId(0), epoch: 0, split, partition: PartitionId(0) };
            let pass = Pass::new(unit, Seed(1), &cancellation, &|_| ());
            let part = match split {
                Split::Train => model.train(&partition, &pass).unwrap(),
                Split::Validation => model.evaluate(&partition, &pass).unwrap(),
            };
            // As they travel, and as a journal keeps them.
            let written = serde_json::to_string(&part).unwrap();
            merged.merge(&serde_json::from_str(&written).unwrap());
        }
        merged
    })
}

fn classes(y: &[i64]) -> impl Fn(std::ops::Range<usize>) -> Tensor {
    move |range| Tensor::from(Array1::from_vec(y[range].to_vec()).into_dyn())
}

fn floats(y: &[f32], width: usize) -> impl Fn(std::ops::Range<usize>) -> Tensor {
    move |range| {
        let values = y[range.start * width..range.end * width].to_vec();
        Tensor::from(Array2::from_shape_vec((range.len(), width), values).unwrap().into_dyn())
    }
}

fn assert_values(found: &[Metrics; 2], expected: &[(&str, f64)], tolerance: f64) {
    for metrics in found {
        for &(name, expected) in expected {
            let found = metrics.value(name).unwrap();
            assert!((found - expected).abs() < tolerance, "{name}: {found} for {expected}");
        }
    }
}

fn scores(average: Average) -> [Metric; 3] {
    [Metric::Precision { average }, Metric::Recall { average }, Metric::F1 { average }]
}

const LOGITS: [f32; 36] = [
    0.2, -0.2, 1.0, 0.2, -0.8, 0.5, 2.0, 1.4, -1.1, -1.9, -0.9, 0.1, -3.5, -0.3, -1.9, -1.1, -0.8,
    -0.5, 0.6, 1.6, -0.2, 2.0, -1.0, 0.5, 1.4, 0.1, -1.1, -1.4, -0.7, 0.3, -1.5, -0.3, -0.2, 0.8,
    0.3, 0.5,
];
const LABELS: [i64; 12] = [1, 1, 2, 2, 0, 2, 1, 1, 2, 1, 0, 0];

#[test]
fn scores_of_several_classes() {
    let metrics: Vec<Metric> =
        [Average::Macro, Average::Micro, Average::Weighted].into_iter().flat_map(scores).collect();
    let others = vec![Metric::TopK { k: 2 }, Metric::Perplexity, Metric::RocAuc];
    let metrics = [metrics, others].concat();
    let found = measured(Loss::cross_entropy(), &metrics, &LOGITS, &classes(&LABELS), (12, 7));
    let expected = [
        ("macro_precision", 0.3611111111111111),
        ("macro_recall", 0.3444444444444444),
        ("macro_f1", 0.3238095238095238),
        ("micro_precision", 1.0 / 3.0),
        ("micro_recall", 1.0 / 3.0),
        ("micro_f1", 1.0 / 3.0),
        ("weighted_precision", 0.3819444444444444),
        ("weighted_recall", 1.0 / 3.0),
        ("weighted_f1", 0.3238095238095238),
        ("top_2_accuracy", 0.4166666666666667),
        ("roc_auc", 0.2904320987654321),
    ];
    assert_values(&found, &expected, 1e-12);
    assert_values(&found, &[("perplexity", 6.6977825683625705)], 1e-5);
}

#[test]
fn ignored_rows_count_for_no_score() {
    let loss = Loss::CrossEntropy {
        class_axis: 1,
        label_smoothing: 0.0,
        ignore_index: Some(7),
        class_weights: None,
    };
    // Three rows more than above, of which none counts.
    let logits: Vec<f32> = [&[3.0, 1.0, 0.0, 0.0, 9.0, 1.0], &LOGITS[..], &[1.0; 3]].concat();
    let with_ignored = [7, 7, 1, 1, 2, 2, 0, 2, 1, 1, 2, 1, 0, 0, 7];
    let metrics = [&scores(Average::Macro)[..], &[Metric::RocAuc]].concat();
    let found = measured(loss, &metrics, &logits, &classes(&with_ignored), (15, 7));
    assert_values(&found, &[("roc_auc", 0.2904320987654321)], 1e-12);
    let expected = [("macro_precision", 0.3611111111111111), ("macro_f1", 0.3238095238095238)];
    assert_values(&found, &expected, 1e-12);
}

#[test]
fn two_classes_as_two_logits_and_as_one() {
    let logits = [
        1.3, 0.8, 0.3, -0.3, 1.5, 2.0, 1.8, 1.3, 0.4, -1.2, -0.0, 0.7, -1.3, 0.4, 0.4, 0.7, -1.2,
        -0.7, -0.4, -1.2, 1.7, -0.5, 0.3, -0.3,
    ];
    let labels = [1, 0, 1, 1, 0, 0, 1, 0, 1, 1, 1, 1];
    let metrics = [&scores(Average::Binary)[..], &[Metric::RocAuc]].concat();
    let found = measured(Loss::cross_entropy(), &metrics, &logits, &classes(&labels), (12, 5));
    let expected = [("precision", 0.6), ("recall", 0.375), ("f1", 0.46153846153846156)];
    assert_values(&found, &expected, 1e-12);
    assert_values(&found, &[("roc_auc", 0.515625)], 1e-12);

    let logits = [1.0, -0.62, 1.82, -1.32, -0.66, 0.94, 0.05, 2.0, 0.19, -0.63, -0.38, -1.09];
    let truth = [1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0];
    let loss = Loss::binary_cross_entropy_with_logits();
    let found = measured(loss, &metrics, &logits, &floats(&truth, 1), (12, 5));
    let expected = [
        ("precision", 0.6666666666666666),
        ("recall", 0.4444444444444444),
        ("f1", 0.5333333333333333),
        ("roc_auc", 0.5185185185185185),
    ];
    assert_values(&found, &expected, 1e-12);
}

#[test]
fn labels_that_do_not_exclude_each_other() {
    let logits = [-0.1, 1.8, -0.2, -0.5, 0.4, 1.2, 0.4, -0.4, -1.1, -1.2, 0.7, 1.2];
    let truth = [1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0];
    let metrics: Vec<Metric> =
        [Average::Macro, Average::Micro, Average::Weighted].into_iter().flat_map(scores).collect();
    let metrics = [metrics, vec![Metric::RocAuc]].concat();
    let loss = Loss::binary_cross_entropy_with_logits();
    let found = measured(loss, &metrics, &logits, &floats(&truth, 2), (6, 3));
    let expected = [
        ("macro_precision", 0.5),
        ("macro_recall", 0.41666666666666663),
        ("macro_f1", 0.45238095238095233),
        ("micro_precision", 0.5),
        ("micro_recall", 0.42857142857142855),
        ("micro_f1", 0.46153846153846156),
        ("weighted_precision", 0.5238095238095238),
        ("weighted_recall", 0.42857142857142855),
        ("weighted_f1", 0.4693877551020408),
        ("roc_auc", 0.4756944444444445),
    ];
    assert_values(&found, &expected, 1e-12);
}

#[test]
fn errors_and_explained_variance_of_a_regression_with_two_outputs() {
    let predicted = [-2.7, 2.6, -0.1, -0.2, 0.7, 0.6, 1.0, -0.2, 3.2, 1.5, 1.7, 3.6];
    let target = [-3.5, 1.8, -0.2, 1.2, 0.8, 1.4, 2.4, -0.5, 3.8, 2.5, 2.7, 3.3];
    let metrics = [Metric::R2, Metric::MeanAbsoluteError, Metric::RootMeanSquaredError];
    let found = measured(Loss::MeanSquaredError, &metrics, &predicted, &floats(&target, 2), (6, 3));
    let expected =
        [("r2", 0.6774612785887204), ("mae", 0.7166666666666666), ("rmse", 0.8366600265340755)];
    assert_values(&found, &expected, 1e-6);
}

#[test]
fn metrics_that_do_not_fit_the_loss_are_refused_with_what_would() {
    runtime::install().unwrap();
    let refusal = |loss: Loss, metric: Metric| {
        let trainer = Trainer::new(identity(3), loss).input("x").target("y").metric(metric);
        let config = Config::new().with("optimizer", "sgd").with("learning_rate", 0.0);
        let config = config.with("batch_size", 2);
        let mut model = trainer.build(&config, &Slot::default()).unwrap();
        model.initialize(Seed(1)).unwrap();
        let x = Tensor::from(Array2::<f32>::zeros((4, 3)).into_dyn());
        let y = Tensor::from(Array1::<i64>::zeros(4).into_dyn());
        let partition = MemoryPartition::new(PartitionId(0), [("x", x), ("y", y)]).unwrap();
        let cancellation = Cancellation::new();
        let split = Split::Train;
        let unit = Unit { trial: TrialId(0), epoch: 0, split, partition: PartitionId(0) };
        let pass = Pass::new(unit, Seed(1), &cancellation, &|_| ());
        let error = model.train(&partition, &pass).unwrap_err();
        let source = std::error::Error::source(&error).map(ToString::to_string);
        format!("{error}: {}", source.unwrap_or_default())
    };
    let f1 = Metric::F1 { average: Average::Binary };
    let message = refusal(Loss::cross_entropy(), f1);
    assert!(message.contains("3 classes") && message.contains("macro"), "{message}");
    let message = refusal(Loss::cross_entropy(), Metric::R2);
    assert!(message.contains("r2"), "{message}");
    let message = refusal(Loss::MeanSquaredError, Metric::RocAuc);
    assert!(message.contains("classes"), "{message}");
}
