//! One head against its formula in float64, and its gradients against finite differences of that.

use cerebro_core::Seed;

use super::head::{Head, Operands, Rows, Target};
use crate::kernels::node::Parts;

/// Sizes of a head: queries, keys, elements of a key and of a value. One of each, no multiples of a
/// vector, more than one vector, more than one block of queries.
const SIZES: [[usize; 4]; 5] =
    [[1, 1, 1, 1], [5, 7, 3, 4], [3, 2, 9, 17], [2, 35, 33, 5], [101, 6, 5, 3]];

const SCALE: f32 = 0.7;

/// How far operands are moved to find a slope.
const STEP: f64 = 1e-5;

/// What is added to the scores: one row for each query, or one for all of them.
#[derive(Clone, Copy, Debug)]
enum Mask {
    None,
    /// Some keys are not to be seen, the first one is.
    Hiding,
    ByKey,
}

impl Mask {
    /// The elements, and how far apart the rows of two queries lie.
    fn of(self, queries: usize, keys: usize) -> Option<(Vec<f32>, usize)> {
        match self {
            Mask::None => None,
            Mask::Hiding => {
                let hide = |at: usize| if at % keys > at / keys { f32::NEG_INFINITY } else { 0.0 };
                Some(((0..queries * keys).map(hide).collect(), keys))
            }
            Mask::ByKey => Some((random("mask", keys), 0)),
        }
    }
}

fn random(name: &str, length: usize) -> Vec<f32> {
    let mut rng = Seed(5).derive(name, &[]).rng();
    (0..length).map(|_| rng.normal() as f32).collect()
}

/// Softmax of the scaled products of queries and keys, times the values (Vaswani et al. 2017).
fn mixed(
    [queries, keys, width, value_width]: [usize; 4],
    [query, key, value]: &[Vec<f64>; 3],
    mask: Option<&(Vec<f32>, usize)>,
) -> Vec<f64> {
    let mut mixed = Vec::new();
    for row in 0..queries {
        let score = |column: usize| {
            let of = |from: &[f64], at: usize| from[at * width..(at + 1) * width].to_vec();
            let products = of(query, row).into_iter().zip(of(key, column)).map(|(q, k)| q * k);
            let added = mask.map_or(0.0, |(mask, step)| f64::from(mask[row * step + column]));
            f64::from(SCALE) * products.sum::<f64>() + added
        };
        let exponentials: Vec<f64> = (0..keys).map(|column| score(column).exp()).collect();
        let total: f64 = exponentials.iter().sum();
        mixed.extend((0..value_width).map(|at| {
            let values = value.iter().skip(at).step_by(value_width);
            exponentials.iter().zip(values).map(|(share, value)| share * value).sum::<f64>() / total
        }));
    }
    mixed
}

fn target<'a, 'p>(elements: &'a Parts<'p, f32>, step: usize) -> Target<'a, 'p> {
    Target { elements, start: 0, step }
}

fn assert_close(what: &str, found: &[f32], expected: &[f64]) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
        let close = (f64::from(*found) - expected).abs() <= 1e-5 * (1.0 + expected.abs());
        assert!(close, "{what}: element {at} is {found}, should be {expected}");
    }
}

#[test]
fn a_head_and_its_gradients_are_those_of_the_formula() {
    for size in SIZES {
        for mask in [Mask::None, Mask::Hiding, Mask::ByKey] {
            check(size, mask);
        }
    }
}

fn check(size: [usize; 4], mask: Mask) {
    let what = format!("{size:?} {mask:?}");
    let [queries, keys, width, value_width] = size;
    let mask = mask.of(queries, keys);
    let lengths = [queries * width, keys * width, keys * value_width];
    let operands = ["query", "key", "value"];
    let operands = [0, 1, 2].map(|which| random(operands[which], lengths[which]));
    let weights = random("gradient", queries * value_width);

    let rows = |elements, step| Rows { elements, start: 0, step };
    let of_mask = mask.as_ref().map(|(mask, step)| rows(mask, *step));
    let head = Head { queries, keys, width, value_width, scale: SCALE, mask: of_mask };
    let [query, key, value] = &operands;
    let of = Operands {
        query: rows(query, width),
        key: rows(key, width),
        value: rows(value, value_width),
    };
    let mut found = vec![f32::NAN; queries * value_width];
    let mut statistics = vec![f32::NAN; 2 * queries];
    let mut gradients = lengths.map(|length| vec![f32::NAN; length]);
    // SAFETY: there is no other thread.
    unsafe {
        let mixed = Parts::of(&mut found);
        head.forward(of, target(&mixed, value_width), &mut statistics);
    }
    let given = [rows(&weights, value_width), rows(&found, value_width)];
    let [by_query, by_key, by_value] = gradients.each_mut().map(|of| Parts::of(of));
    let targets =
        [target(&by_query, width), target(&by_key, width), target(&by_value, value_width)];
    // SAFETY: the same.
    unsafe { head.backward(of, given, &statistics, targets) };

    let mask = mask.as_ref();
    let exact = operands.map(|operand| operand.into_iter().map(f64::from).collect::<Vec<_>>());
    assert_close(&what, &found, &mixed(size, &exact, mask));
    let loss = |operands: &[Vec<f64>; 3]| {
        let mixed = mixed(size, operands, mask);
        mixed.iter().zip(&weights).map(|(mixed, &weight)| mixed * f64::from(weight)).sum::<f64>()
    };
    for which in 0..3 {
        let slope = |at: usize| {
            let moved = |by: f64| {
                let mut moved = exact.clone();
                moved[which][at] += by;
                loss(&moved)
            };
            (moved(STEP) - moved(-STEP)) / (2.0 * STEP)
        };
        let expected: Vec<f64> = (0..lengths[which]).map(slope).collect();
        assert_close(&format!("{what}: gradient {which}"), &gradients[which], &expected);
    }
}
