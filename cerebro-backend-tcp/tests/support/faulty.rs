//! Tallies with larger States, in worker processes that die when and where a test wants it.

use std::borrow::Cow;
use std::fs::{self, File};
use std::iter;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use cerebro_backend_tcp::worker::{self, Options, Registry};
use cerebro_core::data::Partition;
use cerebro_core::testing::{self, Tally};
use cerebro_core::{
    Config, Metrics, Model, ModelError, PartitionId, Parts, Pass, Seed, Slot, State, StateData,
    TrialId, Unit,
};

const DRIVER: &str = "CEREBRO_TEST_DRIVER";
const FAULT: &str = "CEREBRO_TEST_FAULT";
const FOLDER: &str = "CEREBRO_TEST_FOLDER";
/// A State of several chunks, so that something can happen in the middle of it.
const PADDING: usize = 3 << 20;

/// What goes wrong, once, when the first unit of trial 1 on partition 2 trains or its State is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// The worker is killed in the middle of a unit.
    KilledWhileTraining,
    /// It is killed, and another with it.
    TwoKilledWhileTraining,
    /// The worker that sends the unit's State is killed in the middle of it.
    KilledWhileSending,
    /// So is the one that receives it; only where there are two workers.
    KilledWhileReceiving,
    /// The worker stands still in the middle of a unit.
    Frozen,
}

impl Fault {
    fn from_name(name: &str) -> Self {
        let all = [
            Fault::KilledWhileTraining,
            Fault::TwoKilledWhileTraining,
            Fault::KilledWhileSending,
            Fault::KilledWhileReceiving,
            Fault::Frozen,
        ];
        all.into_iter().find(|fault| format!("{fault:?}") == name).unwrap_or(Fault::None)
    }
}

/// A worker in a process of its own; killed when this is dropped.
#[derive(Debug)]
pub struct Process(Child);

impl Process {
    /// Starts this test program again, as a worker: see [`become_a_worker`].
    pub fn start(driver: SocketAddr, fault: Fault, folder: &Path) -> Self {
        let child = Command::new(std::env::current_exe().expect("a test knows its program"))
            .args(["--exact", "worker_process", "--nocapture"])
            .env(DRIVER, driver.to_string())
            .env(FAULT, format!("{fault:?}"))
            .env(FOLDER, folder)
            .stdout(Stdio::null())
            .spawn()
            .expect("a worker process starts");
        Self(child)
    }

    pub fn kill(&mut self) {
        self.0.kill().expect("a process of ours");
        self.0.wait().expect("it ends");
    }

    /// Its exit, when it ends by itself.
    pub fn wait(&mut self) -> std::process::ExitStatus {
        self.0.wait().expect("it ends")
    }

    pub fn signal(&self, signal: &str) {
        self::signal(signal, self.0.id());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Sends a signal to a process that this test has started.
pub fn signal(signal: &str, process: u32) {
    let sent = Command::new("kill").args([signal, &process.to_string()]).status();
    assert!(sent.expect("there is a `kill`").success());
}

/// What the test `worker_process` of each test program does: nothing, unless it was started by
/// [`Process::start`].
pub fn become_a_worker() {
    let Ok(driver) = std::env::var(DRIVER) else { return };
    let folder = PathBuf::from(std::env::var(FOLDER).expect("it is set together with the other"));
    let fault = Fault::from_name(&std::env::var(FAULT).expect("it is set with the others"));
    File::create(folder.join(format!("{}.pid", std::process::id()))).expect("a folder of the test");
    let registry = registry(fault, folder);
    worker::serve(registry, Options::new(driver).threads_per_slot(1)).expect("a worker serves");
}

/// What workers of fault tests can make and read.
pub fn registry(fault: Fault, folder: PathBuf) -> Registry {
    paced(fault, folder, Duration::ZERO)
}

/// The same; a training unit takes `pace` at least.
pub fn paced(fault: Fault, folder: PathBuf, pace: Duration) -> Registry {
    let plan = Arc::new(Plan { fault, folder, pace });
    super::registry().model("faulty", move |_: &[u8]| {
        let plan = Arc::clone(&plan);
        let build = move |config: &Config, _: &Slot| -> Result<Box<dyn Model>, ModelError> {
            let plan = Arc::clone(&plan);
            Ok(Box::new(Faulty { tally: Tally::new(config)?, plan, unit: None }))
        };
        Ok(Arc::new(build) as _)
    })
}

/// The processes that were started in `folder`.
pub fn processes(folder: &Path) -> Vec<u32> {
    let entries = fs::read_dir(folder).expect("a folder of the test");
    let names = entries.map(|entry| entry.expect("it can be read").path());
    let pids = names.filter(|path| path.extension().is_some_and(|extension| extension == "pid"));
    pids.map(|path| path.file_stem().unwrap().to_str().unwrap().parse().unwrap()).collect()
}

#[derive(Debug)]
struct Plan {
    fault: Fault,
    folder: PathBuf,
    pace: Duration,
}

impl Plan {
    /// Whether `fault` is to happen to `unit` here and now: only once, in any process.
    fn is_due(&self, fault: Fault, unit: Option<Unit>) -> bool {
        let chosen =
            unit.is_some_and(|unit| unit.trial == TrialId(1) && unit.partition == PartitionId(2));
        chosen
            && self.fault == fault
            && File::options()
                .write(true)
                .create_new(true)
                .open(self.folder.join("happened"))
                .is_ok()
    }

    fn strike(signal: &str, process: u32) {
        self::signal(signal, process);
        if process == std::process::id() && signal == "-KILL" {
            loop {
                std::thread::park();
            }
        }
    }

    fn another(&self) -> u32 {
        let own = std::process::id();
        processes(&self.folder).into_iter().find(|&process| process != own).expect("another one")
    }
}

#[derive(Debug)]
struct Faulty {
    tally: Tally,
    plan: Arc<Plan>,
    unit: Option<Unit>,
}

impl Model for Faulty {
    fn initialize(&mut self, seed: Seed) -> Result<(), ModelError> {
        self.tally.initialize(seed)
    }

    fn restore(&mut self, state: &State) -> Result<(), ModelError> {
        let tally = match state.downcast_ref::<Padded>() {
            Some(padded) => padded.tally.clone(),
            None => state.to_vec()[..16].to_vec(),
        };
        self.tally.restore(&tally.into())
    }

    fn state(&mut self) -> Result<State, ModelError> {
        let (plan, unit) = (Arc::clone(&self.plan), self.unit);
        Ok(State::new(Padded { tally: self.tally.state()?.to_vec(), plan, unit }))
    }

    fn train(&mut self, partition: &dyn Partition, pass: &Pass<'_>) -> Result<Metrics, ModelError> {
        self.unit = Some(pass.unit());
        let own = std::process::id();
        let metrics = self.tally.train(partition, pass)?;
        // It stands for the computing of a larger model.
        thread::sleep(self.plan.pace);
        if self.plan.is_due(Fault::KilledWhileTraining, self.unit) {
            Plan::strike("-KILL", own);
        }
        if self.plan.is_due(Fault::TwoKilledWhileTraining, self.unit) {
            Plan::strike("-KILL", self.plan.another());
            Plan::strike("-KILL", own);
        }
        if self.plan.is_due(Fault::Frozen, self.unit) {
            Plan::strike("-STOP", own);
        }
        Ok(metrics)
    }

    fn evaluate(
        &mut self,
        partition: &dyn Partition,
        pass: &Pass<'_>,
    ) -> Result<Metrics, ModelError> {
        self.tally.evaluate(partition, pass)
    }
}

/// The State of a tally, made larger.
#[derive(Debug)]
struct Padded {
    tally: Vec<u8>,
    plan: Arc<Plan>,
    unit: Option<Unit>,
}

impl StateData for Padded {
    fn bytes(&self) -> usize {
        self.tally.len() + PADDING
    }

    fn parts(&self) -> Parts<'_> {
        let first = [Ok(Cow::Borrowed(&*self.tally)), Ok(Cow::Owned(vec![7; PADDING / 2]))];
        // Only when its turn comes, so that the rest is never sent.
        let rest = || {
            if self.plan.is_due(Fault::KilledWhileSending, self.unit) {
                Plan::strike("-KILL", std::process::id());
            }
            if self.plan.is_due(Fault::KilledWhileReceiving, self.unit) {
                Plan::strike("-KILL", self.plan.another());
            }
            Ok(Cow::Owned(vec![7; PADDING - PADDING / 2]))
        };
        Box::new(first.into_iter().chain(iter::once_with(rest)))
    }
}

/// A data set that the fault tests' drivers name to their workers.
pub fn url() -> String {
    super::url(super::experiments::TRAIN, super::experiments::VALIDATION)
}

/// For tests that start nothing: the same data set here.
pub fn dataset() -> impl cerebro_core::data::Dataset {
    testing::dataset(super::experiments::TRAIN, super::experiments::VALIDATION)
}
