//! [`ExperimentHandle`]: control of a running experiment from elsewhere.

use futures::channel::mpsc;

/// What a person asks of a running experiment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// End it at the next batch boundaries.
    Stop,
}

/// Controls a running experiment; clones control the same one.
#[derive(Clone, Debug)]
pub struct ExperimentHandle {
    commands: mpsc::UnboundedSender<Command>,
}

impl ExperimentHandle {
    pub(super) fn new() -> (Self, mpsc::UnboundedReceiver<Command>) {
        let (commands, receiver) = mpsc::unbounded();
        (Self { commands }, receiver)
    }

    /// Ends the experiment: units under way stop at their next batch boundary and leave no trace,
    /// epochs that are completed count, and `run` returns what there is.
    ///
    /// May be called from any thread, such as a Ctrl-C handler's, and before `run`. Without effect
    /// once the experiment has ended.
    pub fn stop(&self) {
        // The receiver is gone when the experiment is: then there is nothing to stop.
        let _ = self.commands.unbounded_send(Command::Stop);
    }
}
