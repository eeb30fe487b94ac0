use super::*;

#[test]
fn sums_and_products_broadcast() {
    for op in ["Add", "Sub", "Mul"] {
        check(op, &[x(&[2, 3]), x(&[2, 3])], none());
        check(op, &[x(&[2, 3]), x(&[3])], none());
        check(op, &[x(&[]), x(&[2, 1, 3])], none());
        check(op, &[x(&[2, 1, 3]), x(&[4, 1])], none());
        check(op, &[x(&[1, 1]), x(&[1])], none());
    }
    for (a, b) in [(&[2, 3][..], &[2, 3][..]), (&[3], &[2, 1]), (&[2, 2], &[])] {
        check("Div", &[x(a), within(b, 0.5, 2.0)], none());
    }
}

#[test]
fn powers() {
    check("Pow", &[within(&[2, 3], 0.5, 2.0), x(&[2, 3])], none());
    check("Pow", &[within(&[2, 3], 0.5, 2.0), x(&[1])], none());
    for exponent in [2.0, 1.0, 3.0, -1.0, 0.5] {
        let exponent = Input::Constant(TensorData::from_f64(DataType::Float64, &[], &[exponent]));
        check("Pow", &[within(&[5], 0.5, 2.0), exponent], none());
    }
    check("Pow", &[x(&[4]), ints(&[], &[3])], none());
    check("Pow", &[x(&[2, 2]), ints(&[2], &[2, 3])], none());
}

#[test]
fn the_slope_of_a_square_is_right_at_zero_and_below() {
    let exponent = Input::Constant(TensorData::from_f64(DataType::Float64, &[], &[2.0]));
    check("Pow", &[Input::Given(vec![3], vec![0.0, -1.0, 2.0]), exponent], none());
}

#[test]
fn remainders() {
    let inputs = [within(&[2, 3], 0.1, 2.0), within(&[3], 3.0, 4.0)];
    check("Mod", &inputs, none().with("fmod", 1));
    check("Mod", &[within(&[4], 4.2, 5.8), within(&[1], 2.0, 2.1)], none().with("fmod", 1));
}

#[test]
fn variadic_operators() {
    let three = [x(&[2, 3]), x(&[3]), x(&[2, 1])];
    for op in ["Sum", "Mean", "Max", "Min"] {
        check(op, &three, none());
        check(op, &three[..1], none());
        check(op, &three[..2], none());
    }
}

#[test]
fn tied_maxima_share_the_gradient() {
    let tied = [Input::Given(vec![2], vec![1.0, 3.0]), Input::Given(vec![2], vec![1.0, 2.0])];
    let gradient = gradients_of("Max", &tied, none());
    assert_eq!(gradient["dx0"], [0.5, 1.0]);
    assert_eq!(gradient["dx1"], [0.5, 0.0]);
}

/// The gradients of the sum of the outputs.
fn gradients_of(op: &str, inputs: &[Input], attributes: Attributes) -> HashMap<String, Vec<f64>> {
    let mut graph = Builder::new();
    let mut fed = Vec::new();
    let mut values = Vec::new();
    for (index, input) in inputs.iter().enumerate() {
        let Input::Given(dims, numbers) = input else { panic!("given numbers") };
        let name = format!("x{index}");
        values.push(graph.input(&name, Type::new(DataType::Float64, dims.clone())));
        fed.push((name, dims.clone(), numbers.clone()));
    }
    let mut forward = Forward::new(&mut graph, Mode::Training);
    let optional: Vec<Option<Value>> = values.iter().copied().map(Some).collect();
    let output = forward.apply(op, &optional, attributes).unwrap();
    let tape = std::mem::take(&mut forward.tape);
    let ones = graph.filled(1.0, output);
    let found = differentiate(&mut graph, &tape, &[(output, ones)], &values).unwrap();
    let named: Vec<(String, Value)> =
        values.iter().zip(&fed).map(|(v, (name, ..))| (format!("d{name}"), found[v])).collect();
    Runner::new(&graph.finish(&named), op).run(DataType::Float64, &fed)
}

#[test]
fn functions_of_one_number() {
    for op in ["Neg", "Abs", "Exp", "Sign", "Floor", "Ceil", "Round"] {
        check(op, &[x(&[2, 3])], none());
        check(op, &[x(&[])], none());
    }
    for op in ["Sqrt", "Reciprocal", "Log"] {
        check(op, &[within(&[2, 3], 0.3, 3.0)], none());
    }
    check_single("Erf", &[x(&[7])], none());
}

#[test]
fn circular_and_hyperbolic_functions() {
    for op in ["Sin", "Sinh", "Cosh", "Asinh", "Atan"] {
        check_either(op, &[x(&[5])]);
    }
    check_either("Cos", &[x(&[5])]);
    check_either("Tan", &[within(&[5], -1.0, 1.0)]);
    for op in ["Asin", "Acos", "Atanh"] {
        check_either(op, &[within(&[5], -0.8, 0.8)]);
    }
    check_either("Acosh", &[within(&[5], 1.5, 3.0)]);
}

/// In 64 bits if there is such a kernel, else in 32.
fn check_either(op: &str, inputs: &[Input]) {
    const ONLY_SINGLE: [&str; 10] =
        ["Cos", "Tan", "Sinh", "Cosh", "Asinh", "Acosh", "Atanh", "Asin", "Acos", "Atan"];
    if ONLY_SINGLE.contains(&op) {
        check_single(op, inputs, none());
    } else {
        check(op, inputs, none());
    }
}

#[test]
fn clipping() {
    let bound =
        |value: f64| Input::Constant(TensorData::from_f64(DataType::Float64, &[], &[value]));
    check("Clip", &[x(&[2, 3]), bound(-0.7), bound(0.8)], none());
    check("Clip", &[x(&[6]), Input::None, bound(0.8)], none());
    check("Clip", &[x(&[6]), bound(0.1)], none());
    check("Clip", &[x(&[6])], none());
}
