//! [`ExperimentBuilder`]: what an experiment is made of.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::channel::mpsc;
use futures::executor::block_on;
use tracing::Instrument;

use super::driver::Driver;
use super::handle::Request;
use super::watch::EndsWatch;
use super::{ExperimentError, ExperimentHandle, ExperimentResult, Retention};
use crate::backend::Backend;
use crate::data::Dataset;
#[cfg(feature = "store")]
use crate::data::Location;
use crate::id::Split;
use crate::metric::Objective;
use crate::model::ModelBuilder;
use crate::observe::Observer;
use crate::schedule::Policy;
use crate::search::Search;
use crate::seed::Seed;
use crate::store::Open;
#[cfg(feature = "store")]
use crate::store::{Purpose, open};

/// Of how many trials, the best ones, the States are kept after they ended, unless told otherwise.
const KEPT_MODELS: usize = 10;

/// How long a driver's lease on a store is valid without sign of life.
#[cfg(feature = "store")]
const LEASE_EXPIRY: Duration = Duration::from_secs(15);
#[cfg(feature = "store")]
const SHORTEST_LEASE: Duration = Duration::from_millis(100);

/// An experiment that is ready to run: see [`Experiment::builder`].
pub struct Experiment {
    pub(super) setup: Setup,
    pub(super) search: Box<dyn Search>,
    pub(super) open: Option<Open>,
    handle: ExperimentHandle,
}

/// What the driver needs of an experiment besides its search.
pub(super) struct Setup {
    pub(super) name: String,
    pub(super) dataset: Arc<dyn Dataset>,
    pub(super) model: Arc<dyn ModelBuilder>,
    pub(super) objective: Objective,
    pub(super) epochs: u32,
    pub(super) seed: Seed,
    pub(super) policy: Policy,
    pub(super) concurrency: Option<usize>,
    pub(super) kept_models: usize,
    pub(super) retention: Retention,
    pub(super) wall: Option<Duration>,
    pub(super) speculation: Option<f64>,
    pub(super) code_version: String,
    pub(super) observers: Vec<Box<dyn Observer>>,
    pub(super) requests: mpsc::UnboundedReceiver<Request>,
    pub(super) _watch: EndsWatch,
}

impl Setup {
    /// How many States of `trials` trials of `epochs` epochs are in the store at once at most, of which
    /// no more than `under_way` have not ended, if there is a limit.
    pub(super) fn most_states(&self, trials: u64, epochs: u32, under_way: Option<u64>) -> u64 {
        let each = self.retention.most_states(epochs);
        let all = trials.saturating_mul(each);
        let Some(under_way) = under_way else { return all };
        // As many may have just ended: their States stay until the record that says so is safe.
        let lately = under_way.saturating_mul(2).saturating_mul(each);
        let kept = (self.kept_models as u64).min(trials) * self.retention.staying_states(epochs);
        all.min(lately.saturating_add(kept))
    }
}

impl Experiment {
    /// An experiment needs a data set, a model, a search, an objective and a number of epochs.
    pub fn builder() -> ExperimentBuilder {
        ExperimentBuilder::default()
    }

    /// Controls the experiment while it runs.
    pub fn handle(&self) -> ExperimentHandle {
        self.handle.clone()
    }

    /// How many States are in the store at once at most, if the search knows how many trials there
    /// will be; those of trials that a person adds are not counted. With few
    /// [`concurrent_trials`](ExperimentBuilder::concurrent_trials) and a search that pauses none, that is
    /// much less than all trials have. Times the size of the largest
    /// State, this bounds what checkpoints take of the disk, which is told as
    /// [`Event::StoreBound`](crate::observe::Event::StoreBound).
    pub fn most_states(&self) -> Option<u64> {
        let (setup, search) = (&self.setup, &self.search);
        let epochs = search.max_epochs().map_or(setup.epochs, |most| most.min(setup.epochs));
        let room = setup.concurrency.filter(|_| !search.keeps_trials_waiting());
        Some(setup.most_states(search.planned()?, epochs, room.map(|room| room as u64)))
    }

    /// Runs the experiment on `backend` to its end.
    ///
    /// Needs no particular async runtime beyond what the backend needs.
    pub async fn run(self, backend: Arc<dyn Backend>) -> Result<ExperimentResult, ExperimentError> {
        let span = tracing::info_span!("experiment", name = self.setup.name);
        async move { Driver::start(self, backend).await?.run().await }.instrument(span).await
    }

    /// [`run`](Self::run), on this thread.
    pub fn run_blocking(
        self,
        backend: Arc<dyn Backend>,
    ) -> Result<ExperimentResult, ExperimentError> {
        block_on(self.run(backend))
    }
}

impl fmt::Debug for Experiment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Experiment")
            .field("name", &self.setup.name)
            .field("objective", &self.setup.objective)
            .field("epochs", &self.setup.epochs)
            .field("search", &self.search)
            .finish_non_exhaustive()
    }
}

/// Collects what an experiment is made of; [`build`](Self::build) checks it.
#[derive(Default)]
pub struct ExperimentBuilder {
    name: Option<String>,
    dataset: Option<Arc<dyn Dataset>>,
    model: Option<Arc<dyn ModelBuilder>>,
    search: Option<Box<dyn Search>>,
    objective: Option<Objective>,
    epochs: Option<u32>,
    seed: u64,
    policy: Policy,
    concurrency: Option<usize>,
    kept_models: Option<usize>,
    retention: Retention,
    wall: Option<Duration>,
    speculation: Option<f64>,
    code_version: String,
    #[cfg(feature = "store")]
    store: Option<(Location, Purpose)>,
    #[cfg(feature = "store")]
    lease_expiry: Option<Duration>,
    observers: Vec<Box<dyn Observer>>,
}

impl ExperimentBuilder {
    /// A name for people. The default is "experiment".
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// The partitioned data set.
    pub fn dataset(mut self, dataset: impl Dataset + 'static) -> Self {
        self.dataset = Some(Arc::new(dataset));
        self
    }

    /// Makes the model of a Config.
    pub fn model(mut self, model: impl ModelBuilder + 'static) -> Self {
        self.model = Some(Arc::new(model));
        self
    }

    /// Makes the model of a Config, and is needed elsewhere too, such as to export the best model.
    pub fn shared_model(mut self, model: Arc<dyn ModelBuilder>) -> Self {
        self.model = Some(model);
        self
    }

    /// Chooses the Configs, and which trials go on.
    pub fn search(mut self, search: impl Search + 'static) -> Self {
        self.search = Some(Box::new(search));
        self
    }

    /// The validation metric that is optimised, with its direction.
    pub fn objective(mut self, objective: Objective) -> Self {
        self.objective = Some(objective);
        self
    }

    /// The epochs that a trial trains, unless the search ends it earlier.
    pub fn epochs(mut self, epochs: u32) -> Self {
        self.epochs = Some(epochs);
        self
    }

    /// The seed of everything random. The default is 0.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// How the scheduler orders units.
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// How many trials are under way at once at most. The search is asked for as many before it has any
    /// result, and for another one as soon as a trial ends, so that workers do not run dry. More of
    /// them keep workers busier and give the search its results later; each takes the memory of its
    /// State. The default is four for each slot, at least 16; with [`Policy::Seeded`] it is 16, since
    /// what the search decides shall not depend on the slots, unless the search
    /// [ignores results](crate::search::Search::ignores_results): with more than 16 slots, give a
    /// number yourself. Where trials are too few for the slots, that is told
    /// ([`Event::FewTrials`](crate::observe::Event::FewTrials)).
    pub fn concurrent_trials(mut self, trials: usize) -> Self {
        self.concurrency = Some(trials.max(1));
        self
    }

    /// Of how many trials, the best ones, the States are kept after they ended. The default is 10.
    pub fn keep_models(mut self, trials: usize) -> Self {
        self.kept_models = Some(trials);
        self
    }

    /// Of which epochs of a trial the States stay in the store; by default, of the latest and the best.
    pub fn retention(mut self, retention: Retention) -> Self {
        self.retention = retention;
        self
    }

    /// Stops the experiment when it has run for so long, the loading of the data included: units end at
    /// their next batch, and completed epochs count. With a [store](Self::store) the time of all its
    /// processes counts together, to within an epoch of one that was killed; to go on after that,
    /// resume it with more time. No limit by default.
    pub fn wall_time(mut self, limit: Duration) -> Self {
        self.wall = Some(limit);
        self
    }

    /// Runs a unit that takes `factor` times as long as it would on another worker a second time
    /// there, if that worker holds its partition too and has nothing else to do. The first result
    /// counts, so a worker that hangs or crawls holds nobody up. It needs partitions on several workers
    /// ([replicas](crate::placement::place)); a factor of 2 is a good one, those below 1.1 are taken for
    /// 1.1. Never, by default.
    ///
    /// Both attempts start from the same State and come to the same bits on machines of one kind.
    pub fn speculation(mut self, factor: f64) -> Self {
        self.speculation = Some(factor);
        self
    }

    /// Keeps everything of the experiment in `location`, from its beginning: an error, when it runs, if
    /// there is an experiment already. See [`store`](crate::store) for what is kept and what it costs.
    #[cfg(feature = "store")]
    pub fn store(mut self, location: impl Into<Location>) -> Self {
        self.store = Some((location.into(), Purpose::Begin));
        self
    }

    /// Goes on with the experiment in `location`, whether it was stopped, has crashed or is finished: an
    /// error, when it runs, if there is none, or if the data set, the model, the search or anything else
    /// that its results depend on is not what the experiment began with.
    ///
    /// Trials, States, the search, visit orders and metrics are as they were, and no completed epoch is
    /// trained again.
    #[cfg(feature = "store")]
    pub fn resume(mut self, location: impl Into<Location>) -> Self {
        self.store = Some((location.into(), Purpose::GoOn));
        self
    }

    /// How long another driver waits for a sign of life before it takes the experiment over from one
    /// that died on another machine. The default is 15 seconds.
    #[cfg(feature = "store")]
    pub fn lease_expiry(mut self, expiry: Duration) -> Self {
        self.lease_expiry = Some(expiry.max(SHORTEST_LEASE));
        self
    }

    /// The version of the program that makes the models, such as a commit: an experiment that began
    /// with one is not resumed with another. The default is empty.
    pub fn code_version(mut self, version: impl Into<String>) -> Self {
        self.code_version = version.into();
        self
    }

    /// Adds an observer.
    pub fn observer(mut self, observer: impl Observer + 'static) -> Self {
        self.observers.push(Box::new(observer));
        self
    }

    /// The experiment, or what it lacks.
    pub fn build(self) -> Result<Experiment, ExperimentError> {
        let dataset = self.dataset.ok_or(ExperimentError::Missing("dataset"))?;
        let model = self.model.ok_or(ExperimentError::Missing("model"))?;
        let search = self.search.ok_or(ExperimentError::Missing("search"))?;
        let objective = self.objective.ok_or(ExperimentError::Missing("objective"))?;
        let epochs = self.epochs.ok_or(ExperimentError::Missing("epochs"))?;
        if epochs == 0 {
            return Err(ExperimentError::NoEpochs);
        }
        needs(&*dataset, Split::Train, "prepare it with at least one training partition")?;
        needs(
            &*dataset,
            Split::Validation,
            "the objective is a validation metric: prepare it with a validation fraction",
        )?;
        let (handle, requests, watchers) = ExperimentHandle::new();
        #[cfg(feature = "store")]
        let open = self.store.map(|(location, purpose)| {
            open(location, purpose, self.lease_expiry.unwrap_or(LEASE_EXPIRY))
        });
        #[cfg(not(feature = "store"))]
        let open = None;
        let mut observers = self.observers;
        observers.push(Box::new(watchers.clone()));
        let setup = Setup {
            name: self.name.unwrap_or_else(|| "experiment".to_owned()),
            dataset,
            model,
            objective,
            epochs,
            seed: Seed(self.seed),
            policy: self.policy,
            concurrency: self.concurrency,
            kept_models: self.kept_models.unwrap_or(KEPT_MODELS),
            retention: self.retention,
            wall: self.wall,
            speculation: self.speculation,
            code_version: self.code_version,
            observers,
            requests,
            _watch: EndsWatch(watchers),
        };
        Ok(Experiment { setup, search, open, handle })
    }
}

fn needs(dataset: &dyn Dataset, split: Split, remedy: &'static str) -> Result<(), ExperimentError> {
    if dataset.partitions().iter().any(|info| info.split == split) {
        Ok(())
    } else {
        Err(ExperimentError::NoPartitions { split, remedy })
    }
}

impl fmt::Debug for ExperimentBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExperimentBuilder")
            .field("name", &self.name)
            .field("objective", &self.objective)
            .field("epochs", &self.epochs)
            .finish_non_exhaustive()
    }
}
