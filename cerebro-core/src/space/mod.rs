//! [`Space`]: the hyperparameters that a search may choose, and their values.
//!
//! ```
//! use cerebro_core::{Config, Seed, Space};
//!
//! let space = Space::builder()
//!     .loguniform("learning_rate", 1e-4, 1e-1)
//!     .choice("hidden", [vec![64], vec![64, 32]])
//!     .choice("optimizer", ["adam", "sgd"])
//!     .uniform("momentum", 0.5, 0.99)
//!     .when("optimizer", ["sgd"])
//!     .build()?;
//!
//! let config = space.sample(Seed(7));
//! space.check(&config)?;
//! assert_eq!(config.get("momentum").is_some(), config.text("optimizer") == Ok("sgd"));
//!
//! let misspelt = Config::new().with("learning_rat", 0.01);
//! let error = space.check(&misspelt).unwrap_err();
//! assert!(error.to_string().contains("did you mean `learning_rate`?"));
//! # Ok::<(), cerebro_core::space::SpaceError>(())
//! ```
//!
//! For users of the first Cerebro: its `hp_loguniform(-4, -1)` took exponents of ten (and, with its
//! TPE search, exponents of *e*); here the bounds are the values, `loguniform(1e-4, 1e-1)`. Its
//! `hp_quniform` rounded to multiples of the quantum, which could leave the bounds and made the
//! outermost values half as likely as the others; here neither happens.

mod builder;
mod domain;
mod error;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use builder::SpaceBuilder;
pub use domain::Domain;
pub use error::SpaceError;

use crate::config::{Config, Value};
use crate::seed::Seed;

/// The hyperparameters that a search may choose, in the order of their declaration.
///
/// See the [module](self) for an example.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Parameter>", into = "Vec<Parameter>")]
pub struct Space {
    parameters: Vec<Parameter>,
}

/// One hyperparameter of a [`Space`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Parameter {
    /// Its name, unique in the space.
    pub name: String,
    /// Its values.
    #[serde(flatten)]
    pub domain: Domain,
    /// It is active only if all of these hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub when: Vec<Condition>,
    /// How many values a grid takes of it; all by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub points: Option<usize>,
}

/// Holds if the hyperparameter `parent` is active and has one of `values`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Condition {
    /// A hyperparameter that is declared before.
    pub parent: String,
    /// Some of its values.
    pub values: Vec<Value>,
}

impl Parameter {
    /// Whether the hyperparameter is active, given the values of those declared before it.
    pub fn is_active(&self, config: &Config) -> bool {
        self.when.iter().all(|condition| {
            config.get(&condition.parent).is_some_and(|value| condition.values.contains(value))
        })
    }

    fn condition(&self) -> String {
        let conditions: Vec<String> = self.when.iter().map(Condition::to_string).collect();
        format!("when {}", conditions.join(" and "))
    }
}

/// A grid with more points is a mistake: nobody trains it.
const GRID_LIMIT: usize = 1_000_000;

impl Space {
    /// Starts the declaration of a space.
    pub fn builder() -> SpaceBuilder {
        SpaceBuilder::default()
    }

    /// The hyperparameters, parents before those that depend on them.
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// The hyperparameter of this name.
    pub fn parameter(&self, name: &str) -> Option<&Parameter> {
        self.parameters.iter().find(|parameter| parameter.name == name)
    }

    /// The error that the space has no hyperparameter of this name, if it has none.
    pub(crate) fn unknown(&self, name: &str) -> Option<SpaceError> {
        if self.parameter(name).is_some() {
            return None;
        }
        let names = self.parameters.iter().map(|parameter| parameter.name.as_str());
        Some(SpaceError::Unknown { name: name.to_owned(), nearest: error::nearest(name, names) })
    }

    /// A random Config, which the seed determines.
    ///
    /// Each hyperparameter draws from a stream of its own, named after it: one that is added to the
    /// space leaves the values of the others as they were.
    pub fn sample(&self, seed: Seed) -> Config {
        self.config_at(|_, parameter| seed.derive(&parameter.name, &[]).rng().unit())
    }

    /// The Config whose hyperparameters are at these positions of their domains (see
    /// [`Domain::at`]); `position` is called for the active ones, with their index, in order.
    pub fn config_at(&self, mut position: impl FnMut(usize, &Parameter) -> f64) -> Config {
        let mut config = Config::new();
        for (index, parameter) in self.parameters.iter().enumerate() {
            if parameter.is_active(&config) {
                let value = parameter.domain.at(position(index, parameter));
                config.set(&parameter.name, value);
            }
        }
        config
    }

    /// Every Config of the grid; the hyperparameter that is declared last varies fastest.
    ///
    /// A hyperparameter takes all its values, or as many as [`points`](SpaceBuilder::points) says;
    /// one that is not active does not multiply the grid. An error if a continuous one has no
    /// number of points.
    pub fn grid(&self) -> Result<Vec<Config>, SpaceError> {
        let mut grid = vec![Config::new()];
        for parameter in &self.parameters {
            let too_large = SpaceError::GridTooLarge { limit: GRID_LIMIT };
            let limit = GRID_LIMIT as u64;
            if parameter.points.map_or(parameter.domain.levels(), |n| Some(n as u64)) > Some(limit)
            {
                return Err(too_large);
            }
            let values = parameter.domain.grid(parameter.points).ok_or_else(|| {
                SpaceError::ContinuousGrid {
                    name: parameter.name.clone(),
                    domain: parameter.domain.to_string(),
                }
            })?;
            let active = grid.iter().filter(|config| parameter.is_active(config)).count();
            if grid.len() - active + active.saturating_mul(values.len()) > GRID_LIMIT {
                return Err(too_large);
            }
            grid = grid
                .into_iter()
                .flat_map(|config| {
                    let values = if parameter.is_active(&config) { &values[..] } else { &[] };
                    let unchanged = values.is_empty().then(|| config.clone());
                    let extended: Vec<Config> = values
                        .iter()
                        .map(|value| config.clone().with(&parameter.name, value.clone()))
                        .collect();
                    unchanged.into_iter().chain(extended)
                })
                .collect();
        }
        Ok(grid)
    }

    /// Whether the Config is a point of the space.
    pub fn contains(&self, config: &Config) -> bool {
        self.check(config).is_ok()
    }

    /// An error that says why the Config is no point of the space: a name that the space does not
    /// have, a hyperparameter that is missing, a value outside its domain, or one that has no
    /// effect because its condition does not hold.
    pub fn check(&self, config: &Config) -> Result<(), SpaceError> {
        for (name, _) in config.iter() {
            if let Some(unknown) = self.unknown(name) {
                return Err(unknown);
            }
        }
        for parameter in &self.parameters {
            let name = || parameter.name.clone();
            let domain = || parameter.domain.to_string();
            match (config.get(&parameter.name), parameter.is_active(config)) {
                (None, true) => {
                    let config = config.to_string();
                    return Err(SpaceError::Missing { name: name(), domain: domain(), config });
                }
                (Some(value), false) => {
                    let (value, condition) = (value.to_string(), parameter.condition());
                    return Err(SpaceError::Inactive { name: name(), value, condition });
                }
                (Some(value), true) if !parameter.domain.contains(value) => {
                    let value = value.to_string();
                    return Err(SpaceError::Outside { name: name(), value, domain: domain() });
                }
                (Some(_), true) | (None, false) => {}
            }
        }
        Ok(())
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let values: Vec<String> = self.values.iter().map(Value::to_string).collect();
        match values.as_slice() {
            [value] => write!(f, "{} = {value}", self.parent),
            _ => write!(f, "{} is one of {}", self.parent, values.join(", ")),
        }
    }
}

impl fmt::Display for Parameter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ~ {}", self.name, self.domain)?;
        if !self.when.is_empty() {
            write!(f, " {}", self.condition())?;
        }
        Ok(())
    }
}

/// One hyperparameter a line.
impl fmt::Display for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, parameter) in self.parameters.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{parameter}")?;
        }
        Ok(())
    }
}

impl TryFrom<Vec<Parameter>> for Space {
    type Error = SpaceError;

    fn try_from(parameters: Vec<Parameter>) -> Result<Self, SpaceError> {
        builder::validate(&parameters)?;
        Ok(Space { parameters })
    }
}

impl From<Space> for Vec<Parameter> {
    fn from(space: Space) -> Self {
        space.parameters
    }
}

#[cfg(test)]
mod tests;
