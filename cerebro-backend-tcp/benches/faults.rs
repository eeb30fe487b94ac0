//! Do epochs slow in proportion when workers die? The fault experiment of Nakandala, Zhang, Kumar
//! (PVLDB 13(11), 2020), at a small scale: 8 worker processes, three replicas, two workers killed in
//! different epochs and brought back.
//!
//! ```text
//! cargo bench -p cerebro-backend-tcp --bench faults
//! ```
//!
//! Prints how many units ended per second while there were so many workers, and what share of the
//! speed of all eight that is. Models sleep in place of computing, so that eight workers need no
//! eight cores.

use std::fmt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cerebro_backend_tcp::TcpBackend;
use cerebro_backend_tcp::worker::{self, Options, Registry};
use cerebro_core::data::Partition;
use cerebro_core::experiment::Experiment;
use cerebro_core::observe::Event;
use cerebro_core::search::Grid;
use cerebro_core::testing::{self, Tally};
use cerebro_core::{
    Config, Metrics, Model, ModelError, Objective, Pass, Seed, Slot, State, WorkerId,
};

const WORKERS: usize = 8;
const REPLICAS: usize = 3;
const PARTITIONS: u32 = 16;
const VALIDATION: u32 = 8;
const TRIALS: u32 = 24;
const EPOCHS: u32 = 5;
/// What a unit takes.
const UNIT: Duration = Duration::from_millis(100);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["worker", driver] => {
            worker::serve(registry(), Options::new(driver)).expect("the driver takes it");
        }
        // Started by `cargo test --benches`: everything compiles, and that is what is asked.
        _ if !arguments.contains(&"--bench") => {}
        _ => experiment(),
    }
}

/// A tally that takes its time.
#[derive(Debug)]
struct Slow(Tally);

impl Model for Slow {
    fn initialize(&mut self, seed: Seed) -> Result<(), ModelError> {
        self.0.initialize(seed)
    }
    fn restore(&mut self, state: &State) -> Result<(), ModelError> {
        self.0.restore(state)
    }
    fn state(&mut self) -> Result<State, ModelError> {
        self.0.state()
    }
    fn train(&mut self, partition: &dyn Partition, pass: &Pass<'_>) -> Result<Metrics, ModelError> {
        std::thread::sleep(UNIT);
        self.0.train(partition, pass)
    }
    fn evaluate(
        &mut self,
        partition: &dyn Partition,
        pass: &Pass<'_>,
    ) -> Result<Metrics, ModelError> {
        std::thread::sleep(UNIT);
        self.0.evaluate(partition, pass)
    }
}

fn slow(config: &Config, _: &Slot) -> Result<Box<dyn Model>, ModelError> {
    Ok(Box::new(Slow(Tally::new(config)?)))
}

fn registry() -> Registry {
    Registry::new()
        .model("slow", |_: &[u8]| Ok(Arc::new(slow) as _))
        .dataset("tally", |_| Ok(Arc::new(testing::dataset(PARTITIONS, VALIDATION))))
}

/// A time in which the same workers were there.
struct Phase {
    workers: usize,
    begun: Duration,
    ended: Duration,
    units: u32,
}

impl Phase {
    fn speed(&self) -> f64 {
        f64::from(self.units) / self.ended.saturating_sub(self.begun).as_secs_f64()
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.ended.saturating_sub(self.begun).as_secs_f64();
        let (workers, speed) = (self.workers, self.speed());
        write!(f, "{workers} workers {seconds:6.2} s, {speed:6.1} units/s")
    }
}

/// The workers, and what has come to pass.
struct Stage {
    driver: String,
    crew: Vec<Child>,
    phases: Vec<Phase>,
    killed: u32,
    lost: Option<WorkerId>,
    /// The newest worker that has joined.
    newest: WorkerId,
}

impl Stage {
    fn start_worker(&mut self) {
        let program = std::env::current_exe().expect("a program knows its name");
        let mut worker = Command::new(program);
        worker.args(["worker", &self.driver]).stdout(Stdio::null());
        self.crew.push(worker.spawn().expect("it can be started again"));
    }

    fn phase(&mut self, workers: usize, at: Duration) {
        self.phases.push(Phase { workers, begun: at, ended: at, units: 0 });
    }

    /// One dies in the second epoch and one in the fourth; each comes back an epoch later.
    fn observe(&mut self, at: Duration, event: &Event) {
        match event {
            Event::ExperimentStarted { .. } => self.phase(WORKERS, at),
            Event::UnitCompleted { .. } => {
                if let Some(phase) = self.phases.last_mut() {
                    phase.units += 1;
                    phase.ended = at;
                }
            }
            Event::EpochCompleted { epoch, .. }
                if *epoch == 1 + 2 * self.killed && self.killed < 2 =>
            {
                let mut worker = self.crew.swap_remove(0);
                worker.kill().and_then(|()| worker.wait()).expect("a process of ours");
                self.killed += 1;
            }
            Event::EpochCompleted { epoch, .. }
                if *epoch == 2 * self.killed && self.lost.is_some() =>
            {
                self.lost = None;
                self.start_worker();
            }
            Event::WorkerLost { worker, .. } => {
                self.lost = Some(*worker);
                self.phase(WORKERS - 1, at);
            }
            // Those that take over what was lost join with what they hold now, too.
            Event::WorkerJoined { worker } if worker.id > self.newest => {
                self.newest = worker.id;
                self.phase(WORKERS, at);
            }
            _ => {}
        }
    }
}

fn experiment() {
    let backend = TcpBackend::builder()
        .listen("127.0.0.1:0")
        .model("slow", [])
        .data("tally:")
        .workers(WORKERS)
        .replicas(REPLICAS)
        .build()
        .expect("a free port");
    let driver = backend.address().to_string();
    let newest = WorkerId(WORKERS as u32 - 1);
    let mut stage = Stage { driver, crew: vec![], phases: vec![], killed: 0, lost: None, newest };
    (0..WORKERS).for_each(|_| stage.start_worker());
    let stage = Arc::new(Mutex::new(stage));
    let watching = Arc::clone(&stage);
    let configs = (0..TRIALS).map(|n| Config::new().with("rate", f64::from(n) / 100.0));
    let result = Experiment::builder()
        .dataset(testing::dataset(PARTITIONS, VALIDATION))
        .model(slow)
        .search(Grid::of(configs).expect("so many Configs"))
        .objective(Objective::maximize("accuracy"))
        .epochs(EPOCHS)
        .observer(move |at: Duration, event: &Event| {
            watching.lock().expect("nothing panics").observe(at, event);
        })
        .build()
        .expect("it is complete")
        .run_blocking(Arc::new(backend))
        .expect("it ends");
    let mut stage = stage.lock().expect("nothing panics");
    let all = stage.phases[0].speed();
    for phase in &stage.phases {
        let (share, due) = (phase.speed() / all, phase.workers as f64 / WORKERS as f64);
        println!("{phase}: {share:.3} of all {WORKERS}; in proportion {due:.3}");
    }
    println!("{}", result.summary());
    // Workers serve as long as somebody may ask for States.
    drop(result);
    for worker in &mut stage.crew {
        let _ = worker.wait();
    }
}
