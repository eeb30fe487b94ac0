//! Quantization as it is trained for: rounded and clipped, with gradients that pass through (Jacob et
//! al. 2018, "Quantization and training of neural networks for efficient integer-arithmetic-only
//! inference", section 3).
//!
//! Quantized values are whole numbers that stay floats of the type that they come of, so that gradients
//! reach through whatever stands between quantizing and dequantizing.

use super::shapes::never_emitted;
use super::{Composition, Gradients, Lowered, Node, Operator, Site};
use crate::autodiff::Forward;
use crate::graph::{Attributes, Builder, Call, Value, normalize_axis};
use crate::onnx::DataType;

pub(super) const OPERATORS: &[Operator] = &[
    Operator::lowered("QuantizeLinear", never_emitted, quantize_forward, quantize),
    Operator::composed("DequantizeLinear", DEQUANTIZE),
];

/// The least and the largest number of the quantized type: the zero point's, or else the one that is
/// asked for.
fn range(call: &Call<'_>) -> Result<[f64; 2], String> {
    let quantized = match (call.input(2), call.attributes.int("output_dtype", 0)) {
        (Some(zero_point), _) => Some(call.graph.data_type(zero_point)),
        (None, 0) => Some(DataType::Uint8),
        (None, code) => DataType::from_code(code),
    };
    match quantized {
        Some(DataType::Uint8) => Ok([0.0, 255.0]),
        Some(DataType::Int8) => Ok([-128.0, 127.0]),
        Some(DataType::Uint16) => Ok([0.0, 65535.0]),
        Some(DataType::Int16) => Ok([-32768.0, 32767.0]),
        _ => Err("it quantizes to other types than integers of 8 or 16 bits".to_owned()),
    }
}

/// The scale and the zero point, if there is one: floats that broadcast to the first input.
fn settings(g: &mut Builder, node: &Node<'_>) -> Result<(Value, Option<Value>), String> {
    let (x, scale) = (node.required(0)?, node.required(1)?);
    if node.attributes.int("block_size", 0) != 0 {
        return Err("it has a scale for each block: quantize whole tensors or axes".to_owned());
    }
    let dims = g.dims(x).to_vec();
    let of_scale = g.dims(scale).to_vec();
    let shape = if of_scale.iter().product::<usize>() == 1 {
        Vec::new()
    } else {
        let axis = normalize_axis(node.attributes.int("axis", 1), dims.len())?;
        if of_scale != [dims[axis]] {
            return Err(format!("scales {of_scale:?} do not fit axis {axis} of {dims:?}"));
        }
        let mut shape = vec![1; dims.len()];
        shape[axis] = dims[axis];
        shape
    };
    if let Some(zero_point) = node.input(2)
        && g.dims(zero_point).iter().product::<usize>() != shape.iter().product::<usize>()
    {
        let found = g.dims(zero_point);
        return Err(format!("zero points {found:?} do not fit scales {of_scale:?}"));
    }
    let zero_point = node.input(2).map(|zero_point| {
        let zero_point = g.reshape(zero_point, &shape);
        let data_type = g.data_type(scale);
        g.cast(zero_point, data_type)
    });
    Ok((g.reshape(scale, &shape), zero_point))
}

fn quantize_forward(forward: &mut Forward<'_>, node: &Node<'_>) -> Result<Lowered, String> {
    let [least, largest] = range(&node.call(forward.graph))?;
    let g = &mut *forward.graph;
    let (scale, zero_point) = settings(g, node)?;
    let data_type = g.data_type(scale);
    let x = g.cast(node.required(0)?, data_type);
    let scaled = g.div(x, scale);
    let mut whole = g.unary("Round", scaled);
    if let Some(zero_point) = zero_point {
        whole = g.add(whole, zero_point);
    }
    let (least, largest) = (g.scalar(least, whole), g.scalar(largest, whole));
    let quantized = g.op("Clip", &[whole, least, largest], Attributes::none());
    Ok(Lowered { outputs: vec![quantized], saved: vec![whole, scale] })
}

/// Straight through, as if nothing were rounded: `dx = dy / scale`, and 0 where something was clipped
/// after rounding, as in PyTorch's `fake_quantize`.
fn quantize(g: &mut Builder, at: &Site<'_>) -> Gradients {
    let &[whole, scale] = at.saved else { return Err("its lowering kept two values".to_owned()) };
    let inside = g.equal(whole, at.y(0));
    let dy = g.mul(at.dy(), inside);
    let dx = g.div(dy, scale);
    let data_type = g.data_type(at.x(0));
    let mut gradients = vec![None; at.inputs.len()];
    if data_type.is_float() {
        gradients[0] = Some(g.cast(dx, data_type));
    }
    Ok(gradients)
}

/// `(x - zero point) scale`.
const DEQUANTIZE: Composition = |forward, node| {
    let (scale, zero_point) = settings(forward.graph, node)?;
    let data_type = forward.graph.data_type(scale);
    let to = Attributes::none().with("to", data_type.code());
    let mut x = node.required(0)?;
    if forward.graph.data_type(x) != data_type {
        x = forward.apply("Cast", &[Some(x)], to)?;
    }
    if let Some(zero_point) = zero_point {
        x = forward.binary("Sub", x, zero_point)?;
    }
    Ok(vec![forward.binary("Mul", x, scale)?])
};
