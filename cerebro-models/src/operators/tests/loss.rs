use super::*;

#[test]
fn losses_inside_a_model() {
    for op in ["SoftmaxCrossEntropyLoss", "NegativeLogLikelihoodLoss"] {
        for reduction in ["mean", "sum", "none"] {
            let attributes = none().with("reduction", reduction);
            check(op, &[x(&[3, 4]), ints(&[3], &[0, 3, 1])], attributes.clone());
            let weights = Input::Constant(TensorData::from_f64(
                DataType::Float64,
                &[4],
                &[0.5, 1.0, 2.0, 3.0],
            ));
            let labels = ints(&[2, 3], &[0, 3, 1, 2, 2, 0]);
            let attributes = attributes.with("ignore_index", 3);
            check(op, &[x(&[2, 4, 3]), labels, weights], attributes);
        }
    }
}

#[test]
fn labels_without_rows_and_very_many_classes_are_refused() {
    let label = || vec![TensorData::from_i64(&[], &[1])];
    let reason = refusal("NegativeLogLikelihoodLoss", &[&[2, 3]], label(), none());
    assert!(reason.contains("3 classes along axis 1 of labels []"), "{reason}");
    let labels = vec![TensorData::from_i64(&[1], &[1])];
    let reason = refusal("NegativeLogLikelihoodLoss", &[&[1, 1 << 30]], labels, none());
    assert!(reason.contains("1073741824 classes"), "{reason}");
}
