use super::*;

#[test]
fn axes_are_cut_and_filled_evenly() {
    check("CenterCropPad", &[x(&[5, 4]), ints(&[2], &[2, 7])], none());
    check("CenterCropPad", &[x(&[2, 4, 3]), ints(&[1], &[1])], none().with("axes", vec![-2]));
    let attributes = none().with("axes", vec![2, 0]);
    check("CenterCropPad", &[x(&[2, 4, 3]), ints(&[2], &[6, 2])], attributes);
}

/// Of an odd number of elements the last end has one more, as in the reference of ONNX.
#[test]
fn the_odd_element_is_at_the_end() {
    let mut graph = Builder::new();
    let numbers: Vec<f32> = (1..=5).map(|number| number as f32).collect();
    let x = graph.constant(TensorData::from_f32(&[5], &numbers));
    let [cut, filled] = [2, 8].map(|size| {
        let size = graph.ints(&[size]);
        let mut forward = Forward::new(&mut graph, Mode::Training);
        forward.binary("CenterCropPad", x, size).unwrap()
    });
    let outputs = [("cut".to_owned(), cut), ("filled".to_owned(), filled)];
    let found = Runner::new(&graph.finish(&outputs), "CenterCropPad").run(DataType::Float32, &[]);
    assert_eq!(found["cut"], [2.0, 3.0]);
    assert_eq!(found["filled"], [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 0.0, 0.0]);
}
