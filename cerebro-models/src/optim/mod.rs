//! Optimizers: their settings on the host, their structure in the graph.
//!
//! A step graph holds the structure ([`OptimizerKind`]); the numbers are fed each step as one
//! packed vector ([`Optimizer::hyperparameters`]), so that trials with other learning rates,
//! decays or momenta share a session.

mod emit;

pub(crate) use emit::Hyperparameters;

use serde::{Deserialize, Serialize};

/// An optimizer with its settings. Definitions are PyTorch's, where it has the optimizer.
///
/// ```
/// use cerebro_models::optim::Optimizer;
/// let sgd = Optimizer::sgd(0.1).momentum(0.9).weight_decay(1e-4);
/// let other = Optimizer::sgd(0.01).momentum(0.8).weight_decay(1e-3);
/// assert_eq!(sgd.kind(), other.kind());
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Optimizer {
    /// The step size, if no schedule gives it.
    pub learning_rate: f64,
    /// The strength of the pull towards zero.
    pub weight_decay: f64,
    /// Whether the pull is part of the gradient.
    pub decay: Decay,
    /// What is done to large gradients.
    pub clipping: Clipping,
    /// The rule that makes an update of a gradient.
    pub update: Update,
}

/// How weight decay enters the update.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decay {
    /// `decay * p` is added to the gradient, as an L2 penalty would.
    Coupled,
    /// `p` is multiplied by `1 - learning_rate * decay` (Loshchilov and Hutter 2019, "Decoupled
    /// weight decay regularization").
    Decoupled,
}

/// What is done to large gradients before the update.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Clipping {
    /// Nothing.
    #[default]
    None,
    /// All gradients together are scaled down to this L2 norm.
    Norm(f64),
    /// Each element is cut to this absolute value.
    Value(f64),
}

/// The rule that makes an update of a gradient, with its settings.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case")]
#[allow(missing_docs, reason = "the settings are named as in the papers and in PyTorch")]
pub enum Update {
    /// Stochastic gradient descent; with momentum as PyTorch has it: the buffer starts as the
    /// first gradient.
    Sgd { momentum: f64, dampening: f64, nesterov: bool },
    /// Kingma and Ba 2015, "Adam: a method for stochastic optimization".
    Adam { betas: (f64, f64), epsilon: f64 },
    /// Tieleman and Hinton 2012, lecture 6.5; `centered` as in Graves 2013.
    RmsProp { alpha: f64, epsilon: f64, momentum: f64, centered: bool },
    /// Duchi, Hazan and Singer 2011.
    Adagrad { learning_rate_decay: f64, epsilon: f64 },
    /// You et al. 2020, "Large batch optimization for deep learning".
    Lamb { betas: (f64, f64), epsilon: f64 },
    /// Chen et al. 2023, "Symbolic discovery of optimization algorithms".
    Lion { betas: (f64, f64) },
}

/// The structure of an optimizer: what a step graph depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct OptimizerKind {
    /// The rule.
    pub update: UpdateKind,
    /// Weight decay, if there is any.
    pub decay: Option<Decay>,
    /// Clipping.
    pub clipping: ClippingKind,
}

/// The structure of [`Clipping`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "those of `Clipping`")]
pub enum ClippingKind {
    #[default]
    None,
    Norm,
    Value,
}

/// The structure of [`Update`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case")]
#[allow(missing_docs, reason = "those of `Update`")]
pub enum UpdateKind {
    Sgd { momentum: Momentum },
    Adam,
    RmsProp { momentum: bool, centered: bool },
    Adagrad,
    Lamb,
    Lion,
}

/// The structure of momentum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Momentum {
    /// None.
    None,
    /// The update is the buffer.
    Classical,
    /// The update looks ahead (Nesterov 1983, in the form of Sutskever et al. 2013).
    Nesterov,
}

impl Optimizer {
    fn new(learning_rate: f64, update: Update) -> Self {
        Self {
            learning_rate,
            weight_decay: 0.0,
            decay: Decay::Coupled,
            clipping: Clipping::None,
            update,
        }
    }

    /// Plain stochastic gradient descent.
    pub fn sgd(learning_rate: f64) -> Self {
        let update = Update::Sgd { momentum: 0.0, dampening: 0.0, nesterov: false };
        Self::new(learning_rate, update)
    }

    /// Adam with betas 0.9 and 0.999, epsilon 1e-8 and coupled weight decay.
    pub fn adam(learning_rate: f64) -> Self {
        Self::new(learning_rate, Update::Adam { betas: (0.9, 0.999), epsilon: 1e-8 })
    }

    /// Adam with decoupled weight decay, 0.01 unless set.
    pub fn adamw(learning_rate: f64) -> Self {
        Self { decay: Decay::Decoupled, weight_decay: 0.01, ..Self::adam(learning_rate) }
    }

    /// RMSprop with alpha 0.99 and epsilon 1e-8.
    pub fn rmsprop(learning_rate: f64) -> Self {
        let update = Update::RmsProp { alpha: 0.99, epsilon: 1e-8, momentum: 0.0, centered: false };
        Self::new(learning_rate, update)
    }

    /// Adagrad with epsilon 1e-10.
    pub fn adagrad(learning_rate: f64) -> Self {
        Self::new(learning_rate, Update::Adagrad { learning_rate_decay: 0.0, epsilon: 1e-10 })
    }

    /// LAMB with betas 0.9 and 0.999, epsilon 1e-6 and decoupled weight decay.
    pub fn lamb(learning_rate: f64) -> Self {
        let update = Update::Lamb { betas: (0.9, 0.999), epsilon: 1e-6 };
        Self { decay: Decay::Decoupled, ..Self::new(learning_rate, update) }
    }

    /// Lion with betas 0.9 and 0.99 and decoupled weight decay.
    pub fn lion(learning_rate: f64) -> Self {
        let update = Update::Lion { betas: (0.9, 0.99) };
        Self { decay: Decay::Decoupled, ..Self::new(learning_rate, update) }
    }

    /// Sets the weight decay.
    pub fn weight_decay(mut self, weight_decay: f64) -> Self {
        self.weight_decay = weight_decay;
        self
    }

    /// Sets the momentum of SGD or RMSprop; other rules have none and stay as they are.
    pub fn momentum(mut self, value: f64) -> Self {
        if let Update::Sgd { momentum, .. } | Update::RmsProp { momentum, .. } = &mut self.update {
            *momentum = value;
        }
        self
    }

    /// Makes SGD's momentum Nesterov's; other rules stay as they are.
    pub fn nesterov(mut self) -> Self {
        if let Update::Sgd { nesterov, .. } = &mut self.update {
            *nesterov = true;
        }
        self
    }

    /// Sets what is done to large gradients.
    pub fn clipping(mut self, clipping: Clipping) -> Self {
        self.clipping = clipping;
        self
    }

    /// The structure, which decides the step graph.
    pub fn kind(&self) -> OptimizerKind {
        OptimizerKind {
            decay: (self.weight_decay != 0.0).then_some(self.decay),
            clipping: match self.clipping {
                Clipping::None => ClippingKind::None,
                Clipping::Norm(_) => ClippingKind::Norm,
                Clipping::Value(_) => ClippingKind::Value,
            },
            update: match self.update {
                Update::Sgd { momentum: 0.0, .. } => UpdateKind::Sgd { momentum: Momentum::None },
                Update::Sgd { nesterov: true, .. } => {
                    UpdateKind::Sgd { momentum: Momentum::Nesterov }
                }
                Update::Sgd { .. } => UpdateKind::Sgd { momentum: Momentum::Classical },
                Update::Adam { .. } => UpdateKind::Adam,
                Update::RmsProp { momentum, centered, .. } => {
                    UpdateKind::RmsProp { momentum: momentum != 0.0, centered }
                }
                Update::Adagrad { .. } => UpdateKind::Adagrad,
                Update::Lamb { .. } => UpdateKind::Lamb,
                Update::Lion { .. } => UpdateKind::Lion,
            },
        }
    }

    /// The packed hyperparameters of a step: what the input
    /// [`HYPERPARAMETERS`](crate::training::HYPERPARAMETERS) of a step graph of this
    /// [`kind`](Self::kind) is fed with.
    ///
    /// `step` counts from 1; `learning_rate` is the one of this step.
    pub fn hyperparameters(&self, step: u64, learning_rate: f64) -> Vec<f32> {
        let mut values = vec![learning_rate];
        if self.weight_decay != 0.0 {
            values.push(self.weight_decay);
        }
        if let Clipping::Norm(limit) | Clipping::Value(limit) = self.clipping {
            values.push(limit);
        }
        let exponent = i32::try_from(step).unwrap_or(i32::MAX);
        // 1 - beta^t: what makes an average that started at zero unbiased.
        let correction = |beta: f64| 1.0 - beta.powi(exponent);
        match self.update {
            Update::Sgd { momentum: 0.0, .. } => {}
            Update::Sgd { momentum, dampening, .. } => {
                values.extend([momentum, if step == 1 { 1.0 } else { 1.0 - dampening }]);
            }
            Update::Adam { betas: (b1, b2), epsilon } => {
                // p -= lr / (1 - b1^t) * m / (sqrt(v) / sqrt(1 - b2^t) + epsilon)
                let step_size = learning_rate / correction(b1);
                let scale = 1.0 / correction(b2).sqrt();
                values.extend([b1, 1.0 - b1, b2, 1.0 - b2, step_size, scale, epsilon]);
            }
            Update::RmsProp { alpha, epsilon, momentum, .. } => {
                values.extend([alpha, 1.0 - alpha, epsilon]);
                if momentum != 0.0 {
                    values.push(momentum);
                }
            }
            Update::Adagrad { learning_rate_decay, epsilon } => {
                let decay = 1.0 + (step.saturating_sub(1)) as f64 * learning_rate_decay;
                values.extend([learning_rate / decay, epsilon]);
            }
            Update::Lamb { betas: (b1, b2), epsilon } => {
                let (first, second) = (1.0 / correction(b1), 1.0 / correction(b2).sqrt());
                values.extend([b1, 1.0 - b1, b2, 1.0 - b2, first, second, epsilon]);
            }
            Update::Lion { betas: (b1, b2) } => {
                values.extend([b1, 1.0 - b1, b2, 1.0 - b2]);
            }
        }
        values.into_iter().map(|value| value as f32).collect()
    }
}
