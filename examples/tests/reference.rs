//! Training follows PyTorch's on every reference case that is there.

use std::path::PathBuf;

use cerebro_examples::reference::{Case, check_case};

#[test]
fn training_follows_pytorch_on_every_reference_case() {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/reference"));
    let Ok(entries) = std::fs::read_dir(&folder) else {
        eprintln!("skipped: {} is not there", folder.display());
        return;
    };
    cerebro_models::runtime::install().unwrap();
    let mut failed = Vec::new();
    let mut checked = 0;
    for entry in entries {
        let path = entry.unwrap().path();
        if !path.join("case.json").is_file() {
            continue;
        }
        for report in check_case(&Case::read(&path).unwrap()) {
            checked += 1;
            if !report.pass {
                failed.push(serde_json::to_string(&report).unwrap());
            }
        }
    }
    assert!(checked > 0, "no case in {}", folder.display());
    assert!(failed.is_empty(), "{} of {checked} failed:\n{}", failed.len(), failed.join("\n"));
}
