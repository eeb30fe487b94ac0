use super::*;

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
fn a_causal_mask_that_does_not_fit_into_memory_is_refused() {
    let heads: [&[usize]; 3] = [&[1, 1, 1 << 18, 1]; 3];
    let reason = refusal("Attention", &heads, vec![], none().with("is_causal", 1));
    assert!(reason.contains("[262144, 262144], which is too large"), "{reason}");
}
