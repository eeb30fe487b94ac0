use super::*;

/// Modes with every padding and both alignments.
fn settings(modes: &[&str]) -> Vec<Attributes> {
    let mut settings = Vec::new();
    for &mode in modes {
        for padding in ["zeros", "border", "reflection"] {
            for aligned in [0, 1] {
                let attributes = none().with("mode", mode).with("padding_mode", padding);
                settings.push(attributes.with("align_corners", aligned));
            }
        }
    }
    settings
}

#[test]
fn sampled_images_and_where_they_are_sampled() {
    for attributes in settings(&["linear", "cubic"]) {
        check("GridSample", &[x(&[2, 2, 4, 5]), x(&[2, 2, 3, 2])], attributes);
    }
}

#[test]
fn the_names_of_modes_in_older_versions() {
    let images = [x(&[1, 2, 3, 4]), x(&[1, 2, 2, 2])];
    for mode in ["bilinear", "bicubic"] {
        check("GridSample", &images, none().with("mode", mode));
    }
}

#[test]
fn nearest_elements() {
    for padding in ["zeros", "border", "reflection"] {
        let attributes = none().with("mode", "nearest").with("padding_mode", padding);
        let grid = [-1.7, -0.6, -0.2, 0.45, 0.3, 1.2];
        let grid = TensorData::from_f64(DataType::Float64, &[1, 3, 1, 2], &grid);
        check("GridSample", &[x(&[1, 2, 3, 4]), Input::Constant(grid)], attributes);
    }
}

#[test]
fn sampled_volumes() {
    check("GridSample", &[x(&[1, 2, 2, 3, 2]), x(&[1, 2, 1, 2, 3])], none());
}

/// What training composes gives what ONNX Runtime's own operator gives.
#[test]
fn composed_and_native_forms_agree() {
    for attributes in settings(&["nearest", "linear", "cubic"]) {
        let [composed, native] = [Mode::Training, Mode::Inference].map(|mode| {
            let mut graph = Builder::new();
            let mut rng = Seed(5).rng();
            let mut fed = Vec::new();
            for (name, dims) in [("x", vec![2, 3, 4, 5]), ("grid", vec![2, 6, 7, 2])] {
                let count = dims.iter().product();
                let numbers = (0..count).map(|_| 4.0 * rng.unit() - 2.0).collect();
                fed.push((name.to_owned(), dims, numbers));
            }
            let values: Vec<_> = fed
                .iter()
                .map(|(name, dims, _): &(String, Vec<usize>, Vec<f64>)| {
                    let value_type = Type::new(DataType::Float32, dims.clone());
                    Some(graph.input(name, value_type))
                })
                .collect();
            let mut forward = Forward::new(&mut graph, mode);
            let y = forward.apply("GridSample", &values, attributes.clone()).unwrap();
            let model = graph.finish(&[("y".to_owned(), y)]);
            Runner::new(&model, "GridSample").run(DataType::Float32, &fed).remove("y")
        });
        for (a, b) in composed.unwrap().iter().zip(native.unwrap()) {
            assert!((a - b).abs() < 1e-4, "{attributes:?}: {a} and {b}");
        }
    }
}

#[test]
fn grids_of_affine_maps() {
    let theta = within(&[2, 2, 3], -1.0, 1.0);
    for aligned in [0, 1] {
        let attributes = none().with("align_corners", aligned);
        check("AffineGrid", &[theta.clone(), ints(&[4], &[2, 3, 3, 4])], attributes);
    }
    let volume = [within(&[1, 3, 4], -1.0, 1.0), ints(&[5], &[1, 2, 2, 1, 3])];
    check("AffineGrid", &volume, none());
}

#[test]
fn more_places_than_fit_into_memory_are_refused() {
    let images: [&[usize]; 2] = [&[1, 1, 2, 2], &[1, 1 << 18, 1 << 18, 2]];
    let reason = refusal("GridSample", &images, vec![], none());
    assert!(reason.contains("[1, 262144, 262144], which is too large"), "{reason}");
    let sizes = TensorData::from_i64(&[4], &[1, 1, 1 << 40, 1 << 40]);
    let reason = refusal("AffineGrid", &[&[1, 2, 3]], vec![sizes], none());
    assert!(reason.contains("too large"), "{reason}");
}

#[test]
fn images_of_more_than_three_axes_are_refused() {
    let images: [&[usize]; 2] = [&[1; 42], &[&[1; 41][..], &[40]].concat()];
    let reason = refusal("GridSample", &images, vec![], none());
    assert!(reason.contains("more than 3 spatial axes"), "{reason}");
}
