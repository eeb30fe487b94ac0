use super::*;

const X: [f64; 8] = [-9.0, -1.3, -0.26, 0.2, 0.74, 1.0, 3.4, 40.0];

/// What quantizing and dequantizing gives of `x`, and the gradient of the sum of the results times 1, 2,
/// 3 and so on.
fn trained(
    dims: &[usize],
    scale: &TensorData,
    zero_point: Option<&TensorData>,
    attributes: &Attributes,
) -> [Vec<f64>; 2] {
    let mut graph = Builder::new();
    let x = graph.input("x", Type::new(DataType::Float32, dims));
    let scale = Some(graph.constant(scale.clone()));
    let zero_point = zero_point.map(|tensor| graph.constant(tensor.clone()));
    let mut forward = Forward::new(&mut graph, Mode::Training);
    let inputs = [Some(x), scale, zero_point];
    let quantized = forward.apply("QuantizeLinear", &inputs, attributes.clone()).unwrap();
    let inputs = [Some(quantized), scale, zero_point];
    let y = forward.apply("DequantizeLinear", &inputs, attributes.clone()).unwrap();
    let tape = std::mem::take(&mut forward.tape);
    let weights: Vec<f64> = (1..=X.len()).map(|number| number as f64).collect();
    let weights = graph.constant(TensorData::from_f64(DataType::Float32, dims, &weights));
    let gradients = differentiate(&mut graph, &tape, &[(y, weights)], &[x]).unwrap();
    let outputs = [("y".to_owned(), y), ("dx".to_owned(), gradients[&x])];
    let mut runner = Runner::new(&graph.finish(&outputs), "quantization");
    let fed = [("x".to_owned(), dims.to_vec(), X.to_vec())];
    let mut found = runner.run(DataType::Float32, &fed);
    ["y", "dx"].map(|name| found.remove(name).unwrap())
}

fn close(found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    for (found_one, expected_one) in found.iter().zip(expected) {
        let is_close = (found_one - expected_one).abs() <= 1e-6 * expected_one.abs();
        assert!(is_close, "{found:?}, not {expected:?}");
    }
}

/// PyTorch's `fake_quantize_per_tensor_affine(x, 0.5, 3, -128, 127)` and its gradient.
#[test]
fn gradients_pass_straight_through_what_is_rounded_and_not_through_what_is_clipped() {
    let scale = TensorData::from_f32(&[], &[0.5]);
    let zero_point = TensorData::from_integers(DataType::Uint8, &[], &[3]);
    let [y, dx] = trained(&[8], &scale, Some(&zero_point), &none());
    close(&y, &[-1.5, -1.5, -0.5, 0.0, 0.5, 1.0, 3.5, 40.0]);
    close(&dx, &[0.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]);
    let zero_point = TensorData::from_integers(DataType::Int8, &[1], &[100]);
    let [y, dx] = trained(&[2, 4], &scale, Some(&zero_point), &none());
    close(&y, &[-9.0, -1.5, -0.5, 0.0, 0.5, 1.0, 3.5, 13.5]);
    close(&dx, &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 0.0]);
}

#[test]
fn each_part_of_an_axis_may_have_a_scale_of_its_own() {
    let scale = TensorData::from_f32(&[2], &[0.5, 0.01]);
    let zero_points = TensorData::from_integers(DataType::Int8, &[2], &[0, 28]);
    let of_rows = none().with("axis", 0);
    let [y, dx] = trained(&[2, 4], &scale, Some(&zero_points), &of_rows);
    close(&y, &[-9.0, -1.5, -0.5, 0.0, 0.74, 0.99, 0.99, 0.99]);
    // The sixth is rounded to 128, which is too large.
    close(&dx, &[1.0, 2.0, 3.0, 4.0, 5.0, 0.0, 0.0, 0.0]);
    let [_, dx] = trained(&[4, 2], &scale, Some(&zero_points), &none());
    close(&dx, &[1.0, 2.0, 3.0, 4.0, 5.0, 0.0, 7.0, 0.0]);
}

#[test]
fn without_a_zero_point_eight_bits_without_a_sign_are_meant() {
    let scale = TensorData::from_f32(&[1], &[0.1]);
    let [_, dx] = trained(&[8], &scale, None, &none());
    close(&dx, &[0.0, 0.0, 0.0, 4.0, 5.0, 6.0, 7.0, 0.0]);
    let wide = none().with("output_dtype", DataType::Int16.code());
    let [y, dx] = trained(&[8], &scale, None, &wide);
    close(&y, &[-9.0, -1.3, -0.3, 0.2, 0.7, 1.0, 3.4, 40.0]);
    close(&dx, &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]);
}

/// Both forms of what ONNX Runtime's own operators give.
#[test]
fn what_is_given_is_what_the_native_operators_give() {
    let mut graph = Graph::default();
    let shape = [2, 4];
    graph.inputs = vec![ValueInfo::fixed("x", DataType::Float32, &shape)];
    let scale = TensorData::from_f32(&[2], &[0.5, 0.03]);
    let zero_points = TensorData::from_integers(DataType::Int8, &[2], &[-3, 28]);
    graph.initializers.insert("scale".to_owned(), scale.clone());
    graph.initializers.insert("zero".to_owned(), zero_points.clone());
    let quantize = Node::new("QuantizeLinear", ["x", "scale", "zero"], ["q"]).with("axis", 0);
    let dequantize = Node::new("DequantizeLinear", ["q", "scale", "zero"], ["y"]).with("axis", 0);
    graph.nodes = vec![quantize, dequantize];
    graph.outputs = vec![ValueInfo::fixed("y", DataType::Float32, &shape)];
    let mut runner = Runner::new(&Model::new(graph, crate::graph::OPSET), "native");
    let fed = [("x".to_owned(), shape.to_vec(), X.to_vec())];
    let native = &runner.run(DataType::Float32, &fed)["y"];
    let of_rows = none().with("axis", 0);
    close(&trained(&shape, &scale, Some(&zero_points), &of_rows)[0], native);
}

/// Weights that a file holds quantized are read and not trained.
#[test]
fn whole_numbers_of_a_file_are_dequantized() {
    let mut graph = Builder::new();
    let numbers = TensorData::from_integers(DataType::Int32, &[3], &[-4, 0, 1000]);
    let numbers = graph.constant(numbers);
    let scale = graph.constant(TensorData::from_f32(&[], &[0.25]));
    let inputs = [Some(numbers), Some(scale)];
    let mut forward = Forward::new(&mut graph, Mode::Training);
    let y = forward.apply("DequantizeLinear", &inputs, none()).unwrap();
    let mut runner = Runner::new(&graph.finish(&[("y".to_owned(), y)]), "DequantizeLinear");
    assert_eq!(runner.run(DataType::Float32, &[])["y"], [-1.0, 0.0, 250.0]);
}

#[test]
fn blocks_and_other_types_are_refused() {
    let scale = || TensorData::from_f32(&[2, 2], &[1.0; 4]);
    let blocks = none().with("block_size", 2);
    let reason = refusal("QuantizeLinear", &[&[2, 4]], vec![scale()], blocks.clone());
    assert!(reason.contains("for each block"), "{reason}");
    let reason = refusal("DequantizeLinear", &[&[2, 4]], vec![scale()], blocks);
    assert!(reason.contains("for each block"), "{reason}");
    let reason = refusal("QuantizeLinear", &[&[2, 4]], vec![scale()], none());
    assert!(reason.contains("do not fit axis 1"), "{reason}");
    let scalar = TensorData::from_f32(&[], &[1.0]);
    let four_bits = none().with("output_dtype", 22);
    let reason = refusal("QuantizeLinear", &[&[2]], vec![scalar], four_bits);
    assert!(reason.contains("8 or 16 bits"), "{reason}");
}
