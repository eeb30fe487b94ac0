//! `[backend]`: where the units run.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cerebro_backend_local::LocalBackend;
use cerebro_backend_tcp::{Certificates, Security, TcpBackend, TcpBackendBuilder};
use cerebro_core::backend::BackendError;
use cerebro_core::{Backend, Device};

use super::document::{Fault, Item, Table};

/// Where the units run, as the file says it.
#[derive(Clone, Debug)]
pub enum Place {
    /// Threads of this process.
    Local {
        /// A worker for each.
        devices: Vec<Device>,
        /// Threads of a worker.
        threads: usize,
        /// On how many workers each partition is.
        replicas: usize,
        /// The bytes of partitions in memory.
        memory: Option<u64>,
    },
    /// Workers in other processes, which dial in.
    Tcp {
        /// How the driver is set up.
        builder: Box<TcpBackendBuilder>,
    },
}

/// Reads where the units run; without a table, on as many threads as there are cores.
pub fn read(table: Option<&Table<'_>>, folder: &Path) -> Result<Place, Fault> {
    let Some(table) = table else {
        let devices = vec![Device::Cpu; cores()];
        return Ok(Place::Local { devices, threads: 1, replicas: 1, memory: None });
    };
    let kind = table.item_needed("kind", "\"local\" or \"tcp\"")?;
    let is_local = kind.choice("backend", &[("local", true), ("tcp", false)])?;
    if is_local { local(table) } else { tcp(table, folder) }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn local(table: &Table<'_>) -> Result<Place, Fault> {
    table.only(&["kind", "workers", "devices", "threads", "replicas", "partition_memory_bytes"])?;
    let threads = table.positive("threads")?.unwrap_or(1);
    let devices = match (table.get("workers"), table.get("devices")) {
        (Some(_), Some(item)) => {
            return Err(item.fault("there is a worker for each device; give no `workers` then"));
        }
        (_, Some(item)) => {
            let items = item.list().ok_or_else(|| item.expected("a list of devices"))?;
            items.iter().map(device).collect::<Result<_, _>>()?
        }
        (_, None) => {
            let usual = (cores() / threads).max(1);
            vec![Device::Cpu; table.positive("workers")?.unwrap_or(usual)]
        }
    };
    Ok(Place::Local {
        devices,
        threads,
        replicas: table.positive("replicas")?.unwrap_or(1),
        memory: table.optional("partition_memory_bytes")?,
    })
}

fn device(item: &Item<'_>) -> Result<Device, Fault> {
    let text: String = item.read()?;
    if text == "cpu" {
        return Ok(Device::Cpu);
    }
    let number = text.strip_prefix("cuda:").and_then(|number| number.parse().ok());
    let message = format!("unknown device `{text}`; known are `cpu`, `cuda:0`, `cuda:1`, ...");
    let device = number.map(Device::Cuda).ok_or_else(|| item.fault(message))?;
    if cfg!(feature = "cuda") {
        return Ok(device);
    }
    let message = "this program trains on no GPU: build it with `--features cerebro-tune/cuda`";
    Err(item.fault(message))
}

fn tcp(table: &Table<'_>, folder: &Path) -> Result<Place, Fault> {
    table.only(&[
        "kind",
        "listen",
        "workers",
        "replicas",
        "lease_seconds",
        "patience_seconds",
        "certificates",
    ])?;
    let mut builder = TcpBackend::builder();
    if let Some(item) = table.get("listen") {
        let address: String = item.read()?;
        if address.rsplit_once(':').is_none_or(|(_, port)| port.parse::<u16>().is_err()) {
            let message = format!("`{address}` is no address; write HOST:PORT");
            return Err(item.fault(message));
        }
        builder = builder.listen(address);
    }
    if let Some(count) = table.positive("workers")? {
        builder = builder.workers(count);
    }
    if let Some(replicas) = table.positive("replicas")? {
        builder = builder.replicas(replicas);
    }
    if let Some(lease) = seconds(table, "lease_seconds")? {
        builder = builder.lease(lease);
    }
    if let Some(patience) = seconds(table, "patience_seconds")? {
        builder = builder.patience(patience);
    }
    if let Some(item) = table.get("certificates") {
        let read = Certificates::read(folder.join(item.read::<String>()?));
        let certificates = read.map_err(|error| {
            item.fault(format!("{error}; `cerebro-worker certificates` makes such a folder"))
        })?;
        builder = builder.security(Security::MutualTls(certificates));
    }
    Ok(Place::Tcp { builder: Box::new(builder) })
}

/// The time that `key` says, if it is there.
pub(super) fn seconds(table: &Table<'_>, key: &str) -> Result<Option<Duration>, Fault> {
    let Some(item) = table.get(key) else { return Ok(None) };
    let seconds: f64 = item.read()?;
    let refused = || item.fault(format!("{seconds} seconds are no time to wait"));
    Duration::try_from_secs_f64(seconds).map(Some).map_err(|_| refused())
}

impl Place {
    /// The same with `count` workers.
    pub fn with_workers(self, count: usize) -> Self {
        match self {
            Place::Local { threads, replicas, memory, .. } => {
                Place::Local { devices: vec![Device::Cpu; count], threads, replicas, memory }
            }
            Place::Tcp { builder } => Place::Tcp { builder: Box::new(builder.workers(count)) },
        }
    }

    /// Whether a worker of this process trains on a GPU.
    pub fn has_gpus(&self) -> bool {
        matches!(self, Place::Local { devices, .. } if devices.iter().any(|of| *of != Device::Cpu))
    }

    /// Starts it.
    pub fn build(self) -> Result<Arc<dyn Backend>, BackendError> {
        match self {
            Place::Local { devices, threads, replicas, memory } => {
                let mut builder = LocalBackend::builder()
                    .devices(devices)
                    .threads_per_worker(threads)
                    .replicas(replicas);
                if let Some(bytes) = memory {
                    builder = builder.partition_memory(bytes);
                }
                Ok(Arc::new(builder.build()?))
            }
            Place::Tcp { builder } => {
                let backend = builder.build()?;
                eprintln!("listening     {}, for workers to dial in", backend.address());
                Ok(Arc::new(backend))
            }
        }
    }
}
