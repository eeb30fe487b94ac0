//! Attention: ONNX's operator, written out, and what is written out in one node, where a graph may
//! have it.

use super::fused::may_fuse;
use super::{Composition, Gradients, Node, Operator, Site, elements_to_make};
use crate::autodiff::Forward;
use crate::graph::{Attributes, Builder, Call, Type, Value};
use crate::kernels::{ATTENTION, ATTENTION_GRADIENT, View};
use crate::onnx::{DataType, TensorData};

pub(super) const OPERATORS: &[Operator] = &[
    Operator::composed("Attention", WRITTEN_OUT),
    Operator::composed(GUARDED_SOFTMAX, GUARDED),
    Operator::rule(ATTENTION, attention_shape, attention),
    Operator::opaque(ATTENTION_GRADIENT, attention_gradient_shape),
];

/// The softmax along the last axis, and zeros where all elements are minus infinity: never emitted.
pub(crate) const GUARDED_SOFTMAX: &str = "ai.cerebro.GuardedSoftmax";

/// Rows that are all minus infinity are zeros before the softmax, of which the gradient is a number.
const GUARDED: Composition = |forward, node| {
    let x = node.required(0)?;
    let last = || Attributes::none().with("axis", -1);
    if forward.graph.is_seen(x) {
        return Ok(vec![forward.apply("Softmax", &[Some(x)], last())?]);
    }
    let Some((scores, seen)) = forward.graph.as_masked(x) else {
        let g = &mut *forward.graph;
        let rank = g.dims(x).len();
        let largest = g.reduce("ReduceMax", x, &[rank.saturating_sub(1)]);
        let hidden = g.scalar(f64::NEG_INFINITY, x);
        let sees = g.binary("Greater", largest, hidden);
        let x = shown(forward, x, sees)?;
        let shares = forward.apply("Softmax", &[Some(x)], last())?;
        return Ok(vec![shown(forward, shares, sees)?]);
    };
    let Some(sees) = sees_any(forward.graph, seen) else {
        return Ok(vec![forward.apply("Softmax", &[Some(x)], last())?]);
    };
    let addend = addend(forward.graph, seen, Some(sees), scores);
    let x = forward.binary("Add", scores, addend)?;
    let shares = forward.apply("Softmax", &[Some(x)], last())?;
    Ok(vec![shown(forward, shares, sees)?])
};

/// The rows of `x` that see something, and zeros for the others.
fn shown(forward: &mut Forward<'_>, x: Value, sees: Value) -> Result<Value, String> {
    let nothing = forward.graph.scalar(0.0, x);
    forward.apply("Where", &[Some(sees), Some(x), Some(nothing)], Attributes::none())
}

/// What is added to scores: minus infinity where a key is not seen, but not where a query sees none.
fn addend(g: &mut Builder, mut seen: Value, sees: Option<Value>, scores: Value) -> Value {
    if let Some(sees) = sees {
        let blind = g.unary("Not", sees);
        seen = g.binary("Or", seen, blind);
    }
    let (nothing, hidden) = (g.scalar(0.0, scores), g.scalar(f64::NEG_INFINITY, scores));
    g.select(seen, nothing, hidden)
}

/// `softmax(cap(scale q k^T) + mask) v` of each head, and the keys and values with those before them.
/// A query that sees no key gets zeros.
const WRITTEN_OUT: Composition = |forward, node| {
    if node.input(6).is_some() {
        return Err("a number of keys that depends on the data cannot be handled".to_owned());
    }
    let none = Attributes::none;
    let count = |name: &str| node.attributes.int(name, 0);
    let apart = forward.graph.dims(node.required(0)?).len() == 4;
    let query = heads(forward, node.required(0)?, count("q_num_heads"))?;
    let key = heads(forward, node.required(1)?, count("kv_num_heads"))?;
    let value = heads(forward, node.required(2)?, count("kv_num_heads"))?;
    let earlier = node.input(4).and_then(|past| forward.graph.dims(past).get(2).copied());
    let present_key = after(forward, node.input(4), key)?;
    let present_value = after(forward, node.input(5), value)?;
    let of_queries = forward.graph.dims(query)[1];
    let key = shared_heads(forward, present_key, of_queries)?;
    let value = shared_heads(forward, present_value, of_queries)?;

    let turned = none().with("perm", vec![0, 1, 3, 2]);
    let turned = forward.apply("Transpose", &[Some(key)], turned)?;
    let mut scores = forward.binary("MatMul", query, turned)?;
    let width = forward.graph.dims(query)[3] as f64;
    let scale = node.attributes.float("scale", 1.0 / width.sqrt());
    scores = scaled(forward, scores, scale)?;
    let cap = node.attributes.float("softcap", 0.0);
    if cap > 0.0 {
        let share = scaled(forward, scores, 1.0 / cap)?;
        let share = forward.apply("Tanh", &[Some(share)], none())?;
        scores = scaled(forward, share, cap)?;
    }
    let (scores, sees) = masked(forward, node, scores, earlier.unwrap_or(0))?;
    let shares = shares(forward, scores, node.attributes.int("softmax_precision", 0))?;
    let mut mixed = forward.binary("MatMul", shares, value)?;
    if let Some(sees) = sees {
        mixed = shown(forward, mixed, sees)?;
    }
    if !apart {
        let side_by_side = none().with("perm", vec![0, 2, 1, 3]);
        mixed = forward.apply("Transpose", &[Some(mixed)], side_by_side)?;
        let sizes = forward.graph.ints(&[0, 0, -1]);
        mixed = forward.binary("Reshape", mixed, sizes)?;
    }
    Ok(vec![mixed, present_key, present_value])
};

/// `x` times `factor`.
fn scaled(forward: &mut Forward<'_>, x: Value, factor: f64) -> Result<Value, String> {
    let factor = forward.graph.scalar(factor, x);
    forward.binary("Mul", x, factor)
}

/// Keys or values of earlier calls, if there are some, and these.
fn after(forward: &mut Forward<'_>, past: Option<Value>, x: Value) -> Result<Value, String> {
    let Some(past) = past else { return Ok(x) };
    forward.apply("Concat", &[Some(past), Some(x)], Attributes::none().with("axis", 2))
}

/// The softmax of scores, computed in the type of the number `precision` if it is not 0.
fn shares(forward: &mut Forward<'_>, scores: Value, precision: i64) -> Result<Value, String> {
    let to = |code: i64| Attributes::none().with("to", code);
    let last = Attributes::none().with("axis", -1);
    let own = forward.graph.data_type(scores).code();
    if precision == 0 || precision == own {
        return forward.apply("Softmax", &[Some(scores)], last);
    }
    let scores = forward.apply("Cast", &[Some(scores)], to(precision))?;
    let shares = forward.apply("Softmax", &[Some(scores)], last)?;
    forward.apply("Cast", &[Some(shares)], to(own))
}

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

/// The scores of keys with what is added to them for the mask: minus infinity where a query does not
/// see a key. And which queries see a key, if some might not; those that do not have scores as if they
/// saw all.
fn masked(
    forward: &mut Forward<'_>,
    node: &Node<'_>,
    scores: Value,
    earlier: usize,
) -> Result<(Value, Option<Value>), String> {
    let mask = node.input(3).map(|mask| whole_mask(forward, mask, scores)).transpose()?;
    let is_bool = |mask: &Value| forward.graph.data_type(*mask) == DataType::Bool;
    let (chosen, numbers) = (mask.filter(is_bool), mask.filter(|mask| !is_bool(mask)));
    let (within, may_see_none) = in_window(forward.graph, node.attributes, scores, earlier)?;
    let g = &mut *forward.graph;
    let seen = match (within, chosen) {
        (Some(within), Some(chosen)) => Some(g.binary("And", within, chosen)),
        (within, chosen) => within.or(chosen),
    };
    let sees = seen.filter(|_| may_see_none || chosen.is_some());
    let sees = sees.and_then(|seen| sees_any(g, seen));
    let mut added = seen.map(|seen| addend(g, seen, sees, scores));
    if let Some(numbers) = numbers {
        let sum = added.map(|added| forward.binary("Add", added, numbers)).transpose()?;
        added = Some(sum.unwrap_or(numbers));
    }
    let scores = added.map_or(Ok(scores), |added| forward.binary("Add", scores, added))?;
    Ok((scores, sees))
}

/// The mask for all keys: those at the end that it says nothing of are hidden.
fn whole_mask(forward: &mut Forward<'_>, mask: Value, scores: Value) -> Result<Value, String> {
    let Type { data_type, mut dims } = forward.graph.value_type(mask).clone();
    let keys = forward.graph.dims(scores)[3];
    let last = dims.last_mut().ok_or("its mask is a scalar")?;
    if *last == 1 || *last >= keys {
        return Ok(mask);
    }
    *last = keys - *last;
    let hidden = if data_type == DataType::Bool { 0.0 } else { f64::NEG_INFINITY };
    let hidden = forward.graph.fill(hidden, data_type, &dims);
    forward.apply("Concat", &[Some(mask), Some(hidden)], Attributes::none().with("axis", -1))
}

/// Which keys are not too late and not too early for each query, of which the first one comes after
/// `earlier` keys, if that is limited; and whether there might be a query that sees none.
fn in_window(
    g: &mut Builder,
    attributes: &Attributes,
    scores: Value,
    earlier: usize,
) -> Result<(Option<Value>, bool), String> {
    let size = |name: &str| usize::try_from(attributes.int(name, -1)).ok();
    let (left, right) = (size("left_window_size"), size("right_window_size"));
    let right = if attributes.flag("is_causal") { Some(0) } else { right };
    if left.is_none() && right.is_none() {
        return Ok((None, false));
    }
    let &[_, _, queries, keys] = g.dims(scores) else {
        return Err("its scores do not have four axes".to_owned());
    };
    let elements = elements_to_make(&[queries, keys])?;
    let is_seen = |at: usize| {
        let (query, key) = (at / keys + earlier, at % keys);
        let early = left.is_none_or(|left| query <= key.saturating_add(left));
        i64::from(early && right.is_none_or(|right| key <= query.saturating_add(right)))
    };
    let seen: Vec<i64> = (0..elements).map(is_seen).collect();
    let seen = TensorData::from_integers(DataType::Bool, &[queries, keys], &seen);
    Ok((Some(g.constant(seen)), left.is_some()))
}

/// Which queries see a key at all, unless all are known to.
fn sees_any(g: &mut Builder, seen: Value) -> Option<Value> {
    let last = g.dims(seen).len().checked_sub(1)?;
    let width = g.dims(seen)[last].max(1);
    let known = g.constant_of(seen).and_then(TensorData::to_i64s);
    if known.is_some_and(|known| known.chunks(width).all(|row| row.contains(&1))) {
        return None;
    }
    let seen = g.cast(seen, DataType::Int32);
    let sees = g.reduce("ReduceMax", seen, &[last]);
    Some(g.cast(sees, DataType::Bool))
}

/// The product of `shares` and `value` as attention in one node, if it may be one: the node reads
/// queries, keys and values, so that the products and the softmax before it are not needed.
pub(super) fn attend(
    forward: &mut Forward<'_>,
    shares: Value,
    value: Value,
) -> Option<Result<Vec<Value>, String>> {
    let (sees, shares) = match forward.graph.as_guarded(shares) {
        Some((sees, shares)) => (Some(sees), shares),
        None => (None, shares),
    };
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
        if let Some(sees) = sees {
            mixed = shown(forward, mixed, sees)?;
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
