//! [`MedianStopping`]: stops the trials that fall behind the others.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::loss::Loss;
use super::{Ask, Decision, Ending, EpochReport, Search, SearchError, read, written};
use crate::config::Config;
use crate::id::TrialId;
use crate::space::Space;

/// Another search whose trials are stopped when they fall behind: a trial stops after an epoch if
/// its best objective so far is worse than the median, over the other trials that have come as
/// far, of the averages of their objectives up to that epoch.
///
/// That is the rule of Golovin et al. 2017 ("Google Vizier: a service for black-box optimization"),
/// except that the others need not be complete: under Model Hopper Parallelism trials run side by
/// side, and a rule that waits for complete ones would never stop any.
#[derive(Clone, Debug)]
pub struct MedianStopping<S> {
    inner: S,
    rule: Rule,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Rule {
    first_epoch: u32,
    min_trials: usize,
    /// For each epoch, the averages of the trials that have come to it, from the lowest.
    averages: Vec<Vec<Loss>>,
    trials: BTreeMap<TrialId, Curve>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Curve {
    best: Loss,
    sum: Loss,
    epochs: u32,
}

#[derive(Serialize, Deserialize)]
struct Snapshot {
    inner: serde_json::Value,
    rule: Rule,
}

const KIND: &str = "median_stopping";

impl<S: Search> MedianStopping<S> {
    /// Stops no trial before it has completed epoch `first_epoch`, nor before `min_trials` others
    /// have come as far; both are at least 1.
    pub fn new(inner: S, first_epoch: u32, min_trials: usize) -> Result<Self, SearchError> {
        let least = |setting, found: u64| match found {
            0 => Err(SearchError::Setting {
                search: KIND,
                setting,
                found: found.to_string(),
                expected: "at least 1",
            }),
            _ => Ok(()),
        };
        least("first_epoch", u64::from(first_epoch))?;
        least("min_trials", min_trials as u64)?;
        let rule = Rule { first_epoch, min_trials, averages: Vec::new(), trials: BTreeMap::new() };
        Ok(Self { inner, rule })
    }
}

impl Rule {
    fn tell(&mut self, report: &EpochReport) -> Decision {
        let loss = Loss::new(report.loss());
        let curve = self.trials.entry(report.trial).or_insert(Curve {
            best: Loss::WORST,
            sum: Loss::new(0.0),
            epochs: 0,
        });
        curve.best = curve.best.min(loss);
        curve.sum = Loss::new(curve.sum.get() + loss.get());
        curve.epochs += 1;
        let average = Loss::new(curve.sum.get() / f64::from(curve.epochs));
        let best = curve.best;

        let epoch = report.epoch.max(1) as usize;
        if self.averages.len() < epoch {
            self.averages.resize_with(epoch, Vec::new);
        }
        let others = &mut self.averages[epoch - 1];
        let behind = others.len() >= self.min_trials && best > median(others);
        let place = others.partition_point(|other| *other <= average);
        others.insert(place, average);

        if behind && report.epoch >= self.first_epoch { Decision::Stop } else { Decision::Continue }
    }
}

/// The median of sorted losses, of which there is at least one.
fn median(sorted: &[Loss]) -> Loss {
    let (low, high) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
    Loss::new(f64::midpoint(low.get(), high.get()))
}

impl<S: Search> Search for MedianStopping<S> {
    fn ask(&mut self, next: TrialId) -> Ask {
        self.inner.ask(next)
    }

    fn planned(&self) -> Option<u64> {
        self.inner.planned()
    }

    fn planned_epochs(&self) -> Option<u64> {
        self.inner.planned_epochs()
    }

    fn tell(&mut self, report: &EpochReport) -> Decision {
        let ruling = self.rule.tell(report);
        match self.inner.tell(report) {
            Decision::Continue => {
                if ruling == Decision::Stop {
                    self.inner.ended(report.trial, Ending::Outperformed);
                }
                ruling
            }
            decision => decision,
        }
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
        self.inner.may_take_over(source)
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

    fn extend(&mut self, trials: u64) -> Result<(), SearchError> {
        self.inner.extend(trials)
    }

    fn narrow(&mut self, space: &Space) -> Result<(), SearchError> {
        self.inner.narrow(space)
    }

    fn snapshot(&self) -> serde_json::Value {
        written(KIND, &Snapshot { inner: self.inner.snapshot(), rule: self.rule.clone() })
    }

    fn restore(&mut self, snapshot: &serde_json::Value) -> Result<(), SearchError> {
        let snapshot: Snapshot = read(KIND, snapshot)?;
        self.inner.restore(&snapshot.inner)?;
        self.rule = snapshot.rule;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search::Random;
    use crate::search::testing::report;
    use crate::seed::Seed;

    fn search(first_epoch: u32, min_trials: usize) -> MedianStopping<Random> {
        let space = Space::builder().uniform("a", 0.0, 1.0).build().unwrap();
        let inner = Random::new(&space, 10, Seed(0)).unwrap();
        MedianStopping::new(inner, first_epoch, min_trials).unwrap()
    }

    #[test]
    fn a_trial_is_compared_by_its_best_with_the_median_of_the_others_averages() {
        let mut search = search(2, 3);
        // Averages after epoch 2: 2.0, 3.0 and 4.0.
        for (trial, first, second) in [(0, 3.0, 1.0), (1, 4.0, 2.0), (2, 5.0, 3.0)] {
            assert_eq!(search.tell(&report(trial, 1, first)), Decision::Continue);
            assert_eq!(search.tell(&report(trial, 2, second)), Decision::Continue);
        }
        // Best so far 3.0: as good as the median 3.0, though the value now is worse.
        search.tell(&report(3, 1, 3.0));
        assert_eq!(search.tell(&report(3, 2, 9.0)), Decision::Continue);
        // Others' averages are now 2, 3, 4 and 6: the median is 3.5.
        search.tell(&report(4, 1, 3.6));
        assert_eq!(search.tell(&report(4, 2, 3.6)), Decision::Stop);
    }

    #[test]
    fn no_trial_stops_before_enough_others_and_epochs() {
        let mut search = search(2, 3);
        for trial in 0..3 {
            search.tell(&report(trial, 1, 1.0));
            search.tell(&report(trial, 2, 1.0 + trial as f64));
        }
        assert_eq!(search.tell(&report(9, 1, 100.0)), Decision::Continue);
        assert_eq!(search.tell(&report(9, 2, 100.0)), Decision::Stop);
    }

    #[test]
    fn a_missing_objective_is_worse_than_the_median() {
        let mut search = search(1, 1);
        search.tell(&report(0, 1, 1.0));
        assert_eq!(search.tell(&report(1, 1, f64::NAN)), Decision::Stop);
        let again = search.snapshot();
        let mut other = super::tests::search(1, 1);
        other.restore(&again).unwrap();
        assert_eq!(other.snapshot(), again);
        assert!(MedianStopping::new(search, 0, 1).is_err());
    }
}
