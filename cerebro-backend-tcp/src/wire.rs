//! From the core's types to messages and back. Messages come from elsewhere: what does not make
//! sense is an error, never a panic.

use std::time::Duration;

use cerebro_core::backend::{UnitError, UnitReport};
use cerebro_core::data::PartitionInfo;
use cerebro_core::{
    Device, Metrics, ModelError, PartitionId, Split, Statistic, TrialId, Unit, WorkerId,
};
use thiserror::Error;
use xxhash_rust::xxh3::Xxh3;

use crate::ledger::StateName;
use crate::protocol::{self, failure, metric};

/// A message that does not make sense.
#[derive(Debug, Error)]
#[error("a message from the other end does not make sense: {0}")]
pub(crate) struct Nonsense(pub(crate) String);

impl From<StateName> for protocol::StateName {
    fn from(name: StateName) -> Self {
        Self { trial: name.trial.0, version: name.version, origin: name.origin }
    }
}

impl From<protocol::StateName> for StateName {
    fn from(name: protocol::StateName) -> Self {
        Self { trial: TrialId(name.trial), version: name.version, origin: name.origin }
    }
}

impl From<Unit> for protocol::Unit {
    fn from(unit: Unit) -> Self {
        Self {
            trial: unit.trial.0,
            epoch: unit.epoch,
            validation: unit.split == Split::Validation,
            partition: unit.partition.0,
        }
    }
}

impl From<protocol::Unit> for Unit {
    fn from(unit: protocol::Unit) -> Self {
        Self {
            trial: TrialId(unit.trial),
            epoch: unit.epoch,
            split: if unit.validation { Split::Validation } else { Split::Train },
            partition: PartitionId(unit.partition),
        }
    }
}

pub(crate) fn device_to_wire(device: Device) -> Result<protocol::Device, Nonsense> {
    match device {
        Device::Cpu => Ok(protocol::Device { cuda: None }),
        Device::Cuda(number) => Ok(protocol::Device { cuda: Some(number) }),
        other => Err(Nonsense(format!("the device {other} has no place in the schema"))),
    }
}

impl From<protocol::Device> for Device {
    fn from(device: protocol::Device) -> Self {
        device.cuda.map_or(Device::Cpu, Device::Cuda)
    }
}

pub(crate) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

pub(crate) fn report_to_wire(report: &UnitReport) -> Result<protocol::Report, Nonsense> {
    let metrics = report.metrics.iter().map(|(name, statistic)| {
        let (kind, sum, weight) = match *statistic {
            Statistic::Mean { sum, weight } => (metric::Kind::Mean, sum, weight),
            Statistic::RootMean { sum, weight } => (metric::Kind::RootMean, sum, weight),
            Statistic::ExpMean { sum, weight } => (metric::Kind::ExpMean, sum, weight),
            _ => (metric::Kind::Json, 0.0, 0.0),
        };
        let json = if kind == metric::Kind::Json {
            serde_json::to_string(statistic)
                .map_err(|error| Nonsense(format!("metric `{name}` cannot be written: {error}")))?
        } else {
            String::new()
        };
        Ok(protocol::Metric { name: name.to_owned(), kind: kind.into(), sum, weight, json })
    });
    Ok(protocol::Report {
        metrics: metrics.collect::<Result<_, _>>()?,
        rows: report.rows,
        version: report.version,
        state_bytes: report.state_bytes,
        occupied_nanoseconds: nanoseconds(report.occupied),
        computed_nanoseconds: nanoseconds(report.computed),
    })
}

pub(crate) fn report_from_wire(report: &protocol::Report) -> Result<UnitReport, Nonsense> {
    let mut metrics = Metrics::new();
    for metric in &report.metrics {
        let (sum, weight) = (metric.sum, metric.weight);
        let statistic = match metric.kind() {
            metric::Kind::Mean => Statistic::Mean { sum, weight },
            metric::Kind::RootMean => Statistic::RootMean { sum, weight },
            metric::Kind::ExpMean => Statistic::ExpMean { sum, weight },
            metric::Kind::Json => serde_json::from_str(&metric.json).map_err(|error| {
                Nonsense(format!("metric `{}` is no statistic: {error}", metric.name))
            })?,
            metric::Kind::Unspecified => {
                return Err(Nonsense(format!("metric `{}` has no kind", metric.name)));
            }
        };
        metrics.record(&metric.name, statistic);
    }
    Ok(UnitReport {
        metrics,
        rows: report.rows,
        version: report.version,
        state_bytes: report.state_bytes,
        occupied: Duration::from_nanos(report.occupied_nanoseconds),
        computed: Duration::from_nanos(report.computed_nanoseconds),
    })
}

pub(crate) fn failure_to_wire(error: &UnitError) -> protocol::Failure {
    let mut failure = protocol::Failure {
        kind: failure::Kind::Model.into(),
        message: chain(error),
        ..protocol::Failure::default()
    };
    match error {
        UnitError::Model(ModelError::Cancelled) => failure.set_kind(failure::Kind::Cancelled),
        UnitError::Model(ModelError::Config(_)) => failure.set_kind(failure::Kind::Config),
        UnitError::Model(ModelError::Diverged { metric, value, step }) => {
            failure.set_kind(failure::Kind::Diverged);
            failure.metric.clone_from(metric);
            failure.value = *value;
            failure.step = *step as u64;
        }
        UnitError::Panicked { message } => {
            failure.set_kind(failure::Kind::Panicked);
            failure.message.clone_from(message);
        }
        UnitError::NoState { reason, .. } => {
            failure.set_kind(failure::Kind::State);
            failure.message.clone_from(reason);
        }
        _ => {}
    }
    failure
}

/// What became of a unit, other than a report.
#[derive(Debug)]
pub(crate) enum Failed {
    /// The unit's own error.
    Unit(UnitError),
    /// The worker could not have the State, for this reason.
    State(String),
}

pub(crate) fn failure_from_wire(failure: protocol::Failure, worker: WorkerId) -> Failed {
    let kind = failure.kind();
    let message = failure.message;
    Failed::Unit(match kind {
        failure::Kind::State => return Failed::State(message),
        failure::Kind::Cancelled => ModelError::Cancelled.into(),
        failure::Kind::Panicked => UnitError::Panicked { message },
        failure::Kind::Diverged => ModelError::Diverged {
            metric: failure.metric,
            value: failure.value,
            step: failure.step as usize,
        }
        .into(),
        failure::Kind::Config => UnitError::Remote { worker, message, hopeless: true },
        failure::Kind::Model | failure::Kind::Unspecified => {
            UnitError::Remote { worker, message, hopeless: false }
        }
    })
}

/// A digest of the catalogue of partitions, by which driver and workers know that they read the
/// same data set.
pub(crate) fn catalogue_digest(partitions: &[PartitionInfo]) -> u64 {
    let mut digest = Xxh3::new();
    for info in partitions {
        digest.update(&info.id.0.to_le_bytes());
        digest.update(&[u8::from(info.split == Split::Validation)]);
        digest.update(&info.rows.to_le_bytes());
    }
    digest.digest()
}

/// An error and its causes, in one line.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        // Errors that print their source already are not repeated.
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use cerebro_core::metric::{ClassRanks, RankHistogram};

    use super::*;

    #[test]
    fn reports_come_back_as_they_were_even_with_a_loss_that_is_no_number() {
        let mut metrics = Metrics::new();
        metrics.record("accuracy", Statistic::Mean { sum: 0.1 + 0.2, weight: 3.0 });
        metrics.record("rmse", Statistic::RootMean { sum: f64::INFINITY, weight: 3.0 });
        metrics.record("perplexity", Statistic::ExpMean { sum: -0.0, weight: 3.0 });
        let rows = [(0.1, false), (-2.5, true), (0.7, true)];
        metrics.record(
            "roc_auc",
            Statistic::RocAuc(ClassRanks { classes: vec![RankHistogram::of(rows)] }),
        );
        let report = UnitReport {
            metrics,
            rows: 7,
            version: 9,
            state_bytes: u64::MAX,
            occupied: Duration::from_nanos(1_000_000_001),
            computed: Duration::from_nanos(3),
        };
        let back = report_from_wire(&report_to_wire(&report).unwrap()).unwrap();
        assert_eq!(back, report);
        let mut wire = report_to_wire(&report).unwrap();
        wire.metrics[0].sum = f64::NAN;
        assert!(report_from_wire(&wire).unwrap().metrics.value("accuracy").unwrap().is_nan());
    }

    #[test]
    fn a_metric_of_no_kind_is_refused() {
        let metric = protocol::Metric { name: "loss".to_owned(), ..protocol::Metric::default() };
        let report = protocol::Report { metrics: vec![metric], ..protocol::Report::default() };
        assert!(report_from_wire(&report).unwrap_err().to_string().contains("`loss`"));
    }

    #[test]
    fn failures_keep_their_kind_so_that_the_hopeless_are_not_tried_again() {
        let back = |error: UnitError| match failure_from_wire(failure_to_wire(&error), WorkerId(1))
        {
            Failed::Unit(error) => error,
            Failed::State(reason) => panic!("{reason}"),
        };
        assert!(back(ModelError::Cancelled.into()).is_cancelled());
        let config = cerebro_core::ConfigError::Unknown { name: "x".to_owned(), known: vec![] };
        let config = back(ModelError::Config(config).into());
        assert!(!config.is_retryable() && config.to_string().contains("`x`"), "{config}");
        let diverged =
            ModelError::Diverged { metric: "loss".to_owned(), value: f64::INFINITY, step: 3 };
        assert!(!back(diverged.into()).is_retryable());
        let other = back(ModelError::other("reading weights", "disk on fire").into());
        assert!(other.is_retryable());
        assert!(other.to_string().contains("reading weights: disk on fire"), "{other}");
    }
}
