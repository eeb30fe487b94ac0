use super::*;

fn ints_attribute(values: &[i64]) -> Vec<i64> {
    values.to_vec()
}

#[test]
fn convolutions_with_pads_strides_dilations_and_groups() {
    let with = |pads: &[i64], strides: &[i64], dilations: &[i64], group: i64| {
        none()
            .with("pads", ints_attribute(pads))
            .with("strides", ints_attribute(strides))
            .with("dilations", ints_attribute(dilations))
            .with("group", group)
    };
    let image = [x(&[2, 2, 5, 4]), x(&[3, 2, 3, 2]), x(&[3])];
    check_linear("Conv", &image, none());
    check_linear("Conv", &image, with(&[1, 0, 1, 1], &[1, 1], &[1, 1], 1));
    check_linear("Conv", &image, with(&[1, 1, 1, 1], &[2, 2], &[1, 1], 1));
    check_linear("Conv", &image, with(&[0, 1, 2, 0], &[2, 3], &[1, 1], 1));
    check_linear("Conv", &image, with(&[2, 1, 2, 1], &[1, 1], &[2, 2], 1));
    check_linear("Conv", &image, with(&[2, 1, 2, 1], &[2, 2], &[2, 2], 1));
    check_linear("Conv", &image, with(&[3, 3, 3, 3], &[1, 1], &[1, 1], 1));
    // In groups, and one filter or two per channel.
    let grouped = [x(&[1, 4, 4, 3]), x(&[6, 2, 2, 2]), x(&[6])];
    check_linear("Conv", &grouped, with(&[0, 0, 1, 1], &[1, 1], &[1, 1], 2));
    check_linear("Conv", &grouped, with(&[0, 0, 1, 1], &[2, 1], &[1, 1], 2));
    let depthwise = [x(&[2, 3, 4, 4]), x(&[3, 1, 3, 3])];
    check_linear("Conv", &depthwise, with(&[1, 1, 1, 1], &[1, 1], &[1, 1], 3));
    check_linear("Conv", &depthwise, with(&[1, 1, 1, 1], &[2, 2], &[1, 1], 3));
    let two_each = [x(&[1, 2, 3, 3]), x(&[4, 1, 2, 2])];
    check_linear("Conv", &two_each, with(&[0, 0, 0, 0], &[1, 1], &[1, 1], 2));
    // A pointwise one with a stride, as in the shortcuts of residual networks.
    check_linear("Conv", &[x(&[1, 2, 5, 5]), x(&[3, 2, 1, 1])], with(&[0; 4], &[2, 2], &[1, 1], 1));
}

#[test]
fn convolutions_over_one_and_three_axes() {
    check_linear("Conv", &[x(&[2, 2, 7]), x(&[3, 2, 3]), x(&[3])], none().with("pads", vec![1, 1]));
    check_linear("Conv", &[x(&[1, 2, 8]), x(&[2, 2, 3])], none().with("strides", vec![3]));
    let attributes = none().with("pads", vec![1, 0, 0, 1, 0, 1]).with("strides", vec![1, 2, 1]);
    check_linear("Conv", &[x(&[1, 2, 3, 4, 2]), x(&[2, 2, 2, 2, 2])], attributes);
}

#[test]
fn padding_that_keeps_the_size() {
    for mode in ["SAME_UPPER", "SAME_LOWER", "VALID"] {
        for strides in [vec![1, 1], vec![2, 2]] {
            let attributes = none().with("auto_pad", mode).with("strides", strides);
            check_linear("Conv", &[x(&[1, 1, 5, 4]), x(&[2, 1, 3, 2])], attributes);
        }
        let attributes = none().with("auto_pad", mode).with("dilations", vec![2, 3]);
        check_linear("Conv", &[x(&[1, 4, 5, 4]), x(&[2, 2, 3, 2])], attributes.with("group", 2));
    }
}

#[test]
fn a_large_kernel_is_differentiated_by_one_convolution() {
    let attributes = none().with("pads", vec![4, 4, 4, 4]);
    check_linear("Conv", &[x(&[1, 1, 6, 5]), x(&[1, 1, 8, 8])], attributes.clone());
    let attributes = attributes.with("strides", vec![2, 1]);
    check_linear("Conv", &[x(&[1, 1, 6, 5]), x(&[2, 1, 8, 8])], attributes);
}

#[test]
fn transposed_convolutions() {
    let small = [x(&[1, 2, 3, 2]), x(&[2, 3, 3, 2]), x(&[3])];
    check_linear("ConvTranspose", &small, none());
    check_linear("ConvTranspose", &small, none().with("strides", vec![2, 3]));
    let attributes = none()
        .with("strides", vec![2, 2])
        .with("pads", vec![1, 0, 1, 1])
        .with("output_padding", vec![1, 1]);
    check_linear("ConvTranspose", &small, attributes);
    check_linear("ConvTranspose", &small, none().with("dilations", vec![2, 1]));
    let grouped = [x(&[1, 4, 3]), x(&[4, 2, 2])];
    check_linear("ConvTranspose", &grouped, none().with("group", 2).with("strides", vec![2]));
    let attributes = none().with("strides", vec![2]).with("output_shape", vec![7]);
    check_linear("ConvTranspose", &[x(&[1, 2, 3]), x(&[2, 1, 4])], attributes);
    let attributes = none().with("strides", vec![2]).with("auto_pad", "SAME_UPPER");
    check_linear("ConvTranspose", &[x(&[1, 2, 3]), x(&[2, 1, 3])], attributes);
}
