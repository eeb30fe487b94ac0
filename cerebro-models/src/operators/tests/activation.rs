use super::*;

#[test]
fn activations() {
    for op in ["Relu", "Tanh", "Sigmoid"] {
        check(op, &[x(&[2, 5])], none());
    }
    for op in [
        "LeakyRelu",
        "Elu",
        "Selu",
        "Celu",
        "HardSigmoid",
        "HardSwish",
        "Softplus",
        "Softsign",
        "Mish",
        "Swish",
        "ThresholdedRelu",
        "Gelu",
    ] {
        check_single(op, &[x(&[2, 5])], none());
    }
    check_single("Shrink", &[x(&[2, 5])], none());
}

#[test]
fn activations_with_attributes() {
    check_single("LeakyRelu", &[x(&[7])], none().with("alpha", 0.3f32));
    check_single("Elu", &[x(&[7])], none().with("alpha", 1.7f32));
    check_single("Celu", &[x(&[7])], none().with("alpha", 1.7f32));
    check_single("Selu", &[x(&[7])], none().with("alpha", 1.2f32).with("gamma", 0.8f32));
    check_single("HardSigmoid", &[x(&[7])], none().with("alpha", 0.4f32).with("beta", 0.3f32));
    check_single("ThresholdedRelu", &[x(&[7])], none().with("alpha", 0.3f32));
    check_single("Swish", &[x(&[7])], none().with("alpha", 1.5f32));
    check_single("Gelu", &[x(&[7])], none().with("approximate", "tanh"));
    check_single("Shrink", &[x(&[7])], none().with("lambd", 0.9f32).with("bias", 0.4f32));
}

#[test]
fn the_slope_of_a_prelu_is_trained_too() {
    check_single("PRelu", &[x(&[2, 3, 2]), within(&[3, 1], 0.1, 0.5)], none());
    check_single("PRelu", &[x(&[2, 3]), within(&[1], 0.1, 0.5)], none());
    check_single("PRelu", &[x(&[2, 3]), within(&[2, 3], 0.1, 0.5)], none());
}

#[test]
fn softmax_along_every_axis() {
    for op in ["Softmax", "LogSoftmax"] {
        check(op, &[x(&[3, 4])], none());
        check(op, &[x(&[1, 4])], none());
        check(op, &[x(&[2, 3, 2])], none().with("axis", 1));
        check(op, &[x(&[2, 3, 2])], none().with("axis", 0));
    }
}
