//! [`SpaceBuilder`]: the declaration of a space, checked once.

use super::error::nearest;
use super::{Condition, Domain, Parameter, Space, SpaceError};
use crate::config::Value;

/// The declaration of a [`Space`]; see the [module](super) for an example.
///
/// What is wrong with a declaration is said by [`build`](SpaceBuilder::build).
#[derive(Clone, Debug, Default)]
pub struct SpaceBuilder {
    parameters: Vec<Parameter>,
    fault: Option<SpaceError>,
}

impl SpaceBuilder {
    /// One of `values`, each equally likely; they have no order.
    pub fn choice<V: Into<Value>>(
        self,
        name: impl Into<String>,
        values: impl IntoIterator<Item = V>,
    ) -> Self {
        self.parameter(name, Domain::Choice(values.into_iter().map(Into::into).collect()))
    }

    /// A real number from `min` to `max`, uniform.
    pub fn uniform(self, name: impl Into<String>, min: f64, max: f64) -> Self {
        self.parameter(name, Domain::Uniform { min, max })
    }

    /// A multiple of `quantum` from `min` to `max` (both included if they are multiples), each
    /// equally likely.
    pub fn quniform(self, name: impl Into<String>, min: f64, max: f64, quantum: f64) -> Self {
        self.parameter(name, Domain::QUniform { min, max, quantum })
    }

    /// A real number from `min` to `max` whose logarithm is uniform. The bounds are the values
    /// themselves, not their exponents: `loguniform("learning_rate", 1e-4, 1e-1)`.
    pub fn loguniform(self, name: impl Into<String>, min: f64, max: f64) -> Self {
        self.parameter(name, Domain::LogUniform { min, max })
    }

    /// A multiple of `quantum` from `min` to `max`, log-uniform up to the rounding (see
    /// [`Domain::QLogUniform`]): `qloguniform("hidden", 16.0, 512.0, 16.0)`.
    pub fn qloguniform(self, name: impl Into<String>, min: f64, max: f64, quantum: f64) -> Self {
        self.parameter(name, Domain::QLogUniform { min, max, quantum })
    }

    /// A whole number from `min` to `max`, both included, each equally likely.
    pub fn int(self, name: impl Into<String>, min: i64, max: i64) -> Self {
        self.parameter(name, Domain::Int { min, max })
    }

    /// A hyperparameter with a domain that is given as such.
    pub fn parameter(mut self, name: impl Into<String>, domain: Domain) -> Self {
        self.parameters.push(Parameter {
            name: name.into(),
            domain,
            when: Vec::new(),
            points: None,
        });
        self
    }

    /// The hyperparameter declared last is active only if `parent` is active and has one of
    /// `values`; called again, all the conditions must hold. A Config has no value for a
    /// hyperparameter that is not active.
    pub fn when<V: Into<Value>>(
        mut self,
        parent: impl Into<String>,
        values: impl IntoIterator<Item = V>,
    ) -> Self {
        let values = values.into_iter().map(Into::into).collect();
        match self.parameters.last_mut() {
            Some(parameter) => parameter.when.push(Condition { parent: parent.into(), values }),
            None => self.nothing_to_describe("when"),
        }
        self
    }

    /// A grid takes `points` values of the hyperparameter declared last, evenly laid out from the
    /// lowest to the highest, on a logarithmic scale if its domain is.
    pub fn points(mut self, points: usize) -> Self {
        match self.parameters.last_mut() {
            Some(parameter) => parameter.points = Some(points),
            None => self.nothing_to_describe("points"),
        }
        self
    }

    /// The space, or what is wrong with its declaration.
    pub fn build(self) -> Result<Space, SpaceError> {
        match self.fault {
            Some(fault) => Err(fault),
            None => self.parameters.try_into(),
        }
    }

    fn nothing_to_describe(&mut self, call: &'static str) {
        self.fault = Some(SpaceError::NothingToDescribe { call });
    }
}

pub(super) fn validate(parameters: &[Parameter]) -> Result<(), SpaceError> {
    if parameters.is_empty() {
        return Err(SpaceError::Empty);
    }
    for (index, parameter) in parameters.iter().enumerate() {
        let before = &parameters[..index];
        if before.iter().any(|other| other.name == parameter.name) {
            return Err(SpaceError::Duplicate { name: parameter.name.clone() });
        }
        if let Some(reason) = parameter.domain.fault().or_else(|| points_fault(parameter)) {
            return Err(SpaceError::Domain {
                name: parameter.name.clone(),
                domain: parameter.domain.to_string(),
                reason: reason.to_owned(),
            });
        }
        for condition in &parameter.when {
            validate_condition(parameter, condition, before)?;
        }
    }
    Ok(())
}

fn points_fault(parameter: &Parameter) -> Option<&'static str> {
    match parameter.points {
        Some(0) => Some("a grid needs at least one point"),
        Some(_) if !parameter.domain.is_numeric() => {
            Some("a grid takes all values of a choice; remove `.points(n)`")
        }
        _ => None,
    }
}

fn validate_condition(
    parameter: &Parameter,
    condition: &Condition,
    before: &[Parameter],
) -> Result<(), SpaceError> {
    let (name, parent) = (parameter.name.clone(), condition.parent.clone());
    let Some(known) = before.iter().find(|other| other.name == parent) else {
        let nearest = nearest(&parent, before.iter().map(|other| other.name.as_str()));
        return Err(SpaceError::UnknownParent { name, parent, nearest });
    };
    if !matches!(known.domain, Domain::Choice(_) | Domain::Int { .. }) {
        let reason = format!("a condition needs a choice or an int, but that is {}", known.domain);
        return Err(SpaceError::Condition { name, parent, reason });
    }
    if condition.values.is_empty() {
        let reason = "no value is given, so the condition never holds".to_owned();
        return Err(SpaceError::Condition { name, parent, reason });
    }
    match condition.values.iter().find(|value| !known.domain.contains(value)) {
        Some(value) => {
            let reason = format!("{value} is not a value of {}", known.domain);
            Err(SpaceError::Condition { name, parent, reason })
        }
        None => Ok(()),
    }
}
