//! What the trials of a [`Tpe`](super::Tpe) have reported, and which of them are the good ones.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::id::TrialId;
use crate::search::loss::Loss;
use crate::search::{Ending, EpochReport};

/// The good trials are a tenth of all, rounded up, but no more than these.
const MOST_GOOD: usize = 25;

/// The density of the others is estimated from no more trials than these, so that a proposal takes
/// the same time after ten thousand trials as after a few hundred.
const MOST_OTHERS: usize = 128;

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct History {
    trials: BTreeMap<TrialId, Record>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Record {
    config: Config,
    /// After each epoch.
    losses: Vec<Loss>,
    failed: bool,
}

impl Record {
    fn at(&self, epoch: usize) -> Option<Loss> {
        self.losses.get(epoch - 1).copied()
    }
}

impl History {
    pub(super) fn start(&mut self, trial: TrialId, config: &Config) {
        let record = Record { config: config.clone(), losses: Vec::new(), failed: false };
        self.trials.insert(trial, record);
    }

    pub(super) fn tell(&mut self, report: &EpochReport) {
        if let Some(record) = self.trials.get_mut(&report.trial) {
            let loss = Loss::new(report.loss());
            // A trial that started from the weights of another has no earlier epochs of its own.
            record.losses.resize(report.epoch.max(1) as usize, loss);
            if let Some(last) = record.losses.last_mut() {
                *last = loss;
            }
        }
    }

    pub(super) fn end(&mut self, trial: TrialId, ending: Ending) {
        match (ending, self.trials.get_mut(&trial)) {
            (Ending::Failed, Some(record)) => record.failed = true,
            // It says nothing of its Config, unless it has reported something.
            (Ending::Stopped, Some(record)) if record.losses.is_empty() => {
                self.trials.remove(&trial);
            }
            _ => {}
        }
    }

    /// The Configs of the good trials and of the others; `None` if there is no epoch that at least
    /// `enough` trials have completed.
    pub(super) fn split(&self, enough: usize) -> Option<(Vec<&Config>, Vec<&Config>)> {
        let epoch = self.compared_epoch(enough)?;
        let mut order: Vec<(Loss, TrialId)> =
            self.trials.iter().filter_map(|(id, record)| Some((record.at(epoch)?, *id))).collect();
        let count = order.len().div_ceil(10).min(MOST_GOOD);
        let (_, last_good, _) = order.select_nth_unstable(count - 1);
        let last_good = *last_good;
        let good = &order[..count];

        let worst_good = |at: usize| {
            good.iter().filter_map(|(_, id)| self.trials[id].at(at)).max().unwrap_or(Loss::WORST)
        };
        let bars: Vec<Loss> = (1..=epoch).map(worst_good).collect();
        let others: Vec<&Config> = self
            .trials
            .iter()
            .filter(|(id, record)| match (record.at(epoch), record.losses.last()) {
                (Some(loss), _) => (loss, **id) > last_good,
                (None, Some(loss)) => record.failed || *loss > bars[record.losses.len() - 1],
                (None, None) => true,
            })
            .map(|(_, record)| &record.config)
            .collect();
        let good = good.iter().map(|(_, id)| &self.trials[id].config).collect();
        Some((good, thin_out(others)))
    }

    /// The largest number of epochs that at least `enough` trials have completed.
    fn compared_epoch(&self, enough: usize) -> Option<usize> {
        let mut epochs: Vec<usize> =
            self.trials.values().map(|record| record.losses.len()).filter(|&n| n > 0).collect();
        if epochs.len() < enough.max(1) {
            return None;
        }
        let (_, epoch, _) = epochs.select_nth_unstable_by(enough.max(1) - 1, |a, b| b.cmp(a));
        Some(*epoch)
    }
}

/// At most [`MOST_OTHERS`] of the Configs, evenly over the time of their start.
fn thin_out(configs: Vec<&Config>) -> Vec<&Config> {
    let count = configs.len();
    if count <= MOST_OTHERS {
        return configs;
    }
    (0..MOST_OTHERS).map(|index| configs[index * count / MOST_OTHERS]).collect()
}
