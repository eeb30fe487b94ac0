//! [`Output`]: a file that appears whole or not at all.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use object_store::path::Path as ObjectPath;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt, PutPayload};
use xxhash_rust::xxh3::Xxh3Default;

use super::DataError;
use super::catalogue::checksum;
use super::location::{Location, Target, block_on};

/// The bytes that go to an object store at once; S3 takes parts of 5 MiB and more.
const PART_BYTES: usize = 8 << 20;

/// A file being written: it is there under its name once [`finish`](Self::finish) says so, and
/// leaves nothing behind when dropped before.
///
/// A local file is written beside its name, synced to the disk and renamed; an object becomes
/// visible when its upload is completed.
pub(super) struct Output {
    location: Location,
    sink: Sink,
    hash: Xxh3Default,
    bytes: u64,
}

enum Sink {
    File { file: BufWriter<File>, temporary: PathBuf, name: PathBuf },
    Object { store: Arc<dyn ObjectStore>, path: ObjectPath, part: Vec<u8>, upload: Option<Upload> },
    Finished,
}

type Upload = Box<dyn MultipartUpload>;

/// What a finished file is checked by.
pub(super) struct Written {
    pub(super) bytes: u64,
    pub(super) checksum: String,
}

impl Output {
    pub(super) fn create(location: &Location) -> Result<Self, DataError> {
        let sink = match location.target()? {
            Target::File(name) => {
                let folder = name.parent().unwrap_or(Path::new("."));
                fs::create_dir_all(folder)
                    .map_err(|error| location.io("make the folder of", error))?;
                let mut file_name = std::ffi::OsString::from(".");
                file_name.push(name.file_name().unwrap_or_default());
                file_name.push(format!(".{}.tmp", std::process::id()));
                let temporary = folder.join(file_name);
                let file = File::create(&temporary).map_err(|error| location.io("write", error))?;
                Sink::File { file: BufWriter::with_capacity(256 << 10, file), temporary, name }
            }
            Target::Object(store, path) => {
                Sink::Object { store, path, part: Vec::new(), upload: None }
            }
        };
        Ok(Self { location: location.clone(), sink, hash: Xxh3Default::new(), bytes: 0 })
    }

    /// Writes a small file whole.
    pub(super) fn put(location: &Location, content: &[u8]) -> Result<(), DataError> {
        let mut output = Self::create(location)?;
        output.write_all(content).map_err(|error| location.io("write", error))?;
        output.finish().map(drop)
    }

    /// Makes the file appear under its name.
    pub(super) fn finish(mut self) -> Result<Written, DataError> {
        let location = self.location.clone();
        let fail = |error| location.io("write", error);
        match &mut self.sink {
            Sink::File { file, temporary, name } => {
                file.flush().map_err(fail)?;
                file.get_ref().sync_all().map_err(fail)?;
                fs::rename(&*temporary, &*name).map_err(fail)?;
                sync_folder(name).map_err(fail)?;
            }
            Sink::Object { store, path, part, upload } => {
                let last = PutPayload::from(std::mem::take(part));
                let done = match upload {
                    None => block_on(store.put(path, last))?.map(drop),
                    Some(upload) => block_on(async {
                        upload.put_part(last).await?;
                        upload.complete().await.map(drop)
                    })?,
                };
                done.map_err(|error| location.store("write", error))?;
            }
            Sink::Finished => {}
        }
        self.sink = Sink::Finished;
        Ok(Written { bytes: self.bytes, checksum: checksum(&self.hash) })
    }
}

/// Makes a rename outlive a loss of power, where the system can sync a folder.
fn sync_folder(file: &Path) -> io::Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    if cfg!(unix) { File::open(folder.unwrap_or(Path::new(".")))?.sync_all() } else { Ok(()) }
}

impl Write for Output {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match &mut self.sink {
            Sink::File { file, .. } => file.write_all(buffer)?,
            Sink::Object { store, path, part, upload } => {
                part.extend_from_slice(buffer);
                if part.len() >= PART_BYTES {
                    let payload = PutPayload::from(std::mem::take(part));
                    let sent = block_on(async {
                        if upload.is_none() {
                            *upload = Some(store.put_multipart(path).await?);
                        }
                        match upload {
                            Some(upload) => upload.put_part(payload).await,
                            None => Ok(()),
                        }
                    });
                    sent.map_err(io::Error::other)?.map_err(io::Error::other)?;
                }
            }
            Sink::Finished => {}
        }
        self.hash.update(buffer);
        self.bytes += buffer.len() as u64;
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.sink {
            Sink::File { file, .. } => file.flush(),
            Sink::Object { .. } | Sink::Finished => Ok(()),
        }
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        let dropped = match &mut self.sink {
            Sink::File { temporary, .. } => fs::remove_file(temporary).map_err(|e| e.to_string()),
            Sink::Object { upload: Some(upload), .. } => match block_on(upload.abort()) {
                Ok(aborted) => aborted.map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            },
            Sink::Object { upload: None, .. } | Sink::Finished => Ok(()),
        };
        if let Err(error) = dropped {
            tracing::warn!(location = %self.location, %error, "an unfinished file stays behind");
        }
    }
}
