//! Losses and their gradients against PyTorch 2.15 in float64.

use super::Loss;
use crate::graph::{Builder, Type};
use crate::onnx::{DataType, TensorData};
use crate::operators::tests::Runner;

const OUTPUT: [f64; 12] = [0.5, -1.0, 2.0, 1.5, 0.3, -0.7, -0.2, 0.8, 0.1, 2.0, -0.5, 0.4];
const CLASSES: [f64; 4] = [2.0, 0.0, 1.0, 1.0];
const TRUTH: [f64; 12] = [1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0];

/// The loss of [`OUTPUT`] against `target`, and its gradient.
fn evaluate(loss: &Loss, output: &[f64], target: &[f64]) -> (f64, Vec<f64>) {
    let mut graph = Builder::new();
    let x = graph.input("x", Type::new(DataType::Float64, [4, 3]));
    let (data_type, dims): (_, &[usize]) = if matches!(loss, Loss::CrossEntropy { .. }) {
        (DataType::Int64, &[4])
    } else {
        (DataType::Float64, &[4, 3])
    };
    let y = graph.constant(TensorData::from_f64(data_type, dims, target));
    let emitted = loss.emit(&mut graph, x, Some(y)).unwrap();
    let mean = graph.div(emitted.sum, emitted.weight);
    assert_eq!(graph.take_error(), None);
    let outputs = [("loss", emitted.loss), ("gradient", emitted.gradient), ("mean", mean)];
    let outputs = outputs.map(|(name, value)| (name.to_owned(), value));
    let fed = [("x".to_owned(), vec![4, 3], output.to_vec())];
    let found = Runner::new(&graph.finish(&outputs), "loss").run(DataType::Float64, &fed);
    assert!((found["loss"][0] - found["mean"][0]).abs() < 1e-12, "batches merge by sum and weight");
    (found["loss"][0], found["gradient"].clone())
}

fn check(loss: &Loss, target: &[f64], expected: f64, gradient: [f64; 12]) {
    compare(loss, &evaluate(loss, &OUTPUT, target), expected, gradient);
}

fn compare(loss: &Loss, found: &(f64, Vec<f64>), expected: f64, gradient: [f64; 12]) {
    assert!((found.0 - expected).abs() < 1e-9, "{loss:?}: {} for {expected}", found.0);
    for (found, expected) in found.1.iter().zip(gradient) {
        assert!((found - expected).abs() < 1e-9, "{loss:?}: {found} for {expected}");
    }
}

#[test]
#[rustfmt::skip]
fn cross_entropy_with_weights_smoothing_and_ignored_targets() {
    let loss = |weighted: bool, label_smoothing: f64, ignore_index: Option<i64>| Loss::CrossEntropy {
        class_axis: 1,
        label_smoothing,
        ignore_index,
        class_weights: weighted.then(|| vec![0.5, 2.0, 1.5]),
    };
    check(&loss(false, 0.0, None), &CLASSES, 0.989_814_098_801_353_3, [0.043822598035, 0.009778143318, -0.053600741353, -0.07294584589, 0.053327686413, 0.019618159477, 0.049327755079, -0.11591325973, 0.066585504651, 0.19470685268, -0.234017488266, 0.039310635586]);
    check(&loss(true, 0.0, None), &CLASSES, 1.213_391_537_849_329_4, [0.043822598035, 0.009778143318, -0.053600741353, -0.024315281963, 0.017775895471, 0.006539386492, 0.065770340105, -0.154551012974, 0.088780672868, 0.259609136907, -0.312023317688, 0.052414180781]);
    check(&loss(false, 0.2, None), &CLASSES, 1.093_147_432_134_686_8, [0.027155931368, -0.006888523349, -0.020267408019, -0.039612512556, 0.036661019746, 0.00295149281, 0.032661088412, -0.082579926397, 0.049918837985, 0.178040186013, -0.200684154932, 0.022643968919]);
    check(&loss(true, 0.2, None), &CLASSES, 1.273_346_847_844_148_5, [0.037293206968, -0.012661370978, -0.024631835989, 0.006468512938, 0.001478971739, -0.007947484677, 0.055830095209, -0.122025389886, 0.066195294677, 0.236746305557, -0.268999540953, 0.032253235396]);
    check(&loss(false, 0.0, Some(1)), &CLASSES, 0.293_158_286_657_335_73, [0.08764519607, 0.019556286635, -0.107201482705, -0.145891691779, 0.106655372826, 0.039236318953, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
    check(&loss(true, 0.2, Some(1)), &CLASSES, 0.706_963_376_434_42, [0.111879620903, -0.037984112935, -0.073895507968, 0.019405538814, 0.004436915217, -0.023842454031, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
}

#[test]
#[rustfmt::skip]
fn binary_cross_entropy_of_logits_and_of_probabilities() {
    let expected = 0.841_739_808_092_000_9;
    let gradient = [-0.0314617224, 0.022411785114, -0.009933576835, 0.068131206349, 0.047870209734, -0.055682314347, -0.045819499776, -0.025835459906, 0.043748265623, 0.073399756498, -0.051871610933, -0.033442694991];
    check(&Loss::binary_cross_entropy_with_logits(), &TRUTH, expected, gradient);
    let weighted = Loss::BinaryCrossEntropyWithLogits { positive_weight: Some(vec![0.5, 2.0, 1.5]) };
    check(&weighted, &TRUTH, 0.973_459_339_717_936_6, [-0.0157308612, 0.022411785114, -0.014900365253, 0.068131206349, 0.047870209734, -0.083523471521, -0.022909749888, -0.051670919812, 0.043748265623, 0.073399756498, -0.103743221867, -0.050164042486]);
    // Through the logistic function the two are the same.
    let probabilities = OUTPUT.map(|x| 1.0 / (1.0 + f64::exp(-x)));
    let (loss, slopes) = evaluate(&Loss::BinaryCrossEntropy, &probabilities, &TRUTH);
    let chained = slopes.iter().zip(probabilities).map(|(slope, p)| slope * p * (1.0 - p)).collect();
    compare(&Loss::BinaryCrossEntropy, &(loss, chained), expected, gradient);
}

#[test]
#[rustfmt::skip]
fn losses_of_regression() {
    let target = TRUTH.map(|y| 1.7 * y - 0.4);
    check(&Loss::MeanSquaredError, &target, 1.845_833_333_333_333, [-0.133333333333, -0.1, 0.116666666667, 0.316666666667, 0.116666666667, -0.333333333333, -0.25, -0.083333333333, 0.083333333333, 0.4, -0.3, -0.15]);
    let twelfth = 1.0 / 12.0;
    check(&Loss::MeanAbsoluteError, &target, 1.191_666_666_666_666_7, [-1.0, -1.0, 1.0, 1.0, 1.0, -1.0, -1.0, -1.0, 1.0, 1.0, -1.0, -1.0].map(|sign: f64| sign * twelfth));
    check(&Loss::Huber { delta: 0.6 }, &target, 0.535_833_333_333_333_3, [-0.05, -0.05, 0.05, 0.05, 0.05, -0.05, -0.05, -0.041666666667, 0.041666666667, 0.05, -0.05, -0.05]);
}

#[test]
#[rustfmt::skip]
fn divergence_and_hinge() {
    let mut target = TRUTH.map(|y| f64::exp(1.7 * y - 0.4));
    for row in target.chunks_mut(3) {
        let sum: f64 = row.iter().sum();
        for value in row {
            *value /= sum;
        }
    }
    check(&Loss::KullbackLeibler, &target, -1.182_382_702_266_207, [-0.11453790586, -0.02092418828, -0.11453790586, -0.033449526321, -0.033449526321, -0.183100947358, -0.11453790586, -0.11453790586, -0.02092418828, -0.02092418828, -0.11453790586, -0.11453790586]);
    let signs = TRUTH.map(|y| 2.0 * y - 1.0);
    let twelfth = 1.0 / 12.0;
    check(&Loss::Hinge, &signs, 1.133_333_333_333_333_5, [-1.0, 0.0, 0.0, 1.0, 1.0, -1.0, -1.0, -1.0, 1.0, 1.0, -1.0, -1.0].map(|sign: f64| sign * twelfth));
}
