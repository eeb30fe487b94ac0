//! Workers die, freeze and come back; every trial ends as if nothing had happened.

mod support;

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cerebro_backend_tcp::TcpBackend;
use cerebro_core::Split;
use cerebro_core::experiment::ExperimentResult;
use cerebro_core::observe::Event;
use support::experiments::{
    EPOCHS, Recorder, TRAIN, experiment, is_as_if_undisturbed, rates, states, tells_of_losses,
    undisturbed,
};
use support::faulty::{self, Fault, Process};
use support::{Reserved, driver};

const TRIALS: u32 = 4;
/// Where a worker is to be missed because it is silent.
const LEASE: Duration = Duration::from_secs(2);

/// What a worker process runs: not a test by itself.
#[test]
fn worker_process() {
    faulty::become_a_worker();
}

/// A cluster of processes, one of which meets with `fault`; `on_event` may react.
fn run(
    fault: Fault,
    workers: usize,
    replicas: usize,
    mut on_event: impl FnMut(&Event, &Path, &TcpBackend, &mut Vec<Process>) + Send + 'static,
) -> ExperimentResult {
    let folder = tempfile::tempdir().unwrap();
    let backend = driver().model("faulty", []).workers(workers).replicas(replicas);
    let backend = if fault == Fault::Frozen { backend.lease(LEASE) } else { backend };
    let backend = Arc::new(backend.build().unwrap());
    let address = backend.address();
    let start = |_| Process::start(address, fault, folder.path());
    let crew: Arc<Mutex<Vec<Process>>> = Arc::new(Mutex::new((0..workers).map(start).collect()));
    let recorder = Recorder::default();
    let path = folder.path().to_owned();
    let (called, crew_then) = (Arc::clone(&backend), Arc::clone(&crew));
    let builder = experiment(rates(TRIALS)).observer(recorder.clone()).observer(
        move |_: Duration, event: &Event| {
            on_event(event, &path, &called, &mut crew_then.lock().unwrap());
        },
    );
    let result = builder.build().unwrap().run_blocking(backend).unwrap();
    let happened = folder.path().join("happened").exists();
    assert!(happened || fault == Fault::None, "{fault:?} has happened");
    is_as_if_undisturbed(&result, &recorder);
    result
}

/// The loss of a worker costs one more unit per trial at most.
fn cost_little(result: &ExperimentResult) {
    let summary = result.summary();
    assert!(summary.repeated_units <= summary.lost_workers * u64::from(TRIALS), "{summary:?}");
    tells_of_losses(result);
}

#[test]
fn a_worker_that_is_killed_while_it_trains() {
    let result = run(Fault::KilledWhileTraining, 3, 1, |_, _, _, _| ());
    assert_eq!(result.summary().lost_workers, 1);
    cost_little(&result);
}

#[test]
fn a_worker_that_is_killed_while_it_sends_a_state() {
    let result = run(Fault::KilledWhileSending, 3, 1, |_, _, _, _| ());
    assert_eq!(result.summary().lost_workers, 1);
    cost_little(&result);
    assert!(result.summary().repeated_units >= 1, "the State was with nobody else");
}

#[test]
fn a_worker_that_is_killed_while_it_receives_a_state() {
    let result = run(Fault::KilledWhileReceiving, 2, 1, |_, _, _, _| ());
    assert_eq!(result.summary().lost_workers, 1);
    cost_little(&result);
}

#[test]
fn two_of_four_workers_that_are_killed_at_once() {
    let result = run(Fault::TwoKilledWhileTraining, 4, 2, |_, _, _, _| ());
    assert_eq!(result.summary().lost_workers, 2);
    cost_little(&result);
}

#[test]
fn the_only_worker_that_is_killed_and_another_that_comes_in_its_place() {
    let result = run(Fault::KilledWhileTraining, 1, 1, move |event, folder, backend, crew| {
        if matches!(event, Event::WorkerLost { .. }) {
            crew.push(Process::start(backend.address(), Fault::None, folder));
        }
    });
    assert_eq!(result.summary().lost_workers, 1);
}

#[test]
fn a_worker_that_freezes_is_lost_by_its_lease_and_its_late_report_is_refused() {
    // Two workers, and one of them stands still with half of the partitions. It is let go on when it
    // has been taken for lost, and its report of the unit comes then.
    let result = run(Fault::Frozen, 2, 1, move |event, folder, _, _| {
        if matches!(event, Event::WorkerLost { .. }) {
            for process in faulty::processes(folder) {
                faulty::signal("-CONT", process);
            }
        }
    });
    // On a machine that is busy enough, a lease may run out for no other reason.
    assert!(result.summary().lost_workers >= 1);
    cost_little(&result);
}

/// The fault experiment of Nakandala, Zhang, Kumar (PVLDB 13(11), 2020): 8 workers,
/// replication 3; two die in different epochs and come back.
#[test]
fn two_of_eight_workers_that_are_killed_in_different_epochs_and_brought_back() {
    let mut killed = 0;
    let result = run(Fault::None, 8, 3, move |event, folder, backend, crew| match event {
        Event::EpochCompleted { epoch, .. } if *epoch > killed && killed < 2 => {
            killed += 1;
            crew[killed as usize].kill();
        }
        Event::WorkerLost { .. } => {
            crew.push(Process::start(backend.address(), Fault::None, folder));
        }
        _ => {}
    });
    assert_eq!(result.summary().lost_workers, 2);
    cost_little(&result);
}

const DRIVER: &str = "CEREBRO_TEST_DRIVER_PROCESS";
/// Whether it keeps the experiment in a store, or takes it up from there.
const STORED: &str = "CEREBRO_TEST_STORED";

/// What a driver process runs: not a test by itself. It listens where it is told, runs an
/// experiment, and writes down the States that came out; or kills itself in the middle.
#[test]
fn driver_process() {
    let Ok(told) = std::env::var(DRIVER) else { return };
    let (address, folder) = told.split_once(' ').unwrap();
    let dies = std::env::var("CEREBRO_TEST_DIES").is_ok();
    let backend = driver().listen(address).model("faulty", []).workers(2).build().unwrap();
    let mut epochs = 0;
    let recorder = Recorder::default();
    let store = Path::new(folder).join("store").to_str().unwrap().to_owned();
    let builder = match std::env::var(STORED).as_deref() {
        Ok("begin") => experiment(rates(TRIALS)).store(store.as_str()),
        Ok("resume") => experiment(rates(TRIALS)).resume(store.as_str()),
        _ => experiment(rates(TRIALS)),
    };
    let builder = builder.observer(recorder.clone()).observer(move |_: Duration, event: &Event| {
        epochs += usize::from(matches!(event, Event::EpochCompleted { .. }));
        if dies && epochs == 3 {
            faulty::signal("-KILL", std::process::id());
        }
    });
    let result = builder.build().unwrap().run_blocking(Arc::new(backend)).unwrap();
    let trained = recorder.units().iter().filter(|(unit, _)| unit.split == Split::Train).count();
    std::fs::write(Path::new(folder).join("trained"), trained.to_string()).unwrap();
    std::fs::write(Path::new(folder).join("states"), tallies(&result)).unwrap();
    std::fs::write(Path::new(folder).join("summary"), result.summary().to_string()).unwrap();
}

fn tallies(result: &ExperimentResult) -> Vec<u8> {
    states(result, TRIALS.into()).iter().flat_map(|state| state[..16].to_vec()).collect()
}

fn start_driver(address: SocketAddr, folder: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "driver_process", "--nocapture"])
        .env(DRIVER, format!("{address} {}", folder.display()))
        .stdout(Stdio::null());
    command
}

#[test]
fn a_driver_that_is_killed_and_workers_that_wait_for_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let reserved = Reserved::new();
    let address = reserved.address();
    let mut crew: Vec<Process> =
        (0..2).map(|_| Process::start(address, Fault::None, folder.path())).collect();
    let killed = start_driver(address, folder.path()).env("CEREBRO_TEST_DIES", "").status();
    assert_eq!(killed.unwrap().code(), None, "it was killed by a signal");
    assert!(!folder.path().join("states").exists());
    let second = start_driver(address, folder.path()).status().unwrap();
    assert!(second.success(), "the same workers serve it");
    let states = std::fs::read(folder.path().join("states")).unwrap();
    assert_eq!(states, tallies(&undisturbed(TRIALS)));
    for worker in &mut crew {
        assert!(worker.wait().success(), "a worker leaves when a run is over");
    }
}

#[test]
fn a_driver_that_is_killed_and_resumed_from_its_store_while_the_workers_wait() {
    let folder = tempfile::tempdir().unwrap();
    let reserved = Reserved::new();
    let address = reserved.address();
    let mut crew: Vec<Process> =
        (0..2).map(|_| Process::start(address, Fault::None, folder.path())).collect();
    let mut first = start_driver(address, folder.path());
    let killed = first.env("CEREBRO_TEST_DIES", "").env(STORED, "begin").status();
    assert_eq!(killed.unwrap().code(), None, "it was killed by a signal");
    let second = start_driver(address, folder.path()).env(STORED, "resume").status().unwrap();
    assert!(second.success());
    let read = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
    assert_eq!(read("states"), tallies(&undisturbed(TRIALS)), "the weights are the same bits");
    let summary = String::from_utf8(read("summary")).unwrap();
    let resumed = summary.lines().find(|line| line.starts_with("resumed")).unwrap_or(&summary);
    let (said, _) = resumed.split_once(" epochs complete").expect(&summary);
    let complete: u32 = said.rsplit(' ').next().unwrap().parse().expect(&summary);
    // It died when it was told of the third; more may have been kept by then.
    assert!((3..TRIALS * EPOCHS).contains(&complete), "{summary}");
    let trained: u32 = String::from_utf8(read("trained")).unwrap().parse().unwrap();
    // Each epoch has a unit for each partition.
    let left = (TRIALS * EPOCHS - complete) * TRAIN;
    assert!(trained <= left, "{trained} of {left} units: no completed epoch is trained again");
    for worker in &mut crew {
        assert!(worker.wait().success(), "a worker leaves when a run is over");
    }
}

#[test]
fn a_worker_that_is_asked_to_terminate_hands_over_its_states_and_leaves() {
    let folder = tempfile::tempdir().unwrap();
    let backend = driver().model("faulty", []).workers(2).build().unwrap();
    let start = |_| Process::start(backend.address(), Fault::None, folder.path());
    let mut crew: Vec<Process> = (0..2).map(start).collect();
    let leaving = Arc::new(Mutex::new(Some(crew.remove(0))));
    let asked = Arc::clone(&leaving);
    let recorder = Recorder::default();
    let builder = experiment(rates(TRIALS)).observer(recorder.clone()).observer(
        move |_: Duration, event: &Event| {
            if matches!(event, Event::EpochCompleted { epoch: 1, .. })
                && let Some(worker) = &*asked.lock().unwrap()
            {
                worker.signal("-TERM");
            }
        },
    );
    let result = builder.build().unwrap().run_blocking(Arc::new(backend)).unwrap();
    is_as_if_undisturbed(&result, &recorder);
    assert_eq!(result.summary().repeated_units, 0, "nothing was lost");
    assert_eq!(recorder.count(|event| matches!(event, Event::WorkerDraining { .. })), 1);
    let mut worker = leaving.lock().unwrap().take().unwrap();
    assert!(worker.wait().success());
}
