//! Counts per class and scores of two classes, as nodes.

use super::emit::{EmittedMetric, class_axis, decisions};
use crate::graph::{Attributes, Builder, Value};
use crate::loss::Loss;
use crate::onnx::{DataType, TensorData};
use crate::training::StatisticKind;

use cerebro_core::metric::{Average, Score};

/// For each class the hits, the predictions and the occurrences.
pub(super) fn counts(
    g: &mut Builder,
    loss: &Loss,
    output: Value,
    target: Value,
    (score, average): (Score, Average),
) -> Result<EmittedMetric, String> {
    let dims = g.dims(output).to_vec();
    let (predicted, actual, classes, summed) = if matches!(loss, Loss::CrossEntropy { .. }) {
        let axis = class_axis(g, loss, output)?;
        if average == Average::Binary && dims[axis] != 2 {
            return Err(format!(
                "there are {} classes: use the average macro, micro or weighted, which are for any number",
                dims[axis]
            ));
        }
        let attributes = Builder::along(axis).with("keepdims", 0);
        let largest = g.op("ArgMax", &[output], attributes);
        let mut shares = [largest, target].map(|class| g.one_hot(class, dims[axis], axis, output));
        if let Some(kept) = kept(g, loss, output, target) {
            let kept = g.unsqueeze(kept, &[axis]);
            shares = shares.map(|share| g.mul(share, kept));
        }
        let summed: Vec<usize> = (0..dims.len()).filter(|&other| other != axis).collect();
        (shares[0], shares[1], dims[axis], summed)
    } else {
        let (predicted, expected) = decisions(g, loss, output, target)?;
        let columns = dims.iter().skip(1).product();
        if average == Average::Binary && columns != 1 {
            return Err(format!(
                "there are {columns} outputs: use the average macro, micro or weighted, which are for any number"
            ));
        }
        let rows = dims.first().copied().unwrap_or(1);
        let shares = [predicted, expected].map(|of| {
            let share = g.indicator(of, output);
            g.reshape(share, &[rows, columns])
        });
        (shares[0], shares[1], columns, vec![0])
    };
    let both = g.mul(predicted, actual);
    let values = [both, predicted, actual].map(|share| g.reduce_sum(share, &summed)).to_vec();
    Ok(EmittedMetric { kind: StatisticKind::Score { score, average, classes }, values })
}

/// For each row the score of the positive class, and whether it is of it: 1, 0, or -1 for a row
/// that is ignored.
pub(super) fn scores(
    g: &mut Builder,
    loss: &Loss,
    output: Value,
    target: Value,
) -> Result<EmittedMetric, String> {
    let (score, label) = if matches!(loss, Loss::CrossEntropy { .. }) {
        let axis = class_axis(g, loss, output)?;
        let mut dims = vec![1; g.dims(output).len()];
        dims[axis] = g.dims(output)[axis];
        if dims[axis] != 2 {
            return Err(format!("there are {} classes, and it is for two", dims[axis]));
        }
        let signs = TensorData::from_f64(g.data_type(output), &dims, &[-1.0, 1.0]);
        let signs = g.constant(signs);
        let signed = g.mul(output, signs);
        let score = g.reduce_sum(signed, &[axis]);
        let mut label = g.cast(target, DataType::Float32);
        if let Some(kept) = kept(g, loss, output, target) {
            let kept = g.cast(kept, DataType::Float32);
            let one = g.scalar(1.0, label);
            let zero = g.scalar(0.0, label);
            // An ignored label may be any number.
            label = g.op("Clip", &[label, zero, one], Attributes::none());
            let shifted = g.add_scalar(label, 1.0);
            let shifted = g.mul(kept, shifted);
            label = g.add_scalar(shifted, -1.0);
        }
        (score, label)
    } else {
        let (_, expected) = decisions(g, loss, output, target)?;
        (output, g.indicator(expected, output))
    };
    let rows = g.value_type(label).elements();
    Ok(EmittedMetric { kind: StatisticKind::RocAuc { rows }, values: vec![score, label] })
}

/// 1 where a target counts, if the loss ignores some.
pub(super) fn kept(g: &mut Builder, loss: &Loss, output: Value, target: Value) -> Option<Value> {
    let Loss::CrossEntropy { ignore_index: Some(ignored), .. } = loss else { return None };
    let ignored = g.constant(TensorData::from_i64(&[], &[*ignored]));
    let is_ignored = g.binary("Equal", target, ignored);
    let is_kept = g.unary("Not", is_ignored);
    Some(g.indicator(is_kept, output))
}
