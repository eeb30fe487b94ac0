//! Attention: ONNX's operator, written out, and what is written out in one node, where a graph may
//! have it.

use super::fused::may_fuse;
use super::{Composition, Gradients, Operator, Site, elements_to_make};
use crate::autodiff::Forward;
use crate::graph::{Attributes, Builder, Call, Type, Value};
use crate::kernels::{ATTENTION, ATTENTION_GRADIENT, View};
use crate::onnx::{DataType, TensorData};

pub(super) const OPERATORS: &[Operator] = &[
    Operator::composed("Attention", WRITTEN_OUT),
    Operator::rule(ATTENTION, attention_shape, attention),
    Operator::opaque(ATTENTION_GRADIENT, attention_gradient_shape),
];

/// `softmax(scale q k^T + mask) v` of each head.
const WRITTEN_OUT: Composition = |forward, node| {
    if node.input(4).is_some() || node.input(5).is_some() {
        return Err("keys and values of earlier calls cannot be handled".to_owned());
    }
    if node.attributes.float("softcap", 0.0) != 0.0 {
        return Err("a `softcap` cannot be handled".to_owned());
    }
    let none = Attributes::none;
    let count = |name: &str| node.attributes.int(name, 0);
    let apart = forward.graph.dims(node.required(0)?).len() == 4;
    let query = heads(forward, node.required(0)?, count("q_num_heads"))?;
    let key = heads(forward, node.required(1)?, count("kv_num_heads"))?;
    let value = heads(forward, node.required(2)?, count("kv_num_heads"))?;
    let of_queries = forward.graph.dims(query)[1];
    let key = shared_heads(forward, key, of_queries)?;
    let value = shared_heads(forward, value, of_queries)?;

    let turned = none().with("perm", vec![0, 1, 3, 2]);
    let turned = forward.apply("Transpose", &[Some(key)], turned)?;
    let mut scores = forward.apply("MatMul", &[Some(query), Some(turned)], none())?;
    let width = forward.graph.dims(query)[3] as f64;
    let scale = node.attributes.float("scale", 1.0 / width.sqrt());
    let scale = forward.graph.scalar(scale, scores);
    scores = forward.apply("Mul", &[Some(scores), Some(scale)], none())?;
    if node.attributes.flag("is_causal") {
        let mask = causal_mask(forward, scores)?;
        scores = forward.apply("Add", &[Some(scores), Some(mask)], none())?;
    }
    if let Some(mask) = node.input(3) {
        let mask = addend(forward, mask, scores)?;
        scores = forward.apply("Add", &[Some(scores), Some(mask)], none())?;
    }
    let shares = forward.apply("Softmax", &[Some(scores)], none().with("axis", -1))?;
    let mixed = forward.apply("MatMul", &[Some(shares), Some(value)], none())?;
    if apart {
        return Ok(vec![mixed]);
    }
    let side_by_side = none().with("perm", vec![0, 2, 1, 3]);
    let mixed = forward.apply("Transpose", &[Some(mixed)], side_by_side)?;
    let sizes = forward.graph.ints(&[0, 0, -1]);
    Ok(vec![forward.apply("Reshape", &[Some(mixed), Some(sizes)], none())?])
};

/// `x` with heads as the second of four axes: side by side in its rows, they are `count`.
fn heads(forward: &mut Forward<'_>, x: Value, count: i64) -> Result<Value, String> {
    match *forward.graph.dims(x) {
        [_, _, _, _] => Ok(x),
        [_, _, width] if count > 0 && width as i64 % count == 0 => {
            let sizes = forward.graph.ints(&[0, 0, count, width as i64 / count]);
            let apart = forward.apply("Reshape", &[Some(x), Some(sizes)], Attributes::none())?;
            let order = Attributes::none().with("perm", vec![0, 2, 1, 3]);
            forward.apply("Transpose", &[Some(apart)], order)
        }
        ref dims => Err(format!("{dims:?} cannot be cut into {count} heads")),
    }
}

/// Heads of keys or values, each as often as queries share it.
fn shared_heads(forward: &mut Forward<'_>, x: Value, count: usize) -> Result<Value, String> {
    let &[batch, own, rows, width] = forward.graph.dims(x) else {
        return Err("it does not have four axes".to_owned());
    };
    if own == count {
        return Ok(x);
    }
    if !count.is_multiple_of(own) {
        return Err(format!("{count} heads of queries cannot share {own} of keys and values"));
    }
    let mut x = x;
    for (op, sizes) in [
        ("Reshape", vec![batch, own, 1, rows, width]),
        ("Expand", vec![batch, own, count / own, rows, width]),
        ("Reshape", vec![batch, count, rows, width]),
    ] {
        let sizes = forward.graph.sizes(&sizes);
        x = forward.apply(op, &[Some(x), Some(sizes)], Attributes::none())?;
    }
    Ok(x)
}

/// Minus infinity where a key comes after the query, else 0.
fn causal_mask(forward: &mut Forward<'_>, scores: Value) -> Result<Value, String> {
    let g = &mut *forward.graph;
    let (dims, data_type) = (g.dims(scores).to_vec(), g.data_type(scores));
    let (queries, keys) = (dims[2], dims[3]);
    let elements = elements_to_make(&[queries, keys])?;
    let late = |place: usize| if place % keys > place / keys { f64::NEG_INFINITY } else { 0.0 };
    let mask: Vec<f64> = (0..elements).map(late).collect();
    Ok(g.constant(TensorData::from_f64(data_type, &[queries, keys], &mask)))
}

/// What is added to scores for `mask`, which says where they count or is added itself.
fn addend(forward: &mut Forward<'_>, mask: Value, scores: Value) -> Result<Value, String> {
    if forward.graph.data_type(mask) != DataType::Bool {
        return Ok(mask);
    }
    let seen = forward.graph.scalar(0.0, scores);
    let hidden = forward.graph.scalar(f64::NEG_INFINITY, scores);
    forward.apply("Where", &[Some(mask), Some(seen), Some(hidden)], Attributes::none())
}

/// The product of `shares` and `value` as attention in one node, if it may be one: the node reads
/// queries, keys and values, so that the products and the softmax before it are not needed.
pub(super) fn attend(
    forward: &mut Forward<'_>,
    shares: Value,
    value: Value,
) -> Option<Result<Vec<Value>, String>> {
    let found = forward.graph.as_attention(shares, value)?;
    let apply = || {
        let outputs = forward.apply_with_outputs(ATTENTION, &found.inputs, found.attributes, 2)?;
        let mut mixed = outputs[0];
        if !found.order.is_sorted() {
            let order: Vec<i64> = found.order.iter().map(|&axis| axis as i64).collect();
            let attributes = Attributes::none().with("perm", order);
            mixed = forward.apply("Transpose", &[Some(mixed)], attributes)?;
        }
        if forward.graph.dims(mixed) != found.dims {
            mixed = forward.reshape(mixed, &found.dims)?;
        }
        Ok(vec![mixed])
    };
    Some(apply())
}

/// The view in attribute `name`.
fn view(attributes: &Attributes, name: &str) -> Result<View, String> {
    let view = attributes.ints(name).and_then(View::of_ints);
    view.ok_or_else(|| format!("it has no view `{name}`"))
}

fn attention_shape(call: &Call<'_>) -> Result<Vec<Type>, String> {
    let query = view(call.attributes, "query")?;
    let shape = call.attributes.ints("shape").ok_or("it has no `shape`")?;
    let shape = shape.iter().map(|&size| usize::try_from(size).unwrap_or(0));
    let element = call.data_type(0)?;
    let mixed = Type::new(element, shape.collect::<Vec<_>>());
    Ok(vec![mixed, Type::new(element, [query.count(), query.rows.0, 2])])
}

/// Gradient, both outputs, queries, keys, values: a gradient for each tensor that these lie in.
fn attention_gradient_shape(call: &Call<'_>) -> Result<Vec<Type>, String> {
    let groups = call.attributes.ints("groups").ok_or("it has no `groups`")?;
    let first_of = |group: i64| groups.iter().position(|&of| of == group);
    let firsts = (0..3).map_while(first_of);
    firsts.map(|part| Ok(call.value_type(3 + part)?.clone())).collect()
}

/// Of queries, keys and values (Dao et al. 2022, "`FlashAttention`", appendix B.2).
fn attention(g: &mut Builder, at: &Site<'_>) -> Gradients {
    if !may_fuse(g, &[at.x(0)]) {
        return Err("it is for graphs of Cerebro's own operators".to_owned());
    }
    let groups = at.attributes.ints("groups").unwrap_or_default().to_vec();
    let count = groups.iter().max().map_or(0, |&last| last as usize + 1);
    let mut inputs = vec![Some(at.dy()), Some(at.y(0)), Some(at.y(1))];
    inputs.extend_from_slice(at.inputs);
    let attributes = at.attributes.clone().without("shape");
    let gradients = g.emit(ATTENTION_GRADIENT, &inputs, attributes, count);
    // Each tensor's gradient once.
    let is_first = |part: usize| groups[..part].iter().all(|&group| group != groups[part]);
    let of = |part: usize| is_first(part).then(|| gradients[groups[part] as usize]);
    Ok((0..groups.len()).map(of).collect())
}
