//! Attention in one node, where a graph may have it.

use super::fused::may_fuse;
use super::{Gradients, Operator, Site};
use crate::autodiff::Forward;
use crate::graph::{Attributes, Builder, Call, Type, Value};
use crate::kernels::{ATTENTION, ATTENTION_GRADIENT, View};

pub(super) const OPERATORS: &[Operator] = &[
    Operator::rule(ATTENTION, attention_shape, attention),
    Operator::opaque(ATTENTION_GRADIENT, attention_gradient_shape),
];

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
            let sizes = forward.graph.sizes(&found.dims);
            mixed = forward.apply("Reshape", &[Some(mixed), Some(sizes)], Attributes::none())?;
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
