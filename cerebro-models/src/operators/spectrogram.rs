//! What spectrograms are made with: transforms of frames, windows, and bands of frequencies.

use std::f64::consts::{LN_10, TAU};

use super::{Composition, Node, Operator, elements_to_make};
use crate::autodiff::Forward;
use crate::graph::{Attributes, Call, Value};
use crate::onnx::{DataType, TensorData};

pub(super) const OPERATORS: &[Operator] = &[
    Operator::composed("STFT", TRANSFORMED_FRAMES),
    Operator::made("HannWindow", |forward, node| window(forward, node, [0.5, 0.5, 0.0])),
    Operator::made("HammingWindow", |forward, node| {
        window(forward, node, [25.0 / 46.0, 21.0 / 46.0, 0.0])
    }),
    Operator::made("BlackmanWindow", |forward, node| window(forward, node, [0.42, 0.5, 0.08])),
    Operator::made("MelWeightMatrix", MEL_BANDS),
];

/// The Fourier transforms of frames of a signal, which may overlap.
const TRANSFORMED_FRAMES: Composition = |forward, node| {
    let mut signal = node.required(0)?;
    let mut dims = forward.graph.dims(signal).to_vec();
    if let [batch, samples] = *dims.as_slice() {
        dims = vec![batch, samples, 1];
        signal = forward.reshape(signal, &dims)?;
    }
    let &[_, samples, _] = dims.as_slice() else {
        return Err(format!("{dims:?} should be signals, samples and parts of a number"));
    };
    let call = node.call(forward.graph);
    let step = size(&call, 1)?;
    let length = match (call.input(3), call.input(2)) {
        (Some(_), _) => size(&call, 3)?,
        (None, Some(window)) => forward.graph.value_type(window).elements(),
        (None, None) => samples,
    };
    if step == 0 || length > samples {
        return Err(format!("{samples} samples have no frames of {length}, {step} apart"));
    }
    let frames = (samples - length) / step + 1;
    let count = elements_to_make(&[frames, length])?;
    let places: Vec<i64> = (0..count).map(|at| (at / length * step + at % length) as i64).collect();
    let places = forward.graph.constant(TensorData::from_i64(&[frames, length], &places));
    let along_time = Attributes::none().with("axis", 1);
    let mut framed = forward.apply("Gather", &[Some(signal), Some(places)], along_time)?;
    if let Some(window) = node.input(2) {
        let column = forward.reshape(window, &[length, 1])?;
        framed = forward.binary("Mul", framed, column)?;
    }
    let is_half = node.attributes.int("onesided", 1);
    let attributes = Attributes::none().with("onesided", is_half);
    Ok(vec![forward.apply("DFT", &[Some(framed)], attributes)?])
};

/// The size in input number `index`.
fn size(call: &Call<'_>, index: usize) -> Result<usize, String> {
    call.sizes(index)?.first().copied().ok_or_else(|| format!("input {index} is empty"))
}

/// The type that attribute `output_datatype` says.
fn output_type(node: &Node<'_>) -> Result<DataType, String> {
    let code = node.attributes.int("output_datatype", DataType::Float32.code());
    DataType::from_code(code).ok_or_else(|| format!("type {code} is not supported"))
}

/// `a - b cos(2 pi n / N) + c cos(4 pi n / N)`, where `N` is the size, or one less if the window is
/// not to be periodic.
fn window(
    forward: &mut Forward<'_>,
    node: &Node<'_>,
    [a, b, c]: [f64; 3],
) -> Result<Vec<Value>, String> {
    let size = size(&node.call(forward.graph), 0)?;
    let period = if node.attributes.int("periodic", 1) != 0 { size } else { size - size.min(1) };
    let period = period.max(1) as f64;
    let height = |place: usize| {
        let angle = TAU * place as f64 / period;
        a - b * angle.cos() + c * (2.0 * angle).cos()
    };
    let heights: Vec<f64> = (0..elements_to_make(&[size])?).map(height).collect();
    let window = TensorData::from_f64(output_type(node)?, &[size], &heights);
    Ok(vec![forward.graph.constant(window)])
}

/// How much each band of the mel scale takes of each frequency: triangles, as ONNX's reference
/// implementation draws them.
const MEL_BANDS: Composition = |forward, node| {
    let call = node.call(forward.graph);
    let [bands, length, rate] = [size(&call, 0)?, size(&call, 1)?, size(&call, 2)?];
    let edge = |index: usize| -> Result<f64, String> {
        let hertz = call.constant(index)?.to_f64s();
        let hertz = hertz.first().ok_or_else(|| format!("input {index} is empty"))?;
        Ok(2595.0 * (hertz / 700.0).ln_1p() / LN_10)
    };
    let (low, high) = (edge(3)?, edge(4)?);
    let bins = length / 2 + 1;
    let count = elements_to_make(&[bins, bands])?;
    let step = (high - low) / (bands + 2) as f64;
    let corner = |index: usize| {
        let hertz = 700.0 * ((low + index as f64 * step) / 2595.0 * LN_10).exp_m1();
        // Beyond any frequency that there is where the rate is 0.
        ((length + 1) as f64 * hertz / rate as f64).floor().min(1e15) as usize
    };
    let mut weights = vec![0.0; count];
    for band in 0..bands {
        let [left, center, right] = [0, 1, 2].map(|more| corner(band + more));
        let right = right.max(center + 1);
        for bin in left..right.min(bins) {
            let (from_edge, width) = if bin < center {
                (bin - left, center - left)
            } else {
                (right - bin, right - center)
            };
            weights[bin * bands + band] = from_edge as f64 / width as f64;
        }
    }
    let weights = TensorData::from_f64(output_type(node)?, &[bins, bands], &weights);
    Ok(vec![forward.graph.constant(weights)])
};
