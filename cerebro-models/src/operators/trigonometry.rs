//! Circular and hyperbolic functions, and their inverses.

use super::shapes::same;
use super::{Gradients, Operator, Site, only};
use crate::graph::{Builder, Value};

pub(super) const OPERATORS: &[Operator] = &[
    Operator::rule("Sin", same, sin),
    Operator::rule("Cos", same, cos),
    Operator::rule("Tan", same, tan),
    Operator::rule("Asin", same, asin),
    Operator::rule("Acos", same, acos),
    Operator::rule("Atan", same, atan),
    Operator::rule("Sinh", same, sinh),
    Operator::rule("Cosh", same, cosh),
    Operator::rule("Asinh", same, asinh),
    Operator::rule("Acosh", same, acosh),
    Operator::rule("Atanh", same, atanh),
];

fn sin(g: &mut Builder, at: &Site<'_>) -> Gradients {
    let slope = cosine(g, at.x(0));
    only(g.mul(at.dy(), slope))
}

/// `cos x = 1 - 2 sin(x/2)^2`: ONNX Runtime's processor kernel of `Cos` is for 32-bit floats only.
fn cosine(g: &mut Builder, x: Value) -> Value {
    let half = g.scale(x, 0.5);
    let sine = g.unary("Sin", half);
    let squared = g.square(sine);
    let doubled = g.scale(squared, 2.0);
    g.sub_from(1.0, doubled)
}

fn cos(g: &mut Builder, at: &Site<'_>) -> Gradients {
    let sine = g.unary("Sin", at.x(0));
    let product = g.mul(at.dy(), sine);
    only(g.neg(product))
}

/// `1 + y^2`.
fn tan(g: &mut Builder, at: &Site<'_>) -> Gradients {
    let squared = g.square(at.y(0));
    let slope = g.add_scalar(squared, 1.0);
    only(g.mul(at.dy(), slope))
}

/// `dy / sqrt(sign x^2 + constant)`.
fn over_root(g: &mut Builder, at: &Site<'_>, sign: f64, constant: f64) -> Value {
    let squared = g.square(at.x(0));
    let signed = g.scale(squared, sign);
    let inside = g.add_scalar(signed, constant);
    let root = g.unary("Sqrt", inside);
    g.div(at.dy(), root)
}

/// `1 / sqrt(1 - x^2)`.
fn asin(g: &mut Builder, at: &Site<'_>) -> Gradients {
    only(over_root(g, at, -1.0, 1.0))
}

/// `-1 / sqrt(1 - x^2)`.
fn acos(g: &mut Builder, at: &Site<'_>) -> Gradients {
    let positive = over_root(g, at, -1.0, 1.0);
    only(g.neg(positive))
}

/// `1 / (1 + x^2)`.
fn atan(g: &mut Builder, at: &Site<'_>) -> Gradients {
    let squared = g.square(at.x(0));
    let denominator = g.add_scalar(squared, 1.0);
    only(g.div(at.dy(), denominator))
}

/// `(exp x + sign exp(-x)) / 2`.
fn hyperbolic(g: &mut Builder, x: Value, sign: f64) -> Value {
    let exp = g.unary("Exp", x);
    let inverse = g.unary("Reciprocal", exp);
    let signed = g.scale(inverse, sign);
    let sum = g.add(exp, signed);
    g.scale(sum, 0.5)
}

fn sinh(g: &mut Builder, at: &Site<'_>) -> Gradients {
    let slope = hyperbolic(g, at.x(0), 1.0);
    only(g.mul(at.dy(), slope))
}

fn cosh(g: &mut Builder, at: &Site<'_>) -> Gradients {
    let slope = hyperbolic(g, at.x(0), -1.0);
    only(g.mul(at.dy(), slope))
}

/// `1 / sqrt(x^2 + 1)`.
fn asinh(g: &mut Builder, at: &Site<'_>) -> Gradients {
    only(over_root(g, at, 1.0, 1.0))
}

/// `1 / sqrt(x^2 - 1)`.
fn acosh(g: &mut Builder, at: &Site<'_>) -> Gradients {
    only(over_root(g, at, 1.0, -1.0))
}

/// `1 / (1 - x^2)`.
fn atanh(g: &mut Builder, at: &Site<'_>) -> Gradients {
    let squared = g.square(at.x(0));
    let denominator = g.sub_from(1.0, squared);
    only(g.div(at.dy(), denominator))
}
