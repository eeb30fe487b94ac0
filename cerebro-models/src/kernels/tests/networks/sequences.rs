//! Operators of networks over sequences, and of those that attend.

use super::*;
use crate::kernels::{
    EMBEDDING_GRADIENT, GELU, GRU, GRU_GRADIENT, LAYER_NORM_GRADIENT, LSTM, LSTM_GRADIENT, RNN,
    RNN_GRADIENT, SOFTMAX_GRADIENT,
};

/// A recurrent operator.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Unit {
    Lstm,
    /// Its reset gate multiplies the state.
    Gru,
    /// Its reset gate multiplies what the recurrence gives.
    LateGru,
    /// The hyperbolic tangent.
    Rnn,
    Rectified,
}

impl Unit {
    fn op(self) -> (&'static str, usize) {
        match self {
            Unit::Lstm => ("LSTM", 4),
            Unit::Gru | Unit::LateGru => ("GRU", 3),
            Unit::Rnn | Unit::Rectified => ("RNN", 1),
        }
    }

    fn kernels(self) -> [&'static str; 2] {
        match self {
            Unit::Lstm => [LSTM, LSTM_GRADIENT],
            Unit::Gru | Unit::LateGru => [GRU, GRU_GRADIENT],
            Unit::Rnn | Unit::Rectified => [RNN, RNN_GRADIENT],
        }
    }

    fn of(self, node: Node, directions: usize) -> Node {
        match self {
            Unit::LateGru => node.with("linear_before_reset", Attribute::Int(1)),
            Unit::Rectified => {
                node.with("activations", Attribute::Strings(vec!["Relu".to_owned(); directions]))
            }
            _ => node,
        }
    }
}

/// Whether biases and first states are given.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Given {
    All,
    Weights,
}

/// What is read of a recurrent network.
#[derive(Clone, Copy, Debug)]
enum Read {
    AllStates,
    LastState,
    LastCell,
}

/// A recurrent network between products.
fn recurrent_network(
    unit: Unit,
    given: Given,
    [steps, batch, features, hidden]: [usize; 4],
    direction: &str,
    read: Read,
) -> Small {
    let (op, gates) = unit.op();
    let directions = if direction == "bidirectional" { 2 } else { 1 };
    let mut small = Small::new(&[batch, steps, 3]);
    let first = small.weight(&[3, features], 0.0);
    small = small.node("MatMul", &[first], &[], &[batch, steps, features]);
    // Recurrent operators take time first.
    let order = |axes: &[i64]| [("perm", Attribute::Ints(axes.to_vec()))];
    small = small.node("Transpose", &[], &order(&[1, 0, 2]), &[steps, batch, features]);
    let mut inputs = vec![
        small.value(),
        small.weight(&[directions, gates * hidden, features], 0.0),
        small.weight(&[directions, gates * hidden, hidden], 0.0),
    ];
    if given == Given::All {
        inputs.push(small.weight(&[directions, 2 * gates * hidden], 0.0));
        inputs.push(String::new());
        let states = if unit == Unit::Lstm { 2 } else { 1 };
        inputs.extend((0..states).map(|_| small.weight(&[directions, batch, hidden], 0.0)));
    }
    small.count += 1;
    let name = small.value();
    let outputs = match read {
        Read::AllStates => vec![name.as_str()],
        Read::LastState => vec!["", name.as_str()],
        Read::LastCell => vec!["", "", name.as_str()],
    };
    let node = Node::new(op, inputs.iter().map(String::as_str), outputs)
        .with("hidden_size", Attribute::Int(hidden as i64))
        .with("direction", Attribute::String(direction.to_owned()));
    small.graph.nodes.push(unit.of(node, directions));
    let states = [directions, batch, hidden];
    small.shape = match read {
        Read::AllStates => [&[steps], &states[..]].concat(),
        Read::LastState | Read::LastCell => states.to_vec(),
    };
    let (last, mut shape) = (small.weight(&[hidden, 2], 0.0), small.shape.clone());
    *shape.last_mut().unwrap() = 2;
    small = small.node("MatMul", &[last], &[], &shape);
    match read {
        Read::AllStates => {
            let turned = order(&[2, 0, 1, 3]);
            small.node("Transpose", &[], &turned, &[batch, steps, directions, 2])
        }
        Read::LastState | Read::LastCell => {
            small.node("Transpose", &[], &order(&[1, 0, 2]), &[batch, directions, 2])
        }
    }
}

fn train_alike(unit: Unit, given: Given, sizes: [usize; 4], direction: &str, read: Read) {
    let network = || recurrent_network(unit, given, sizes, direction, read);
    let what = format!("{unit:?} {given:?} {sizes:?} {direction} {read:?}");
    agree_in(Dialect::FusedProducts, &what, &unit.kernels(), network);
}

#[test]
fn recurrent_networks_train_as_the_unrolled_ones_do() {
    // Hidden units that are no multiple of a vector, one step, more than one share of rows, more
    // hidden units than one block of a panel has.
    let sizes = [[5, 3, 4, 7], [1, 2, 3, 4], [4, 37, 2, 16], [3, 2, 5, 70]];
    for unit in [Unit::Lstm, Unit::Gru, Unit::LateGru, Unit::Rnn, Unit::Rectified] {
        for direction in ["forward", "reverse", "bidirectional"] {
            for sizes in sizes {
                train_alike(unit, Given::All, sizes, direction, Read::AllStates);
            }
            train_alike(unit, Given::Weights, sizes[0], direction, Read::AllStates);
            train_alike(unit, Given::All, sizes[0], direction, Read::LastState);
        }
    }
    for direction in ["forward", "reverse", "bidirectional"] {
        train_alike(Unit::Lstm, Given::All, sizes[0], direction, Read::LastCell);
    }
}

/// A plain network of which each direction has an activation of its own, or one that no kernel has.
#[test]
fn activations_of_directions_may_differ() {
    let network = |activations: [&str; 2]| {
        let (sizes, direction) = ([4, 3, 2, 5], "bidirectional");
        let mut small = recurrent_network(Unit::Rnn, Given::All, sizes, direction, Read::AllStates);
        let node = small.graph.nodes.iter_mut().find(|node| node.op == "RNN").unwrap();
        let names = activations.map(str::to_owned).to_vec();
        *node = node.clone().with("activations", Attribute::Strings(names));
        small
    };
    let dialect = Dialect::FusedProducts;
    agree_in(dialect, "two", &[RNN, RNN_GRADIENT], || network(["Tanh", "Relu"]));
    agree_in(dialect, "other", &[], || network(["Tanh", "Softsign"]));
    let nodes = operators(|| network(["Tanh", "Softsign"]), dialect);
    assert!(!nodes.iter().any(|op| op == in_domain(RNN)), "{nodes:?}");
}

#[test]
fn layer_normalization_trains_as_the_standard_operators_do() {
    for (rows, width) in [(3, 7), (130, 33)] {
        let network = || {
            let mut small = Small::new(&[rows, 4]);
            let weight = small.weight(&[4, width], 0.0);
            let small = small.node("MatMul", &[weight], &[], &[rows, width]);
            let mut small = small;
            let [scale, bias] = [1.0, 0.1].map(|around| small.weight(&[width], around));
            small.node("LayerNormalization", &[scale, bias], &[], &[rows, width])
        };
        agree(&format!("{rows} {width}"), &[LAYER_NORM_GRADIENT], network);
    }
}

#[test]
fn embeddings_train_as_the_standard_operators_do() {
    let network = || {
        let mut small = Small::new(&[6, 2]);
        let table = small.weight(&[5, 7], 0.0);
        // Row 1 twice, row -1 from the end, row 3 not at all.
        let picked = TensorData::from_i64(&[6], &[1, 0, 1, -1, 2, 4]);
        let picked = Node::new("Constant", [] as [&str; 0], ["picked"])
            .with("value", Attribute::Tensor(picked));
        let gather = Node::new("Gather", [table.as_str(), "picked"], ["rows"]);
        small.graph.nodes.extend([picked, gather]);
        let weight = small.weight(&[2, 7], 0.0);
        let small = small.node("MatMul", &[weight], &[], &[6, 7]);
        small.node("Add", &["rows".to_owned()], &[], &[6, 7])
    };
    agree("embedding", &[EMBEDDING_GRADIENT], network);
}

/// A product, then the Gaussian error linear unit as one node or as an exporter writes it, then
/// another product. `order` says in which order the last three factors come, `half` is one of them.
fn gelu_network(order: Option<[&str; 3]>, half: f32) -> Small {
    let mut small = Small::new(&[7, 5]);
    let weight = small.weight(&[5, 9], 0.0);
    small = small.node("MatMul", &[weight], &[], &[7, 9]);
    let x = small.value();
    let Some(order) = order else {
        let mut small = small.plain("Gelu");
        let weight = small.weight(&[9, 3], 0.0);
        return small.node("MatMul", &[weight], &[], &[7, 3]);
    };
    for (name, value) in [("root", std::f32::consts::SQRT_2), ("one", 1.0), ("half", half)] {
        let tensor = Attribute::Tensor(TensorData::from_f32(&[], &[value]));
        let constant = Node::new("Constant", [] as [&str; 0], [name]);
        small.graph.nodes.push(constant.with("value", tensor));
    }
    let named = |name: &str| if name == "x" { x.clone() } else { name.to_owned() };
    let [first, second, third] = order.map(named);
    for (op, inputs, output) in [
        ("Div", [x.as_str(), "root"], "scaled"),
        ("Erf", ["scaled", ""], "erf"),
        ("Add", ["one", "erf"], "gate"),
        ("Mul", [first.as_str(), &second], "two"),
    ] {
        let inputs: Vec<&str> = inputs.into_iter().filter(|name| !name.is_empty()).collect();
        small.graph.nodes.push(Node::new(op, inputs, [output]));
    }
    small.count += 1;
    let unit = small.value();
    small.graph.nodes.push(Node::new("Mul", ["two", third.as_str()], [unit.as_str()]));
    let weight = small.weight(&[9, 3], 0.0);
    small.node("MatMul", &[weight], &[], &[7, 3])
}

#[test]
fn a_gelu_that_is_written_out_is_trained_as_one() {
    agree("as one node", &[GELU], || gelu_network(None, 0.5));
    let expected = trained(|| gelu_network(None, 0.5), Dialect::Fused, 1);
    for order in [["x", "gate", "half"], ["half", "x", "gate"], ["gate", "half", "x"]] {
        let network = || gelu_network(Some(order), 0.5);
        agree(&format!("{order:?}"), &[GELU], network);
        assert_eq!(trained(network, Dialect::Fused, 1), expected, "{order:?}");
        let standard = operators(network, Dialect::Standard);
        assert_eq!(standard.iter().filter(|op| *op == "Gelu").count(), 1, "{standard:?}");
    }
    // Something like it stays as it is.
    let other = || gelu_network(Some(["x", "gate", "half"]), 0.25);
    assert!(operators(other, Dialect::Fused).iter().all(|op| op != in_domain(GELU)));
    let apart = trained(other, Dialect::Fused, 1);
    assert!(apart.iter().zip(&expected).any(|(a, b)| (a - b).abs() > 1e-3));
}

#[test]
fn a_gelu_written_out_gives_what_its_nodes_give() {
    // The sum with a part of it that something else reads keeps the nodes apart.
    let read_twice = || {
        let mut small = gelu_network(Some(["x", "gate", "half"]), 0.5);
        let zero = Attribute::Tensor(TensorData::from_f32(&[], &[0.0]));
        let constant = Node::new("Constant", [] as [&str; 0], ["zero"]).with("value", zero);
        small.graph.nodes.extend([
            constant,
            Node::new("ReduceMean", ["erf"], ["mean"]).with("keepdims", 0),
            Node::new("Mul", ["mean", "zero"], ["nothing"]),
        ]);
        let shape = small.shape.clone();
        small.node("Add", &["nothing".to_owned()], &[], &shape)
    };
    assert!(operators(read_twice, Dialect::Fused).iter().all(|op| op != in_domain(GELU)));
    let apart = trained(read_twice, Dialect::Fused, 1);
    let joined = trained(|| gelu_network(Some(["x", "gate", "half"]), 0.5), Dialect::Fused, 1);
    for (apart, joined) in apart.iter().zip(&joined) {
        assert!((apart - joined).abs() <= 2e-6, "{joined} is not {apart}");
    }
}

#[test]
fn below_frozen_weights_a_gelu_has_no_slope() {
    let network = || {
        let mut small = gelu_network(None, 0.5);
        small.frozen = vec!["w0".to_owned()];
        small
    };
    let nodes = operators(network, Dialect::Fused);
    assert!(nodes.iter().any(|op| op == "Gelu"), "{nodes:?}");
    assert_eq!(nodes.iter().filter(|op| op.contains("Gelu")).count(), 1, "{nodes:?}");
    agree("frozen", &[], network);
}

#[test]
fn softmax_along_the_last_axis_trains_as_the_standard_operators_do() {
    for (rows, width) in [(3, 7), (130, 130)] {
        let network = || {
            let mut small = Small::new(&[rows, 4]);
            let weight = small.weight(&[4, width], 0.0);
            small.node("MatMul", &[weight], &[], &[rows, width]).plain("Softmax")
        };
        agree(&format!("{rows} {width}"), &[SOFTMAX_GRADIENT], network);
    }
}

/// A product whose columns are cut into `parts`, of which the first is multiplied by the others.
fn split_network(parts: usize, used: usize) -> Small {
    let mut small = Small::new(&[6, 4]);
    let weight = small.weight(&[4, 3 * parts], 0.0);
    small = small.node("MatMul", &[weight], &[], &[6, 3 * parts]);
    let whole = small.value();
    small.count += 1;
    small.shape = vec![6, 3];
    let first = small.value();
    let names: Vec<String> =
        (0..parts).map(|part| if part == 0 { first.clone() } else { format!("p{part}") }).collect();
    small.graph.initializers.insert("axis".to_owned(), TensorData::from_i64(&[1], &[1]));
    for (part, name) in names.iter().enumerate() {
        let places = [("start", 3 * part), ("end", 3 * part + 3)].map(|(what, place)| {
            let (name, place) =
                (format!("{what}{part}"), TensorData::from_i64(&[1], &[place as i64]));
            small.graph.initializers.insert(name.clone(), place);
            name
        });
        let inputs = [whole.as_str(), &places[0], &places[1], "axis"];
        small.graph.nodes.push(Node::new("Slice", inputs, [name.as_str()]));
    }
    for name in &names[1..used] {
        small = small.node("Mul", std::slice::from_ref(name), &[], &[6, 3]);
    }
    small.plain("Tanh")
}

#[test]
fn gradients_of_parts_that_are_a_whole_are_put_side_by_side() {
    for parts in [2, 3] {
        agree("all parts", &[], || split_network(parts, parts));
        let nodes = operators(|| split_network(parts, parts), Dialect::Standard);
        assert!(nodes.iter().any(|op| op == "Concat"), "{nodes:?}");
        assert!(nodes.iter().all(|op| op != "Pad"), "{nodes:?}");
    }
    // Of three parts two are used: the third has a gradient of zeros.
    agree("some parts", &[], || split_network(3, 2));
    assert!(operators(|| split_network(3, 2), Dialect::Standard).iter().any(|op| op == "Pad"));
}
