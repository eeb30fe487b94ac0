//! Convolutions whose kernels' elements lie at places that the network computes (Dai et al. 2017,
//! "Deformable convolutional networks"; with a mask Zhu et al. 2019, "Deformable `ConvNets` v2").

use super::sampling::taps::{Axis, Padding, Pixels, swap_channels};
use super::window::{Window, sizes};
use super::{Composition, Node, Operator, elements_to_make};
use crate::autodiff::Forward;
use crate::graph::{Attributes, Call, Value};
use crate::onnx::TensorData;

pub(super) const OPERATORS: &[Operator] = &[Operator::composed("DeformConv", DEFORMABLE)];

/// The sizes of one such convolution.
struct Sizes {
    batch: usize,
    channels: usize,
    filters: usize,
    groups: usize,
    /// Groups of channels that are sampled at the same places.
    offset_groups: usize,
    spatial: Vec<usize>,
    /// The elements of the kernel.
    taps: usize,
    window: Window,
    /// The places of the window, along each axis and in all.
    output: Vec<usize>,
    places: usize,
}

impl Sizes {
    fn of(call: &Call<'_>) -> Result<Self, String> {
        let (dims, weight, offset) = (call.dims(0)?, call.dims(1)?, call.dims(2)?);
        let (&[batch, channels, ref spatial @ ..], &[filters, per_group, ref kernel @ ..]) =
            (dims, weight)
        else {
            return Err(format!("{dims:?} and {weight:?} are no images and filters"));
        };
        let kernel = sizes(call, "kernel_shape", kernel.len(), 0)
            .ok()
            .filter(|sizes| !sizes.contains(&0))
            .unwrap_or_else(|| kernel.to_vec());
        let window = Window::new(call, kernel, spatial)?;
        let output = window.places(spatial)?;
        let [groups, offset_groups] = ["group", "offset_group"]
            .map(|name| usize::try_from(call.attributes.int(name, 1)).unwrap_or(0));
        let divides = |groups: usize, of: usize| groups > 0 && of.is_multiple_of(groups);
        if !divides(groups, channels)
            || !divides(groups, filters)
            || !divides(offset_groups, channels)
            || channels / groups != per_group
            || weight[2..] != window.kernel
            || dims.contains(&0)
            || weight.contains(&0)
        {
            let groups = format!("{groups} groups, {offset_groups} of offsets");
            return Err(format!("filters {weight:?} in {groups}, do not fit images {dims:?}"));
        }
        let taps = elements_to_make(&window.kernel)?;
        let places = elements_to_make(&output)?;
        elements_to_make(&[batch, channels, taps, places])?;
        let spatial = spatial.to_vec();
        let expect =
            |per_tap: usize| [&[batch, offset_groups * taps * per_tap], output.as_slice()].concat();
        if offset != expect(spatial.len()) {
            return Err(format!("offsets {offset:?}, not {:?}", expect(spatial.len())));
        }
        if call.input(4).is_some() && call.dims(4)? != expect(1) {
            return Err(format!("a mask {:?}, not {:?}", call.dims(4)?, expect(1)));
        }
        Ok(Self {
            batch,
            channels,
            filters,
            groups,
            offset_groups,
            spatial,
            taps,
            window,
            output,
            places,
        })
    }

    /// Where along `axis` each element of the kernel lies without its offset, for each place of the
    /// window.
    fn regular_places(&self, axis: usize) -> Vec<f64> {
        let index = |at: usize, sizes: &[usize]| {
            at / sizes[axis + 1..].iter().product::<usize>() % sizes[axis]
        };
        let place = |tap: usize, place: usize| {
            let tap = index(tap, &self.window.kernel) * self.window.dilations[axis];
            let start = index(place, &self.output) * self.window.strides[axis];
            (start + tap) as f64 - self.window.pads_before[axis] as f64
        };
        let places = 0..self.places;
        (0..self.taps).flat_map(|tap| places.clone().map(move |at| place(tap, at))).collect()
    }
}

/// Samples become the columns of which a convolution is a product of matrices. Samples outside of the
/// image are zeros, and near its edge a share of them, as in torchvision's `deform_conv2d`.
const DEFORMABLE: Composition = |forward, node| {
    let all = Sizes::of(&node.call(forward.graph))?;
    let columns = columns(forward, node, &all)?;
    let Sizes { batch, channels, filters, groups, taps, places, .. } = all;
    let rows = channels / groups * taps;
    let columns = forward.reshape(columns, &[batch, groups, rows, places])?;
    let weight = forward.reshape(node.required(1)?, &[groups, filters / groups, rows])?;
    let y = forward.binary("MatMul", weight, columns)?;
    let mut y = forward.reshape(y, &[&[batch, filters], all.output.as_slice()].concat())?;
    if let Some(bias) = node.input(3) {
        let dims = [&[filters], vec![1; all.output.len()].as_slice()].concat();
        let bias = forward.reshape(bias, &dims)?;
        y = forward.binary("Add", y, bias)?;
    }
    Ok(vec![y])
};

/// The samples: of each image, channel and element of the kernel those of all places.
fn columns(forward: &mut Forward<'_>, node: &Node<'_>, all: &Sizes) -> Result<Value, String> {
    let &Sizes { batch, channels, offset_groups, taps, places, .. } = all;
    let (images, axes) = (batch * offset_groups, all.spatial.len());
    let (x, offset) = (node.required(0)?, node.required(2)?);
    let data_type = forward.graph.data_type(offset);
    let offset = forward.reshape(offset, &[images, taps, axes, places])?;
    let mut around = Vec::with_capacity(axes);
    for (number, &size) in all.spatial.iter().enumerate() {
        let of_axis = forward.graph.constant(TensorData::from_i64(&[], &[number as i64]));
        let along = Attributes::none().with("axis", 2);
        let moved = forward.apply("Gather", &[Some(offset), Some(of_axis)], along)?;
        let regular = all.regular_places(number);
        let regular = TensorData::from_f64(data_type, &[taps, places], &regular);
        let regular = forward.graph.constant(regular);
        let place = forward.binary("Add", moved, regular)?;
        let place = forward.reshape(place, &[images, taps * places])?;
        let axis = Axis { size, padding: Padding::Zeros, aligns_corners: true };
        around.push(axis.linear(forward, place)?);
    }
    let mask = match node.input(4) {
        Some(mask) => Some(forward.reshape(mask, &[images, taps * places])?),
        None => None,
    };
    let rows = Pixels::of(forward, x, offset_groups, &all.spatial)?;
    let parts = rows.pick(forward, &around, mask, images * taps * places)?;
    let samples = forward.apply("Sum", &parts, Attributes::none())?;
    let samples = forward.reshape(samples, &[images, taps * places, channels / offset_groups])?;
    swap_channels(forward, samples)
}
