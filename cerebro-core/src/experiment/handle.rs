//! [`ExperimentHandle`]: control of a running experiment from elsewhere.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures::FutureExt;
use futures::channel::{mpsc, oneshot};

use super::command::{Answer, Command, ControlError, Priority, Start};
use super::status::ExperimentStatus;
use super::watch::{EventStream, Watchers};
use crate::config::Config;
use crate::id::TrialId;
use crate::observe::TrialStatus;
use crate::space::Space;

/// What the driver is sent.
#[derive(Debug)]
pub(super) enum Request {
    /// End the experiment at the next batch boundaries.
    Stop,
    /// Do this, and say what came of it.
    Do(Command, oneshot::Sender<Result<Answer, ControlError>>),
    /// Say how everything stands.
    Status(oneshot::Sender<ExperimentStatus>),
}

/// Controls a running experiment; clones control the same one.
///
/// Each method but [`stop`](Self::stop) sends its command at once, from any thread, and returns a
/// [`Reply`]: a future of what came of it, which may be dropped. A command that is sent before the
/// experiment runs is carried out before anything else, when there are no trials yet: to pause one,
/// wait until [`Event::TrialStarted`](crate::observe::Event::TrialStarted) tells of it. While data are
/// loaded at the start, commands wait.
///
/// What is carried out is recorded in the journal like everything else, and a reply comes once that
/// is durable: a command that was answered holds after a crash too. So a
/// [resumed](super::ExperimentBuilder::resume) experiment is paused, extended or narrowed as it was
/// before; only [`pause_all`](Self::pause_all) ends with the process, so that resuming does resume.
///
/// # Reproducibility
///
/// A trial's weights depend on its Config, its seed and its visit order, whatever a person does to
/// other trials. But the search sees more or fewer trials, or sees them later, than without the
/// command, and a command takes effect when it comes, which is another instant in every run. So with
/// [`Policy::Seeded`](crate::schedule::Policy::Seeded) an experiment that was controlled comes out of
/// its journal bit by bit, resumed as often as you like, while its specification alone does not give
/// it again, unless the commands were sent before it ran. A paused trial gives its place in the
/// search's fixed order up, and takes one at the end when it goes on; its place among the concurrent
/// trials is free meanwhile.
///
/// An experiment with nothing left to do but trials that a person paused waits for them as long as
/// there is a handle, and ends as stopped when there is none.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # use std::sync::Arc;
/// # use cerebro_backend_local::LocalBackend;
/// # use cerebro_core::data::{MemoryDataset, MemoryPartition};
/// # use cerebro_core::{Metrics, ModelError, PartitionId, Pass, Slot, Split, State, Statistic};
/// use cerebro_core::experiment::{Experiment, Start};
/// use cerebro_core::search::Random;
/// use cerebro_core::{Config, Model, Objective, Seed, Space, TrialId};
/// # struct Nothing;
/// # impl Model for Nothing {
/// #     fn initialize(&mut self, _: Seed) -> Result<(), ModelError> { Ok(()) }
/// #     fn restore(&mut self, _: &State) -> Result<(), ModelError> { Ok(()) }
/// #     fn state(&mut self) -> Result<State, ModelError> { Ok(vec![0].into()) }
/// #     fn train(
/// #         &mut self, _: &dyn cerebro_core::data::Partition, _: &Pass<'_>,
/// #     ) -> Result<Metrics, ModelError> { Ok(Metrics::new()) }
/// #     fn evaluate(
/// #         &mut self, _: &dyn cerebro_core::data::Partition, _: &Pass<'_>,
/// #     ) -> Result<Metrics, ModelError> {
/// #         let mut metrics = Metrics::new();
/// #         metrics.record("loss", Statistic::mean(1.0, 1));
/// #         Ok(metrics)
/// #     }
/// # }
/// # let part = |id: u32, split| {
/// #     let x = ndarray::Array2::<f32>::zeros((4, 1)).into_dyn();
/// #     Ok::<_, cerebro_core::data::DataError>(
/// #         (split, MemoryPartition::new(PartitionId(id), [("x", x.into())])?))
/// # };
/// # let dataset = MemoryDataset::new(
/// #     vec![part(0, Split::Train)?, part(1, Split::Validation)?])?;
/// # let model = |_: &Config, _: &Slot| Ok(Box::new(Nothing) as Box<dyn Model>);
/// let space = Space::builder().loguniform("rate", 1e-4, 1.0).build()?;
/// let experiment = Experiment::builder()
///     .dataset(dataset)
///     .model(model)
///     .search(Random::new(&space, 4, Seed(7))?)
///     .objective(Objective::minimize("loss"))
///     .epochs(2)
///     .build()?;
/// let handle = experiment.handle();
/// let added = handle.add_trial(Config::new().with("rate", 0.5));
/// let refused = handle.add_trial(Config::new().with("rate", 5.0));
/// let backend = LocalBackend::builder().workers(1).build()?;
/// let result = experiment.run_blocking(Arc::new(backend))?;
/// let added = futures::executor::block_on(added)?;
/// assert_eq!(result.trial(added).unwrap().history.len(), 2);
/// let error = futures::executor::block_on(refused).unwrap_err();
/// assert!(error.to_string().contains("is not in the search's space"), "{error}");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct ExperimentHandle {
    requests: mpsc::UnboundedSender<Request>,
    watchers: Watchers,
}

impl ExperimentHandle {
    /// A handle, what is sent by it, and who watches through it.
    pub(super) fn new() -> (Self, mpsc::UnboundedReceiver<Request>, Watchers) {
        let (requests, receiver) = mpsc::unbounded();
        let watchers = Watchers::default();
        (Self { requests, watchers: watchers.clone() }, receiver, watchers)
    }

    /// Ends the experiment: units under way stop at their next batch boundary and leave no trace,
    /// epochs that are completed count, and `run` returns what there is. Trials that have not ended
    /// go on when the experiment is resumed from its store.
    ///
    /// May be called from any thread, such as a Ctrl-C handler's, and before `run`. Without effect
    /// once the experiment has ended.
    pub fn stop(&self) {
        // The receiver is gone when the experiment is: then there is nothing to stop.
        let _ = self.requests.unbounded_send(Request::Stop);
    }

    /// Lets the trial's running units finish and starts no others of it.
    pub fn pause_trial(&self, trial: TrialId) -> Reply<TrialStatus> {
        self.send(Command::PauseTrial { trial }).map(status)
    }

    /// Lets a trial go on that a person paused. One that the search paused goes on before its turn;
    /// one that both paused then waits for the search.
    pub fn resume_trial(&self, trial: TrialId) -> Reply<TrialStatus> {
        self.send(Command::ResumeTrial { trial }).map(status)
    }

    /// Ends a trial at its next batch boundary; its completed epochs count. The search is told that
    /// this says nothing of its Config.
    pub fn stop_trial(&self, trial: TrialId) -> Reply<TrialStatus> {
        self.send(Command::StopTrial { trial }).map(status)
    }

    /// Lets all running units finish and starts no others, until [`resume_all`](Self::resume_all),
    /// or until the experiment is resumed from its store.
    pub fn pause_all(&self) -> Reply<()> {
        self.send(Command::PauseAll).map(|_| Some(()))
    }

    /// Lets units start again, but for those of trials that are paused themselves.
    pub fn resume_all(&self) -> Reply<()> {
        self.send(Command::ResumeAll).map(|_| Some(()))
    }

    /// Starts a trial with the Config of another one, but for `changes`, and with weights as `start`
    /// says. The other one may have ended. Hyperparameters whose condition does not hold any more
    /// are left out.
    ///
    /// It starts at once, whatever the number of concurrent trials, and trains as many epochs as
    /// the others, those of its parent not counted.
    pub fn clone_trial(&self, trial: TrialId, changes: Config, start: Start) -> Reply<TrialId> {
        self.send(Command::CloneTrial { trial, changes, start }).map(started)
    }

    /// Starts a trial with this Config, which is to be in the space of the search, if that has one.
    /// The search learns from it if it can.
    pub fn add_trial(&self, config: Config) -> Reply<TrialId> {
        self.send(Command::AddTrial { config }).map(started)
    }

    /// Has every trial train `epochs` epochs in all: those under way, those to come, and those that
    /// have completed theirs, as long as their last and best States were kept (see
    /// [`keep_models`](super::ExperimentBuilder::keep_models)). Answers with the latter.
    pub fn extend_epochs(&self, epochs: u32) -> Reply<Vec<TrialId>> {
        self.send(Command::ExtendEpochs { epochs }).map(|answer| match answer {
            Answer::Extended { continued } => Some(continued.clone()),
            _ => None,
        })
    }

    /// Has the search start `trials` more trials than it was to.
    pub fn extend_trials(&self, trials: u64) -> Reply<()> {
        self.send(Command::ExtendTrials { trials }).map(|_| Some(()))
    }

    /// Has the search take the Configs of future trials from `space`, which has the same
    /// hyperparameters as the one before.
    pub fn narrow(&self, space: Space) -> Reply<()> {
        self.send(Command::Narrow { space }).map(|_| Some(()))
    }

    /// Lets units of the trial start before those of trials with a lower priority.
    pub fn set_priority(&self, trial: TrialId, priority: Priority) -> Reply<()> {
        self.send(Command::SetPriority { trial, priority }).map(|_| Some(()))
    }

    /// Sends any command; the other methods are this with an answer of their own.
    pub fn send(&self, command: Command) -> Reply<Answer> {
        let (sender, receiver) = oneshot::channel();
        // If the driver is gone, so is the sender, and the reply says so.
        let _ = self.requests.unbounded_send(Request::Do(command, sender));
        Reply { receiver, answer: |answer| Some(answer.clone()) }
    }

    /// How everything stands: cheap enough to be asked for every second, whatever the number of
    /// epochs. Waits while data are loaded at the start.
    pub async fn status(&self) -> Result<ExperimentStatus, ControlError> {
        let (sender, receiver) = oneshot::channel();
        let _ = self.requests.unbounded_send(Request::Status(sender));
        receiver.await.map_err(|_| ControlError::Over)
    }

    /// [`status`](Self::status) outside of async code.
    pub fn status_blocking(&self) -> Result<ExperimentStatus, ControlError> {
        futures::executor::block_on(self.status())
    }

    /// What happens from now on. The stream ends with the experiment; to stop watching, drop it.
    /// Called before `run`, it misses nothing.
    pub fn events(&self) -> EventStream {
        self.watchers.watch()
    }
}

fn status(answer: &Answer) -> Option<TrialStatus> {
    match answer {
        Answer::Trial { status, .. } => Some(status.clone()),
        _ => None,
    }
}

fn started(answer: &Answer) -> Option<TrialId> {
    match answer {
        Answer::Started { trial } => Some(*trial),
        _ => None,
    }
}

/// The future of what comes of a command. The command is carried out whether or not anybody waits
/// for this.
#[derive(Debug)]
#[must_use = "it says whether the command was carried out"]
pub struct Reply<T> {
    receiver: oneshot::Receiver<Result<Answer, ControlError>>,
    /// The part of the answer that is of interest; each command has one kind of answer.
    answer: fn(&Answer) -> Option<T>,
}

impl<T> Reply<T> {
    /// Waits for what comes of the command, outside of async code.
    ///
    /// From another thread than that which runs the experiment: before
    /// [`run_blocking`](super::Experiment::run_blocking) nobody carries a command out.
    ///
    /// ```no_run
    /// # use cerebro_core::TrialId;
    /// # use cerebro_core::experiment::{ControlError, ExperimentHandle};
    /// fn pause_a_while(handle: &ExperimentHandle) -> Result<(), ControlError> {
    ///     handle.pause_trial(TrialId(3)).wait()?;
    ///     println!("{} units run", handle.status_blocking()?.running_units);
    ///     handle.resume_trial(TrialId(3)).wait()?;
    ///     Ok(())
    /// }
    /// ```
    pub fn wait(self) -> Result<T, ControlError> {
        futures::executor::block_on(self)
    }
}

impl Reply<Answer> {
    fn map<T>(self, answer: fn(&Answer) -> Option<T>) -> Reply<T> {
        Reply { receiver: self.receiver, answer }
    }
}

impl<T> Future for Reply<T> {
    type Output = Result<T, ControlError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let answered = match self.receiver.poll_unpin(context) {
            Poll::Ready(answered) => answered.unwrap_or(Err(ControlError::Over)),
            Poll::Pending => return Poll::Pending,
        };
        let answer = self.answer;
        Poll::Ready(answered.and_then(|given| answer(&given).ok_or(ControlError::Over)))
    }
}
