use super::*;

#[test]
fn gathered_rows_that_occur_twice_add_up() {
    check("Gather", &[x(&[4, 2]), ints(&[3], &[1, 3, 1])], none());
    check("Gather", &[x(&[4, 2]), ints(&[2, 2], &[0, -1, 3, 0])], none());
    check("Gather", &[x(&[2, 4, 2]), ints(&[2, 2], &[0, 3, 3, 1])], none().with("axis", 1));
    check("Gather", &[x(&[2, 4]), ints(&[3], &[2, 2, 2])], none().with("axis", -1));
    check("Gather", &[x(&[2, 4]), ints(&[], &[-1])], none().with("axis", 1));
    check("Gather", &[x(&[3, 2]), ints(&[1], &[1])], none());
}

#[test]
fn the_forms_for_one_thread_and_for_many_agree() {
    for one_thread in [false, true] {
        check_function("rows", &[x(&[4, 2])], DOUBLE, &mut |forward, inputs| {
            if one_thread {
                forward.graph.promise_one_thread();
            }
            let indices = forward.graph.ints(&[3, 0, 3]);
            Ok(vec![forward.apply("Gather", &[inputs[0], Some(indices)], none())?])
        });
    }
}

#[test]
fn gathered_elements() {
    let places = ints(&[2, 3], &[0, 1, 1, 1, 0, 1]);
    check("GatherElements", &[x(&[2, 3]), places.clone()], none());
    check("GatherElements", &[x(&[2, 4]), places], none().with("axis", 1));
}

#[test]
fn gathered_by_coordinates() {
    check("GatherND", &[x(&[2, 3, 2]), ints(&[3, 2], &[0, 1, 1, -1, 0, 1])], none());
    check("GatherND", &[x(&[2, 3]), ints(&[2, 2], &[0, 1, 0, 1])], none());
    let attributes = none().with("batch_dims", 1);
    check("GatherND", &[x(&[2, 3, 2]), ints(&[2, 1], &[2, 0])], attributes.clone());
    check("GatherND", &[x(&[2, 3]), ints(&[2, 2, 1], &[2, 0, 1, 1])], attributes);
}

#[test]
fn scattered_elements() {
    let places = ints(&[2, 2], &[0, 2, 1, 0]);
    for reduction in ["none", "add"] {
        let attributes = none().with("axis", 1).with("reduction", reduction);
        check("ScatterElements", &[x(&[2, 3]), places.clone(), x(&[2, 2])], attributes);
    }
}

#[test]
fn scattered_products_and_extrema_of_several_at_a_place() {
    let given = |dims: &[usize], values: &[f64]| Input::Given(dims.to_vec(), values.to_vec());
    for reduction in ["mul", "max", "min"] {
        let attributes = none().with("reduction", reduction);
        let places = ints(&[4, 1], &[2, 0, 2, 2]);
        check("ScatterND", &[x(&[3]), places, x(&[4])], attributes.clone());
        let attributes = attributes.with("axis", 1);
        let places = ints(&[2, 3], &[0, 2, 0, 1, -2, 1]);
        check("ScatterElements", &[x(&[2, 3]), places, x(&[2, 3])], attributes);
    }
    // No zero, one, and two of them.
    let updates = given(&[6], &[2.0, 3.0, 0.0, 5.0, 0.0, 0.0]);
    let places = ints(&[6], &[0, 0, 1, 1, 2, 2]);
    let data = given(&[4], &[1.5, -2.0, 4.0, 3.0]);
    check("ScatterElements", &[data, places, updates], none().with("reduction", "mul"));
}

#[test]
fn scattered_by_coordinates() {
    for reduction in ["none", "add"] {
        let attributes = none().with("reduction", reduction);
        check("ScatterND", &[x(&[4]), ints(&[2, 1], &[1, 3]), x(&[2])], attributes.clone());
        check("ScatterND", &[x(&[3, 2]), ints(&[2, 1], &[2, 0]), x(&[2, 2])], attributes);
    }
}

#[test]
fn on_several_threads_only_one_puts_what_is_taken_together_at_its_place() {
    for (one_thread, expected, avoided) in
        [(true, "ScatterND", "ScatterElements"), (false, "ScatterElements", "ScatterND")]
    {
        let scattered = |forward: &mut Forward<'_>, data, updates| {
            let places = TensorData::from_i64(&[3, 2], &[1, 2, 0, -1, -1, 2]);
            let places = Some(forward.graph.constant(places));
            let attributes = none().with("reduction", "add");
            forward.apply("ScatterND", &[data, places, updates], attributes)
        };
        let promise = |graph: &mut Builder| {
            if one_thread {
                graph.promise_one_thread();
            }
        };
        check_function(
            "scattered",
            &[x(&[2, 3, 2]), x(&[3, 2])],
            DOUBLE,
            &mut |forward, inputs| {
                promise(forward.graph);
                Ok(vec![scattered(forward, inputs[0], inputs[1])?])
            },
        );
        let mut graph = Builder::new();
        promise(&mut graph);
        let [data, updates] = [vec![2, 3, 2], vec![3, 2]]
            .map(|dims| Some(graph.input(format!("{dims:?}"), Type::new(DataType::Float32, dims))));
        let mut forward = Forward::new(&mut graph, Mode::Training);
        let y = scattered(&mut forward, data, updates).unwrap();
        let model = graph.finish(&[("y".to_owned(), y)]);
        let ops: Vec<&str> = model.graph.nodes.iter().map(|node| node.op.as_str()).collect();
        assert!(ops.contains(&expected) && !ops.contains(&avoided), "{ops:?}");
    }
}

#[test]
fn the_largest_and_the_smallest_elements() {
    for largest in [0, 1] {
        let attributes = none().with("largest", largest);
        check_outputs("TopK", &[x(&[2, 5]), ints(&[1], &[3])], attributes.clone(), 2, DOUBLE);
        let attributes = attributes.with("axis", 0);
        check_outputs("TopK", &[x(&[4, 2]), ints(&[1], &[1])], attributes, 2, DOUBLE);
    }
}
