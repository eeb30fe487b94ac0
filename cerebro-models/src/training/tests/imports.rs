//! Files as exporters of any age write them.

use super::*;
use crate::onnx::{Attribute, Function};
use crate::training::Selection;
use crate::training::signature::GRAPH_SIGNATURE;

const X: [f32; 6] = [1.0, -2.0, 3.0, 4.0, 0.5, -1.0];

fn scale() -> (&'static str, TensorData) {
    ("scale", TensorData::from_f32(&[1], &[2.0]))
}

/// What a model of these nodes, after doubling `x`, predicts for two rows of three.
fn of_nodes(opset: i64, y: &[usize], nodes: Vec<Node>, more: Vec<(&str, TensorData)>) -> Vec<f32> {
    let mut all = vec![Node::new("Mul", ["x", "scale"], ["doubled"])];
    all.extend(nodes);
    let mut initializers = vec![scale()];
    initializers.extend(more);
    let mut model = model(&[3], y, all, initializers);
    model.opsets.insert(String::new(), opset);
    predict(model, &X, 2)
}

#[test]
fn axes_that_are_attributes_in_older_files() {
    let nodes = || {
        vec![
            Node::new("Unsqueeze", ["doubled"], ["a"]).with("axes", vec![1]),
            Node::new("ReduceSum", ["a"], ["b"]).with("axes", vec![1]).with("keepdims", 1),
            Node::new("ReduceMax", ["b"], ["c"]).with("axes", vec![-1]).with("keepdims", 1),
            Node::new("Squeeze", ["c"], ["y"]).with("axes", vec![1]),
        ]
    };
    for opset in [11, 12] {
        assert_eq!(of_nodes(opset, &[1], nodes(), vec![]), [6.0, 8.0]);
    }
}

#[test]
fn splits_of_every_version() {
    let split = |node: Node| vec![node, Node::new("Concat", ["b", "a"], ["y"]).with("axis", 1)];
    let expected = [6.0, 2.0, -4.0, -2.0, 8.0, 1.0];
    let old = Node::new("Split", ["doubled"], ["a", "b"]).with("axis", 1).with("split", vec![2, 1]);
    assert_eq!(of_nodes(11, &[3], split(old), vec![]), expected);
    let sizes = ("sizes", TensorData::from_i64(&[2], &[2, 1]));
    let newer = Node::new("Split", ["doubled", "sizes"], ["a", "b"]).with("axis", 1);
    assert_eq!(of_nodes(13, &[3], split(newer), vec![sizes]), expected);
    let even = Node::new("Split", ["doubled"], ["a", "b"]).with("axis", 1).with("num_outputs", 2);
    assert_eq!(of_nodes(18, &[3], split(even), vec![]), expected);
}

/// By Parseval's theorem the squares of a transform of three numbers are three times theirs.
#[test]
fn a_fourier_transform_of_an_older_file_has_its_axis_as_attribute() {
    let axes = ("axes", TensorData::from_i64(&[2], &[2, 3]));
    let all = ("all", TensorData::from_i64(&[3], &[1, 2, 3]));
    let transform = Node::new("DFT", ["a"], ["b"]);
    for transform in [transform.clone(), transform.with("axis", -3)] {
        let nodes = vec![
            Node::new("Unsqueeze", ["doubled", "axes"], ["a"]),
            transform,
            Node::new("ReduceSumSquare", ["b", "all"], ["y"]).with("keepdims", 0),
        ];
        let found = of_nodes(19, &[], nodes, vec![axes.clone(), all.clone()]);
        assert!((found[0] - 3.0 * 56.0).abs() < 1e-3, "{found:?}");
        assert!((found[1] - 3.0 * 69.0).abs() < 1e-3, "{found:?}");
    }
}

#[test]
fn a_softmax_of_an_older_file_sees_a_matrix() {
    let nodes = || {
        vec![
            Node::new("Reshape", ["doubled", "shape"], ["a"]),
            Node::new("Softmax", ["a"], ["b"]).with("axis", 1),
            Node::new("ReduceSum", ["b"], ["y"]).with("axes", vec![1, 2]).with("keepdims", 0),
        ]
    };
    let shape = || ("shape", TensorData::from_i64(&[3], &[0, 3, 1]));
    let close = |found: Vec<f32>| found.iter().all(|sum| (sum - 1.0).abs() < 1e-6);
    assert!(close(of_nodes(11, &[], nodes(), vec![shape()])));
    assert!(close(of_nodes(12, &[], nodes(), vec![shape()])));
}

#[test]
fn dropout_of_an_older_file_is_nothing_at_inference() {
    let node = Node::new("Dropout", ["doubled"], ["y"]).with("ratio", 0.5f32);
    assert_eq!(of_nodes(11, &[3], vec![node], vec![]), X.map(|x| 2.0 * x));
}

#[test]
fn groups_that_share_scales_in_older_files() {
    let nodes = || {
        vec![
            Node::new("Reshape", ["doubled", "shape"], ["a"]),
            Node::new("GroupNormalization", ["a", "gain", "bias"], ["b"]).with("num_groups", 1),
            Node::new("ReduceMean", ["b"], ["y"]).with("keepdims", 1),
        ]
    };
    let shape = ("shape", TensorData::from_i64(&[3], &[2, 3, 1]));
    let gain = ("gain", TensorData::from_f32(&[1], &[3.0]));
    let bias = ("bias", TensorData::from_f32(&[1], &[0.25]));
    let found = of_nodes(18, &[1, 1], nodes(), vec![shape, gain, bias]);
    assert!((found[0] - 0.25).abs() < 1e-5, "{found:?}");
}

#[test]
fn shape_arithmetic_over_a_symbolic_batch_is_resolved() {
    let nodes = vec![
        Node::new("Shape", ["doubled"], ["shape"]),
        Node::new("Gather", ["shape", "zero"], ["batch"]).with("axis", 0),
        Node::new("Unsqueeze", ["batch", "axis"], ["first"]),
        Node::new("Constant", [], ["minus"]).with("value_ints", vec![-1]),
        Node::new("Concat", ["first", "minus"], ["target"]).with("axis", 0),
        Node::new("Reshape", ["doubled", "target"], ["y"]),
    ];
    let more =
        vec![("zero", TensorData::from_i64(&[], &[0])), ("axis", TensorData::from_i64(&[1], &[0]))];
    assert_eq!(of_nodes(18, &[3], nodes, more), X.map(|x| 2.0 * x));
}

#[test]
fn a_branch_with_a_constant_condition_is_taken() {
    let branch = |op: &str| {
        let graph = Graph {
            name: "branch".to_owned(),
            nodes: vec![Node::new(op, ["doubled"], [op])],
            outputs: vec![rows(op, &[3])],
            ..Graph::default()
        };
        Attribute::Graph(Box::new(graph))
    };
    let nodes = vec![
        Node::new("Shape", ["x"], ["shape"]),
        Node::new("Size", ["shape"], ["rank"]),
        Node::new("Equal", ["rank", "two"], ["is_matrix"]),
        Node::new("If", ["is_matrix"], ["y"])
            .with("then_branch", branch("Neg"))
            .with("else_branch", branch("Relu")),
    ];
    let two = ("two", TensorData::from_i64(&[], &[2]));
    assert_eq!(of_nodes(18, &[3], nodes, vec![two]), X.map(|x| -2.0 * x));
}

#[test]
fn sequences_are_resolved() {
    let nodes = vec![
        Node::new("SplitToSequence", ["doubled", "one"], ["parts"]).with("axis", 1),
        Node::new("SequenceAt", ["parts", "last"], ["third"]),
        Node::new("SequenceInsert", ["parts", "third", "zero"], ["more"]),
        Node::new("ConcatFromSequence", ["more"], ["y"]).with("axis", 1),
    ];
    let number = |value: i64| TensorData::from_i64(&[], &[value]);
    let more = vec![("one", number(1)), ("last", number(-1)), ("zero", number(0))];
    let expected = [6.0, 2.0, -4.0, 6.0, -2.0, 8.0, 1.0, -2.0];
    assert_eq!(of_nodes(18, &[4], nodes, more), expected);
}

#[test]
fn parts_whose_sizes_are_repeated_numbers() {
    let nodes = vec![
        Node::new("Tile", ["two", "once"], ["larger"]),
        Node::new("Tile", ["one", "once"], ["smaller"]),
        Node::new("Tile", ["one", "never"], ["nothing"]),
        Node::new("Concat", ["larger", "smaller", "nothing"], ["sizes"]).with("axis", 0),
        Node::new("SplitToSequence", ["doubled", "sizes"], ["parts"]).with("axis", 1),
        Node::new("SequenceAt", ["parts", "zero"], ["y"]),
    ];
    let list = |values: &[i64]| TensorData::from_i64(&[values.len()], values);
    let zero = ("zero", TensorData::from_i64(&[], &[0]));
    let (one, two) = (("one", list(&[1])), ("two", list(&[2])));
    let more = vec![one, two, ("once", list(&[1])), ("never", list(&[0])), zero];
    assert_eq!(of_nodes(18, &[2], nodes, more), [2.0, -4.0, 8.0, 1.0]);
}

#[test]
fn the_places_that_are_not_zero_in_a_constant() {
    let nodes = vec![
        Node::new("NonZero", ["mask"], ["places"]),
        Node::new("Transpose", ["places"], ["coordinates"]),
        Node::new("GatherND", ["doubled", "coordinates"], ["picked"]),
        Node::new("Reshape", ["picked", "shape"], ["y"]),
    ];
    let mask = TensorData::from_integers(DataType::Bool, &[2, 3], &[0, 1, 1, 1, 0, 1]);
    let shape = TensorData::from_i64(&[2], &[2, 2]);
    let found = of_nodes(18, &[2], nodes, vec![("mask", mask), ("shape", shape)]);
    assert_eq!(found, [-4.0, 6.0, 8.0, -2.0]);
}

#[test]
fn functions_are_inlined_with_their_attributes() {
    let inner = Function {
        name: "Leaky".to_owned(),
        domain: "local".to_owned(),
        inputs: vec!["a".to_owned()],
        outputs: vec!["b".to_owned()],
        defaults: [("slope".to_owned(), Attribute::Float(0.5))].into(),
        nodes: vec![
            Node::new("LeakyRelu", ["a"], ["t"])
                .with("alpha", Attribute::Reference("slope".to_owned())),
            Node::new("Identity", ["t"], ["b"]),
        ],
        ..Function::default()
    };
    let mut call = Node::new("Leaky", ["a"], ["b"]);
    call.domain = "local".to_owned();
    let outer = Function {
        name: "Twice".to_owned(),
        nodes: vec![call.clone(), {
            let mut second = Node::new("Leaky", ["b"], ["c"]).with("slope", 0.25f32);
            second.domain = "local".to_owned();
            second
        }],
        outputs: vec!["c".to_owned()],
        defaults: std::collections::BTreeMap::new(),
        ..inner.clone()
    };
    let mut twice = Node::new("Twice", ["doubled"], ["y"]);
    twice.domain = "local".to_owned();
    let nodes = vec![Node::new("Mul", ["x", "scale"], ["doubled"]), twice];
    let mut model = model(&[3], &[3], nodes, vec![scale()]);
    model.functions = vec![inner, outer];
    let expected = X.map(|x| if x > 0.0 { 2.0 * x } else { 2.0 * 0.125 * x });
    assert_eq!(predict(model, &X, 2), expected);
}

/// PyTorch writes padding that keeps the size, `clamp(2 ceil(size / 2) - size, min=0)` and the like,
/// as arithmetic on floats.
#[test]
fn sizes_that_were_computed_with_floats() {
    let float = |name: &str, input: &str| Node::new("Cast", [input], [name]).with("to", 1);
    let nodes = vec![
        Node::new("Shape", ["doubled"], ["shape"]),
        Node::new("Gather", ["shape", "one"], ["size"]).with("axis", 0),
        float("columns", "size"),
        float("stride", "two"),
        Node::new("Div", ["columns", "stride"], ["half"]),
        Node::new("Ceil", ["half"], ["places"]),
        Node::new("Mul", ["places", "stride"], ["covered"]),
        Node::new("Sub", ["covered", "columns"], ["missing"]),
        float("least", "zero"),
        Node::new("Clip", ["missing", "least", ""], ["after"]),
        Node::new("Cast", ["after"], ["after_whole"]).with("to", 7),
        Node::new("Concat", ["zeros", "after_whole"], ["pads"]).with("axis", 0),
        Node::new("Pad", ["doubled", "pads"], ["y"]),
    ];
    let more = vec![
        ("one", TensorData::from_i64(&[1], &[1])),
        ("two", TensorData::from_i64(&[], &[2])),
        ("zero", TensorData::from_i64(&[], &[0])),
        ("zeros", TensorData::from_i64(&[3], &[0, 0, 0])),
    ];
    assert_eq!(of_nodes(17, &[4], nodes, more), [2.0, -4.0, 6.0, 0.0, 8.0, 1.0, -2.0, 0.0]);
}

/// PyTorch's older exporter writes `repeat_interleave` with how often to repeat as a one-hot vector.
#[test]
fn repeats_from_a_one_hot_vector() {
    let nodes = vec![
        Node::new("OneHot", ["axis", "rank", "values"], ["repeats"]),
        Node::new("Reshape", ["repeats", "flat"], ["flat_repeats"]),
        Node::new("Tile", ["doubled", "flat_repeats"], ["y"]),
    ];
    let more = vec![
        ("axis", TensorData::from_i64(&[1], &[-1])),
        ("rank", TensorData::from_i64(&[], &[2])),
        ("values", TensorData::from_i64(&[2], &[1, 2])),
        ("flat", TensorData::from_i64(&[1], &[-1])),
    ];
    let expected = [2.0, -4.0, 6.0, 2.0, -4.0, 6.0, 8.0, 1.0, -2.0, 8.0, 1.0, -2.0];
    assert_eq!(of_nodes(17, &[6], nodes, more), expected);
}

#[test]
fn equal_tensors_that_an_exporter_merged_are_trained_apart() {
    let ones = TensorData::from_f32(&[3], &[1.0; 3]);
    let nodes = vec![
        Node::new("Identity", ["first"], ["second"]),
        Node::new("Mul", ["x", "first"], ["a"]),
        Node::new("Mul", ["a", "second"], ["y"]),
    ];
    let blueprint =
        Blueprint::new(model(&[3], &[3], nodes.clone(), vec![("first", ones)]), spec()).unwrap();
    let names = |blueprint: &Blueprint| -> Vec<String> {
        blueprint.variables().iter().map(|variable| variable.name.clone()).collect()
    };
    assert_eq!(names(&blueprint), ["first", "second"]);
    // Tied weights are never equal by accident.
    let tied = TensorData::from_f32(&[3], &[1.0, 2.0, 3.0]);
    let blueprint =
        Blueprint::new(model(&[3], &[3], nodes, vec![("first", tied)]), spec()).unwrap();
    assert_eq!(names(&blueprint), ["first"]);
}

/// PyTorch's newer exporter says which tensors were parameters.
#[test]
fn buffers_and_constants_are_not_trained() {
    let tensor = || TensorData::from_f32(&[3], &[1.0, 2.0, 3.0]);
    let nodes = vec![
        Node::new("Mul", ["x", "weight"], ["a"]),
        Node::new("Add", ["a", "mask"], ["b"]),
        Node::new("Mul", ["b", "val_7"], ["y"]),
    ];
    let initializers = vec![("weight", tensor()), ("mask", tensor()), ("val_7", tensor())];
    let mut model = model(&[3], &[3], nodes, initializers);
    let names = |model: &Model| -> Vec<String> {
        let blueprint = Blueprint::new(model.clone(), spec()).unwrap();
        blueprint.variables().iter().map(|variable| variable.name.clone()).collect()
    };
    assert_eq!(names(&model), ["weight", "mask", "val_7"]);
    let signature = "\n# inputs\np_weight: PARAMETER target='weight'\n\
        b_mask: BUFFER target='mask' persistent=False\nx: USER_INPUT\n\n# outputs\n\
        mul: USER_OUTPUT\n";
    model.metadata.insert(GRAPH_SIGNATURE.to_owned(), signature.to_owned());
    assert_eq!(names(&model), ["weight"]);
    // A parameter that is gone: the exporter's optimizer has made something else of it.
    let folded = signature.replace("x: USER_INPUT", "p_fc: PARAMETER target='fc'\nx: USER_INPUT");
    model.metadata.insert(GRAPH_SIGNATURE.to_owned(), folded);
    assert_eq!(names(&model), ["weight", "val_7"]);
}

/// PyTorch's exporters compute the statistics of an instance normalization from running ones.
#[test]
fn running_statistics_of_no_batch_normalization_stay_as_they_are() {
    let nodes = vec![
        Node::new("Sub", ["x", "norm.running_mean"], ["centered"]),
        Node::new("Div", ["centered", "norm.running_var"], ["normalized"]),
        Node::new("Mul", ["normalized", "norm.weight"], ["y"]),
    ];
    let tensor = || TensorData::from_f32(&[3], &[1.0, 2.0, 3.0]);
    let of_norm = ["norm.running_mean", "norm.running_var", "norm.weight"];
    let network = model(&[3], &[3], nodes, of_norm.map(|name| (name, tensor())).to_vec());
    let blueprint = Blueprint::new(network, spec()).unwrap();
    let names: Vec<&str> = blueprint.variables().iter().map(|v| v.name.as_str()).collect();
    assert_eq!(names, ["norm.weight"]);
}

#[test]
fn a_table_of_embeddings_and_its_folded_transpose_are_one_parameter() {
    let nodes = vec![
        Node::new("Gather", ["table", "tokens"], ["embedded"]),
        Node::new("Mul", ["embedded", "x"], ["mixed"]),
        Node::new("MatMul", ["mixed", "onnx::MatMul_7"], ["y"]),
    ];
    let table = TensorData::from_f32(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let turned = TensorData::from_f32(&[3, 2], &[1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
    let tokens = TensorData::from_i64(&[1], &[1]);
    let more = vec![("table", table), ("onnx::MatMul_7", turned), ("tokens", tokens)];
    let network = model(&[3], &[2], nodes, more);
    let names = |selection: Selection| -> Vec<String> {
        let spec = TrainingSpec { parameters: selection, ..spec() };
        let blueprint = Blueprint::new(network.clone(), spec).unwrap();
        blueprint.variables().iter().map(|variable| variable.name.clone()).collect()
    };
    assert_eq!(names(Selection::Automatic), ["table"]);
    assert_eq!(names(Selection::Named(vec!["table".to_owned()])), ["table"]);
    let both = ["table", "onnx::MatMul_7"].map(str::to_owned).to_vec();
    assert_eq!(names(Selection::Named(both.clone())), both);
    assert_eq!(predict(network, &[1.0, 1.0, 1.0], 1), [32.0, 77.0]);
}

#[test]
fn a_loop_of_a_known_number_of_rounds_is_unrolled() {
    let value = |name: &str| ValueInfo::tensor(name, DataType::Float32, vec![]);
    // Doubles what it carries in each round, and gives what it was.
    let body = Graph {
        nodes: vec![
            Node::new("Identity", ["goes_on"], ["still"]),
            Node::new("Cast", ["round"], ["number"]).with("to", 1),
            Node::new("Add", ["carried", "carried"], ["twice"]),
            Node::new("Add", ["carried", "number"], ["seen"]),
        ],
        inputs: ["round", "goes_on", "carried"].map(value).to_vec(),
        outputs: ["still", "twice", "seen"].map(value).to_vec(),
        ..Graph::default()
    };
    let body = Attribute::Graph(Box::new(body));
    let nodes = |rounds: &str| {
        vec![
            Node::new("Loop", [rounds, "", "doubled"], ["last", "all"]).with("body", body.clone()),
            Node::new("ReduceSum", ["all", "first"], ["sum"]).with("keepdims", 0),
            Node::new("Concat", ["last", "sum"], ["y"]).with("axis", 1),
        ]
    };
    let more = || {
        vec![
            ("three", TensorData::from_i64(&[], &[3])),
            ("first", TensorData::from_i64(&[1], &[0])),
            ("endless", TensorData::from_i64(&[], &[i64::MAX])),
        ]
    };
    let found = of_nodes(18, &[6], nodes("three"), more());
    // 8 x 2x at the end; 2x + 4x + 8x and the numbers 0 + 1 + 2 along the way.
    let expected: Vec<f32> = X
        .chunks(3)
        .flat_map(|row| {
            let last = row.iter().map(|x| 16.0 * x);
            last.chain(row.iter().map(|x| 14.0 * x + 3.0)).collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(found, expected);

    let mut all = vec![Node::new("Mul", ["x", "scale"], ["doubled"])];
    all.extend(nodes("endless"));
    let mut initializers = vec![scale()];
    initializers.extend(more());
    let blueprint = Blueprint::new(model(&[3], &[6], all, initializers), spec()).unwrap();
    let error = blueprint.step(&InputShapes::rows(2)).unwrap_err().to_string();
    assert!(error.contains("Loop") && error.contains("rounds"), "{error}");
}

/// What ONNX Runtime computes by the operators of `ai.onnx.ml`.
#[test]
fn linear_models_of_scikit_learn_are_trained_and_give_the_same_values() {
    let node = |op: &str, input: &str, outputs: &[&str]| {
        let mut node = Node::new(op, [input], outputs.iter().copied());
        (node.domain, node.name) = ("ai.onnx.ml".to_owned(), op.to_owned());
        node
    };
    let floats = |values: &[f32]| Attribute::Floats(values.to_vec());
    let nodes = vec![
        node("Scaler", "x", &["scaled"])
            .with("offset", floats(&[0.5, -1.0, 0.0]))
            .with("scale", floats(&[2.0, 1.0, 0.5])),
        node("LinearClassifier", "scaled", &["label", "logistic"])
            .with("coefficients", floats(&[0.1, -0.2, 0.3, 0.4, 0.5, -0.6]))
            .with("intercepts", floats(&[0.1, -0.1]))
            .with("classlabels_ints", vec![7, 9])
            .with("post_transform", Attribute::String("LOGISTIC".to_owned())),
        node("Normalizer", "logistic", &["y"]).with("norm", Attribute::String("L1".to_owned())),
    ];
    let mut classifier = model(&[3], &[2], nodes, vec![]);
    classifier.opsets.insert("ai.onnx.ml".to_owned(), 1);
    let mut fed = Fed::new();
    fed.insert("x".to_owned(), (vec![2, 3], X.to_vec()));
    let expected = run(&classifier, &fed)["y"].clone();
    let found = predict(classifier.clone(), &X, 2);
    for (found, expected) in found.iter().zip(&expected) {
        assert!((found - expected).abs() < 1e-6, "{found} {expected}");
    }
    let mut logits = spec();
    logits.output = Some("LinearClassifier.scores".to_owned());
    logits.loss = Loss::cross_entropy();
    let blueprint = Blueprint::new(classifier, logits).unwrap();
    let names: Vec<&str> = blueprint.variables().iter().map(|v| v.name.as_str()).collect();
    assert_eq!(names, ["LinearClassifier.coefficients", "LinearClassifier.intercepts"]);
    blueprint.step(&InputShapes::rows(2)).unwrap();

    let regressor = node("LinearRegressor", "x", &["y"])
        .with("coefficients", floats(&[0.1, -0.2, 0.3, 0.4, 0.5, -0.6]))
        .with("intercepts", floats(&[0.1, -0.1]))
        .with("targets", 2);
    let mut regression = model(&[3], &[2], vec![regressor], vec![]);
    regression.opsets.insert("ai.onnx.ml".to_owned(), 1);
    let expected = run(&regression, &fed)["y"].clone();
    for (found, expected) in predict(regression, &X, 2).iter().zip(&expected) {
        assert!((found - expected).abs() < 1e-6, "{found} {expected}");
    }
}

#[test]
fn a_value_inside_a_model_can_be_what_is_trained() {
    let nodes = vec![
        Node::new("Mul", ["x", "scale"], ["logits"]),
        Node::new("Softmax", ["logits"], ["y"]).with("axis", 1),
    ];
    let mut logits = spec();
    logits.output = Some("logits".to_owned());
    let blueprint = Blueprint::new(model(&[3], &[3], nodes, vec![scale()]), logits).unwrap();
    let interface = blueprint.interface(&InputShapes::rows(2)).unwrap();
    assert_eq!(interface.prediction, ("logits".to_owned(), vec![2, 3]));
    let step = blueprint.step(&InputShapes::rows(2)).unwrap();
    assert!(step.graph.nodes.iter().all(|node| node.op != "Softmax"));
}

/// PyTorch's older exporter writes a range of seven bits as bounds of eight.
#[test]
fn scales_of_a_quantization_are_not_trained_and_its_bounds_are_integers() {
    let integer = |value: i64| TensorData::from_integers(DataType::Uint8, &[], &[value]);
    let nodes = vec![
        Node::new("QuantizeLinear", ["x", "scale", "zero"], ["quantized"]),
        Node::new("Clip", ["quantized", "", "most"], ["clipped"]),
        Node::new("DequantizeLinear", ["clipped", "scale", "zero"], ["rounded"]),
        Node::new("Mul", ["rounded", "weight"], ["y"]),
    ];
    let initializers = vec![
        ("scale", TensorData::from_f32(&[1], &[0.5])),
        ("zero", integer(124)),
        ("most", integer(127)),
        ("weight", TensorData::from_f32(&[3], &[1.0, 2.0, 3.0])),
    ];
    let model = model(&[3], &[3], nodes, initializers);
    let blueprint = Blueprint::new(model.clone(), spec()).unwrap();
    let names: Vec<&str> = blueprint.variables().iter().map(|v| v.name.as_str()).collect();
    assert_eq!(names, ["weight"]);
    let x = [0.3, -0.7, 9.0, 1.4, -70.0, 0.2];
    assert_eq!(predict(model, &x, 2), [0.5, -1.0, 4.5, 1.5, -124.0, 0.0]);
}
