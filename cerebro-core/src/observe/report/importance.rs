//! How much each hyperparameter mattered, from the trials that were run.
//!
//! Trials are grouped by a hyperparameter's value (numbers with many values into groups of equal
//! size) and ranked by their best value of the objective. The importance is the share of the
//! variance of the ranks that lies between the groups: the effect size of the Kruskal-Wallis test,
//! corrected for the number of groups, `(H - k + 1) / (n - k)` for k groups of n trials (Kruskal and
//! Wallis 1952, "Use of ranks in one-criterion variance analysis"; Tomczak and Tomczak 2014, "The
//! need to report effect size estimates revisited"). It is the main effect of functional ANOVA
//! (Hutter, Hoos, Leyton-Brown 2014) with the observed marginals in the place of a forest's, on
//! ranks, so that one diverged trial does not outweigh all others.
//!
//! Its limits: effects of combinations are not seen; a search that looks where results are good
//! narrows what it varies, and hyperparameters that it varies together share their effects; a few
//! trials tell little, which is why each figure comes with what chance alone would reach.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::{Config, Value};
use crate::metric::Objective;
use crate::text;

/// Numbers with more distinct values than this are grouped by size.
const MOST_GROUPS: usize = 6;
/// Fewer trials say nothing.
const FEWEST_TRIALS: usize = 8;

/// How much a hyperparameter mattered.
#[derive(Debug)]
pub(super) struct Importance {
    pub(super) name: String,
    /// The share of the variance of ranks that it explains alone, from 0 to 1.
    pub(super) share: f64,
    /// What a hyperparameter without any effect stays below in about 19 of 20 experiments: two
    /// standard deviations of the share, H being chi-squared with k - 1 degrees of freedom then.
    pub(super) chance: f64,
    pub(super) groups: Vec<Group>,
}

/// Trials with the same value of a hyperparameter, or similar ones.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) label: String,
    pub(super) trials: usize,
    /// The median of their best values; NaN if that is a trial without a value.
    pub(super) median: f64,
}

/// The importance of each hyperparameter that varies, the greatest first. `trials` are Configs with
/// their best values; NaN counts as worst.
pub(super) fn importance(objective: &Objective, trials: &[(&Config, f64)]) -> Vec<Importance> {
    if trials.len() < FEWEST_TRIALS {
        return Vec::new();
    }
    let ranks = ranks(objective, trials);
    let names: BTreeSet<&str> =
        trials.iter().flat_map(|(config, _)| config.iter().map(|(name, _)| name)).collect();
    let mut all: Vec<Importance> = names
        .into_iter()
        .filter_map(|name| {
            let groups = groups(name, trials);
            let (k, n) = (groups.len(), trials.len());
            if k < 2 || n <= k {
                return None;
            }
            let between = between(groups.iter().map(|(_, members)| members.as_slice()), &ranks);
            let (k, n) = (k as f64, n as f64);
            let share = ((between * (n - 1.0) - (k - 1.0)) / (n - k)).clamp(0.0, 1.0);
            let chance = 2.0 * (2.0 * (k - 1.0)).sqrt() / (n - k);
            let groups = groups
                .into_iter()
                .map(|(label, members)| Group {
                    label,
                    trials: members.len(),
                    median: median(objective, &members, trials),
                })
                .collect();
            Some(Importance { name: name.to_owned(), share, chance, groups })
        })
        .collect();
    all.sort_by(|a, b| b.share.total_cmp(&a.share));
    all
}

/// The rank of each trial, the best first; equal values share the mean of their ranks.
fn ranks(objective: &Objective, trials: &[(&Config, f64)]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..trials.len()).collect();
    order.sort_by(|&a, &b| objective.best_first(trials[a].1, trials[b].1));
    let mut ranks = vec![0.0; trials.len()];
    let equal = |&a: &usize, &b: &usize| objective.best_first(trials[a].1, trials[b].1).is_eq();
    let mut before = 0;
    for run in order.chunk_by(equal) {
        let rank = before as f64 + f64::midpoint(run.len() as f64, 1.0);
        for &trial in run {
            ranks[trial] = rank;
        }
        before += run.len();
    }
    ranks
}

/// The share of the ranks' sum of squares that lies between the groups.
fn between<'a>(groups: impl Iterator<Item = &'a [usize]>, ranks: &[f64]) -> f64 {
    let mean = ranks.iter().sum::<f64>() / ranks.len() as f64;
    let total: f64 = ranks.iter().map(|rank| (rank - mean).powi(2)).sum();
    if total == 0.0 {
        return 0.0;
    }
    let of_group = |members: &[usize]| {
        let sum: f64 = members.iter().map(|&trial| ranks[trial]).sum();
        (sum / members.len() as f64 - mean).powi(2) * members.len() as f64
    };
    groups.map(of_group).sum::<f64>() / total
}

/// Trials by the value of a hyperparameter, in the order of the values; without it last.
fn groups(name: &str, trials: &[(&Config, f64)]) -> Vec<(String, Vec<usize>)> {
    let mut by_value: BTreeMap<&Value, Vec<usize>> = BTreeMap::new();
    let mut absent = Vec::new();
    for (index, (config, _)) in trials.iter().enumerate() {
        match config.get(name) {
            Some(value) => by_value.entry(value).or_default().push(index),
            None => absent.push(index),
        }
    }
    let numeric = by_value.keys().all(|value| matches!(value, Value::Int(_) | Value::Float(_)));
    let mut groups = if numeric && by_value.len() > MOST_GROUPS {
        quantiles(by_value, trials.len())
    } else {
        by_value.into_iter().map(|(value, members)| (label(value), members)).collect()
    };
    if !absent.is_empty() {
        groups.push(("not set".to_owned(), absent));
    }
    groups
}

/// Groups of about equal size; trials with the same value stay together.
fn quantiles(by_value: BTreeMap<&Value, Vec<usize>>, trials: usize) -> Vec<(String, Vec<usize>)> {
    let count = by_value.values().map(Vec::len).sum::<usize>();
    let wanted = ((trials as f64).sqrt() as usize).clamp(2, 5);
    let mut groups: Vec<(&Value, &Value, Vec<usize>)> = Vec::new();
    let mut seen = 0;
    let mut current = None;
    for (value, members) in by_value {
        let number = seen * wanted / count;
        seen += members.len();
        match groups.last_mut() {
            Some((_, last, all)) if current == Some(number) => {
                *last = value;
                all.extend(members);
            }
            _ => groups.push((value, value, members)),
        }
        current = Some(number);
    }
    let named = |(first, last, members)| {
        let label = if first == last {
            label(first)
        } else {
            format!("{} – {}", label(first), label(last))
        };
        (label, members)
    };
    groups.into_iter().map(named).collect()
}

fn label(value: &Value) -> String {
    text::hyperparameter(value)
}

fn median(objective: &Objective, members: &[usize], trials: &[(&Config, f64)]) -> f64 {
    let mut values: Vec<f64> = members.iter().map(|&trial| trials[trial].1).collect();
    values.sort_by(|a, b| objective.best_first(*a, *b));
    let (low, high) = (values[(values.len() - 1) / 2], values[values.len() / 2]);
    f64::midpoint(low, high)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::Seed;

    fn shares(values: impl Fn(f64, i64, &str) -> f64) -> BTreeMap<String, (f64, f64)> {
        let mut rng = Seed(5).rng();
        let configs: Vec<(Config, f64)> = (0..200)
            .map(|_| {
                let (rate, size) = (rng.unit(), rng.below(4) as i64);
                let kind = ["a", "b"][rng.below(2) as usize];
                let config = Config::new()
                    .with("rate", rate)
                    .with("size", size)
                    .with("kind", kind)
                    .with("same", 1);
                (config, values(rate, size, kind) + 0.01 * rng.normal())
            })
            .collect();
        let trials: Vec<(&Config, f64)> = configs.iter().map(|(c, v)| (c, *v)).collect();
        let all = importance(&Objective::minimize("loss"), &trials);
        all.into_iter().map(|i| (i.name, (i.share, i.chance))).collect()
    }

    #[test]
    fn the_hyperparameter_that_decides_has_all_the_importance_and_the_others_none() {
        let shares = shares(|rate, _, _| (rate - 0.5).abs());
        assert!(shares["rate"].0 > 0.7, "{shares:?}");
        assert!(shares["size"].0 < shares["size"].1, "{shares:?}");
        assert!(shares["kind"].0 < shares["kind"].1, "{shares:?}");
        assert!(!shares.contains_key("same"));
    }

    #[test]
    fn two_effects_share_the_variance_by_their_sizes() {
        let shares = shares(|_, size, kind| size as f64 + if kind == "a" { 1.0 } else { 0.0 });
        assert!(shares["size"].0 > shares["kind"].0 && shares["kind"].0 > 0.1, "{shares:?}");
        assert!(shares["size"].0 + shares["kind"].0 < 1.05, "{shares:?}");
    }

    #[test]
    fn the_share_is_that_of_a_worked_example() {
        // Ranks 1 to 8 in two groups of four, all of one before all of the other: the sum of squares
        // is 42, between the groups 32, so H = 7 * 32 / 42 and the share (H - 1) / 6 = 0.7222.
        let configs: Vec<Config> =
            (0..8).map(|n| Config::new().with("kind", if n < 4 { "a" } else { "b" })).collect();
        let trials: Vec<(&Config, f64)> =
            configs.iter().enumerate().map(|(n, config)| (config, n as f64)).collect();
        let all = importance(&Objective::minimize("loss"), &trials);
        assert!((all[0].share - (7.0 * 32.0 / 42.0 - 1.0) / 6.0).abs() < 1e-12);
        assert_eq!(all[0].groups[0].median, 1.5);
    }

    #[test]
    fn diverged_trials_count_as_worst_and_few_trials_say_nothing() {
        let configs: Vec<Config> = (0..20).map(|n| Config::new().with("rate", n)).collect();
        let value = |n: usize| if n < 10 { 0.5 } else { f64::NAN };
        let trials: Vec<(&Config, f64)> =
            configs.iter().enumerate().map(|(n, config)| (config, value(n))).collect();
        let all = importance(&Objective::maximize("accuracy"), &trials);
        assert!(all[0].share > 0.8, "{}", all[0].share);
        assert!(all[0].groups.last().unwrap().median.is_nan());
        assert!(importance(&Objective::maximize("accuracy"), &trials[..7]).is_empty());
    }
}
