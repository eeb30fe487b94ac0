use super::*;

#[test]
fn changes_of_shape() {
    check("Identity", &[x(&[2])], none());
    check("Reshape", &[x(&[2, 6]), ints(&[3], &[0, -1, 2])], none());
    check("Flatten", &[x(&[2, 3, 2])], none());
    check("Flatten", &[x(&[2, 3])], none().with("axis", 0));
    check("Flatten", &[x(&[2, 3])], none().with("axis", 2));
    check("Squeeze", &[x(&[1, 2, 1]), ints(&[1], &[-1])], none());
    check("Squeeze", &[x(&[1, 2, 1])], none());
    check("Unsqueeze", &[x(&[2]), ints(&[2], &[0, -1])], none());
    check("Transpose", &[x(&[2, 3, 2])], none());
    check("Transpose", &[x(&[2, 3, 2])], none().with("perm", vec![1, 2, 0]));
}

#[test]
fn copies() {
    check("Expand", &[x(&[2, 1]), ints(&[3], &[2, 2, 3])], none());
    check("Expand", &[x(&[3]), ints(&[1], &[1])], none());
    check("Tile", &[x(&[2, 3]), ints(&[2], &[2, 3])], none());
    check("Tile", &[x(&[2]), ints(&[1], &[1])], none());
}

#[test]
fn joins_and_splits() {
    check("Concat", &[x(&[2, 1]), x(&[2, 3]), x(&[2, 2])], none().with("axis", -1));
    check("Concat", &[x(&[1, 2])], none().with("axis", 0));
    let sizes = ints(&[3], &[1, 2, 2]);
    check_outputs("Split", &[x(&[2, 5]), sizes], none().with("axis", 1), 3, DOUBLE);
    check_outputs("Split", &[x(&[4, 2])], none().with("num_outputs", 2), 2, DOUBLE);
    check_outputs("Split", &[x(&[5])], none().with("num_outputs", 2), 2, DOUBLE);
}

#[test]
fn reversed_sequences() {
    let lengths = ints(&[3], &[4, 1, 3]);
    check("ReverseSequence", &[x(&[4, 3, 2]), lengths.clone()], none());
    let by_rows = none().with("batch_axis", 0).with("time_axis", 1);
    check("ReverseSequence", &[x(&[3, 5]), lengths], by_rows);
    check("ReverseSequence", &[x(&[2, 1]), ints(&[1], &[2])], none());
}

#[test]
fn slices_with_any_step() {
    let slice = |dims: &[usize], starts: &[i64], ends: &[i64], axes: &[i64], steps: &[i64]| {
        let list = |values: &[i64]| ints(&[values.len()], values);
        let inputs = [x(dims), list(starts), list(ends), list(axes), list(steps)];
        check("Slice", &inputs, none());
    };
    slice(&[5], &[1], &[4], &[0], &[1]);
    slice(&[7], &[1], &[i64::MAX], &[0], &[2]);
    slice(&[7], &[0], &[6], &[0], &[3]);
    slice(&[6], &[-1], &[i64::MIN], &[0], &[-1]);
    slice(&[7], &[5], &[0], &[0], &[-2]);
    slice(&[3, 5], &[1, -4], &[3, -1], &[0, 1], &[1, 2]);
    slice(&[3, 4], &[-2], &[100], &[-1], &[1]);
    check("Slice", &[x(&[4, 3]), ints(&[1], &[1]), ints(&[1], &[3])], none());
}

#[test]
fn pads_of_every_mode() {
    for mode in ["constant", "reflect", "edge", "wrap"] {
        let attributes = none().with("mode", mode);
        check("Pad", &[x(&[3]), ints(&[2], &[1, 2])], attributes.clone());
        check("Pad", &[x(&[2, 4]), ints(&[4], &[0, 2, 1, 1])], attributes.clone());
        check("Pad", &[x(&[2, 3]), ints(&[4], &[1, 0, 0, 2])], attributes);
    }
    check("Pad", &[x(&[4, 3]), ints(&[4], &[-1, 1, 0, -1])], none());
    let value = Input::Constant(TensorData::from_f64(DataType::Float64, &[], &[3.0]));
    let axes = ints(&[1], &[-1]);
    check("Pad", &[x(&[2, 3]), ints(&[2], &[1, 1]), value, axes], none());
}

#[test]
fn depth_and_space() {
    for mode in ["DCR", "CRD"] {
        let attributes = none().with("blocksize", 2).with("mode", mode);
        check("DepthToSpace", &[x(&[1, 8, 1, 2])], attributes);
    }
    check("SpaceToDepth", &[x(&[1, 2, 2, 4])], none().with("blocksize", 2));
}

#[test]
fn triangles() {
    for upper in [0, 1] {
        check("Trilu", &[x(&[2, 3, 3])], none().with("upper", upper));
        check("Trilu", &[x(&[3, 4]), ints(&[], &[1])], none().with("upper", upper));
    }
}

#[test]
fn choices_and_types() {
    let condition = TensorData::from_f64(DataType::Bool, &[2, 3], &[1.0, 0.0, 1.0, 0.0, 0.0, 1.0]);
    let condition = Input::Constant(condition);
    check("Where", &[condition.clone(), x(&[2, 3]), x(&[3])], none());
    check("Where", &[condition, x(&[]), x(&[2, 1])], none());
    check("Cast", &[x(&[3])], none().with("to", DataType::Float64.code()));
}
