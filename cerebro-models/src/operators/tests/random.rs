use super::*;

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

/// What the graph of `mode` draws with `op`, twice.
fn drawn(mode: Mode, op: &str, like: Option<&[usize]>, attributes: Attributes) -> [Vec<f64>; 2] {
    let mut graph = Builder::new();
    let like = like.map(|dims| Some(graph.fill(0.25, DataType::Float32, dims)));
    let inputs: Vec<_> = like.into_iter().collect();
    let mut forward = Forward::new(&mut graph, mode);
    let named = ["a", "b"].map(|name| {
        let values = forward.apply(op, &inputs, attributes.clone()).unwrap();
        (name.to_owned(), values)
    });
    let mut outputs = Runner::new(&graph.finish(&named), op).run(DataType::Float32, &[]);
    ["a", "b"].map(|name| outputs.remove(name).unwrap())
}

fn mean_of(values: &[f64], f: impl Fn(f64) -> f64) -> f64 {
    values.iter().map(|&value| f(value)).sum::<f64>() / values.len() as f64
}

#[test]
fn each_node_draws_numbers_of_its_own() {
    for mode in [Mode::Training, Mode::Inference] {
        let [a, b] = drawn(mode, "RandomNormalLike", Some(&[100, 99]), none());
        let products: Vec<f64> = a.iter().zip(&b).map(|(a, b)| a * b).collect();
        assert!(mean_of(&products, |product| product).abs() < 0.04);
        // Neighbours, and the halves that come of the same pairs.
        for apart in [1, a.len() / 2] {
            let pairs = a.iter().zip(&a[apart..]);
            let products: Vec<f64> = pairs.map(|(a, b)| a * b).collect();
            assert!(mean_of(&products, |product| product).abs() < 0.05);
        }
        let again = drawn(mode, "RandomNormalLike", Some(&[100, 99]), none());
        assert_eq!(again, [a, b]);
    }
}

#[test]
fn normal_numbers_have_the_moments_that_they_should() {
    let attributes =
        none().with("shape", vec![301, 101]).with("scale", 0.5_f32).with("mean", 2.0_f32);
    for values in drawn(Mode::Training, "RandomNormal", None, attributes) {
        let moment = |power| mean_of(&values, |value| ((value - 2.0) / 0.5).powi(power));
        for (power, expected) in [(1, 0.0), (2, 1.0), (3, 0.0), (4, 3.0)] {
            assert!((moment(power) - expected).abs() < 0.15, "{power}: {}", moment(power));
        }
        let beyond = mean_of(&values, |value| f64::from((value - 2.0).abs() > 0.98));
        assert!((beyond - 0.05).abs() < 0.005, "{beyond}");
    }
}

#[test]
fn uniform_numbers_fill_their_range_evenly() {
    let attributes = none().with("low", -1.0_f32).with("high", 3.0_f32);
    for values in drawn(Mode::Training, "RandomUniformLike", Some(&[200, 100]), attributes) {
        assert!(values.iter().all(|value| (-1.0..3.0).contains(value)));
        for part in 0..8 {
            let low = -1.0 + 0.5 * f64::from(part);
            let share = mean_of(&values, |v| f64::from(low <= v && v < low + 0.5));
            assert!((share - 0.125).abs() < 0.01, "{low}: {share}");
        }
    }
}

#[test]
fn coins_fall_as_their_probability_says() {
    for values in drawn(Mode::Training, "Bernoulli", Some(&[200, 100]), none()) {
        assert!(values.iter().all(|&value| value == 0.0 || value == 1.0));
        assert!((mean_of(&values, |value| value) - 0.25).abs() < 0.01);
    }
}

#[test]
fn classes_are_drawn_as_often_as_they_are_probable() {
    let mut graph = Builder::new();
    let shares = [0.5_f64, 0.0, 0.3, 0.2];
    let logits: Vec<f64> = shares.map(f64::ln).repeat(2);
    let logits = graph.constant(TensorData::from_f64(DataType::Float32, &[2, 4], &logits));
    let attributes = none().with("sample_size", 5_000);
    let mut forward = Forward::new(&mut graph, Mode::Training);
    let classes = forward.apply("Multinomial", &[Some(logits)], attributes).unwrap();
    let classes = graph.cast(classes, DataType::Float32);
    let model = graph.finish(&[("classes".to_owned(), classes)]);
    let classes = &Runner::new(&model, "Multinomial").run(DataType::Float32, &[])["classes"];
    let (first, second) = classes.split_at(5_000);
    assert_ne!(first, second);
    for row in [first, second] {
        for (class, share) in (0..).map(f64::from).zip(shares) {
            let found = mean_of(row, |drawn| f64::from(drawn == class));
            assert!((found - share).abs() < 0.02, "{class}: {found}");
        }
    }
}

/// The draw of a variational autoencoder: mean and logarithm of the variance have gradients, the
/// noise has none.
#[test]
fn noise_is_a_constant_to_what_it_is_added_to() {
    let inputs = [x(&[3, 5]), x(&[3, 5])];
    check_function("draw", &inputs, DOUBLE, &mut |forward, values| {
        let deviation = forward.apply("Exp", &values[1..], none())?;
        let noise = forward.apply("RandomNormalLike", &[Some(deviation)], none())?;
        let noise = forward.binary("Mul", noise, deviation)?;
        Ok(vec![forward.binary("Add", values[0].unwrap(), noise)?])
    });
}

#[test]
fn more_numbers_than_there_are_places_are_refused() {
    for shape in [vec![1 << 40, 1 << 40], vec![1 << 20, 1 << 12], vec![-1]] {
        let attributes = none().with("shape", shape);
        let reason = refusal("RandomUniform", &[], vec![], attributes);
        assert!(["large", "2^31", "sizes"].iter().any(|word| reason.contains(word)), "{reason}");
    }
}
