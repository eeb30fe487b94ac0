//! The problems, as `problems.py` has them for Optuna; the comparison checks that they agree.

use std::f64::consts::PI;

use cerebro_core::space::SpaceError;
use cerebro_core::{Config, ConfigError, Seed, Space};

/// Something to minimise.
pub(crate) struct Problem {
    pub(crate) name: &'static str,
    pub(crate) space: Space,
    /// Epochs of a trial: more than one where trials have learning curves.
    pub(crate) max_epochs: u32,
    /// Epochs that a search may spend.
    pub(crate) budget: u32,
    /// The loss after some epochs, without noise.
    pub(crate) loss: fn(&Config, u32) -> Result<f64, ConfigError>,
    /// The standard deviation of what a trial reports.
    pub(crate) noise: f64,
}

pub(crate) fn all() -> Result<Vec<Problem>, SpaceError> {
    let simple = |name, space, budget, loss| Problem {
        name,
        space,
        max_epochs: 1,
        budget,
        loss,
        noise: 0.0,
    };
    Ok(vec![
        simple("branin", box_space(&[(-5.0, 10.0), (0.0, 15.0)])?, 100, branin),
        simple("hartmann-6", box_space(&[(0.0, 1.0); 6])?, 100, hartmann6),
        simple("rosenbrock-5", box_space(&[(-5.0, 10.0); 5])?, 100, rosenbrock5),
        simple("conditional", conditional_space()?, 100, conditional),
        Problem {
            name: "learning curves",
            space: curve_space()?,
            max_epochs: 27,
            budget: 27 * 30,
            loss: curve,
            noise: 0.02,
        },
    ])
}

/// What trial `trial` of seed `seed` reports after `epoch` epochs.
pub(crate) fn observed(
    problem: &Problem,
    config: &Config,
    seed: u64,
    trial: u64,
    epoch: u32,
) -> Result<f64, ConfigError> {
    let noise = Seed(seed).derive("noise", &[trial, u64::from(epoch)]).rng().normal();
    Ok((problem.loss)(config, epoch)? + problem.noise * noise)
}

fn box_space(bounds: &[(f64, f64)]) -> Result<Space, SpaceError> {
    let named = bounds.iter().enumerate();
    named
        .fold(Space::builder(), |space, (index, (min, max))| {
            space.uniform(format!("x{index}"), *min, *max)
        })
        .build()
}

fn coordinates<const N: usize>(config: &Config) -> Result<[f64; N], ConfigError> {
    let mut x = [0.0; N];
    for (index, value) in x.iter_mut().enumerate() {
        *value = config.float(&format!("x{index}"))?;
    }
    Ok(x)
}

fn branin(config: &Config, _: u32) -> Result<f64, ConfigError> {
    let [x, y] = coordinates(config)?;
    let bowl = y - 5.1 / (4.0 * PI * PI) * x * x + 5.0 / PI * x - 6.0;
    Ok(bowl * bowl + 10.0 * (1.0 - 1.0 / (8.0 * PI)) * x.cos() + 10.0)
}

fn hartmann6(config: &Config, _: u32) -> Result<f64, ConfigError> {
    const ALPHA: [f64; 4] = [1.0, 1.2, 3.0, 3.2];
    const A: [[f64; 6]; 4] = [
        [10.0, 3.0, 17.0, 3.5, 1.7, 8.0],
        [0.05, 10.0, 17.0, 0.1, 8.0, 14.0],
        [3.0, 3.5, 1.7, 10.0, 17.0, 8.0],
        [17.0, 8.0, 0.05, 10.0, 0.1, 14.0],
    ];
    const P: [[f64; 6]; 4] = [
        [0.1312, 0.1696, 0.5569, 0.0124, 0.8283, 0.5886],
        [0.2329, 0.4135, 0.8307, 0.3736, 0.1004, 0.9991],
        [0.2348, 0.1451, 0.3522, 0.2883, 0.3047, 0.6650],
        [0.4047, 0.8828, 0.8732, 0.5743, 0.1091, 0.0381],
    ];
    let x: [f64; 6] = coordinates(config)?;
    let term = |i: usize| {
        let distance: f64 = (0..6).map(|j| A[i][j] * (x[j] - P[i][j]).powi(2)).sum();
        ALPHA[i] * (-distance).exp()
    };
    Ok(-(0..4).map(term).sum::<f64>())
}

fn rosenbrock5(config: &Config, _: u32) -> Result<f64, ConfigError> {
    let x: [f64; 5] = coordinates(config)?;
    let term = |i: usize| 100.0 * (x[i + 1] - x[i] * x[i]).powi(2) + (1.0 - x[i]).powi(2);
    Ok((0..4).map(term).sum())
}

/// A network and its optimizer: the sizes of as many layers as there are, and what each optimizer
/// has to be told.
fn conditional_space() -> Result<Space, SpaceError> {
    Space::builder()
        .choice("optimizer", ["sgd", "adam"])
        .loguniform("sgd_rate", 1e-5, 1.0)
        .when("optimizer", ["sgd"])
        .uniform("momentum", 0.0, 1.0)
        .when("optimizer", ["sgd"])
        .loguniform("adam_rate", 1e-5, 1.0)
        .when("optimizer", ["adam"])
        .loguniform("decay", 1e-6, 1e-1)
        .when("optimizer", ["adam"])
        .int("layers", 1, 3)
        .loguniform("width1", 8.0, 1024.0)
        .loguniform("width2", 8.0, 1024.0)
        .when("layers", [2, 3])
        .loguniform("width3", 8.0, 1024.0)
        .when("layers", [3])
        .build()
}

fn conditional(config: &Config, _: u32) -> Result<f64, ConfigError> {
    let square = |name: &str, log: f64, best: f64| -> Result<f64, ConfigError> {
        Ok((config.float(name)?.ln() / log.ln() - best).powi(2))
    };
    let optimizer = if config.text("optimizer")? == "sgd" {
        0.3 + 0.5 * square("sgd_rate", 10.0, -1.5)?
            + 4.0 * (config.float("momentum")? - 0.9).powi(2)
    } else {
        0.1 + square("adam_rate", 10.0, -3.0)? + 0.1 * square("decay", 10.0, -4.0)?
    };
    let layers = config.int("layers")?;
    let mut widths = 0.0;
    for layer in 1..=layers {
        widths += 0.1 * square(&format!("width{layer}"), 2.0, 8.0 - layer as f64)?;
    }
    Ok(optimizer + widths + 0.3 * (layers - 2).pow(2) as f64)
}

/// Learning curves fall to a level that the Config determines, the lower ones more slowly: what is
/// best after one epoch is not what is best in the end.
fn curve_space() -> Result<Space, SpaceError> {
    Space::builder()
        .loguniform("rate", 1e-5, 1.0)
        .loguniform("decay", 1e-6, 1e-1)
        .uniform("dropout", 0.0, 0.8)
        .int("width", 4, 256)
        .choice("activation", ["relu", "tanh", "gelu"])
        .build()
}

fn curve(config: &Config, epoch: u32) -> Result<f64, ConfigError> {
    let rate = config.float("rate")?.log10();
    let decay = config.float("decay")?.log10();
    let dropout = config.float("dropout")?;
    let width = config.float("width")?.log2();
    let activation = match config.text("activation")? {
        "relu" => 0.02,
        "gelu" => 0.0,
        _ => 0.08,
    };
    let level = 0.05
        + 0.08 * (rate + 2.5).powi(2)
        + 0.01 * (decay + 4.0).powi(2)
        + 0.3 * (dropout - 0.2).powi(2)
        + 0.01 * (width - 6.5).powi(2)
        + activation;
    let epochs = 1.5 + 0.25 * (-rate).max(0.0) + 0.05 * width;
    Ok(level + (2.3 - level.min(2.3)) * (-f64::from(epoch) / epochs).exp())
}
