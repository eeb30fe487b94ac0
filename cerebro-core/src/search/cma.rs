//! [`CmaEs`]: the covariance matrix adaptation evolution strategy.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use fcmaes_core::{Cmaes, CmaesParams, Fitness};
use serde::{Deserialize, Serialize};

use super::loss::Loss;
use super::{Ask, Decision, Ending, EpochReport, Search, SearchError, read, written};
use crate::id::TrialId;
use crate::seed::Seed;
use crate::space::{Domain, Parameter, Space};

/// The covariance matrix adaptation evolution strategy, CMA-ES (Hansen and Ostermeier 2001,
/// "Completely derandomized self-adaptation in evolution strategies"; in the active form of Jastrebski
/// and Arnold 2006): it draws Configs from a normal density, whose mean, width and directions follow
/// those that turned out well. By the crate `fcmaes-core`; under the feature `cma-es`.
///
/// It is for numbers, with some hundreds of trials to spend; with fewer, with choices or with conditions
/// [`Tpe`](super::Tpe) is better.
///
/// - It works on the [positions](Domain::at) of values in their domains, so logarithms and quanta are
///   what they are elsewhere. It starts in the middle with a standard deviation of a sixth of the domain,
///   so that hardly anything is drawn beyond its ends, which would be moved onto them.
/// - A generation has 4 + floor(3 ln n) results for n hyperparameters (Hansen 2016, "The CMA evolution
///   strategy: a tutorial"), or as [set](CmaEs::with_population): that of a trial is its loss after the
///   last epoch, or [an earlier one](CmaEs::compared_after) where a search around this one ends most
///   trials early. A trial that ends before without a person's doing is the worst of its generation.
/// - It never waits: as long as a generation is not complete, more Configs are drawn from the same
///   density, and whichever results come first are the generation's.
/// - When it has converged it starts again from the middle with twice the population (Auger and Hansen
///   2005, "A restart CMA evolution strategy with increasing population size").
#[derive(Serialize, Deserialize)]
pub struct CmaEs {
    space: Space,
    seed: Seed,
    trials: u64,
    started: u64,
    /// The population of the first start, if it was set.
    population: Option<u32>,
    compared_after: Option<u32>,
    /// The positions of trials that have no result yet.
    open: BTreeMap<TrialId, Vec<f64>>,
    run: Run,
}

/// The strategy since it last started, and what it was told: the same again gives the same.
#[derive(Serialize, Deserialize)]
#[serde(from = "Told")]
struct Run {
    start: Start,
    steps: Vec<Step>,
    #[serde(skip_serializing)]
    strategy: Cmaes,
    candidates: VecDeque<Vec<f64>>,
    results: Vec<(Loss, Vec<f64>)>,
}

/// What is written of a [`Run`].
#[derive(Deserialize)]
struct Told {
    start: Start,
    steps: Vec<Step>,
    candidates: VecDeque<Vec<f64>>,
    results: Vec<(Loss, Vec<f64>)>,
}

impl From<Told> for Run {
    fn from(told: Told) -> Self {
        let mut run = Run::new(told.start);
        told.steps.into_iter().for_each(|step| run.step(step));
        Self { candidates: told.candidates, results: told.results, ..run }
    }
}

/// How a strategy starts.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Start {
    number: u64,
    dimensions: usize,
    population: u32,
    seed: Seed,
}

/// What a strategy was asked for, or told.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Step {
    Drawn,
    Told(Vec<(Loss, Vec<f64>)>),
}

const KIND: &str = "cma_es";

/// The standard deviation that it starts with, of positions from 0 to 1.
const DEVIATION: f64 = 1.0 / 6.0;

/// No larger population makes sense, whatever the number of restarts.
const LARGEST: u32 = 4096;

impl CmaEs {
    /// Starts `trials` trials with Configs of `space`, all of whose hyperparameters are numbers.
    pub fn new(space: &Space, trials: u64, seed: Seed) -> Result<Self, SearchError> {
        if trials == 0 {
            return Err(SearchError::NoTrials);
        }
        only_numbers(space)?;
        let (population, number) = (None, 0);
        let start = Start::new(number, space, population, seed);
        Ok(Self {
            space: space.clone(),
            seed,
            trials,
            started: 0,
            population,
            compared_after: None,
            open: BTreeMap::new(),
            run: Run::new(start),
        })
    }

    /// So many results make a generation, from 4 to 4096. With many slots more than the default
    /// keeps the results from being out of date.
    pub fn with_population(mut self, results: u32) -> Result<Self, SearchError> {
        if !(4..=LARGEST).contains(&results) {
            return Err(SearchError::Setting {
                search: KIND,
                setting: "population",
                found: results.to_string(),
                expected: "from 4 to 4096",
            });
        }
        self.population = Some(results);
        self.run = Run::new(Start::new(0, &self.space, self.population, self.seed));
        Ok(self)
    }

    /// Compares trials by their losses after `epochs` epochs; at least 1.
    pub fn compared_after(mut self, epochs: u32) -> Result<Self, SearchError> {
        if epochs == 0 {
            return Err(SearchError::Setting {
                search: KIND,
                setting: "compared_after",
                found: epochs.to_string(),
                expected: "at least 1",
            });
        }
        self.compared_after = Some(epochs);
        Ok(self)
    }

    fn result(&mut self, trial: TrialId, loss: Loss) {
        let Some(position) = self.open.remove(&trial) else { return };
        if self.run.take(loss, position) {
            let start =
                Start::new(self.run.start.number + 1, &self.space, self.population, self.seed);
            self.run = Run::new(start);
        }
    }
}

/// Refuses hyperparameters without an order, and those that not every Config has.
fn only_numbers(space: &Space) -> Result<(), SearchError> {
    let unfit = |parameter: &&Parameter| {
        matches!(parameter.domain, Domain::Choice(_)) || !parameter.when.is_empty()
    };
    match space.parameters().iter().find(unfit) {
        None => Ok(()),
        Some(parameter) => Err(SearchError::Setting {
            search: KIND,
            setting: "space",
            found: format!("one in which `{}` is a choice or has a condition", parameter.name),
            expected: "made of numbers that every Config has (`int`, `uniform`, `loguniform`, \
                       `quniform`, `qloguniform`); the search `tpe` takes every space",
        }),
    }
}

impl Start {
    fn new(number: u64, space: &Space, population: Option<u32>, seed: Seed) -> Self {
        let dimensions = space.parameters().len().max(1);
        let usual = 4 + (3.0 * (dimensions as f64).ln()) as u32;
        let first = population.unwrap_or(usual);
        let doubled = first.saturating_mul(1 << number.min(16));
        let seed = seed.derive("search.cma_es", &[number]);
        Self { number, dimensions, population: doubled.min(LARGEST), seed }
    }

    fn strategy(&self) -> Cmaes {
        let ends = (vec![0.0; self.dimensions], vec![1.0; self.dimensions]);
        let box_of_positions = Fitness::bounded(self.dimensions, 1, &ends.0, &ends.1);
        let parameters = CmaesParams {
            popsize: self.population as i32,
            seed: self.seed.0,
            ..CmaesParams::default()
        };
        Cmaes::new(box_of_positions, &vec![0.5; self.dimensions], &[DEVIATION], &parameters)
    }
}

impl Run {
    fn new(start: Start) -> Self {
        let strategy = start.strategy();
        let (candidates, results) = (VecDeque::new(), Vec::new());
        Self { start, steps: Vec::new(), strategy, candidates, results }
    }

    /// The next position to try.
    fn candidate(&mut self) -> Vec<f64> {
        loop {
            if let Some(candidate) = self.candidates.pop_front() {
                return candidate;
            }
            self.step(Step::Drawn);
        }
    }

    /// Takes in a result; whether the strategy has converged.
    fn take(&mut self, loss: Loss, position: Vec<f64>) -> bool {
        self.results.push((loss, position));
        if self.results.len() < self.start.population as usize {
            return false;
        }
        let results = std::mem::take(&mut self.results);
        self.step(Step::Told(results));
        self.strategy.stop() != 0
    }

    fn step(&mut self, step: Step) {
        match &step {
            Step::Drawn => self.candidates.extend(self.strategy.ask()),
            Step::Told(results) => {
                let positions: Vec<Vec<f64>> = results.iter().map(|(_, at)| at.clone()).collect();
                let largest = results.iter().map(|(loss, _)| *loss).filter(|loss| loss.is_known());
                // The strategy computes differences of losses, so those that are missing are finite.
                let worst =
                    largest.max().map_or(0.0, |largest| largest.get() + largest.get().abs() + 1.0);
                let finite = |loss: &Loss| if loss.is_known() { loss.get() } else { worst };
                let losses = results.iter().map(|(loss, _)| finite(loss));
                self.strategy.tell_x(&losses.collect::<Vec<_>>(), &positions);
                // What was drawn from the old density would be out of date.
                self.candidates.clear();
            }
        }
        self.steps.push(step);
    }
}

impl Search for CmaEs {
    fn ask(&mut self, next: TrialId) -> Ask {
        if self.started == self.trials {
            return Ask::Finished;
        }
        let position = self.run.candidate();
        let config = self.space.config_at(|index, _| position[index]);
        self.started += 1;
        self.open.insert(next, position);
        Ask::Start(config)
    }

    fn planned(&self) -> Option<u64> {
        Some(self.trials)
    }

    fn tell(&mut self, report: &EpochReport) -> Decision {
        let compared =
            self.compared_after.map_or(report.max_epochs, |at| at.min(report.max_epochs));
        if report.epoch >= compared {
            self.result(report.trial, Loss::new(report.loss()));
        }
        Decision::Continue
    }

    fn ended(&mut self, trial: TrialId, ending: Ending) {
        match ending {
            Ending::Failed | Ending::Outperformed => self.result(trial, Loss::WORST),
            Ending::Stopped => {
                self.open.remove(&trial);
            }
        }
    }

    fn extend(&mut self, trials: u64) -> Result<(), SearchError> {
        self.trials += trials;
        Ok(())
    }

    fn keeps_trials_waiting(&self) -> bool {
        false
    }

    fn space(&self) -> Option<&Space> {
        Some(&self.space)
    }

    /// It starts again in the middle of the new space.
    fn narrow(&mut self, space: &Space) -> Result<(), SearchError> {
        only_numbers(space)?;
        self.space = space.clone();
        self.open.clear();
        let start = Start::new(self.run.start.number, space, self.population, self.seed);
        self.run = Run::new(start);
        Ok(())
    }

    fn snapshot(&self) -> serde_json::Value {
        written(KIND, self)
    }

    fn restore(&mut self, snapshot: &serde_json::Value) -> Result<(), SearchError> {
        *self = read(KIND, snapshot)?;
        Ok(())
    }
}

impl fmt::Debug for CmaEs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CmaEs")
            .field("space", &self.space)
            .field("trials", &self.trials)
            .field("started", &self.started)
            .field("start", &self.run.start)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
