use super::*;

/// Weights of a recurrent operator with `gates` gates, 2 features, 3 hidden units.
fn weights(gates: usize, directions: usize) -> Vec<Input> {
    let small = |dims: &[usize]| within(dims, -0.8, 0.8);
    vec![
        x(&[3, 2, 2]),
        small(&[directions, gates * 3, 2]),
        small(&[directions, gates * 3, 3]),
        small(&[directions, 2 * gates * 3]),
    ]
}

fn check_all_outputs(op: &str, inputs: &[Input], attributes: Attributes, outputs: usize) {
    check_outputs(op, inputs, attributes.with("hidden_size", 3), outputs, DOUBLE);
}

#[test]
fn recurrent_operators_in_every_direction() {
    for (op, gates, outputs) in [("LSTM", 4, 3), ("GRU", 3, 2), ("RNN", 1, 2)] {
        for (direction, count) in [("forward", 1), ("reverse", 1), ("bidirectional", 2)] {
            let attributes = none().with("direction", direction);
            let inputs = weights(gates, count);
            check_all_outputs(op, &inputs, attributes.clone(), outputs);
            // Without biases, and the last state only.
            check_all_outputs(op, &inputs[..3], attributes, outputs);
        }
    }
}

#[test]
fn recurrent_operators_start_from_given_states() {
    let state = || within(&[1, 2, 3], -0.8, 0.8);
    for (op, gates) in [("GRU", 3), ("RNN", 1)] {
        let inputs = [weights(gates, 1), vec![Input::None, state()]].concat();
        check_all_outputs(op, &inputs, none(), 2);
    }
    let peepholes = within(&[1, 9], -0.8, 0.8);
    let inputs = [weights(4, 1), vec![Input::None, state(), state(), peepholes]].concat();
    check_all_outputs("LSTM", &inputs, none(), 3);
    check_all_outputs("LSTM", &inputs[..7], none(), 3);
}

#[test]
fn the_reset_gate_of_a_gru_may_come_late() {
    check_all_outputs("GRU", &weights(3, 1), none().with("linear_before_reset", 1), 2);
}

#[test]
fn a_sequence_of_one_step() {
    let inputs = [x(&[1, 1, 2]), x(&[1, 12, 2]), x(&[1, 12, 3])];
    check_all_outputs("LSTM", &inputs, none(), 3);
}

/// The unrolled form gives what ONNX Runtime's own operator gives.
#[test]
fn unrolled_and_native_forms_agree() {
    for (op, gates, outputs) in [("LSTM", 4, 3), ("GRU", 3, 2), ("RNN", 1, 2)] {
        for late in [0, 1] {
            let results = [Mode::Training, Mode::Inference].map(|mode| {
                let mut graph = Builder::new();
                let mut fed = Vec::new();
                let mut values = Vec::new();
                let mut rng = Seed(3).rng();
                for (index, input) in weights(gates, 2).iter().enumerate() {
                    let Input::Varied(dims, _) = input else { panic!("varied inputs") };
                    let numbers: Vec<f64> =
                        (0..dims.iter().product()).map(|_| rng.unit() - 0.5).collect();
                    let name = format!("x{index}");
                    let value_type = Type::new(DataType::Float32, dims.clone());
                    values.push(Some(graph.input(&name, value_type)));
                    fed.push((name, dims.clone(), numbers));
                }
                let mut attributes =
                    none().with("hidden_size", 3).with("direction", "bidirectional");
                if op == "GRU" {
                    attributes = attributes.with("linear_before_reset", late);
                }
                let mut forward = Forward::new(&mut graph, mode);
                let outputs = forward.apply_with_outputs(op, &values, attributes, outputs).unwrap();
                let names = ["a", "b", "c"];
                let named: Vec<(String, Value)> =
                    names.iter().zip(outputs).map(|(n, v)| ((*n).to_owned(), v)).collect();
                Runner::new(&graph.finish(&named), op).run(DataType::Float32, &fed)
            });
            for (name, values) in &results[0] {
                for (a, b) in values.iter().zip(&results[1][name]) {
                    assert!((a - b).abs() < 1e-5, "{op} {name}: {a} {b}");
                }
            }
        }
    }
}
