//! Checks folders of reference cases: `cargo run --release --example reference -- DIR...`
//!
//! Each DIR is a case, or a folder of cases. Prints one JSON line per (case, file, optimizer) with
//! the largest relative error of each quantity; exits with 0 only if all are within tolerance.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use cerebro_examples::reference::{Case, Error, check_case};

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<bool, Error> {
    let folders: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    if folders.is_empty() {
        return Err("usage: reference DIR...".into());
    }
    cerebro_models::runtime::install()?;
    let mut all_pass = true;
    for folder in folders {
        for case in cases(&folder)? {
            for report in check_case(&Case::read(&case)?) {
                println!("{}", serde_json::to_string(&report)?);
                all_pass &= report.pass;
            }
        }
    }
    Ok(all_pass)
}

/// The folder itself if it is a case, else the cases in it.
fn cases(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    if folder.join("case.json").is_file() {
        return Ok(vec![folder.to_owned()]);
    }
    let entries = std::fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut cases: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    cases.retain(|path| path.join("case.json").is_file());
    cases.sort();
    if cases.is_empty() {
        return Err(
            format!("{} holds no case: no folder with a case.json", folder.display()).into()
        );
    }
    Ok(cases)
}
