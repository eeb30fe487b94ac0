//! Sums, products, powers, roots, minima and maxima.

use super::shapes::{broadcast_all, same};
use super::{Composition, Gradients, Operator, Site, only};
use crate::graph::{Attributes, Builder, Value};

pub(super) const OPERATORS: &[Operator] = &[
    Operator::rule("Add", broadcast_all, add),
    Operator::rule("Sub", broadcast_all, sub),
    Operator::rule("Mul", broadcast_all, mul),
    Operator::rule("Div", broadcast_all, div),
    Operator::rule("Pow", broadcast_all, pow),
    Operator::rule("Mod", broadcast_all, modulo),
    Operator::rule("Sum", broadcast_all, sum),
    Operator::composed("Mean", MEAN),
    Operator::rule("Min", broadcast_all, extremum),
    Operator::rule("Max", broadcast_all, extremum),
    Operator::rule("Neg", same, neg),
    Operator::rule("Abs", same, abs),
    Operator::rule("Sqrt", same, sqrt),
    Operator::rule("Reciprocal", same, reciprocal),
    Operator::rule("Exp", same, exp),
    Operator::rule("Log", same, log),
    Operator::rule("Erf", same, erf),
    Operator::rule("Clip", same, clip),
    Operator::flat("Sign", same),
    Operator::flat("Floor", same),
    Operator::flat("Ceil", same),
    Operator::flat("Round", same),
];

/// Gradients of two inputs that were broadcast, from gradients of the broadcast shape.
fn pair(g: &mut Builder, at: &Site<'_>, da: Value, db: Value) -> Gradients {
    let (a, b) = (g.dims(at.x(0)).to_vec(), g.dims(at.x(1)).to_vec());
    Ok(vec![Some(g.sum_to(da, &a)), Some(g.sum_to(db, &b))])
}

fn add(g: &mut Builder, at: &Site<'_>) -> Gradients {
    pair(g, at, at.dy(), at.dy())
}

/// The sign is taken after the sum over what was broadcast, where there is less of it.
fn sub(g: &mut Builder, at: &Site<'_>) -> Gradients {
    let (a, b) = (g.dims(at.x(0)).to_vec(), g.dims(at.x(1)).to_vec());
    let da = g.sum_to(at.dy(), &a);
    let summed = g.sum_to(at.dy(), &b);
    Ok(vec![Some(da), Some(g.neg(summed))])
}

fn mul(g: &mut Builder, at: &Site<'_>) -> Gradients {
    let (a, b, dy) = (at.x(0), at.x(1), at.dy());
    let (da, db) = (g.mul(dy, b), g.mul(dy, a));
    pair(g, at, da, db)
}

/// `d(a/b)/da = 1/b`, `d(a/b)/db = -(a/b)/b`.
fn div(g: &mut Builder, at: &Site<'_>) -> Gradients {
    let (b, y, dy) = (at.x(1), at.y(0), at.dy());
    let da = g.div(dy, b);
    let product = g.mul(da, y);
    let db = g.neg(product);
    pair(g, at, da, db)
}

/// `d(a^b)/da = b a^(b-1)`; `d(a^b)/db = a^b log a`, taken as 0 where `a` is 0, its limit for
/// positive exponents. A constant exponent of 2, 1/2 and so on has a cheaper form.
fn pow(g: &mut Builder, at: &Site<'_>) -> Gradients {
    let (a, b, y, dy) = (at.x(0), at.x(1), at.y(0), at.dy());
    let a_dims = g.dims(a).to_vec();
    if let Some(exponent) = g.constant_of(b).filter(|b| b.elements() == 1).map(|b| b.to_f64s()[0]) {
        let slope = if exponent == 2.0 {
            g.scale(a, 2.0)
        } else if exponent == 1.0 {
            g.filled(1.0, a)
        } else {
            let lower = g.scalar(exponent - 1.0, a);
            let power = g.binary("Pow", a, lower);
            g.scale(power, exponent)
        };
        let da = g.mul(dy, slope);
        return Ok(vec![Some(g.sum_to(da, &a_dims)), None]);
    }
    if !g.data_type(b).is_float() {
        let data_type = g.data_type(a);
        let exponent = g.cast(b, data_type);
        let da = pow_base(g, a, exponent, dy);
        return Ok(vec![Some(g.sum_to(da, &a_dims)), None]);
    }
    let b_dims = g.dims(b).to_vec();
    let base_type = g.data_type(a);
    let exponent = g.cast(b, base_type);
    let da = pow_base(g, a, exponent, dy);
    let zero = g.scalar(0.0, a);
    let is_zero = g.binary("Equal", a, zero);
    let one = g.scalar(1.0, a);
    let safe = g.select(is_zero, one, a);
    let log = g.unary("Log", safe);
    let slope = g.mul(y, log);
    let db = g.mul(dy, slope);
    let exponent_type = g.data_type(b);
    let db = g.cast(db, exponent_type);
    Ok(vec![Some(g.sum_to(da, &a_dims)), Some(g.sum_to(db, &b_dims))])
}

fn pow_base(g: &mut Builder, a: Value, b: Value, dy: Value) -> Value {
    let lower = g.add_scalar(b, -1.0);
    let power = g.binary("Pow", a, lower);
    let slope = g.mul(b, power);
    g.mul(dy, slope)
}

/// `a mod b = a - b trunc(a/b)`, of which the quotient is constant almost everywhere.
fn modulo(g: &mut Builder, at: &Site<'_>) -> Gradients {
    let (a, b, y, dy) = (at.x(0), at.x(1), at.y(0), at.dy());
    let whole = g.sub(y, a);
    let minus_quotient = g.div(whole, b);
    let db = g.mul(dy, minus_quotient);
    pair(g, at, dy, db)
}

fn sum(g: &mut Builder, at: &Site<'_>) -> Gradients {
    let dims: Vec<_> = (0..at.inputs.len()).map(|index| g.dims(at.x(index)).to_vec()).collect();
    Ok(dims.iter().map(|dims| Some(g.sum_to(at.dy(), dims))).collect())
}

const MEAN: Composition = |forward, node| {
    let sum = forward.apply("Sum", node.inputs, Attributes::none())?;
    let count = forward.graph.scalar(node.inputs.len() as f64, sum);
    Ok(vec![forward.apply("Div", &[Some(sum), Some(count)], Attributes::none())?])
};

/// The gradient goes to the inputs that have the extreme value, in equal parts, as PyTorch's
/// `maximum`, `minimum`, `amax` and `amin` share it.
fn extremum(g: &mut Builder, at: &Site<'_>) -> Gradients {
    if at.inputs.len() == 1 {
        return only(at.dy());
    }
    let (y, dy) = (at.y(0), at.dy());
    let masks: Vec<Value> = (0..at.inputs.len())
        .map(|index| {
            let equal = g.binary("Equal", at.x(index), y);
            g.indicator(equal, dy)
        })
        .collect();
    let ties = g.sum(&masks).unwrap_or(Value::REFUSED);
    let share = g.div(dy, ties);
    Ok(masks
        .into_iter()
        .enumerate()
        .map(|(index, mask)| {
            let gradient = g.mul(share, mask);
            let dims = g.dims(at.x(index)).to_vec();
            Some(g.sum_to(gradient, &dims))
        })
        .collect())
}

fn neg(g: &mut Builder, at: &Site<'_>) -> Gradients {
    only(g.neg(at.dy()))
}

fn abs(g: &mut Builder, at: &Site<'_>) -> Gradients {
    let sign = g.unary("Sign", at.x(0));
    only(g.mul(at.dy(), sign))
}

/// `1 / (2 sqrt x)`.
fn sqrt(g: &mut Builder, at: &Site<'_>) -> Gradients {
    let half = g.scale(at.dy(), 0.5);
    only(g.div(half, at.y(0)))
}

/// `-1 / x^2`.
fn reciprocal(g: &mut Builder, at: &Site<'_>) -> Gradients {
    let squared = g.square(at.y(0));
    let product = g.mul(at.dy(), squared);
    only(g.neg(product))
}

fn exp(g: &mut Builder, at: &Site<'_>) -> Gradients {
    only(g.mul(at.dy(), at.y(0)))
}

fn log(g: &mut Builder, at: &Site<'_>) -> Gradients {
    only(g.div(at.dy(), at.x(0)))
}

/// `2 / sqrt(pi) exp(-x^2)`.
fn erf(g: &mut Builder, at: &Site<'_>) -> Gradients {
    let squared = g.square(at.x(0));
    let negative = g.neg(squared);
    let bell = g.unary("Exp", negative);
    let product = g.mul(at.dy(), bell);
    only(g.scale(product, std::f64::consts::FRAC_2_SQRT_PI))
}

/// 1 between the bounds and on them, as in PyTorch; 0 beyond.
fn clip(g: &mut Builder, at: &Site<'_>) -> Gradients {
    let mut gradient = at.dy();
    for (bound, inside) in [(1, "GreaterOrEqual"), (2, "LessOrEqual")] {
        if let Some(bound) = at.input(bound) {
            let within = g.binary(inside, at.x(0), bound);
            let mask = g.indicator(within, gradient);
            gradient = g.mul(gradient, mask);
        }
    }
    only(gradient)
}
