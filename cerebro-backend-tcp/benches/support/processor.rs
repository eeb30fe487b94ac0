//! What processes take of the processor.

use std::time::Duration;

/// User and system time of a process so far, where `/proc` tells it.
pub(crate) fn processor_time(process: u32) -> Option<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    // Linux counts in hundredths of a second, whatever the kernel's own clock.
    Some(Duration::from_millis(ticks * 10))
}
