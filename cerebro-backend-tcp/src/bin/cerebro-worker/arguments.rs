//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use cerebro_backend_tcp::worker::{AfterRun, Options};
use cerebro_backend_tcp::{Certificates, Security};
use cerebro_core::Device;
use lexopt::prelude::*;
use tracing::Level;

pub(crate) const HELP: &str = "\
A worker of Cerebro: trains networks through ONNX Runtime for a driver.

Usage:
  cerebro-worker --driver HOST:PORT [OPTIONS]
  cerebro-worker certificates FOLDER [NAME...] [--days N]

Where it is found:
  --driver HOST:PORT    the driver, which is dialled until it is there
  --listen ADDRESS      where other workers fetch States [127.0.0.1, a free port];
                        on a cluster 0.0.0.0:PORT
  --advertise ADDRESS   the address that others are told, if it is another one
  --name NAME           a name for people [the address]
  --stay                wait for the next driver when the run is over

What it runs:
  --slots N             units at once [1]
  --threads N           threads of a unit [the cores divided by the slots]
  --device DEVICE       cpu, or cuda:N in a build with the feature cuda [cpu]

Its data:
  --data URL            where this worker finds the data set, if not where the
                        driver says: a folder, file:///..., s3://...
  --cache FOLDER        keep partitions here too
  --cache-bytes SIZE    and in no more than this: 500MB, 20GiB, ...

Who may talk to it:
  --certificates FOLDER of this worker, as the command below makes them;
                        without, everything must be on this machine
  --plain-text-that-anybody-can-read-and-forge
                        no protection, for networks that nobody else can reach
  --no-lending          send States to processes of this machine and user too,
                        which read them in this one's memory otherwise

What it says:
  --metrics ADDRESS     figures for Prometheus at http://ADDRESS/metrics; a port
                        alone is one of the loopback [off]
  --log LEVEL           error, warn, info, debug or trace [info]
  --version, --help

certificates FOLDER [NAME...] makes, in FOLDER, what is not there yet: the
authority of a cluster, the certificates of its driver (FOLDER/driver) and of
the workers of these names (FOLDER/NAME). They hold for --days N [365]. Copy to
each machine its own folder; FOLDER/authority stays where it is.
";

/// What is to be done.
#[derive(Debug)]
pub(crate) enum Command {
    Help,
    Version,
    Serve(Box<Serve>),
    Certificates(Wanted),
}

/// A worker.
#[derive(Debug)]
pub(crate) struct Serve {
    pub(crate) options: Options,
    pub(crate) device: Device,
    pub(crate) level: Level,
}

/// Certificates to be made.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) folder: PathBuf,
    pub(crate) workers: Vec<String>,
    pub(crate) validity: Duration,
}

pub(crate) fn parse(mut parser: lexopt::Parser) -> Result<Command, lexopt::Error> {
    let mut driver = None;
    // The driver is known at the end only.
    let mut options = Options::new("");
    let (mut cache, mut cache_bytes) = (None, None);
    let (mut place, mut level) = (Device::Cpu, Level::INFO);
    let mut security = None;
    while let Some(argument) = parser.next()? {
        match argument {
            Value(command) if command == "certificates" => return certificates(parser),
            Long("help") | Short('h') => return Ok(Command::Help),
            Long("version") | Short('V') => return Ok(Command::Version),
            Long("driver") => driver = Some(address(&mut parser, "--driver")?),
            Long("listen") => options = options.listen(address(&mut parser, "--listen")?),
            Long("advertise") => options = options.advertise(address(&mut parser, "--advertise")?),
            Long("name") => options = options.name(parser.value()?.string()?),
            Long("stay") => options = options.after_run(AfterRun::Stay),
            Long("slots") => options = options.slots(count(&mut parser, "--slots")?),
            Long("threads") => options = options.threads_per_slot(count(&mut parser, "--threads")?),
            Long("device") => place = parser.value()?.parse_with(device)?,
            Long("data") => options = options.data(parser.value()?.string()?),
            Long("cache") => cache = Some(PathBuf::from(parser.value()?)),
            Long("cache-bytes") => cache_bytes = Some(parser.value()?.parse_with(size)?),
            Long("certificates") => {
                let certificates = Certificates::read(PathBuf::from(parser.value()?));
                let certificates = certificates.map_err(|error| error.to_string())?;
                security = only(security.as_ref(), Security::MutualTls(certificates))?;
            }
            Long("plain-text-that-anybody-can-read-and-forge") => {
                security = only(security.as_ref(), Security::PlainTextThatAnybodyCanReadAndForge)?;
            }
            Long("no-lending") => options = options.lending(false),
            Long("metrics") => options = options.metrics(page(&mut parser)?),
            Long("log") => level = parser.value()?.parse_with(log_level)?,
            other => return Err(other.unexpected()),
        }
    }
    options = match (cache, cache_bytes) {
        (Some(folder), Some(bytes)) => options.cache(folder, bytes),
        (None, None) => options,
        (Some(_), None) => {
            return Err("--cache needs --cache-bytes: how much of the disk it may take".into());
        }
        (None, Some(_)) => return Err("--cache-bytes needs --cache: the folder".into()),
    };
    let Some(driver) = driver else {
        return Err("--driver HOST:PORT is missing: where the driver of the run listens".into());
    };
    let options = options.driver(driver).device(place).security(security.unwrap_or_default());
    Ok(Command::Serve(Box::new(Serve { options, device: place, level })))
}

fn certificates(mut parser: lexopt::Parser) -> Result<Command, lexopt::Error> {
    let mut folder = None;
    let mut workers = Vec::new();
    let mut days = 365;
    while let Some(argument) = parser.next()? {
        match argument {
            Long("help") | Short('h') => return Ok(Command::Help),
            Long("days") => days = count(&mut parser, "--days")?,
            Value(first) if folder.is_none() => folder = Some(PathBuf::from(first)),
            Value(name) => workers.push(worker_name(&name.string()?)?),
            other => return Err(other.unexpected()),
        }
    }
    let folder = folder.ok_or("`certificates` needs the folder to make them in")?;
    let validity = Duration::from_hours(24).checked_mul(u32::try_from(days).unwrap_or(u32::MAX));
    let validity = validity.filter(|_| days <= 36_500);
    let validity = validity.ok_or("--days is 36500 at most: a hundred years")?;
    Ok(Command::Certificates(Wanted { folder, workers, validity }))
}

/// A worker's name becomes part of a host's name, and of a path.
fn worker_name(name: &str) -> Result<String, String> {
    let part = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let taken = ["driver", "authority"].contains(&name);
    if name.is_empty() || name.len() > 40 || taken || !name.chars().all(part) {
        return Err(format!(
            "`{name}` cannot be a worker's name: letters, digits and hyphens, 40 at most, and not \
             `driver` or `authority`"
        ));
    }
    Ok(name.to_owned())
}

fn only(before: Option<&Security>, this: Security) -> Result<Option<Security>, &'static str> {
    match before {
        None => Ok(Some(this)),
        Some(_) => Err("give --certificates or --plain-text-..., once"),
    }
}

/// A host and a port.
fn address(parser: &mut lexopt::Parser, option: &str) -> Result<String, lexopt::Error> {
    let text = parser.value()?.string()?;
    let port = text.rsplit_once(':').filter(|(host, _)| !host.is_empty());
    if port.is_none_or(|(_, port)| port.parse::<u16>().is_err()) {
        let wrong = format!("{option} is a host and a port, as in `node3:7700`, not `{text}`");
        return Err(wrong.into());
    }
    Ok(text)
}

/// Where the figures are shown: a port alone is one of the loopback.
fn page(parser: &mut lexopt::Parser) -> Result<String, lexopt::Error> {
    let text = parser.value()?.string()?;
    if text.parse::<u16>().is_ok() {
        return Ok(format!("127.0.0.1:{text}"));
    }
    if text.parse::<std::net::SocketAddr>().is_err() {
        let wrong = format!("--metrics is an address and a port, or a port alone, not `{text}`");
        return Err(wrong.into());
    }
    Ok(text)
}

fn count(parser: &mut lexopt::Parser, option: &str) -> Result<usize, lexopt::Error> {
    let text = parser.value()?.string()?;
    match text.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err(format!("{option} is a whole number from 1 on, not `{text}`").into()),
    }
}

fn device(text: &str) -> Result<Device, String> {
    let cuda = text.strip_prefix("cuda:").and_then(|number| number.parse().ok());
    match (text, cuda) {
        ("cpu", _) => Ok(Device::Cpu),
        ("cuda", _) => Ok(Device::Cuda(0)),
        (_, Some(number)) => Ok(Device::Cuda(number)),
        _ => Err("a device is `cpu` or `cuda:N`".to_owned()),
    }
}

/// A number of bytes, with a unit or without.
fn size(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: Option<u64> = match unit {
        "" | "B" => Some(1),
        "kB" | "KB" => Some(1000),
        "KiB" => Some(1 << 10),
        "MB" => Some(1_000_000),
        "MiB" => Some(1 << 20),
        "GB" => Some(1_000_000_000),
        "GiB" => Some(1 << 30),
        "TB" => Some(1_000_000_000_000),
        "TiB" => Some(1 << 40),
        _ => None,
    };
    let bytes = factor.zip(number.parse::<u64>().ok()).and_then(|(f, n)| n.checked_mul(f));
    bytes.ok_or_else(|| "a size is a number of bytes, or as in 500MB, 20GiB".to_owned())
}

fn log_level(text: &str) -> Result<Level, String> {
    text.parse().map_err(|_| "a level is error, warn, info, debug or trace".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(line: &str) -> String {
        parse(lexopt::Parser::from_args(line.split_whitespace())).unwrap_err().to_string()
    }

    fn serve(line: &str) -> String {
        match parse(lexopt::Parser::from_args(line.split_whitespace())).unwrap() {
            Command::Serve(serve) => format!("{serve:?}"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_option_reaches_the_worker() {
        let options = serve(
            "--driver node1:7700 --listen 0.0.0.0:7701 --advertise node2:7701 --name two --stay \
             --slots 2 --threads 4 --device cuda:1 --data s3://bucket/data --cache /tmp/cache \
             --cache-bytes 20GiB --metrics 9100 --log debug \
             --plain-text-that-anybody-can-read-and-forge --no-lending",
        );
        for word in [
            "node1:7700",
            "0.0.0.0:7701",
            "node2:7701",
            "two",
            "Stay",
            "slots: 2",
            "Some(4)",
            "Cuda(1)",
            "s3://bucket/data",
            "/tmp/cache",
            "21474836480",
            "9100",
            "Debug",
            "PlainText",
            "lending: false",
        ] {
            assert!(options.to_lowercase().contains(&word.to_lowercase()), "{word}: {options}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_what_is_right() {
        for (line, expected) in [
            ("", "--driver HOST:PORT is missing"),
            ("--driver node1", "as in `node3:7700`, not `node1`"),
            ("--driver node1:http", "as in `node3:7700`"),
            ("--driver a:1 --slots 0", "--slots is a whole number from 1 on, not `0`"),
            ("--driver a:1 --device gpu", "`cpu` or `cuda:N`"),
            ("--driver a:1 --cache /tmp", "--cache needs --cache-bytes"),
            ("--driver a:1 --cache-bytes 5", "--cache-bytes needs --cache"),
            ("--driver a:1 --cache /tmp --cache-bytes 5XB", "500MB"),
            ("--driver a:1 --cache /tmp --cache-bytes 99999999999TB", "500MB"),
            ("--driver a:1 --certificates /nowhere", "reading /nowhere/"),
            ("--driver a:1 --log loud", "error, warn, info"),
            ("--driver a:1 --metrics", "missing"),
            ("--driver a:1 --metrics nowhere", "a port"),
            ("--drivre a:1", "--drivre"),
            ("extra", "extra"),
            ("certificates", "needs the folder"),
            ("certificates here driver", "cannot be a worker's name"),
            ("certificates here ../there", "cannot be a worker's name"),
            ("certificates here --days 99999", "36500"),
        ] {
            let message = wrong(line);
            assert!(message.contains(expected), "`{line}`: {message}");
        }
    }

    #[test]
    fn certificates_are_asked_for_by_name() {
        let line = ["certificates", "keys", "node1", "node2", "--days", "30"];
        let Ok(Command::Certificates(wanted)) = parse(lexopt::Parser::from_args(line)) else {
            panic!("a command of its own")
        };
        assert_eq!(wanted.workers, ["node1", "node2"]);
        assert_eq!(wanted.validity, Duration::from_hours(720));
    }
}
