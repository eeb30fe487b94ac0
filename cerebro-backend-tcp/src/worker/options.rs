//! [`Options`]: what a worker is told by whoever starts it.

use std::path::PathBuf;
use std::thread::available_parallelism;

use cerebro_core::Device;

use crate::security::Security;

/// What a worker is told by whoever starts it.
#[derive(Clone, Debug)]
pub struct Options {
    pub(super) driver: String,
    pub(super) listen: String,
    pub(super) advertise: Option<String>,
    pub(super) name: Option<String>,
    pub(super) slots: usize,
    pub(super) threads: Option<usize>,
    pub(super) device: Device,
    pub(super) data: Option<String>,
    pub(super) cache: Option<(PathBuf, u64)>,
    pub(super) metrics: Option<String>,
    pub(super) security: Security,
    pub(super) lending: bool,
    pub(super) after_run: AfterRun,
    pub(super) most_state_bytes: usize,
}

/// What a worker does when a run is over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AfterRun {
    /// It ends.
    #[default]
    Leave,
    /// It waits for the next driver at the same address.
    Stay,
}

impl Options {
    /// A worker of the driver at `driver`, a host and a port: one slot on the processor, reached by
    /// others on loopback.
    pub fn new(driver: impl Into<String>) -> Self {
        Self {
            driver: driver.into(),
            listen: "127.0.0.1:0".to_owned(),
            advertise: None,
            name: None,
            slots: 1,
            threads: None,
            device: Device::Cpu,
            data: None,
            cache: None,
            metrics: None,
            security: Security::default(),
            lending: true,
            after_run: AfterRun::default(),
            most_state_bytes: 64 << 30,
        }
    }

    /// The driver, where it was not known yet: a host and a port.
    pub fn driver(mut self, address: impl Into<String>) -> Self {
        self.driver = address.into();
        self
    }

    /// Where other workers fetch States. The default is a free port on loopback; on a cluster it is
    /// `0.0.0.0:PORT`.
    pub fn listen(mut self, address: impl Into<String>) -> Self {
        self.listen = address.into();
        self
    }

    /// The address that others are told, where it is not the one that this process sees itself at:
    /// behind a translation of addresses, in a container.
    pub fn advertise(mut self, address: impl Into<String>) -> Self {
        self.advertise = Some(address.into());
        self
    }

    /// A name for people. The default is the address that others are told.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// How many units run at once, 1 unless told otherwise.
    pub fn slots(mut self, slots: usize) -> Self {
        self.slots = slots.max(1);
        self
    }

    /// The threads that the models of one slot may use. The default is the cores divided by the
    /// slots.
    pub fn threads_per_slot(mut self, threads: usize) -> Self {
        self.threads = Some(threads.max(1));
        self
    }

    /// Where the models compute.
    pub fn device(mut self, device: Device) -> Self {
        self.device = device;
        self
    }

    /// Where this worker finds the data set, where that is not where the driver says it is: a
    /// mount point of its own, a copy on its disk.
    pub fn data(mut self, url: impl Into<String>) -> Self {
        self.data = Some(url.into());
        self
    }

    /// Keeps partitions in `folder` too, in at most `bytes` bytes, so that they need not be fetched
    /// again when this worker is started again. Files have checksums; one that is damaged is
    /// fetched again, and a disk that is full stops nothing. Workers of one machine may share a
    /// folder. The default is no cache. Data sets without
    /// [checksums](cerebro_core::data::Dataset::checksum) are not kept.
    pub fn cache(mut self, folder: impl Into<PathBuf>, bytes: u64) -> Self {
        self.cache = Some((folder.into(), bytes));
        self
    }

    /// Shows figures in the text format of Prometheus at `http://ADDRESS/metrics`, to whoever can
    /// reach the address: name a loopback address where only this machine should. The default is
    /// not to.
    pub fn metrics(mut self, address: impl Into<String>) -> Self {
        self.metrics = Some(address.into());
        self
    }

    /// Who may connect, and who listens in; the same for all of a cluster.
    pub fn security(mut self, security: Security) -> Self {
        self.security = security;
        self
    }

    /// Whether processes of this machine and this user may read States where they lie in this one's
    /// memory, on Linux. The default is yes: a State then hops within the machine for a fraction of
    /// what it costs to send it. What cannot be read so is sent.
    pub fn lending(mut self, lending: bool) -> Self {
        self.lending = lending;
        self
    }

    /// Whether it stays when the run is over.
    pub fn after_run(mut self, after_run: AfterRun) -> Self {
        self.after_run = after_run;
        self
    }

    /// Larger States than this are refused. The default is 64 GiB.
    pub fn most_state_bytes(mut self, bytes: usize) -> Self {
        self.most_state_bytes = bytes;
        self
    }

    pub(super) fn threads(&self) -> usize {
        self.threads.unwrap_or_else(|| {
            let cores = available_parallelism().map_or(1, usize::from);
            (cores / self.slots).max(1)
        })
    }
}
