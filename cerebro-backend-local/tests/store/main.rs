//! Experiments that are kept in a store: stopped, resumed, refused, and with stores that fail.

mod full;
mod size;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cerebro_backend_local::LocalBackend;
use cerebro_core::data::Dataset;
use cerebro_core::experiment::{
    Experiment, ExperimentBuilder, ExperimentError, ExperimentHandle, ExperimentResult,
    Interruption, TrialRecord,
};
use cerebro_core::observe::{Event, Outcome};
use cerebro_core::schedule::Policy;
use cerebro_core::search::{Asha, Grid, Population, Random, Rungs};
use cerebro_core::store::StoreError;
use cerebro_core::testing::{self, Tally};
use cerebro_core::{Backend, Config, Model, Objective, Seed, Slot, Space, Split, TrialId};
use futures::executor::block_on;

fn space() -> Space {
    Space::builder().uniform("rate", 0.0, 1.0).build().unwrap()
}

fn experiment() -> ExperimentBuilder {
    Experiment::builder()
        .dataset(testing::dataset(4, 2))
        .model(|config: &Config, _: &Slot| Ok(Box::new(Tally::new(config)?) as Box<dyn Model>))
        .search(Random::new(&space(), 6, Seed(3)).unwrap())
        .objective(Objective::minimize("loss"))
        .epochs(3)
        .seed(5)
        .policy(Policy::Seeded)
}

fn population() -> ExperimentBuilder {
    let population = Population::new(&space(), 10, ["rate"], Seed(3)).unwrap();
    experiment().search(population).epochs(6)
}

fn local() -> Arc<dyn Backend> {
    Arc::new(LocalBackend::builder().workers(2).build().unwrap())
}

fn run(builder: ExperimentBuilder) -> Result<ExperimentResult, ExperimentError> {
    builder.build().unwrap().run_blocking(local())
}

fn refusal(builder: ExperimentBuilder) -> (StoreError, String) {
    match run(builder) {
        Err(ExperimentError::Store(error)) => {
            let text = error.to_string();
            (error, text)
        }
        other => panic!("expected a refusal of the store, not {other:?}"),
    }
}

/// What came out, weights included.
fn described(result: &ExperimentResult) -> Vec<String> {
    let trials = result.leaderboard().into_iter().map(|trial| {
        let state = block_on(result.state(trial.id)).unwrap().to_vec();
        serde_json::json!({ "record": trial, "state": state }).to_string()
    });
    trials.collect()
}

/// Runs until so many epochs are completed, then stops; whether it came to the end before.
fn run_for(builder: ExperimentBuilder, epochs: usize) -> (ExperimentResult, bool) {
    let handle: Arc<Mutex<Option<ExperimentHandle>>> = Arc::default();
    let (stop, seen) = (Arc::clone(&handle), AtomicUsize::new(0));
    let builder = builder.observer(move |_: Duration, event: &Event| {
        if matches!(event, Event::EpochCompleted { .. })
            && seen.fetch_add(1, Ordering::Relaxed) + 1 == epochs
            && let Some(handle) = &*stop.lock().unwrap()
        {
            handle.stop();
        }
    });
    let experiment = builder.build().unwrap();
    *handle.lock().unwrap() = Some(experiment.handle());
    let result = experiment.run_blocking(local()).unwrap();
    let finished = result.summary().outcome == Outcome::Finished;
    (result, finished)
}

/// The files under a folder of the store, by name.
fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut files: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn stopped_and_resumed_again_and_again_an_experiment_ends_as_if_it_never_was() {
    for builder in [experiment as fn() -> ExperimentBuilder, population] {
        let undisturbed = described(&run(builder()).unwrap());
        let folder = tempfile::tempdir().unwrap();
        let location = folder.path();
        let (mut result, mut finished) = run_for(builder().store(location), 1);
        let mut starts = 1;
        while !finished {
            (result, finished) = run_for(builder().resume(location), 8);
            starts += 1;
        }
        assert!(starts >= 2, "it was never stopped");
        assert_eq!(described(&result), undisturbed);
        // A finished experiment is all there too, and trains nothing.
        let result = run(builder().resume(location)).unwrap();
        assert_eq!(result.summary().train_units, 0);
        assert_eq!(described(&result), undisturbed);
    }
}

#[test]
fn whatever_the_order_of_units_no_epoch_is_trained_twice() {
    let folder = tempfile::tempdir().unwrap();
    let asha = || {
        let random = Random::new(&space(), 12, Seed(3)).unwrap();
        let rungs = Rungs::new(1, 9, 3).unwrap();
        experiment().policy(Policy::default()).search(Asha::new(random, rungs)).epochs(9)
    };
    let completed: Arc<Mutex<BTreeSet<(TrialId, u32)>>> = Arc::default();
    let watched = |builder: ExperimentBuilder| {
        let completed = Arc::clone(&completed);
        builder.observer(move |_: Duration, event: &Event| match event {
            Event::EpochCompleted { trial, epoch, .. } => {
                assert!(completed.lock().unwrap().insert((*trial, *epoch)));
            }
            Event::UnitStarted { unit, .. } if unit.split == Split::Train => {
                assert!(!completed.lock().unwrap().contains(&(unit.trial, unit.epoch + 1)));
            }
            _ => {}
        })
    };
    let (mut result, mut finished) = run_for(watched(asha().store(folder.path())), 5);
    while !finished {
        (result, finished) = run_for(watched(asha().resume(folder.path())), 5);
    }
    let epochs: usize = result.trials().map(|trial| trial.history.len()).sum();
    assert_eq!(completed.lock().unwrap().len(), epochs);
    assert!(result.trials().any(|trial| trial.history.len() == 9), "some trial came to the top");
}

#[test]
fn an_experiment_is_begun_once_and_resumed_only_where_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let (error, text) = refusal(experiment().resume(folder.path()));
    assert!(matches!(error, StoreError::Vacant { .. }), "{text}");
    run(experiment().name("digits").store(folder.path())).unwrap();
    let (error, text) = refusal(experiment().store(folder.path()));
    assert!(matches!(error, StoreError::Occupied { .. }), "{text}");
    assert!(text.contains("\"digits\"") && text.contains("resume"), "{text}");
}

#[test]
fn a_place_that_cannot_be_written_is_refused_with_the_place_and_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("notes.txt");
    std::fs::write(&file, "no folder").unwrap();
    let (error, text) = refusal(experiment().store(file.join("run")));
    assert!(matches!(error, StoreError::Location { .. }), "{text}");
    assert!(text.contains("notes.txt") && text.contains("check the path and the permissions"));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "no folder");
}

#[test]
fn an_experiment_whose_wall_time_is_over_stops_and_goes_on_when_it_is_given_more() {
    let undisturbed = described(&run(experiment()).unwrap());
    let folder = tempfile::tempdir().unwrap();
    let hour = Duration::from_hours(1);
    run_for(experiment().wall_time(hour).store(folder.path()), 2);
    // What that process took is more than this, so nothing begins.
    let over = Arc::new(AtomicUsize::new(0));
    let told = Arc::clone(&over);
    let builder = experiment().wall_time(Duration::from_nanos(1)).resume(folder.path());
    let result = run(builder.observer(move |_: Duration, event: &Event| {
        if matches!(event, Event::WallTimeOver { .. }) {
            told.fetch_add(1, Ordering::Relaxed);
        }
    }));
    let result = result.unwrap();
    assert_eq!((result.summary().outcome, result.summary().train_units), (Outcome::Stopped, 0));
    assert_eq!(over.load(Ordering::Relaxed), 1);
    let result = run(experiment().wall_time(hour).resume(folder.path())).unwrap();
    assert_eq!(result.summary().outcome, Outcome::Finished);
    assert_eq!(described(&result), undisturbed);
}

#[test]
fn the_wall_time_ends_a_search_that_would_never_end() {
    let endless = Random::new(&space(), u64::MAX, Seed(3)).unwrap();
    let result = run(experiment().search(endless).wall_time(Duration::from_millis(20))).unwrap();
    assert_eq!(result.summary().outcome, Outcome::Stopped);
}

#[test]
fn an_experiment_is_resumed_with_what_it_began_with_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let location = folder.path();
    run_for(experiment().code_version("commit 1").store(location), 2);
    let again = || experiment().code_version("commit 1").resume(location);
    let other_space = Space::builder().uniform("rate", 0.0, 0.5).build().unwrap();
    let refused = [
        (again().code_version("commit 2"), "`commit 1`", "`commit 2`"),
        (again().seed(6), "the seed was 5", "6 now"),
        (again().objective(Objective::maximize("accuracy")), "loss", "accuracy"),
        (again().policy(Policy::Random), "Seeded", "Random"),
        (again().search(Random::new(&other_space, 6, Seed(3)).unwrap()), "`random`", "`random`"),
        (
            again().search(
                Grid::new(&Space::builder().choice("rate", [0.5]).build().unwrap()).unwrap(),
            ),
            "`random`",
            "`grid`",
        ),
    ];
    for (builder, before, now) in refused {
        let (error, text) = refusal(builder);
        assert!(matches!(error, StoreError::Changed { .. }), "{text}");
        assert!(text.contains(before) && text.contains(now), "{text}");
    }
    let (error, text) = refusal(again().epochs(4));
    assert!(matches!(error, StoreError::ChangedEpochs { recorded: 3, found: 4 }), "{text}");
    assert!(text.contains("extend_epochs"), "{text}");
    assert!(run(again()).is_ok(), "no refusal did any harm");
}

#[test]
fn other_data_are_refused_by_partition() {
    /// The same catalogue, but one partition has other rows.
    #[derive(Debug)]
    struct Edited(cerebro_core::data::MemoryDataset);
    impl Dataset for Edited {
        fn partitions(&self) -> &[cerebro_core::data::PartitionInfo] {
            self.0.partitions()
        }
        fn tensors(&self) -> &[cerebro_core::data::TensorSpec] {
            self.0.tensors()
        }
        fn checksum(&self, id: cerebro_core::PartitionId) -> Option<String> {
            if id.0 == 3 { Some("xxh3:0".to_owned()) } else { self.0.checksum(id) }
        }
        fn load(
            &self,
            id: cerebro_core::PartitionId,
        ) -> Result<Arc<dyn cerebro_core::data::Partition>, cerebro_core::data::DataError> {
            self.0.load(id)
        }
    }
    let folder = tempfile::tempdir().unwrap();
    run_for(experiment().store(folder.path()), 2);
    let again = || experiment().resume(folder.path());
    let (error, text) = refusal(again().dataset(Edited(testing::dataset(4, 2))));
    assert!(matches!(error, StoreError::ChangedPartition { .. }), "{text}");
    assert!(text.contains("partition-3") && text.contains("xxh3:0"), "{text}");
    let (_, text) = refusal(again().dataset(testing::dataset(5, 2)));
    assert!(text.contains("partition-4") && text.contains("train"), "{text}");
    let (_, text) = refusal(again().dataset(testing::dataset(4, 3)));
    assert!(text.contains("partition-6") && text.contains("did not have it"), "{text}");
}

#[test]
fn a_second_driver_is_refused_while_the_first_lives() {
    let folder = tempfile::tempdir().unwrap();
    let location = folder.path().to_owned();
    let refused: Arc<Mutex<Option<String>>> = Arc::default();
    let (told, second) = (Arc::clone(&refused), location.clone());
    let builder = experiment().store(&*location).observer(move |_: Duration, event: &Event| {
        if matches!(event, Event::EpochCompleted { epoch: 1, .. }) && told.lock().unwrap().is_none()
        {
            let second = second.clone();
            let attempt = std::thread::spawn(move || refusal(experiment().resume(&*second)));
            let (error, text) = attempt.join().unwrap();
            assert!(matches!(error, StoreError::InUse { .. }), "{text}");
            *told.lock().unwrap() = Some(text);
        }
    });
    run(builder).unwrap();
    let text = refused.lock().unwrap().clone().unwrap();
    assert!(text.contains(&format!("process {}", std::process::id())), "{text}");
    assert!(run(experiment().resume(&*location)).is_ok(), "the first has ended");
}

#[test]
fn a_driver_that_died_elsewhere_is_succeeded_when_its_lease_expires() {
    let folder = tempfile::tempdir().unwrap();
    run_for(experiment().store(folder.path()), 2);
    // As another machine's driver leaves it when it loses power.
    let lease = folder.path().join("lease/000001");
    let mut owner: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&lease).unwrap()).unwrap();
    owner["machine"] = "another".into();
    owner["ended"] = false.into();
    owner["expires_after"] = 0.05.into();
    std::fs::write(&lease, owner.to_string()).unwrap();
    assert!(run(experiment().resume(folder.path())).is_ok());
    assert!(folder.path().join("lease/000002").exists());
}

#[test]
fn a_driver_that_was_taken_for_dead_ends_and_its_successor_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let location = folder.path().to_owned();
    let first = AtomicBool::new(true);
    let builder = experiment().store(&*location).observer({
        let location = location.clone();
        move |_: Duration, event: &Event| {
            if matches!(event, Event::EpochCompleted { epoch: 2, .. })
                && first.swap(false, Ordering::Relaxed)
            {
                // What a successor does first: it takes the next lease.
                let lease = std::fs::read(location.join("lease/000001")).unwrap();
                let mut owner: serde_json::Value = serde_json::from_slice(&lease).unwrap();
                owner["ended"] = true.into();
                std::fs::write(location.join("lease/000002"), owner.to_string()).unwrap();
            }
        }
    });
    let ended = run(builder).unwrap_err();
    let text = ended.to_string();
    let ExperimentError::Interrupted { cause, .. } = ended else { panic!("{text}") };
    assert!(matches!(cause, Interruption::Store(StoreError::TakenOver { .. })), "{text}");
    let result = run(experiment().resume(&*location)).unwrap();
    assert_eq!(described(&result), described(&run(experiment()).unwrap()));
}

#[test]
fn a_damaged_end_of_the_journal_is_cut_off_and_said() {
    let undisturbed = described(&run(experiment()).unwrap());
    for damage in ["torn", "flipped", "emptied"] {
        let folder = tempfile::tempdir().unwrap();
        run_for(experiment().store(folder.path()), 4);
        let last = files(&folder.path().join("journal")).pop().unwrap();
        let mut bytes = std::fs::read(&last).unwrap();
        match damage {
            "torn" => bytes.truncate(bytes.len() - 3),
            "flipped" => {
                let at = bytes.len() - 20;
                bytes[at] ^= 1;
            }
            _ => bytes = b"0".to_vec(),
        }
        std::fs::write(&last, bytes).unwrap();
        let result = run(experiment().resume(folder.path())).unwrap();
        let warnings = result.summary().warnings.join(" ");
        assert!(warnings.contains("cut off"), "{damage}: {warnings}");
        assert_eq!(described(&result), undisturbed, "{damage}");
        // What came after the cut is found again.
        let result = run(experiment().resume(folder.path())).unwrap();
        assert_eq!(result.summary().train_units, 0, "{damage}");
    }
}

#[test]
fn damage_in_the_middle_of_the_journal_is_not_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    run(experiment().store(folder.path())).unwrap();
    let journal = folder.path().join("journal");
    let damaged = files(&journal).pop().unwrap();
    let mut bytes = std::fs::read(&damaged).unwrap();
    std::fs::write(journal.join("000000001000.000001"), &bytes).unwrap();
    bytes[30] ^= 1;
    std::fs::write(&damaged, bytes).unwrap();
    let (error, text) = refusal(experiment().resume(folder.path()));
    assert!(matches!(error, StoreError::Damaged { .. }), "{text}");
    let name = damaged.file_name().unwrap().to_str().unwrap();
    assert!(text.contains(name) && text.contains("checksum"), "{text}");
}

#[test]
fn a_damaged_checkpoint_fails_its_trial_and_no_other() {
    for damage in ["flipped", "short", "gone"] {
        let folder = tempfile::tempdir().unwrap();
        let (stopped, _) = run_for(experiment().epochs(20).store(folder.path()), 3);
        let begun = |trial: &&TrialRecord| (1..20).contains(&trial.history.len());
        let TrialRecord { id, history, .. } = stopped.trials().find(begun).unwrap();
        let newest = format!("checkpoints/{id}/{}.000001", history.last().unwrap().version);
        let checkpoint = folder.path().join(newest);
        let mut bytes = std::fs::read(&checkpoint).unwrap();
        match damage {
            "flipped" => bytes[3] ^= 1,
            "short" => bytes.truncate(7),
            _ => {}
        }
        std::fs::write(&checkpoint, bytes).unwrap();
        if damage == "gone" {
            std::fs::remove_file(&checkpoint).unwrap();
        }
        let result = run(experiment().epochs(20).resume(folder.path())).unwrap();
        assert_eq!((result.summary().completed, result.summary().failed), (5, 1), "{damage}");
        let status = serde_json::to_string(&result.trial(*id).unwrap().status).unwrap();
        assert!(status.contains("damaged") && status.contains(&id.to_string()), "{status}");
    }
}
