//! Kills an experiment's process again and again, at random instants, and resumes it each time:
//! what comes out is what an undisturbed run gives, bit by bit, and no epoch that was told to be
//! completed is trained again.
//!
//! `cargo test -p cerebro-backend-local --test crash -- 50` kills 50 times instead of a few.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use cerebro_backend_local::LocalBackend;
use cerebro_core::experiment::{Experiment, ExperimentBuilder, ExperimentResult};
use cerebro_core::observe::Event;
use cerebro_core::schedule::Policy;
use cerebro_core::search::{Asha, Random, Rungs};
use cerebro_core::testing::{self, Tally};
use cerebro_core::{Config, Model, Objective, Seed, Slot, Space, Split};
use futures::executor::block_on;

/// Kills unless told otherwise.
const KILLS: usize = 6;
const TRIALS: u64 = 24;

fn main() {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        Some("drive") => drive(arguments.next().as_deref(), &arguments.next().unwrap()),
        // The arguments of test runs, such as filters and `--nocapture`, mean nothing here.
        argument => survives(argument.and_then(|kills| kills.parse().ok()).unwrap_or(KILLS)),
    }
}

/// 24 trials by ASHA, 1 to 9 epochs each.
fn experiment() -> ExperimentBuilder {
    let space = Space::builder().uniform("rate", 0.0, 1.0).build().unwrap();
    let random = Random::new(&space, TRIALS, Seed(3)).unwrap();
    Experiment::builder()
        .dataset(testing::dataset(4, 2))
        .model(|config: &Config, _: &Slot| Ok(Box::new(Tally::new(config)?) as Box<dyn Model>))
        .search(Asha::new(random, Rungs::new(1, 9, 3).unwrap()))
        .objective(Objective::minimize("loss"))
        .epochs(9)
        .seed(11)
        .policy(Policy::Seeded)
        .concurrent_trials(5)
        .keep_models(TRIALS as usize)
}

fn run(builder: ExperimentBuilder) -> ExperimentResult {
    let backend = LocalBackend::builder().workers(2).build().unwrap();
    builder.build().unwrap().run_blocking(Arc::new(backend)).unwrap()
}

/// Everything that came out, weights included.
fn described(result: &ExperimentResult) -> String {
    let trials = result.leaderboard().into_iter().map(|trial| {
        let state = block_on(result.state(trial.id)).unwrap().to_vec();
        serde_json::json!({ "record": trial, "state": state })
    });
    serde_json::Value::from(trials.collect::<Vec<_>>()).to_string()
}

/// The program that is killed: drives the experiment and says what happens.
fn drive(how: Option<&str>, store: &str) {
    let builder = match how {
        Some("begin") => experiment().store(store),
        _ => experiment().resume(store),
    };
    let result = run(builder.observer(|_: Duration, event: &Event| {
        let line = match event {
            Event::EpochCompleted { trial, epoch, .. } => format!("completed {trial} {epoch}"),
            Event::UnitStarted { unit, .. } if unit.split == Split::Train => {
                format!("training {} {}", unit.trial, unit.epoch + 1)
            }
            _ => return,
        };
        let mut out = std::io::stdout().lock();
        writeln!(out, "{line}").and_then(|()| out.flush()).unwrap();
    }));
    println!("result {}", described(&result));
}

fn start(store: &Path) -> Child {
    let began = store.join("experiment.json").exists();
    Command::new(std::env::current_exe().unwrap())
        .arg("drive")
        .arg(if began { "resume" } else { "begin" })
        .arg(store)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// What the processes said, over all of them.
#[derive(Default)]
struct Story {
    completed: BTreeSet<String>,
    result: Option<String>,
}

impl Story {
    /// Takes in a line, unless it was cut short by the kill.
    fn hear(&mut self, line: &str) {
        let Some(line) = line.strip_suffix('\n') else { return };
        if let Some(result) = line.strip_prefix("result ") {
            self.result = Some(result.to_owned());
        } else if let Some(epoch) = line.strip_prefix("completed ") {
            assert!(self.completed.insert(epoch.to_owned()), "{epoch} is completed twice");
        } else if let Some(epoch) = line.strip_prefix("training ") {
            assert!(!self.completed.contains(epoch), "{epoch} is trained again");
        }
    }
}

fn survives(kills: usize) {
    let undisturbed = described(&run(experiment()));
    let mut rng = Seed(5).derive("kills", &[kills as u64]).rng();
    let (mut killed, mut experiments) = (0, 0);
    while killed < kills {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("store");
        let mut story = Story::default();
        while story.result.is_none() {
            let mut child = start(&store);
            let mut lines = BufReader::new(child.stdout.take().unwrap());
            // After so many lines the process is killed, wherever it is by then.
            let mut left = if killed < kills { rng.below(60) as usize } else { usize::MAX };
            let mut line = String::new();
            loop {
                if left == 0 {
                    child.kill().unwrap();
                    killed += 1;
                }
                left = left.wrapping_sub(1);
                line.clear();
                if lines.read_line(&mut line).unwrap() == 0 {
                    break;
                }
                story.hear(&line);
            }
            let status = child.wait().unwrap();
            assert!(status.success() || status.code().is_none(), "the driver failed: {status}");
        }
        assert_eq!(story.result.as_deref(), Some(undisturbed.as_str()), "another result");
        experiments += 1;
    }
    println!(
        "{killed} kills over {experiments} experiments of {TRIALS} trials: the same bits, and no \
         completed epoch trained again"
    );
}
