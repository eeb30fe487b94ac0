//! [`Population`]: population based training.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::loss::Loss;
use super::{Ask, Decision, Ending, EpochReport, Search, SearchError, quasi, read, written};
use crate::config::{Config, Value};
use crate::id::TrialId;
use crate::seed::{Seed, SeededRng};
use crate::space::{Domain, Parameter, Space};

/// Population based training (Jaderberg et al. 2017, "Population based training of neural
/// networks"), with truncation selection.
///
/// All members of the population train side by side. After every few epochs a member that is among
/// the worst fifth takes over State and Config of one of the best fifth (exploit), with the
/// hyperparameters that may change during training multiplied by 0.8 or 1.2, or drawn anew with
/// probability 1/4 (explore). Members are compared by their latest objectives, and not before half
/// of them have one.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Population {
    space: Space,
    seed: Seed,
    size: u64,
    started: u64,
    explored: Vec<String>,
    interval: u32,
    members: BTreeMap<TrialId, Member>,
    lineage: Vec<Inheritance>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Member {
    config: Config,
    /// Of the State that it has.
    latest: Option<Loss>,
    /// Whether it has just taken over and not trained since: nobody takes over from it before that,
    /// since its State may still be the one that it gave up.
    #[serde(default)]
    inherits: bool,
}

/// A member of a [`Population`] took over the State and the Config of another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Inheritance {
    /// The member.
    pub trial: TrialId,
    /// The epochs that it had completed.
    pub epoch: u32,
    /// The member that it took over from.
    pub source: TrialId,
    /// The Config that it goes on with.
    pub config: Config,
}

const KIND: &str = "population";

/// The part of the members that is replaced, and the part that replaces them.
const TRUNCATION: f64 = 0.2;
/// How likely an explored hyperparameter is drawn anew.
const RESAMPLING: f64 = 0.25;
/// What an explored number is multiplied by otherwise.
const FACTORS: [f64; 2] = [0.8, 1.2];

impl Population {
    /// A population of `size` members, at least 2. `explored` are the hyperparameters that may
    /// change during training, such as the learning rate; the others, such as the sizes of layers,
    /// are always those of the State that a member has.
    pub fn new<N: Into<String>>(
        space: &Space,
        size: u64,
        explored: impl IntoIterator<Item = N>,
        seed: Seed,
    ) -> Result<Self, SearchError> {
        if size < 2 {
            return Err(SearchError::Setting {
                search: KIND,
                setting: "size",
                found: size.to_string(),
                expected: "at least 2",
            });
        }
        let explored: Vec<String> = explored.into_iter().map(Into::into).collect();
        check_explored(space, &explored)?;
        Ok(Self {
            space: space.clone(),
            seed,
            size,
            started: 0,
            explored,
            interval: 1,
            members: BTreeMap::new(),
            lineage: Vec::new(),
        })
    }

    /// Compares the members after every `epochs` epochs, at least 1; after each by default.
    pub fn with_interval(mut self, epochs: u32) -> Result<Self, SearchError> {
        if epochs == 0 {
            return Err(SearchError::Setting {
                search: KIND,
                setting: "interval",
                found: epochs.to_string(),
                expected: "at least 1",
            });
        }
        self.interval = epochs;
        Ok(self)
    }

    /// Who took over from whom, in order.
    pub fn lineage(&self) -> &[Inheritance] {
        &self.lineage
    }

    /// A member to take over from, if the trial is among the worst.
    fn source(&self, trial: TrialId, rng: &mut SeededRng) -> Option<TrialId> {
        let mut ranking: Vec<(Loss, TrialId)> =
            self.members.iter().filter_map(|(id, member)| Some((member.latest?, *id))).collect();
        if (ranking.len() as u64) < self.size.div_ceil(2) {
            return None;
        }
        ranking.sort_unstable();
        let count = ((ranking.len() as f64 * TRUNCATION).ceil() as usize).min(ranking.len() / 2);
        let worst = &ranking[ranking.len() - count..];
        let own = |(_, id): &&(Loss, TrialId)| !self.members[id].inherits;
        let best: Vec<&(Loss, TrialId)> = ranking.iter().filter(own).take(count).collect();
        if !worst.iter().any(|(_, other)| *other == trial) {
            return None;
        }
        let (loss, source) = **best.get(rng.below(count as u64) as usize)?;
        (loss.is_known() && source != trial).then_some(source)
    }

    fn explore(&self, source: &Config, rng: &mut SeededRng) -> Config {
        let mut config = Config::new();
        for parameter in self.space.parameters() {
            if !parameter.is_active(&config) {
                continue;
            }
            let inherited = source.get(&parameter.name);
            let value = match inherited {
                Some(value) if !self.explored.contains(&parameter.name) => value.clone(),
                Some(value) if rng.unit() >= RESAMPLING => perturbed(parameter, value, rng),
                _ => parameter.domain.at(rng.unit()),
            };
            config.set(&parameter.name, value);
        }
        config
    }
}

fn check_explored(space: &Space, explored: &[String]) -> Result<(), SearchError> {
    match explored.iter().find_map(|name| space.unknown(name)) {
        Some(unknown) => Err(unknown.into()),
        None => Ok(()),
    }
}

/// The value times one of [`FACTORS`], but at least one step away in a domain with steps.
fn perturbed(parameter: &Parameter, value: &Value, rng: &mut SeededRng) -> Value {
    let factor = FACTORS[rng.below(FACTORS.len() as u64) as usize];
    let number = match *value {
        Value::Float(number) => number,
        Value::Int(number) => number as f64,
        // What has no order is drawn anew or kept.
        _ => return value.clone(),
    };
    let step = match parameter.domain {
        Domain::Int { .. } => 1.0,
        Domain::QUniform { quantum, .. } | Domain::QLogUniform { quantum, .. } => quantum,
        _ => 0.0,
    };
    let change = number * (factor - 1.0);
    let change = change.abs().max(step).copysign(change);
    parameter.domain.nearest(number + change).unwrap_or_else(|| value.clone())
}

impl Search for Population {
    fn ask(&mut self, next: TrialId) -> Ask {
        if self.started == self.size {
            return Ask::Finished;
        }
        let config = quasi::point(&self.space, self.seed, self.started);
        self.started += 1;
        let member = Member { config: config.clone(), latest: None, inherits: false };
        self.members.insert(next, member);
        Ask::Start(config)
    }

    fn planned(&self) -> Option<u64> {
        Some(self.size)
    }

    fn tell(&mut self, report: &EpochReport) -> Decision {
        let trial = report.trial;
        let Some(member) = self.members.get_mut(&trial) else { return Decision::Continue };
        member.latest = Some(Loss::new(report.loss()));
        member.inherits = false;
        if report.epoch >= report.max_epochs || !report.epoch.is_multiple_of(self.interval) {
            return Decision::Continue;
        }
        let indices = [trial.0, u64::from(report.epoch)];
        let mut rng = self.seed.derive("search.population", &indices).rng();
        let Some(source) = self.source(trial, &mut rng) else { return Decision::Continue };
        let Member { config, latest, .. } = self.members[&source].clone();
        let config = self.explore(&config, &mut rng);
        self.members.insert(trial, Member { config: config.clone(), latest, inherits: true });
        let epoch = report.epoch;
        self.lineage.push(Inheritance { trial, epoch, source, config: config.clone() });
        Decision::Exploit { source, config }
    }

    fn ended(&mut self, trial: TrialId, _ending: Ending) {
        self.members.remove(&trial);
    }

    fn may_take_over(&self, source: TrialId) -> bool {
        self.members.contains_key(&source)
    }

    fn space(&self) -> Option<&Space> {
        Some(&self.space)
    }

    fn narrow(&mut self, space: &Space) -> Result<(), SearchError> {
        check_explored(space, &self.explored)?;
        self.space = space.clone();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search::testing::report;

    fn space() -> Space {
        Space::builder()
            .choice("hidden", [16, 32, 64])
            .loguniform("learning_rate", 1e-4, 1e-1)
            .int("batch_size", 8, 256)
            .choice("optimizer", ["adam", "sgd"])
            .uniform("momentum", 0.0, 0.9)
            .when("optimizer", ["sgd"])
            .build()
            .unwrap()
    }

    fn started(size: u64) -> (Population, Vec<Config>) {
        let mut population =
            Population::new(&space(), size, ["learning_rate", "batch_size"], Seed(3)).unwrap();
        let configs = (0..size)
            .map(|trial| match population.ask(TrialId(trial)) {
                Ask::Start(config) => config,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(population.ask(TrialId(size)), Ask::Finished);
        (population, configs)
    }

    #[test]
    fn the_worst_fifth_takes_over_from_the_best_fifth_and_the_lineage_is_recorded() {
        let (mut population, configs) = started(10);
        for trial in 0..9 {
            let loss = 9.0 - trial as f64;
            assert_eq!(population.tell(&report(trial, 1, loss)), Decision::Continue);
        }
        let before = population.lineage().len();
        let Decision::Exploit { source, config } = population.tell(&report(9, 1, 50.0)) else {
            panic!("the worst member goes on as it is")
        };
        assert!([7, 8].contains(&source.0), "one of the best two, not {source}");
        let parent = &configs[source.0 as usize];
        space().check(&config).unwrap();
        for kept in ["hidden", "optimizer", "momentum"] {
            assert_eq!(config.get(kept), parent.get(kept), "{kept} is part of the State");
        }
        assert_ne!(&config, parent);
        let last = population.lineage().last().unwrap();
        assert_eq!(population.lineage().len(), before + 1);
        assert_eq!((last.trial, last.epoch, last.source), (TrialId(9), 1, source));
        assert_eq!(last.config, config);
    }

    #[test]
    fn nobody_takes_over_from_a_member_that_has_just_done_so_itself() {
        let (mut population, _) = started(10);
        for trial in 0..9 {
            population.tell(&report(trial, 1, 9.0 - trial as f64));
        }
        // From now on member 9 has the loss of one of the best, whose State it may not have yet.
        assert!(matches!(population.tell(&report(9, 1, 50.0)), Decision::Exploit { .. }));
        for seed in 0..50 {
            let source = population.source(TrialId(0), &mut Seed(seed).rng());
            assert!(source.is_none_or(|source| source != TrialId(9)), "of a State that it gave up");
        }
        population.tell(&report(9, 2, 0.5));
        let sources = (0..50).map(|seed| population.source(TrialId(0), &mut Seed(seed).rng()));
        assert!(sources.flatten().any(|source| source == TrialId(9)), "it has trained since");
    }

    #[test]
    fn numbers_are_multiplied_within_their_bounds_or_drawn_anew() {
        let (population, _) = started(4);
        let parent = Config::new()
            .with("hidden", 32)
            .with("learning_rate", 0.09)
            .with("batch_size", 9)
            .with("optimizer", "adam");
        let (mut lower, mut upper, mut anew) = (0, 0, 0);
        for seed in 0..400 {
            let config = population.explore(&parent, &mut Seed(seed).rng());
            space().check(&config).unwrap();
            let ratio = config.float("learning_rate").unwrap() / 0.09;
            if (ratio - 0.8).abs() < 1e-9 {
                lower += 1;
            } else if (ratio - 1.0 / 0.9).abs() < 1e-9 {
                upper += 1;
            } else {
                anew += 1;
            }
            let batch = config.int("batch_size").unwrap();
            assert_ne!(batch, 9, "a factor that rounds to the same value moves a step instead");
        }
        assert!((110..190).contains(&lower) && (110..190).contains(&upper), "{lower} {upper}");
        assert!((60..140).contains(&anew), "{anew}");
    }

    #[test]
    fn nobody_is_compared_between_intervals_at_the_end_or_with_too_few() {
        let (population, _) = started(10);
        let mut population = population.with_interval(2).unwrap();
        for trial in 0..9 {
            population.tell(&report(trial, 1, 1.0));
        }
        assert_eq!(population.tell(&report(9, 1, 9.0)), Decision::Continue);
        assert_eq!(population.tell(&report(9, 81, 9.0)), Decision::Continue);
        assert!(matches!(population.tell(&report(9, 2, 9.0)), Decision::Exploit { .. }));
        let (mut few, _) = started(10);
        for trial in 0..4 {
            assert_eq!(few.tell(&report(trial, 1, trial as f64)), Decision::Continue);
        }
    }

    #[test]
    fn an_explored_name_that_the_space_does_not_have_is_refused() {
        let error = Population::new(&space(), 4, ["learning_rat"], Seed(0)).unwrap_err();
        assert!(error.to_string().contains("did you mean `learning_rate`?"), "{error}");
        assert!(Population::new(&space(), 1, ["learning_rate"], Seed(0)).is_err());
    }
}
