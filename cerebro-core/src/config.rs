//! [`Config`]: one point of the search space.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::hash::{Hash, Hasher};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use xxhash_rust::xxh3::xxh3_64;

use crate::named::Named;

/// The value of one hyperparameter.
///
/// Values are ordered and hashable: floats by their IEEE 754 total order, so that two values are
/// equal exactly if their bits are (`-0.0` and `0.0` are made one when a value is created).
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Value {
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A real number.
    Float(f64),
    /// A name, such as that of an optimizer.
    Text(String),
    /// Several values, such as the sizes of hidden layers.
    List(Vec<Value>),
}

impl Value {
    fn rank(&self) -> u8 {
        match self {
            Value::Bool(_) => 0,
            Value::Int(_) => 1,
            Value::Float(_) => 2,
            Value::Text(_) => 3,
            Value::List(_) => 4,
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Value::Bool(_) => "a boolean",
            Value::Int(_) => "an integer",
            Value::Float(_) => "a float",
            Value::Text(_) => "a text",
            Value::List(_) => "a list",
        }
    }
}

impl Ord for Value {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
            (Value::Int(a), Value::Int(b)) => a.cmp(b),
            (Value::Float(a), Value::Float(b)) => a.total_cmp(b),
            (Value::Text(a), Value::Text(b)) => a.cmp(b),
            (Value::List(a), Value::List(b)) => a.cmp(b),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

impl PartialOrd for Value {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Value {}

impl Hash for Value {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.rank().hash(hasher);
        match self {
            Value::Bool(value) => value.hash(hasher),
            Value::Int(value) => value.hash(hasher),
            Value::Float(value) => value.to_bits().hash(hasher),
            Value::Text(value) => value.hash(hasher),
            Value::List(values) => values.hash(hasher),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Bool(value) => write!(f, "{value}"),
            Value::Int(value) => write!(f, "{value}"),
            Value::Float(value) if *value != 0.0 && !(1e-3..1e6).contains(&value.abs()) => {
                write!(f, "{value:e}")
            }
            Value::Float(value) => write!(f, "{value}"),
            Value::Text(value) => f.write_str(value),
            Value::List(values) => {
                f.write_str("[")?;
                for (index, value) in values.iter().enumerate() {
                    if index > 0 {
                        f.write_str(", ")?;
                    }
                    write!(f, "{value}")?;
                }
                f.write_str("]")
            }
        }
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Value::Bool(value)
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Value::Int(value)
    }
}

impl From<i32> for Value {
    fn from(value: i32) -> Self {
        Value::Int(i64::from(value))
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        // Adding zero turns -0.0 into 0.0 and leaves every other number as it is.
        Value::Float(value + 0.0)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Value::Text(value.to_owned())
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Value::Text(value)
    }
}

impl<T: Into<Value>> From<Vec<T>> for Value {
    fn from(values: Vec<T>) -> Self {
        Value::List(values.into_iter().map(Into::into).collect())
    }
}

impl<T: Into<Value>, const N: usize> From<[T; N]> for Value {
    fn from(values: [T; N]) -> Self {
        Value::List(values.into_iter().map(Into::into).collect())
    }
}

/// One point of the search space: named hyperparameter values, ordered by name.
///
/// ```
/// use cerebro_core::Config;
/// let config = Config::new().with("learning_rate", 0.01).with("hidden", [64, 32]);
/// assert_eq!(config.float("learning_rate")?, 0.01);
/// assert_eq!(config.sizes("hidden")?, [64, 32]);
/// assert_eq!(config.to_string(), "hidden=[64, 32] learning_rate=0.01");
/// # Ok::<(), cerebro_core::ConfigError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Config(Named<Value>);

/// What is wrong with a [`Config`].
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigError {
    /// A hyperparameter that is needed is not there.
    #[error("the Config ({config}) has no hyperparameter `{name}`; add it to the search space")]
    Missing {
        /// The name that was looked up.
        name: String,
        /// The Config, printed.
        config: String,
    },
    /// A hyperparameter has a value of another type, or out of range.
    #[error("hyperparameter `{name}` = {value} is {found}, but {expected} is needed")]
    Invalid {
        /// The hyperparameter.
        name: String,
        /// Its value, printed.
        value: String,
        /// The type that it has.
        found: &'static str,
        /// What is needed.
        expected: String,
    },
    /// A hyperparameter that nobody reads: most likely a misspelt name.
    #[error("unknown hyperparameter `{name}`; known are {}", known.join(", "))]
    Unknown {
        /// The name that nobody knows.
        name: String,
        /// The names that are known.
        known: Vec<String>,
    },
}

impl Config {
    /// A Config without hyperparameters.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds or replaces a hyperparameter.
    pub fn with(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.set(name, value);
        self
    }

    /// Adds or replaces a hyperparameter.
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<Value>) {
        self.0.insert(Into::<String>::into(name), value.into());
    }

    /// The value of a hyperparameter, if there is one.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// Names and values, ordered by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter()
    }

    /// The number of hyperparameters.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no hyperparameter.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A number; integers are converted.
    pub fn float(&self, name: &str) -> Result<f64, ConfigError> {
        match self.needed(name)? {
            Value::Float(value) => Ok(*value),
            Value::Int(value) => Ok(*value as f64),
            other => Err(invalid(name, other, "a number")),
        }
    }

    /// A whole number; floats without fraction are converted.
    pub fn int(&self, name: &str) -> Result<i64, ConfigError> {
        let value = self.needed(name)?;
        as_int(value).ok_or_else(|| invalid(name, value, "a whole number"))
    }

    /// A whole number of at least 1, such as a batch size.
    pub fn size(&self, name: &str) -> Result<usize, ConfigError> {
        let value = self.needed(name)?;
        as_size(value).ok_or_else(|| invalid(name, value, "a whole number of at least 1"))
    }

    /// Whole numbers of at least 1, such as the sizes of hidden layers.
    pub fn sizes(&self, name: &str) -> Result<Vec<usize>, ConfigError> {
        let value = self.needed(name)?;
        let Value::List(values) = value else {
            return Err(invalid(name, value, "a list of whole numbers"));
        };
        let sizes: Option<Vec<usize>> = values.iter().map(as_size).collect();
        sizes.ok_or_else(|| invalid(name, value, "a list of whole numbers of at least 1"))
    }

    /// A text.
    pub fn text(&self, name: &str) -> Result<&str, ConfigError> {
        match self.needed(name)? {
            Value::Text(value) => Ok(value),
            other => Err(invalid(name, other, "a text")),
        }
    }

    /// True or false.
    pub fn bool(&self, name: &str) -> Result<bool, ConfigError> {
        match self.needed(name)? {
            Value::Bool(value) => Ok(*value),
            other => Err(invalid(name, other, "a boolean")),
        }
    }

    /// Refuses a Config with a hyperparameter that is not among `known`, which is most likely a
    /// misspelt name: a model that ignored it would be tuned over a parameter without effect.
    pub fn only(&self, known: &[&str]) -> Result<(), ConfigError> {
        match self.iter().find(|(name, _)| !known.contains(name)) {
            None => Ok(()),
            Some((name, _)) => Err(ConfigError::Unknown {
                name: name.to_owned(),
                known: known.iter().map(|&name| name.to_owned()).collect(),
            }),
        }
    }

    /// A digest of names and values, the same on every platform and in every release.
    pub fn digest(&self) -> u64 {
        let canonical = serde_json::to_vec(self).expect("names and values are always valid JSON");
        xxh3_64(&canonical)
    }

    fn needed(&self, name: &str) -> Result<&Value, ConfigError> {
        self.get(name)
            .ok_or_else(|| ConfigError::Missing { name: name.to_owned(), config: self.to_string() })
    }
}

fn as_int(value: &Value) -> Option<i64> {
    match value {
        Value::Int(value) => Some(*value),
        Value::Float(value) if value.fract() == 0.0 && value.abs() < 9e15 => Some(*value as i64),
        _ => None,
    }
}

fn as_size(value: &Value) -> Option<usize> {
    as_int(value).and_then(|value| usize::try_from(value).ok()).filter(|&size| size > 0)
}

fn invalid(name: &str, value: &Value, expected: &str) -> ConfigError {
    ConfigError::Invalid {
        name: name.to_owned(),
        value: value.to_string(),
        found: value.kind(),
        expected: expected.to_owned(),
    }
}

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, value)) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(" ")?;
            }
            write!(f, "{name}={value}")?;
        }
        Ok(())
    }
}

impl<N: Into<String>, V: Into<Value>> FromIterator<(N, V)> for Config {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        let mut config = Config::new();
        for (name, value) in pairs {
            config.set(name, value);
        }
        config
    }
}

impl From<BTreeMap<String, Value>> for Config {
    fn from(values: BTreeMap<String, Value>) -> Self {
        values.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_ordered_and_hashed_by_their_bits() {
        let nan = Value::from(f64::NAN);
        assert_eq!(nan, nan.clone());
        assert_eq!(Value::from(-0.0), Value::from(0.0));
        assert!(Value::from(1.0) < Value::from(2.0));
        assert_ne!(Value::from(1), Value::from(1.0));
    }

    #[test]
    fn a_config_survives_serialisation() {
        let config = Config::new()
            .with("a", 1)
            .with("b", 1.0)
            .with("c", "adam")
            .with("d", [1, 2])
            .with("e", true)
            .with("f", 0.1 + 0.2);
        let json = serde_json::to_string(&config).unwrap();
        let back: Config = serde_json::from_str(&json).unwrap();
        assert_eq!(back, config);
        assert_eq!(back.digest(), config.digest());
    }

    #[test]
    fn errors_name_the_hyperparameter_and_what_to_do() {
        let config = Config::new().with("learning_rat", 0.1).with("batch_size", 0);
        let missing = config.float("learning_rate").unwrap_err().to_string();
        assert!(missing.contains("`learning_rate`") && missing.contains("learning_rat=0.1"));
        let unknown = config.only(&["learning_rate", "batch_size"]).unwrap_err();
        assert!(unknown.to_string().contains("unknown hyperparameter `learning_rat`"));
        let size = config.size("batch_size").unwrap_err().to_string();
        assert!(size.contains("`batch_size` = 0") && size.contains("at least 1"), "{size}");
    }
}
