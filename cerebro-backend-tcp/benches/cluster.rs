//! How much does a cluster cost on loopback? Prints ratios of one run, and no absolute promises.
//!
//! - How fast does a State of 100 MB hop, in plain text and in TLS, against bare TCP? How long does a
//!   unit wait for one that was sent ahead?
//! - What does a unit cost beyond its model?
//! - What do 200 idle workers cost the driver?
//!
//! ```text
//! cargo bench -p cerebro-backend-tcp --bench cluster
//! ```

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
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

const STATE_BYTES: usize = 100_000_000;
const ROUNDS: usize = 9;

fn main() {
    // Started by `cargo test --benches`: everything compiles, and that is what is asked.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
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

/// A cluster of two workers, ready to run units of a model with States of `bytes`.
struct Cluster {
    backend: TcpBackend,
    workers: Vec<WorkerInfo>,
}

impl Cluster {
    fn start(bytes: usize, security: &dyn Fn(&str) -> Security) -> Self {
        let backend = TcpBackend::builder()
            .listen("127.0.0.1:0")
            .model("still", bytes.to_le_bytes())
            .data("tally:")
            .workers(2)
            .security(security("driver"))
            .build()
            .expect("a free port");
        for name in ["one", "two"] {
            let options = Options::new(backend.address().to_string()).security(security(name));
            std::thread::spawn(move || serve_until(registry(), options, std::future::pending()));
        }
        let job =
            Job { dataset: Arc::new(testing::dataset(2, 1)), builder: Arc::new(still(bytes)) };
        let workers = block_on(backend.start(job)).expect("both come");
        Self { backend, workers }
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

/// The time of a unit that hops less that of one that does not is the hop.
fn transfer() {
    let folder = tempfile::tempdir().expect("a folder");
    let security = certificates(folder.path());
    let plain = Cluster::start(STATE_BYTES, &|_| Security::Loopback);
    let tls = Cluster::start(STATE_BYTES, &security);
    let (mut bare, mut hops, mut tls_hops) = (Vec::new(), Vec::new(), Vec::new());
    let mut ahead = Vec::new();
    for round in 0..ROUNDS as u64 {
        bare.push(bare_tcp());
        for (cluster, times) in [(&plain, &mut hops), (&tls, &mut tls_hops)] {
            cluster.unit(round, 0, 0);
            times.push(cluster.unit(round, 1, 1));
            block_on(cluster.backend.release(TrialId(round), u64::MAX, &[]));
        }
        let (trial, other) = (1000 + round, 2000 + round);
        plain.unit(trial, 0, 0);
        ahead.push(plain.unit_sent_ahead(trial, 1, 1, other));
        block_on(plain.backend.release(TrialId(trial), u64::MAX, &[]));
    }
    let (bare, hop, tls_hop) = (median(bare), median(hops), median(tls_hops));
    let speed = |time: Duration| STATE_BYTES as f64 / time.as_secs_f64() / 1e9;
    let ratio = |time: Duration| bare.as_secs_f64() / time.as_secs_f64();
    println!("100 MB over bare TCP            {:.2} GB/s", speed(bare));
    println!("hop, with its unit              {:.2} GB/s, {:.2} of it", speed(hop), ratio(hop));
    let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
    println!(
        "that is {:.0} ms; where the State was sent ahead {:.0} ms",
        milliseconds(hop),
        milliseconds(median(ahead))
    );
    println!(
        "hop, with its unit, mutual TLS  {:.2} GB/s, {:.2} of it",
        speed(tls_hop),
        ratio(tls_hop)
    );
}

fn certificates(folder: &Path) -> impl Fn(&str) -> Security + use<> {
    let day = Duration::from_hours(24);
    let authority = Authority::create(&folder.join("authority")).expect("a new folder");
    authority.issue_driver(day, &folder.join("driver")).expect("a new folder");
    for name in ["one", "two"] {
        authority.issue_worker(name, day, &folder.join(name)).expect("a new folder");
    }
    let folder = folder.to_owned();
    move |name| {
        let certificates = Certificates::read(folder.join(name));
        Security::MutualTls(certificates.expect("they were just made"))
    }
}

/// The same bytes through a plain socket into memory set aside before, in pieces of 1 MiB.
fn bare_tcp() -> Duration {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address: SocketAddr = listener.local_addr().expect("it is bound");
    let state = vec![1u8; STATE_BYTES];
    let begun = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (mut stream, _) = listener.accept().expect("one comes");
            state.chunks(1 << 20).for_each(|chunk| stream.write_all(chunk).expect("it is read"));
        });
        let mut stream = TcpStream::connect(address).expect("it listens");
        let mut received = Vec::with_capacity(STATE_BYTES);
        let mut buffer = vec![0; 1 << 20];
        while received.len() < STATE_BYTES {
            let read = stream.read(&mut buffer).expect("it is written");
            received.extend_from_slice(&buffer[..read]);
        }
    });
    begun.elapsed()
}

fn overhead() {
    let cluster = Cluster::start(16, &|_| Security::Loopback);
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
    let before = processor_time();
    let begun = Instant::now();
    std::thread::sleep(Duration::from_secs(10));
    if let (Some(before), Some(after)) = (before, processor_time()) {
        let share = after.saturating_sub(before).as_secs_f64() / begun.elapsed().as_secs_f64();
        println!("driver and 200 idle workers     {:.1} % of one core", share * 100.0);
    }
}

/// User and system time of this process so far, where `/proc` tells it.
fn processor_time() -> Option<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    // Linux counts in hundredths of a second, whatever the kernel's own clock.
    Some(Duration::from_millis(ticks * 10))
}
