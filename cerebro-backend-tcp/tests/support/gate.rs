//! Units that wait until a test lets them go on.

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use cerebro_backend_tcp::worker::Registry;
use cerebro_core::testing::Tally;
use cerebro_core::{Config, Model, ModelError, Slot};

/// More than a machine ever needs, however busy it is.
const LONG: Duration = Duration::from_mins(1);

/// Where the units of some workers wait while it is closed.
#[derive(Clone, Debug, Default)]
pub struct Gate(Arc<Posts>);

#[derive(Debug, Default)]
struct Posts {
    closed: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    pub fn close(&self) {
        *self.0.closed.lock().unwrap() = true;
    }

    pub fn open(&self) {
        *self.0.closed.lock().unwrap() = false;
        self.0.opened.notify_all();
    }

    /// What workers can make and read whose tallies pass this gate before each unit.
    pub fn registry(&self) -> Registry {
        let gate = self.clone();
        let build = move |config: &Config, _: &Slot| -> Result<Box<dyn Model>, ModelError> {
            gate.pass();
            Ok(Box::new(Tally::new(config)?))
        };
        super::registry().model("tally", move |_: &[u8]| Ok(Arc::new(build.clone()) as _))
    }

    fn pass(&self) {
        let closed = self.0.closed.lock().unwrap();
        let waited = self.0.opened.wait_timeout_while(closed, LONG, |closed| *closed).unwrap();
        assert!(!waited.1.timed_out(), "nobody opens the gate");
    }
}
