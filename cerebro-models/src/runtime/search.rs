//! The places where ONNX Runtime may be, in the order of the search.

use std::env;
use std::env::consts::{DLL_PREFIX, DLL_SUFFIX, OS};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::build::Build;
use super::{Looked, RuntimeError};

/// What of the process's environment steers the search; its own type so that tests can vary it.
#[derive(Clone, Debug)]
pub(super) struct Surroundings {
    /// The value of `ORT_DYLIB_PATH`, if set and not empty.
    pub(super) library: Option<PathBuf>,
    /// The folder that installations go to.
    pub(super) cache: Option<PathBuf>,
    /// The commands that may run Python.
    pub(super) pythons: Vec<OsString>,
    /// The names by which the system's library path is asked.
    pub(super) names: Vec<String>,
}

impl Surroundings {
    pub(super) fn of_this_process() -> Self {
        let name = format!("{DLL_PREFIX}onnxruntime{DLL_SUFFIX}");
        Self {
            library: path_variable("ORT_DYLIB_PATH"),
            cache: cache_folder(),
            pythons: vec!["python3".into(), "python".into()],
            names: vec![name.clone(), format!("{name}.1")],
        }
    }

    /// The folder of the installed library, which is there only when it is whole.
    pub(super) fn installed(&self, build: Build) -> Option<PathBuf> {
        self.cache.as_ref().map(|cache| cache.join(build.folder()))
    }
}

/// The folder that [`install`](super::install) writes to: `CEREBRO_CACHE` if set, else `cerebro`
/// in the user's cache folder (`XDG_CACHE_HOME`, `~/.cache`; `~/Library/Caches` on macOS,
/// `LOCALAPPDATA` on Windows). `None` where none of these is known.
pub fn cache_folder() -> Option<PathBuf> {
    path_variable("CEREBRO_CACHE").or_else(|| {
        let user = path_variable("XDG_CACHE_HOME").or_else(|| match OS {
            "windows" => path_variable("LOCALAPPDATA"),
            "macos" => path_variable("HOME").map(|home| home.join("Library/Caches")),
            _ => path_variable("HOME").map(|home| home.join(".cache")),
        });
        user.map(|user| user.join("cerebro"))
    })
}

fn path_variable(name: &str) -> Option<PathBuf> {
    env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// A place's name, and the libraries to be tried there or why there is none.
type Place = (String, Result<Vec<PathBuf>, String>);

/// Gives each library found that can do what `build` can to `load`, until it loads one.
pub(super) fn search<T>(
    surroundings: &Surroundings,
    build: Build,
    load: impl Fn(&Path) -> Result<T, String>,
) -> Result<T, RuntimeError> {
    if let Some(library) = &surroundings.library {
        return named_library(library).and_then(|library| load(&library)).map_err(|reason| {
            RuntimeError::Unusable {
                library: library.clone(),
                reason: format!("{reason} (the file is named by ORT_DYLIB_PATH)"),
            }
        });
    }
    let mut looked = vec![Looked { place: "ORT_DYLIB_PATH".into(), found: "is not set".into() }];
    let places = match build {
        Build::Cpu => vec![
            cached(surroundings, Build::Cuda),
            cached(surroundings, Build::Cpu),
            of_python(surroundings, build),
            of_system(surroundings),
        ],
        // What lies beside a library on the system's path is not known.
        Build::Cuda => vec![cached(surroundings, build), of_python(surroundings, build)],
    };
    for (name, libraries) in places {
        match libraries.and_then(|libraries| first_loaded(&libraries, &load)) {
            Ok(loaded) => return Ok(loaded),
            Err(found) => looked.push(Looked { place: name, found }),
        }
    }
    Err(RuntimeError::NotFound { looked })
}

fn first_loaded<T>(
    libraries: &[PathBuf],
    load: impl Fn(&Path) -> Result<T, String>,
) -> Result<T, String> {
    let mut reasons = Vec::new();
    for library in libraries {
        match load(library) {
            Ok(loaded) => return Ok(loaded),
            Err(reason) => reasons.push(format!("{}: {reason}", library.display())),
        }
    }
    Err(reasons.join("; "))
}

fn named_library(library: &Path) -> Result<PathBuf, String> {
    // A bare name is for the dynamic linker to look up; anything else must be a file, whose path
    // is made absolute because the loader reads relative ones from the executable's folder.
    if library.components().count() == 1 && !library.exists() {
        return Ok(library.to_owned());
    }
    if !library.is_file() {
        return Err("there is no such file".to_owned());
    }
    library.canonicalize().map_err(|error| error.to_string())
}

fn cached(surroundings: &Surroundings, build: Build) -> Place {
    let Some(folder) = surroundings.installed(build) else {
        let found = "not known: none of CEREBRO_CACHE, XDG_CACHE_HOME and HOME is set";
        return ("the cache folder".into(), Err(found.into()));
    };
    let found = match library_in(&folder) {
        Some(library) => Ok(vec![library]),
        None => Err("nothing is installed there".to_owned()),
    };
    (format!("the installation {}", folder.display()), found)
}

/// The file of ONNX Runtime in `folder`, whatever version its name ends in.
pub(super) fn library_in(folder: &Path) -> Option<PathBuf> {
    let start = format!("{DLL_PREFIX}onnxruntime.");
    let end = if OS == "linux" { "" } else { DLL_SUFFIX };
    let mut names: Vec<PathBuf> = fs::read_dir(folder)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| name.starts_with(&start) && name.ends_with(end))
        })
        .collect();
    names.sort();
    names.into_iter().find(|path| path.is_file())
}

fn of_python(surroundings: &Surroundings, build: Build) -> Place {
    let mut reasons = Vec::new();
    for python in &surroundings.pythons {
        let shown = python.to_string_lossy().into_owned();
        match package_folder(python) {
            Ok(folder) => {
                let capi = folder.join("capi");
                let library = library_in(&capi).filter(|_| build.is_whole_in(&capi));
                let found = library.map(|library| vec![library]).ok_or_else(|| {
                    let package = build.package();
                    format!("{} lacks the shared libraries of `{package}`", capi.display())
                });
                return (format!("the package `onnxruntime` of `{shown}`"), found);
            }
            Err(reason) => reasons.push(format!("`{shown}` {reason}")),
        }
    }
    ("the package `onnxruntime` of Python".into(), Err(reasons.join("; ")))
}

/// Where the interpreter would import the package `onnxruntime` from.
fn package_folder(python: &OsString) -> Result<PathBuf, String> {
    // `find_spec` of a top-level package looks it up on `sys.path` without importing it.
    const QUESTION: &str = "import importlib.util as u, sys\n\
        s = u.find_spec('onnxruntime')\n\
        sys.stdout.write(s.submodule_search_locations[0] if s and s.submodule_search_locations else '')";
    let output = Command::new(python)
        .args(["-c", QUESTION])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("cannot be run ({error})"))?;
    let folder = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        return Err(format!("failed ({})", output.status));
    }
    if folder.is_empty() { Err("has no such package".into()) } else { Ok(folder.as_ref().into()) }
}

fn of_system(surroundings: &Surroundings) -> Place {
    let names = surroundings.names.iter().map(PathBuf::from).collect();
    ("the system's library path".into(), Ok(names))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nowhere() -> Surroundings {
        Surroundings {
            library: None,
            cache: Some("/nonexistent/cache".into()),
            pythons: vec!["/nonexistent/python".into()],
            names: vec!["libnonexistent.so".into()],
        }
    }

    fn library_file(folder: &Path) -> PathBuf {
        let file = folder.join(format!("{DLL_PREFIX}onnxruntime{DLL_SUFFIX}"));
        fs::create_dir_all(folder).unwrap();
        fs::write(&file, "").unwrap();
        file
    }

    #[allow(clippy::unnecessary_wraps, reason = "it stands for a load, which may fail")]
    fn taken(library: &Path) -> Result<PathBuf, String> {
        Ok(library.to_owned())
    }

    #[test]
    fn the_named_library_comes_before_the_cache_and_the_cache_before_the_system() {
        let folder = tempfile::tempdir().unwrap();
        let mut surroundings =
            Surroundings { cache: Some(folder.path().join("cache")), ..nowhere() };
        assert_eq!(
            search(&surroundings, Build::Cpu, taken).unwrap(),
            Path::new("libnonexistent.so")
        );
        let cached = library_file(&surroundings.installed(Build::Cpu).unwrap());
        assert_eq!(search(&surroundings, Build::Cpu, taken).unwrap(), cached);
        let named = library_file(folder.path()).canonicalize().unwrap();
        surroundings.library = Some(named.clone());
        assert_eq!(search(&surroundings, Build::Cpu, taken).unwrap(), named);
    }

    #[test]
    #[cfg(unix)]
    fn the_package_of_python_comes_before_the_system() {
        use std::os::unix::fs::PermissionsExt;

        let folder = tempfile::tempdir().unwrap();
        let package = folder.path().join("onnxruntime");
        let packaged = library_file(&package.join("capi"));
        let python = folder.path().join("python");
        fs::write(&python, format!("#!/bin/sh\nprintf %s '{}'\n", package.display())).unwrap();
        fs::set_permissions(&python, fs::Permissions::from_mode(0o755)).unwrap();
        let surroundings = Surroundings { pythons: vec![python.into()], ..nowhere() };
        assert_eq!(search(&surroundings, Build::Cpu, taken).unwrap(), packaged);
    }

    #[test]
    fn a_build_for_gpus_serves_cpus_and_one_for_cpus_does_not_serve_gpus() {
        let folder = tempfile::tempdir().unwrap();
        let surroundings = Surroundings { cache: Some(folder.path().into()), ..nowhere() };
        let for_cpus = library_file(&surroundings.installed(Build::Cpu).unwrap());
        assert_eq!(search(&surroundings, Build::Cpu, taken).unwrap(), for_cpus);
        let error = search(&surroundings, Build::Cuda, taken).unwrap_err();
        assert!(matches!(error, RuntimeError::NotFound { .. }), "{error}");
        let for_gpus = library_file(&surroundings.installed(Build::Cuda).unwrap());
        assert_eq!(search(&surroundings, Build::Cuda, taken).unwrap(), for_gpus);
        assert_eq!(search(&surroundings, Build::Cpu, taken).unwrap(), for_gpus);
    }

    #[test]
    fn a_library_that_does_not_load_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let surroundings = Surroundings { cache: Some(folder.path().into()), ..nowhere() };
        let cached = library_file(&surroundings.installed(Build::Cpu).unwrap());
        let load = |library: &Path| {
            if library == cached { Err("too old".to_owned()) } else { taken(library) }
        };
        assert_eq!(
            search(&surroundings, Build::Cpu, load).unwrap(),
            Path::new("libnonexistent.so")
        );
    }

    #[test]
    fn the_error_lists_every_place_and_the_three_ways_to_mend_it() {
        let error = search(&nowhere(), Build::Cpu, |_| Err::<(), _>("does not exist".to_owned()))
            .unwrap_err();
        let message = error.to_string();
        for part in [
            "ORT_DYLIB_PATH: is not set",
            "/nonexistent/cache",
            "/nonexistent/python",
            "libnonexistent.so: does not exist",
            "runtime::install()",
            "pip install onnxruntime==",
            "set ORT_DYLIB_PATH",
        ] {
            assert!(message.contains(part), "`{part}` is not in\n{message}");
        }
    }

    #[test]
    fn a_named_library_that_is_not_there_is_an_error_even_if_another_place_has_one() {
        let library = Some("/nonexistent/libonnxruntime.so".into());
        let error = search(&Surroundings { library, ..nowhere() }, Build::Cpu, taken).unwrap_err();
        let message = error.to_string();
        assert!(message.contains("/nonexistent/libonnxruntime.so"), "{message}");
        assert!(
            message.contains("no such file") && message.contains("ORT_DYLIB_PATH"),
            "{message}"
        );
    }
}
