//! [`StopWhen`]: ends a search before it has run out of trials.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::loss::Loss;
use super::{Ask, Decision, Ending, EpochReport, Search, SearchError, read, written};
use crate::config::Config;
use crate::id::TrialId;
use crate::space::Space;
use crate::text::count;

/// When a search is over although it could go on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum StopRule {
    /// A trial has an objective of this value or a better one.
    Target(f64),
    /// All trials together have completed this number of epochs.
    Epochs(u64),
    /// All trials together have completed this number of epochs since the best objective last got
    /// better by more than `least`.
    NoImprovement {
        /// The number of epochs, at least 1.
        epochs: u64,
        /// What counts as better; 0 if everything does.
        least: f64,
    },
}

/// Another search, which is over as soon as one of several rules says so: then no trial starts or
/// goes on any more, and each that runs stops at the end of its epoch.
///
/// A limit on the wall time is the experiment's, since searches have no clock:
/// [`ExperimentBuilder::wall_time`](crate::experiment::ExperimentBuilder::wall_time).
#[derive(Clone, Debug)]
pub struct StopWhen<S> {
    inner: S,
    watch: Watch,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Watch {
    rules: Vec<StopRule>,
    epochs: u64,
    /// The best loss, as far as it was an improvement.
    best: Loss,
    since_best: u64,
    over: Option<StopRule>,
}

#[derive(Serialize, Deserialize)]
struct Snapshot {
    inner: serde_json::Value,
    watch: Watch,
}

const KIND: &str = "stop_when";

impl<S: Search> StopWhen<S> {
    /// Ends `inner` when one of `rules` says so; an error if one of them cannot be.
    pub fn new(inner: S, rules: impl IntoIterator<Item = StopRule>) -> Result<Self, SearchError> {
        let rules: Vec<StopRule> = rules.into_iter().collect();
        for rule in &rules {
            let (setting, expected, fits) = match *rule {
                StopRule::Target(value) => ("target", "a finite number", value.is_finite()),
                StopRule::Epochs(epochs) => ("epochs", "at least 1", epochs > 0),
                StopRule::NoImprovement { epochs, least } => {
                    let fits = epochs > 0 && least.is_finite() && least >= 0.0;
                    ("no_improvement", "at least 1 epoch, and at least 0", fits)
                }
            };
            if !fits {
                let found = rule.to_string();
                return Err(SearchError::Setting { search: KIND, setting, found, expected });
            }
        }
        let watch = Watch { rules, epochs: 0, best: Loss::WORST, since_best: 0, over: None };
        Ok(Self { inner, watch })
    }

    /// The rule that ended the search, if one did.
    pub fn reason(&self) -> Option<StopRule> {
        self.watch.over
    }
}

impl Watch {
    fn tell(&mut self, report: &EpochReport) {
        let loss = Loss::new(report.loss());
        let least = self.rules.iter().find_map(|rule| match rule {
            StopRule::NoImprovement { least, .. } => Some(*least),
            _ => None,
        });
        self.epochs += 1;
        self.since_best += 1;
        if loss.is_known() && loss.get() < self.best.get() - least.unwrap_or_default() {
            self.best = loss;
            self.since_best = 0;
        }
        let applies = |rule: &&StopRule| match **rule {
            StopRule::Target(value) => {
                loss.is_known() && loss.get() <= EpochReport { value, ..report.clone() }.loss()
            }
            StopRule::Epochs(epochs) => self.epochs >= epochs,
            StopRule::NoImprovement { epochs, .. } => self.since_best >= epochs,
        };
        if self.over.is_none() {
            self.over = self.rules.iter().find(applies).copied();
        }
    }
}

impl<S: Search> Search for StopWhen<S> {
    fn ask(&mut self, next: TrialId) -> Ask {
        if self.watch.over.is_some() { Ask::Finished } else { self.inner.ask(next) }
    }

    fn planned(&self) -> Option<u64> {
        self.inner.planned()
    }

    /// As many as the search around it, or as a rule allows.
    fn planned_epochs(&self) -> Option<u64> {
        let limits = self.watch.rules.iter().filter_map(|rule| match rule {
            StopRule::Epochs(epochs) => Some(*epochs),
            _ => None,
        });
        limits.chain(self.inner.planned_epochs()).min()
    }

    fn tell(&mut self, report: &EpochReport) -> Decision {
        let decision = self.inner.tell(report);
        self.watch.tell(report);
        if self.watch.over.is_none() {
            return decision;
        }
        if decision != Decision::Stop {
            self.inner.ended(report.trial, Ending::Outperformed);
        }
        Decision::Stop
    }

    fn ended(&mut self, trial: TrialId, ending: Ending) {
        self.inner.ended(trial, ending);
    }

    fn resumed(&mut self, trial: TrialId) {
        self.inner.resumed(trial);
    }

    fn added(&mut self, trial: TrialId, config: &Config) {
        self.inner.added(trial, config);
    }

    fn may_take_over(&self, source: TrialId) -> bool {
        self.watch.over.is_none() && self.inner.may_take_over(source)
    }

    fn keeps_trials_waiting(&self) -> bool {
        self.inner.keeps_trials_waiting()
    }

    fn space(&self) -> Option<&Space> {
        self.inner.space()
    }

    fn max_epochs(&self) -> Option<u32> {
        self.inner.max_epochs()
    }

    /// A search that no longer improved is given another chance; one that reached its target or its
    /// number of epochs stays over.
    fn extend(&mut self, trials: u64) -> Result<(), SearchError> {
        self.inner.extend(trials)?;
        if matches!(self.watch.over, Some(StopRule::NoImprovement { .. })) {
            self.watch.over = None;
            self.watch.since_best = 0;
        }
        Ok(())
    }

    fn narrow(&mut self, space: &Space) -> Result<(), SearchError> {
        self.inner.narrow(space)
    }

    fn snapshot(&self) -> serde_json::Value {
        written(KIND, &Snapshot { inner: self.inner.snapshot(), watch: self.watch.clone() })
    }

    fn restore(&mut self, snapshot: &serde_json::Value) -> Result<(), SearchError> {
        let snapshot: Snapshot = read(KIND, snapshot)?;
        self.inner.restore(&snapshot.inner)?;
        self.watch = snapshot.watch;
        Ok(())
    }
}

impl fmt::Display for StopRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StopRule::Target(value) => write!(f, "an objective of {value}"),
            StopRule::Epochs(epochs) => f.write_str(&count(*epochs, "epoch")),
            StopRule::NoImprovement { epochs, least } if *least == 0.0 => {
                write!(f, "{} without improvement", count(*epochs, "epoch"))
            }
            StopRule::NoImprovement { epochs, least } => {
                let epochs = count(*epochs, "epoch");
                write!(f, "{epochs} without an improvement of more than {least}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::Direction;
    use crate::search::Random;
    use crate::search::testing::report;
    use crate::seed::Seed;

    fn search(rule: StopRule) -> StopWhen<Random> {
        let space = Space::builder().uniform("x", 0.0, 1.0).build().unwrap();
        StopWhen::new(Random::new(&space, 9, Seed(0)).unwrap(), [rule]).unwrap()
    }

    #[test]
    fn a_target_ends_the_search_in_its_own_direction() {
        let mut low = search(StopRule::Target(0.1));
        assert_eq!(low.tell(&report(0, 1, 0.2)), Decision::Continue);
        assert_eq!(low.tell(&report(0, 2, f64::NAN)), Decision::Continue);
        assert_eq!(low.tell(&report(0, 3, 0.1)), Decision::Stop);
        assert_eq!(low.tell(&report(1, 1, 0.9)), Decision::Stop, "the others stop too");
        assert_eq!(low.ask(TrialId(2)), Ask::Finished);
        assert_eq!(low.reason(), Some(StopRule::Target(0.1)));

        let mut high = search(StopRule::Target(0.9));
        let accuracy =
            |value| EpochReport { direction: Direction::Maximize, ..report(0, 1, value) };
        assert_eq!(high.tell(&accuracy(0.1)), Decision::Continue);
        assert_eq!(high.tell(&accuracy(0.95)), Decision::Stop);
    }

    #[test]
    fn a_number_of_epochs_ends_the_search() {
        let mut search = search(StopRule::Epochs(3));
        assert_eq!(search.tell(&report(0, 1, 1.0)), Decision::Continue);
        assert_eq!(search.tell(&report(1, 1, 1.0)), Decision::Continue);
        assert!(matches!(search.ask(TrialId(2)), Ask::Start(_)));
        assert_eq!(search.tell(&report(2, 1, 1.0)), Decision::Stop);
    }

    #[test]
    fn too_small_improvements_do_not_count_and_an_extension_is_another_chance() {
        let mut search = search(StopRule::NoImprovement { epochs: 2, least: 0.1 });
        assert_eq!(search.tell(&report(0, 1, 1.0)), Decision::Continue);
        assert_eq!(search.tell(&report(0, 2, 0.95)), Decision::Continue);
        assert_eq!(search.tell(&report(0, 3, 0.85)), Decision::Continue);
        assert_eq!(search.tell(&report(0, 4, 0.8)), Decision::Continue);
        assert_eq!(search.tell(&report(0, 5, 0.8)), Decision::Stop);
        search.extend(5).unwrap();
        assert!(matches!(search.ask(TrialId(1)), Ask::Start(_)));
        assert_eq!(search.tell(&report(1, 1, 2.0)), Decision::Continue);
        assert_eq!(search.tell(&report(1, 2, 2.0)), Decision::Stop);
    }

    #[test]
    fn states_that_a_population_may_take_over_are_kept_while_it_goes_on() {
        let space = Space::builder().uniform("x", 0.0, 1.0).build().unwrap();
        let population = crate::search::Population::new(&space, 4, ["x"], Seed(0)).unwrap();
        let mut search = StopWhen::new(population, [StopRule::Epochs(2)]).unwrap();
        search.ask(TrialId(0));
        search.tell(&report(0, 1, 1.0));
        assert!(search.may_take_over(TrialId(0)));
        search.tell(&report(0, 2, 1.0));
        assert!(!search.may_take_over(TrialId(0)), "it is over");
    }

    #[test]
    fn rules_that_cannot_be_are_refused() {
        let refused = |rule| {
            let space = Space::builder().uniform("x", 0.0, 1.0).build().unwrap();
            StopWhen::new(Random::new(&space, 9, Seed(0)).unwrap(), [rule]).is_err()
        };
        assert!(refused(StopRule::Target(f64::NAN)));
        assert!(refused(StopRule::Epochs(0)));
        assert!(refused(StopRule::NoImprovement { epochs: 0, least: 0.0 }));
        assert!(refused(StopRule::NoImprovement { epochs: 5, least: -1.0 }));
    }
}
