//! [`Progress`]: how far a trial has trained, as its State records it.

use serde::{Deserialize, Serialize};

use super::Patience;

/// How far a trial has trained.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// The updates of the weights.
    pub(crate) steps: u64,
    /// The rows trained on, those of later epochs counted again.
    pub(crate) rows: u64,
    /// The loss from epoch to epoch, if the learning rate follows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) plateau: Option<Plateau>,
}

impl Progress {
    /// No progress takes more characters as JSON in JSON: at most 20 digits for each whole number and 24
    /// for each other, and the names with their quotes escaped.
    pub(crate) const LONGEST: usize = 512;
}

/// The training loss, watched for the end of its fall.
///
/// It is the training loss, not that of validation: a validation unit changes nothing in a State
/// and may run at any time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Plateau {
    /// The epoch whose loss is being summed.
    epoch: u32,
    sum: f64,
    weight: f64,
    /// The lowest loss of an epoch so far.
    best: Option<f64>,
    /// The epochs in a row that were no better.
    bad: u32,
    /// The epochs that do not count yet.
    cooldown: u32,
    /// How often the learning rate was reduced.
    pub(crate) reductions: u32,
}

impl Progress {
    /// Notes that a unit of epoch `epoch` begins: when it is the first one, the epoch before is
    /// over.
    pub(crate) fn begin(&mut self, epoch: u32, patience: Option<&Patience>) {
        let Some(patience) = patience else { return };
        let plateau = self.plateau.get_or_insert_with(|| Plateau { epoch, ..Plateau::default() });
        if plateau.epoch != epoch {
            if plateau.weight > 0.0 {
                plateau.judge(plateau.sum / plateau.weight, patience);
            }
            (plateau.epoch, plateau.sum, plateau.weight) = (epoch, 0.0, 0.0);
        }
    }

    /// Adds the loss of a unit.
    pub(crate) fn end(&mut self, sum: f64, weight: f64, patience: Option<&Patience>) {
        if let (Some(plateau), Some(_)) = (&mut self.plateau, patience) {
            plateau.sum += sum;
            plateau.weight += weight;
        }
    }
}

impl Plateau {
    /// What PyTorch's `ReduceLROnPlateau.step` does with a loss to be minimised and a relative
    /// threshold.
    fn judge(&mut self, loss: f64, patience: &Patience) {
        if self.best.is_none_or(|best| loss < best * (1.0 - patience.threshold)) {
            self.best = Some(loss);
            self.bad = 0;
        } else {
            self.bad += 1;
        }
        if self.cooldown > 0 {
            self.cooldown -= 1;
            self.bad = 0;
        }
        if self.bad > patience.epochs {
            self.reductions += 1;
            self.cooldown = patience.cooldown;
            self.bad = 0;
        }
    }
}
