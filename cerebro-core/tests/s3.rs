//! A prepared data set and an experiment in a bucket of an S3 server: `moto`'s, on loopback.
//!
//! ```text
//! cargo test -p cerebro-core --features aws,testing --test s3
//! ```

mod support;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cerebro_backend_local::LocalBackend;
use cerebro_core::data::{Dataset, ParquetDataset, Prepare, Source, TensorColumns, Validation};
use cerebro_core::experiment::{
    Experiment, ExperimentBuilder, ExperimentError, ExperimentHandle, ExperimentResult,
};
use cerebro_core::observe::{Event, Outcome};
use cerebro_core::schedule::Policy;
use cerebro_core::search::{Asha, Random, Rungs};
use cerebro_core::store::StoreError;
use cerebro_core::testing::{self, Tally};
use cerebro_core::{Config, Model, Objective, Seed, Slot, Space, Split};
use futures::executor::block_on;
use support::process::Process;

const BUCKET: &str = "cerebro";
/// Set in the process that does the work: what credentials and endpoints come from.
const INSIDE: &str = "CEREBRO_TEST_S3";

/// Starts the server on a free port, says which, makes the bucket, and serves until it is killed.
const SERVER: &str = r#"
import logging, sys, threading, urllib.request
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

logging.getLogger("werkzeug").setLevel(logging.ERROR)
server = make_server("127.0.0.1", 0, DomainDispatcherApplication(create_backend_app), threaded=True)
threading.Thread(target=server.serve_forever, daemon=True).start()
address = f"http://127.0.0.1:{server.server_port}"
request = urllib.request.Request(f"{address}/cerebro", method="PUT", headers={
    "Authorization": "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request"})
urllib.request.urlopen(request).read()
print(address, flush=True)
sys.stdin.read()
"#;

fn serve(python: &Path) -> (Process, String) {
    let mut child = Command::new("python3")
        .args(["-c", SERVER])
        .env("PYTHONPATH", python)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut address = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut address).unwrap();
    assert!(address.starts_with("http://127.0.0.1:"), "the server says {address:?}");
    (Process(child), address.trim().to_owned())
}

/// Runs the test again in a process whose environment names the server, as a user's would.
#[test]
fn a_bucket_serves_as_well_as_a_folder() {
    if std::env::var_os(INSIDE).is_some() {
        prepared_data_are_the_same_in_a_bucket();
        an_experiment_in_a_bucket_is_resumed_and_has_one_driver();
        without_permission_the_store_says_so();
        return;
    }
    let Some(python) = support::python::package("moto.server", &["moto[server]>=5,<6"]) else {
        eprintln!("skipped: pip could not install moto");
        return;
    };
    let (_server, address) = serve(&python);
    let inside = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_bucket_serves_as_well_as_a_folder", "--nocapture"])
        .envs([(INSIDE, "1"), ("AWS_ENDPOINT", &address), ("AWS_ALLOW_HTTP", "true")])
        .envs([("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test")])
        .env("AWS_REGION", "us-east-1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&inside.stderr);
    assert!(inside.status.success(), "{said}");
}

fn prepared_data_are_the_same_in_a_bucket() {
    let folder = tempfile::tempdir().unwrap();
    let table = folder.path().join("table.csv");
    let rows: Vec<String> = (0..100).map(|row| format!("{row},{}", row % 3)).collect();
    std::fs::write(&table, format!("x,label\n{}\n", rows.join("\n"))).unwrap();
    let prepare = || {
        Prepare::new(Source::csv(&table))
            .tensor(TensorColumns::new("x", ["x"]))
            .tensor(TensorColumns::new("label", ["label"]).classes(3))
            .partitions(3)
            .validation(Validation::Fraction(0.2))
            .seed(Seed(1))
    };
    let here = prepare().run(folder.path().join("data")).unwrap();
    prepare().run(format!("s3://{BUCKET}/data").as_str()).unwrap();
    let there = ParquetDataset::open(format!("s3://{BUCKET}/data").as_str()).unwrap();
    assert_eq!(here.partitions(), there.partitions());
    for info in here.partitions() {
        assert_eq!(here.checksum(info.id), there.checksum(info.id));
        let (one, other) = (here.load(info.id).unwrap(), there.load(info.id).unwrap());
        assert_eq!(one.read("x").unwrap(), other.read("x").unwrap());
    }
}

fn experiment() -> ExperimentBuilder {
    let space = Space::builder().uniform("rate", 0.0, 1.0).build().unwrap();
    let random = Random::new(&space, 6, Seed(3)).unwrap();
    Experiment::builder()
        .dataset(testing::dataset(4, 2))
        .model(|config: &Config, _: &Slot| Ok(Box::new(Tally::new(config)?) as Box<dyn Model>))
        .search(Asha::new(random, Rungs::new(1, 4, 2).unwrap()))
        .objective(Objective::minimize("loss"))
        .epochs(4)
        .seed(5)
        .policy(Policy::Seeded)
}

fn run(builder: ExperimentBuilder) -> Result<ExperimentResult, ExperimentError> {
    let backend = LocalBackend::builder().workers(2).build().unwrap();
    builder.build().unwrap().run_blocking(Arc::new(backend))
}

/// Trials, their histories and their weights.
fn described(result: &ExperimentResult) -> BTreeMap<u64, (String, Vec<u8>)> {
    let trials = result.trials().map(|trial| {
        let state = block_on(result.state(trial.id)).unwrap().to_vec();
        (trial.id.0, (format!("{:?} {:?}", trial.status, trial.history), state))
    });
    trials.collect()
}

fn an_experiment_in_a_bucket_is_resumed_and_has_one_driver() {
    let url = format!("s3://{BUCKET}/runs/1");
    let handle: Arc<Mutex<Option<ExperimentHandle>>> = Arc::default();
    let (stop, epochs) = (Arc::clone(&handle), AtomicUsize::new(0));
    let (second, refused) = (url.clone(), Arc::new(Mutex::new(None)));
    let refusal = Arc::clone(&refused);
    let first = experiment().store(url.as_str()).observer(move |_: Duration, event: &Event| {
        if matches!(event, Event::EpochCompleted { .. })
            && epochs.fetch_add(1, Ordering::SeqCst) == 4
        {
            // While this driver lives, the bucket is its own.
            let backend = LocalBackend::builder().workers(2).build().unwrap();
            let builder = experiment().resume(second.as_str()).build().unwrap();
            let other = std::thread::spawn(move || builder.run_blocking(Arc::new(backend)));
            *refusal.lock().unwrap() = Some(other.join().unwrap().map(drop));
            stop.lock().unwrap().as_ref().unwrap().stop();
        }
    });
    let first = first.build().unwrap();
    *handle.lock().unwrap() = Some(first.handle());
    let backend = LocalBackend::builder().workers(2).build().unwrap();
    let stopped = first.run_blocking(Arc::new(backend)).unwrap();
    assert_eq!(stopped.summary().outcome, Outcome::Stopped);
    let refused = refused.lock().unwrap().take().expect("a second driver tried");
    assert!(
        matches!(refused, Err(ExperimentError::Store(StoreError::InUse { .. }))),
        "{refused:?}"
    );

    let trained = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&trained);
    let resumed =
        run(experiment().resume(url.as_str()).observer(move |_: Duration, event: &Event| {
            let training =
                matches!(event, Event::UnitCompleted { unit, .. } if unit.split == Split::Train);
            count.fetch_add(usize::from(training), Ordering::SeqCst);
        }))
        .unwrap();
    let undisturbed = run(experiment()).unwrap();
    assert_eq!(described(&resumed), described(&undisturbed));
    let epochs = |result: &ExperimentResult| -> usize {
        result.trials().map(|trial| trial.history.len()).sum()
    };
    let rest = epochs(&undisturbed) - epochs(&stopped);
    assert!(trained.load(Ordering::SeqCst) <= 4 * rest, "no completed epoch is trained again");
}

fn without_permission_the_store_says_so() {
    let url = format!("s3://{BUCKET}-of-someone-else/runs/1");
    let error = run(experiment().store(url.as_str())).unwrap_err().to_string();
    assert!(error.contains("cerebro-of-someone-else"), "{error}");
}
