//! Activation functions.

use super::fused::may_fuse;
use super::shapes::same;
use super::{Composition, Gradients, Lowered, Lowering, Operator, Site, only};
use crate::autodiff::Mode;
use crate::graph::{Attributes, Builder, Value, normalize_axis};
use crate::kernels::{GELU, RELU_GRADIENT, SILU, SILU_GRADIENT, SOFTMAX_GRADIENT};
use crate::onnx::DataType;

pub(super) const OPERATORS: &[Operator] = &[
    Operator::rule("Relu", same, relu),
    Operator::rule("Tanh", same, tanh),
    Operator::rule("Sigmoid", same, sigmoid),
    Operator::rule("LeakyRelu", same, leaky_relu),
    Operator::rule("PRelu", same, prelu),
    Operator::rule("ThresholdedRelu", same, thresholded_relu),
    Operator::rule("Elu", same, elu),
    Operator::rule("Selu", same, selu),
    Operator::rule("Celu", same, celu),
    Operator::rule("HardSigmoid", same, hard_sigmoid),
    Operator::composed("HardSwish", HARD_SWISH),
    Operator::rule("Softplus", same, softplus),
    Operator::rule("Softsign", same, softsign),
    Operator::composed("Mish", MISH),
    Operator::composed("Swish", SWISH),
    Operator::rule(SILU, same, silu),
    Operator::lowered("Gelu", same, GELU_IN_TRAINING, gelu),
    Operator::rule("Softmax", same, softmax),
    Operator::rule("LogSoftmax", same, log_softmax),
    Operator::flat("Hardmax", same),
    Operator::composed("Shrink", SHRINK),
];

/// 1 where `x` is not 0, else 0: two casts are the fastest such mask.
fn nonzero(g: &mut Builder, x: Value) -> Value {
    let condition = g.cast(x, DataType::Bool);
    g.indicator(condition, x)
}

fn relu(g: &mut Builder, at: &Site<'_>) -> Gradients {
    if may_fuse(g, &[at.y(0)]) {
        return only(g.binary(RELU_GRADIENT, at.dy(), at.y(0)));
    }
    let mask = nonzero(g, at.y(0));
    only(g.mul(at.dy(), mask))
}

/// `1 - y^2`.
fn tanh(g: &mut Builder, at: &Site<'_>) -> Gradients {
    let squared = g.square(at.y(0));
    let slope = g.sub_from(1.0, squared);
    only(g.mul(at.dy(), slope))
}

/// `y (1 - y)`.
fn sigmoid(g: &mut Builder, at: &Site<'_>) -> Gradients {
    let rest = g.sub_from(1.0, at.y(0));
    let slope = g.mul(at.y(0), rest);
    only(g.mul(at.dy(), slope))
}

/// The gradient `dy` where `condition` holds, elsewhere `dy * slope`.
fn piecewise(g: &mut Builder, at: &Site<'_>, condition: Value, slope: Value) -> Gradients {
    let other = g.mul(at.dy(), slope);
    only(g.select(condition, at.dy(), other))
}

fn leaky_relu(g: &mut Builder, at: &Site<'_>) -> Gradients {
    let slope = g.scalar(at.attributes.float("alpha", 0.01), at.x(0));
    let zero = g.scalar(0.0, at.x(0));
    let positive = g.binary("Greater", at.x(0), zero);
    piecewise(g, at, positive, slope)
}

/// `y = x` above zero, `slope x` below; the slope is broadcast to `x`.
fn prelu(g: &mut Builder, at: &Site<'_>) -> Gradients {
    let (x, slope, dy) = (at.x(0), at.x(1), at.dy());
    let zero = g.scalar(0.0, x);
    let is_positive = g.binary("Greater", x, zero);
    let sloped = g.mul(dy, slope);
    let dx = g.select(is_positive, dy, sloped);
    let negative_part = g.binary("Min", x, zero);
    let product = g.mul(dy, negative_part);
    let dims = g.dims(slope).to_vec();
    Ok(vec![Some(dx), Some(g.sum_to(product, &dims))])
}

fn thresholded_relu(g: &mut Builder, at: &Site<'_>) -> Gradients {
    let alpha = g.scalar(at.attributes.float("alpha", 1.0), at.x(0));
    let mask = g.greater(at.x(0), alpha);
    only(g.mul(at.dy(), mask))
}

/// `y = alpha (exp x - 1)` below zero, so the slope there is `y + alpha`.
fn elu(g: &mut Builder, at: &Site<'_>) -> Gradients {
    let slope = g.add_scalar(at.y(0), at.attributes.float("alpha", 1.0));
    let zero = g.scalar(0.0, at.x(0));
    let positive = g.binary("Greater", at.x(0), zero);
    piecewise(g, at, positive, slope)
}

/// `y = gamma x` above zero, `gamma alpha (exp x - 1)` below (Klambauer et al. 2017; the defaults
/// are those of ONNX).
fn selu(g: &mut Builder, at: &Site<'_>) -> Gradients {
    let alpha = at.attributes.float("alpha", 1.673_263_192_176_818_8);
    let gamma = at.attributes.float("gamma", 1.050_701_022_148_132_3);
    let below = g.add_scalar(at.y(0), alpha * gamma);
    let above = g.scalar(gamma, at.x(0));
    let zero = g.scalar(0.0, at.x(0));
    let is_positive = g.binary("Greater", at.x(0), zero);
    let slope = g.select(is_positive, above, below);
    only(g.mul(at.dy(), slope))
}

/// `max(0, x) + min(0, alpha (exp(x / alpha) - 1))` (Barron 2017): the slope below zero is
/// `exp(x / alpha) = y / alpha + 1`.
fn celu(g: &mut Builder, at: &Site<'_>) -> Gradients {
    let scaled = g.scale(at.y(0), 1.0 / at.attributes.float("alpha", 1.0));
    let slope = g.add_scalar(scaled, 1.0);
    let zero = g.scalar(0.0, at.x(0));
    let positive = g.binary("Greater", at.x(0), zero);
    piecewise(g, at, positive, slope)
}

/// `max(0, min(1, alpha x + beta))`: the slope is `alpha` strictly between 0 and 1.
fn hard_sigmoid(g: &mut Builder, at: &Site<'_>) -> Gradients {
    let y = at.y(0);
    let (zero, one) = (g.scalar(0.0, y), g.scalar(1.0, y));
    let (above, below) = (g.greater(y, zero), g.less(y, one));
    let inside = g.mul(above, below);
    let slope = g.scale(inside, at.attributes.float("alpha", 0.2));
    only(g.mul(at.dy(), slope))
}

/// `x max(0, min(1, x / 6 + 1 / 2))`.
const HARD_SWISH: Composition = |forward, node| {
    let attributes = Attributes::none().with("alpha", 1.0f32 / 6.0).with("beta", 0.5f32);
    let gate = forward.apply("HardSigmoid", node.inputs, attributes)?;
    Ok(vec![forward.apply("Mul", &[node.input(0), Some(gate)], Attributes::none())?])
};

/// `log(1 + exp x)`: the slope is the logistic function.
fn softplus(g: &mut Builder, at: &Site<'_>) -> Gradients {
    let slope = g.unary("Sigmoid", at.x(0));
    only(g.mul(at.dy(), slope))
}

/// `x / (1 + |x|)`: the slope is `1 / (1 + |x|)^2`.
fn softsign(g: &mut Builder, at: &Site<'_>) -> Gradients {
    let magnitude = g.unary("Abs", at.x(0));
    let denominator = g.add_scalar(magnitude, 1.0);
    let squared = g.square(denominator);
    only(g.div(at.dy(), squared))
}

/// `x tanh(softplus x)` (Misra 2019).
const MISH: Composition = |forward, node| {
    let softplus = forward.apply("Softplus", node.inputs, Attributes::none())?;
    let gate = forward.apply("Tanh", &[Some(softplus)], Attributes::none())?;
    Ok(vec![forward.apply("Mul", &[node.input(0), Some(gate)], Attributes::none())?])
};

/// `x sigmoid(alpha x)`.
const SWISH: Composition = |forward, node| {
    let x = node.required(0)?;
    let alpha = node.attributes.float("alpha", 1.0);
    if alpha == 1.0 && forward.mode == Mode::Training && may_fuse(forward.graph, &[x]) {
        return Ok(vec![forward.apply(SILU, &[Some(x)], Attributes::none())?]);
    }
    let scaled = if alpha == 1.0 {
        x
    } else {
        let alpha = forward.graph.scalar(alpha, x);
        forward.apply("Mul", &[Some(x), Some(alpha)], Attributes::none())?
    };
    let gate = forward.apply("Sigmoid", &[Some(scaled)], Attributes::none())?;
    Ok(vec![forward.apply("Mul", &[Some(x), Some(gate)], Attributes::none())?])
};

fn silu(g: &mut Builder, at: &Site<'_>) -> Gradients {
    only(g.binary(SILU_GRADIENT, at.dy(), at.x(0)))
}

fn is_exact(attributes: &Attributes) -> bool {
    attributes.text("approximate", "none") != "tanh"
}

/// In training, the exact form keeps its slope.
const GELU_IN_TRAINING: Lowering = |forward, node| {
    let x = node.required(0)?;
    if forward.mode == Mode::Training && is_exact(node.attributes) && may_fuse(forward.graph, &[x])
    {
        let outputs = forward.graph.emit(GELU, node.inputs, Attributes::none(), 2);
        return match outputs[..] {
            [y, slope] => Ok(Lowered { outputs: vec![y], saved: vec![slope] }),
            _ => Err("it has not two outputs".to_owned()),
        };
    }
    let outputs = forward.graph.emit("Gelu", node.inputs, node.attributes.clone(), 1);
    Ok(Lowered { outputs, saved: Vec::new() })
};

/// Exactly `x Phi(x)`, with the slope `Phi(x) + x phi(x)`; approximately
/// `x/2 (1 + tanh u)` with `u = sqrt(2/pi) (x + 0.044715 x^3)` (Hendrycks and Gimpel 2016).
fn gelu(g: &mut Builder, at: &Site<'_>) -> Gradients {
    use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_PI, PI};
    if let &[slope] = at.saved {
        return only(g.mul(at.dy(), slope));
    }
    let x = at.x(0);
    let squared = g.square(x);
    let slope = if is_exact(at.attributes) {
        let scaled = g.scale(x, FRAC_1_SQRT_2);
        let erf = g.unary("Erf", scaled);
        let half = g.scale(erf, 0.5);
        let cumulative = g.add_scalar(half, 0.5);
        let exponent = g.scale(squared, -0.5);
        let bell = g.unary("Exp", exponent);
        let density = g.scale(bell, 1.0 / (2.0 * PI).sqrt());
        let bump = g.mul(x, density);
        g.add(cumulative, bump)
    } else {
        let root = FRAC_2_PI.sqrt();
        let cubic = g.scale(squared, 0.044_715);
        let factor = g.add_scalar(cubic, 1.0);
        let product = g.mul(x, factor);
        let u = g.scale(product, root);
        let tanh = g.unary("Tanh", u);
        let tanh_squared = g.square(tanh);
        let tanh_slope = g.sub_from(1.0, tanh_squared);
        let du = g.scale(squared, 3.0 * 0.044_715 * root);
        let du = g.add_scalar(du, root);
        let bump = g.mul(tanh_slope, du);
        let bump = g.mul(x, bump);
        let both = g.add(tanh, bump);
        let both = g.add_scalar(both, 1.0);
        g.scale(both, 0.5)
    };
    only(g.mul(at.dy(), slope))
}

fn softmax_axis(g: &Builder, at: &Site<'_>) -> Result<usize, String> {
    normalize_axis(at.attributes.int("axis", -1), g.dims(at.x(0)).len())
}

/// `y (dy - sum(y dy))` over the axis.
fn softmax(g: &mut Builder, at: &Site<'_>) -> Gradients {
    let axis = softmax_axis(g, at)?;
    if axis + 1 == g.dims(at.y(0)).len() && may_fuse(g, &[at.y(0)]) {
        return only(g.binary(SOFTMAX_GRADIENT, at.dy(), at.y(0)));
    }
    let weighted = g.mul(at.y(0), at.dy());
    let sum = g.reduce_sum(weighted, &[axis]);
    let shared = g.mul(at.y(0), sum);
    only(g.sub(weighted, shared))
}

/// `dy - exp(y) sum(dy)` over the axis.
fn log_softmax(g: &mut Builder, at: &Site<'_>) -> Gradients {
    let axis = softmax_axis(g, at)?;
    let sum = g.reduce_sum(at.dy(), &[axis]);
    let probabilities = g.unary("Exp", at.y(0));
    let shared = g.mul(probabilities, sum);
    only(g.sub(at.dy(), shared))
}

/// `x + bias` below `-lambd`, `x - bias` above `lambd`, 0 between.
const SHRINK: Composition = |forward, node| {
    let x = node.required(0)?;
    let bias = node.attributes.float("bias", 0.0);
    let limit = node.attributes.float("lambd", 0.5);
    let g = &mut *forward.graph;
    let (low, high) = (g.scalar(-limit, x), g.scalar(limit, x));
    let (below, above) = (g.less(x, low), g.greater(x, high));
    let outside = g.add(below, above);
    let sign = g.sub(above, below);
    let shift = g.scale(sign, -bias);
    let kept = forward.apply("Mul", &[Some(x), Some(outside)], Attributes::none())?;
    Ok(vec![forward.apply("Add", &[Some(kept), Some(shift)], Attributes::none())?])
};
