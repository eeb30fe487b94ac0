use super::*;

fn angles(dims: &[usize]) -> [Input; 2] {
    [x(dims), x(dims)]
}

#[test]
fn rotations_of_all_of_a_head_and_of_a_part() {
    for interleaved in [0, 1] {
        let attributes = none().with("interleaved", interleaved);
        let [cosine, sine] = angles(&[2, 3, 2]);
        check("RotaryEmbedding", &[x(&[2, 2, 3, 4]), cosine, sine], attributes.clone());
        let part = attributes.with("rotary_embedding_dim", 2);
        let [cosine, sine] = angles(&[1, 3, 1]);
        check("RotaryEmbedding", &[x(&[2, 2, 3, 5]), cosine, sine], part);
    }
}

#[test]
fn rotations_of_heads_side_by_side_at_given_places() {
    let places = ints(&[2, 3], &[0, 1, 2, 4, 4, 0]);
    for interleaved in [0, 1] {
        let attributes = none().with("interleaved", interleaved).with("num_heads", 3);
        let [cosine, sine] = angles(&[5, 2]);
        check("RotaryEmbedding", &[x(&[2, 3, 12]), cosine, sine, places.clone()], attributes);
    }
}

/// The example of the paper: `c a - s b` and `s a + c b` of each pair.
#[test]
fn pairs_are_of_halves_or_of_neighbours() {
    let rotated = |interleaved: i64| {
        let mut graph = Builder::new();
        let tensor = |dims: &[usize], values: &[f32]| TensorData::from_f32(dims, values);
        let inputs = [
            tensor(&[1, 1, 5], &[1.0, 2.0, 3.0, 4.0, 9.0]),
            tensor(&[1, 1, 2], &[10.0, 100.0]),
            tensor(&[1, 1, 2], &[0.5, 0.25]),
        ];
        let inputs = inputs.map(|tensor| Some(graph.constant(tensor)));
        let attributes = none().with("interleaved", interleaved).with("num_heads", 1);
        let attributes = attributes.with("rotary_embedding_dim", 4);
        let mut forward = Forward::new(&mut graph, Mode::Inference);
        let y = forward.apply("RotaryEmbedding", &inputs, attributes).unwrap();
        let model = graph.finish(&[("y".to_owned(), y)]);
        Runner::new(&model, "RotaryEmbedding").run(DataType::Float32, &[]).remove("y").unwrap()
    };
    assert_eq!(rotated(0), [10.0 - 1.5, 200.0 - 1.0, 0.5 + 30.0, 0.5 + 400.0, 9.0]);
    assert_eq!(rotated(1), [10.0 - 1.0, 0.5 + 20.0, 300.0 - 1.0, 0.75 + 400.0, 9.0]);
}

#[test]
fn what_cannot_be_turned_is_refused() {
    let cases: [(&[&[usize]], &str); 3] = [
        (&[&[1, 1, 2, 3], &[1, 2, 1], &[1, 2, 1]], "in pairs"),
        (&[&[1, 1, 2, 4], &[1, 2, 1], &[1, 2, 1]], "should be 2"),
        (&[&[1, 2, 4], &[1, 2, 2], &[1, 2, 2]], "into 0 heads"),
    ];
    for (dims, expected) in cases {
        let reason = refusal("RotaryEmbedding", dims, vec![], none());
        assert!(reason.contains(expected), "{reason}");
    }
}
