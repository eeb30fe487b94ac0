//! Libraries that are not a usable ONNX Runtime are refused with what was found and what is needed.
//!
//! In a process of its own, because the first library that loads is the process's for good.

use std::path::{Path, PathBuf};
use std::process::Command;

use cerebro_models::runtime::{self, RuntimeError};

/// A shared library that calls itself ONNX Runtime 1.2.3, or does not even do that.
fn compile(folder: &Path, name: &str, source: &str) -> PathBuf {
    let file = folder.join(format!("{name}.rs"));
    std::fs::write(&file, source).unwrap();
    let library = folder.join(format!("lib{name}.so"));
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let status = Command::new(rustc)
        .args(["--edition", "2024", "--crate-type", "cdylib", "-C", "panic=abort", "-o"])
        .args([&library, &file])
        .status()
        .unwrap();
    assert!(status.success());
    library
}

const OLD: &str = r#"
#[repr(C)]
pub struct Base { api: extern "C" fn(u32) -> usize, version: extern "C" fn() -> *const u8 }
extern "C" fn api(_: u32) -> usize { 0 }
extern "C" fn version() -> *const u8 { b"1.2.3\0".as_ptr() }
static BASE: Base = Base { api, version };
#[unsafe(no_mangle)]
pub extern "C" fn OrtGetApiBase() -> &'static Base { &BASE }
"#;

fn load_named(library: &Path) -> String {
    // SAFETY: this process has one test, so no other thread reads the environment meanwhile.
    unsafe { std::env::set_var("ORT_DYLIB_PATH", library) };
    match runtime::install() {
        Err(error @ RuntimeError::Unusable { .. }) => error.to_string(),
        other => panic!("expected an unusable library, got {other:?}"),
    }
}

#[test]
fn a_library_that_is_too_old_or_another_one_is_refused_with_what_is_needed() {
    let folder = tempfile::tempdir().unwrap();

    let old = load_named(&compile(folder.path(), "old", OLD));
    assert!(old.contains("its version is 1.2.3, but 1.18 or later is needed"), "{old}");
    assert!(old.contains("libold.so"), "{old}");

    let other = load_named(&compile(folder.path(), "other", "pub fn nothing() {}"));
    assert!(other.contains("is not ONNX Runtime"), "{other}");

    let text = folder.path().join("libtext.so");
    std::fs::write(&text, "not a library").unwrap();
    let text = load_named(&text);
    assert!(text.contains("libtext.so"), "{text}");
}
