//! An ONNX file from anywhere: reading it and drawing every graph of it ends in an error or in
//! graphs, never in a panic and never in memory without bound.

#![no_main]

use cerebro_models::loss::Loss;
use cerebro_models::onnx::Model;
use cerebro_models::optim::Optimizer;
use cerebro_models::training::{Blueprint, InputShapes, TrainingSpec};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(model) = Model::from_bytes(bytes.to_vec()) else { return };
    for loss in [Loss::MeanSquaredError, Loss::cross_entropy()] {
        let spec = TrainingSpec::new(loss, Optimizer::adam(0.1).kind());
        let Ok(blueprint) = Blueprint::new(model.clone(), spec) else { return };
        let shapes = InputShapes::rows(2);
        let _ = blueprint.interface(&shapes);
        let _ = blueprint.evaluation(&shapes);
        let _ = blueprint.prediction(&shapes);
        if let Ok(step) = blueprint.step(&shapes) {
            let _ = step.to_bytes();
        }
    }
});
