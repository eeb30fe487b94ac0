//! A network that is cut in two for 10 s and healed, between real processes on two hosts.
//!
//! It needs root and the program `ip`, and says that it was skipped where they are missing.

mod support;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use cerebro_backend_tcp::worker::{self, Options};
use cerebro_backend_tcp::{Authority, Certificates, Security};
use cerebro_core::observe::Event;
use support::driver;
use support::experiments::{Recorder, experiment, is_as_if_undisturbed, rates};
use support::faulty::{self, Fault};
use support::namespaces::Hosts;

const FOLDER: &str = "CEREBRO_TEST_PARTITION";
const PORT: u16 = 7700;
const CUT: Duration = Duration::from_secs(10);
/// Much shorter than the cut, so that the worker behind it is given up meanwhile.
const LEASE: Duration = Duration::from_secs(2);
/// What a unit takes: the trials go on while the network is cut, and one worker alone is not through
/// when it has healed and the other has dialled again, which may be 5 s later. When the first trial has
/// done an epoch, two thirds of the units are left: 19 s.
const UNIT: Duration = Duration::from_millis(400);
const TRIALS: u32 = 6;

fn security(folder: &Path, name: &str) -> Security {
    Security::MutualTls(Certificates::read(folder.join(name)).unwrap())
}

/// The process that is started with this test program's `role` on one of the hosts.
fn start(hosts: &Hosts, host: usize, role: &str, folder: &Path) -> Child {
    let mut command: Command = hosts.on(host, &std::env::current_exe().unwrap());
    command.args(["--exact", role, "--nocapture"]).env(FOLDER, folder).stdout(Stdio::piped());
    command.spawn().unwrap()
}

fn told() -> Option<PathBuf> {
    std::env::var_os(FOLDER).map(PathBuf::from)
}

/// The processes that the test below starts: not tests by themselves.
#[test]
fn near_worker() {
    serve("near", 0);
}

#[test]
fn far_worker() {
    serve("far", 1);
}

fn serve(name: &str, host: usize) {
    let Some(folder) = told() else { return };
    let options = Options::new(format!("{}:{PORT}", Hosts::address(0)))
        .listen(format!("{}:0", Hosts::address(host)))
        .security(security(&folder, name))
        .threads_per_slot(1)
        .name(name);
    let registry = faulty::paced(Fault::None, folder, UNIT);
    worker::serve(registry, options).unwrap();
}

#[test]
fn driver_process() {
    let Some(folder) = told() else { return };
    let backend = driver()
        .listen(format!("{}:{PORT}", Hosts::address(0)))
        .security(security(&folder, "driver"))
        .model("faulty", [])
        .workers(2)
        .lease(LEASE);
    let recorder = Recorder::default();
    let builder = experiment(rates(TRIALS)).observer(recorder.clone());
    let builder = builder.observer(|_: Duration, event: &Event| match event {
        Event::EpochCompleted { .. } => println!("epoch"),
        Event::WorkerLost { reason, .. } => println!("lost: {reason}"),
        Event::WorkerJoined { worker } => println!("joined: {}", worker.name),
        _ => {}
    });
    let backend = Arc::new(backend.build().unwrap());
    let result = builder.build().unwrap().run_blocking(backend).unwrap();
    is_as_if_undisturbed(&result, &recorder);
    println!("{}", result.summary());
}

#[test]
fn a_network_that_is_cut_for_ten_seconds_and_healed() {
    let hosts = match Hosts::new() {
        Ok(hosts) => hosts,
        Err(reason) => {
            println!("skipped: two hosts cannot be made here: {reason}");
            return;
        }
    };
    let folder = tempfile::tempdir().unwrap();
    let hour = Duration::from_hours(1);
    let authority = Authority::create(&folder.path().join("authority")).unwrap();
    authority.issue_driver(hour, &folder.path().join("driver")).unwrap();
    for name in ["near", "far"] {
        authority.issue_worker(name, hour, &folder.path().join(name)).unwrap();
    }
    let mut driver = start(&hosts, 0, "driver_process", folder.path());
    let mut crew = [
        start(&hosts, 0, "near_worker", folder.path()),
        start(&hosts, 1, "far_worker", folder.path()),
    ];
    let mut said = String::new();
    thread::scope(|scope| {
        let mut cut = false;
        for line in BufReader::new(driver.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            if line == "epoch" && !cut {
                cut = true;
                scope.spawn(|| {
                    hosts.cut();
                    thread::sleep(CUT);
                    hosts.heal();
                });
            }
            said.push_str(&line);
            said.push('\n');
        }
    });
    assert!(driver.wait().unwrap().success(), "{said}");
    for worker in &mut crew {
        worker.kill().unwrap();
        worker.wait().unwrap();
    }
    let lost = said.find("lost: it was silent").unwrap_or_else(|| panic!("{said}"));
    assert!(said[lost..].contains("joined: far"), "it came back when the network did: {said}");
    let faults = said.lines().find(|line| line.starts_with("faults")).expect("a summary");
    assert!(faults.contains("worker lost") || faults.contains("workers lost"), "{said}");
}
