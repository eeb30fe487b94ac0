//! Windows that slide over the spatial axes: what convolutions and pools have in common.

use crate::graph::Call;

/// How a window slides: one entry per spatial axis, in elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) kernel: Vec<usize>,
    pub(super) strides: Vec<usize>,
    pub(super) dilations: Vec<usize>,
    pub(super) pads_before: Vec<usize>,
    pub(super) pads_after: Vec<usize>,
}

impl Window {
    /// The window of `call` with the size `kernel` over an input with the spatial sizes `input`.
    pub(super) fn new(
        call: &Call<'_>,
        kernel: Vec<usize>,
        input: &[usize],
    ) -> Result<Self, String> {
        let rank = kernel.len();
        if rank != input.len() {
            return Err(format!(
                "a window of {kernel:?} does not fit {} spatial axes",
                input.len()
            ));
        }
        let strides = sizes(call, "strides", rank, 1)?;
        let dilations = sizes(call, "dilations", rank, 1)?;
        if kernel.iter().chain(&strides).chain(&dilations).any(|&size| size == 0) {
            return Err("a kernel size, stride or dilation is 0".to_owned());
        }
        let pads = sizes(call, "pads", 2 * rank, 0)?;
        let mut window = Self {
            kernel,
            strides,
            dilations,
            pads_before: pads[..rank].to_vec(),
            pads_after: pads[rank..].to_vec(),
        };
        match call.attributes.text("auto_pad", "NOTSET") {
            "NOTSET" | "" => {}
            "VALID" => {
                window.pads_before = vec![0; rank];
                window.pads_after = vec![0; rank];
            }
            mode @ ("SAME_UPPER" | "SAME_LOWER") => {
                for (axis, &size) in input.iter().enumerate() {
                    // As much padding as makes the output ceil(input / stride) long.
                    let output = size.div_ceil(window.strides[axis]);
                    let covered = (output.max(1) - 1) * window.strides[axis] + window.extent(axis);
                    let total = covered.saturating_sub(size);
                    let less = total / 2;
                    let (before, after) = if mode == "SAME_UPPER" {
                        (less, total - less)
                    } else {
                        (total - less, less)
                    };
                    window.pads_before[axis] = before;
                    window.pads_after[axis] = after;
                }
            }
            other => return Err(format!("auto_pad `{other}` is unknown")),
        }
        Ok(window)
    }

    /// How many elements the kernel spans along `axis`.
    pub(super) fn extent(&self, axis: usize) -> usize {
        (self.kernel[axis] - 1) * self.dilations[axis] + 1
    }

    /// The size of the input along `axis` with its padding.
    pub(super) fn padded(&self, axis: usize, input: usize) -> usize {
        input + self.pads_before[axis] + self.pads_after[axis]
    }

    /// The number of places of the window along each axis, none of them over the edge.
    pub(super) fn places(&self, input: &[usize]) -> Result<Vec<usize>, String> {
        (0..input.len())
            .map(|axis| {
                let rest = self.padded(axis, input[axis]).checked_sub(self.extent(axis));
                let rest = rest.ok_or_else(|| {
                    format!(
                        "a window of {:?} is larger than {input:?} with its padding",
                        self.kernel
                    )
                })?;
                Ok(rest / self.strides[axis] + 1)
            })
            .collect()
    }

    /// Every place in the kernel, in row-major order.
    pub(super) fn taps(&self) -> Vec<Vec<usize>> {
        let mut taps = vec![Vec::new()];
        for &size in &self.kernel {
            taps = taps
                .into_iter()
                .flat_map(|tap| (0..size).map(move |at| [tap.as_slice(), &[at]].concat()))
                .collect();
        }
        taps
    }
}

/// The sizes in attribute `name`, or `count` times `default`.
pub(super) fn sizes(
    call: &Call<'_>,
    name: &str,
    count: usize,
    default: usize,
) -> Result<Vec<usize>, String> {
    let Some(values) = call.attributes.ints(name) else { return Ok(vec![default; count]) };
    let sizes: Option<Vec<usize>> =
        values.iter().map(|&value| usize::try_from(value).ok().filter(|&v| v < 1 << 20)).collect();
    sizes
        .filter(|sizes| sizes.len() == count)
        .ok_or_else(|| format!("`{name}` is {values:?}, and should be {count} sizes"))
}
