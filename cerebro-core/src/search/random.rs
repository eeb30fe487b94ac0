//! [`Random`]: independent draws from the space.

use serde::{Deserialize, Serialize};

use super::{Ask, Search, SearchError, read, written};
use crate::id::TrialId;
use crate::seed::Seed;
use crate::space::Space;

/// Independent draws from the space, each to its last epoch (Bergstra and Bengio 2012, "Random
/// search for hyper-parameter optimization").
///
/// The Config of the n-th trial depends on the space, the seed and n only.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Random {
    space: Space,
    seed: Seed,
    trials: u64,
    started: u64,
}

const KIND: &str = "random";

impl Random {
    /// `trials` draws from `space`; an error if there is none.
    pub fn new(space: &Space, trials: u64, seed: Seed) -> Result<Self, SearchError> {
        if trials == 0 {
            return Err(SearchError::NoTrials);
        }
        Ok(Self { space: space.clone(), seed, trials, started: 0 })
    }
}

impl Search for Random {
    fn ask(&mut self, _next: TrialId) -> Ask {
        if self.started == self.trials {
            return Ask::Finished;
        }
        let config = self.space.sample(self.seed.derive("search.random", &[self.started]));
        self.started += 1;
        Ask::Start(config)
    }

    fn planned(&self) -> Option<u64> {
        Some(self.trials)
    }

    fn extend(&mut self, trials: u64) -> Result<(), SearchError> {
        self.trials += trials;
        Ok(())
    }

    fn space(&self) -> Option<&Space> {
        Some(&self.space)
    }

    fn narrow(&mut self, space: &Space) -> Result<(), SearchError> {
        self.space = space.clone();
        Ok(())
    }

    fn keeps_trials_waiting(&self) -> bool {
        false
    }

    fn ignores_results(&self) -> bool {
        true
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
    use crate::config::Config;

    fn space() -> Space {
        Space::builder().uniform("a", 0.0, 1.0).build().unwrap()
    }

    fn rest(search: &mut Random) -> Vec<Config> {
        let asks = std::iter::from_fn(|| match search.ask(TrialId(0)) {
            Ask::Start(config) => Some(config),
            _ => None,
        });
        asks.collect()
    }

    #[test]
    fn the_seed_determines_the_trials() {
        let trials = |seed| rest(&mut Random::new(&space(), 20, Seed(seed)).unwrap());
        assert_eq!(trials(1).len(), 20);
        assert_eq!(trials(1), trials(1));
        assert_ne!(trials(1), trials(2));
        assert!(Random::new(&space(), 0, Seed(1)).is_err());
    }

    #[test]
    fn a_search_that_is_extended_goes_on_where_it_ended() {
        let mut search = Random::new(&space(), 3, Seed(5)).unwrap();
        let mut configs = rest(&mut search);
        search.extend(2).unwrap();
        configs.extend(rest(&mut search));
        assert_eq!(configs, rest(&mut Random::new(&space(), 5, Seed(5)).unwrap()));
    }

    #[test]
    fn a_search_that_is_narrowed_draws_from_the_new_space_and_keeps_it_in_its_snapshot() {
        let mut search = Random::new(&space(), 8, Seed(5)).unwrap();
        search.ask(TrialId(0));
        let narrow = Space::builder().uniform("a", 0.4, 0.5).build().unwrap();
        search.narrow(&narrow).unwrap();
        let mut resumed = Random::new(&space(), 8, Seed(5)).unwrap();
        resumed.restore(&search.snapshot()).unwrap();
        let configs = rest(&mut search);
        assert_eq!(configs, rest(&mut resumed));
        assert!(configs.len() == 7 && configs.iter().all(|config| narrow.contains(config)));
    }
}
