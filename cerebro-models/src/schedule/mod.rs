//! Learning-rate schedules: the rate of each step as a function of how far a trial has trained.
//!
//! Nothing is kept in a schedule. The rate follows from the Config and from the [`Progress`] in the
//! trial's State, so it is the same wherever the next unit runs, whatever the order and the sizes
//! of partitions, and it goes on where it was when an experiment is resumed.

mod progress;
mod read;
#[cfg(test)]
mod tests;

pub(crate) use progress::Progress;

/// The learning rate over a trial's training: a warm-up, and then a curve.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Schedule {
    pub(crate) clock: Clock,
    /// How long the rate rises linearly, in the clock's unit, and the share that it starts from
    /// (PyTorch's `LinearLR`, with the curve behind it as in `SequentialLR`).
    pub(crate) warmup: Option<(f64, f64)>,
    pub(crate) curve: Curve,
}

/// What durations are measured in.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum Clock {
    /// Updates.
    #[default]
    Steps,
    /// Epochs that were begun: the rate is the same over a whole epoch.
    Epochs,
    /// Rows that were trained on, in epochs of so many: the rate changes at each step.
    Rows(u64),
}

/// The learning rate after the warm-up. Lengths are in the clock's unit.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum Curve {
    /// As the Config says.
    #[default]
    Constant,
    /// Multiplied by `factor` after every `length`: `StepLR`.
    Step { factor: f64, length: f64 },
    /// Multiplied by `factor` over each `length`, smoothly: `ExponentialLR`.
    Exponential { factor: f64, length: f64 },
    /// Falls in a straight line to `minimum`: `LinearLR`.
    Linear { minimum: f64, length: f64 },
    /// Falls along half a cosine to `minimum` (Loshchilov and Hutter 2017, "SGDR"):
    /// `CosineAnnealingLR`.
    Cosine { minimum: f64, length: f64 },
    /// Rises from `1 / start` of the rate for the share `rise` of the length, and falls to
    /// `1 / end` of where it started, along cosines (Smith and Topin 2018, "Super-convergence"):
    /// `OneCycleLR`, without its cycle of momentum.
    OneCycle { length: f64, rise: f64, start: f64, end: f64 },
    /// Multiplied by `factor` when the training loss stops falling: `ReduceLROnPlateau`.
    Plateau(Patience),
}

/// When a loss has stopped falling.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Patience {
    /// What the rate is multiplied by then.
    pub(crate) factor: f64,
    /// The rate does not fall below this one.
    pub(crate) minimum: f64,
    /// The epochs without a better loss that are accepted.
    pub(crate) epochs: u32,
    /// A loss is better if it is lower than the best one by this share.
    pub(crate) threshold: f64,
    /// The epochs after a reduction that do not count.
    pub(crate) cooldown: u32,
}

/// What the learning rate of a step depends on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment<'a> {
    /// What was trained before the step.
    pub(crate) progress: &'a Progress,
    /// The epoch that the step belongs to.
    pub(crate) epoch: u32,
    /// The rows of a full step.
    pub(crate) rows: usize,
}

impl Schedule {
    /// Whether the learning rate is the Config's from first to last.
    pub(crate) fn is_constant(&self) -> bool {
        self.curve == Curve::Constant && self.warmup.is_none()
    }

    /// The learning rate of the step at `moment`, where the Config says `rate`.
    pub(crate) fn rate(&self, rate: f64, moment: &Moment<'_>) -> f64 {
        // The time, what one of the unit of lengths is in it, and what a step is.
        let (time, unit, tick) = match self.clock {
            Clock::Steps => (moment.progress.steps as f64, 1.0, 1.0),
            Clock::Epochs => (f64::from(moment.epoch), 1.0, 1.0),
            Clock::Rows(rows) => (moment.progress.rows as f64, rows as f64, moment.rows as f64),
        };
        let mut time = time;
        if let Some((length, start)) = self.warmup {
            let length = length * unit;
            if time < length {
                let risen = rate * (start + (1.0 - start) * time / length);
                return self.plateau(risen, moment);
            }
            if !matches!(self.curve, Curve::Plateau(_)) {
                time -= length;
            }
        }
        // The length of training includes the warm-up.
        let warmup = self.warmup.map_or(0.0, |(length, _)| length);
        let share = |length: f64| (time / ((length - warmup) * unit)).min(1.0);
        match self.curve {
            Curve::Constant => rate,
            Curve::Step { factor, length } => rate * factor.powf((time / (length * unit)).floor()),
            Curve::Exponential { factor, length } => rate * factor.powf(time / (length * unit)),
            Curve::Linear { minimum, length } => rate + (minimum - rate) * share(length),
            Curve::Cosine { minimum, length } => cosine(rate, minimum, share(length)),
            Curve::OneCycle { length, rise, start, end } => {
                let lowest = rate / start;
                let (peak, last) = (rise * length * unit - tick, length * unit - tick);
                if time <= peak && peak > 0.0 {
                    cosine(lowest, rate, time / peak)
                } else if last > peak.max(0.0) {
                    let from = peak.max(0.0);
                    cosine(rate, lowest / end, ((time - from) / (last - from)).min(1.0))
                } else {
                    rate
                }
            }
            Curve::Plateau(_) => self.plateau(rate, moment),
        }
    }

    /// `rate`, reduced as often as the loss has stopped falling.
    fn plateau(&self, rate: f64, moment: &Moment<'_>) -> f64 {
        let Curve::Plateau(patience) = &self.curve else { return rate };
        let reductions = moment.progress.plateau.as_ref().map_or(0, |plateau| plateau.reductions);
        if reductions == 0 {
            return rate;
        }
        (rate * patience.factor.powi(reductions as i32)).max(patience.minimum.min(rate))
    }

    /// The settings that the State must follow the loss for.
    pub(crate) fn patience(&self) -> Option<&Patience> {
        match &self.curve {
            Curve::Plateau(patience) => Some(patience),
            _ => None,
        }
    }
}

/// From `from` to `to` along half a cosine, of which the share `share` is done.
fn cosine(from: f64, to: f64, share: f64) -> f64 {
    to + (from - to) * (1.0 + (std::f64::consts::PI * share).cos()) / 2.0
}
