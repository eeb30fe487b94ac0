//! [`OutputError`]: why an observer's file could not be written or read.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Why an observer's file could not be written or read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OutputError {
    /// The file or its folder cannot be written.
    #[error(
        "cannot write {what} to {}: {source}; choose a folder that you may write to and whose disk \
         has room", path.display()
    )]
    Write {
        /// What the file holds.
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The file cannot be read.
    #[error("cannot read {what} from {}: {source}", path.display())]
    Read {
        /// What the file holds.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A line of the file is no event.
    #[error(
        "line {line} of {} is no event: {source}; it was written by another version, or changed \
         since", path.display()
    )]
    NoEvent {
        /// The file.
        path: PathBuf,
        /// The line; the first one is 1.
        line: usize,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

impl OutputError {
    pub(super) fn write(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| OutputError::Write { what, path, source }
    }

    pub(super) fn read(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| OutputError::Read { what, path, source }
    }
}

/// Makes the folder that `path` is to lie in, if it is absent.
pub(super) fn make_folder_of(what: &'static str, path: &Path) -> Result<(), OutputError> {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => {
            std::fs::create_dir_all(folder).map_err(OutputError::write(what, folder))
        }
        _ => Ok(()),
    }
}
