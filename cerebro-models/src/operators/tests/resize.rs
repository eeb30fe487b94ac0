use super::*;

fn scales(values: &[f64]) -> Vec<Input> {
    let scales = TensorData::from_f64(DataType::Float32, &[values.len()], values);
    vec![Input::None, Input::Constant(scales)]
}

fn check_resize(dims: &[usize], rest: Vec<Input>, attributes: Attributes) {
    check_linear("Resize", &[vec![x(dims)], rest].concat(), attributes);
}

#[test]
fn nearest_neighbours() {
    for mode in ["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"] {
        for rounding in ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"] {
            let attributes =
                none().with("coordinate_transformation_mode", mode).with("nearest_mode", rounding);
            check_resize(&[1, 2, 2, 3], scales(&[1.0, 1.0, 2.0, 3.0]), attributes.clone());
            check_resize(&[1, 1, 3, 4], scales(&[1.0, 1.0, 1.5, 0.5]), attributes);
        }
    }
}

#[test]
fn linear_and_cubic_interpolation() {
    for kind in ["linear", "cubic"] {
        for mode in ["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"] {
            let attributes = none().with("mode", kind).with("coordinate_transformation_mode", mode);
            check_resize(&[1, 2, 4, 3], scales(&[1.0, 1.0, 2.0, 2.0]), attributes.clone());
            check_resize(&[1, 1, 4, 4], scales(&[1.0, 1.0, 0.5, 1.5]), attributes);
        }
    }
    let attributes = none().with("mode", "cubic").with("exclude_outside", 1);
    check_resize(&[1, 1, 4, 4], scales(&[1.0, 1.0, 2.0, 2.0]), attributes);
}

#[test]
fn a_given_size() {
    let sizes = |values: &[i64]| vec![Input::None, Input::None, ints(&[values.len()], values)];
    check_resize(&[1, 2, 3, 3], sizes(&[1, 2, 5, 4]), none().with("mode", "linear"));
    check_resize(&[1, 2, 3], sizes(&[1, 2, 7]), none().with("mode", "linear"));
    check_resize(&[1, 1, 3, 2], sizes(&[1, 1, 6, 4]), none());
    let attributes = none().with("mode", "linear").with("axes", vec![2, 3]);
    check_resize(&[1, 1, 3, 2], sizes(&[5, 4]), attributes);
}

#[test]
fn antialiasing() {
    for kind in ["linear", "cubic"] {
        for exclude in [0, 1] {
            let attributes = none()
                .with("mode", kind)
                .with("antialias", 1)
                .with("exclude_outside", exclude)
                .with("coordinate_transformation_mode", "half_pixel");
            let sizes = vec![Input::None, Input::None, ints(&[4], &[1, 2, 3, 7])];
            check_resize(&[1, 2, 8, 5], sizes, attributes.clone());
            check_resize(&[1, 1, 6, 5], scales(&[1.0, 1.0, 0.5, 0.4]), attributes);
        }
    }
}
