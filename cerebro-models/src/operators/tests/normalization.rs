use super::*;

/// Batch statistics are used where mean and variance are running statistics.
fn batch_normalization(dims: &[usize]) {
    let channels = dims[1];
    let inputs = [x(dims), x(&[channels]), x(&[channels])];
    check_function(&format!("batch {dims:?}"), &inputs, DOUBLE, &mut |forward, inputs| {
        let [mean, variance] = [0.5, 0.7].map(|value| {
            let values = vec![value; channels];
            let tensor = TensorData::from_f64(DataType::Float64, &[channels], &values);
            forward.graph.constant(tensor)
        });
        forward.declare_statistic(mean);
        forward.declare_statistic(variance);
        let all = [inputs[0], inputs[1], inputs[2], Some(mean), Some(variance)];
        Ok(vec![forward.apply("BatchNormalization", &all, none().with("epsilon", 1e-3f32))?])
    });
}

#[test]
fn batch_normalization_in_training() {
    batch_normalization(&[3, 2, 2, 2]);
    batch_normalization(&[4, 3]);
    batch_normalization(&[2, 2, 5]);
}

#[test]
fn batch_normalization_with_given_statistics() {
    let given = |values: &[f64]| {
        Input::Constant(TensorData::from_f64(DataType::Float64, &[values.len()], values))
    };
    let inputs = [x(&[3, 2, 2]), x(&[2]), x(&[2]), given(&[0.1, -0.2]), given(&[1.5, 0.7])];
    check("BatchNormalization", &inputs, none());
    // Computed ones, as exporters write a normalization that keeps no running statistics.
    let computed = [x(&[2]), within(&[2], 0.5, 1.5)];
    let inputs = [x(&[3, 2, 2]), x(&[2]), x(&[2])].into_iter().chain(computed);
    check("BatchNormalization", &inputs.collect::<Vec<_>>(), none());
}

#[test]
fn batch_normalization_without_running_statistics() {
    let dims = [3, 2, 2];
    let inputs = [x(&dims), x(&[2]), x(&[2]), within(&[2], 0.5, 1.0), within(&[2], 0.5, 1.0)];
    check("BatchNormalization", &inputs, none().with("training_mode", 1).with("epsilon", 1e-3f32));
}

#[test]
fn layer_normalization() {
    // Statistics are kept in 32 bits whatever the input has.
    let precision = Precision { tolerance: 1e-5, ..DOUBLE };
    let check = |inputs: &[Input], attributes| {
        check_outputs("LayerNormalization", inputs, attributes, 1, precision);
    };
    check(&[x(&[3, 4]), x(&[4]), x(&[4])], none());
    check(&[x(&[2, 3, 4]), x(&[4])], none());
    check(&[x(&[2, 3, 2]), x(&[3, 2]), x(&[3, 2])], none().with("axis", 1));
}

#[test]
fn normalization_of_channels_and_groups() {
    let precision = Precision { tolerance: 1e-5, ..DOUBLE };
    let image = [x(&[2, 4, 3]), x(&[4]), x(&[4])];
    check_outputs("InstanceNormalization", &image, none(), 1, precision);
    let groups = none().with("num_groups", 2);
    check_outputs("GroupNormalization", &image, groups.clone(), 1, precision);
    let image = [x(&[1, 4, 2, 2]), x(&[4]), x(&[4])];
    check_outputs("GroupNormalization", &image, groups, 1, precision);
}

#[test]
fn normalization_by_norm_and_variance() {
    for p in [1, 2] {
        check("LpNormalization", &[within(&[2, 3], 0.2, 2.0)], none().with("p", p));
        let attributes = none().with("p", p).with("axis", 0);
        check("LpNormalization", &[within(&[2, 3], 0.2, 2.0)], attributes);
    }
    check("MeanVarianceNormalization", &[x(&[2, 2, 2, 2])], none());
    check("RMSNormalization", &[x(&[2, 3, 4]), x(&[4])], none());
    let attributes = none().with("axis", 1).with("epsilon", 0.1f32);
    check("RMSNormalization", &[x(&[2, 3, 2]), x(&[3, 2])], attributes);
}

#[test]
fn responses_normalized_with_neighbouring_channels() {
    for size in [1, 2, 3, 4, 9] {
        check("LRN", &[x(&[2, 4, 2, 3])], none().with("size", size).with("alpha", 0.5_f32));
    }
    let attributes = none().with("size", 3).with("beta", 0.5_f32).with("bias", 2.0_f32);
    check("LRN", &[x(&[2, 3, 4])], attributes.with("alpha", 0.3_f32));
}

/// What training composes gives what ONNX Runtime's own operator gives.
#[test]
fn composed_and_native_responses_agree() {
    for size in [1, 3, 9] {
        let attributes = none().with("size", size).with("alpha", 0.5_f32);
        composed_and_native("LRN", &[2, 5, 3, 3], &[], &attributes);
    }
}

#[test]
fn responses_of_very_many_channels_are_refused() {
    let reason = refusal("LRN", &[&[1, 200, 1, 1]], vec![], none().with("size", 101));
    assert!(reason.contains("101 channels are more"), "{reason}");
}
