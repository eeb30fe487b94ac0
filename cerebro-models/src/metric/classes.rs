//! Counts per class and scores of two classes, as nodes.

use super::emit::{EmittedMetric, class_axis, decisions};
use crate::graph::{Builder, Value};
use crate::loss::Loss;
use crate::onnx::TensorData;
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

/// For each row the score of the positive class, or of each class against the others, and whether
/// it is of it: 1, 0, or -1 for a row that is ignored.
pub(super) fn scores(
    g: &mut Builder,
    loss: &Loss,
    output: Value,
    target: Value,
) -> Result<EmittedMetric, String> {
    let dims = g.dims(output).to_vec();
    let (scores, labels, classes) = if matches!(loss, Loss::CrossEntropy { .. }) {
        let axis = class_axis(g, loss, output)?;
        let (mut scores, mut labels, mut classes) = (
            g.op("Softmax", &[output], Builder::along(axis)),
            g.one_hot(target, dims[axis], axis, output),
            dims[axis],
        );
        if let Some(kept) = kept(g, loss, output, target) {
            // kept * (label + 1) - 1
            let kept = g.unsqueeze(kept, &[axis]);
            let shifted = g.add_scalar(labels, 1.0);
            let shifted = g.mul(kept, shifted);
            labels = g.add_scalar(shifted, -1.0);
        }
        if classes == 2 {
            // Logits keep apart what probabilities near 1 do not.
            let mut along = vec![1; dims.len()];
            along[axis] = 2;
            let signs = TensorData::from_f64(g.data_type(output), &along, &[-1.0, 1.0]);
            let signs = g.constant(signs);
            let signed = g.mul(output, signs);
            scores = g.reduce_sum(signed, &[axis]);
            let positive = g.ints(&[1]);
            labels = g.op("Gather", &[labels, positive], Builder::along(axis));
            classes = 1;
        }
        let mut order: Vec<usize> = (0..dims.len()).filter(|&other| other != axis).collect();
        order.push(axis);
        if classes > 1 {
            [scores, labels] = [scores, labels].map(|value| g.transpose(value, &order));
        }
        (scores, labels, classes)
    } else {
        let (_, expected) = decisions(g, loss, output, target)?;
        (output, g.indicator(expected, output), dims.iter().skip(1).product())
    };
    let rows = g.value_type(scores).elements() / classes.max(1);
    let kind = StatisticKind::RocAuc { rows, classes };
    Ok(EmittedMetric { kind, values: vec![scores, labels] })
}

/// 1 where a target counts, if the loss ignores some.
pub(super) fn kept(g: &mut Builder, loss: &Loss, output: Value, target: Value) -> Option<Value> {
    let Loss::CrossEntropy { ignore_index: Some(ignored), .. } = loss else { return None };
    let ignored = g.constant(TensorData::from_i64(&[], &[*ignored]));
    let is_ignored = g.binary("Equal", target, ignored);
    let is_kept = g.unary("Not", is_ignored);
    Some(g.indicator(is_kept, output))
}
