//! The program `cerebro-worker`: started as an operator would, it trains what the local backend
//! trains, to the same bits.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use cerebro_backend_local::LocalBackend;
use cerebro_backend_tcp::{Certificates, Security, TcpBackend};
use cerebro_core::data::{ParquetDataset, Prepare, Source, TensorColumns, Validation};
use cerebro_core::experiment::{Experiment, ExperimentResult};
use cerebro_core::schedule::Policy;
use cerebro_core::search::Grid;
use cerebro_core::{Backend, Config, Objective, Seed, TrialId};
use cerebro_models::loss::Loss;
use cerebro_models::nn::NetworkSpec;
use cerebro_models::{Trainer, runtime};
use futures::executor::block_on;

const TRIALS: u64 = 3;

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_cerebro-worker"))
}

fn says(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr].concat();
    String::from_utf8(text).unwrap()
}

#[test]
fn it_explains_itself_and_refuses_what_it_does_not_know() {
    let help = program().arg("--help").output().unwrap();
    assert!(help.status.success() && says(&help).contains("--driver HOST:PORT"));
    let version = program().arg("--version").output().unwrap();
    assert!(says(&version).contains(env!("CARGO_PKG_VERSION")));
    for wrong in [&["--drivers", "a:1"][..], &[], &["certificates"]] {
        let output = program().args(wrong).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
        assert!(says(&output).contains("--help"), "{wrong:?}: {}", says(&output));
    }
}

#[test]
#[cfg(not(feature = "cuda"))]
fn a_gpu_is_refused_at_once_where_the_program_cannot_use_one() {
    let output =
        program().args(["--driver", "127.0.0.1:1", "--device", "cuda:0"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(says(&output).contains("--features onnx,cuda"), "{}", says(&output));
}

fn certificates(folder: &Path) -> Output {
    program().arg("certificates").arg(folder).args(["one", "two"]).output().unwrap()
}

#[test]
fn it_makes_the_certificates_of_a_cluster_and_replaces_none() {
    let folder = tempfile::tempdir().unwrap();
    let first = certificates(folder.path());
    assert!(first.status.success(), "{}", says(&first));
    let key = |name: &str| std::fs::read(folder.path().join(name).join("key.pem")).unwrap();
    let before = [key("driver"), key("one"), key("two")];
    let again = certificates(folder.path());
    assert!(says(&again).contains("is there already"), "{}", says(&again));
    assert_eq!([key("driver"), key("one"), key("two")], before);
    for name in ["driver", "one", "two"] {
        Certificates::read(folder.path().join(name)).unwrap();
    }
}

/// A worker process; ended when this is dropped.
struct Worker {
    child: Child,
    log: BufReader<ChildStderr>,
}

impl Worker {
    fn start(driver: &str, folder: &Path, name: &str) -> Self {
        let mut command = program();
        command
            .args(["--driver", driver, "--name", name, "--threads", "1", "--stay"])
            .args(["--metrics", "0", "--cache-bytes", "1MB"])
            .arg("--cache")
            .arg(folder.join("cache"))
            .arg("--certificates")
            .arg(folder.join(name))
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        Self { child, log }
    }

    /// Reads the log up to a line with `words` in it.
    fn line(&mut self, words: &str) -> String {
        let mut line = String::new();
        while !line.contains(words) {
            line.clear();
            assert_ne!(self.log.read_line(&mut line).unwrap(), 0, "it ended without `{words}`");
        }
        line
    }

    /// What it shows to monitoring systems.
    fn metrics(&mut self) -> String {
        let line = self.line("metrics are shown");
        let address = line.trim().rsplit_once("at=").unwrap().1.to_owned();
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: worker\r\n\r\n").unwrap();
        let mut page = String::new();
        stream.read_to_string(&mut page).unwrap();
        page
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// 400 rows of two numbers, and whether their sum is positive, in four partitions.
fn dataset(folder: &Path) -> ParquetDataset {
    let mut random = Seed(3).rng();
    let mut table = b"a,b,label\n".to_vec();
    for _ in 0..400 {
        let (a, b) = (random.unit() - 0.5, random.unit() - 0.5);
        writeln!(table, "{a},{b},{}", u8::from(a + b > 0.0)).unwrap();
    }
    std::fs::write(folder.join("table.csv"), table).unwrap();
    Prepare::new(Source::csv(folder.join("table.csv")))
        .tensor(TensorColumns::new("x", ["a", "b"]))
        .tensor(TensorColumns::new("label", ["label"]).classes(2))
        .partitions(4)
        .validation(Validation::Fraction(0.25))
        .seed(Seed(1))
        .run(folder.join("data"))
        .unwrap()
}

fn run(dataset: &ParquetDataset, backend: Arc<dyn Backend>) -> ExperimentResult {
    let network = NetworkSpec::Mlp { inputs: 2.into(), hidden: "hidden".into(), outputs: 2.into() };
    let trainer = Trainer::new(network, Loss::cross_entropy()).input("x").target("label");
    let config = |trial: u64| {
        Config::new()
            .with("hidden", vec![4 + trial as i64])
            .with("optimizer", "adamw")
            .with("batch_size", 16)
            .with("learning_rate", 0.01)
    };
    Experiment::builder()
        .dataset(dataset.clone())
        .model(trainer)
        .search(Grid::of((0..TRIALS).map(config)).unwrap())
        .objective(Objective::minimize("loss"))
        .policy(Policy::Seeded)
        .epochs(2)
        .seed(7)
        .build()
        .unwrap()
        .run_blocking(backend)
        .unwrap()
}

fn states(result: &ExperimentResult) -> Vec<Vec<u8>> {
    (0..TRIALS).map(|id| block_on(result.state(TrialId(id))).unwrap().to_vec()).collect()
}

#[test]
fn two_of_them_over_tls_train_to_the_bits_of_the_local_backend() {
    if let Err(error) = runtime::load() {
        println!("skipped: ONNX Runtime is not there: {error}");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    assert!(certificates(folder.path()).status.success());
    let dataset = dataset(folder.path());
    let driver = Certificates::read(folder.path().join("driver")).unwrap();
    let backend = TcpBackend::builder()
        .listen("127.0.0.1:0")
        .workers(2)
        .security(Security::MutualTls(driver))
        .build()
        .unwrap();
    let address = backend.address().to_string();
    let mut crew = ["one", "two"].map(|name| Worker::start(&address, folder.path(), name));
    let result = run(&dataset, Arc::new(backend));
    let local = LocalBackend::builder().workers(2).threads_per_worker(1).build().unwrap();
    assert_eq!(states(&result), states(&run(&dataset, Arc::new(local))));
    assert!(result.summary().hops > 0);
    drop(result);

    let mut units = 0;
    for worker in &mut crew {
        let page = worker.metrics();
        assert!(page.starts_with("HTTP/1.1 200 OK"), "{page}");
        let count = |name: &str| -> u64 {
            let line = page.lines().find(|line| line.starts_with(name));
            let line = line.unwrap_or_else(|| panic!("{name} is not in {page}"));
            line.rsplit_once(' ').unwrap().1.parse().unwrap()
        };
        let trained = r#"cerebro_worker_units_total{pass="Train",outcome="Completed"}"#;
        units += count(trained);
        assert_eq!(count("cerebro_worker_sessions_total"), 1);
        assert_eq!(count("cerebro_worker_units_running"), 0);
        assert!(count(r#"cerebro_worker_partitions_loaded_total{origin="dataset"}"#) >= 2);
        assert!(page.contains(env!("CARGO_PKG_VERSION")), "{page}");
    }
    assert_eq!(units, TRIALS * 2 * 4, "every trial, epoch and training partition");
    assert!(folder.path().join("cache").read_dir().unwrap().next().is_some(), "it keeps them");
    for worker in &mut crew {
        let asked = Command::new("kill").args(["-TERM", &worker.child.id().to_string()]).status();
        assert!(asked.unwrap().success());
        assert!(worker.child.wait().unwrap().success(), "a worker that is asked to leave does");
    }
}
