//! ONNX Runtime is installed once and loaded once.

use cerebro_models::runtime;

#[test]
fn the_first_load_serves_the_process_for_good() {
    let installed = runtime::install().unwrap();
    let loaded = runtime::load().unwrap();
    assert!(std::ptr::eq(installed, loaded));
    assert!(loaded.library().to_string_lossy().contains("onnxruntime"));
}
