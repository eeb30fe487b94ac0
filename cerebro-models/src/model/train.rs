//! The training pass: updates of the weights, each by one batch or by several.

use cerebro_core::data::Partition;
use cerebro_core::{Metrics, ModelError, Pass, Statistic};

use super::{Measured, OnnxModel, PassOver, lock, step_seed};
use crate::schedule::Moment;
use crate::state::TrainingState;
use crate::step::{Scalars, Task};

/// The name under which trials with a schedule report their mean learning rate.
const LEARNING_RATE: &str = "learning_rate";

impl OnnxModel {
    /// Trains on all rows once: gives the metrics and the State afterwards.
    pub(super) fn updates(
        &self,
        partition: &dyn Partition,
        pass: &Pass<'_>,
    ) -> Result<(Metrics, TrainingState), ModelError> {
        let start = self.current()?;
        let order = pass.row_order(partition);
        let mut slot = lock(&self.slot);
        let is_accumulated = self.accumulate > 1;
        let task = if is_accumulated { Task::Accumulation } else { Task::Step };
        let mut unit = PassOver::new(self, &mut slot, partition, task, self.batch_size)?;
        let updater = is_accumulated.then(|| slot.take_updater(&self.program, &unit.full));
        let mut updater = updater.transpose()?;
        let mut measured = Measured::default();
        let mut renewal = slot.take_renewal(&self.program, &start)?;
        let (epoch, patience) = (pass.unit().epoch, self.schedule.patience());
        let mut progress = start.progress().clone();
        progress.begin(epoch, patience);
        let (mut rates, mut updates, mut batches) = (0.0, 0_u64, 0);
        let rows_per_update = self.batch_size.saturating_mul(self.accumulate);
        for group in order.chunks(rows_per_update) {
            let moment = Moment { progress: &progress, epoch, rows: rows_per_update };
            let rate = self.schedule.rate(self.optimizer.learning_rate, &moment);
            let hyperparameters = self.optimizer.hyperparameters(progress.steps + 1, rate);
            if let Some(updater) = &mut updater {
                updater.sums().begin()?;
            }
            for rows in group.chunks(self.batch_size) {
                let stepper = slot.stepper(&self.program, task, unit.shapes(rows.len()))?;
                let interface = stepper.interface();
                let seed = step_seed(pass.seed(), batches);
                let (feed, hyperparameters) = (&mut unit.feed, &hyperparameters);
                let packed = if let Some(updater) = &mut updater {
                    stepper.accumulate(feed, rows, seed, &renewal, updater.sums())?
                } else {
                    let scalars = Scalars { hyperparameters, seed };
                    stepper.step(feed, rows, &scalars, &mut renewal)?
                };
                measured.add(packed, &interface);
                unit.check_loss(packed, batches)?;
                batches += 1;
                pass.advance(rows.len())?;
            }
            if let Some(updater) = &mut updater {
                updater.update(&hyperparameters, &mut renewal)?;
            }
            updates += 1;
            progress.steps += 1;
            progress.rows += group.len() as u64;
            rates += rate;
        }
        let live = slot.keep_renewal(&self.program, renewal);
        if let Some(updater) = updater {
            slot.keep_updater(&self.program, updater);
        }
        if let Some((_, Statistic::Mean { sum, weight })) = measured.0.first() {
            progress.end(*sum, *weight, patience);
        }
        let mut metrics = measured.metrics();
        if !self.schedule.is_constant() {
            let mean = Statistic::Mean { sum: rates, weight: updates as f64 };
            metrics.record(LEARNING_RATE, mean);
        }
        Ok((metrics, start.after(progress, live)))
    }
}
