//! Attention in the forms that exporters write.

use super::*;
use crate::kernels::{ATTENTION, ATTENTION_GRADIENT, SOFTMAX_GRADIENT};

/// How queries, keys and values come about.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Form {
    /// Cut out of one product over positions that come first, as by PyTorch.
    Packed,
    /// From a product each, whose heads are split; values are of another width.
    Apart,
    /// The same with batch and heads as one axis.
    Flat,
    /// Keys and values cut out of one product over other positions.
    Cross,
    /// All three the same tensor.
    Same,
}

/// What is added to the scores.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mask {
    None,
    /// The future is not to be seen.
    Causal,
    /// Some keys of each example are not to be seen, of the first one none at all.
    Padding,
    /// Keys are to be seen or not by the data, by the first query none at all, and what is no number is
    /// made zeros, as by PyTorch.
    Guarded,
    /// Weights that are trained.
    Learned,
}

#[derive(Clone, Copy, Debug)]
struct Size {
    batch: usize,
    length: usize,
    heads: usize,
    width: usize,
}

impl Small {
    fn reshaped(&mut self, x: &str, shape: &[usize]) -> String {
        let sizes: Vec<i64> = shape.iter().map(|&size| size as i64).collect();
        let sizes = self.constant(TensorData::from_i64(&[sizes.len()], &sizes));
        self.of("Reshape", &[x, &sizes], &[], shape)
    }

    fn turned(&mut self, x: &str, order: &[i64], shape: &[usize]) -> String {
        self.of("Transpose", &[x], &[("perm", Attribute::Ints(order.to_vec()))], shape)
    }

    fn projected(&mut self, x: &str, inputs: usize, shape: &[usize]) -> String {
        let outputs = *shape.last().unwrap();
        let weight = self.weight(&[inputs, outputs], 0.0);
        let bias = self.weight(&[outputs], 0.0);
        let product = self.of("MatMul", &[x, &weight], &[], shape);
        self.of("Add", &[&bias, &product], &[], shape)
    }
}

fn network(form: Form, mask: Mask, size: Size) -> Small {
    let Size { batch, length, heads, width } = size;
    let all = heads * width;
    let mut s = Small::new(&[batch, length, 3]);
    let x = s.projected("x", 3, &[batch, length, all]);
    let keys = if form == Form::Cross { length + 2 } else { length };
    let value_width = if form == Form::Apart { width + 3 } else { width };
    let scale = (width as f32).powf(-0.25);
    let split = [batch, heads, length, width];
    let [query, key, value] = match form {
        Form::Packed => {
            let x = s.turned(&x, &[1, 0, 2], &[length, batch, all]);
            let parts = s.projected(&x, all, &[length, batch, 3 * all]);
            let parts = s.reshaped(&parts, &[1, length, batch, 3, all]);
            let parts = s.turned(&parts, &[3, 1, 2, 0, 4], &[3, length, batch, 1, all]);
            let parts = s.reshaped(&parts, &[3, length, batch, all]);
            [0, 1, 2].map(|part| {
                let index = s.constant(TensorData::from_i64(&[], &[part]));
                let shape = [length, batch, all];
                let part =
                    s.of("Gather", &[&parts, &index], &[("axis", Attribute::Int(0))], &shape);
                let part = s.reshaped(&part, &[length, batch * heads, width]);
                let part = s.turned(&part, &[1, 0, 2], &[batch * heads, length, width]);
                s.reshaped(&part, &split)
            })
        }
        Form::Apart | Form::Flat => [width, width, value_width].map(|width| {
            let part = s.projected(&x, all, &[batch, length, heads * width]);
            let part = s.reshaped(&part, &[batch, length, heads, width]);
            let part = s.turned(&part, &[0, 2, 1, 3], &[batch, heads, length, width]);
            if form == Form::Apart {
                part
            } else {
                s.reshaped(&part, &[batch * heads, length, width])
            }
        }),
        Form::Cross => {
            let query = s.projected(&x, all, &[batch, length, all]);
            let query = s.reshaped(&query, &[batch, length, heads, width]);
            let query = s.turned(&query, &[0, 2, 1, 3], &split);
            let other = s.weight(&[batch, keys, all], 0.0);
            let both = s.projected(&other, all, &[batch, keys, 2 * all]);
            let [key, value] = ["key", "value"].map(str::to_owned);
            let cut = Node::new("Split", [both.as_str()], [key.as_str(), value.as_str()]);
            let cut = cut.with("axis", Attribute::Int(2)).with("num_outputs", Attribute::Int(2));
            s.graph.nodes.push(cut);
            let [key, value] = [key, value].map(|part| {
                let part = s.reshaped(&part, &[batch, keys, heads, width]);
                s.turned(&part, &[0, 2, 1, 3], &[batch, heads, keys, width])
            });
            [query, key, value]
        }
        Form::Same => [x.clone(), x.clone(), x],
    };
    let scaled = |s: &mut Small, x: &str, shape: &[usize]| {
        let scale = s.constant(TensorData::from_f32(&[1], &[scale]));
        s.of("Mul", &[x, &scale], &[], shape)
    };
    let (order, lead): (&[i64], _) = match form {
        Form::Flat => (&[0, 2, 1], vec![batch * heads]),
        Form::Same => (&[0, 2, 1], vec![batch]),
        _ => (&[0, 1, 3, 2], vec![batch, heads]),
    };
    let width = if form == Form::Same { all } else { width };
    let shape = |rows: usize, columns: usize| [&lead[..], &[rows, columns]].concat();
    let query = scaled(&mut s, &query, &shape(length, width));
    let key = s.turned(&key, order, &shape(width, keys));
    let key = scaled(&mut s, &key, &shape(width, keys));
    let mut scores = s.of("MatMul", &[&query, &key], &[], &shape(length, keys));
    let is_guarded = mask == Mask::Guarded;
    let mask = match mask {
        Mask::None => None,
        Mask::Causal => {
            let seen = |at: usize| if at % keys > at / keys { f32::NEG_INFINITY } else { 0.0 };
            let values: Vec<f32> = (0..length * keys).map(seen).collect();
            Some(s.constant(TensorData::from_f32(&[length, keys], &values)))
        }
        Mask::Padding => {
            let seen = |at: usize| if at < keys || at.is_multiple_of(3) { -1e9 } else { 0.0 };
            let values: Vec<f32> = (0..batch * keys).map(seen).collect();
            Some(s.constant(TensorData::from_f32(&[batch, 1, 1, keys], &values)))
        }
        Mask::Guarded => {
            let axes = s.constant(TensorData::from_i64(&[2], &[1, 2]));
            let sum = s.of("ReduceSum", &["x", &axes], &[], &[batch, 1, 1]);
            let limits = |query: usize| if query == 0 { -1e9 } else { 2.0 };
            let limits: Vec<f32> = (0..length).map(limits).collect();
            let limits = s.constant(TensorData::from_f32(&[length, 1], &limits));
            let limits = s.of("Add", &[&sum, &limits], &[], &[batch, length, 1]);
            let places: Vec<f32> = (0..keys).map(|key| key as f32).collect();
            let places = s.constant(TensorData::from_f32(&[keys], &places));
            let seen = s.of("Less", &[&places, &limits], &[], &[batch, length, keys]);
            let seen = s.reshaped(&seen, &[batch, 1, length, keys]);
            let numbers = [0.0, f32::NEG_INFINITY];
            let [shown, hidden] = numbers.map(|n| s.constant(TensorData::from_f32(&[], &[n])));
            Some(s.of("Where", &[&seen, &shown, &hidden], &[], &[batch, 1, length, keys]))
        }
        Mask::Learned => Some(s.weight(&[length, keys], 0.0)),
    };
    if let Some(mask) = mask {
        scores = s.of("Add", &[&scores, &mask], &[], &shape(length, keys));
    }
    let axis = [("axis", Attribute::Int(-1))];
    let mut shares = s.of("Softmax", &[&scores], &axis, &shape(length, keys));
    if is_guarded {
        let is_none = s.of("IsNaN", &[&shares], &[], &shape(length, keys));
        let zero = s.constant(TensorData::from_f32(&[], &[0.0]));
        shares = s.of("Where", &[&is_none, &zero, &shares], &[], &shape(length, keys));
    }
    let value_width = if form == Form::Same { all } else { value_width };
    let mixed = s.of("MatMul", &[&shares, &value], &[], &shape(length, value_width));
    let wide = if form == Form::Same { all } else { heads * value_width };
    let joined = match form {
        Form::Packed => {
            let mixed = s.turned(&mixed, &[2, 0, 1, 3], &[length, batch, heads, value_width]);
            let mixed = s.reshaped(&mixed, &[length, batch, wide]);
            s.turned(&mixed, &[1, 0, 2], &[batch, length, wide])
        }
        Form::Same => mixed,
        _ => {
            let mixed = s.reshaped(&mixed, &[batch, heads, length, value_width]);
            let mixed = s.turned(&mixed, &[0, 2, 1, 3], &[batch, length, heads, value_width]);
            s.reshaped(&mixed, &[batch, length, wide])
        }
    };
    s.projected(&joined, wide, &[batch, length, 2]);
    s
}

const SIZES: [Size; 5] = [
    Size { batch: 2, length: 5, heads: 3, width: 4 },
    Size { batch: 1, length: 7, heads: 1, width: 33 },
    Size { batch: 3, length: 33, heads: 2, width: 16 },
    Size { batch: 2, length: 6, heads: 1, width: 20 },
    // More than one block of queries.
    Size { batch: 1, length: 101, heads: 2, width: 5 },
];

fn attends(form: Form, mask: Mask, size: Size) {
    let what = format!("{form:?} {mask:?} {size:?}");
    agree(&what, &[ATTENTION, ATTENTION_GRADIENT], || network(form, mask, size));
    let nodes = operators(|| network(form, mask, size), Dialect::Fused);
    for absent in ["Softmax", in_domain(SOFTMAX_GRADIENT)] {
        assert!(!nodes.iter().any(|op| op == absent), "{what}: {absent} in {nodes:?}");
    }
}

#[test]
fn attention_trains_as_the_standard_operators_do() {
    for form in [Form::Packed, Form::Apart, Form::Flat, Form::Cross, Form::Same] {
        for size in SIZES {
            attends(form, Mask::None, size);
        }
    }
}

#[test]
fn attention_with_a_mask_trains_as_the_standard_operators_do() {
    for size in SIZES {
        for form in [Form::Packed, Form::Apart, Form::Flat, Form::Cross, Form::Same] {
            attends(form, Mask::Causal, size);
        }
        for form in [Form::Packed, Form::Apart, Form::Cross] {
            attends(form, Mask::Padding, size);
            attends(form, Mask::Guarded, size);
        }
    }
}

#[test]
fn a_mask_that_is_trained_keeps_the_standard_operators() {
    for form in [Form::Packed, Form::Flat] {
        let network = || network(form, Mask::Learned, SIZES[0]);
        agree("learned", &["Softmax", SOFTMAX_GRADIENT], network);
        let nodes = operators(network, Dialect::Fused);
        assert!(!nodes.iter().any(|op| op == in_domain(ATTENTION)), "{nodes:?}");
    }
}

#[test]
fn attention_needs_no_tensors_but_the_projections() {
    let nodes = operators(|| network(Form::Packed, Mask::None, SIZES[0]), Dialect::FusedProducts);
    for absent in ["MatMul", "Gather", "Pad", "Softmax"] {
        assert!(!nodes.iter().any(|op| op == absent), "{absent} in {nodes:?}");
    }
}

#[test]
fn shares_that_are_read_elsewhere_are_made_too() {
    let network = || {
        let mut s = network(Form::Same, Mask::None, SIZES[0]);
        let Size { batch, length, .. } = SIZES[0];
        let softmax = s.graph.nodes.iter().find(|node| node.op == "Softmax").unwrap();
        let (shares, output) = (softmax.outputs[0].clone(), s.value());
        let weight = s.weight(&[length, 2], 0.0);
        let seen = s.of("MatMul", &[&shares, &weight], &[], &[batch, length, 2]);
        s.of("Add", &[&seen, &output], &[], &[batch, length, 2]);
        s
    };
    agree("read twice", &[ATTENTION, ATTENTION_GRADIENT, "Softmax"], network);
}

#[test]
fn a_mask_of_the_data_and_one_of_the_future_are_one_mask() {
    let network = || {
        let (batch, length, all) = (2, 5, 8);
        let mut s = Small::new(&[batch, length, 3]);
        let parts = [(); 3].map(|()| s.projected("x", 3, &[batch, length, all]));
        let zero = s.constant(TensorData::from_f32(&[], &[0.0]));
        let axis = s.constant(TensorData::from_i64(&[1], &[2]));
        let largest = s.of("ReduceMax", &["x", &axis], &[], &[batch, length, 1]);
        let seen = s.of("Greater", &[&largest, &zero], &[], &[batch, length, 1]);
        let seen = s.reshaped(&seen, &[batch, 1, 1, length]);
        let inputs = [&*parts[0], &*parts[1], &*parts[2], &*seen];
        let attributes = [("is_causal", 1), ("q_num_heads", 2), ("kv_num_heads", 2)];
        let attributes = attributes.map(|(name, value)| (name, Attribute::Int(value)));
        let mixed = s.of("Attention", &inputs, &attributes, &[batch, length, all]);
        s.projected(&mixed, all, &[batch, length, 2]);
        s
    };
    agree("both masks", &[ATTENTION, ATTENTION_GRADIENT], network);
    let nodes = operators(network, Dialect::Fused);
    assert!(!nodes.iter().any(|op| op == "Softmax"), "{nodes:?}");
}
