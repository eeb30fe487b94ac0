//! Regions of interest: grids of samples in boxes that the network or the data give (He et al. 2017, "Mask
//! R-CNN", section 3).

use super::sampling::taps::{Pixels, Tap};
use super::{Composition, Operator, elements_to_make};
use crate::autodiff::Mode;
use crate::graph::{Attributes, Builder, Call, Type, Value};
use crate::onnx::{DataType, TensorData};

pub(super) const OPERATORS: &[Operator] =
    &[Operator::unrolled("RoiAlign", roi_align_shape, ROI_ALIGN)];

fn size(call: &Call<'_>, name: &str) -> Result<usize, String> {
    let size = call.attributes.int(name, 1);
    let fits = usize::try_from(size).ok().filter(|size| (1..1 << 20).contains(size));
    fits.ok_or_else(|| format!("`{name}` is {size}"))
}

fn roi_align_shape(call: &Call<'_>) -> Result<Vec<Type>, String> {
    let (dims, regions, images) = (call.dims(0)?, call.dims(1)?, call.dims(2)?);
    let (&[_, channels, _, _], &[count, 4], &[numbers]) = (dims, regions, images) else {
        let of = format!("{regions:?} of images {images:?}");
        return Err(format!("regions {of} do not fit features {dims:?} of batch and channels"));
    };
    if count != numbers || count == 0 || dims.contains(&0) {
        return Err(format!("{count} regions of {numbers} images of the shape {dims:?}"));
    }
    let sizes = [size(call, "output_height")?, size(call, "output_width")?];
    Ok(vec![Type::new(call.data_type(0)?, [count, channels, sizes[0], sizes[1]])])
}

/// How a region is cut into bins and these into samples, along one axis.
#[derive(Clone, Copy, Debug)]
struct Grid {
    /// The elements of the features.
    size: usize,
    bins: usize,
    samples: usize,
    scale: f64,
    is_half_pixel: bool,
}

/// Means or maxima of samples in each bin. There is a gradient by the features alone, as in PyTorch.
/// The formulas, also at the edges and of maxima, are those of ONNX Runtime's `roialign.cc`: the maximum
/// is that of elements times their shares.
const ROI_ALIGN: Composition = |forward, node| {
    let call = node.call(forward.graph);
    let [count, channels, bins_high, bins_wide] = roi_align_shape(&call)?[0].dims[..] else {
        return Err("its output has four axes".to_owned());
    };
    if forward.mode == Mode::Inference {
        return Ok(forward.graph.emit("RoiAlign", node.inputs, node.attributes.clone(), 1));
    }
    if node.attributes.int("sampling_ratio", 0) == 0 {
        return Err(
            "with the sampling_ratio 0 the number of samples depends on the regions: export \
                    it with a ratio, such as 2"
                .to_owned(),
        );
    }
    let samples = size(&call, "sampling_ratio")?;
    let is_half_pixel = match node.attributes.text("coordinate_transformation_mode", "half_pixel") {
        "half_pixel" => true,
        "output_half_pixel" => false,
        other => return Err(format!("coordinate_transformation_mode `{other}` is unknown")),
    };
    let is_mean = match node.attributes.text("mode", "avg") {
        "avg" => true,
        "max" => false,
        other => return Err(format!("mode `{other}` is unknown")),
    };
    let (x, regions, images) = (node.required(0)?, node.required(1)?, node.required(2)?);
    let spatial = forward.graph.dims(x)[2..].to_vec();
    let all = [count, bins_high, samples, bins_wide, samples];
    let sampled = elements_to_make(&all)?;
    elements_to_make(&[sampled, channels])?;

    let grid = |size: usize, bins: usize| {
        let scale = node.attributes.float("spatial_scale", 1.0);
        Grid { size, bins, samples, scale, is_half_pixel }
    };
    let g = &mut *forward.graph;
    let high = grid(spatial[0], bins_high).taps(g, regions, 1);
    let high = high.map(|tap| tap.reshaped(g, &[count, bins_high * samples, 1]));
    let wide = grid(spatial[1], bins_wide).taps(g, regions, 0);
    let wide = wide.map(|tap| tap.reshaped(g, &[count, 1, bins_wide * samples]));

    let area = g.ints(&[spatial.iter().product::<usize>() as i64]);
    let images = g.cast(images, DataType::Int64);
    let firsts = g.mul(images, area);
    let firsts = g.reshape(firsts, &[count, 1, 1]);
    let rows = Pixels { firsts, ..Pixels::of(forward, x, 1, &spatial)? };
    let parts = rows.pick(forward, &[high.to_vec(), wide.to_vec()], None, sampled)?;
    let (join, reduce) = if is_mean { ("Sum", "ReduceMean") } else { ("Max", "ReduceMax") };
    let values = forward.apply(join, &parts, Attributes::none())?;
    let values = forward.reshape(values, &[all.as_slice(), &[channels]].concat())?;
    let of_bin = forward.graph.ints(&[2, 4]);
    let keep = Attributes::none().with("keepdims", 0);
    let bins = forward.apply(reduce, &[Some(values), Some(of_bin)], keep)?;
    let channels_first = Attributes::none().with("perm", vec![0, 3, 1, 2]);
    Ok(vec![forward.apply("Transpose", &[Some(bins)], channels_first)?])
};

impl Grid {
    /// The elements below and above each sample of the regions, whose first corner along this axis is in
    /// column `first` and whose second two columns later.
    fn taps(self, g: &mut Builder, regions: Value, first: usize) -> [Tap; 2] {
        let corner = |g: &mut Builder, column: usize| {
            let corner = g.slice(regions, 1, column as i64, column as i64 + 1, 1);
            let scaled = g.scale(corner, self.scale);
            if self.is_half_pixel { g.add_scalar(scaled, -0.5) } else { scaled }
        };
        let (start, end) = (corner(g, first), corner(g, first + 2));
        let mut extent = g.sub(end, start);
        if !self.is_half_pixel {
            let one = g.scalar(1.0, extent);
            extent = g.binary("Max", extent, one);
        }
        let bin = g.scale(extent, 1.0 / self.bins as f64);
        let middles: Vec<f64> = (0..self.bins * self.samples)
            .map(|sample| (sample as f64 + 0.5) / self.samples as f64)
            .collect();
        let middles = TensorData::from_f64(g.data_type(bin), &[1, middles.len()], &middles);
        let middles = g.constant(middles);
        let places = g.mul(bin, middles);
        let places = g.add(start, places);

        // What is a whole element outside of the features counts as zero.
        let [before, beyond] = [-1.0, self.size as f64].map(|edge| g.scalar(edge, places));
        let [first, last] = [0.0, self.size as f64 - 1.0].map(|edge| g.scalar(edge, places));
        let not_before = g.binary("GreaterOrEqual", places, before);
        let not_beyond = g.binary("LessOrEqual", places, beyond);
        let inside = g.binary("And", not_before, not_beyond);
        let inside = g.indicator(inside, places);
        let places = g.op("Clip", &[places, first, last], Attributes::none());
        let below = g.unary("Floor", places);
        let above = g.add_scalar(below, 1.0);
        let above = g.binary("Min", above, last);
        let to_below = g.sub(places, below);
        let to_above = g.sub_from(1.0, to_below);
        [(below, to_above), (above, to_below)].map(|(element, share)| Tap {
            index: g.cast(element, DataType::Int64),
            share: g.mul(share, inside),
        })
    }
}

impl Tap {
    fn reshaped(self, g: &mut Builder, dims: &[usize]) -> Self {
        Self { index: g.reshape(self.index, dims), share: g.reshape(self.share, dims) }
    }
}
