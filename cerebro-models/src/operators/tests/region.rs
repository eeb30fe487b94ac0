use super::*;

/// Boxes of a 6 by 7 image: inside, over the edges, empty, and far outside.
const REGIONS: [f32; 24] = [
    0.6, 1.1, 4.3, 5.2, -2.0, -1.5, 3.1, 2.2, 4.4, 3.7, 9.0, 8.1, 2.2, 2.3, 2.4, 2.6, 30.0, 30.0,
    40.0, 40.0, 0.0, 0.0, 7.0, 6.0,
];

fn regions() -> [Input; 2] {
    let regions = TensorData::from_f32(&[6, 4], &REGIONS);
    [Input::Constant(regions), ints(&[6], &[0, 1, 1, 0, 1, 0])]
}

/// Means and maxima by both rules of coordinates.
fn settings() -> Vec<Attributes> {
    let mut settings = Vec::new();
    for mode in ["avg", "max"] {
        for coordinates in ["half_pixel", "output_half_pixel"] {
            let attributes = none().with("mode", mode).with("output_height", 3);
            let attributes = attributes.with("coordinate_transformation_mode", coordinates);
            settings.push(attributes.with("output_width", 2).with("sampling_ratio", 2));
        }
    }
    settings
}

#[test]
fn samples_of_regions() {
    for attributes in settings() {
        let [regions, images] = regions();
        check("RoiAlign", &[x(&[2, 2, 6, 7]), regions, images], attributes.clone());
        let [regions, images] = regions_of_one();
        let scaled = attributes.with("spatial_scale", 0.5_f32).with("sampling_ratio", 3);
        check("RoiAlign", &[x(&[1, 3, 4, 2]), regions, images], scaled);
    }
}

fn regions_of_one() -> [Input; 2] {
    let regions = TensorData::from_f32(&[1, 4], &[0.5, 1.0, 3.5, 6.5]);
    [Input::Constant(regions), ints(&[1], &[0])]
}

/// What training composes gives what ONNX Runtime's own operator gives.
#[test]
fn composed_and_native_forms_agree() {
    for attributes in settings() {
        let [composed, native] = [Mode::Training, Mode::Inference].map(|mode| {
            let mut graph = Builder::new();
            let dims = vec![2, 3, 6, 7];
            let mut rng = Seed(5).rng();
            let numbers = (0..2 * 3 * 6 * 7).map(|_| 4.0 * rng.unit() - 2.0).collect();
            let fed = [("x".to_owned(), dims.clone(), numbers)];
            let x = graph.input("x", Type::new(DataType::Float32, dims));
            let regions = graph.constant(TensorData::from_f32(&[6, 4], &REGIONS));
            let images = graph.ints(&[0, 1, 1, 0, 1, 0]);
            let inputs = [x, regions, images].map(Some);
            let mut forward = Forward::new(&mut graph, mode);
            let y = forward.apply("RoiAlign", &inputs, attributes.clone()).unwrap();
            let model = graph.finish(&[("y".to_owned(), y)]);
            Runner::new(&model, "RoiAlign").run(DataType::Float32, &fed).remove("y").unwrap()
        });
        assert_eq!(composed.len(), native.len());
        for (a, b) in composed.iter().zip(native) {
            assert!((a - b).abs() < 1e-5, "{attributes:?}: {a} and {b}");
        }
    }
}

#[test]
fn samples_whose_number_depends_on_regions_and_too_many_are_refused() {
    let sizes: [&[usize]; 2] = [&[1, 2, 4, 4], &[1, 4]];
    let images = || vec![TensorData::from_i64(&[1], &[0])];
    let reason = refusal("RoiAlign", &sizes, images(), none());
    assert!(reason.contains("depends on the regions"), "{reason}");
    let many = none().with("sampling_ratio", 1 << 19);
    let reason = refusal("RoiAlign", &sizes, images(), many);
    assert!(reason.contains("too large"), "{reason}");
}
