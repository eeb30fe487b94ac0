//! Losses as nodes, with their gradients by the output.

use cerebro_core::data::ElementType;

use super::Loss;
use crate::graph::{Attributes, Builder, Value, normalize_axis};
use crate::kernels;
use crate::onnx::{DataType, TensorData};
use crate::operators::may_fuse_classes;

/// A loss in a graph.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EmittedLoss {
    /// What is minimised, a scalar.
    pub(crate) loss: Value,
    /// Its gradient by the output.
    pub(crate) gradient: Value,
    /// The sum over what `weight` counts, so that losses of batches merge exactly: one element.
    pub(crate) sum: Value,
    /// What the sum is divided by.
    pub(crate) weight: Value,
}

impl Loss {
    /// The type and the shape of the target for an output of shape `output`; `None` if there is no
    /// target.
    pub(crate) fn target(
        &self,
        output: &[usize],
    ) -> Result<Option<(ElementType, Vec<usize>)>, String> {
        Ok(match self {
            Loss::Output => None,
            Loss::CrossEntropy { class_axis, .. } => {
                let axis = normalize_axis(*class_axis, output.len())?;
                let mut dims = output.to_vec();
                dims.remove(axis);
                Some((ElementType::I64, dims))
            }
            _ => Some((ElementType::F32, output.to_vec())),
        })
    }

    /// What it is called in messages.
    pub(crate) fn title(&self) -> &'static str {
        match self {
            Loss::CrossEntropy { .. } => "cross-entropy",
            Loss::BinaryCrossEntropyWithLogits { .. } => "binary cross-entropy with logits",
            Loss::BinaryCrossEntropy => "binary cross-entropy",
            Loss::MeanSquaredError => "mean squared error",
            Loss::MeanAbsoluteError => "mean absolute error",
            Loss::Huber { .. } => "Huber loss",
            Loss::KullbackLeibler => "Kullback-Leibler divergence",
            Loss::Hinge => "hinge loss",
            Loss::Output => "the model's own loss",
        }
    }

    /// Emits the loss of `output` (`x`) against `target` (`y`), which there is unless the loss is
    /// [`Loss::Output`].
    pub(crate) fn emit(
        &self,
        g: &mut Builder,
        output: Value,
        target: Option<Value>,
    ) -> Result<EmittedLoss, String> {
        let x = output;
        let Some(y) = target else { return own_loss(g, x) };
        let elementwise = match self {
            Loss::CrossEntropy { class_axis, label_smoothing, ignore_index, class_weights } => {
                let axis = normalize_axis(*class_axis, g.dims(x).len())?;
                if !(0.0..=1.0).contains(label_smoothing) {
                    return Err(format!("label smoothing is {label_smoothing}, not from 0 to 1"));
                }
                let classes = Classes {
                    axis,
                    count: g.dims(x)[axis],
                    smoothing: *label_smoothing,
                    ignored: *ignore_index,
                    weights: class_weights.as_deref(),
                };
                return classes.cross_entropy(g, x, y);
            }
            Loss::BinaryCrossEntropyWithLogits { positive_weight } => {
                logits(g, x, y, positive_weight.as_deref())?
            }
            Loss::BinaryCrossEntropy => probabilities(g, x, y),
            Loss::MeanSquaredError => squared_error(g, x, y),
            Loss::MeanAbsoluteError => absolute_error(g, x, y),
            Loss::Huber { delta } if *delta > 0.0 => huber(g, x, y, *delta),
            Loss::Huber { delta } => return Err(format!("Huber's delta is {delta}, not above 0")),
            Loss::KullbackLeibler => {
                let rows = g.dims(x).first().copied().unwrap_or(1);
                let divergence = kullback_leibler(g, x, y);
                return Ok(averaged(g, divergence, rows));
            }
            Loss::Hinge => hinge(g, x, y),
            Loss::Output => return own_loss(g, x),
        };
        let elements = g.value_type(x).elements();
        Ok(averaged(g, elementwise, elements))
    }
}

/// A loss per element, and its slope by the output.
#[derive(Clone, Copy, Debug)]
struct Elementwise {
    values: Value,
    slopes: Value,
}

fn averaged(
    g: &mut Builder,
    Elementwise { values, slopes }: Elementwise,
    count: usize,
) -> EmittedLoss {
    let share = 1.0 / count.max(1) as f64;
    let sum = g.total(values);
    EmittedLoss {
        loss: g.scale(sum, share),
        gradient: g.scale(slopes, share),
        sum,
        weight: g.scalar(count as f64, sum),
    }
}

fn own_loss(g: &mut Builder, x: Value) -> Result<EmittedLoss, String> {
    if g.value_type(x).elements() != 1 {
        return Err(format!("it has the shape {:?} and should be one number", g.dims(x)));
    }
    let loss = g.reshape(x, &[]);
    let one = g.scalar(1.0, x);
    Ok(EmittedLoss { loss, gradient: g.filled(1.0, x), sum: loss, weight: one })
}

struct Classes<'a> {
    axis: usize,
    count: usize,
    smoothing: f64,
    ignored: Option<i64>,
    weights: Option<&'a [f32]>,
}

impl Classes<'_> {
    /// With target probabilities `q` (one-hot, smoothed, weighted) and log-probabilities `lp`, the
    /// loss is `-sum(q lp) / W` and its gradient `(exp(lp) sum_c(q) - q) / W`, where `W` is the sum
    /// of the targets' weights (PyTorch's `CrossEntropyLoss`).
    fn cross_entropy(&self, g: &mut Builder, x: Value, y: Value) -> Result<EmittedLoss, String> {
        let is_plain = self.smoothing == 0.0 && self.weights.is_none() && self.ignored.is_none();
        if is_plain && may_fuse_classes(g, x, y, self.axis) {
            let weight = g.scalar(g.value_type(y).elements() as f64, x);
            let inputs = [Some(x), Some(y)];
            let outputs = g.emit(kernels::CROSS_ENTROPY, &inputs, Attributes::none(), 2);
            let (gradient, sum) = (outputs[0], outputs[1]);
            let total = g.reshape(sum, &[]);
            return Ok(EmittedLoss { loss: g.div(total, weight), gradient, sum, weight });
        }
        let log_probabilities = g.op("LogSoftmax", &[x], Builder::along(self.axis));
        let one_hot = self.one_hot(g, x, y);
        let plain = self.smoothing == 0.0 && self.weights.is_none();
        let mut q = one_hot;
        if !plain {
            q = self.smoothed(g, one_hot)?;
        }
        let weight = if self.ignored.is_none() && self.weights.is_none() {
            let positions = g.value_type(y).elements();
            g.scalar(positions as f64, x)
        } else {
            // What is left of a one-hot row is 0 where the target is ignored.
            let weighted = self.class_weighted(g, one_hot)?;
            g.total(weighted)
        };
        if !plain && self.ignored.is_some() {
            let kept = g.reduce_sum(one_hot, &[self.axis]);
            q = g.mul(q, kept);
        }
        let products = g.mul(q, log_probabilities);
        let negative = g.total(products);
        let sum = g.neg(negative);
        let probabilities = g.unary("Exp", log_probabilities);
        let expected = if plain && self.ignored.is_none() {
            probabilities
        } else {
            let mass = g.reduce_sum(q, &[self.axis]);
            g.mul(probabilities, mass)
        };
        let difference = g.sub(expected, q);
        // Where nothing counts there is nothing to learn: a gradient of zero, not 0 / 0.
        let divisor = if self.ignored.is_some() || self.weights.is_some() {
            let least = g.scalar(1e-30, weight);
            g.binary("Max", weight, least)
        } else {
            weight
        };
        Ok(EmittedLoss {
            loss: g.div(sum, divisor),
            gradient: g.div(difference, divisor),
            sum,
            weight,
        })
    }

    fn one_hot(&self, g: &mut Builder, x: Value, y: Value) -> Value {
        let one_hot = g.one_hot(y, self.count, self.axis, x);
        let Some(ignored) = self.ignored else { return one_hot };
        let ignored = g.constant(TensorData::from_i64(&[], &[ignored]));
        let is_ignored = g.binary("Equal", y, ignored);
        let is_kept = g.unary("Not", is_ignored);
        let kept = g.indicator(is_kept, x);
        let kept = g.unsqueeze(kept, &[self.axis]);
        g.mul(one_hot, kept)
    }

    /// The weights of the classes, in a shape that broadcasts to the output.
    fn class_weighted(&self, g: &mut Builder, x: Value) -> Result<Value, String> {
        let Some(weights) = self.weights else { return Ok(x) };
        if weights.len() != self.count {
            return Err(format!(
                "there are {} class weights for {} classes",
                weights.len(),
                self.count
            ));
        }
        let mut dims = vec![1; g.dims(x).len()];
        dims[self.axis] = self.count;
        let weights: Vec<f64> = weights.iter().map(|&weight| f64::from(weight)).collect();
        let weights = g.constant(TensorData::from_f64(g.data_type(x), &dims, &weights));
        Ok(g.mul(x, weights))
    }

    fn smoothed(&self, g: &mut Builder, one_hot: Value) -> Result<Value, String> {
        let kept = g.scale(one_hot, 1.0 - self.smoothing);
        let spread = g.add_scalar(kept, self.smoothing / self.count as f64);
        self.class_weighted(g, if self.smoothing == 0.0 { one_hot } else { spread })
    }
}

/// `(1 - y) x + w softplus(-x)` with `w = 1 + (p - 1) y`; `softplus(-x)` is
/// `max(-x, 0) + log(1 + exp(-|x|))`, which does not overflow.
fn logits(
    g: &mut Builder,
    x: Value,
    y: Value,
    positive_weight: Option<&[f32]>,
) -> Result<Elementwise, String> {
    let magnitude = g.unary("Abs", x);
    let negative = g.neg(magnitude);
    let decay = g.unary("Exp", negative);
    let one_more = g.add_scalar(decay, 1.0);
    let log = g.unary("Log", one_more);
    let probability = g.unary("Sigmoid", x);
    let Some(weights) = positive_weight else {
        // max(x, 0) - x y + log(1 + exp(-|x|)), with the slope sigmoid(x) - y.
        let positive = g.unary("Relu", x);
        let product = g.mul(x, y);
        let linear = g.sub(positive, product);
        return Ok(Elementwise { values: g.add(linear, log), slopes: g.sub(probability, y) });
    };
    let last = g.dims(x).last().copied().unwrap_or(1);
    if weights.len() != 1 && weights.len() != last {
        return Err(format!("there are {} positive weights for {last} outputs", weights.len()));
    }
    let more: Vec<f64> = weights.iter().map(|&weight| f64::from(weight) - 1.0).collect();
    let more = g.constant(TensorData::from_f64(g.data_type(x), &[more.len()], &more));
    let extra = g.mul(more, y);
    let weight = g.add_scalar(extra, 1.0);
    let negative_target = g.sub_from(1.0, y);
    let minus_x = g.neg(x);
    let positive = g.unary("Relu", minus_x);
    let softplus = g.add(positive, log);
    let linear = g.mul(negative_target, x);
    let weighted = g.mul(weight, softplus);
    let rest = g.sub_from(1.0, probability);
    let pull = g.mul(weight, rest);
    Ok(Elementwise { values: g.add(linear, weighted), slopes: g.sub(negative_target, pull) })
}

/// `-(y log x + (1 - y) log(1 - x))` with logarithms not below -100; the slope is
/// `(x - y) / max(x (1 - x), 1e-12)` (both bounds are those of PyTorch's `BCELoss`).
fn probabilities(g: &mut Builder, x: Value, y: Value) -> Elementwise {
    let rest = g.sub_from(1.0, x);
    let other = g.sub_from(1.0, y);
    let floor = g.scalar(-100.0, x);
    let mut parts = [x, rest];
    for (part, share) in parts.iter_mut().zip([y, other]) {
        let log = g.unary("Log", *part);
        let bounded = g.binary("Max", log, floor);
        *part = g.mul(share, bounded);
    }
    let sum = g.add(parts[0], parts[1]);
    let product = g.mul(x, rest);
    let least = g.scalar(1e-12, x);
    let denominator = g.binary("Max", product, least);
    let error = g.sub(x, y);
    Elementwise { values: g.neg(sum), slopes: g.div(error, denominator) }
}

fn squared_error(g: &mut Builder, x: Value, y: Value) -> Elementwise {
    let error = g.sub(x, y);
    Elementwise { values: g.square(error), slopes: g.scale(error, 2.0) }
}

fn absolute_error(g: &mut Builder, x: Value, y: Value) -> Elementwise {
    let error = g.sub(x, y);
    Elementwise { values: g.unary("Abs", error), slopes: g.unary("Sign", error) }
}

/// With the error `e` and `c = clip(e, -delta, delta)`, the loss is `c (e - c / 2)` and its slope
/// `c`.
fn huber(g: &mut Builder, x: Value, y: Value, delta: f64) -> Elementwise {
    let error = g.sub(x, y);
    let (low, high) = (g.scalar(-delta, x), g.scalar(delta, x));
    let cut = g.op("Clip", &[error, low, high], Attributes::none());
    let half = g.scale(cut, 0.5);
    let rest = g.sub(error, half);
    Elementwise { values: g.mul(cut, rest), slopes: cut }
}

/// `y (log y - x)`, 0 where `y` is 0.
fn kullback_leibler(g: &mut Builder, x: Value, y: Value) -> Elementwise {
    let zero = g.scalar(0.0, y);
    let present = g.binary("Greater", y, zero);
    let one = g.scalar(1.0, y);
    let safe = g.select(present, y, one);
    let log = g.unary("Log", safe);
    let difference = g.sub(log, x);
    Elementwise { values: g.mul(y, difference), slopes: g.neg(y) }
}

/// `max(0, 1 - x y)`, with the slope `-y` where it is positive.
fn hinge(g: &mut Builder, x: Value, y: Value) -> Elementwise {
    let product = g.mul(x, y);
    let margin = g.sub_from(1.0, product);
    let values = g.unary("Relu", margin);
    let condition = g.cast(values, DataType::Bool);
    let mask = g.indicator(condition, x);
    let pull = g.neg(y);
    Elementwise { values, slopes: g.mul(pull, mask) }
}
