//! [`Location`]: where files are, on a disk or in an object store, read and written by blocking calls.

use std::ffi::OsString;
use std::fs::{self, File};
use std::future::Future;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};
use tokio::runtime::{Handle, Runtime};
use url::Url;

use super::DataError;

/// Where a file or a folder is: a path, a URL, or a path in an object store that the caller made.
///
/// A string with `://` is a URL, anything else a path of this machine. Which URLs are understood is
/// a matter of the crate's features: `file://` always, `s3://` with `aws`, `gs://` with `gcp`,
/// `az://` with `azure`, `http://` and `https://` with `http`. Credentials and endpoints come from
/// the environment, by the names that the crate `object_store` documents
/// (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT`, ...).
///
/// ```
/// use cerebro_core::data::Location;
/// assert_eq!(Location::from("runs/digits").join("dataset.json").to_string(), "runs/digits/dataset.json");
/// ```
#[derive(Clone, Debug)]
pub struct Location(Place);

#[derive(Clone, Debug)]
enum Place {
    Path(PathBuf),
    Url(String),
    /// With the URL that named it, if one did.
    Object {
        store: Arc<dyn ObjectStore>,
        path: ObjectPath,
        url: Option<String>,
    },
}

impl From<&str> for Location {
    fn from(location: &str) -> Self {
        if location.contains("://") {
            Self(Place::Url(location.to_owned()))
        } else {
            Self(Place::Path(PathBuf::from(location)))
        }
    }
}

impl From<String> for Location {
    fn from(location: String) -> Self {
        Self::from(location.as_str())
    }
}

impl From<&Path> for Location {
    fn from(path: &Path) -> Self {
        Self(Place::Path(path.to_owned()))
    }
}

impl From<PathBuf> for Location {
    fn from(path: PathBuf) -> Self {
        Self(Place::Path(path))
    }
}

impl From<&PathBuf> for Location {
    fn from(path: &PathBuf) -> Self {
        Self(Place::Path(path.clone()))
    }
}

impl std::fmt::Display for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Place::Path(path) => path.display().fmt(f),
            Place::Url(url) | Place::Object { url: Some(url), .. } => url.fmt(f),
            Place::Object { store, path, .. } => write!(f, "{store}/{path}"),
        }
    }
}

/// What the environment says of stores: credentials, regions, endpoints. Variables that are empty say
/// nothing, and those that are no text are none of a store's.
fn settings(
    environment: impl Iterator<Item = (OsString, OsString)>,
) -> impl Iterator<Item = (String, String)> {
    environment
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(_, value)| !value.is_empty())
}

/// Why URLs of this scheme are not understood, if they are not.
fn unsupported(scheme: &str) -> Option<String> {
    let (feature, is_built) = match scheme {
        "s3" | "s3a" => ("aws", cfg!(feature = "aws")),
        "gs" => ("gcp", cfg!(feature = "gcp")),
        "az" | "adl" | "azure" | "abfs" | "abfss" => ("azure", cfg!(feature = "azure")),
        "http" | "https" => ("http", cfg!(feature = "http")),
        _ => return Some(format!("`{scheme}` is none of file, s3, gs, az, http and https")),
    };
    let reason = format!("`{scheme}` needs the feature `{feature}`, which this program lacks");
    (!is_built).then_some(reason)
}

/// The URL of `name` in the folder `url`.
fn below(url: &str, name: &str) -> String {
    format!("{}/{name}", url.trim_end_matches('/'))
}

impl Location {
    /// A path in an object store: for stores that no URL names, and for credentials of the
    /// program's own.
    pub fn in_store(store: Arc<dyn ObjectStore>, path: impl Into<ObjectPath>) -> Self {
        Self(Place::Object { store, path: path.into(), url: None })
    }

    /// The file `name` in this folder.
    pub fn join(&self, name: &str) -> Self {
        Self(match &self.0 {
            Place::Path(path) => Place::Path(path.join(name)),
            Place::Url(url) => Place::Url(below(url, name)),
            Place::Object { store, path, url } => Place::Object {
                store: Arc::clone(store),
                path: ObjectPath::from(format!("{path}/{name}")),
                url: url.as_ref().map(|url| below(url, name)),
            },
        })
    }

    /// An error if this is a URL of a store that this program does not know. The store is asked nothing.
    pub fn check(&self) -> Result<(), DataError> {
        self.resolve().map(drop)
    }

    /// What names this place in another process: an absolute URL; none for a store that was given
    /// as such.
    pub(super) fn url(&self) -> Option<String> {
        match &self.0 {
            Place::Path(path) => {
                let path = std::path::absolute(path).ok()?;
                Some(Url::from_directory_path(path).ok()?.to_string())
            }
            Place::Url(url) => Some(url.clone()),
            Place::Object { url, .. } => url.clone(),
        }
    }

    /// Finds the store that a URL names, once for all the files of a folder.
    pub(super) fn resolve(&self) -> Result<Location, DataError> {
        let Place::Url(text) = &self.0 else { return Ok(self.clone()) };
        let wrong = |reason: String| DataError::Location { location: text.clone(), reason };
        let url = Url::parse(text).map_err(|error| wrong(error.to_string()))?;
        if url.scheme() == "file" {
            let path = url.to_file_path().map_err(|()| {
                wrong("a file URL has an absolute path and no host: file:///folder".to_owned())
            })?;
            return Ok(Location(Place::Path(path)));
        }
        // Clients spawn connection tasks as they are made, so they need the runtime around them.
        let _inside = runtime()?.enter();
        let settings = settings(std::env::vars_os());
        let (store, path) = object_store::parse_url_opts(&url, settings).map_err(|error| {
            wrong(unsupported(url.scheme()).unwrap_or_else(|| error.to_string()))
        })?;
        Ok(Location(Place::Object { store: Arc::from(store), path, url: Some(text.clone()) }))
    }

    /// Whether both are one folder, as far as can be told.
    pub(super) fn is_same(&self, other: &Location) -> bool {
        match (&self.0, &other.0) {
            (Place::Path(one), Place::Path(other)) => {
                let whole =
                    |path: &PathBuf| fs::canonicalize(path).unwrap_or_else(|_| path.clone());
                whole(one) == whole(other)
            }
            _ => self.to_string() == other.to_string(),
        }
    }

    pub(super) fn read(&self) -> Result<Bytes, DataError> {
        match &self.resolve()?.0 {
            Place::Path(path) => Ok(fs::read(path).map_err(|error| self.io("read", error))?.into()),
            Place::Object { store, path, .. } => {
                block_on(async { store.get(path).await?.bytes().await })?
                    .map_err(|error| self.store("read", error))
            }
            Place::Url(_) => unreachable!("`resolve` gives paths and objects"),
        }
    }

    /// The size in bytes and what tells versions apart; nothing if there is no such file.
    pub(super) fn stat(&self) -> Result<Option<Stat>, DataError> {
        match &self.resolve()?.0 {
            Place::Path(path) => match fs::metadata(path) {
                Ok(metadata) => {
                    let modified = metadata.modified().ok();
                    let since = modified.and_then(|time| {
                        time.duration_since(std::time::SystemTime::UNIX_EPOCH).ok()
                    });
                    let version = since.map(|since| since.as_nanos().to_string());
                    Ok(Some(Stat { bytes: metadata.len(), version: version.unwrap_or_default() }))
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(self.io("look at", error)),
            },
            Place::Object { store, path, .. } => match block_on(store.head(path))? {
                Ok(meta) => {
                    let version = meta.e_tag.unwrap_or_else(|| meta.last_modified.to_string());
                    Ok(Some(Stat { bytes: meta.size, version }))
                }
                Err(object_store::Error::NotFound { .. }) => Ok(None),
                Err(error) => Err(self.store("look at", error)),
            },
            Place::Url(_) => unreachable!("`resolve` gives paths and objects"),
        }
    }

    /// The files of this folder whose names end in `.extension`, by name; the file itself if it is
    /// one.
    pub(super) fn files(&self, extension: &str) -> Result<Vec<Location>, DataError> {
        let here = self.resolve()?;
        let mut found = Vec::new();
        match &here.0 {
            Place::Path(path) if path.is_dir() => {
                for entry in fs::read_dir(path).map_err(|error| self.io("list", error))? {
                    let file = entry.map_err(|error| self.io("list", error))?.path();
                    if file.extension().is_some_and(|known| known == extension) {
                        found.push(file);
                    }
                }
                found.sort();
                Ok(found.into_iter().map(Location::from).collect())
            }
            Place::Path(_) => Ok(vec![here]),
            Place::Object { store, path, .. } => {
                let listed: Vec<_> = block_on(store.list(Some(path)).try_collect())?
                    .map_err(|error| self.store("list", error))?;
                let mut paths: Vec<ObjectPath> = listed
                    .into_iter()
                    .map(|meta| meta.location)
                    .filter(|path| path.extension() == Some(extension))
                    .collect();
                paths.sort();
                if paths.is_empty() {
                    return Ok(vec![here.clone()]);
                }
                let object =
                    |path| Location(Place::Object { store: Arc::clone(store), path, url: None });
                Ok(paths.into_iter().map(object).collect())
            }
            Place::Url(_) => unreachable!("`resolve` gives paths and objects"),
        }
    }

    /// Opens the file for reading anywhere in it, without holding it in memory.
    pub(super) fn open(&self) -> Result<Input, DataError> {
        let here = self.resolve()?;
        let wrong = |error| self.io("open", error);
        match here.0 {
            Place::Path(path) => {
                let file = File::open(path).map_err(wrong)?;
                if file.metadata().map_err(wrong)?.is_dir() {
                    return Err(self.io("open", io::Error::from(io::ErrorKind::IsADirectory)));
                }
                Ok(Input::File(file))
            }
            Place::Object { store, path, .. } => {
                let meta =
                    block_on(store.head(&path))?.map_err(|error| self.store("open", error))?;
                Ok(Input::Object { store, path, bytes: meta.size })
            }
            Place::Url(_) => unreachable!("`resolve` gives paths and objects"),
        }
    }

    /// The local path, or the store and the path in it.
    pub(crate) fn target(&self) -> Result<Target, DataError> {
        match self.resolve()?.0 {
            Place::Path(path) => Ok(Target::File(path)),
            Place::Object { store, path, .. } => Ok(Target::Object(store, path)),
            Place::Url(_) => unreachable!("`resolve` gives paths and objects"),
        }
    }

    pub(super) fn delete(&self) -> Result<(), DataError> {
        match self.target()? {
            Target::File(path) => fs::remove_file(path).map_err(|error| self.io("delete", error)),
            Target::Object(store, path) => {
                block_on(store.delete(&path))?.map_err(|error| self.store("delete", error))
            }
        }
    }

    pub(super) fn io(&self, action: &'static str, error: io::Error) -> DataError {
        let advice = match error.kind() {
            io::ErrorKind::NotFound => "check the path",
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                "check the permissions, or choose another folder"
            }
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                "free some space, or choose a folder on another disk"
            }
            io::ErrorKind::IsADirectory | io::ErrorKind::NotADirectory => {
                "it, or a part of its path, is not what it should be: a file where a folder is needed or the reverse"
            }
            _ => "check the disk",
        };
        DataError::Store { action, location: self.to_string(), source: error.into(), advice }
    }

    pub(super) fn store(&self, action: &'static str, error: object_store::Error) -> DataError {
        let advice = match &error {
            object_store::Error::NotFound { .. } => "check the URL",
            object_store::Error::PermissionDenied { .. }
            | object_store::Error::Unauthenticated { .. } => {
                "check the credentials in the environment"
            }
            _ => "check the URL, the network and the store's settings in the environment",
        };
        DataError::Store { action, location: self.to_string(), source: error.into(), advice }
    }
}

/// What tells one version of a file from another without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) bytes: u64,
    /// The store's tag, or the time of the last change.
    pub(super) version: String,
}

/// A resolved [`Location`].
#[derive(Debug)]
pub(crate) enum Target {
    File(PathBuf),
    Object(Arc<dyn ObjectStore>, ObjectPath),
}

/// A file that is open for reading.
#[derive(Debug)]
pub(super) enum Input {
    File(File),
    Object { store: Arc<dyn ObjectStore>, path: ObjectPath, bytes: u64 },
}

/// The bytes that one request asks an object store for when a file is read through.
const REQUEST_BYTES: u64 = 8 << 20;

impl Input {
    fn range(&self, start: u64, end: u64) -> io::Result<Bytes> {
        let Input::Object { store, path, .. } = self else {
            unreachable!("local files are read by the system")
        };
        block_on(store.get_range(path, start..end))
            .map_err(io::Error::other)?
            .map_err(io::Error::other)
    }

    fn try_clone(&self) -> io::Result<Self> {
        Ok(match self {
            Input::File(file) => Input::File(file.try_clone()?),
            Input::Object { store, path, bytes } => {
                Input::Object { store: Arc::clone(store), path: path.clone(), bytes: *bytes }
            }
        })
    }

    /// Reads from `start` to the end.
    pub(super) fn stream(
        &self,
        start: u64,
        request_bytes: u64,
    ) -> io::Result<Box<dyn Read + Send>> {
        match self {
            Input::File(file) => {
                use std::io::Seek;
                let mut file = file.try_clone()?;
                file.seek(io::SeekFrom::Start(start))?;
                Ok(Box::new(io::BufReader::with_capacity(64 << 10, file)))
            }
            Input::Object { .. } => Ok(Box::new(ObjectStream {
                input: self.try_clone()?,
                at: start,
                request_bytes,
                buffer: Bytes::new(),
            })),
        }
    }

    /// Reads the whole file from its start.
    pub(super) fn into_read(self) -> io::Result<Box<dyn Read + Send>> {
        self.stream(0, REQUEST_BYTES)
    }
}

struct ObjectStream {
    input: Input,
    at: u64,
    request_bytes: u64,
    buffer: Bytes,
}

impl Read for ObjectStream {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.buffer.is_empty() {
            let end = self.input.len().min(self.at + self.request_bytes);
            if self.at >= end {
                return Ok(0);
            }
            self.buffer = self.input.range(self.at, end)?;
            self.at = end;
        }
        let count = out.len().min(self.buffer.len());
        out[..count].copy_from_slice(&self.buffer.split_to(count));
        Ok(count)
    }
}

impl Length for Input {
    fn len(&self) -> u64 {
        match self {
            Input::File(file) => Length::len(file),
            Input::Object { bytes, .. } => *bytes,
        }
    }
}

impl ChunkReader for Input {
    type T = Box<dyn Read + Send>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        // Parquet asks for a page at a time, and pages are near 1 MiB.
        Ok(self.stream(start, 1 << 20)?)
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        match self {
            Input::File(file) => file.get_bytes(start, length),
            Input::Object { .. } => Ok(self.range(start, start + length as u64)?),
        }
    }
}

/// Waits for a call to an object store, on a runtime of this crate's own.
///
/// Clients of object stores keep connections that live on the runtime in which they were made, so
/// there is one runtime for all, which is never dropped.
pub(super) fn block_on<F>(future: F) -> Result<F::Output, DataError>
where
    F: Future + Send,
    F::Output: Send,
{
    let runtime = runtime()?;
    if Handle::try_current().is_err() {
        return Ok(runtime.block_on(future));
    }
    // A thread that drives another runtime may not block on this one, so a thread beside it does.
    std::thread::scope(|scope| match scope.spawn(|| runtime.block_on(future)).join() {
        Ok(output) => Ok(output),
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

fn runtime() -> Result<&'static Runtime, DataError> {
    static RUNTIME: OnceLock<Result<Runtime, String>> = OnceLock::new();
    let build = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().map_err(|error| error.to_string())
    };
    RUNTIME.get_or_init(build).as_ref().map_err(|reason| DataError::Location {
        location: "an object store".to_owned(),
        reason: format!("the runtime for its requests did not start: {reason}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_that_are_empty_are_not_set() {
        let given = [("AWS_REGION", "here"), ("AWS_ENDPOINT", "")];
        let given = given.map(|(name, value)| (name.into(), value.into()));
        let read: Vec<_> = settings(given.into_iter()).collect();
        assert_eq!(read, [("AWS_REGION".to_owned(), "here".to_owned())]);
    }

    #[cfg(unix)]
    #[test]
    fn variables_that_are_no_text_are_passed_over() {
        use std::os::unix::ffi::OsStringExt;
        let strange = OsString::from_vec(vec![0xff]);
        let given = [("LS_COLORS".into(), strange.clone()), (strange, "here".into())];
        assert_eq!(settings(given.into_iter()).count(), 0);
    }
}
