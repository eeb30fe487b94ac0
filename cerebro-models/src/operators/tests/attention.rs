use super::*;
use crate::operators::GUARDED_SOFTMAX;

fn heads(queries: usize, keys: usize) -> [Input; 3] {
    [x(&[2, 4, queries, 3]), x(&[2, 2, keys, 3]), x(&[2, 2, keys, 2])]
}

#[test]
fn attention_of_heads_that_share_keys_and_values() {
    check("Attention", &heads(3, 4), none());
    check("Attention", &heads(3, 3), none().with("is_causal", 1).with("scale", 0.3f32));
    let [query, key, value] = heads(2, 4);
    check("Attention", &[query, key, value, x(&[2, 4])], none());
}

#[test]
fn attention_under_a_mask() {
    let mask = TensorData::from_integers(DataType::Bool, &[2, 4], &[1, 0, 1, 1, 0, 1, 0, 1]);
    let [query, key, value] = heads(2, 4);
    check("Attention", &[query, key, value, Input::Constant(mask)], none());
}

#[test]
fn attention_of_heads_side_by_side() {
    let attributes = none().with("q_num_heads", 4).with("kv_num_heads", 2);
    check("Attention", &[x(&[2, 3, 8]), x(&[2, 5, 4]), x(&[2, 5, 6])], attributes);
}

#[test]
fn capped_scores() {
    check("Attention", &heads(3, 4), none().with("softcap", 0.7f32));
}

#[test]
fn keys_and_values_of_earlier_calls() {
    let [query, key, value] = heads(2, 2);
    let past = [x(&[2, 2, 3, 3]), x(&[2, 2, 3, 2])];
    let [past_key, past_value] = past;
    let inputs = [query, key, value, Input::None, past_key, past_value];
    let attributes = none().with("is_causal", 1);
    check_outputs("Attention", &inputs, attributes, 3, DOUBLE);
}

#[test]
fn masks_and_windows_together() {
    let mask = TensorData::from_integers(DataType::Bool, &[3, 2], &[1, 0, 1, 1, 1, 1]);
    let [query, key, value] = heads(3, 3);
    let causal = none().with("is_causal", 1);
    let inputs = [query, key, value];
    let with = |mask: Input| [&inputs[..], &[mask]].concat();
    // The last key is hidden: the mask ends before it.
    check("Attention", &with(Input::Constant(mask)), causal.clone());
    check("Attention", &with(x(&[4, 3, 3])), causal);
    let window = none().with("left_window_size", 1).with("right_window_size", 1);
    check("Attention", &inputs, window);
}

/// Of what five queries see of four keys, the sums of numbers that say which.
fn seen(mask: &[i64], attributes: Attributes) -> Vec<f64> {
    let mut graph = Builder::new();
    let zeros = |dims: &[usize]| TensorData::from_f32(dims, &vec![0.0; dims.iter().product()]);
    let values = TensorData::from_f32(&[1, 1, 4, 1], &[1.0, 10.0, 100.0, 1000.0]);
    let mask = TensorData::from_integers(DataType::Bool, &[1, 1, 5, 4], mask);
    let inputs = [zeros(&[1, 1, 5, 2]), zeros(&[1, 1, 4, 2]), values, mask];
    let inputs = inputs.map(|tensor| Some(graph.constant(tensor)));
    let mut forward = Forward::new(&mut graph, Mode::Training);
    let y = forward.apply("Attention", &inputs, attributes).unwrap();
    let model = graph.finish(&[("y".to_owned(), y)]);
    Runner::new(&model, "Attention").run(DataType::Float32, &[]).remove("y").unwrap()
}

#[test]
fn a_query_that_sees_no_key_gets_zeros() {
    let mask = [0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 1, 1, 0, 0, 1];
    assert_eq!(seen(&mask, none()), [0.0, 1.0, 55.0, 1000.0, 500.5]);
    let causal = none().with("is_causal", 1);
    assert_eq!(seen(&mask, causal), [0.0, 1.0, 55.0, 1000.0, 500.5]);
    let window = none().with("left_window_size", 1);
    assert_eq!(seen(&[1; 20], window.clone().with("is_causal", 1))[2..], [55.0, 550.0, 1000.0]);
    assert_eq!(seen(&mask, window), [0.0, 1.0, 55.0, 1000.0, 1000.0]);
}

/// A softmax of scores under a mask, which hides all of the second row.
#[test]
fn a_row_of_which_all_is_hidden_has_a_gradient() {
    let hidden = f64::NEG_INFINITY;
    let zeros = TensorData::from_f64(DataType::Float64, &[], &[0.0]);
    let numbers = [0.0, hidden, 1.0, hidden, hidden, hidden, hidden, 0.5, -1.0];
    let numbers = TensorData::from_f64(DataType::Float64, &[3, 3], &numbers);
    let shown = TensorData::from_integers(DataType::Bool, &[3, 3], &[1, 0, 1, 0, 0, 0, 0, 1, 1]);
    for mask in [numbers, shown] {
        check_function("guarded", &[x(&[2, 3, 3])], DOUBLE, &mut |forward, values| {
            let g = &mut *forward.graph;
            let mut addend = g.constant(mask.clone());
            if mask.data_type() == DataType::Bool {
                let nothing = g.constant(zeros.clone());
                let hidden = g.scalar(hidden, nothing);
                // So that it is not folded.
                let none = g.total(values[0].unwrap());
                let never = g.binary("Less", none, hidden);
                let shown = g.binary("Or", addend, never);
                addend = g.select(shown, nothing, hidden);
            }
            let scores = forward.binary("Add", values[0].unwrap(), addend)?;
            Ok(vec![forward.apply(GUARDED_SOFTMAX, &[Some(scores)], none())?])
        });
    }
}

#[test]
fn a_causal_mask_that_does_not_fit_into_memory_is_refused() {
    let heads: [&[usize]; 3] = [&[1, 1, 1 << 18, 1]; 3];
    let reason = refusal("Attention", &heads, vec![], none().with("is_causal", 1));
    assert!(reason.contains("[262144, 262144], which is too large"), "{reason}");
}
