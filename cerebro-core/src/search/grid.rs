//! [`Grid`]: every Config of a space's grid, in order.

use serde::{Deserialize, Serialize};

use super::{Ask, Search, SearchError, read, written};
use crate::config::Config;
use crate::id::TrialId;
use crate::space::Space;

/// Every Config of a space's grid (see [`Space::grid`]), or of a list, in order, to its last epoch.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Grid {
    configs: Vec<Config>,
    started: usize,
}

const KIND: &str = "grid";

impl Grid {
    /// All the Configs of the space's grid; an error if a continuous hyperparameter has no
    /// [number of points](crate::space::SpaceBuilder::points).
    pub fn new(space: &Space) -> Result<Self, SearchError> {
        Self::of(space.grid()?)
    }

    /// These Configs, in this order; an error if there is none.
    pub fn of(configs: impl IntoIterator<Item = Config>) -> Result<Self, SearchError> {
        let configs: Vec<Config> = configs.into_iter().collect();
        if configs.is_empty() {
            Err(SearchError::NoTrials)
        } else {
            Ok(Self { configs, started: 0 })
        }
    }

    /// How many trials there will be.
    pub fn len(&self) -> usize {
        self.configs.len()
    }

    /// Never: a grid has at least one Config.
    pub fn is_empty(&self) -> bool {
        self.configs.is_empty()
    }
}

impl Search for Grid {
    fn ask(&mut self, _next: TrialId) -> Ask {
        match self.configs.get(self.started) {
            None => Ask::Finished,
            Some(config) => {
                self.started += 1;
                Ask::Start(config.clone())
            }
        }
    }

    fn planned(&self) -> Option<u64> {
        Some(self.configs.len() as u64)
    }

    fn extend(&mut self, _trials: u64) -> Result<(), SearchError> {
        Err(SearchError::NotExtended {
            reason: "a grid has no more Configs than it was made of",
            remedy: "add trials with Configs of your own",
        })
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
    use crate::search::Random;
    use crate::seed::Seed;

    #[test]
    fn a_grid_starts_each_config_once_in_order() {
        let space = Space::builder().int("a", 1, 2).choice("b", ["x", "y"]).build().unwrap();
        let mut grid = Grid::new(&space).unwrap();
        let mut started = Vec::new();
        while let Ask::Start(config) = grid.ask(TrialId(started.len() as u64)) {
            started.push(config.to_string());
        }
        assert_eq!(started, ["a=1 b=x", "a=1 b=y", "a=2 b=x", "a=2 b=y"]);
        assert_eq!(grid.ask(TrialId(4)), Ask::Finished);
    }

    #[test]
    fn a_search_without_trials_is_refused() {
        assert!(matches!(Grid::of([]), Err(SearchError::NoTrials)));
    }

    #[test]
    fn a_grid_that_is_to_be_extended_says_what_to_do_instead() {
        let error = Grid::of([Config::new()]).unwrap().extend(3).unwrap_err().to_string();
        assert!(error.contains("no more Configs") && error.contains("add trials"), "{error}");
    }

    #[test]
    fn a_snapshot_of_another_search_is_refused() {
        let space = Space::builder().int("a", 1, 2).build().unwrap();
        let snapshot = Random::new(&space, 3, Seed(0)).unwrap().snapshot();
        let error = Grid::new(&space).unwrap().restore(&snapshot).unwrap_err();
        assert!(error.to_string().contains("`random`"), "{error}");
    }
}
