//! Downloading the pinned wheel with `pip` and unpacking it, all or nothing.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, SystemTime};

use super::build::Build;
use super::search::{Surroundings, library_in};
use super::{RuntimeError, VERSION};

/// The wheel of this Python version is downloaded whatever Python runs `pip`: wheels of the same
/// version hold the same library, and not every Python has a wheel of every version.
const WHEEL_OF_PYTHON: &str = "3.12";

/// The start of the names of folders that downloads are made in.
const PARTIAL: &str = ".download-";

/// The age after which a partial download has no living owner.
const STALE: Duration = Duration::from_hours(24);

/// Downloads a build of ONNX Runtime into the cache folder; gives the library's path.
pub(super) fn download(surroundings: &Surroundings, build: Build) -> Result<PathBuf, RuntimeError> {
    let installed = surroundings.installed(build).ok_or(RuntimeError::NoCacheFolder)?;
    let cache = installed.parent().ok_or(RuntimeError::NoCacheFolder)?;
    let cache_error = |source| RuntimeError::Cache { folder: cache.to_owned(), source };

    fs::create_dir_all(cache).map_err(cache_error)?;
    remove_stale_downloads(cache);
    let partial =
        tempfile::Builder::new().prefix(PARTIAL).tempdir_in(cache).map_err(cache_error)?;
    let (package, size) = (build.package(), build.megabytes());
    eprintln!("Fetching {package} {VERSION} ({size} MB) with pip into {}", cache.display());
    let wheel = fetch_wheel(&surroundings.pythons, build, partial.path())?;
    let library = unpack(&wheel, build, partial.path())?;
    publish(&library, &installed).map_err(cache_error)?;
    library_in(&installed).ok_or_else(|| RuntimeError::Cache {
        folder: installed.clone(),
        source: io::Error::new(io::ErrorKind::NotFound, "the installed library is gone again"),
    })
}

/// A wheel, and a Python that is known to work.
struct Wheel {
    python: OsString,
    file: PathBuf,
}

fn fetch_wheel(pythons: &[OsString], build: Build, folder: &Path) -> Result<Wheel, RuntimeError> {
    let mut reasons = Vec::new();
    for python in pythons {
        let mut pip = Command::new(python);
        pip.args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check"])
            .args(["--no-deps", "--only-binary=:all:", "--python-version", WHEEL_OF_PYTHON])
            .arg("--dest")
            .arg(folder)
            .arg(format!("{}=={VERSION}", build.package()));
        match run(&mut pip) {
            Ok(_) => match wheel_in(folder) {
                Some(file) => return Ok(Wheel { python: python.clone(), file }),
                None => reasons.push(format!("`{}` wrote no wheel", python.to_string_lossy())),
            },
            Err(reason) => reasons.push(reason),
        }
    }
    Err(RuntimeError::Download { reason: reasons.join("\n") })
}

fn wheel_in(folder: &Path) -> Option<PathBuf> {
    let mut files = fs::read_dir(folder).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    files.find(|path| path.extension().is_some_and(|extension| extension == "whl"))
}

/// Unpacks the wheel with Python's own `zipfile`; gives the folder that is to be published.
fn unpack(wheel: &Wheel, build: Build, folder: &Path) -> Result<PathBuf, RuntimeError> {
    let unpacked = folder.join("wheel");
    let mut zipfile = Command::new(&wheel.python);
    zipfile.args(["-m", "zipfile", "-e"]).arg(&wheel.file).arg(&unpacked);
    run(&mut zipfile).map_err(|reason| RuntimeError::Download { reason })?;

    let package = unpacked.join("onnxruntime");
    let capi = package.join("capi");
    let library = library_in(&capi).filter(|_| build.is_whole_in(&capi));
    let library = library.ok_or_else(|| RuntimeError::Download {
        reason: format!("the wheel {} lacks its shared libraries", wheel.file.display()),
    })?;
    let published = folder.join("published");
    let moved = fs::create_dir(&published).and_then(|()| {
        let name = library.file_name().expect("`library_in` gives a file in a folder");
        fs::rename(&library, published.join(name))?;
        for provider in build.providers() {
            fs::rename(capi.join(&provider), published.join(provider))?;
        }
        // The licence asks to be kept with the copy.
        for notice in ["LICENSE", "ThirdPartyNotices.txt"] {
            fs::rename(package.join(notice), published.join(notice))?;
        }
        Ok(())
    });
    moved.map_err(|source| RuntimeError::Cache { folder: published.clone(), source })?;
    Ok(published)
}

/// Moves `folder` to its final name in one step; another process may have been faster.
fn publish(folder: &Path, installed: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        fs::File::open(entry?.path())?.sync_all()?;
    }
    match fs::rename(folder, installed) {
        Err(_) if library_in(installed).is_some() => Ok(()),
        result => result,
    }
}

fn remove_stale_downloads(cache: &Path) {
    let Ok(entries) = fs::read_dir(cache) else { return };
    for entry in entries.flatten() {
        let is_partial = entry.file_name().to_string_lossy().starts_with(PARTIAL);
        let modified = entry.metadata().and_then(|metadata| metadata.modified());
        let age = modified.map(|at| SystemTime::now().duration_since(at).unwrap_or_default());
        if is_partial && age.is_ok_and(|age| age > STALE) {
            // What cannot be removed is only wasted space.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn run(command: &mut Command) -> Result<Output, String> {
    let shown = format!("{command:?}");
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{shown} cannot be run: {error}"))?;
    if output.status.success() {
        return Ok(output);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{shown} failed ({}): {}", output.status, said.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn surroundings(cache: &Path) -> Surroundings {
        Surroundings { cache: Some(cache.to_owned()), ..Surroundings::of_this_process() }
    }

    #[test]
    fn two_downloads_at_once_leave_one_whole_library_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let cache = folder.path().join("made/on/the/way");
        let surroundings = surroundings(&cache);
        let libraries: Vec<PathBuf> = std::thread::scope(|scope| {
            let threads =
                [(); 2].map(|()| scope.spawn(|| download(&surroundings, Build::Cpu).unwrap()));
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(libraries[0], libraries[1]);
        assert!(fs::metadata(&libraries[0]).unwrap().len() > 1_000_000);
        assert_eq!(fs::read_dir(&cache).unwrap().count(), 1);
    }

    #[test]
    fn an_unwritable_cache_folder_is_named_with_the_way_out() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let message = download(&surroundings(&file), Build::Cpu).unwrap_err().to_string();
        assert!(message.contains(file.to_str().unwrap()), "{message}");
        assert!(message.contains("CEREBRO_CACHE"), "{message}");
    }

    #[test]
    fn a_missing_pip_is_named_with_the_way_out() {
        let folder = tempfile::tempdir().unwrap();
        let pythons = vec!["/nonexistent/python".into()];
        let surroundings = Surroundings { pythons, ..surroundings(folder.path()) };
        let message = download(&surroundings, Build::Cpu).unwrap_err().to_string();
        assert!(message.contains("/nonexistent/python") && message.contains("ORT_DYLIB_PATH"));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "the partial download is gone");
    }
}
