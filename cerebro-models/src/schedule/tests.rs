//! Schedules against the learning rates that PyTorch 2.15 gives.

use cerebro_core::{Config, ConfigError};

use super::{Clock, Moment, Progress, Schedule};

const RATE: f64 = 0.1;

fn config(schedule: &str) -> Config {
    Config::new().with("schedule", schedule)
}

fn read(config: &Config) -> Schedule {
    config.only(&Schedule::names(config).unwrap()).unwrap();
    Schedule::read(config, RATE).unwrap()
}

fn refused(config: &Config) -> String {
    let read = Schedule::names(config).and_then(|names| config.only(&names));
    let read = read.and_then(|()| Schedule::read(config, RATE));
    let error: ConfigError = read.unwrap_err();
    error.to_string()
}

fn assert_close(found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    for (time, (found, expected)) in found.iter().zip(expected).enumerate() {
        let close = (found - expected).abs() <= 1e-9 * expected.abs() + 1e-12;
        assert!(close, "at {time}: {found} for {expected}");
    }
}

/// The rates of the first `count` steps, or else epochs.
fn rates(schedule: &Schedule, count: usize) -> Vec<f64> {
    let rate = |time: usize| {
        let progress = Progress { steps: time as u64, rows: 32 * time as u64, plateau: None };
        let moment = Moment { progress: &progress, epoch: time as u32, rows: 32 };
        schedule.rate(RATE, &moment)
    };
    (0..count).map(rate).collect()
}

/// Reads `config` with its durations in steps, in epochs, and in epochs of rows that one step
/// trains on: the rates are the same.
fn check(config: &Config, expected: &[f64]) {
    let in_epochs: Config = config
        .iter()
        .map(|(name, value)| (name.replace("_steps", "_epochs"), value.clone()))
        .collect();
    let in_rows = in_epochs.clone().with("epoch_rows", 32);
    for (config, clock) in
        [(config, Clock::Steps), (&in_epochs, Clock::Epochs), (&in_rows, Clock::Rows(32))]
    {
        let schedule = read(config);
        assert_eq!(schedule.clock, clock);
        assert_close(&rates(&schedule, expected.len()), expected);
    }
}

#[test]
fn without_a_schedule_the_rate_stays() {
    let schedule = read(&Config::new());
    assert!(schedule.is_constant());
    assert_close(&rates(&schedule, 3), &[RATE; 3]);
    assert!(read(&config("constant")).is_constant());
}

#[test]
fn step_exponential_and_linear() {
    let step = config("step").with("schedule_steps", 3).with("schedule_factor", 0.5);
    check(&step, &[0.1, 0.1, 0.1, 0.05, 0.05, 0.05, 0.025, 0.025, 0.025, 0.0125]);
    let exponential = config("exponential").with("schedule_steps", 1).with("schedule_factor", 0.9);
    check(&exponential, &[0.1, 0.09, 0.081, 0.0729, 0.06561, 0.059049, 0.0531441, 0.04782969]);
    let linear = config("linear").with("schedule_steps", 8).with("schedule_minimum", 0.02);
    check(&linear, &[0.1, 0.09, 0.08, 0.07, 0.06, 0.05, 0.04, 0.03, 0.02, 0.02]);
}

#[test]
fn cosine_and_what_comes_after_it() {
    let cosine = config("cosine").with("schedule_steps", 8).with("schedule_minimum", 0.01);
    let mut expected = vec![
        0.1,
        0.09657457896,
        0.08681980515,
        0.07222075446,
        0.055,
        0.03777924554,
        0.02318019485,
        0.01342542104,
        0.01,
    ];
    // PyTorch's would rise again.
    expected.push(0.01);
    check(&cosine, &expected);
}

#[test]
fn one_cycle() {
    let plain = config("one_cycle").with("schedule_steps", 10);
    check(
        &plain,
        &[
            0.004,
            0.052,
            0.1,
            0.0950484632,
            0.08117456539,
            0.06112620219,
            0.03887419781,
            0.01882583461,
            0.004951936799,
            4e-07,
            4e-07,
        ],
    );
    let set = config("one_cycle")
        .with("schedule_steps", 12)
        .with("schedule_rise", 0.25)
        .with("schedule_start_divisor", 10)
        .with("schedule_end_divisor", 100);
    check(
        &set,
        &[
            0.01,
            0.055,
            0.1,
            0.09698764641,
            0.08831391993,
            0.075025,
            0.05872372647,
            0.04137627353,
            0.025075,
            0.01178608007,
            0.003112353592,
            0.0001,
        ],
    );
    // One step, and no rise at all.
    for steps in [1, 2] {
        let short = config("one_cycle").with("schedule_steps", steps).with("schedule_rise", 0);
        assert!(rates(&read(&short), 4).iter().all(|rate| rate.is_finite()));
    }
}

#[test]
fn a_warm_up_before_other_schedules() {
    let warm = Config::new().with("warmup_steps", 4).with("warmup_start", 0.25);
    check(&warm, &[0.025, 0.04375, 0.0625, 0.08125, 0.1, 0.1]);
    let warm = Config::new().with("warmup_steps", 4);
    check(&warm, &[0.03333333333333333, 0.05, 0.06666666666666667, 0.08333333333333333, 0.1, 0.1]);
    let cosine = config("cosine").with("schedule_steps", 10);
    check(
        &cosine.with("warmup_steps", 3).with("warmup_start", 0.1),
        &[
            0.01,
            0.04,
            0.07,
            0.1,
            0.0950484434,
            0.08117449009,
            0.0611260467,
            0.0388739533,
            0.01882550991,
            0.004951556605,
            0.0,
        ],
    );
    let step = config("step").with("schedule_steps", 2);
    check(
        &step.with("warmup_steps", 3).with("warmup_start", 0.1),
        &[0.01, 0.04, 0.07, 0.1, 0.1, 0.01, 0.01, 0.001, 0.001, 0.0001, 0.0001],
    );
}

/// The rates of epochs whose losses are `losses`; each epoch has two units of unequal weight.
fn followed(config: &Config, losses: &[f64]) -> Vec<f64> {
    let schedule = read(config);
    let mut progress = Progress::default();
    let mut rates = Vec::new();
    for (epoch, loss) in losses.iter().enumerate() {
        let epoch = epoch as u32;
        for (weight, share) in [(3.0, 1.5), (1.0, -0.5)] {
            progress.begin(epoch, schedule.patience());
            let moment = Moment { progress: &progress, epoch, rows: 32 };
            let rate = schedule.rate(RATE, &moment);
            if weight > 2.0 {
                rates.push(rate);
            } else {
                assert_eq!(rates.last(), Some(&rate), "one rate per epoch");
            }
            progress.end(4.0 * loss * share, weight, schedule.patience());
            let written = serde_json::to_string(&progress).unwrap();
            progress = serde_json::from_str(&written).unwrap();
        }
    }
    rates
}

#[test]
fn a_plateau_of_the_training_loss() {
    let losses = [
        1.0, 0.9, 0.95, 0.95, 0.95, 0.89995, 0.91, 0.8, 0.85, 0.85, 0.85, 0.86, 0.85, 0.86, 0.86,
        0.86, 1.0,
    ];
    let plateau = config("plateau")
        .with("schedule_factor", 0.5)
        .with("schedule_patience", 2)
        .with("schedule_minimum", 0.02)
        .with("schedule_cooldown", 1);
    assert_close(
        &followed(&plateau, &losses),
        &[
            0.1, 0.1, 0.1, 0.1, 0.1, 0.05, 0.05, 0.05, 0.05, 0.05, 0.05, 0.025, 0.025, 0.025,
            0.025, 0.02, 0.02,
        ],
    );
    let impatient = config("plateau").with("schedule_patience", 0).with("schedule_threshold", 0.1);
    assert_close(
        &followed(&impatient, &losses[..9]),
        &[0.1, 0.1, 0.01, 0.001, 0.0001, 1e-05, 1e-05, 1e-06, 1e-06],
    );
}

/// Epochs of partitions with 20 and 44 rows in either order, in batches of 10 and a smaller last
/// one: the schedule ends where training ends, and does not depend on how rows are cut.
#[test]
fn a_schedule_in_epochs_of_rows_does_not_mind_unequal_partitions() {
    let linear = config("linear").with("schedule_epochs", 2).with("epoch_rows", 64);
    let schedule = read(&linear);
    for partitions in [[20_u64, 44], [44, 20]] {
        let mut progress = Progress::default();
        for epoch in 0..2 {
            for rows in partitions {
                for start in (0..rows).step_by(10) {
                    let moment = Moment { progress: &progress, epoch, rows: 10 };
                    let expected = RATE * (1.0 - progress.rows as f64 / 128.0);
                    assert_close(&[schedule.rate(RATE, &moment)], &[expected]);
                    progress.steps += 1;
                    progress.rows += 10.min(rows - start);
                }
            }
        }
        let moment = Moment { progress: &progress, epoch: 2, rows: 10 };
        assert_close(&[schedule.rate(RATE, &moment)], &[0.0]);
    }
}

#[test]
fn names_without_effect_are_refused() {
    let refusals = [
        (config("constant").with("schedule_steps", 3), "unknown hyperparameter `schedule_steps`"),
        (config("cosine").with("schedule_epochs", 3).with("schedule_factor", 0.1), "unknown"),
        (config("one_cycle").with("schedule_steps", 9).with("warmup_steps", 3), "`warmup_steps`"),
        (Config::new().with("warmup_start", 0.1), "unknown hyperparameter `warmup_start`"),
        (Config::new().with("epoch_rows", 100), "unknown hyperparameter `epoch_rows`"),
        (config("cosine").with("schedule_steps", 9).with("epoch_rows", 9), "`epoch_rows`"),
        (config("plateau").with("schedule_steps", 9), "unknown hyperparameter `schedule_steps`"),
    ];
    for (config, part) in refusals {
        let message = refused(&config);
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn settings_that_make_no_sense_are_refused_with_what_would() {
    let cosine = || config("cosine").with("schedule_steps", 10);
    let refusals = [
        (config("cosin"), "one of constant, step"),
        (config("cosine"), "`schedule_epochs` or `schedule_steps`"),
        (config("exponential").with("schedule_steps", 1), "`schedule_factor`"),
        (cosine().with("schedule_epochs", 1), "only one of"),
        (cosine().with("warmup_epochs", 1), "both in epochs or both in steps"),
        (cosine().with("warmup_steps", 10), "less than 10"),
        (cosine().with("schedule_minimum", 0.2), "at most the learning rate, 0.1"),
        (config("cosine").with("schedule_steps", 0), "above 0"),
        (config("step").with("schedule_steps", 1).with("schedule_factor", 1.5), "at most 1"),
        (config("plateau").with("schedule_patience", -1), "at least 0"),
        (config("plateau").with("schedule_patience", 1.5), "whole number"),
        (
            config("one_cycle").with("schedule_steps", 5).with("schedule_start_divisor", 0.5),
            "at least 1",
        ),
    ];
    for (config, part) in refusals {
        let message = refused(&config);
        assert!(message.contains(part), "{message}");
    }
}
