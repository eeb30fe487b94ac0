//! [`MlFlow`]: runs on an MLflow tracking server.

mod api;
mod recorder;

use std::sync::mpsc::{self, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use api::MlFlowError;

use self::api::Api;
use self::recorder::{Recorder, Told};
use super::{Event, ObserveError, Observer};

/// Tells an MLflow tracking server of an experiment, by its REST API.
///
/// The experiment is a run, and each trial a run nested in it: its Config as parameters, the
/// training and validation metrics of each epoch by epoch, how it ended as status and tags. A
/// trial's clones name their parent in the tag `cerebro.cloned_from`. A resumed experiment goes on in
/// the runs that it began, which it finds by the tag `cerebro.experiment`; if they are gone it makes
/// new ones, that hold what was done before, too.
///
/// Calls are made on a thread of the observer's own, so a slow server does not slow training down;
/// the end of the experiment waits until everything is told. If the server cannot be reached any
/// more, the experiment goes on without it and says so in its summary.
///
/// A server that wants a token is given that of the variable `MLFLOW_TRACKING_TOKEN`.
///
/// ```no_run
/// use cerebro_core::observe::MlFlow;
/// let observer = MlFlow::connect("http://127.0.0.1:5000", "digits")?;
/// # let _ = observer;
/// # Ok::<(), cerebro_core::observe::MlFlowError>(())
/// ```
#[derive(Debug)]
pub struct MlFlow {
    /// The experiment's start, since 1970.
    start: Duration,
    told: Option<Sender<Told>>,
    thread: Option<JoinHandle<Result<(), MlFlowError>>>,
}

impl MlFlow {
    /// Finds or makes the experiment `experiment` on the server at `url`; an error if the server
    /// does not answer.
    pub fn connect(url: &str, experiment: &str) -> Result<Self, MlFlowError> {
        let api = Api::new(url, std::env::var("MLFLOW_TRACKING_TOKEN").ok())?;
        let experiment = api.experiment(experiment)?;
        let (told, receiver) = mpsc::channel();
        let recorder = Recorder::new(api, experiment);
        let thread = std::thread::spawn(move || recorder.run(&receiver));
        // A clock before 1970 only shifts the times shown.
        let start = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Self { start, told: Some(told), thread: Some(thread) })
    }

    /// Waits until everything is told, and says if something could not be.
    fn finish(&mut self) -> Result<(), ObserveError> {
        self.told = None;
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => Ok(result?),
            Some(Err(_)) => Err("the thread that tells the MLflow server panicked".into()),
            None => Ok(()),
        }
    }
}

impl Observer for MlFlow {
    fn observe(&mut self, at: Duration, event: &Event) -> Result<(), ObserveError> {
        let is_told = matches!(
            event,
            Event::ExperimentStarted { .. }
                | Event::ExperimentResumed { .. }
                | Event::TrialStarted { .. }
                | Event::EpochCompleted { .. }
                | Event::TrialExploited { .. }
                | Event::TrialStatus { .. }
                | Event::ExperimentEnded { .. }
        );
        if !is_told {
            return Ok(());
        }
        let at = (self.start + at).as_millis() as u64;
        let sent = self.told.as_ref().is_some_and(|told| told.send((at, event.clone())).is_ok());
        // Nobody listens any more: the thread has ended, and knows why.
        if !sent || matches!(event, Event::ExperimentEnded { .. }) {
            return self.finish();
        }
        Ok(())
    }
}

impl Drop for MlFlow {
    fn drop(&mut self) {
        if let Err(error) = self.finish() {
            tracing::warn!(%error, "an MLflow server was not told everything");
        }
    }
}
