//! The journal: records in numbered segments, each record with a checksum.
//!
//! A record is a line: 16 hexadecimal digits of XXH3 over the rest, a space, JSON. A segment is
//! named by the number of its first record and the driver that wrote it. Segments are merged, ten of
//! a kind into one as long as that one stays small: so there are few of them, each is written a few
//! times at most, and merging takes little memory however long the journal is. A merged segment is
//! also named by the record that comes after its last. Where several begin with the same
//! record, that of the latest driver counts: a driver that did not know yet that it had been
//! replaced may have left the other.

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use super::objects::Objects;
use super::{Record, StoreError};

const FOLDER: &str = "journal";

/// So many segments of a kind are merged into one.
const FAN: usize = 10;

/// What is merged has no more bytes than this together.
const LARGEST: usize = 2 << 20;

/// A record as a line.
pub(super) fn line(record: &Record) -> Vec<u8> {
    let json = serde_json::to_vec(record).expect("records have text keys");
    let mut line = format!("{:016x} ", xxh3_64(&json)).into_bytes();
    line.extend_from_slice(&json);
    line.push(b'\n');
    line
}

/// The record of a line, without its end.
fn parse(line: &[u8]) -> Result<Record, String> {
    serde_json::from_slice(verified(line)?).map_err(|error| error.to_string())
}

/// The JSON of a line, if its checksum is right.
fn verified(line: &[u8]) -> Result<&[u8], String> {
    let (digest, json) = line.split_at_checked(17).ok_or("it is cut short")?;
    let digest = std::str::from_utf8(digest).ok().and_then(|text| text.strip_suffix(' '));
    let digest = digest.and_then(|text| u64::from_str_radix(text, 16).ok());
    if digest == Some(xxh3_64(json)) { Ok(json) } else { Err("its checksum is wrong".to_owned()) }
}

/// How many bytes the first so many records take; none if one of them is damaged or not there. Reads
/// no record, so that merging takes no more memory than the segments do.
fn intact(bytes: &[u8], records: u64) -> Option<usize> {
    let mut length = 0;
    for _ in 0..records {
        let rest = &bytes[length..];
        let end = rest.iter().position(|&byte| byte == b'\n')?;
        verified(&rest[..end]).ok()?;
        length += end + 1;
    }
    Some(length)
}

/// The records of a segment up to the first that is damaged, and what is wrong with that one.
fn records(bytes: &[u8]) -> (Vec<Record>, Option<String>) {
    let mut records = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let Some(end) = rest.iter().position(|&byte| byte == b'\n') else {
            return (records, Some("it is cut short".to_owned()));
        };
        match parse(&rest[..end]) {
            Ok(record) => records.push(record),
            Err(reason) => return (records, Some(reason)),
        }
        rest = &rest[end + 1..];
    }
    (records, None)
}

/// A segment by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Segment {
    first: u64,
    driver: u64,
    /// Of a merged one, the record after its last.
    end: Option<u64>,
}

impl Segment {
    fn parse(name: &str) -> Option<Self> {
        let mut parts = name.split('.').map(|part| part.parse().ok());
        let (first, driver) = (parts.next()??, parts.next()??);
        let end = match parts.next() {
            Some(end) => Some(end?),
            None => None,
        };
        parts.next().is_none().then_some(Self { first, driver, end })
    }

    fn path(&self) -> String {
        let Self { first, driver, .. } = self;
        match self.end {
            Some(end) => format!("{FOLDER}/{first:012}.{driver:06}.{end:012}"),
            None => format!("{FOLDER}/{first:012}.{driver:06}"),
        }
    }
}

/// A segment that the journal consists of.
#[derive(Clone, Debug)]
struct Part {
    path: String,
    records: u64,
    bytes: usize,
    /// How many times its records were merged.
    level: u32,
}

/// The journal, as its one writer knows it.
#[derive(Debug)]
pub(super) struct Journal {
    objects: Objects,
    driver: u64,
    parts: Vec<Part>,
    /// The number of the next record.
    next: u64,
    /// Objects that the journal does not consist of any more.
    left_over: Vec<String>,
}

impl Journal {
    /// Reads the journal for `driver`, which holds the lease. A damaged end is cut off, and said.
    pub(super) async fn read(
        objects: Objects,
        driver: u64,
        warnings: &mut Vec<String>,
    ) -> Result<(Self, Vec<Record>), StoreError> {
        let names = objects.list(FOLDER).await?;
        let segments: Vec<Segment> = names.iter().filter_map(|name| Segment::parse(name)).collect();
        let mut journal =
            Self { objects, driver, parts: Vec::new(), next: 0, left_over: Vec::new() };
        let mut all = Vec::new();
        let mut damage: Option<(String, String)> = None;
        loop {
            let here = segments.iter().filter(|segment| segment.first == journal.next);
            let Some(segment) = here.max_by_key(|segment| (segment.driver, segment.end)) else {
                break;
            };
            let path = segment.path();
            let bytes = journal.objects.get(&path).await?.unwrap_or_default();
            let (found, wrong) = records(&bytes);
            if let Some(reason) = wrong {
                damage = Some((path.clone(), reason));
            }
            if found.is_empty() {
                break;
            }
            let count = found.len() as u64;
            // Parts that an earlier driver left are merged like fresh ones of their size.
            let level = count.ilog(FAN as u64);
            journal.parts.push(Part { path, records: count, bytes: bytes.len(), level });
            journal.next += count;
            all.extend(found);
        }
        let last = segments.iter().map(|segment| segment.end.unwrap_or(segment.first + 1)).max();
        if let Some(last) = last.filter(|&last| last > journal.next) {
            let torn_only =
                damage.is_some() && segments.iter().all(|segment| segment.first <= journal.next);
            if !torn_only {
                let (path, reason) = damage.unwrap_or_else(|| {
                    let path = format!("{FOLDER}/{:012}", journal.next);
                    (path, "the object that begins with it is not there".to_owned())
                });
                let record = journal.next;
                return Err(StoreError::Damaged { path, record, last: last - 1, reason });
            }
        }
        if let Some((path, reason)) = damage {
            warnings.push(format!(
                "the journal's end is damaged (`{path}`, record {}: {reason}); it was cut off there, \
                 and the experiment goes on from the records before",
                journal.next
            ));
        }
        let kept: Vec<&str> = journal.parts.iter().map(|part| part.path.as_str()).collect();
        let superseded = segments
            .iter()
            .filter(|segment| segment.first < journal.next)
            .map(Segment::path)
            .filter(|path| !kept.contains(&path.as_str()));
        journal.left_over = superseded.collect();
        Ok((journal, all))
    }

    /// How many records there are.
    pub(super) fn len(&self) -> u64 {
        self.next
    }

    /// The object that the next records go to.
    pub(super) fn next_path(&self) -> String {
        Segment { first: self.next, driver: self.driver, end: None }.path()
    }

    /// Takes in that so many records, in so many bytes, were written to [`next_path`](Self::next_path).
    pub(super) fn wrote(&mut self, records: u64, bytes: usize) {
        self.parts.push(Part { path: self.next_path(), records, bytes, level: 0 });
        self.next += records;
    }

    /// Merges what can be merged. What it could not do it does the next time.
    pub(super) async fn merge(&mut self) -> Result<(), StoreError> {
        while let Some(path) = self.left_over.last() {
            self.objects.delete(path).await?;
            self.left_over.pop();
        }
        while let Some(from) = self.mergeable() {
            let length = self.parts[from..].iter().map(|part| part.bytes).sum();
            let mut bytes = Vec::with_capacity(length);
            let mut count = 0;
            for part in &self.parts[from..] {
                let read = self.objects.get(&part.path).await?.unwrap_or_default();
                let Some(length) = intact(&read, part.records) else {
                    // Damaged since it was written: nothing more is built on it, or deleted.
                    return Ok(());
                };
                bytes.extend_from_slice(&read[..length]);
                count += part.records;
            }
            let segment =
                Segment { first: self.next - count, driver: self.driver, end: Some(self.next) };
            let level = self.parts[from].level + 1;
            let path = segment.path();
            let length = bytes.len();
            self.objects.put(&path, Bytes::from(bytes)).await?;
            self.left_over.extend(self.parts.drain(from..).map(|part| part.path));
            self.parts.push(Part { path, records: count, bytes: length, level });
            while let Some(path) = self.left_over.last() {
                self.objects.delete(path).await?;
                self.left_over.pop();
            }
        }
        Ok(())
    }

    /// The first of the last parts that are to become one, if there are enough.
    fn mergeable(&self) -> Option<usize> {
        let level = self.parts.last()?.level;
        let alike = self.parts.iter().rev().take_while(|part| part.level <= level).count();
        let from = self.parts.len() - alike;
        let bytes: usize = self.parts[from..].iter().map(|part| part.bytes).sum();
        (alike >= FAN && bytes <= LARGEST).then_some(from)
    }
}
