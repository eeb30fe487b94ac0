//! The State that a busy worker will want next is on its way while the worker computes.

mod support;

use std::borrow::Cow;
use std::iter;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use cerebro_backend_tcp::TcpBackend;
use cerebro_backend_tcp::worker::{Options, Registry};
use cerebro_core::backend::{Job, UnitOrder, UnitReport, WorkerInfo};
use cerebro_core::data::Partition;
use cerebro_core::{
    Backend, Cancellation, Config, Metrics, Model, ModelError, Parts, Pass, Seed, Slot, Split,
    State, StateData, TrialId, Unit, testing,
};
use futures::executor::block_on;
use support::{Worker, driver};

/// More than a machine ever needs, however busy it is.
const LONG: Duration = Duration::from_mins(1);

/// The trial whose unit does not end before it is told to.
const SLOW: TrialId = TrialId(7);

/// Between a test and the models of its workers.
struct Stage {
    /// The slow unit has begun.
    begun: Sender<()>,
    /// It may end.
    end: Mutex<Receiver<()>>,
    /// A State is written out to be sent; its trial's number.
    sent: Sender<u64>,
}

/// A model that remembers its trial, on a stage.
struct Actor {
    stage: Arc<Stage>,
    trial: u64,
}

struct Memory {
    stage: Arc<Stage>,
    trial: u64,
}

impl StateData for Memory {
    fn bytes(&self) -> usize {
        8
    }

    fn parts(&self) -> Parts<'_> {
        let _ = self.stage.sent.send(self.trial);
        Box::new(iter::once(Ok(Cow::Owned(self.trial.to_le_bytes().to_vec()))))
    }
}

impl Model for Actor {
    fn initialize(&mut self, _: Seed) -> Result<(), ModelError> {
        Ok(())
    }

    fn restore(&mut self, state: &State) -> Result<(), ModelError> {
        self.trial = match state.downcast_ref::<Memory>() {
            Some(memory) => memory.trial,
            None => u64::from_le_bytes(state.to_vec().try_into().expect("eight bytes")),
        };
        Ok(())
    }

    fn state(&mut self) -> Result<State, ModelError> {
        Ok(State::new(Memory { stage: Arc::clone(&self.stage), trial: self.trial }))
    }

    fn train(&mut self, _: &dyn Partition, pass: &Pass<'_>) -> Result<Metrics, ModelError> {
        self.trial = pass.unit().trial.0;
        if pass.unit().trial == SLOW {
            let _ = self.stage.begun.send(());
            self.stage.end.lock().unwrap().recv_timeout(LONG).expect("it is told to end");
        }
        Ok(Metrics::new())
    }

    fn evaluate(&mut self, _: &dyn Partition, _: &Pass<'_>) -> Result<Metrics, ModelError> {
        Ok(Metrics::new())
    }
}

fn run(backend: &TcpBackend, on: &WorkerInfo, trial: u64, version: u64) -> UnitReport {
    let partition = *on.partitions.iter().find(|id| id.0 < 2).expect("one to train on");
    let order = UnitOrder {
        unit: Unit { trial: TrialId(trial), epoch: 0, split: Split::Train, partition },
        worker: on.id,
        config: Arc::new(Config::new()),
        seed: Seed(0),
        version,
        cancellation: Cancellation::new(),
    };
    block_on(backend.run(order)).unwrap()
}

#[test]
fn a_state_that_is_sent_ahead_arrives_while_a_unit_runs_and_is_not_sent_again() {
    let (begun, has_begun) = channel();
    let (end, may_end) = channel();
    let (sent, was_sent) = channel();
    let stage = Arc::new(Stage { begun, end: Mutex::new(may_end), sent });
    let build = move |_: &Config, _: &Slot| -> Result<Box<dyn Model>, ModelError> {
        Ok(Box::new(Actor { stage: Arc::clone(&stage), trial: 0 }))
    };
    let backend = driver().model("actor", []).data(support::url(2, 1)).workers(2).build().unwrap();
    let registry = || {
        let build = build.clone();
        let model = move |_: &[u8]| Ok(Arc::new(build.clone()) as _);
        let dataset = |_: &str| Ok(Arc::new(testing::dataset(2, 1)) as _);
        Registry::new().model("actor", model).dataset("tally", dataset)
    };
    let start = |name: &str| {
        let options = Options::new(backend.address().to_string()).threads_per_slot(1).name(name);
        Worker::with(registry(), options)
    };
    let (mut maker, _taker) = (start("maker"), start("taker"));
    let job = Job { dataset: Arc::new(testing::dataset(2, 1)), builder: Arc::new(build.clone()) };
    let workers = block_on(backend.start(job)).unwrap();
    let named = |name: &str| workers.iter().find(|worker| worker.name == name).unwrap();
    let (made_by, taken_by) = (named("maker"), named("taker"));

    run(&backend, made_by, 1, 0);
    thread::scope(|scope| {
        let slow = scope.spawn(|| run(&backend, taken_by, SLOW.0, 0));
        has_begun.recv_timeout(LONG).expect("the unit runs");
        backend.prefetch(TrialId(1), 1, taken_by.id);
        assert_eq!(was_sent.recv_timeout(LONG), Ok(1), "it is sent while the unit runs");
        // It leaves when somebody else has what it holds; nobody but the busy worker is there.
        maker.leave();
        maker.end().unwrap();
        // Guesses that are wrong, or too late, do nothing.
        backend.prefetch(TrialId(1), 1, taken_by.id);
        backend.prefetch(TrialId(1), 1, made_by.id);
        backend.prefetch(TrialId(1), 9, taken_by.id);
        backend.prefetch(TrialId(99), 1, taken_by.id);
        end.send(()).unwrap();
        slow.join().unwrap();
    });
    let report = run(&backend, taken_by, 1, 1);
    assert_eq!((report.version, report.state_bytes), (2, 8));
    assert_eq!(was_sent.try_iter().filter(|&trial| trial == 1).count(), 0, "it was there already");
    block_on(backend.shutdown()).unwrap();
}
