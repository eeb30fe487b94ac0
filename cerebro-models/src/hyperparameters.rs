//! The hyperparameters of training that are read from a Config.

use std::fmt::Display;

use cerebro_core::{Config, ConfigError};

use crate::optim::{Clipping, Optimizer, Update};
use crate::schedule::Schedule;

/// Those that every optimizer has.
const ALWAYS: [&str; 7] = [
    "accumulate",
    "batch_size",
    "clip_norm",
    "clip_value",
    "learning_rate",
    "optimizer",
    "weight_decay",
];

const OPTIMIZERS: &str = "one of sgd, adam, adamw, rmsprop, adagrad, lamb, lion";

/// How a trial trains.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Hyperparameters {
    pub(crate) optimizer: Optimizer,
    pub(crate) schedule: Schedule,
    pub(crate) batch_size: usize,
    /// The batches of an update.
    pub(crate) accumulate: usize,
}

impl Hyperparameters {
    /// Reads `config`; names that training does not know must be among `others`.
    pub(crate) fn read(config: &Config, others: &[String]) -> Result<Self, ConfigError> {
        let name = config.text("optimizer")?;
        let (optimizer, own): (fn(f64) -> Optimizer, &[&str]) = match name {
            "sgd" => (Optimizer::sgd, &["dampening", "momentum", "nesterov"]),
            "adam" => (Optimizer::adam, &["beta1", "beta2", "epsilon"]),
            "adamw" => (Optimizer::adamw, &["beta1", "beta2", "epsilon"]),
            "rmsprop" => (Optimizer::rmsprop, &["epsilon", "momentum", "smoothing"]),
            "adagrad" => (Optimizer::adagrad, &["epsilon"]),
            "lamb" => (Optimizer::lamb, &["beta1", "beta2", "epsilon"]),
            "lion" => (Optimizer::lion, &["beta1", "beta2"]),
            other => return Err(invalid("optimizer", other, "unknown", OPTIMIZERS)),
        };
        let others = others.iter().map(String::as_str);
        let known = ALWAYS.into_iter().chain(own.iter().copied()).chain(Schedule::names(config)?);
        config.only(&known.chain(others).collect::<Vec<_>>())?;

        let learning_rate = number(config, "learning_rate", Range::AtLeastZero)?;
        let mut optimizer = optimizer(learning_rate.unwrap_or_default());
        set(&mut optimizer.weight_decay, number(config, "weight_decay", Range::AtLeastZero)?);
        optimizer.clipping = clipping(config)?;
        read_update(config, &mut optimizer.update)?;
        let schedule = Schedule::read(config, optimizer.learning_rate)?;
        let accumulate = config.get("accumulate").map(|_| config.size("accumulate")).transpose()?;
        let batch_size = config.size("batch_size")?;
        Ok(Self { optimizer, schedule, batch_size, accumulate: accumulate.unwrap_or(1) })
    }
}

/// Reads the settings of the rule that turns a gradient into an update.
fn read_update(config: &Config, update: &mut Update) -> Result<(), ConfigError> {
    let fraction = |name| number(config, name, Range::Fraction);
    let epsilon_set = number(config, "epsilon", Range::AtLeastZero)?;
    match update {
        Update::Sgd { momentum, dampening, nesterov } => {
            set(momentum, fraction("momentum")?);
            set(dampening, fraction("dampening")?);
            if config.get("nesterov").is_some() {
                *nesterov = config.bool("nesterov")?;
            }
        }
        Update::Adam { betas, epsilon } | Update::Lamb { betas, epsilon } => {
            set(&mut betas.0, fraction("beta1")?);
            set(&mut betas.1, fraction("beta2")?);
            set(epsilon, epsilon_set);
        }
        Update::RmsProp { alpha, epsilon, momentum, .. } => {
            set(alpha, fraction("smoothing")?);
            set(epsilon, epsilon_set);
            set(momentum, fraction("momentum")?);
        }
        Update::Adagrad { epsilon, .. } => set(epsilon, epsilon_set),
        Update::Lion { betas } => {
            set(&mut betas.0, fraction("beta1")?);
            set(&mut betas.1, fraction("beta2")?);
        }
    }
    Ok(())
}

fn clipping(config: &Config) -> Result<Clipping, ConfigError> {
    let norm = number(config, "clip_norm", Range::AtLeastZero)?;
    let value = number(config, "clip_value", Range::AtLeastZero)?;
    match (norm, value) {
        (None, None) => Ok(Clipping::None),
        (Some(norm), None) => Ok(Clipping::Norm(norm)),
        (None, Some(value)) => Ok(Clipping::Value(value)),
        (Some(_), Some(value)) => {
            Err(invalid("clip_value", value, "given beside `clip_norm`", "only one of the two"))
        }
    }
}

/// The numbers that a hyperparameter may be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Range {
    AtLeastZero,
    AtLeastOne,
    Positive,
    /// At least 0, below 1.
    Fraction,
    /// Above 0, at most 1.
    Share,
}

/// The value of a hyperparameter, if the Config has it; `learning_rate` it must have.
pub(crate) fn number(
    config: &Config,
    name: &str,
    range: Range,
) -> Result<Option<f64>, ConfigError> {
    if config.get(name).is_none() && name != "learning_rate" {
        return Ok(None);
    }
    let value = config.float(name)?;
    let (is_valid, expected) = match range {
        Range::AtLeastZero => (value >= 0.0 && value.is_finite(), "a finite number of at least 0"),
        Range::AtLeastOne => (value >= 1.0 && value.is_finite(), "a finite number of at least 1"),
        Range::Positive => (value > 0.0 && value.is_finite(), "a finite number above 0"),
        Range::Share => (value > 0.0 && value <= 1.0, "a number above 0 and at most 1"),
        Range::Fraction => ((0.0..1.0).contains(&value), "a number of at least 0 and below 1"),
    };
    if is_valid { Ok(Some(value)) } else { Err(invalid(name, value, "out of range", expected)) }
}

fn set(setting: &mut f64, value: Option<f64>) {
    if let Some(value) = value {
        *setting = value;
    }
}

pub(crate) fn invalid(
    name: &str,
    value: impl Display,
    found: &'static str,
    expected: &str,
) -> ConfigError {
    let (name, value) = (name.to_owned(), value.to_string());
    ConfigError::Invalid { name, value, found, expected: expected.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        Config::new().with("optimizer", "sgd").with("learning_rate", 0.1).with("batch_size", 32)
    }

    fn refused(config: &Config) -> String {
        Hyperparameters::read(config, &["hidden".to_owned()]).unwrap_err().to_string()
    }

    #[test]
    fn every_setting_reaches_the_optimizer() {
        let config = config()
            .with("momentum", 0.9)
            .with("nesterov", true)
            .with("weight_decay", 1e-4)
            .with("clip_norm", 1.0)
            .with("hidden", [8]);
        let read = Hyperparameters::read(&config, &["hidden".to_owned()]).unwrap();
        let optimizer = Optimizer::sgd(0.1).momentum(0.9).nesterov().weight_decay(1e-4);
        assert_eq!(read.optimizer, optimizer.clipping(Clipping::Norm(1.0)));
        assert_eq!(read.batch_size, 32);

        let adam = Config::new().with("optimizer", "adamw").with("learning_rate", 1e-3);
        let adam = adam.with("batch_size", 8).with("beta1", 0.8).with("beta2", 0.9);
        let read = Hyperparameters::read(&adam, &[]).unwrap().optimizer;
        assert_eq!(read.update, Update::Adam { betas: (0.8, 0.9), epsilon: 1e-8 });
        assert_eq!(read.weight_decay, Optimizer::adamw(1e-3).weight_decay);
    }

    #[test]
    fn a_misspelt_name_is_refused_and_so_is_one_without_effect() {
        assert!(refused(&config().with("learning_rat", 0.1)).contains("`learning_rat`"));
        let adam = config().with("optimizer", "adam").with("momentum", 0.9);
        assert!(refused(&adam).contains("unknown hyperparameter `momentum`"));
    }

    #[test]
    fn values_out_of_range_are_refused_with_the_range() {
        let message = refused(&config().with("learning_rate", -0.1));
        assert!(message.contains("`learning_rate` = -0.1") && message.contains("at least 0"));
        assert!(refused(&config().with("learning_rate", f64::NAN)).contains("learning_rate"));
        assert!(refused(&config().with("momentum", 1.0)).contains("below 1"));
        assert!(refused(&config().with("batch_size", 0)).contains("at least 1"));
        assert!(refused(&config().with("optimizer", "sdg")).contains("one of sgd, adam"));
        let both = config().with("clip_norm", 1.0).with("clip_value", 1.0);
        assert!(refused(&both).contains("only one of the two"));
    }

    #[test]
    fn what_is_needed_and_missing_is_named() {
        let config = Config::new().with("optimizer", "sgd").with("batch_size", 32);
        assert!(refused(&config).contains("`learning_rate`"));
    }
}
