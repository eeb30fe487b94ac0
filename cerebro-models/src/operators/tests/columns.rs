use super::*;

#[test]
fn images_of_columns() {
    let block = ints(&[2], &[2, 3]);
    check_linear("Col2Im", &[x(&[2, 12, 6]), ints(&[2], &[3, 5]), block.clone()], none());
    let attributes = none().with("strides", vec![2, 1]).with("pads", vec![1, 0, 0, 1]);
    check_linear("Col2Im", &[x(&[1, 6, 8]), ints(&[2], &[4, 5]), block.clone()], attributes);
    let attributes = none().with("dilations", vec![2, 1]).with("strides", vec![2, 2]);
    check_linear("Col2Im", &[x(&[1, 6, 4]), ints(&[2], &[6, 6]), block], attributes);
    check_linear(
        "Col2Im",
        &[x(&[2, 4, 2]), ints(&[1], &[5]), ints(&[1], &[2])],
        none().with("strides", vec![2]),
    );
}

/// Rows that count up, so that each element of the image says which ones it is the sum of.
#[test]
fn each_element_of_a_column_has_its_place() {
    let mut graph = Builder::new();
    let numbers: Vec<f64> = (1..=8).map(f64::from).collect();
    let columns = graph.constant(TensorData::from_f64(DataType::Float32, &[1, 4, 2], &numbers));
    let (image, block) = (graph.ints(&[2, 3]), graph.ints(&[2, 2]));
    let inputs = [Some(columns), Some(image), Some(block)];
    let image = Forward::new(&mut graph, Mode::Training).apply("Col2Im", &inputs, none()).unwrap();
    let mut runner = Runner::new(&graph.finish(&[("image".to_owned(), image)]), "Col2Im");
    let image = &runner.run(DataType::Float32, &[])["image"];
    assert_eq!(image, &[1.0, 2.0 + 3.0, 4.0, 5.0, 6.0 + 7.0, 8.0]);
}

#[test]
fn blocks_that_do_not_fit_into_memory_are_refused() {
    for size in [1 << 14, 1 << 40] {
        let sizes = TensorData::from_i64(&[2], &[size; 2]);
        let reason = refusal("Col2Im", &[&[1, 4, 1]], vec![sizes.clone(), sizes], none());
        assert!(reason.contains("too large"), "{reason}");
    }
}
