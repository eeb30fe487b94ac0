use super::*;

const OPS: [&str; 10] = [
    "ReduceSum",
    "ReduceMean",
    "ReduceMax",
    "ReduceMin",
    "ReduceProd",
    "ReduceL1",
    "ReduceL2",
    "ReduceSumSquare",
    "ReduceLogSum",
    "ReduceLogSumExp",
];

/// Positive, so that logarithms of sums exist.
fn input(dims: &[usize]) -> Input {
    within(dims, 0.5, 2.0)
}

#[test]
fn reductions_over_some_axes_and_over_all() {
    for op in OPS {
        for keep in [0, 1] {
            let attributes = none().with("keepdims", keep);
            check(op, &[input(&[2, 3, 2]), ints(&[1], &[1])], attributes.clone());
            check(op, &[input(&[2, 3, 2]), ints(&[2], &[0, -1])], attributes.clone());
            check(op, &[input(&[2, 3])], attributes.clone());
            check(op, &[input(&[1, 3]), ints(&[1], &[0])], attributes);
        }
    }
}

#[test]
fn no_axes_may_mean_no_reduction() {
    for op in OPS.iter().filter(|op| **op != "ReduceLogSumExp") {
        let attributes = none().with("noop_with_empty_axes", 1);
        if *op == "ReduceSum" || *op == "ReduceMean" {
            check(op, &[input(&[2, 3])], attributes);
        }
    }
}

#[test]
fn products_with_zeros_have_gradients() {
    let zeros = Input::Given(vec![2, 3], vec![0.0, 2.0, 3.0, 0.0, 0.0, 5.0]);
    check("ReduceProd", &[zeros, ints(&[1], &[1])], none());
}

#[test]
fn running_sums_in_both_directions() {
    for exclusive in [0, 1] {
        for reverse in [0, 1] {
            let attributes = none().with("exclusive", exclusive).with("reverse", reverse);
            check("CumSum", &[x(&[2, 3]), ints(&[], &[1])], attributes.clone());
            check("CumSum", &[x(&[2, 3]), ints(&[1], &[-2])], attributes);
        }
    }
}
