//! [`QuasiRandom`]: a sequence that fills the space more evenly than independent draws.

use serde::{Deserialize, Serialize};

use super::{Ask, Search, SearchError, read, written};
use crate::config::Config;
use crate::id::TrialId;
use crate::seed::Seed;
use crate::space::Space;

/// The randomised Halton sequence, each trial to its last epoch.
///
/// The points of any part of the sequence are spread over the space more evenly than independent
/// draws, which leave gaps and clusters; so as few as a dozen trials already cover every
/// hyperparameter. Each digit of each number is put through a permutation that the seed determines
/// (Owen 2017, "A randomized Halton algorithm in R"), which removes the correlations of the plain
/// Halton sequence in higher dimensions and makes seeds independent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct QuasiRandom {
    space: Space,
    seed: Seed,
    trials: u64,
    started: u64,
}

const KIND: &str = "quasi_random";

impl QuasiRandom {
    /// `trials` points of `space`; an error if there is none.
    pub fn new(space: &Space, trials: u64, seed: Seed) -> Result<Self, SearchError> {
        if trials == 0 {
            return Err(SearchError::NoTrials);
        }
        Ok(Self { space: space.clone(), seed, trials, started: 0 })
    }
}

impl Search for QuasiRandom {
    fn ask(&mut self, _next: TrialId) -> Ask {
        if self.started == self.trials {
            return Ask::Finished;
        }
        let config = point(&self.space, self.seed, self.started);
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

/// Point number `index` of the sequence of `seed` in `space`: each hyperparameter is a dimension.
pub(super) fn point(space: &Space, seed: Seed, index: u64) -> Config {
    space.config_at(|dimension, _| halton(seed, dimension, index))
}

/// Coordinate `dimension` of point `index` of the randomised Halton sequence, in `[0, 1)`.
fn halton(seed: Seed, dimension: usize, index: u64) -> f64 {
    let base = prime(dimension);
    let (mut rest, mut scale, mut coordinate) = (index, 1.0 / base as f64, 0.0);
    let mut digit = 0;
    // Leading zeros are permuted too, down to the last digit that a float can hold.
    while scale > f64::EPSILON / 2.0 {
        let permutation =
            seed.derive("search.halton", &[dimension as u64, digit]).permutation(base as usize);
        coordinate += f64::from(permutation[(rest % base) as usize]) * scale;
        rest /= base;
        scale /= base as f64;
        digit += 1;
    }
    coordinate.min(1.0 - f64::EPSILON / 2.0)
}

/// Prime number `index`, counted from 0.
fn prime(index: usize) -> u64 {
    let mut smaller: Vec<u64> = Vec::with_capacity(index);
    let mut candidate = 2u64;
    loop {
        if smaller.iter().all(|prime| !candidate.is_multiple_of(*prime)) {
            if smaller.len() == index {
                return candidate;
            }
            smaller.push(candidate);
        }
        candidate += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_of_the_first_points_has_a_cell_of_its_own_in_every_dimension() {
        for seed in 0..5 {
            for (dimension, base) in [(0, 2u64), (1, 3), (2, 5), (3, 7)] {
                let count = base.pow(3);
                let mut cells: Vec<u64> = (0..count)
                    .map(|index| (halton(Seed(seed), dimension, index) * count as f64) as u64)
                    .collect();
                cells.sort_unstable();
                assert_eq!(cells, (0..count).collect::<Vec<_>>(), "dimension {dimension}");
            }
        }
    }

    #[test]
    fn dimensions_are_not_correlated() {
        // The plain Halton sequence fails this between large bases: its first points are a line.
        let count = 60;
        for (first, second) in [(0, 1), (6, 7), (10, 11)] {
            let mut covariance = 0.0;
            for index in 0..count {
                let x = halton(Seed(3), first, index) - 0.5;
                let y = halton(Seed(3), second, index) - 0.5;
                covariance += 12.0 * x * y / count as f64;
            }
            assert!(covariance.abs() < 0.3, "{first} and {second}: correlation {covariance}");
        }
    }

    #[test]
    fn points_are_in_the_space_and_seeds_differ() {
        let space = Space::builder()
            .choice("a", ["x", "y"])
            .loguniform("b", 1e-3, 1.0)
            .when("a", ["x"])
            .int("c", 1, 9)
            .build()
            .unwrap();
        let mut search = QuasiRandom::new(&space, 50, Seed(1)).unwrap();
        let mut other = QuasiRandom::new(&space, 50, Seed(2)).unwrap();
        let mut different = 0;
        while let Ask::Start(config) = search.ask(TrialId(0)) {
            space.check(&config).unwrap();
            different += usize::from(other.ask(TrialId(0)) != Ask::Start(config));
        }
        assert!(different > 40, "{different}");
    }
}
