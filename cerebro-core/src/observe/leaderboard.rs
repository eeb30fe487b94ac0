//! [`Leaderboard`]: the trials, best first, as text.

use std::collections::BTreeSet;
use std::fmt::{self, Write};

use super::TrialStatus;
use crate::config::Config;
use crate::experiment::ExperimentResult;
use crate::id::TrialId;
use crate::metric::Objective;
use crate::text;

/// How a trial stands in the [`Leaderboard`].
#[derive(Clone, Debug, PartialEq)]
pub struct Standing {
    /// The trial.
    pub trial: TrialId,
    /// Its best value and the epoch that reached it (the first is 1), if it has any.
    pub best: Option<(f64, u32)>,
    /// How it stands.
    pub status: TrialStatus,
    /// Its Config.
    pub config: Config,
}

/// The trials, best first; printed, a table of at most 80 columns.
///
/// ```
/// use cerebro_core::observe::{Leaderboard, Standing, TrialStatus};
/// use cerebro_core::{Config, Objective, TrialId};
/// let standing = |trial, value| Standing {
///     trial: TrialId(trial),
///     best: Some((value, 10)),
///     status: TrialStatus::Completed,
///     config: Config::new().with("learning_rate", 0.01),
/// };
/// let objective = Objective::maximize("accuracy");
/// let board = Leaderboard::new(objective, [standing(0, 0.91), standing(1, 0.97)]);
/// assert_eq!(board.standings()[0].trial, TrialId(1));
/// assert!(board.to_string().contains("1  trial-1  0.9700     10  learning_rate=0.01"));
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Leaderboard {
    objective: Objective,
    standings: Vec<Standing>,
    shown: usize,
}

const WIDTH: usize = 80;

impl Leaderboard {
    /// Orders trials by value, best first; those without a value or with NaN come last. Equal
    /// values are ordered by trial.
    pub fn new(objective: Objective, standings: impl IntoIterator<Item = Standing>) -> Self {
        let mut standings: Vec<Standing> = standings.into_iter().collect();
        let value = |standing: &Standing| standing.best.map_or(f64::NAN, |(value, _)| value);
        standings
            .sort_by(|a, b| objective.best_first(value(a), value(b)).then(a.trial.cmp(&b.trial)));
        let shown = standings.len();
        Self { objective, standings, shown }
    }

    /// Prints only the `count` best trials, and how many others there are.
    pub fn top(mut self, count: usize) -> Self {
        self.shown = count.min(self.standings.len());
        self
    }

    /// All trials, best first.
    pub fn standings(&self) -> &[Standing] {
        &self.standings
    }

    /// All trials as tab-separated values with a header, each hyperparameter in a column of its
    /// own, in full precision: for other programs.
    pub fn tab_separated(&self) -> String {
        let names: BTreeSet<&str> = self
            .standings
            .iter()
            .flat_map(|standing| standing.config.iter().map(|(name, _)| name))
            .collect();
        let mut out = String::from("rank\ttrial\tstatus\tvalue\tepoch");
        for name in &names {
            out.push('\t');
            out.push_str(&text::clean(name));
        }
        out.push('\n');
        for (rank, standing) in (1..).zip(&self.standings) {
            let (value, epoch) = match standing.best {
                Some((value, epoch)) => (value.to_string(), epoch.to_string()),
                None => (String::new(), String::new()),
            };
            let Standing { trial, status, .. } = standing;
            // Writing to a String cannot fail.
            let _ = write!(out, "{rank}\t{trial}\t{status}\t{value}\t{epoch}");
            for name in &names {
                out.push('\t');
                if let Some(value) = standing.config.get(name) {
                    out.push_str(&text::clean(&value.to_string()));
                }
            }
            out.push('\n');
        }
        out
    }
}

/// Trial, value and epoch.
fn cells(standing: &Standing) -> [String; 3] {
    let (value, epoch) = match standing.best {
        Some((value, epoch)) => (text::number(value), epoch.to_string()),
        None => ("-".to_owned(), "-".to_owned()),
    };
    [standing.trial.to_string(), value, epoch]
}

impl From<&ExperimentResult> for Leaderboard {
    fn from(result: &ExperimentResult) -> Self {
        let standings = result.trials().map(|trial| Standing {
            trial: trial.id,
            best: trial.best_epoch().map(|epoch| (epoch.value, epoch.epoch)),
            status: trial.status.clone(),
            config: Config::clone(trial.best_config()),
        });
        Leaderboard::new(result.objective().clone(), standings)
    }
}

impl fmt::Display for Leaderboard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", text::fit(&format!("by {}", self.objective), WIDTH))?;
        let shown: Vec<[String; 3]> = self.standings[..self.shown].iter().map(cells).collect();
        let titles = ["trial", "value", "epoch"];
        let [trial, value, epoch] = std::array::from_fn(|column| {
            let widths = shown.iter().map(|cells| cells[column].len());
            widths.chain([titles[column].len()]).max().unwrap_or(0)
        });
        let left = |rank: &str, [t, v, e]: [&str; 3]| {
            format!("{rank:>4}  {t:<trial$}  {v:>value$}  {e:>epoch$}  ")
        };
        writeln!(f, "{}config", left("rank", titles))?;
        for ((rank, standing), cells) in (1..).zip(&self.standings).zip(&shown) {
            let left = left(&rank.to_string(), cells.each_ref().map(String::as_str));
            let indent = left.chars().count();
            let mut words: Vec<String> = text::hyperparameters(&standing.config).collect();
            if standing.status != TrialStatus::Completed {
                words.insert(0, format!("({})", standing.status));
            }
            let lines = text::wrap(words, WIDTH.saturating_sub(indent));
            let mut lines = lines.iter();
            let first = lines.next().map_or("", |line| line);
            writeln!(f, "{}", format!("{left}{first}").trim_end())?;
            for line in lines {
                writeln!(f, "{:indent$}{line}", "")?;
            }
        }
        let hidden = self.standings.len() - self.shown;
        if hidden > 0 {
            writeln!(f, "      and {}", text::count(hidden as u64, "other trial"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(trial: u64, best: Option<(f64, u32)>) -> Standing {
        let config = Config::new()
            .with("a_rather_long_name_of_a_hyperparameter", 0.123_456_789)
            .with("another_rather_long_name_of_a_hyperparameter", "sgd with\tmomentum\u{1b}[1m")
            .with("hidden", [1024, 1024, 512]);
        Standing { trial: TrialId(trial), best, status: TrialStatus::Completed, config }
    }

    fn board() -> Leaderboard {
        let failed = Standing {
            status: TrialStatus::Failed { reason: "diverged".to_owned() },
            ..standing(123_456, None)
        };
        let others =
            [standing(1, Some((0.25, 3))), standing(2, Some((-1e-30, 10))), standing(3, None)];
        Leaderboard::new(Objective::minimize("loss"), others.into_iter().chain([failed]))
    }

    #[test]
    fn the_table_fits_80_columns_and_loses_no_hyperparameter() {
        let table = board().to_string();
        for line in table.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
        let unbroken: String = table.split_whitespace().collect();
        for name in ["long_name_of_a_hyperparameter=0.123", "hidden=[1024,1024,512]"] {
            assert_eq!(unbroken.matches(name).count(), 4, "{table}");
        }
        assert!(!table.contains('\u{1b}'));
    }

    #[test]
    fn trials_without_a_value_come_last_and_say_how_they_ended() {
        let board = board();
        let order: Vec<u64> = board.standings().iter().map(|s| s.trial.0).collect();
        assert_eq!(order, [2, 1, 3, 123_456]);
        assert!(board.to_string().contains("trial-123456           -      -  (failed)"));
    }

    #[test]
    fn a_short_table_says_how_many_trials_it_leaves_out() {
        let table = board().top(1).to_string();
        assert!(table.contains("trial-2") && !table.contains("trial-1 "));
        assert!(table.contains("and 3 other trials"), "{table}");
    }

    #[test]
    fn tab_separated_values_have_a_cell_for_every_column() {
        let text = board().tab_separated();
        let cells: Vec<usize> = text.lines().map(|line| line.split('\t').count()).collect();
        assert_eq!(cells, [8; 5], "{text}");
        assert!(text.contains("\t0.123456789\t"));
    }
}
