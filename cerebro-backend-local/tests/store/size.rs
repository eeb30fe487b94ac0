//! What States take of the store.

use cerebro_core::experiment::Retention;
use cerebro_core::{ModelBuilder, ModelError};

use super::*;

#[test]
fn what_checkpoints_take_at_most_is_told_when_the_size_of_a_state_is_known() {
    let folder = tempfile::tempdir().unwrap();
    let bounds: Arc<Mutex<Vec<(u64, u64)>>> = Arc::default();
    let (told, first_epoch) = (Arc::clone(&bounds), AtomicBool::new(true));
    let builder =
        experiment().store(folder.path()).observer(move |_: Duration, event: &Event| match event {
            Event::StoreBound { states, state_bytes } => {
                told.lock().unwrap().push((*states, *state_bytes));
            }
            Event::EpochCompleted { .. } if first_epoch.swap(false, Ordering::Relaxed) => {
                assert_eq!(told.lock().unwrap().len(), 1, "before an epoch counts");
            }
            _ => {}
        });
    let most = builder.build().unwrap();
    let states = most.most_states().unwrap();
    most.run_blocking(local()).unwrap();
    let largest = (0..6).flat_map(|trial| {
        let checkpoints = folder.path().join(format!("checkpoints/trial-{trial}"));
        files(&checkpoints).into_iter().map(|path| path.metadata().unwrap().len())
    });
    let largest = largest.max().unwrap();
    let bounds = bounds.lock().unwrap();
    assert!(bounds.is_sorted() && bounds.iter().all(|bound| bound.0 == states), "{bounds:?}");
    assert!(bounds.last().unwrap().1 >= largest, "{bounds:?}, {largest}");
}

#[test]
fn no_more_states_are_in_the_store_than_were_told_before_the_run() {
    let asha = || {
        let random = Random::new(&space(), 18, Seed(3)).unwrap();
        let rungs = Rungs::new(1, 9, 3).unwrap();
        let retention = Retention::new().last(2).best(2).every(3);
        experiment().search(Asha::new(random, rungs)).epochs(9).retention(retention)
    };
    let random = || {
        let random = Random::new(&space(), 60, Seed(3)).unwrap();
        experiment().search(random).epochs(2).concurrent_trials(3).keep_models(2)
    };
    for builder in [experiment as fn() -> ExperimentBuilder, population, asha, random] {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = folder.path().join("checkpoints");
        let most: Arc<AtomicUsize> = Arc::default();
        let seen = Arc::clone(&most);
        let count = move || -> usize {
            let trials = std::fs::read_dir(&checkpoints).into_iter().flatten().flatten();
            trials.flat_map(|trial| std::fs::read_dir(trial.path()).into_iter().flatten()).count()
        };
        let builder = builder().store(folder.path()).observer(move |_: Duration, _: &Event| {
            seen.fetch_max(count(), Ordering::Relaxed);
        });
        let experiment = builder.build().unwrap();
        let bound = experiment.most_states().unwrap() as usize;
        experiment.run_blocking(local()).unwrap();
        let most = most.load(Ordering::Relaxed);
        assert!(most > 0 && most <= bound, "{most} States, and {bound} were told");
    }
    // Trials that ended leave nothing, but for the best of them.
    assert_eq!(random().build().unwrap().most_states(), Some(2 * 3 * (2 + 3) + 2 * 2));
}

#[test]
fn what_a_model_says_of_its_states_is_told_before_anything_runs() {
    struct Sized;
    impl ModelBuilder for Sized {
        fn build(&self, config: &Config, _: &Slot) -> Result<Box<dyn Model>, ModelError> {
            Ok(Box::new(Tally::new(config)?))
        }
        fn state_bytes(&self, config: &Config) -> Option<u64> {
            Some(1_000_000 + (config.float("rate").ok()? * 1e6) as u64)
        }
    }
    let events: Arc<Mutex<Vec<Event>>> = Arc::default();
    let (told, folder) = (Arc::clone(&events), tempfile::tempdir().unwrap());
    run(experiment()
        .shared_model(Arc::new(Sized))
        .store(folder.path())
        .observer(move |_: Duration, event: &Event| told.lock().unwrap().push(event.clone())))
    .unwrap();
    let events = events.lock().unwrap();
    let bounds: Vec<(usize, u64)> = events
        .iter()
        .enumerate()
        .filter_map(|(place, event)| match event {
            Event::StoreBound { state_bytes, .. } => Some((place, *state_bytes)),
            _ => None,
        })
        .collect();
    let first_trial = events.iter().position(|event| matches!(event, Event::TrialStarted { .. }));
    let [(place, bytes)] = bounds[..] else { panic!("{bounds:?}") };
    assert!(place < first_trial.unwrap());
    assert!((1_999_999..=2_000_000).contains(&bytes), "{bytes}");
}

#[test]
fn only_states_that_are_needed_stay_in_the_store() {
    let folder = tempfile::tempdir().unwrap();
    let result = run(experiment().keep_models(2).store(folder.path())).unwrap();
    let kept: Vec<TrialId> = result.leaderboard().iter().take(2).map(|trial| trial.id).collect();
    for trial in result.trials() {
        let checkpoints = folder.path().join(format!("checkpoints/{}", trial.id));
        let count = if checkpoints.exists() { files(&checkpoints).len() } else { 0 };
        // The last epoch is the best one of a tally.
        assert_eq!(count, usize::from(kept.contains(&trial.id)), "{}", trial.id);
    }
}

#[test]
fn states_stay_in_the_store_as_retention_says_and_within_its_bound() {
    let folder = tempfile::tempdir().unwrap();
    let retention = Retention::new().last(2).every(4);
    let builder =
        || experiment().epochs(9).keep_models(1).retention(retention).store(folder.path());
    let bound = builder().build().unwrap().most_states().unwrap();
    let result = run(builder()).unwrap();
    assert_eq!(bound, 6 * retention.most_states(9));
    let best = result.best().unwrap();
    for trial in result.trials() {
        let checkpoints = folder.path().join(format!("checkpoints/{}", trial.id));
        let stored = if checkpoints.exists() { files(&checkpoints) } else { Vec::new() };
        let stored: BTreeSet<String> = stored
            .iter()
            .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
            .collect();
        // Of 4 units an epoch: the last two, and every fourth; the best one is the last.
        let expected = [16, 32, 36].map(|version| format!("{version}.000001"));
        let expected = if trial.id == best.id { expected.into() } else { BTreeSet::new() };
        assert_eq!(stored, expected, "{}", trial.id);
    }
}
