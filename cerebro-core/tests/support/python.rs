//! Python packages that tests compare with, installed once by pip.

use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

/// Tests of one process would install packages over each other.
static INSTALLING: Mutex<()> = Mutex::new(());

/// A folder from which `python3` imports `module`, once it is in its `PYTHONPATH`. It is filled by
/// pip with `packages` the first time; nothing where there is no pip or no network.
pub(crate) fn package(module: &str, packages: &[&str]) -> Option<PathBuf> {
    let name = module.split('.').next().unwrap_or(module);
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("python-{name}"));
    let works = || {
        let import = format!("import {module}");
        let tried =
            Command::new("python3").args(["-c", &import]).env("PYTHONPATH", &folder).output();
        tried.is_ok_and(|output| output.status.success())
    };
    let _turn = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
    if !works() {
        let install = ["-m", "pip", "install", "--quiet", "--upgrade", "--target"];
        let tried = Command::new("python3").args(install).arg(&folder).args(packages).output();
        tried.ok().filter(|output| output.status.success())?;
    }
    works().then_some(folder)
}
