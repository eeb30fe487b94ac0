//! [`ExperimentBuilder`]: what an experiment is made of.

use std::fmt;
use std::sync::Arc;

use futures::channel::mpsc;
use futures::executor::block_on;

use super::driver::Driver;
use super::handle::Command;
use super::{ExperimentError, ExperimentHandle, ExperimentResult};
use crate::backend::Backend;
use crate::data::Dataset;
use crate::id::Split;
use crate::metric::Objective;
use crate::model::ModelBuilder;
use crate::observe::Observer;
use crate::schedule::Policy;
use crate::search::Search;
use crate::seed::Seed;

/// Of how many trials, the best ones, the States are kept after they ended, unless told otherwise.
const KEPT_MODELS: usize = 10;

/// An experiment that is ready to run: see [`Experiment::builder`].
pub struct Experiment {
    pub(super) name: String,
    pub(super) dataset: Arc<dyn Dataset>,
    pub(super) model: Arc<dyn ModelBuilder>,
    pub(super) search: Box<dyn Search>,
    pub(super) objective: Objective,
    pub(super) epochs: u32,
    pub(super) seed: Seed,
    pub(super) policy: Policy,
    pub(super) concurrency: Option<usize>,
    pub(super) kept_models: usize,
    pub(super) observers: Vec<Box<dyn Observer>>,
    pub(super) handle: ExperimentHandle,
    pub(super) commands: mpsc::UnboundedReceiver<Command>,
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

    /// Runs the experiment on `backend` to its end.
    ///
    /// Needs no particular async runtime beyond what the backend needs.
    pub async fn run(self, backend: Arc<dyn Backend>) -> Result<ExperimentResult, ExperimentError> {
        Driver::start(self, backend).await?.run().await
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
            .field("name", &self.name)
            .field("objective", &self.objective)
            .field("epochs", &self.epochs)
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

    /// How many trials are under way at once at most. More of them keep workers busier and give
    /// the search its results later; each takes the memory of its State. The default is four for
    /// each slot, at least 16.
    pub fn concurrent_trials(mut self, trials: usize) -> Self {
        self.concurrency = Some(trials.max(1));
        self
    }

    /// Of how many trials, the best ones, the States are kept after they ended. The default is 10.
    pub fn keep_models(mut self, trials: usize) -> Self {
        self.kept_models = Some(trials);
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
        let (handle, commands) = ExperimentHandle::new();
        Ok(Experiment {
            name: self.name.unwrap_or_else(|| "experiment".to_owned()),
            dataset,
            model,
            search,
            objective,
            epochs,
            seed: Seed(self.seed),
            policy: self.policy,
            concurrency: self.concurrency,
            kept_models: self.kept_models.unwrap_or(KEPT_MODELS),
            observers: self.observers,
            handle,
            commands,
        })
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
