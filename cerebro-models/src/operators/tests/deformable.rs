use super::*;

/// Offsets off the whole numbers, where there is no derivative.
fn offsets(dims: &[usize]) -> Input {
    let count = dims.iter().product();
    let mut rng = Seed(3).rng();
    let off = |_| rng.below(3) as f64 - 1.0 + 0.1 + 0.8 * rng.unit();
    Input::Given(dims.to_vec(), (0..count).map(off).collect())
}

#[test]
fn images_weights_offsets_and_masks() {
    let images = x(&[2, 2, 4, 5]);
    let padded = none().with("pads", vec![1, 1, 1, 1]);
    let (offset, mask) = (offsets(&[2, 18, 4, 5]), within(&[2, 9, 4, 5], 0.0, 1.0));
    let inputs = [images, x(&[3, 2, 3, 3]), offset, x(&[3]), mask];
    check("DeformConv", &inputs, padded.with("kernel_shape", vec![3, 3]));
}

#[test]
fn strides_dilations_and_groups() {
    let strided = none()
        .with("strides", vec![2, 1])
        .with("dilations", vec![1, 2])
        .with("pads", vec![0, 1, 1, 0])
        .with("group", 2)
        .with("offset_group", 2);
    // Places: (5 + 1 - 2) / 2 + 1 = 3 and 6 + 1 - 3 + 1 = 5.
    let inputs = [x(&[1, 4, 5, 6]), x(&[6, 2, 2, 2]), offsets(&[1, 16, 3, 5])];
    check("DeformConv", &inputs, strided.clone());
    let with_mask = [&inputs[..], &[Input::None, within(&[1, 8, 3, 5], 0.0, 1.0)]].concat();
    check("DeformConv", &with_mask, strided);
}

#[test]
fn series_and_volumes() {
    check("DeformConv", &[x(&[2, 2, 6]), x(&[1, 2, 2]), offsets(&[2, 2, 5])], none());
    let inputs = [x(&[1, 1, 2, 3, 2]), x(&[1, 1, 1, 2, 2]), offsets(&[1, 12, 2, 2, 1])];
    check("DeformConv", &inputs, none());
}

/// Without offsets it is a convolution.
#[test]
fn at_regular_places_it_is_a_convolution() {
    let mut graph = Builder::new();
    let mut rng = Seed(4).rng();
    let mut normal = |dims: &[usize]| {
        let values: Vec<f32> = (0..dims.iter().product()).map(|_| rng.normal() as f32).collect();
        TensorData::from_f32(dims, &values)
    };
    let (x, weight) = (normal(&[2, 4, 6, 5]), normal(&[6, 2, 3, 2]));
    let (x, weight) = (graph.constant(x), graph.constant(weight));
    let attributes = none().with("pads", vec![1, 0, 1, 1]).with("strides", vec![2, 1]);
    let attributes = attributes.with("group", 2).with("kernel_shape", vec![3, 2]);
    let mut forward = Forward::new(&mut graph, Mode::Training);
    let plain = forward.apply("Conv", &[x, weight].map(Some), attributes.clone()).unwrap();
    let offset = forward.graph.fill(0.0, DataType::Float32, &[2, 12, 3, 5]);
    let inputs = [x, weight, offset].map(Some);
    let deformed = forward.apply("DeformConv", &inputs, attributes).unwrap();
    let outputs = [("plain".to_owned(), plain), ("deformed".to_owned(), deformed)];
    let found = Runner::new(&graph.finish(&outputs), "DeformConv").run(DataType::Float32, &[]);
    for (plain, deformed) in found["plain"].iter().zip(&found["deformed"]) {
        assert!((plain - deformed).abs() < 1e-4, "{plain} and {deformed}");
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let refused = |dims: &[&[usize]], attributes| refusal("DeformConv", dims, vec![], attributes);
    let images: [&[usize]; 3] = [&[1, 2, 4, 4], &[1, 2, 2, 2], &[1, 8, 4, 4]];
    let reason = refused(&images, none());
    assert!(reason.contains("offsets [1, 8, 4, 4], not [1, 8, 3, 3]"), "{reason}");
    let reason = refused(&images, none().with("offset_group", 3));
    assert!(reason.contains("do not fit images"), "{reason}");
    let large: [&[usize]; 3] = [&[1, 1, 1 << 13, 1 << 13], &[1, 1, 2, 2], &[1, 8, 1, 1]];
    let reason = refused(&large, none());
    assert!(reason.contains("too large"), "{reason}");
}
