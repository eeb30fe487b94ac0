//! [`Domain`]: the values that one hyperparameter can take, and how likely each is.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::config::Value;

/// The values that one hyperparameter can take, and how likely each is.
///
/// Bounds are the values themselves (a learning rate from `1e-4` to `1e-1` is written just so,
/// whatever the base of the logarithm) and belong to the domain.
///
/// Quantised domains hold the multiples of the quantum within the bounds: 0.2, 0.4, 0.6 and 0.8
/// for `quniform(0.1, 0.9, 0.2)`. So no value lies outside the bounds.
///
/// Every domain is laid out on the interval from 0 to 1 such that a uniform *position* there
/// gives a value with the right probability; searches that know nothing of logarithms and
/// quanta work with positions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Domain {
    /// One of these values, each equally likely.
    Choice(Vec<Value>),
    /// A real number from `min` to `max`, uniform.
    Uniform {
        /// The lowest value.
        min: f64,
        /// The highest value.
        max: f64,
    },
    /// A multiple of `quantum` from `min` to `max`, each equally likely.
    QUniform {
        /// No value is lower.
        min: f64,
        /// No value is higher.
        max: f64,
        /// The distance between neighbouring values.
        quantum: f64,
    },
    /// A real number from `min` to `max` whose logarithm is uniform: each factor of ten within
    /// the bounds is equally likely.
    LogUniform {
        /// The lowest value, above 0.
        min: f64,
        /// The highest value.
        max: f64,
    },
    /// A multiple of `quantum` from `min` to `max`, as a log-uniform number is rounded to it: the
    /// value `v` has a probability in proportion to `ln((v + quantum/2) / (v - quantum/2))`.
    QLogUniform {
        /// No value is lower; above 0.
        min: f64,
        /// No value is higher.
        max: f64,
        /// The distance between neighbouring values.
        quantum: f64,
    },
    /// A whole number from `min` to `max`, each equally likely.
    Int {
        /// The lowest value.
        min: i64,
        /// The highest value.
        max: i64,
    },
}

/// Whole numbers above this are not exact as floats.
const EXACT: f64 = (1u64 << 53) as f64;

/// Bounds may miss a multiple of the quantum by this part of it: 0.3 / 0.1 is not quite 3.
const QUANTUM_TOLERANCE: f64 = 1e-9;

impl Domain {
    /// The value at a position from 0 to 1: what a uniform random position gives is distributed as
    /// the domain says.
    pub fn at(&self, position: f64) -> Value {
        let position = position.clamp(0.0, 1.0);
        match *self {
            Domain::Uniform { min, max } => {
                Value::from((min + position * (max - min)).clamp(min, max))
            }
            Domain::LogUniform { min, max } => {
                let log = min.ln() + position * (max.ln() - min.ln());
                Value::from(log.exp().clamp(min, max))
            }
            Domain::QLogUniform { min, max, quantum } => {
                let (first, last) = multiples(min, max, quantum);
                let (low, high) = ((first - 0.5).ln(), (last + 0.5).ln());
                let multiple = (low + position * (high - low)).exp().round().clamp(first, last);
                Value::from(times(multiple, quantum))
            }
            Domain::Choice(_) | Domain::QUniform { .. } | Domain::Int { .. } => {
                let levels = self.levels().unwrap_or(1);
                self.level(((position * levels as f64) as u64).min(levels - 1))
            }
        }
    }

    /// The position that gives a value, the middle one where many do; `None` if the value is
    /// outside the domain.
    pub fn position(&self, value: &Value) -> Option<f64> {
        self.cell(value).map(|(low, high)| f64::midpoint(low, high))
    }

    /// The positions that give a value, from the lowest to the highest; they are the same for a
    /// value of a continuous domain. `None` if the value is outside the domain.
    ///
    /// The difference is the probability of the value.
    pub fn cell(&self, value: &Value) -> Option<(f64, f64)> {
        let level = |index: f64, levels: f64| (index / levels, (index + 1.0) / levels);
        match *self {
            Domain::Choice(ref values) => {
                let index = values.iter().position(|known| known == value)?;
                Some(level(index as f64, values.len() as f64))
            }
            Domain::Uniform { min, max } => {
                let number = number(value).filter(|number| (min..=max).contains(number))?;
                let position = (number - min) / (max - min);
                Some((position, position))
            }
            Domain::LogUniform { min, max } => {
                let number = number(value).filter(|number| (min..=max).contains(number))?;
                let position = (number.ln() - min.ln()) / (max.ln() - min.ln());
                Some((position, position))
            }
            Domain::QUniform { min, max, quantum } => {
                let (first, last) = multiples(min, max, quantum);
                let multiple = multiple_of(value, quantum, first, last)?;
                Some(level(multiple - first, last - first + 1.0))
            }
            Domain::QLogUniform { min, max, quantum } => {
                let (first, last) = multiples(min, max, quantum);
                let multiple = multiple_of(value, quantum, first, last)?;
                let (low, high) = ((first - 0.5).ln(), (last + 0.5).ln());
                let position = |edge: f64| ((edge.ln() - low) / (high - low)).clamp(0.0, 1.0);
                Some((position(multiple - 0.5), position(multiple + 0.5)))
            }
            Domain::Int { min, max } => {
                let number = number(value).filter(|number| {
                    number.fract() == 0.0 && (min as f64..=max as f64).contains(number)
                })?;
                Some(level(number - min as f64, (max - min) as f64 + 1.0))
            }
        }
    }

    /// Whether the value is one of the domain. Where numbers are asked for, an integer and a float
    /// of the same value are the same.
    pub fn contains(&self, value: &Value) -> bool {
        self.cell(value).is_some()
    }

    /// The value that is closest to a number; `None` for a choice.
    pub fn nearest(&self, number: f64) -> Option<Value> {
        match *self {
            Domain::Choice(_) => None,
            Domain::Uniform { min, max } | Domain::LogUniform { min, max } => {
                Some(Value::from(number.clamp(min, max)))
            }
            Domain::QUniform { min, max, quantum } | Domain::QLogUniform { min, max, quantum } => {
                let (first, last) = multiples(min, max, quantum);
                let multiple = (number / quantum).round().clamp(first, last);
                Some(Value::from(times(multiple, quantum)))
            }
            Domain::Int { min, max } => {
                Some(Value::Int(number.round().clamp(min as f64, max as f64) as i64))
            }
        }
    }

    /// How many values there are; `None` if the domain is continuous.
    pub fn levels(&self) -> Option<u64> {
        match *self {
            Domain::Choice(ref values) => Some(values.len() as u64),
            Domain::Uniform { .. } | Domain::LogUniform { .. } => None,
            Domain::QUniform { min, max, quantum } | Domain::QLogUniform { min, max, quantum } => {
                let (first, last) = multiples(min, max, quantum);
                Some((last - first) as u64 + 1)
            }
            Domain::Int { min, max } => Some((max - min) as u64 + 1),
        }
    }

    /// Whether the values have an order that a search can follow.
    pub fn is_numeric(&self) -> bool {
        !matches!(self, Domain::Choice(_))
    }

    /// The values of a grid, in order: all of them, or `points` that are evenly laid out from the
    /// lowest to the highest (on a logarithmic scale for logarithmic domains; a single point is
    /// the middle). `None` if the domain is continuous and no number of points is given.
    pub fn grid(&self, points: Option<usize>) -> Option<Vec<Value>> {
        let levels = self.levels();
        let Some(points) = points.filter(|&points| levels.is_none_or(|all| (points as u64) < all))
        else {
            return levels.map(|levels| (0..levels).map(|index| self.level(index)).collect());
        };
        let position = |index: usize| match points {
            1 => 0.5,
            _ => index as f64 / (points - 1) as f64,
        };
        let mut values: Vec<Value> =
            (0..points).map(|index| self.rounded(self.at(position(index)))).collect();
        // Neighbouring points of a quantised domain may round to the same value.
        values.dedup();
        Some(values)
    }

    /// The value with twelve digits if the domain is continuous: a grid reads 0.001, not
    /// 0.0010000000000000009.
    fn rounded(&self, value: Value) -> Value {
        match (self, &value) {
            (
                Domain::Uniform { min, max } | Domain::LogUniform { min, max },
                Value::Float(exact),
            ) => {
                let rounded: f64 = format!("{exact:.11e}").parse().unwrap_or(*exact);
                Value::from(rounded.clamp(*min, *max))
            }
            _ => value,
        }
    }

    /// The value number `index` of a domain that is not continuous.
    fn level(&self, index: u64) -> Value {
        match *self {
            Domain::Choice(ref values) => values[index as usize].clone(),
            Domain::QUniform { min, max, quantum } | Domain::QLogUniform { min, max, quantum } => {
                Value::from(times(multiples(min, max, quantum).0 + index as f64, quantum))
            }
            Domain::Int { min, .. } => Value::Int(min + index as i64),
            Domain::Uniform { min, .. } | Domain::LogUniform { min, .. } => Value::from(min),
        }
    }

    /// What is wrong with the domain, if anything.
    pub(super) fn fault(&self) -> Option<&'static str> {
        match *self {
            Domain::Choice(ref values) => {
                let repeated = values.iter().enumerate().any(|(i, v)| values[..i].contains(v));
                if values.is_empty() {
                    Some("there is nothing to choose from; give at least one value")
                } else if repeated {
                    Some("a value is given twice; give each once")
                } else if !values.iter().all(is_finite) {
                    Some("a value is NaN or infinite")
                } else {
                    None
                }
            }
            Domain::Int { min, max } => {
                if min >= max {
                    Some("min must be less than max; for a single value use `choice`")
                } else if min.unsigned_abs().max(max.unsigned_abs()) > 1 << 52 {
                    Some("bounds beyond 2^52 are not supported")
                } else {
                    None
                }
            }
            Domain::Uniform { min, max } => bounds_fault(min, max),
            Domain::LogUniform { min, max } => bounds_fault(min, max).or_else(|| log_fault(min)),
            Domain::QUniform { min, max, quantum } => {
                bounds_fault(min, max).or_else(|| quantum_fault(min, max, quantum))
            }
            Domain::QLogUniform { min, max, quantum } => bounds_fault(min, max)
                .or_else(|| log_fault(min))
                .or_else(|| quantum_fault(min, max, quantum)),
        }
    }
}

fn bounds_fault(min: f64, max: f64) -> Option<&'static str> {
    if !min.is_finite() || !max.is_finite() || !(max - min).is_finite() {
        Some("the bounds and their distance must be finite")
    } else if min >= max {
        Some("min must be less than max; for a single value use `choice`")
    } else {
        None
    }
}

fn log_fault(min: f64) -> Option<&'static str> {
    (min <= 0.0).then_some(
        "a logarithmic domain needs bounds above 0; they are the values themselves, not exponents",
    )
}

fn quantum_fault(min: f64, max: f64, quantum: f64) -> Option<&'static str> {
    if !(quantum.is_finite() && quantum > 0.0) {
        return Some("the quantum must be above 0");
    }
    let (first, last) = multiples(min, max, quantum);
    if first > last {
        Some("no multiple of the quantum lies within the bounds; take a smaller quantum")
    } else if first.abs().max(last.abs()) > EXACT / 2.0 {
        Some("the quantum is too small for the bounds: there are more than 2^52 values")
    } else {
        None
    }
}

/// The least and the greatest whole number whose product with `quantum` is within the bounds.
fn multiples(min: f64, max: f64, quantum: f64) -> (f64, f64) {
    ((min / quantum - QUANTUM_TOLERANCE).ceil(), (max / quantum + QUANTUM_TOLERANCE).floor())
}

fn times(multiple: f64, quantum: f64) -> f64 {
    // 3 * 0.1 is 0.30000000000000004, but 3 / 10 is 0.3.
    let inverse = (1.0 / quantum).round();
    if inverse >= 1.0 && 1.0 / inverse == quantum { multiple / inverse } else { multiple * quantum }
}

fn multiple_of(value: &Value, quantum: f64, first: f64, last: f64) -> Option<f64> {
    let exact = number(value)? / quantum;
    let multiple = exact.round();
    let near = (exact - multiple).abs() <= QUANTUM_TOLERANCE * multiple.abs().max(1.0);
    (near && (first..=last).contains(&multiple)).then_some(multiple)
}

fn number(value: &Value) -> Option<f64> {
    match *value {
        Value::Int(value) => Some(value as f64),
        Value::Float(value) => Some(value),
        _ => None,
    }
}

fn is_finite(value: &Value) -> bool {
    match value {
        Value::Float(value) => value.is_finite(),
        Value::List(values) => values.iter().all(is_finite),
        _ => true,
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let float = |value: &f64| Value::from(*value);
        match self {
            Domain::Choice(values) => {
                let values: Vec<String> = values.iter().map(Value::to_string).collect();
                write!(f, "choice({})", values.join(", "))
            }
            Domain::Uniform { min, max } => write!(f, "uniform({}, {})", float(min), float(max)),
            Domain::LogUniform { min, max } => {
                write!(f, "loguniform({}, {})", float(min), float(max))
            }
            Domain::QUniform { min, max, quantum } => {
                write!(f, "quniform({}, {}, {})", float(min), float(max), float(quantum))
            }
            Domain::QLogUniform { min, max, quantum } => {
                write!(f, "qloguniform({}, {}, {})", float(min), float(max), float(quantum))
            }
            Domain::Int { min, max } => write!(f, "int({min}, {max})"),
        }
    }
}
