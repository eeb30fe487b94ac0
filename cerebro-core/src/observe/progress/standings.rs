//! [`Standings`]: the best trials while the experiment runs.

use std::collections::BTreeMap;

use crate::config::Config;
use crate::id::TrialId;
use crate::metric::Objective;
use crate::text::{fit, hyperparameters, number};

/// So many of the best trials are shown.
const SHOWN: usize = 3;
/// Longer Configs are cut.
const CONFIG: usize = 60;

/// The best trials, and the Configs of all.
#[derive(Debug, Default)]
pub(super) struct Standings {
    configs: BTreeMap<TrialId, String>,
    /// The best first: value and epoch.
    best: Vec<(TrialId, f64, u32)>,
}

impl Standings {
    /// Notes the Config that a trial goes on with.
    pub(super) fn config(&mut self, trial: TrialId, config: &Config) {
        let text = hyperparameters(config).collect::<Vec<_>>().join(" ");
        self.configs.insert(trial, fit(&text, CONFIG));
    }

    /// Notes the value of a completed epoch.
    pub(super) fn value(&mut self, objective: &Objective, trial: TrialId, value: f64, epoch: u32) {
        if value.is_nan() {
            return;
        }
        let better = |a: f64, b: f64| objective.best_first(a, b).is_lt();
        match self.best.iter_mut().find(|(known, ..)| *known == trial) {
            Some((_, best, at)) if better(value, *best) => (*best, *at) = (value, epoch),
            Some(_) => return,
            None => self.best.push((trial, value, epoch)),
        }
        self.best.sort_by(|a, b| objective.best_first(a.1, b.1).then(a.0.cmp(&b.0)));
        self.best.truncate(SHOWN);
    }

    /// A line per trial.
    pub(super) fn lines(&self) -> impl Iterator<Item = String> {
        self.best.iter().enumerate().map(|(place, (trial, value, epoch))| {
            let config = self.configs.get(trial).map_or("", String::as_str);
            let (place, value) = (place + 1, number(*value));
            format!("{place}. {value:>8} {trial:<11} epoch {epoch:<4} {config}")
        })
    }
}
