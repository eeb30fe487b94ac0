use super::*;
use crate::training::SEED;

/// Which of 10,000 elements two streams keep at one seed.
fn kept(seed: i64) -> Vec<Vec<bool>> {
    let mut graph = Builder::new();
    let x = graph.input("x", Type::new(DataType::Float32, [100, 100]));
    let mut forward = Forward::new(&mut graph, Mode::Training);
    let ratio = forward.graph.constant(TensorData::from_f32(&[], &[0.3]));
    let outputs =
        [(); 2].map(|()| forward.apply("Dropout", &[Some(x), Some(ratio)], none()).unwrap());
    let named = [("a".to_owned(), outputs[0]), ("b".to_owned(), outputs[1])];
    let mut runner = Runner::new(&graph.finish(&named), "dropout");
    let ones = Tensor::from_array(([100usize, 100], vec![1.0f32; 10_000])).unwrap();
    let seed = Tensor::from_array(([1usize], vec![seed])).unwrap();
    let inputs: Vec<(&str, SessionInputValue<'_>)> =
        vec![("x", ones.into_dyn().into()), (SEED, seed.into_dyn().into())];
    let outputs = runner.session.run(inputs).unwrap();
    ["a", "b"]
        .map(|name| {
            let values = outputs[name].try_extract_tensor::<f32>().unwrap().1;
            for value in values {
                assert!(*value == 0.0 || (value * 0.7 - 1.0).abs() < 1e-6, "{value}");
            }
            values.iter().map(|value| *value != 0.0).collect()
        })
        .to_vec()
}

/// The share of places where two masks agree.
fn agreement(a: &[bool], b: &[bool]) -> f64 {
    a.iter().zip(b).filter(|(a, b)| a == b).count() as f64 / a.len() as f64
}

#[test]
fn dropout_masks_follow_from_the_seed_and_from_nothing_else() {
    let first = kept(7);
    assert_eq!(first, kept(7));
    // Independent masks that keep 0.7 agree in 0.7 * 0.7 + 0.3 * 0.3 = 0.58 of all places.
    for other in [8, 6, 7 + 65_536, 0, i64::from(i32::MAX)].map(kept) {
        for mask in &other {
            let share = agreement(&first[0], mask);
            assert!((share - 0.58).abs() < 0.03, "{share}");
        }
    }
    assert!((agreement(&first[0], &first[1]) - 0.58).abs() < 0.03);
}

#[test]
fn dropout_keeps_the_share_that_it_should_everywhere() {
    for seed in [0, 1, 12_345] {
        for mask in kept(seed) {
            for part in mask.chunks(2_500) {
                let share = part.iter().filter(|kept| **kept).count() as f64 / 2_500.0;
                assert!((share - 0.7).abs() < 0.04, "{share}");
            }
            let neighbours = agreement(&mask[1..], &mask[..mask.len() - 1]);
            assert!((neighbours - 0.58).abs() < 0.03, "{neighbours}");
        }
    }
}
