//! Metrics as nodes.

use super::{Metric, classes};
use crate::graph::{Attributes, Builder, Value, normalize_axis};
use crate::kernels;
use crate::loss::Loss;
use crate::operators::may_fuse_classes;
use crate::training::StatisticKind;

/// A metric in a graph: what of a batch goes into its statistic, as the kind says.
#[derive(Clone, Debug)]
pub(crate) struct EmittedMetric {
    pub(crate) kind: StatisticKind,
    pub(crate) values: Vec<Value>,
}

impl Metric {
    /// Emits the metric of `output` against `target`, as the loss understands them.
    pub(crate) fn emit(
        self,
        g: &mut Builder,
        loss: &Loss,
        output: Value,
        target: Value,
    ) -> Result<EmittedMetric, String> {
        if let Some(score) = self.score() {
            return classes::counts(g, loss, output, target, score);
        }
        if self == Metric::Accuracy
            && let Loss::CrossEntropy { ignore_index: None, .. } = loss
            && may_fuse_classes(g, output, target, class_axis(g, loss, output)?)
        {
            let hits = g.binary(kernels::HITS, output, target);
            let count = g.value_type(target).elements();
            let values = vec![hits, g.scalar(count as f64, output)];
            return Ok(EmittedMetric { kind: StatisticKind::Mean, values });
        }
        let (kind, values) = match self {
            Metric::Accuracy => (StatisticKind::Mean, hits(g, loss, output, target)?),
            Metric::TopK { k } => (StatisticKind::Mean, hits_among(g, loss, output, target, k)?),
            Metric::MeanAbsoluteError => {
                let error = error(g, loss, output, target)?;
                (StatisticKind::Mean, g.unary("Abs", error))
            }
            Metric::RootMeanSquaredError => {
                let error = error(g, loss, output, target)?;
                (StatisticKind::RootMean, g.square(error))
            }
            Metric::Perplexity => {
                class_axis(g, loss, output)?;
                let plain = unsmoothed(loss);
                let emitted = plain.emit(g, output, Some(target))?;
                let values = vec![emitted.sum, emitted.weight];
                return Ok(EmittedMetric { kind: StatisticKind::ExpMean, values });
            }
            Metric::RocAuc => return classes::scores(g, loss, output, target),
            Metric::R2 => return determination(g, loss, output, target),
            Metric::Precision { .. } | Metric::Recall { .. } | Metric::F1 { .. } => {
                unreachable!("these are scores of classes")
            }
        };
        if let Some(kept) = classes::kept(g, loss, output, target) {
            let counted = g.mul(values, kept);
            return Ok(EmittedMetric { kind, values: vec![g.total(counted), g.total(kept)] });
        }
        let count = g.value_type(values).elements();
        let values = vec![g.total(values), g.scalar(count as f64, output)];
        Ok(EmittedMetric { kind, values })
    }
}

/// For each output the mean of the targets, the squares about it, and the squared errors.
fn determination(
    g: &mut Builder,
    loss: &Loss,
    output: Value,
    target: Value,
) -> Result<EmittedMetric, String> {
    let error = error(g, loss, output, target)?;
    let dims = g.dims(output).to_vec();
    let rows = dims.first().copied().unwrap_or(1);
    let outputs = dims.iter().skip(1).product();
    let [target, error] = [target, error].map(|of| g.reshape(of, &[rows, outputs]));
    let sum = g.reduce_sum(target, &[0]);
    let mean = g.scale(sum, 1.0 / rows.max(1) as f64);
    let row = g.reshape(mean, &[1, outputs]);
    let distance = g.sub(target, row);
    let [squares, residual] = [distance, error].map(|of| {
        let squared = g.square(of);
        g.reduce_sum(squared, &[0])
    });
    let kind = StatisticKind::R2 { rows, outputs };
    Ok(EmittedMetric { kind, values: vec![mean, squares, residual] })
}

fn unsmoothed(loss: &Loss) -> Loss {
    let mut plain = loss.clone();
    if let Loss::CrossEntropy { label_smoothing, class_weights, .. } = &mut plain {
        *label_smoothing = 0.0;
        *class_weights = None;
    }
    plain
}

pub(super) fn class_axis(g: &Builder, loss: &Loss, output: Value) -> Result<usize, String> {
    match loss {
        Loss::CrossEntropy { class_axis, .. } => normalize_axis(*class_axis, g.dims(output).len()),
        _ => Err("it needs class indices as targets, as cross-entropy has them".to_owned()),
    }
}

fn error(g: &mut Builder, loss: &Loss, output: Value, target: Value) -> Result<Value, String> {
    if matches!(loss, Loss::CrossEntropy { .. } | Loss::Output) {
        return Err("it needs a target of the output's shape".to_owned());
    }
    Ok(g.sub(output, target))
}

/// 1 where the prediction is right.
fn hits(g: &mut Builder, loss: &Loss, output: Value, target: Value) -> Result<Value, String> {
    if matches!(loss, Loss::CrossEntropy { .. }) {
        let axis = class_axis(g, loss, output)?;
        let attributes = Builder::along(axis).with("keepdims", 0);
        let predicted = g.op("ArgMax", &[output], attributes);
        let is_hit = g.binary("Equal", predicted, target);
        return Ok(g.indicator(is_hit, output));
    }
    let (predicted, expected) = decisions(g, loss, output, target)?;
    let is_hit = g.binary("Equal", predicted, expected);
    Ok(g.indicator(is_hit, output))
}

/// Whether each output says yes, and whether it should.
pub(super) fn decisions(
    g: &mut Builder,
    loss: &Loss,
    output: Value,
    target: Value,
) -> Result<(Value, Value), String> {
    let threshold = match loss {
        Loss::BinaryCrossEntropyWithLogits { .. } | Loss::Hinge => 0.0,
        Loss::BinaryCrossEntropy => 0.5,
        _ => return Err("it needs classes as targets".to_owned()),
    };
    let target_threshold = if matches!(loss, Loss::Hinge) { 0.0 } else { 0.5 };
    let threshold = g.scalar(threshold, output);
    let predicted = g.binary("Greater", output, threshold);
    let target_threshold = g.scalar(target_threshold, target);
    Ok((predicted, g.binary("Greater", target, target_threshold)))
}

/// 1 where fewer than `k` classes have a larger logit than the target's.
fn hits_among(
    g: &mut Builder,
    loss: &Loss,
    output: Value,
    target: Value,
    k: usize,
) -> Result<Value, String> {
    let axis = class_axis(g, loss, output)?;
    let classes = g.dims(output)[axis];
    if k == 0 || k > classes {
        return Err(format!("k = {k} of {classes} classes"));
    }
    // An ignored target may be no class at all: it is not counted, so any class will do.
    let (zero, last) = (g.ints(&[0]), g.ints(&[classes as i64 - 1]));
    let zero = g.reshape(zero, &[]);
    let last = g.reshape(last, &[]);
    let target = g.op("Clip", &[target, zero, last], Attributes::none());
    let place = g.unsqueeze(target, &[axis]);
    let own = g.op("GatherElements", &[output, place], Builder::along(axis));
    let larger = g.greater(output, own);
    let rank = g.reduce_sum(larger, &[axis]);
    let dims: Vec<usize> = g.dims(target).to_vec();
    let rank = g.reshape(rank, &dims);
    let limit = g.scalar(k as f64, rank);
    let is_hit = g.binary("Less", rank, limit);
    Ok(g.indicator(is_hit, output))
}
