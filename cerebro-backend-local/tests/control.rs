//! Control of running experiments: what people ask for, what comes of it, and that it lasts.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use cerebro_backend_local::LocalBackend;
use cerebro_core::experiment::{
    Command, ControlError, Experiment, ExperimentBuilder, ExperimentHandle, ExperimentResult,
    Priority, Reply, Start,
};
use cerebro_core::observe::{Event, Outcome, TrialStatus};
use cerebro_core::schedule::Policy;
use cerebro_core::search::{Asha, Random, Rungs};
use cerebro_core::testing::{self, Tally};
use cerebro_core::{Backend, Config, Model, Objective, Seed, Slot, Space, TrialId};
use futures::executor::block_on;
use futures::{FutureExt, StreamExt};

fn space(high: f64) -> Space {
    Space::builder().uniform("rate", 0.0, high).build().unwrap()
}

fn random(trials: u64) -> Random {
    Random::new(&space(1.0), trials, Seed(3)).unwrap()
}

fn experiment(trials: u64, epochs: u32) -> ExperimentBuilder {
    Experiment::builder()
        .dataset(testing::dataset(4, 2))
        .model(|config: &Config, _: &Slot| Ok(Box::new(Tally::new(config)?) as Box<dyn Model>))
        .search(random(trials))
        .objective(Objective::minimize("loss"))
        .epochs(epochs)
        .seed(5)
        .policy(Policy::Seeded)
        .keep_models(100)
}

fn local() -> Arc<dyn Backend> {
    Arc::new(LocalBackend::builder().workers(2).build().unwrap())
}

/// Runs with commands that `act` gives when it sees events.
fn run_with(
    builder: ExperimentBuilder,
    mut act: impl FnMut(&ExperimentHandle, &Event) + Send + 'static,
) -> ExperimentResult {
    let slot: Arc<Mutex<Option<ExperimentHandle>>> = Arc::default();
    let filled = Arc::clone(&slot);
    let builder = builder.observer(move |_: Duration, event: &Event| {
        if let Some(handle) = &*filled.lock().unwrap() {
            act(handle, event);
        }
    });
    let experiment = builder.build().unwrap();
    *slot.lock().unwrap() = Some(experiment.handle());
    experiment.run_blocking(local()).unwrap()
}

fn run(builder: ExperimentBuilder) -> ExperimentResult {
    builder.build().unwrap().run_blocking(local()).unwrap()
}

/// Runs with commands that are given before it begins, and what came of each.
fn run_after<T>(
    builder: ExperimentBuilder,
    command: impl FnOnce(&ExperimentHandle) -> Reply<T>,
) -> (ExperimentResult, Result<T, ControlError>) {
    let experiment = builder.build().unwrap();
    let reply = command(&experiment.handle());
    let result = experiment.run_blocking(local()).unwrap();
    (result, block_on(reply))
}

fn described(result: &ExperimentResult) -> Vec<String> {
    let trials = result.trials().map(|trial| {
        let state = block_on(result.state(trial.id)).unwrap().to_vec();
        serde_json::json!({ "record": trial, "state": state }).to_string()
    });
    trials.collect()
}

/// How many rows the trial's State has seen.
fn rows(result: &ExperimentResult, trial: TrialId) -> u64 {
    let state = block_on(result.state(trial)).unwrap().to_vec();
    u64::from_le_bytes(state[8..16].try_into().unwrap())
}

fn is_first_epoch(event: &Event, of: u64) -> bool {
    matches!(event, Event::EpochCompleted { trial, epoch: 1, .. } if trial.0 == of)
}

#[test]
fn a_paused_trial_waits_until_it_is_resumed_and_the_others_do_not() {
    for policy in [Policy::Seeded, Policy::default()] {
        let log: Arc<Mutex<Vec<String>>> = Arc::default();
        let seen = Arc::clone(&log);
        let mut ended = 0;
        let result = run_with(experiment(4, 6).policy(policy), move |handle, event| {
            match event {
                Event::TrialStatus { trial, status } => {
                    seen.lock().unwrap().push(format!("{trial} {status}"));
                    ended += usize::from(status.is_final());
                    if *status == TrialStatus::Completed && ended == 3 {
                        drop(handle.resume_trial(TrialId(0)));
                    }
                }
                Event::EpochCompleted { trial: TrialId(0), .. } => {
                    seen.lock().unwrap().push("epoch".to_owned());
                }
                _ => {}
            }
            if is_first_epoch(event, 0) {
                drop(handle.pause_trial(TrialId(0)));
            }
        });
        assert_eq!((result.summary().completed, result.summary().outcome), (4, Outcome::Finished));
        assert!(result.trials().all(|trial| trial.history.len() == 6));
        let log = log.lock().unwrap();
        let paused = log.iter().position(|line| line == "trial-0 paused").unwrap();
        let resumed = log.iter().position(|line| line == "trial-0 running").unwrap();
        // An epoch that was all but done when the command came may still be completed.
        let meanwhile = &log[paused..resumed];
        assert!(meanwhile.iter().filter(|line| *line == "epoch").count() <= 1, "{log:?}");
        assert_eq!(meanwhile.iter().filter(|line| line.ends_with("completed")).count(), 3);
    }
}

#[test]
fn it_is_told_once_that_all_waits_for_a_paused_trial_and_for_which() {
    let told: Arc<Mutex<Vec<Vec<TrialId>>>> = Arc::default();
    let seen = Arc::clone(&told);
    let result = run_with(experiment(3, 2), move |handle, event| {
        if is_first_epoch(event, 1) {
            drop(handle.pause_trial(TrialId(1)));
        }
        if let Event::AwaitingResume { trials } = event {
            seen.lock().unwrap().push(trials.clone());
            drop(handle.resume_trial(TrialId(1)));
        }
    });
    assert_eq!(result.summary().outcome, Outcome::Finished);
    assert_eq!(*told.lock().unwrap(), [[TrialId(1)]]);
}

#[test]
fn with_nobody_left_to_resume_them_paused_trials_end_the_run_and_wait_in_the_store() {
    let folder = tempfile::tempdir().unwrap();
    let slot: Arc<Mutex<Option<ExperimentHandle>>> = Arc::default();
    let filled = Arc::clone(&slot);
    let builder =
        experiment(3, 4).store(folder.path()).observer(move |_: Duration, event: &Event| {
            if is_first_epoch(event, 1)
                && let Some(handle) = filled.lock().unwrap().take()
            {
                drop(handle.pause_trial(TrialId(1)));
            }
        });
    let built = builder.build().unwrap();
    *slot.lock().unwrap() = Some(built.handle());
    let result = built.run_blocking(local()).unwrap();
    assert_eq!((result.summary().completed, result.summary().outcome), (2, Outcome::Stopped));
    assert!(result.summary().warnings.iter().any(|text| text.contains("nobody can resume")));

    let (result, status) =
        run_after(experiment(3, 4).resume(folder.path()), |handle| handle.resume_trial(TrialId(1)));
    assert_eq!(status.unwrap(), TrialStatus::Running);
    assert_eq!((result.summary().completed, result.summary().outcome), (3, Outcome::Finished));
    let weights = |result: &ExperimentResult| block_on(result.state(TrialId(1))).unwrap().to_vec();
    assert_eq!(weights(&result), weights(&run(experiment(3, 4))), "the weights are the same");
}

#[test]
fn a_stopped_trial_keeps_its_epochs_and_is_told_apart_from_the_others() {
    let result = run_with(experiment(3, 50), |handle, event| {
        if is_first_epoch(event, 2) {
            drop(handle.stop_trial(TrialId(2)));
        }
        if matches!(event, Event::TrialStatus { trial: TrialId(2), .. }) {
            handle.stop();
        }
    });
    let stopped = result.trial(TrialId(2)).unwrap();
    assert_eq!(stopped.status, TrialStatus::Stopped);
    assert!((1..50).contains(&stopped.history.len()), "{}", stopped.history.len());
}

#[test]
fn a_warm_clone_goes_on_from_the_weights_of_its_parent_and_a_cold_one_from_none() {
    let folder = tempfile::tempdir().unwrap();
    let clones: Arc<Mutex<Vec<Reply<TrialId>>>> = Arc::default();
    let given = Arc::clone(&clones);
    let faster = Config::new().with("rate", 0.25);
    let result = run_with(experiment(2, 3).store(folder.path()), move |handle, event| {
        if let Event::TrialStatus { trial: TrialId(0), status: TrialStatus::Completed } = event {
            for start in [Start::Cold, Start::Latest, Start::Best] {
                given.lock().unwrap().push(handle.clone_trial(TrialId(0), faster.clone(), start));
            }
        }
    });
    let clones: Vec<TrialId> =
        clones.lock().unwrap().drain(..).map(|reply| block_on(reply).unwrap()).collect();
    assert_eq!(clones, [TrialId(2), TrialId(3), TrialId(4)]);
    let alone = rows(&result, TrialId(0));
    let seen: Vec<u64> = clones.iter().map(|&clone| rows(&result, clone)).collect();
    assert_eq!(seen, [alone, 2 * alone, 2 * alone]);
    for &clone in &clones {
        let record = result.trial(clone).unwrap();
        assert_eq!((record.parent, record.history.len()), (Some(TrialId(0)), 3));
        assert_eq!(record.config.float("rate"), Ok(0.25));
    }
    let inherited = &result.trial(clones[1]).unwrap().inherited;
    assert_eq!(inherited.len(), 1);
    assert_eq!(
        (inherited[0].epoch, inherited[0].source, inherited[0].source_epoch),
        (0, TrialId(0), Some(3))
    );
    // All that is in the journal.
    let again = run(experiment(2, 3).resume(folder.path()));
    assert_eq!((again.summary().train_units, described(&again)), (0, described(&result)));
}

#[test]
fn what_cannot_be_done_is_refused_with_the_reason_and_changes_nothing() {
    let experiment = experiment(2, 2).build().unwrap();
    let handle = experiment.handle();
    let rate = |value: f64| Config::new().with("rate", value);
    let refused: Vec<(Reply<_>, &str)> = vec![
        (handle.send(Command::PauseTrial { trial: TrialId(9) }), "there is no trial-9"),
        (handle.send(Command::AddTrial { config: rate(1.5) }), "is not in the search's space"),
        (
            handle.send(Command::AddTrial { config: rate(0.5).with("rat", 1.0) }),
            "did you mean `rate`?",
        ),
        (handle.send(Command::ExtendEpochs { epochs: 1 }), "2 epochs already"),
        (
            handle.send(Command::Narrow {
                space: Space::builder().uniform("speed", 0.0, 1.0).build().unwrap(),
            }),
            "`speed` is new",
        ),
    ];
    let status = handle.status();
    let result = experiment.run_blocking(local()).unwrap();
    for (reply, reason) in refused {
        let text = block_on(reply).unwrap_err().to_string();
        assert!(text.contains(reason), "{text}");
    }
    assert!(block_on(status).is_err(), "nobody asked before the end: futures are lazy");
    assert_eq!(result.trials().count(), 2);
    let late = block_on(handle.add_trial(rate(0.5))).unwrap_err();
    assert!(matches!(late, ControlError::Over), "{late}");
}

#[test]
fn an_ended_trial_can_be_cloned_and_nothing_else() {
    let replies: Arc<Mutex<Vec<Reply<TrialStatus>>>> = Arc::default();
    let given = Arc::clone(&replies);
    run_with(experiment(2, 2), move |handle, event| {
        if let Event::TrialStatus { trial, status: TrialStatus::Completed } = event {
            let mut replies = given.lock().unwrap();
            replies.push(handle.pause_trial(*trial));
            replies.push(handle.resume_trial(*trial));
            replies.push(handle.stop_trial(*trial));
        }
    });
    let replies = std::mem::take(&mut *replies.lock().unwrap());
    assert_eq!(replies.len(), 6);
    for reply in replies {
        let refused = block_on(reply).unwrap_err();
        assert!(
            matches!(refused, ControlError::Ended { status: TrialStatus::Completed, .. }),
            "{refused}"
        );
    }
}

#[test]
fn a_finished_experiment_extended_to_more_epochs_ends_as_if_it_had_had_them_from_the_start() {
    let undisturbed = described(&run(experiment(6, 5)));
    let folder = tempfile::tempdir().unwrap();
    run(experiment(6, 3).store(folder.path()));
    let (result, continued) =
        run_after(experiment(6, 3).resume(folder.path()), |handle| handle.extend_epochs(5));
    assert_eq!(continued.unwrap().len(), 6);
    assert_eq!(result.summary().train_units, 6 * 2 * 4, "nothing is trained twice");
    assert_eq!(described(&result), undisturbed);
    // The journal holds it: whoever resumes it again has it, by the old specification.
    let again = run(experiment(6, 3).resume(folder.path()));
    assert_eq!((again.summary().train_units, described(&again)), (0, undisturbed.clone()));
    // And asking for what there is is no error.
    let (_, continued) =
        run_after(experiment(6, 3).resume(folder.path()), |handle| handle.extend_epochs(5));
    assert!(continued.unwrap().is_empty());
}

#[test]
fn trials_whose_last_state_was_not_kept_stay_ended_when_epochs_are_added() {
    let folder = tempfile::tempdir().unwrap();
    run(experiment(5, 2).keep_models(2).store(folder.path()));
    let (result, continued) =
        run_after(experiment(5, 2).keep_models(2).resume(folder.path()), |handle| {
            handle.extend_epochs(4)
        });
    assert_eq!(continued.unwrap().len(), 2);
    let lengths: Vec<usize> = result.trials().map(|trial| trial.history.len()).collect();
    assert_eq!(lengths.iter().filter(|&&length| length == 4).count(), 2, "{lengths:?}");
    assert_eq!(result.summary().completed, 5);
}

#[test]
fn a_finished_experiment_extended_by_trials_ends_as_if_it_had_had_them_from_the_start() {
    let undisturbed = described(&run(experiment(7, 3)));
    let folder = tempfile::tempdir().unwrap();
    run(experiment(4, 3).store(folder.path()));
    let (result, extended) =
        run_after(experiment(4, 3).resume(folder.path()), |handle| handle.extend_trials(3));
    extended.unwrap();
    assert_eq!(described(&result), undisturbed);
    let again = run(experiment(4, 3).resume(folder.path()));
    assert_eq!((again.summary().train_units, described(&again)), (0, undisturbed));
}

#[test]
fn a_narrowed_space_holds_for_future_trials_and_after_a_resume() {
    let folder = tempfile::tempdir().unwrap();
    run(experiment(4, 1).store(folder.path()));
    let (_, narrowed) =
        run_after(experiment(4, 1).resume(folder.path()), |handle| handle.narrow(space(0.1)));
    narrowed.unwrap();
    let (result, extended) =
        run_after(experiment(4, 1).resume(folder.path()), |handle| handle.extend_trials(8));
    extended.unwrap();
    let rates: Vec<f64> =
        result.trials().map(|trial| trial.config.float("rate").unwrap()).collect();
    assert_eq!(rates.len(), 12);
    assert!(rates[..4].iter().any(|&rate| rate > 0.1), "{rates:?}");
    assert!(rates[4..].iter().all(|&rate| rate <= 0.1), "{rates:?}");
}

#[test]
fn a_search_that_limits_epochs_says_so_and_one_without_more_trials_too() {
    let asha = || {
        let rungs = Rungs::new(1, 3, 3).unwrap();
        experiment(3, 3).search(Asha::new(random(3), rungs))
    };
    let (_, refused) = run_after(asha(), |handle| handle.extend_epochs(9));
    assert!(refused.unwrap_err().to_string().contains("3 epochs at most"));
    let grid = cerebro_core::search::Grid::of([Config::new().with("rate", 0.5)]).unwrap();
    let (_, refused) = run_after(experiment(1, 1).search(grid), |handle| handle.extend_trials(1));
    assert!(refused.unwrap_err().to_string().contains("cannot be extended"));
}

#[test]
fn a_trial_that_the_search_paused_goes_on_when_a_person_says_so() {
    let asha = Asha::new(random(6), Rungs::new(1, 9, 3).unwrap());
    let mut resumed = false;
    let result = run_with(experiment(6, 9).search(asha), move |handle, event| {
        if let Event::TrialStatus { trial: TrialId(0), status: TrialStatus::Paused } = event
            && !resumed
        {
            resumed = true;
            drop(handle.resume_trial(TrialId(0)));
        }
    });
    assert!(result.trial(TrialId(0)).unwrap().history.len() >= 3, "it came to the next rung");
}

#[test]
fn all_is_paused_until_all_is_resumed_and_no_longer_than_the_process_lives() {
    let folder = tempfile::tempdir().unwrap();
    let built = experiment(3, 2).store(folder.path()).build().unwrap();
    let handle = built.handle();
    let paused = handle.pause_all();
    let controller = std::thread::spawn(move || {
        block_on(paused).unwrap();
        let status = block_on(handle.status()).unwrap();
        handle.stop();
        status
    });
    let result = built.run_blocking(local()).unwrap();
    let status = controller.join().unwrap();
    assert!(status.paused && status.trials.is_empty() && status.running_units == 0);
    assert_eq!((status.epochs, status.planned, status.slots), (2, Some(3), 2));
    assert_eq!(result.summary().train_units, 0);
    let result = run(experiment(3, 2).resume(folder.path()));
    assert_eq!((result.summary().completed, result.summary().outcome), (3, Outcome::Finished));

    let built = experiment(3, 2).build().unwrap();
    let handle = built.handle();
    let (paused, resumed) = (handle.pause_all(), handle.resume_all());
    drop(handle);
    assert_eq!(built.run_blocking(local()).unwrap().summary().completed, 3);
    assert!(block_on(paused).is_ok() && block_on(resumed).is_ok());
}

#[test]
fn a_controlled_experiment_that_is_stopped_and_resumed_replays_what_was_asked() {
    let folder = tempfile::tempdir().unwrap();
    let replies: Arc<Mutex<Vec<Reply<TrialId>>>> = Arc::default();
    let given = Arc::clone(&replies);
    let mut epochs = 0;
    run_with(experiment(4, 6).store(folder.path()), move |handle, event| {
        if let Event::EpochCompleted { trial, .. } = event {
            epochs += 1;
            if epochs == 3 {
                let changes = Config::new().with("rate", 0.125);
                let clone = handle.clone_trial(*trial, changes, Start::Latest);
                given.lock().unwrap().push(clone);
                drop(handle.set_priority(*trial, Priority::new(3)));
                drop(handle.extend_trials(2));
                drop(handle.extend_epochs(8));
            }
        }
        if matches!(event, Event::PlanChanged { epochs: 8, .. }) {
            handle.stop();
        }
    });
    let clone = block_on(replies.lock().unwrap().pop().unwrap()).unwrap();
    let result = run(experiment(4, 6).resume(folder.path()));
    assert_eq!((result.trials().count(), result.summary().completed), (7, 7));
    assert!(result.trials().all(|trial| trial.history.len() == 8));
    let inherited = &result.trial(clone).unwrap().inherited[0];
    let source = result.trial(inherited.source).unwrap();
    let epochs = u64::from(inherited.source_epoch.unwrap()) + 8;
    // The last epoch of a tally is its best.
    assert_eq!(rows(&result, clone) * 8, rows(&result, source.id) * epochs);
    let again = run(experiment(4, 6).resume(folder.path()));
    assert_eq!((again.summary().train_units, described(&again)), (0, described(&result)));
}

#[test]
fn watchers_see_everything_from_before_the_run_to_its_end() {
    let built = experiment(2, 2).build().unwrap();
    let events = built.handle().events();
    let result = built.run_blocking(local()).unwrap();
    let events: Vec<_> = events.collect::<Vec<_>>().now_or_never().expect("the stream has ended");
    assert!(matches!(events[0].event, Event::PartitionLoaded { .. }));
    assert!(matches!(events.last().unwrap().event, Event::ExperimentEnded { .. }));
    let epochs = events.iter().filter(|timed| matches!(timed.event, Event::EpochCompleted { .. }));
    assert_eq!(epochs.count(), result.trials().map(|trial| trial.history.len()).sum::<usize>());
}
