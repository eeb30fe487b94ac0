//! What happens in an experiment, told to observers as it happens.
//!
//! The driver turns everything that happens into [`Event`]s and hands each to every [`Observer`] in
//! turn. An observer only looks on; to act on a run, use the experiment's handle.
//!
//! | observer | what it makes |
//! | --- | --- |
//! | `Progress` (feature `progress`) | live lines on a terminal, plain lines elsewhere |
//! | [`JsonLines`] | `events.jsonl`: every event, for other programs |
//! | [`HtmlReport`] | `report.html`: the whole experiment in one page |
//! | [`TrialLogs`] | a log file per trial |
//! | `TensorBoard` (feature `tensorboard`) | event files for TensorBoard |
//! | `MlFlow` (feature `mlflow`) | runs on an MLflow tracking server |
//!
//! Any `FnMut(Duration, &Event)` is an observer too. [`Leaderboard`] and [`Summary`] are printed
//! with `println!`.

//!
//! # Spans
//!
//! For those who follow programs by [`tracing`], an experiment is the span `experiment`. In it are
//! `schedule` (at the level of debug), each time that the scheduler is asked, and `unit`, from the
//! order to the report, with `trial`, `epoch`, `split`, `partition` and `worker`; that a State hops is
//! an event of its unit. On the worker's thread the span `execute` is around building the model,
//! taking the State and the pass. Where States go over a network, the span `hop` is around the
//! fetch.
//!
//! A program sees them once it has a subscriber. With `tracing-subscriber` and
//! `tracing-opentelemetry`, spans go to any collector that speaks OpenTelemetry:
//!
//! ```ignore
//! use opentelemetry::trace::TracerProvider;
//! use tracing_subscriber::prelude::*;
//!
//! let exporter = opentelemetry_otlp::SpanExporter::builder().with_tonic().build()?;
//! let provider = opentelemetry_sdk::trace::SdkTracerProvider::builder()
//!     .with_batch_exporter(exporter)
//!     .build();
//! let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("cerebro"));
//! tracing_subscriber::registry().with(layer).init();
//! ```

mod error;
mod event;
mod json_lines;
mod leaderboard;
#[cfg(feature = "mlflow")]
mod mlflow;
#[cfg(feature = "progress")]
mod progress;
mod report;
mod summary;
#[cfg(test)]
mod synthetic;
#[cfg(feature = "tensorboard")]
mod tensorboard;
mod trial_logs;

pub use crate::text::hyperparameters;
pub use error::OutputError;
pub use event::{Event, Outcome, Summary, TrialStatus};
pub use json_lines::{JsonLines, TimedEvent, read_events};
pub use leaderboard::{Leaderboard, Standing};
#[cfg(feature = "mlflow")]
pub use mlflow::{MlFlow, MlFlowError};
#[cfg(feature = "progress")]
pub use progress::Progress;
pub use report::HtmlReport;
#[cfg(feature = "tensorboard")]
pub use tensorboard::TensorBoard;
pub use trial_logs::TrialLogs;

use std::error::Error;
use std::time::Duration;

/// Looks on while an experiment runs.
pub trait Observer: Send {
    /// Takes note of `event`, which happened at `at` after the start of the experiment.
    ///
    /// Called on the driver's thread, so it should be quick. An error does not end the experiment:
    /// the driver logs it, lists it in the summary and calls this observer no more.
    fn observe(&mut self, at: Duration, event: &Event) -> Result<(), ObserveError>;
}

/// Why an observer could not take note of an event.
pub type ObserveError = Box<dyn Error + Send + Sync>;

impl<F> Observer for F
where
    F: FnMut(Duration, &Event) + Send,
{
    fn observe(&mut self, at: Duration, event: &Event) -> Result<(), ObserveError> {
        self(at, event);
        Ok(())
    }
}
