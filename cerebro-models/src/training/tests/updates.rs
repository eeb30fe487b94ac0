//! Updates against the formulas of the papers and of PyTorch's documentation, in float64.

use super::*;
use crate::optim::{Clipping, Update};
use crate::training::{HYPERPARAMETERS, ParameterGroup, TARGET, gradient_name};

const X: [f32; 12] = [1.0, -2.0, 0.5, 0.3, 0.8, -1.2, -0.7, 0.4, 1.5, 2.0, 0.1, -0.6];
const Y: [f32; 8] = [1.0, 0.0, -1.0, 2.0, 0.5, -0.5, 3.0, 1.0];

/// The host's own version of an optimizer, of one parameter.
struct Simulated {
    parameter: Vec<f64>,
    slots: [Vec<f64>; 3],
}

/// One step of `optimizer` on `parameter` with the gradient `gradient`.
fn step(optimizer: &Optimizer, t: i32, state: &mut Simulated, gradient: &[f64]) {
    let (lr, wd) = (optimizer.learning_rate, optimizer.weight_decay);
    let decoupled = optimizer.decay == crate::optim::Decay::Decoupled;
    let count = gradient.len();
    let mut directions = vec![0.0; count];
    for index in 0..count {
        let mut g = gradient[index];
        let is_lamb = matches!(optimizer.update, Update::Lamb { .. });
        if decoupled && !is_lamb {
            state.parameter[index] *= 1.0 - lr * wd;
        } else if !decoupled {
            g += wd * state.parameter[index];
        }
        let [a, b, c] = &mut state.slots;
        directions[index] = match optimizer.update {
            Update::Sgd { momentum, dampening, nesterov } => {
                a[index] = if t == 1 { g } else { momentum * a[index] + (1.0 - dampening) * g };
                match (momentum == 0.0, nesterov) {
                    (true, _) => g,
                    (false, true) => g + momentum * a[index],
                    (false, false) => a[index],
                }
            }
            Update::Adam { betas, epsilon } | Update::Lamb { betas, epsilon } => {
                a[index] = betas.0 * a[index] + (1.0 - betas.0) * g;
                b[index] = betas.1 * b[index] + (1.0 - betas.1) * g * g;
                let first = a[index] / (1.0 - betas.0.powi(t));
                let second = b[index] / (1.0 - betas.1.powi(t));
                let direction = first / (second.sqrt() + epsilon);
                if is_lamb { direction + wd * state.parameter[index] } else { direction }
            }
            Update::RmsProp { alpha, epsilon, momentum, centered } => {
                a[index] = alpha * a[index] + (1.0 - alpha) * g * g;
                b[index] = alpha * b[index] + (1.0 - alpha) * g;
                let variance = if centered { a[index] - b[index].powi(2) } else { a[index] };
                let direction = g / (variance.sqrt() + epsilon);
                c[index] = momentum * c[index] + direction;
                c[index]
            }
            Update::Adagrad { learning_rate_decay, epsilon } => {
                a[index] += g * g;
                let rate = 1.0 / (1.0 + f64::from(t - 1) * learning_rate_decay);
                rate * g / (a[index].sqrt() + epsilon)
            }
            Update::Lion { betas } => {
                let direction = (betas.0 * a[index] + (1.0 - betas.0) * g).signum();
                a[index] = betas.1 * a[index] + (1.0 - betas.1) * g;
                direction
            }
        };
    }
    let mut trust = 1.0;
    if matches!(optimizer.update, Update::Lamb { .. }) {
        let norm = |values: &[f64]| values.iter().map(|value| value * value).sum::<f64>().sqrt();
        let (weight, length) = (norm(&state.parameter), norm(&directions));
        trust = if weight * length > 0.0 { weight / length } else { 1.0 };
    }
    for (parameter, direction) in state.parameter.iter_mut().zip(directions) {
        *parameter -= lr * trust * direction;
    }
}

/// Trains the linear layer for four steps, in a graph and on the host, and compares.
fn check(optimizer: &Optimizer, groups: &[ParameterGroup]) {
    let mut spec = spec();
    spec.optimizer = optimizer.kind();
    spec.groups = groups.to_vec();
    let blueprint = Blueprint::new(linear(), spec).unwrap();
    let shapes = InputShapes::rows(4);
    let step_graph = blueprint.step(&shapes).unwrap();
    let gradient_graph = blueprint.gradients(&shapes).unwrap();
    let mut fed = initial(&blueprint);
    fed.insert("x".to_owned(), (vec![4, 3], X.to_vec()));
    fed.insert(TARGET.to_owned(), (vec![4, 2], Y.to_vec()));
    let mut simulated: BTreeMap<&str, Simulated> = ["weight", "bias"]
        .into_iter()
        .map(|name| {
            let parameter: Vec<f64> = fed[name].1.iter().map(|&value| f64::from(value)).collect();
            let slots = [(); 3].map(|()| vec![0.0; parameter.len()]);
            (name, Simulated { parameter, slots })
        })
        .collect();
    for t in 1..=4 {
        let gradients = run(&gradient_graph, &fed);
        let values = optimizer.hyperparameters(t as u64, optimizer.learning_rate);
        fed.insert(HYPERPARAMETERS.to_owned(), (vec![values.len()], values));
        let outputs = run(&step_graph, &fed);
        let mut clipped: BTreeMap<&str, Vec<f64>> = simulated
            .keys()
            .map(|name| {
                (*name, gradients[&gradient_name(name)].iter().map(|&g| f64::from(g)).collect())
            })
            .collect();
        clip(optimizer.clipping, &mut clipped);
        for (name, state) in &mut simulated {
            let mut own = optimizer.clone();
            if let Some(group) = groups.iter().find(|group| group.pattern == *name) {
                own.learning_rate *= group.learning_rate;
                own.weight_decay *= group.weight_decay;
            }
            step(&own, t, state, &clipped[name]);
            let found = &outputs[&format!("{name}/new")];
            for (found, expected) in found.iter().zip(&state.parameter) {
                assert!(
                    (f64::from(*found) - expected).abs() < 1e-4 * (1.0 + expected.abs()),
                    "{optimizer:?}, step {t}, {name}: {found} for {expected}"
                );
            }
        }
        for variable in blueprint.variables() {
            let new = outputs[variable.output.as_ref().unwrap()].clone();
            fed.insert(variable.input.clone(), (variable.dims.clone(), new));
        }
    }
}

fn clip(clipping: Clipping, gradients: &mut BTreeMap<&str, Vec<f64>>) {
    let all = || gradients.values().flatten().map(|g| g * g).sum::<f64>().sqrt();
    match clipping {
        Clipping::None => {}
        Clipping::Norm(limit) => {
            let factor = (limit / (all() + 1e-6)).min(1.0);
            gradients.values_mut().flatten().for_each(|g| *g *= factor);
        }
        Clipping::Value(limit) => {
            gradients.values_mut().flatten().for_each(|g| *g = g.clamp(-limit, limit));
        }
    }
}

#[test]
fn every_optimizer_follows_its_formula() {
    let mut damped = Optimizer::sgd(0.1).momentum(0.9);
    damped.update = Update::Sgd { momentum: 0.9, dampening: 0.3, nesterov: false };
    let mut centered = Optimizer::rmsprop(0.01).momentum(0.8);
    centered.update = Update::RmsProp { alpha: 0.9, epsilon: 1e-6, momentum: 0.8, centered: true };
    let mut slowing = Optimizer::adagrad(0.1);
    slowing.update = Update::Adagrad { learning_rate_decay: 0.5, epsilon: 1e-10 };
    for optimizer in [
        Optimizer::sgd(0.1),
        Optimizer::sgd(0.1).momentum(0.9),
        Optimizer::sgd(0.1).momentum(0.9).nesterov(),
        damped,
        Optimizer::adam(0.05),
        Optimizer::adamw(0.05),
        Optimizer::rmsprop(0.01),
        Optimizer::rmsprop(0.01).momentum(0.8),
        centered,
        Optimizer::adagrad(0.1),
        slowing,
        Optimizer::lamb(0.05),
        Optimizer::lion(0.01),
    ] {
        check(&optimizer, &[]);
        check(&optimizer.clone().weight_decay(0.1), &[]);
    }
}

#[test]
fn gradients_are_clipped_together_by_norm_and_alone_by_value() {
    for clipping in [Clipping::Norm(0.5), Clipping::Norm(1e6), Clipping::Value(0.3)] {
        check(&Optimizer::sgd(0.1).momentum(0.9).clipping(clipping), &[]);
    }
}

#[test]
fn groups_have_learning_rates_and_decays_of_their_own() {
    let groups =
        vec![ParameterGroup { pattern: "bias".to_owned(), learning_rate: 0.5, weight_decay: 0.0 }];
    check(&Optimizer::sgd(0.1).momentum(0.9).weight_decay(0.1), &groups);
    check(&Optimizer::adamw(0.05).weight_decay(0.2), &groups);
}

#[test]
fn frozen_parameters_are_read_and_not_written() {
    let mut spec = spec();
    spec.frozen = vec!["w*".to_owned()];
    let blueprint = Blueprint::new(linear(), spec).unwrap();
    let step = blueprint.step(&InputShapes::rows(4)).unwrap();
    let outputs: Vec<&str> = step.graph.outputs.iter().map(|o| o.name.as_str()).collect();
    assert!(outputs.contains(&"bias/new") && !outputs.contains(&"weight/new"), "{outputs:?}");
    assert!(step.graph.inputs.iter().any(|input| input.name == "weight"));
}
