use super::*;

#[test]
fn maxima_of_windows() {
    let kernel = |sizes: &[i64]| none().with("kernel_shape", sizes.to_vec());
    check("MaxPool", &[x(&[2, 2, 4, 4])], kernel(&[2, 2]).with("strides", vec![2, 2]));
    let attributes = kernel(&[3, 3]).with("strides", vec![2, 2]).with("pads", vec![1, 1, 1, 1]);
    check("MaxPool", &[x(&[1, 2, 5, 5])], attributes);
    check("MaxPool", &[x(&[1, 2, 5])], kernel(&[3]));
    check("MaxPool", &[x(&[1, 1, 7])], kernel(&[2]).with("dilations", vec![2]));
    let attributes = kernel(&[2]).with("strides", vec![2]).with("ceil_mode", 1);
    check("MaxPool", &[x(&[1, 2, 5])], attributes);
    check("MaxPool", &[x(&[1, 1, 3, 3, 3])], kernel(&[2, 2, 2]));
    check("MaxPool", &[x(&[1, 1, 5, 4])], kernel(&[2, 3]).with("auto_pad", "SAME_UPPER"));
}

#[test]
fn means_of_windows() {
    let kernel = |sizes: &[i64]| none().with("kernel_shape", sizes.to_vec());
    check_linear("AveragePool", &[x(&[2, 2, 4, 4])], kernel(&[2, 2]).with("strides", vec![2, 2]));
    for include in [0, 1] {
        for ceil in [0, 1] {
            let attributes = kernel(&[3, 2])
                .with("strides", vec![2, 2])
                .with("pads", vec![1, 0, 1, 1])
                .with("ceil_mode", ceil)
                .with("count_include_pad", include);
            check_linear("AveragePool", &[x(&[1, 2, 6, 5])], attributes);
        }
    }
    check_linear("AveragePool", &[x(&[1, 2, 5])], kernel(&[2]).with("strides", vec![3]));
    check_linear(
        "AveragePool",
        &[x(&[1, 1, 4, 4])],
        kernel(&[3, 3]).with("auto_pad", "SAME_LOWER"),
    );
}

#[test]
fn pools_over_everything() {
    check_linear("GlobalAveragePool", &[x(&[2, 2, 3, 2])], none());
    check_linear("GlobalAveragePool", &[x(&[1, 2, 3])], none());
    check_single("GlobalMaxPool", &[x(&[2, 2, 3, 2])], none());
}
