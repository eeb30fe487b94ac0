//! How much does a cluster cost on loopback? Prints ratios of one run, and no absolute promises.
//!
//! - How fast does a State of 100 MB hop from process to process, in plain text, in TLS, and lent
//!   within the machine, against bare TCP between two processes? How much memory does it take besides itself? How long does a
//!   unit wait for one that was sent ahead?
//! - What does a unit cost beyond its model?
//! - What do 200 idle workers cost the driver?
//!
//! ```text
//! cargo bench -p cerebro-backend-tcp --bench cluster
//! ```

#[path = "support/processor.rs"]
mod processor;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cerebro_backend_tcp::worker::{Options, Registry, serve_until};
use cerebro_backend_tcp::{Authority, Certificates, Security, TcpBackend};
use cerebro_core::backend::{Job, UnitOrder, WorkerInfo};
use cerebro_core::data::Partition;
use cerebro_core::testing;
use cerebro_core::{
    Backend, Cancellation, Config, Metrics, Model, ModelError, PartitionId, Pass, Seed, Slot,
    Split, State, TrialId, Unit, WorkerId,
};
use futures::executor::block_on;
use processor::processor_time;

const STATE_BYTES: usize = 100_000_000;
const ROUNDS: usize = 9;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["worker", driver, lending, ref keys @ ..] => {
            return work(driver, lending == "lending", keys.first().map(Path::new));
        }
        ["sender"] => return send(),
        // Started by `cargo test --benches`: everything compiles, and that is what is asked.
        _ if !arguments.contains(&"--bench") => return,
        _ => {}
    }
    transfer();
    overhead();
    idle();
}

/// How long a unit takes beside which a State is sent ahead.
const MEANWHILE: Duration = Duration::from_millis(300);

/// A model that does nothing to a State of a given size, for as long as it is told.
#[derive(Debug)]
struct Still(usize, State, Duration);

impl Model for Still {
    fn initialize(&mut self, _: Seed) -> Result<(), ModelError> {
        self.1 = vec![1; self.0].into();
        Ok(())
    }
    fn restore(&mut self, state: &State) -> Result<(), ModelError> {
        self.1 = state.clone();
        Ok(())
    }
    fn state(&mut self) -> Result<State, ModelError> {
        Ok(self.1.clone())
    }
    fn train(&mut self, _: &dyn Partition, _: &Pass<'_>) -> Result<Metrics, ModelError> {
        std::thread::sleep(self.2);
        Ok(Metrics::new())
    }
    fn evaluate(&mut self, _: &dyn Partition, _: &Pass<'_>) -> Result<Metrics, ModelError> {
        Ok(Metrics::new())
    }
}

fn still(bytes: usize) -> impl Fn(&Config, &Slot) -> Result<Box<dyn Model>, ModelError> {
    move |config: &Config, _: &Slot| {
        let time = config.get("slow").map_or(Duration::ZERO, |_| MEANWHILE);
        Ok(Box::new(Still(bytes, vec![].into(), time)) as Box<dyn Model>)
    }
}

fn registry() -> Registry {
    Registry::new()
        .model("still", |bytes: &[u8]| {
            let bytes = bytes.try_into().map(usize::from_le_bytes).expect("a number");
            Ok(Arc::new(still(bytes)) as _)
        })
        .dataset("tally", |_| Ok(Arc::new(testing::dataset(2, 1))))
}

/// What a worker process does.
fn work(driver: &str, lending: bool, keys: Option<&Path>) {
    let security = keys.map_or(Security::Loopback, security);
    let name = std::process::id().to_string();
    let options = Options::new(driver).name(name).security(security).lending(lending);
    cerebro_backend_tcp::worker::serve(registry(), options).expect("the driver takes it");
}

fn security(keys: &Path) -> Security {
    Security::MutualTls(Certificates::read(keys).expect("they were just made"))
}

/// A process of this program; ended when this is dropped.
struct Process(Child);

impl Process {
    fn start(role: &[&str]) -> Self {
        let program = std::env::current_exe().expect("a program knows its name");
        let started = Command::new(program).args(role).stdout(Stdio::piped()).spawn();
        Self(started.expect("it can be started again"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A cluster of two worker processes, ready to run units of a model with States of `bytes`.
struct Cluster {
    backend: TcpBackend,
    workers: Vec<WorkerInfo>,
    _crew: Vec<Process>,
}

impl Cluster {
    /// With certificates from the folder `keys`, or in plain text; its workers send States to each
    /// other, or lend them.
    fn start(bytes: usize, lending: bool, keys: Option<&Path>) -> Self {
        let backend = TcpBackend::builder()
            .listen("127.0.0.1:0")
            .model("still", bytes.to_le_bytes())
            .data("tally:")
            .workers(2)
            .security(keys.map_or(Security::Loopback, |keys| security(&keys.join("driver"))))
            .build()
            .expect("a free port");
        let driver = backend.address().to_string();
        let start = |name| {
            let keys = keys.map(|keys| keys.join(name).display().to_string());
            let lending = if lending { "lending" } else { "sending" };
            let role = ["worker", &driver, lending].into_iter().chain(keys.as_deref());
            Process::start(&role.collect::<Vec<_>>())
        };
        let crew = ["one", "two"].map(start).into();
        let job =
            Job { dataset: Arc::new(testing::dataset(2, 1)), builder: Arc::new(still(bytes)) };
        let workers = block_on(backend.start(job)).expect("both come");
        Self { backend, workers, _crew: crew }
    }

    /// The process of the worker that holds `partition`.
    fn process(&self, partition: u32) -> u32 {
        let holder = self.holder(partition);
        let holder = self.workers.iter().find(|worker| worker.id == holder);
        holder.and_then(|holder| holder.name.parse().ok()).expect("workers go by their number")
    }

    /// The time that a unit of `trial` takes on the `partition`, from its order to its report.
    fn unit(&self, trial: u64, partition: u32, version: u64) -> Duration {
        self.run(trial, partition, version, Config::new())
    }

    /// The same for a unit whose State was sent ahead while one of the trial `other` ran there.
    fn unit_sent_ahead(&self, trial: u64, partition: u32, version: u64, other: u64) -> Duration {
        std::thread::scope(|scope| {
            scope.spawn(|| self.run(other, partition, 0, Config::new().with("slow", true)));
            self.backend.prefetch(TrialId(trial), version, self.holder(partition));
        });
        let taken = self.unit(trial, partition, version);
        block_on(self.backend.release(TrialId(other), u64::MAX, &[]));
        taken
    }

    fn holder(&self, partition: u32) -> WorkerId {
        let partition = PartitionId(partition);
        let holder = self.workers.iter().find(|worker| worker.partitions.contains(&partition));
        holder.expect("every partition is placed").id
    }

    fn run(&self, trial: u64, partition: u32, version: u64, config: Config) -> Duration {
        let order = UnitOrder {
            unit: Unit {
                trial: TrialId(trial),
                epoch: 0,
                split: Split::Train,
                partition: PartitionId(partition),
            },
            worker: self.holder(partition),
            config: Arc::new(config),
            seed: Seed(0),
            version,
            cancellation: Cancellation::new(),
        };
        let begun = Instant::now();
        block_on(self.backend.run(order)).expect("nothing can go wrong");
        begun.elapsed()
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// What it costs to bring bytes from one process to another.
#[derive(Clone, Copy)]
struct Transfer {
    time: Duration,
    /// The processor time of both processes.
    processor: Duration,
    /// The memory that each of them took at most, beyond what it had before and what it received:
    /// who sent, who received; in bytes.
    extra: [u64; 2],
}

/// Has `from` send, and `to` receive and keep, `STATE_BYTES` bytes.
fn transferred(from: u32, to: u32, work: impl FnOnce() -> Duration) -> Transfer {
    let processes = [from, to];
    let before = processes.map(|process| {
        // Forgets the peak so far.
        let _ = fs::write(format!("/proc/{process}/clear_refs"), "5");
        memory(process, "VmRSS:")
    });
    let processor = || processes.into_iter().filter_map(processor_time).sum::<Duration>();
    let already = processor();
    let time = work();
    let [sent, received] =
        [0, 1].map(|end| memory(processes[end], "VmHWM:").saturating_sub(before[end]));
    let extra = [sent, received.saturating_sub(STATE_BYTES as u64)];
    Transfer { time, processor: processor().saturating_sub(already), extra }
}

/// A figure of a process's memory in bytes, zero where `/proc` does not tell.
fn memory(process: u32, what: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(what));
    let kibibytes =
        line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kibibytes.unwrap_or(0) << 10
}

/// Hops are timed with the unit that waits for them, whose model does nothing.
fn transfer() {
    let folder = tempfile::tempdir().expect("a folder");
    certificates(folder.path());
    let plain = Cluster::start(STATE_BYTES, false, None);
    let tls = Cluster::start(STATE_BYTES, false, Some(folder.path()));
    let lending = Cluster::start(STATE_BYTES, true, None);
    let sender = Sender::start();
    let (mut bare, mut hops, mut tls_hops) = (Vec::new(), Vec::new(), Vec::new());
    let mut lent = Vec::new();
    let mut ahead = Vec::new();
    for round in 0..ROUNDS as u64 {
        bare.push(sender.transfer());
        let clusters = [(&plain, &mut hops), (&tls, &mut tls_hops), (&lending, &mut lent)];
        for (cluster, transfers) in clusters {
            cluster.unit(round, 0, 0);
            let (from, to) = (cluster.process(0), cluster.process(1));
            transfers.push(transferred(from, to, || cluster.unit(round, 1, 1)));
            block_on(cluster.backend.release(TrialId(round), u64::MAX, &[]));
        }
        let (trial, other) = (1000 + round, 2000 + round);
        plain.unit(trial, 0, 0);
        ahead.push(plain.unit_sent_ahead(trial, 1, 1, other));
        block_on(plain.backend.release(TrialId(trial), u64::MAX, &[]));
    }
    let time = |transfers: &[Transfer]| median(transfers.iter().map(|one| one.time).collect());
    let processor =
        |transfers: &[Transfer]| median(transfers.iter().map(|one| one.processor).collect());
    for (name, transfers) in [
        ("bare TCP", &bare),
        ("hop, with its unit", &hops),
        ("the same, mutual TLS", &tls_hops),
        ("the same, lent", &lent),
    ] {
        let seconds = time(transfers).as_secs_f64();
        let speed = STATE_BYTES as f64 / seconds / 1e9;
        let [ratio, effort] = [
            time(&bare).as_secs_f64() / seconds,
            processor(&bare).as_secs_f64() / processor(transfers).as_secs_f64(),
        ];
        let extra = [0, 1].map(|end| {
            let mut extra: Vec<u64> = transfers.iter().map(|one| one.extra[end]).collect();
            extra.sort_unstable();
            extra[extra.len() / 2] as f64 / 1e6
        });
        println!(
            "100 MB, {name:21} {speed:5.2} GB/s, {ratio:.2} of bare TCP (by processor time \
             {effort:.2}); extra memory: sender {:.1} MB, receiver {:.1} MB",
            extra[0], extra[1]
        );
    }
    let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
    println!(
        "a unit that waits for its hop   {:.0} ms; where the State was sent ahead {:.0} ms",
        milliseconds(time(&hops)),
        milliseconds(median(ahead))
    );
}

fn certificates(folder: &Path) {
    let day = Duration::from_hours(24);
    let authority = Authority::create(&folder.join("authority")).expect("a new folder");
    authority.issue_driver(day, &folder.join("driver")).expect("a new folder");
    for name in ["one", "two"] {
        authority.issue_worker(name, day, &folder.join(name)).expect("a new folder");
    }
}

/// A process that sends the same bytes through a plain socket in pieces of 1 MiB, to whoever connects.
struct Sender {
    process: Process,
    address: String,
}

fn send() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    println!("{}", listener.local_addr().expect("it is bound"));
    let state = vec![1u8; STATE_BYTES];
    for stream in listener.incoming() {
        let mut stream = stream.expect("one comes");
        state.chunks(1 << 20).for_each(|chunk| stream.write_all(chunk).expect("it is read"));
    }
}

impl Sender {
    fn start() -> Self {
        let mut process = Process::start(&["sender"]);
        let mut address = String::new();
        let said = process.0.stdout.as_mut().expect("it is piped");
        BufReader::new(said).read_line(&mut address).expect("it says where it is");
        Self { process, address: address.trim().to_owned() }
    }

    /// Into new memory, as a State is received.
    fn transfer(&self) -> Transfer {
        transferred(self.process.0.id(), std::process::id(), || {
            let begun = Instant::now();
            let mut stream = TcpStream::connect(&self.address).expect("it listens");
            let mut received = Vec::with_capacity(STATE_BYTES);
            let mut buffer = vec![0; 1 << 20];
            while received.len() < STATE_BYTES {
                let read = stream.read(&mut buffer).expect("it is written");
                received.extend_from_slice(&buffer[..read]);
            }
            std::hint::black_box(received);
            begun.elapsed()
        })
    }
}

fn overhead() {
    let cluster = Cluster::start(16, true, None);
    let mut at_home = Vec::new();
    let mut hopping = Vec::new();
    for trial in 0..20 {
        for version in 0..50 {
            at_home.push(cluster.unit(trial, 0, version));
            block_on(cluster.backend.release(TrialId(trial), version + 1, &[]));
        }
    }
    for trial in 20..40 {
        for version in 0..50 {
            hopping.push(cluster.unit(trial, (version % 2) as u32, version));
            block_on(cluster.backend.release(TrialId(trial), version + 1, &[]));
        }
    }
    println!(
        "a unit without a model          {:.0} us median",
        median(at_home).as_secs_f64() * 1e6
    );
    println!(
        "with a hop                      {:.0} us median",
        median(hopping).as_secs_f64() * 1e6
    );
}

/// The processor time of this process, driver and workers together, so more than the driver's.
fn idle() {
    let backend = TcpBackend::builder()
        .listen("127.0.0.1:0")
        .model("still", 16usize.to_le_bytes())
        .data("tally:")
        .workers(1)
        .build()
        .expect("a free port");
    for _ in 0..200 {
        let options = Options::new(backend.address().to_string());
        std::thread::spawn(move || serve_until(registry(), options, std::future::pending()));
    }
    let job = Job { dataset: Arc::new(testing::dataset(2, 1)), builder: Arc::new(still(16)) };
    block_on(backend.start(job)).expect("they come");
    std::thread::sleep(Duration::from_secs(10));
    let before = processor_time(std::process::id());
    let begun = Instant::now();
    std::thread::sleep(Duration::from_secs(10));
    if let (Some(before), Some(after)) = (before, processor_time(std::process::id())) {
        let share = after.saturating_sub(before).as_secs_f64() / begun.elapsed().as_secs_f64();
        println!("driver and 200 idle workers     {:.1} % of one core", share * 100.0);
    }
}
