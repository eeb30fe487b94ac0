use std::f64::consts::TAU;

use super::*;

fn inverse(inverse: bool, onesided: bool) -> Attributes {
    none().with("inverse", i64::from(inverse)).with("onesided", i64::from(onesided))
}

/// All kinds of transform, each of real or complex numbers.
const KINDS: [(usize, bool, bool); 6] = [
    (1, false, false),
    (2, false, false),
    (1, false, true),
    (1, true, false),
    (2, true, false),
    (2, true, true),
];

#[test]
fn transforms_of_all_kinds() {
    for (parts, is_inverse, is_half) in KINDS {
        for count in [1, 4, 5] {
            // One number alone is the half of nothing.
            if count > 1 || !(is_inverse && is_half) {
                check("DFT", &[x(&[2, count, parts])], inverse(is_inverse, is_half));
            }
        }
        for axis in [-3, 0, 1] {
            let inputs = [x(&[3, 4, 2, parts]), Input::None, ints(&[], &[axis])];
            check("DFT", &inputs, inverse(is_inverse, is_half));
        }
        for length in [3, 8] {
            let inputs = [x(&[5, 2, parts]), ints(&[], &[length]), ints(&[], &[0])];
            check("DFT", &inputs, inverse(is_inverse, is_half));
        }
    }
}

/// The transform of `kind` of numbers along the middle one of three axes, by its definition.
fn by_definition(
    numbers: &[f64],
    [batch, count, columns, parts]: [usize; 4],
    length: usize,
    (is_inverse, is_half): (bool, bool),
) -> Vec<f64> {
    let number = |b: usize, index: usize, c: usize| {
        let at = ((b * count + index) * columns + c) * parts;
        (numbers[at], if parts == 2 { numbers[at + 1] } else { 0.0 })
    };
    // A half stands for a whole whose other half mirrors it.
    let given = |b: usize, index: usize, c: usize| {
        let is_mirrored = is_inverse && is_half && 2 * index > length;
        let from = if is_mirrored { length - index } else { index };
        let (real, imaginary) = if from < count { number(b, from, c) } else { (0.0, 0.0) };
        (real, if is_mirrored { -imaginary } else { imaginary })
    };
    let to = if is_half && !is_inverse { length / 2 + 1 } else { length };
    let turn = if is_inverse { TAU } else { -TAU } / length as f64;
    let turns: Vec<_> = (0..length).map(|index| (turn * index as f64).sin_cos()).collect();
    let mut found = Vec::new();
    for (b, k, c) in
        (0..batch).flat_map(|b| (0..to).flat_map(move |k| (0..columns).map(move |c| (b, k, c))))
    {
        let mut sum = (0.0, 0.0);
        for index in 0..length {
            let (sine, cosine) = turns[index * k % length];
            let (real, imaginary) = given(b, index, c);
            sum.0 += real * cosine - imaginary * sine;
            sum.1 += real * sine + imaginary * cosine;
        }
        let scale = if is_inverse { 1.0 / length as f64 } else { 1.0 };
        found.push(scale * sum.0);
        if !(is_inverse && is_half) {
            found.push(scale * sum.1);
        }
    }
    found
}

/// What the graph gives for numbers of these sizes along the middle one of three axes.
fn transformed(
    sizes: [usize; 4],
    length: usize,
    (is_inverse, is_half): (bool, bool),
) -> (Vec<f64>, Vec<f64>) {
    let mut rng = Seed(length as u64).rng();
    let numbers: Vec<f64> = (0..sizes.iter().product()).map(|_| rng.unit() - 0.5).collect();
    let mut graph = Builder::new();
    let value = graph.input("x", Type::new(DataType::Float64, sizes));
    let of = |value: i64| TensorData::from_i64(&[], &[value]);
    let inputs = [value, graph.constant(of(length as i64)), graph.constant(of(1))].map(Some);
    let mut forward = Forward::new(&mut graph, Mode::Training);
    let y = forward.apply("DFT", &inputs, inverse(is_inverse, is_half)).unwrap();
    let mut runner = Runner::new(&graph.finish(&[("y".to_owned(), y)]), "DFT");
    let fed = [("x".to_owned(), sizes.to_vec(), numbers.clone())];
    (numbers, runner.run(DataType::Float64, &fed).remove("y").unwrap())
}

#[test]
fn short_and_long_transforms_are_those_of_the_definition() {
    for (parts, is_inverse, is_half) in KINDS {
        // A product with a matrix, or ONNX Runtime's operator.
        for (count, length) in
            [(6, 6), (7, 5), (4, 7), (1024, 1024), (1100, 1024), (600, 1024), (1450, 1500)]
        {
            let sizes = [1, count, 2, parts];
            let (numbers, found) = transformed(sizes, length, (is_inverse, is_half));
            let expected = by_definition(&numbers, sizes, length, (is_inverse, is_half));
            assert_eq!(found.len(), expected.len());
            for (found, expected) in found.iter().zip(expected) {
                let what = (sizes, length, is_inverse, is_half);
                assert!((found - expected).abs() < 1e-9, "{what:?}: {found} for {expected}");
            }
        }
    }
}

/// The gradient by one number of a long signal, of which each is a multiple.
#[test]
fn long_transforms() {
    for (parts, is_inverse, is_half) in KINDS {
        for (count, length) in [(1024, 1024), (1100, 1024), (600, 1024)] {
            let mut rng = Seed(5).rng();
            let numbers: Vec<f64> = (0..count * 3 * parts).map(|_| rng.unit() - 0.5).collect();
            let numbers = TensorData::from_f64(DataType::Float64, &[count, 3, parts], &numbers);
            let label = format!("{count} {length} {parts} {is_inverse} {is_half}");
            check_function(&label, &[x(&[3, 1])], DOUBLE, &mut |forward, values| {
                let numbers = forward.graph.constant(numbers.clone());
                let x = forward.binary("Mul", numbers, values[0].unwrap())?;
                let of = |value: i64| TensorData::from_i64(&[], &[value]);
                let length = forward.graph.constant(of(length));
                let axis = forward.graph.constant(of(0));
                let inputs = [x, length, axis].map(Some);
                Ok(vec![forward.apply("DFT", &inputs, inverse(is_inverse, is_half))?])
            });
        }
    }
}

#[test]
fn what_has_no_transform_is_refused() {
    let half = none().with("onesided", 1);
    assert!(refusal("DFT", &[&[2, 4, 2]], vec![], half).contains("one-sided"));
    assert!(refusal("DFT", &[&[2, 4, 3]], vec![], none()).contains("no real or complex"));
    assert!(refusal("DFT", &[&[2, 0, 1]], vec![], none()).contains("no numbers"));
    let (length, axis) = (TensorData::from_i64(&[], &[1 << 40]), TensorData::from_i64(&[], &[1]));
    let reason = refusal("DFT", &[&[2, 0, 1]], vec![length, axis], none());
    assert!(reason.contains("no numbers"), "{reason}");
}
