//! The lease: one driver at a time.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::StoreError;
use super::objects::{Created, Objects};

const FOLDER: &str = "lease";

/// Who drives an experiment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Owner {
    host: String,
    /// Which boot of which machine, and which name space of process numbers; empty if not known.
    machine: String,
    process: u32,
    /// When the process began, as the machine counts.
    began: u64,
    /// Tells the leases of one process apart.
    token: u64,
    /// Grows while the driver is alive.
    beat: u64,
    /// How long a lease that does not change is valid, in seconds.
    expires_after: f64,
    /// Whether the driver has ended.
    ended: bool,
}

/// The leases that this process holds, by their tokens.
static HELD: Mutex<BTreeSet<u64>> = Mutex::new(BTreeSet::new());

/// Marks a lease as held by this process until it is dropped.
#[derive(Debug)]
struct Held(u64);

impl Held {
    fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let token = NEXT.fetch_add(1, Ordering::Relaxed);
        HELD.lock().unwrap_or_else(PoisonError::into_inner).insert(token);
        Self(token)
    }

    fn is(token: u64) -> bool {
        HELD.lock().unwrap_or_else(PoisonError::into_inner).contains(&token)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        HELD.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.0);
    }
}

/// A lease that is held.
#[derive(Clone, Debug)]
pub(super) struct Lease {
    objects: Objects,
    /// The number of this driver among all that the experiment had.
    pub(super) driver: u64,
    owner: Owner,
    /// Lasts as long as any copy of this.
    _held: Arc<Held>,
}

/// What came of an attempt to get the lease at once.
enum Attempt {
    Got(Lease),
    /// Another driver holds it, or held it when it died.
    Held {
        driver: u64,
        owner: Owner,
    },
}

impl Lease {
    /// Gets the lease, if need be after waiting for a dead driver's to expire.
    pub(super) async fn acquire(objects: Objects, expiry: Duration) -> Result<Self, StoreError> {
        let mut seen: Option<(u64, Owner)> = None;
        loop {
            let (driver, owner) = match Self::attempt(&objects, expiry, seen.as_ref()).await? {
                Attempt::Got(lease) => return Ok(lease),
                Attempt::Held { driver, owner } => (driver, owner),
            };
            let alive = seen.as_ref().is_some_and(|seen| *seen != (driver, owner.clone()));
            if alive || owner.lives() == Life::Alive {
                let owner = owner.to_string();
                return Err(StoreError::InUse { store: objects.name().to_owned(), owner });
            }
            let expires_after = Duration::try_from_secs_f64(owner.expires_after).unwrap_or(expiry);
            tracing::info!(
                "waiting {expires_after:?} for a sign of life of {owner}, which drove the \
                 experiment last"
            );
            seen = Some((driver, owner));
            tokio::time::sleep(expires_after).await;
        }
    }

    /// Gets the lease if it is free, or if its holder is dead or is still the one `seen` before.
    async fn attempt(
        objects: &Objects,
        expiry: Duration,
        seen: Option<&(u64, Owner)>,
    ) -> Result<Attempt, StoreError> {
        loop {
            let names = objects.list(FOLDER).await?;
            let latest = names.iter().filter_map(|name| name.parse::<u64>().ok()).max();
            if let Some(driver) = latest {
                let path = path(driver);
                let Some(bytes) = objects.get(&path).await? else { continue };
                let owner: Owner = serde_json::from_slice(&bytes)
                    .map_err(|error| StoreError::Format { path, reason: error.to_string() })?;
                let expired = seen == Some(&(driver, owner.clone()));
                if !owner.ended && owner.lives() != Life::Gone && !expired {
                    return Ok(Attempt::Held { driver, owner });
                }
            }
            let driver = latest.unwrap_or(0) + 1;
            let held = Arc::new(Held::new());
            let owner = Owner::this_process(held.0, expiry);
            match objects.create(&path(driver), owner.bytes()).await? {
                Created::Yes => {
                    return Ok(Attempt::Got(Self {
                        objects: objects.clone(),
                        driver,
                        owner,
                        _held: held,
                    }));
                }
                Created::Exists => {} // Another was quicker: look again.
            }
        }
    }

    /// Shows that this driver is alive.
    pub(super) async fn renew(&mut self) -> Result<(), StoreError> {
        self.owner.beat += 1;
        self.objects.put(&path(self.driver), self.owner.bytes()).await
    }

    /// An error if another driver has the lease now.
    pub(super) async fn check(&self) -> Result<(), StoreError> {
        if self.objects.exists(&path(self.driver + 1)).await? {
            return Err(StoreError::TakenOver { store: self.objects.name().to_owned() });
        }
        Ok(())
    }

    /// Lets the next driver begin at once.
    pub(super) async fn release(mut self) -> Result<(), StoreError> {
        self.owner.ended = true;
        self.renew().await
    }
}

fn path(driver: u64) -> String {
    format!("{FOLDER}/{driver:06}")
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Alive,
    Gone,
    /// It runs elsewhere, or where processes cannot be told apart.
    Unknown,
}

impl Owner {
    fn this_process(token: u64, expiry: Duration) -> Self {
        let process = std::process::id();
        Self {
            host: host(),
            machine: machine().unwrap_or_default(),
            process,
            began: began(process).unwrap_or(0),
            token,
            beat: 0,
            expires_after: expiry.as_secs_f64(),
            ended: false,
        }
    }

    /// Whether the process runs, if that can be told from here: a number alone would not do, since
    /// numbers are used again, and mean other processes on other machines and in containers.
    fn lives(&self) -> Life {
        if self.machine.is_empty() || Some(&self.machine) != machine().as_ref() {
            return Life::Unknown;
        }
        match began(self.process) {
            Some(began) if began == self.began => {
                let another = self.process != std::process::id();
                if another || Held::is(self.token) { Life::Alive } else { Life::Gone }
            }
            _ => Life::Gone,
        }
    }

    fn bytes(&self) -> Bytes {
        serde_json::to_vec(self).expect("a struct of texts and finite numbers").into()
    }
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "process {} on {}", self.process, self.host)
    }
}

fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = name.or_else(|| std::env::var("HOSTNAME").ok());
    name.map_or_else(|| "an unnamed machine".to_owned(), |name| name.trim().to_owned())
}

/// This boot of this machine and the name space of its process numbers, where the system tells.
fn machine() -> Option<String> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let processes = std::fs::read_link("/proc/self/ns/pid").ok()?;
    Some(format!("{} {}", boot.trim(), processes.display()))
}

/// When a process began, in ticks since the boot: field 22 of `/proc/PID/stat`, proc(5). None if
/// there is no such process, or only what remains of one (a zombie, state Z).
fn began(process: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The second field is the program's name in parentheses, and may contain anything.
    let mut fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}
