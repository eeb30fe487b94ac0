//! A population whose members differ in the size of their States, as networks of several architectures
//! do: a State always goes with its Config.

use std::sync::Arc;

use cerebro_backend_local::LocalBackend;
use cerebro_core::data::Partition;
use cerebro_core::experiment::{Experiment, ExperimentResult};
use cerebro_core::observe::TrialStatus;
use cerebro_core::schedule::Policy;
use cerebro_core::search::Population;
use cerebro_core::testing;
use cerebro_core::{
    Config, Metrics, Model, ModelError, Objective, Pass, Seed, Slot, Space, State, Statistic,
};
use futures::executor::block_on;

/// Its State has as many bytes as its Config says, and its loss comes and goes with the epochs.
struct Sized {
    size: usize,
    rate: f64,
    state: Vec<u8>,
}

impl Model for Sized {
    fn initialize(&mut self, _: Seed) -> Result<(), ModelError> {
        self.state = vec![0; self.size];
        Ok(())
    }

    fn restore(&mut self, state: &State) -> Result<(), ModelError> {
        self.state = state.to_vec();
        let (found, size) = (self.state.len(), self.size);
        let other = || ModelError::State(format!("it has {found} bytes, and the model {size}"));
        if found == size { Ok(()) } else { Err(other()) }
    }

    fn state(&mut self) -> Result<State, ModelError> {
        Ok(self.state.clone().into())
    }

    fn train(&mut self, _: &dyn Partition, _: &Pass<'_>) -> Result<Metrics, ModelError> {
        self.state[0] = self.state[0].wrapping_add(1);
        Ok(Metrics::new())
    }

    fn evaluate(&mut self, part: &dyn Partition, _: &Pass<'_>) -> Result<Metrics, ModelError> {
        let mut metrics = Metrics::new();
        let swing = (f64::from(self.state[0]) * (1.0 + 7.0 * self.rate)).sin();
        metrics.record("loss", Statistic::mean(swing + self.rate, part.rows()));
        Ok(metrics)
    }
}

fn run(policy: Policy) -> ExperimentResult {
    let space =
        Space::builder().choice("size", [4, 8, 16, 32]).uniform("rate", 0.0, 1.0).build().unwrap();
    let experiment = Experiment::builder()
        .dataset(testing::dataset(3, 1))
        .model(|config: &Config, _: &Slot| {
            let (size, rate) = (config.int("size")? as usize, config.float("rate")?);
            Ok(Box::new(Sized { size, rate, state: Vec::new() }) as Box<dyn Model>)
        })
        .search(Population::new(&space, 40, ["rate"], Seed(2)).unwrap())
        .objective(Objective::minimize("loss"))
        .epochs(8)
        .seed(3)
        .policy(policy)
        .concurrent_trials(40)
        .keep_models(40)
        .build()
        .unwrap();
    experiment.run_blocking(Arc::new(LocalBackend::builder().workers(3).build().unwrap())).unwrap()
}

#[test]
fn a_state_is_taken_over_with_the_config_that_it_belongs_to() {
    for policy in [Policy::Seeded, Policy::LongestRemainingFirst, Policy::Random] {
        let result = run(policy);
        let failed = result.trials().filter(|trial| trial.status != TrialStatus::Completed);
        assert_eq!(
            failed.map(|trial| &trial.status).collect::<Vec<_>>(),
            [&TrialStatus::Running; 0]
        );
        assert!(result.trials().any(|trial| !trial.inherited.is_empty()), "nobody took over");
    }
}

#[test]
fn the_best_state_of_a_trial_goes_with_the_config_that_it_had_then() {
    let result = run(Policy::Seeded);
    let mut earlier = 0;
    for trial in result.trials() {
        let state = block_on(result.state(trial.id)).unwrap().to_vec();
        assert_eq!(state.len() as i64, trial.best_config().int("size").unwrap(), "{}", trial.id);
        earlier += usize::from(trial.best_config().get("size") != trial.config.get("size"));
    }
    assert!(earlier > 0, "no trial had its best epoch before it took over another size");
}
