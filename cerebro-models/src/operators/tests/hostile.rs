//! Inputs and settings made in bad faith: errors, never a panic, and no more work than fits.

use proptest::prelude::*;

use super::*;
use crate::operators::operators;

/// Settings that say how large something is, or where.
const SETTINGS: [&str; 16] = [
    "kernel_shape",
    "strides",
    "pads",
    "dilations",
    "axes",
    "group",
    "offset_group",
    "num_groups",
    "size",
    "p",
    "axis",
    "output_height",
    "output_width",
    "sampling_ratio",
    "block_size",
    "batch_dims",
];

fn size() -> impl Strategy<Value = usize> {
    prop_oneof![8 => 1..5usize, 1 => Just(0), 1 => Just(1 << 20), 1 => Just(1 << 40)]
}

fn setting() -> impl Strategy<Value = i64> {
    prop_oneof![8 => -2..5i64, 1 => Just(i64::MIN), 1 => Just(i64::MAX), 1 => Just(1 << 40)]
}

/// An input of floats or integers, or constant integers.
fn input() -> impl Strategy<Value = Input> {
    let dims = || prop::collection::vec(size(), 0..6);
    prop_oneof![
        4 => dims().prop_map(|dims| Input::Varied(dims, (0.0, 1.0))),
        2 => prop::collection::vec(setting(), 0..6).prop_map(|values| ints(&[values.len()], &values)),
        1 => Just(Input::None),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn operators_never_panic(
        which in any::<prop::sample::Index>(),
        inputs in prop::collection::vec(input(), 0..6),
        settings in prop::collection::vec(prop::collection::vec(setting(), 0..7), SETTINGS.len()),
        outputs in 1..3usize,
    ) {
        let all: Vec<_> = operators().filter(|operator| !operator.name.contains('.')).collect();
        let op = which.get(&all).name;
        let mut graph = Builder::new();
        let mut values = Vec::new();
        for (number, input) in inputs.iter().enumerate() {
            values.push(match input {
                Input::Varied(dims, _) => {
                    let value_type = Type::new(DataType::Float32, dims.clone());
                    if !value_type.is_possible() {
                        return Ok(());
                    }
                    Some(graph.input(format!("x{number}"), value_type))
                }
                Input::Constant(tensor) => Some(graph.constant(tensor.clone())),
                _ => None,
            });
        }
        let mut attributes = none();
        for (name, values) in SETTINGS.iter().zip(settings) {
            attributes = match values.as_slice() {
                [] => attributes,
                [one] => attributes.with(name, *one),
                several => attributes.with(name, several.to_vec()),
            };
        }
        let wanted: Vec<Value> = values.iter().copied().flatten().collect();
        let mut forward = Forward::new(&mut graph, Mode::Training);
        let Ok(found) = forward.apply_with_outputs(op, &values, attributes, outputs) else {
            return Ok(());
        };
        let tape = std::mem::take(&mut forward.tape);
        let seeds: Vec<(Value, Value)> = found
            .into_iter()
            .filter(|&output| graph.data_type(output) == DataType::Float32)
            .collect::<Vec<_>>()
            .into_iter()
            .map(|output| (output, graph.filled(1.0, output)))
            .collect();
        let _ = differentiate(&mut graph, &tape, &seeds, &wanted);
    }
}
