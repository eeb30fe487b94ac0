//! A file with `kind = "tcp"`: the driver and its workers are processes of their own, the driver is
//! killed and resumed, and the best model has the bits that workers of one process give it.

mod support;

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use cerebro_backend_tcp::worker::{Options as WorkerOptions, Registry, serve};
use cerebro_tune::arguments::Options;
use cerebro_tune::run;
use serde_json::Value;
use tokio::net::TcpSocket;

/// The driver is killed after so many epochs, each time.
const EPOCHS_BEFORE_KILLS: [usize; 2] = [3, 4];
const WORKERS: usize = 2;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["worker", driver] => serve(Registry::onnx(), WorkerOptions::new(driver)).unwrap(),
        ["drive", file, how] => drive(file.into(), how == "resume"),
        // The arguments of test runs, such as filters and `--nocapture`, mean nothing here.
        _ => a_killed_driver_of_worker_processes_is_resumed_to_the_bits_of_an_undisturbed_run(),
    }
}

fn drive(file: PathBuf, resume: bool) {
    run::run(&Options { file, resume, json: true, ..Options::default() }, |_| ()).unwrap();
}

/// A process, which ends with this.
struct Process(Child);

impl Process {
    fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        Self(command.args(arguments).stdout(Stdio::piped()).spawn().unwrap())
    }

    /// Its events, as they come.
    fn events(&mut self) -> impl Iterator<Item = Value> + use<> {
        let lines = BufReader::new(self.0.stdout.take().unwrap()).lines();
        // A line may be cut short by the kill.
        lines.map_while(Result::ok).map_while(|line| serde_json::from_str(&line).ok())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An address for the drivers, one after the other: bound here and not listened on, so that nobody else
/// is given the port.
fn reserved() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

fn write(folder: &Path, backend: &str) -> PathBuf {
    let file = folder.join("digits.toml");
    let text = support::file()
        .replace("epochs = 2", "epochs = 4")
        .replace("\npartitions = 2", "\npartitions = 3")
        .replace("\"random\"\ntrials = 4", "\"asha\"\ntrials = 6\nreduction = 2")
        .replace("kind = \"local\"\nworkers = 2\n", backend);
    std::fs::write(&file, text).unwrap();
    file
}

fn best(folder: &Path) -> Vec<u8> {
    std::fs::read(folder.join("out/best.safetensors")).unwrap()
}

fn a_killed_driver_of_worker_processes_is_resumed_to_the_bits_of_an_undisturbed_run() {
    let undisturbed = tempfile::tempdir().unwrap();
    let file = write(undisturbed.path(), "kind = \"local\"\nworkers = 2\n");
    let mut driver = Process::start(&["drive", file.to_str().unwrap(), "begin"]);
    let expected = driver.events().last().expect("events");
    assert!(driver.0.wait().unwrap().success());

    let disturbed = tempfile::tempdir().unwrap();
    let (_socket, address) = reserved();
    let file = write(
        disturbed.path(),
        &format!(
            "kind = \"tcp\"\nlisten = \"{address}\"\nworkers = {WORKERS}\nlease_seconds = 60\n"
        ),
    );
    // They outlive drivers: where one is lost they dial until the next is there.
    let address = address.to_string();
    let workers = || Process::start(&["worker", &address]);
    let mut workers: Vec<Process> = (0..WORKERS).map(|_| workers()).collect();
    let mut completed = std::collections::BTreeSet::new();
    let mut kills = EPOCHS_BEFORE_KILLS.into_iter();
    let mut how = "begin";
    let found = loop {
        let mut driver = Process::start(&["drive", file.to_str().unwrap(), how]);
        how = "resume";
        let mut left = kills.next();
        let mut last = Value::Null;
        for event in driver.events() {
            if event["event"] == "epoch_completed" {
                let epoch = (event["trial"].to_string(), event["epoch"].to_string());
                assert!(completed.insert(epoch), "an epoch is trained again: {event}");
                left = left.map(|left| left - 1);
            }
            last = event;
            if left == Some(0) {
                driver.0.kill().unwrap();
                left = None;
            }
        }
        let status = driver.0.wait().unwrap();
        if status.success() {
            break last;
        }
        assert!(status.code().is_none(), "the driver failed: {status}");
    };
    assert!(kills.next().is_none(), "it was killed as often as planned");
    assert_eq!(found["event"], "result");
    for key in ["best", "value", "config"] {
        assert_eq!(found[key], expected[key], "{key}");
    }
    assert_eq!(best(disturbed.path()), best(undisturbed.path()), "the weights of the best model");
    for worker in &mut workers {
        assert!(worker.0.wait().unwrap().success(), "a worker leaves when the run is over");
    }
    println!("a driver that was killed twice gave the bits of an undisturbed run");
}
