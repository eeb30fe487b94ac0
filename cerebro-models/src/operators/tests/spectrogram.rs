use super::*;

#[test]
fn transforms_of_frames_that_overlap() {
    let (step, length) = (ints(&[], &[3]), ints(&[], &[4]));
    let window = x(&[4]);
    for signal in [x(&[2, 11, 1]), x(&[2, 10])] {
        let inputs = [signal, step.clone(), window.clone(), length.clone()];
        check("STFT", &inputs, none());
        check("STFT", &inputs, none().with("onesided", 0));
        check("STFT", &inputs[..3], none());
        let inputs = [&inputs[..2], &[Input::None, length.clone()]].concat();
        check("STFT", &inputs, none());
    }
    let complex = [x(&[1, 9, 2]), step, window, length];
    check("STFT", &complex, none().with("onesided", 0));
}

#[test]
fn frames_that_do_not_fit_are_refused() {
    let of = |values: [i64; 2]| values.map(|value| TensorData::from_i64(&[], &[value])).to_vec();
    let refused = |step: i64, length: i64| {
        let mut graph = Builder::new();
        let signal = graph.input("signal", Type::new(DataType::Float32, [1, 8, 1]));
        let sizes = of([step, length]).into_iter().map(|size| graph.constant(size));
        let sizes: Vec<Value> = sizes.collect();
        let inputs = [Some(signal), Some(sizes[0]), None, Some(sizes[1])];
        Forward::new(&mut graph, Mode::Training).apply("STFT", &inputs, none()).unwrap_err()
    };
    assert!(refused(2, 9).contains("no frames of 9"));
    assert!(refused(0, 4).contains("0 apart"));
}

/// What an operator makes of constants.
fn made(op: &str, inputs: Vec<TensorData>, attributes: Attributes) -> Vec<f64> {
    let mut graph = Builder::new();
    let inputs: Vec<_> = inputs.into_iter().map(|tensor| Some(graph.constant(tensor))).collect();
    let made = Forward::new(&mut graph, Mode::Training).apply(op, &inputs, attributes).unwrap();
    graph.constant_of(made).unwrap().to_f64s()
}

fn assert_close(found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len(), "{found:?}");
    for (a, b) in found.iter().zip(expected) {
        assert!((a - b).abs() < 1e-6, "{found:?} for {expected:?}");
    }
}

#[test]
fn windows_that_are_periodic_and_such_as_are_not() {
    let window = |op: &str, size: i64, periodic: i64| {
        made(op, vec![TensorData::from_i64(&[], &[size])], none().with("periodic", periodic))
    };
    assert_close(&window("HannWindow", 4, 1), &[0.0, 0.5, 1.0, 0.5]);
    assert_close(&window("HannWindow", 5, 0), &[0.0, 0.5, 1.0, 0.5, 0.0]);
    let low = 4.0 / 46.0;
    assert_close(&window("HammingWindow", 4, 1), &[low, 25.0 / 46.0, 1.0, 25.0 / 46.0]);
    assert_close(&window("BlackmanWindow", 5, 0), &[0.0, 0.34, 1.0, 0.34, 0.0]);
    assert!(window("HannWindow", 0, 0).is_empty());
    assert_eq!(window("HannWindow", 1, 0).len(), 1);
}

/// The example of ONNX's documentation.
#[test]
fn bands_of_the_mel_scale() {
    let of = |value: i64| TensorData::from_i64(&[], &[value]);
    let hertz = |value: f32| TensorData::from_f32(&[], &[value]);
    let inputs = vec![of(8), of(16), of(8192), hertz(0.0), hertz(4096.0)];
    let bands = made("MelWeightMatrix", inputs, none());
    let expected = [
        [1., 1., 0., 0., 0., 0., 0., 0.],
        [0., 0., 1., 1., 0., 0., 0., 0.],
        [0., 0., 0., 0., 1., 0., 0., 0.],
        [0., 0., 0., 0., 0., 1., 0., 0.],
        [0., 0., 0., 0., 0., 0., 1., 0.],
        [0., 0., 0., 0., 0., 0., 0., 1.],
        [0.; 8],
        [0.; 8],
        [0.; 8],
    ];
    assert_close(&bands, &expected.concat());
    let inputs = vec![of(2), of(4), of(0), hertz(4096.0), hertz(0.0)];
    assert!(made("MelWeightMatrix", inputs, none()).iter().all(|share| share.is_finite()));
}
