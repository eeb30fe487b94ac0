use super::*;

#[test]
fn maxima_of_windows() {
    let kernel = |sizes: &[i64]| none().with("kernel_shape", sizes.to_vec());
    check("MaxPool", &[x(&[2, 2, 4, 4])], kernel(&[2, 2]).with("strides", vec![2, 2]));
    let attributes = kernel(&[3, 3]).with("strides", vec![2, 2]).with("pads", vec![1, 1, 1, 1]);
    check("MaxPool", &[x(&[1, 2, 5, 5])], attributes);
    check("MaxPool", &[x(&[1, 2, 5])], kernel(&[3]));
    check("MaxPool", &[x(&[1, 1, 7])], kernel(&[2]).with("dilations", vec![2]));
    let attributes = kernel(&[2]).with("strides", vec![2]).with("ceil_mode", 1);
    check("MaxPool", &[x(&[1, 2, 5])], attributes);
    check("MaxPool", &[x(&[1, 1, 3, 3, 3])], kernel(&[2, 2, 2]));
    check("MaxPool", &[x(&[1, 1, 5, 4])], kernel(&[2, 3]).with("auto_pad", "SAME_UPPER"));
}

#[test]
fn means_of_windows() {
    let kernel = |sizes: &[i64]| none().with("kernel_shape", sizes.to_vec());
    check_linear("AveragePool", &[x(&[2, 2, 4, 4])], kernel(&[2, 2]).with("strides", vec![2, 2]));
    for include in [0, 1] {
        for ceil in [0, 1] {
            let attributes = kernel(&[3, 2])
                .with("strides", vec![2, 2])
                .with("pads", vec![1, 0, 1, 1])
                .with("ceil_mode", ceil)
                .with("count_include_pad", include);
            check_linear("AveragePool", &[x(&[1, 2, 6, 5])], attributes);
        }
    }
    check_linear("AveragePool", &[x(&[1, 2, 5])], kernel(&[2]).with("strides", vec![3]));
    check_linear(
        "AveragePool",
        &[x(&[1, 1, 4, 4])],
        kernel(&[3, 3]).with("auto_pad", "SAME_LOWER"),
    );
}

#[test]
fn pools_over_everything() {
    check_linear("GlobalAveragePool", &[x(&[2, 2, 3, 2])], none());
    check_linear("GlobalAveragePool", &[x(&[1, 2, 3])], none());
    check_single("GlobalMaxPool", &[x(&[2, 2, 3, 2])], none());
}

#[test]
fn norms_of_windows() {
    let kernel = |sizes: &[i64]| none().with("kernel_shape", sizes.to_vec());
    for p in [1, 2, 3] {
        for ceil in [0, 1] {
            let attributes = kernel(&[3, 2]).with("strides", vec![2, 2]).with("p", p);
            let attributes = attributes.with("pads", vec![1, 0, 1, 1]).with("ceil_mode", ceil);
            check_single("LpPool", &[within(&[1, 2, 6, 5], 0.3, 2.0)], attributes);
        }
    }
    check_single(
        "LpPool",
        &[within(&[1, 2, 5], -2.0, -0.5)],
        kernel(&[2]).with("dilations", vec![2]),
    );
    let same = kernel(&[3, 3]).with("auto_pad", "SAME_LOWER");
    check_single("LpPool", &[within(&[1, 1, 4, 4], 0.3, 2.0)], same);
}

#[test]
fn norms_of_everything() {
    for p in [1, 2, 3] {
        check("GlobalLpPool", &[x(&[2, 2, 3, 2])], none().with("p", p));
    }
    check("GlobalLpPool", &[x(&[1, 2, 3])], none());
}

/// The composed norms give what ONNX Runtime's own operator gives.
#[test]
fn composed_and_native_norms_agree() {
    let kernel = |sizes: &[i64]| none().with("kernel_shape", sizes.to_vec());
    for p in [1, 2, 3] {
        let attributes = kernel(&[3, 2]).with("strides", vec![2, 2]).with("p", p);
        let attributes = attributes.with("pads", vec![1, 0, 1, 1]);
        composed_and_native("LpPool", &[1, 2, 6, 5], &[], &attributes);
        composed_and_native("GlobalLpPool", &[2, 3, 4], &[], &none().with("p", p));
    }
}

/// A window of zeros, as rectifiers leave them, has gradients of 0.
#[test]
fn norms_of_zeros_have_no_gradient() {
    let mut graph = Builder::new();
    let x = graph.input("x", Type::new(DataType::Float32, [1, 1, 4]));
    let mut forward = Forward::new(&mut graph, Mode::Training);
    let attributes = none().with("kernel_shape", vec![2]).with("strides", vec![2]);
    let y = forward.apply("LpPool", &[Some(x)], attributes).unwrap();
    let tape = std::mem::take(&mut forward.tape);
    let ones = graph.filled(1.0, y);
    let gradients = differentiate(&mut graph, &tape, &[(y, ones)], &[x]).unwrap();
    let model = graph.finish(&[("dx".to_owned(), gradients[&x])]);
    let fed = [("x".to_owned(), vec![1, 1, 4], vec![0.0, 0.0, 3.0, 4.0])];
    let dx = &Runner::new(&model, "LpPool").run(DataType::Float32, &fed)["dx"];
    assert_eq!(dx[..2], [0.0, 0.0]);
    assert!((dx[2] - 0.6).abs() < 1e-6 && (dx[3] - 0.8).abs() < 1e-6, "{dx:?}");
}

#[test]
fn maxima_put_back_where_they_were() {
    let kernel = || none().with("kernel_shape", vec![2, 2]).with("strides", vec![2, 2]);
    let places = ints(&[1, 2, 2, 2], &[5, 7, 8, 10, 16, 19, 25, 31]);
    check("MaxUnpool", &[x(&[1, 2, 2, 2]), places], kernel());
    let places = ints(&[1, 1, 2, 2], &[6, 8, 16, 24]);
    check("MaxUnpool", &[x(&[1, 1, 2, 2]), places, ints(&[4], &[1, 1, 5, 5])], kernel());
    let padded = none().with("kernel_shape", vec![3]).with("pads", vec![1, 1]);
    check("MaxUnpool", &[x(&[1, 1, 3]), ints(&[1, 1, 3], &[0, 2, 1])], padded);
}

/// Places count through the output that is asked for, as ONNX Runtime has it.
#[test]
fn composed_and_native_reverses_of_pools_agree() {
    let kernel = none().with("kernel_shape", vec![2, 2]).with("strides", vec![2, 2]);
    let places = || TensorData::from_i64(&[1, 1, 2, 2], &[6, 8, 16, 18]);
    let size = TensorData::from_i64(&[4], &[1, 1, 5, 5]);
    composed_and_native("MaxUnpool", &[1, 1, 2, 2], &[places(), size], &kernel);
    let places = TensorData::from_i64(&[1, 1, 2, 2], &[5, 7, 8, 15]);
    composed_and_native("MaxUnpool", &[1, 1, 2, 2], &[places], &kernel);
}

/// Pooled and put back, at the places that the pool gives.
#[test]
fn a_pool_and_its_reverse() {
    let attributes = none().with("kernel_shape", vec![2, 2]).with("strides", vec![2, 2]);
    check_function("unpooled", &[x(&[2, 2, 5, 4])], DOUBLE, &mut |forward, values| {
        let pooled = forward.apply_with_outputs("MaxPool", values, attributes.clone(), 2)?;
        let size = forward.graph.ints(&[2, 2, 5, 4]);
        let inputs = [pooled[0], pooled[1], size].map(Some);
        Ok(vec![forward.apply("MaxUnpool", &inputs, attributes.clone())?])
    });
}

#[test]
fn outputs_that_do_not_fit_are_refused() {
    let kernel = none().with("kernel_shape", vec![2]);
    let places = || TensorData::from_i64(&[1, 1, 3], &[0, 1, 2]);
    let sizes = TensorData::from_i64(&[2], &[1, 4]);
    let reason = refusal("MaxUnpool", &[&[1, 1, 3]], vec![places(), sizes], kernel.clone());
    assert!(reason.contains("do not fit [1, 4]"), "{reason}");
    let sizes = TensorData::from_i64(&[3], &[1, 1, 1 << 30]);
    let reason = refusal("MaxUnpool", &[&[1, 1, 3]], vec![places(), sizes], kernel);
    assert!(reason.contains("too large"), "{reason}");
}
