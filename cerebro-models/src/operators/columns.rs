//! Images put together from columns: the transpose of taking an image apart into blocks.

use super::window::Window;
use super::{Composition, Operator, elements_to_make};
use crate::graph::Attributes;
use crate::onnx::TensorData;

pub(super) const OPERATORS: &[Operator] = &[Operator::composed("Col2Im", COLUMNS_TO_IMAGE)];

/// A transposed convolution whose kernel puts each element of a column at its own place in the
/// block, of each channel by itself.
const COLUMNS_TO_IMAGE: Composition = |forward, node| {
    let x = node.required(0)?;
    let call = node.call(forward.graph);
    let (image, block) = (call.sizes(1)?, call.sizes(2)?);
    let elements = elements_to_make(&block)?;
    elements_to_make(&[elements, elements])?;
    let window = Window::new(&call, block, &image)?;
    let places = window.places(&image)?;
    let dims = forward.graph.dims(x).to_vec();
    let &[batch, rows, columns] = dims.as_slice() else {
        return Err(format!("{dims:?} should be batch, rows and columns"));
    };
    let fitting = places.iter().try_fold(1_usize, |product, &size| product.checked_mul(size));
    if fitting != Some(columns) || rows % elements != 0 {
        let block = window.kernel;
        return Err(format!("columns {dims:?} do not make images {image:?} of blocks {block:?}"));
    }
    let channels = rows / elements;
    let none = Attributes::none;

    let split = [&[batch * channels, elements], places.as_slice()].concat();
    let columns = forward.reshape(x, &split)?;
    let kernel = [&[elements, 1], window.kernel.as_slice()].concat();
    let own_place: Vec<f64> =
        (0..elements * elements).map(|at| f64::from(at / elements == at % elements)).collect();
    let data_type = forward.graph.data_type(x);
    let kernel = TensorData::from_f64(data_type, &kernel, &own_place);
    let kernel = forward.graph.constant(kernel);
    // What no block covers at the end of the image.
    let rest = (0..image.len()).map(|axis| {
        let covered = (places[axis] - 1) * window.strides[axis] + window.extent(axis);
        window.padded(axis, image[axis]) - covered
    });
    let ints = |sizes: &[usize]| sizes.iter().map(|&size| size as i64).collect::<Vec<_>>();
    let rest = ints(&rest.collect::<Vec<_>>());
    let attributes = none()
        .with("strides", ints(&window.strides))
        .with("dilations", ints(&window.dilations))
        .with("pads", [ints(&window.pads_before), ints(&window.pads_after)].concat())
        .with("output_padding", rest);
    let images = forward.apply("ConvTranspose", &[Some(columns), Some(kernel)], attributes)?;
    Ok(vec![forward.reshape(images, &[&[batch, channels], image.as_slice()].concat())?])
};
