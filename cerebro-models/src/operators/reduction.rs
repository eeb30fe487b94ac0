//! Reductions over axes, and running sums.

use super::{Composition, Gradients, Operator, Site, only};
use crate::autodiff::Forward;
use crate::graph::{Attributes, Builder, Call, Type, Value};

pub(super) const OPERATORS: &[Operator] = &[
    Operator::rule("ReduceSum", reduce_shape, sum),
    Operator::rule("ReduceMean", reduce_shape, mean),
    Operator::rule("ReduceMax", reduce_shape, extremum),
    Operator::rule("ReduceMin", reduce_shape, extremum),
    Operator::rule("ReduceProd", reduce_shape, product),
    Operator::rule("ReduceL1", reduce_shape, l1),
    Operator::rule("ReduceL2", reduce_shape, l2),
    Operator::composed("ReduceSumSquare", SUM_SQUARE),
    Operator::composed("ReduceLogSum", LOG_SUM),
    Operator::rule("ReduceLogSumExp", reduce_shape, log_sum_exp),
    Operator::rule("CumSum", super::shapes::same, cumulative_sum),
];

/// The axes that are reduced over.
fn axes(call: &Call<'_>) -> Result<Vec<usize>, String> {
    let rank = call.dims(0)?.len();
    let listed = call.axes(1, rank)?.unwrap_or_default();
    Ok(if listed.is_empty() && !call.attributes.flag("noop_with_empty_axes") {
        (0..rank).collect()
    } else {
        listed
    })
}

fn reduce_shape(call: &Call<'_>) -> Result<Vec<Type>, String> {
    let axes = axes(call)?;
    let keep = call.attributes.int("keepdims", 1) != 0;
    let dims = call.dims(0)?.iter().enumerate();
    let dims = dims.filter_map(
        |(axis, &size)| {
            if axes.contains(&axis) { keep.then_some(1) } else { Some(size) }
        },
    );
    Ok(vec![Type::new(call.data_type(0)?, dims.collect::<Vec<_>>())])
}

/// A value of the output's shape, with the reduced axes back as size 1: it broadcasts to the input.
fn unreduced(g: &mut Builder, at: &Site<'_>, value: Value) -> Result<Value, String> {
    let axes = axes(&at.call(g))?;
    let mut dims = g.dims(at.x(0)).to_vec();
    for axis in axes {
        dims[axis] = 1;
    }
    Ok(g.reshape(value, &dims))
}

fn sum(g: &mut Builder, at: &Site<'_>) -> Gradients {
    let dims = g.dims(at.x(0)).to_vec();
    let dy = unreduced(g, at, at.dy())?;
    only(g.expand(dy, &dims))
}

fn mean(g: &mut Builder, at: &Site<'_>) -> Gradients {
    let dims = g.dims(at.x(0)).to_vec();
    let count = dims.iter().product::<usize>() / g.value_type(at.y(0)).elements().max(1);
    let share = g.scale(at.dy(), 1.0 / count as f64);
    let share = unreduced(g, at, share)?;
    only(g.expand(share, &dims))
}

/// The gradient goes to the elements that have the extreme value, in equal parts, as in PyTorch's
/// `amax` and `amin`.
fn extremum(g: &mut Builder, at: &Site<'_>) -> Gradients {
    let axes = axes(&at.call(g))?;
    let y = unreduced(g, at, at.y(0))?;
    let dy = unreduced(g, at, at.dy())?;
    let mask = g.equal(at.x(0), y);
    let ties = g.reduce_sum(mask, &axes);
    let share = g.div(dy, ties);
    only(g.mul(mask, share))
}

/// The most factors of a product that is differentiated.
const MOST_FACTORS: usize = 4096;

/// `dy` times the product of the other elements, which is found without division, so that it holds
/// where elements are 0: the reduced axes become one of size `n`; row `i` of an `n x n` square has
/// the elements with a 1 in place of element `i`.
fn product(g: &mut Builder, at: &Site<'_>) -> Gradients {
    let axes = axes(&at.call(g))?;
    let dims = g.dims(at.x(0)).to_vec();
    let kept: Vec<usize> = (0..dims.len()).filter(|axis| !axes.contains(axis)).collect();
    let order: Vec<usize> = kept.iter().chain(&axes).copied().collect();
    let outer: usize = kept.iter().map(|&axis| dims[axis]).product();
    let inner: usize = axes.iter().map(|&axis| dims[axis]).product();
    if inner > MOST_FACTORS {
        return Err(format!("a product of {inner} factors has too many parts"));
    }
    let moved = g.transpose(at.x(0), &order);
    let rows = g.reshape(moved, &[outer, 1, inner]);
    let diagonal: Vec<f64> =
        (0..inner * inner).map(|index| f64::from(index % (inner + 1) == 0)).collect();
    let diagonal = crate::onnx::TensorData::from_f64(
        crate::onnx::DataType::Bool,
        &[1, inner, inner],
        &diagonal,
    );
    let diagonal = g.constant(diagonal);
    let one = g.scalar(1.0, at.x(0));
    let square = g.select(diagonal, one, rows);
    let others = g.reduce("ReduceProd", square, &[2]);
    let dy = g.reshape(at.dy(), &[outer, 1]);
    let others = g.reshape(others, &[outer, inner]);
    let gradient = g.mul(others, dy);
    let ordered: Vec<usize> = order.iter().map(|&axis| dims[axis]).collect();
    let gradient = g.reshape(gradient, &ordered);
    let mut inverse = vec![0; order.len()];
    for (to, from) in order.into_iter().enumerate() {
        inverse[from] = to;
    }
    only(g.transpose(gradient, &inverse))
}

fn l1(g: &mut Builder, at: &Site<'_>) -> Gradients {
    let sign = g.unary("Sign", at.x(0));
    let dy = unreduced(g, at, at.dy())?;
    only(g.mul(sign, dy))
}

/// `x / |x|`, and 0 where the norm is 0, as in PyTorch.
fn l2(g: &mut Builder, at: &Site<'_>) -> Gradients {
    let zero = g.scalar(0.0, at.y(0));
    let is_zero = g.binary("Equal", at.y(0), zero);
    let one = g.scalar(1.0, at.y(0));
    let norm = g.select(is_zero, one, at.y(0));
    let share = g.div(at.dy(), norm);
    let share = unreduced(g, at, share)?;
    only(g.mul(at.x(0), share))
}

fn log_sum_exp(g: &mut Builder, at: &Site<'_>) -> Gradients {
    let y = unreduced(g, at, at.y(0))?;
    let dy = unreduced(g, at, at.dy())?;
    let difference = g.sub(at.x(0), y);
    let softmax = g.unary("Exp", difference);
    only(g.mul(softmax, dy))
}

fn reduce_sum(
    forward: &mut Forward<'_>,
    node: &super::Node<'_>,
    x: Value,
) -> Result<Value, String> {
    let mut inputs = node.inputs.to_vec();
    inputs[0] = Some(x);
    forward.apply("ReduceSum", &inputs, node.attributes.clone())
}

/// Never as `ReduceSumSquare`, whose kernel is an order of magnitude slower.
const SUM_SQUARE: Composition = |forward, node| {
    let x = Some(node.required(0)?);
    let squared = forward.apply("Mul", &[x, x], Attributes::none())?;
    Ok(vec![reduce_sum(forward, node, squared)?])
};

const LOG_SUM: Composition = |forward, node| {
    let sum = reduce_sum(forward, node, node.required(0)?)?;
    Ok(vec![forward.apply("Log", &[Some(sum)], Attributes::none())?])
};

/// A running sum in the other direction.
fn cumulative_sum(g: &mut Builder, at: &Site<'_>) -> Gradients {
    let reversed = i64::from(!at.attributes.flag("reverse"));
    let attributes = at.attributes.clone().with("reverse", reversed);
    Ok(vec![Some(g.op("CumSum", &[at.dy(), at.x(1)], attributes)), None])
}
