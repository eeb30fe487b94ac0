//! How a [`Summary`] reads.

use std::fmt;
use std::time::Duration;

use super::{Outcome, Summary};
use crate::text::{bytes, clean, count, duration, number};

impl fmt::Display for Summary {
    /// Several lines; those of the program itself fit 80 columns.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ended = match self.outcome {
            Outcome::Finished => "finished",
            Outcome::Stopped => "stopped",
        };
        let (wall, loading) = (duration(self.wall), duration(self.loading));
        writeln!(f, "{ended:<12} after {wall}, and {loading} to load the data")?;
        let trials = count((self.completed + self.stopped + self.failed) as u64, "trial");
        let (completed, stopped, failed) = (self.completed, self.stopped, self.failed);
        writeln!(
            f,
            "trials       {trials}: {completed} completed, {stopped} stopped, {failed} failed"
        )?;
        if let Some((trial, value, epoch)) = self.best {
            writeln!(f, "best         {trial}: {} after epoch {epoch}", number(value))?;
        }
        let utilisation = 100.0 * self.utilisation();
        let slots = count(self.slots as u64, "slot");
        writeln!(f, "utilisation  {utilisation:.1} % of {slots} x {wall}")?;
        let (training, validating) = (duration(self.training), duration(self.validating));
        let share = 100.0 * self.training_share();
        writeln!(f, "computing    {training} training ({share:.1} %), {validating} validating")?;
        let train = count(self.train_units, "training unit");
        let validation = count(self.validation_units, "validation unit");
        writeln!(f, "units        {train}, {validation}")?;
        if self.resumed_epochs > 0 {
            let epochs = count(self.resumed_epochs, "epoch");
            writeln!(f, "resumed      with {epochs} complete, which were not trained again")?;
        }
        let (retried, repeated) = (self.retried_units, self.repeated_units);
        if retried + repeated + self.lost_workers > 0 {
            let lost = count(self.lost_workers, "worker");
            writeln!(f, "faults       {retried} units retried, {repeated} repeated, {lost} lost")?;
        }
        if self.slow_workers + self.second_attempts > 0 {
            let slow = count(self.slow_workers, "slow worker");
            writeln!(f, "stragglers   {slow}, {} units run a second time", self.second_attempts)?;
        }
        let idle = 100.0 * self.idle_share();
        writeln!(f, "idle         {idle:.1} % of the slots' time without a unit")?;
        let hops = count(self.hops, "hop");
        writeln!(f, "hops         {hops} of States, {} together", bytes(self.hop_bytes))?;
        for warning in &self.warnings {
            writeln!(f, "warning      {}", clean(warning))?;
        }
        Ok(())
    }
}

impl Summary {
    /// The share of slots x wall in which no unit ran, from 0 to 1.
    pub fn idle_share(&self) -> f64 {
        let available = self.wall.as_secs_f64() * self.slots as f64;
        if available == 0.0 { 0.0 } else { (self.idle.as_secs_f64() / available).min(1.0) }
    }

    /// The share of computing time that went into training, from 0 to 1.
    pub fn training_share(&self) -> f64 {
        let computing = self.training + self.validating;
        if computing == Duration::ZERO {
            return 0.0;
        }
        self.training.as_secs_f64() / computing.as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use crate::observe::Event;
    use crate::observe::synthetic::Synthetic;

    #[test]
    fn a_summary_names_every_figure_within_80_columns() {
        let events = Synthetic::default().events();
        let Some(Event::ExperimentEnded { summary }) = events.last().map(|last| &last.event) else {
            panic!("the last event is the end");
        };
        let text = summary.to_string();
        for line in text.lines().filter(|line| !line.starts_with("warning")) {
            assert!(line.chars().count() <= 80, "{line}");
        }
        let utilisation = format!("{:.1} %", 100.0 * summary.utilisation());
        let trials = format!("{} trials:", summary.completed + summary.stopped + summary.failed);
        for part in [&utilisation, &trials, "retried", "hops", &summary.warnings[0]] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
    }
}
