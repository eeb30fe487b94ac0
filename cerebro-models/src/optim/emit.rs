//! Optimizers as nodes: one update per parameter.

use std::collections::HashMap;

use super::{ClippingKind, Decay, Momentum, OptimizerKind, UpdateKind};
use crate::graph::{Attributes, Builder, Value};
use crate::kernels;
use crate::onnx::{DataType, TensorData};

/// The packed hyperparameters of a step, unpacked: one-element vectors by name.
#[derive(Clone, Debug)]
pub(crate) struct Hyperparameters {
    names: Vec<&'static str>,
    packed: Value,
    values: HashMap<&'static str, Value>,
}

impl Hyperparameters {
    /// Unpacks `packed`, which holds those of `kind`.
    pub(crate) fn unpack(g: &mut Builder, kind: OptimizerKind, packed: Value) -> Self {
        let names = kind.hyperparameters();
        let attributes = Builder::along(0).with("num_outputs", names.len() as i64);
        let values = g.emit("Split", &[Some(packed)], attributes, names.len());
        let values = names.iter().copied().zip(values).collect();
        Self { names, packed, values }
    }

    /// Those of a group of parameters with factors on learning rate and weight decay.
    pub(crate) fn scaled(&self, g: &mut Builder, learning_rate: f64, weight_decay: f64) -> Self {
        let factor = |name: &str| match name {
            "learning_rate" | "step_size" => learning_rate,
            "weight_decay" => weight_decay,
            _ => 1.0,
        };
        let factors: Vec<f32> = self.names.iter().map(|name| factor(name) as f32).collect();
        let factors = g.constant(TensorData::from_f32(&[factors.len()], &factors));
        let values = self.values.iter();
        Self {
            names: self.names.clone(),
            packed: g.mul(self.packed, factors),
            values: values.map(|(name, value)| (*name, g.scale(*value, factor(name)))).collect(),
        }
    }

    /// The same, in the element type of the parameters that they update.
    pub(crate) fn cast(&self, g: &mut Builder, data_type: DataType) -> Self {
        let values = self.values.iter();
        let values = values.map(|(name, value)| (*name, g.cast(*value, data_type))).collect();
        Self { values, ..self.clone() }
    }

    fn get(&self, name: &'static str) -> Value {
        self.values.get(name).copied().unwrap_or(Value::REFUSED)
    }
}

/// State of the optimizer for one parameter: a tensor of the parameter's shape.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    pub(crate) name: &'static str,
    pub(crate) initial: f32,
}

/// A parameter and its slots after an update.
#[derive(Debug)]
pub(crate) struct Updated {
    pub(crate) parameter: Value,
    pub(crate) slots: Vec<Value>,
}

impl OptimizerKind {
    /// The names of the packed hyperparameters, in their order.
    pub(crate) fn hyperparameters(self) -> Vec<&'static str> {
        let mut names = vec!["learning_rate"];
        if self.decay.is_some() {
            names.push("weight_decay");
        }
        if self.clipping != ClippingKind::None {
            names.push("limit");
        }
        names.extend_from_slice(match self.update {
            UpdateKind::Sgd { momentum: Momentum::None } => &[],
            UpdateKind::Sgd { .. } => &["momentum", "gradient_share"],
            UpdateKind::Adam => {
                &["beta1", "rest1", "beta2", "rest2", "step_size", "scale", "epsilon"]
            }
            UpdateKind::RmsProp { momentum: false, .. } => &["alpha", "rest", "epsilon"],
            UpdateKind::RmsProp { momentum: true, .. } => &["alpha", "rest", "epsilon", "momentum"],
            UpdateKind::Adagrad => &["step_size", "epsilon"],
            UpdateKind::Lamb => {
                &["beta1", "rest1", "beta2", "rest2", "scale1", "scale2", "epsilon"]
            }
            UpdateKind::Lion => &["beta1", "rest1", "beta2", "rest2"],
        });
        names
    }

    /// The state that it keeps for each parameter.
    pub(crate) fn slots(self) -> Vec<Slot> {
        let names: &[&'static str] = match self.update {
            UpdateKind::Sgd { momentum: Momentum::None } => &[],
            UpdateKind::Sgd { .. } | UpdateKind::Lion => &["momentum"],
            UpdateKind::Adam | UpdateKind::Lamb => &["first_moment", "second_moment"],
            UpdateKind::Adagrad => &["squares"],
            UpdateKind::RmsProp { momentum, centered } => match (momentum, centered) {
                (false, false) => &["squares"],
                (false, true) => &["squares", "average"],
                (true, false) => &["squares", "momentum"],
                (true, true) => &["squares", "average", "momentum"],
            },
        };
        names.iter().map(|name| Slot { name, initial: 0.0 }).collect()
    }

    /// Clips all gradients together.
    pub(crate) fn clip(self, g: &mut Builder, hyper: &Hyperparameters, gradients: &mut [Value]) {
        match self.clipping {
            ClippingKind::None => {}
            ClippingKind::Value => {
                let limit = hyper.get("limit");
                let lowest = g.neg(limit);
                for gradient in gradients {
                    let dims = g.dims(*gradient).to_vec();
                    let bounded = g.binary("Max", *gradient, lowest);
                    let bounded = g.binary("Min", bounded, limit);
                    *gradient = g.reshape(bounded, &dims);
                }
            }
            // gradient * min(1, limit / (norm + 1e-6)), as PyTorch's `clip_grad_norm_`.
            ClippingKind::Norm => {
                let squares: Vec<Value> = gradients
                    .iter()
                    .map(|&gradient| {
                        let squared = g.square(gradient);
                        g.total(squared)
                    })
                    .collect();
                let sum = g.sum(&squares).unwrap_or(Value::REFUSED);
                let norm = g.unary("Sqrt", sum);
                let norm = g.add_scalar(norm, 1e-6);
                let ratio = g.div(hyper.get("limit"), norm);
                let one = g.scalar(1.0, ratio);
                let factor = g.binary("Min", ratio, one);
                for gradient in gradients {
                    let dims = g.dims(*gradient).to_vec();
                    let scaled = g.mul(*gradient, factor);
                    *gradient = g.reshape(scaled, &dims);
                }
            }
        }
    }

    /// Emits the update of a parameter.
    pub(crate) fn emit(
        self,
        g: &mut Builder,
        hyper: &Hyperparameters,
        parameter: Value,
        gradient: Value,
        slots: &[Value],
    ) -> Updated {
        if let Some(updated) = self.emit_fused(g, hyper, parameter, gradient, slots) {
            return updated;
        }
        let dims = g.dims(parameter).to_vec();
        let mut at = Update { g, hyper, parameter, gradient, slots };
        let decoupled = self.decay == Some(Decay::Decoupled) && self.update != UpdateKind::Lamb;
        if self.decay == Some(Decay::Coupled) {
            let pull = at.times("weight_decay", parameter);
            at.gradient = at.g.add(gradient, pull);
        } else if decoupled {
            // p (1 - learning_rate * decay)
            let (rate, decay) = (hyper.get("learning_rate"), hyper.get("weight_decay"));
            let product = at.g.mul(rate, decay);
            let kept = at.g.sub_from(1.0, product);
            at.parameter = at.g.mul(parameter, kept);
        }
        let mut updated = match self.update {
            UpdateKind::Sgd { momentum } => at.sgd(momentum),
            UpdateKind::Adam => at.adam(),
            UpdateKind::RmsProp { momentum, centered } => at.rmsprop(momentum, centered),
            UpdateKind::Adagrad => at.adagrad(),
            UpdateKind::Lamb => at.lamb(self.decay == Some(Decay::Decoupled)),
            UpdateKind::Lion => at.lion(),
        };
        // Hyperparameters are vectors of one element: a scalar parameter has become one too.
        updated.parameter = g.reshape(updated.parameter, &dims);
        for slot in &mut updated.slots {
            *slot = g.reshape(*slot, &dims);
        }
        updated
    }
}

impl OptimizerKind {
    /// Emits the update as one node, where the graph may have such a node.
    fn emit_fused(
        self,
        g: &mut Builder,
        hyper: &Hyperparameters,
        parameter: Value,
        gradient: Value,
        slots: &[Value],
    ) -> Option<Updated> {
        if !g.dialect().is_fused() || g.data_type(parameter) != DataType::Float32 {
            return None;
        }
        let (op, first) = match self.update {
            UpdateKind::Sgd { momentum: Momentum::None } => (kernels::SGD, None),
            UpdateKind::Sgd { .. } => (kernels::MOMENTUM, Some("momentum")),
            UpdateKind::Adam => (kernels::ADAM, Some("beta1")),
            UpdateKind::RmsProp { momentum, centered } => {
                (kernels::rmsprop(centered, momentum), Some("alpha"))
            }
            UpdateKind::Adagrad => (kernels::ADAGRAD, Some("step_size")),
            UpdateKind::Lamb => (kernels::LAMB, Some("beta1")),
            UpdateKind::Lion => (kernels::LION, Some("beta1")),
        };
        let rule = first.and_then(|first| hyper.names.iter().position(|name| *name == first));
        let decay = match self.decay {
            None => 0,
            Some(Decay::Coupled) => 1,
            Some(Decay::Decoupled) => 2,
        };
        let nesterov = self.update == UpdateKind::Sgd { momentum: Momentum::Nesterov };
        let attributes = Attributes::none()
            .with("decay", decay)
            .with("rule", rule.unwrap_or_default() as i64)
            .with("nesterov", i64::from(nesterov));
        let inputs: Vec<Option<Value>> =
            [hyper.packed, parameter, gradient].iter().chain(slots).copied().map(Some).collect();
        let outputs = g.emit(op, &inputs, attributes, 1 + slots.len());
        Some(Updated { parameter: outputs[0], slots: outputs[1..].to_vec() })
    }
}

/// What an update is made of.
struct Update<'a> {
    g: &'a mut Builder,
    hyper: &'a Hyperparameters,
    parameter: Value,
    gradient: Value,
    slots: &'a [Value],
}

impl Update<'_> {
    fn times(&mut self, name: &'static str, value: Value) -> Value {
        self.g.mul(value, self.hyper.get(name))
    }

    fn slot(&self, index: usize) -> Value {
        self.slots.get(index).copied().unwrap_or(Value::REFUSED)
    }

    /// `slot * old_share + value * new_share`.
    fn blend(
        &mut self,
        slot: Value,
        old_share: &'static str,
        value: Value,
        new_share: &'static str,
    ) -> Value {
        let old = self.times(old_share, slot);
        let new = self.times(new_share, value);
        self.g.add(old, new)
    }

    /// `parameter - rate * direction`.
    fn step(&mut self, rate: &'static str, direction: Value) -> Value {
        let step = self.times(rate, direction);
        self.g.sub(self.parameter, step)
    }

    /// The buffer starts at 0 and `gradient_share` is 1 in the first step, so that the buffer
    /// becomes the first gradient.
    fn sgd(mut self, momentum: Momentum) -> Updated {
        if momentum == Momentum::None {
            let parameter = self.step("learning_rate", self.gradient);
            return Updated { parameter, slots: Vec::new() };
        }
        let buffer = self.blend(self.slot(0), "momentum", self.gradient, "gradient_share");
        let direction = if momentum == Momentum::Nesterov {
            let ahead = self.times("momentum", buffer);
            self.g.add(self.gradient, ahead)
        } else {
            buffer
        };
        Updated { parameter: self.step("learning_rate", direction), slots: vec![buffer] }
    }

    /// First and second moments of the gradient.
    fn moments(&mut self) -> (Value, Value) {
        let first = self.blend(self.slot(0), "beta1", self.gradient, "rest1");
        let squared = self.g.square(self.gradient);
        let second = self.blend(self.slot(1), "beta2", squared, "rest2");
        (first, second)
    }

    /// `value / (sqrt(square) * scale + epsilon)`.
    fn normalized(&mut self, value: Value, square: Value, scale: Option<&'static str>) -> Value {
        let mut root = self.g.unary("Sqrt", square);
        if let Some(scale) = scale {
            root = self.times(scale, root);
        }
        let denominator = self.g.add(root, self.hyper.get("epsilon"));
        self.g.div(value, denominator)
    }

    fn adam(mut self) -> Updated {
        let (first, second) = self.moments();
        let direction = self.normalized(first, second, Some("scale"));
        Updated { parameter: self.step("step_size", direction), slots: vec![first, second] }
    }

    fn rmsprop(mut self, momentum: bool, centered: bool) -> Updated {
        let squared = self.g.square(self.gradient);
        let squares = self.blend(self.slot(0), "alpha", squared, "rest");
        let mut slots = vec![squares];
        let mut variance = squares;
        if centered {
            let average = self.blend(self.slot(1), "alpha", self.gradient, "rest");
            let average_squared = self.g.square(average);
            // Of a gradient that stays the same it is 0, and rounding makes it less.
            let difference = self.g.sub(squares, average_squared);
            let zero = self.g.scalar(0.0, difference);
            variance = self.g.binary("Max", difference, zero);
            slots.push(average);
        }
        let mut direction = self.normalized(self.gradient, variance, None);
        if momentum {
            let kept = self.times("momentum", self.slot(slots.len()));
            direction = self.g.add(kept, direction);
            slots.push(direction);
        }
        Updated { parameter: self.step("learning_rate", direction), slots }
    }

    fn adagrad(mut self) -> Updated {
        let squared = self.g.square(self.gradient);
        let squares = self.g.add(self.slot(0), squared);
        let direction = self.normalized(self.gradient, squares, None);
        Updated { parameter: self.step("step_size", direction), slots: vec![squares] }
    }

    /// Adam's direction plus the decay, scaled by `|p| / |direction|` (1 where either is 0).
    fn lamb(mut self, decay: bool) -> Updated {
        let (first, second) = self.moments();
        let unbiased = self.times("scale1", first);
        let mut direction = self.normalized(unbiased, second, Some("scale2"));
        if decay {
            let pull = self.times("weight_decay", self.parameter);
            direction = self.g.add(direction, pull);
        }
        let (weight, length) = (self.norm(self.parameter), self.norm(direction));
        let zero = self.g.scalar(0.0, weight);
        let product = self.g.mul(weight, length);
        let usable = self.g.binary("Greater", product, zero);
        let one = self.g.scalar(1.0, weight);
        let divisor = self.g.select(usable, length, one);
        let ratio = self.g.div(weight, divisor);
        let trust = self.g.select(usable, ratio, one);
        let direction = self.g.mul(direction, trust);
        Updated { parameter: self.step("learning_rate", direction), slots: vec![first, second] }
    }

    fn norm(&mut self, value: Value) -> Value {
        let squared = self.g.square(value);
        let sum = self.g.total(squared);
        self.g.unary("Sqrt", sum)
    }

    fn lion(mut self) -> Updated {
        let blended = self.blend(self.slot(0), "beta1", self.gradient, "rest1");
        let direction = self.g.op("Sign", &[blended], Attributes::none());
        let momentum = self.blend(self.slot(0), "beta2", self.gradient, "rest2");
        Updated { parameter: self.step("learning_rate", direction), slots: vec![momentum] }
    }
}

#[cfg(test)]
mod tests {
    use crate::optim::{Clipping, Optimizer};

    #[test]
    fn as_many_hyperparameters_are_fed_as_the_graph_unpacks() {
        let rules = [
            Optimizer::sgd(0.1),
            Optimizer::sgd(0.1).momentum(0.9),
            Optimizer::sgd(0.1).momentum(0.9).nesterov(),
            Optimizer::adam(0.1),
            Optimizer::adamw(0.1),
            Optimizer::rmsprop(0.1),
            Optimizer::rmsprop(0.1).momentum(0.9),
            Optimizer::adagrad(0.1),
            Optimizer::lamb(0.1),
            Optimizer::lion(0.1),
        ];
        for rule in rules {
            for optimizer in [
                rule.clone(),
                rule.clone().weight_decay(0.1),
                rule.clone().clipping(Clipping::Norm(1.0)),
                rule.weight_decay(0.1).clipping(Clipping::Value(1.0)),
            ] {
                let fed = optimizer.hyperparameters(1, 0.1).len();
                assert_eq!(fed, optimizer.kind().hyperparameters().len(), "{optimizer:?}");
            }
        }
    }
}
