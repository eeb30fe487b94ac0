//! Files that are broken or made in bad faith: errors, never a panic.

use proptest::prelude::*;

use super::*;

/// A model with a window, a reshape, a slice and a product.
fn varied() -> Vec<u8> {
    let node =
        |op: &str, inputs: &[&str], output: &str| Node::new(op, inputs.iter().copied(), [output]);
    let nodes = vec![
        node("Conv", &["x", "kernel"], "a")
            .with("pads", vec![1, 1])
            .with("strides", vec![2])
            .with("dilations", vec![1]),
        node("MaxPool", &["a"], "b").with("kernel_shape", vec![2]).with("pads", vec![0, 1]),
        node("AveragePool", &["b"], "c").with("kernel_shape", vec![2]).with("strides", vec![1]),
        node("Pad", &["c", "pads"], "d"),
        node("Slice", &["d", "starts", "ends", "axes"], "e"),
        node("Tile", &["e", "repeats"], "f"),
        node("Expand", &["f", "sizes"], "g"),
        node("Reshape", &["g", "shape"], "h"),
        node("Gemm", &["h", "weight"], "i").with("transB", 1),
        node("Softmax", &["i"], "y").with("axis", 1),
    ];
    let ints = |values: &[i64]| TensorData::from_i64(&[values.len()], values);
    let initializers = vec![
        ("kernel", TensorData::from_f32(&[2, 3, 2], &[0.5; 12])),
        ("pads", ints(&[0, 0, 1, 0, 0, 1])),
        ("starts", ints(&[1])),
        ("ends", ints(&[i64::MAX])),
        ("axes", ints(&[2])),
        ("repeats", ints(&[1, 1, 2])),
        ("sizes", ints(&[1, 2, 1])),
        ("shape", ints(&[0, -1])),
        ("weight", TensorData::from_f32(&[2, 20], &[0.1; 40])),
    ];
    model(&[3, 8], &[2], nodes, initializers).to_bytes().unwrap()
}

/// Reads a file and draws every graph of it; what comes out does not matter.
fn draw(bytes: Vec<u8>) {
    let Ok(model) = Model::from_bytes(bytes) else { return };
    let Ok(blueprint) = Blueprint::new(model, spec()) else { return };
    let shapes = InputShapes::rows(2);
    let _ = blueprint.interface(&shapes);
    let _ = blueprint.evaluation(&shapes);
    let _ = blueprint.step(&shapes).and_then(|step| Ok(step.to_bytes()?));
}

#[test]
fn the_model_itself_trains() {
    let blueprint = Blueprint::new(Model::from_bytes(varied()).unwrap(), spec()).unwrap();
    blueprint.step(&InputShapes::rows(2)).unwrap();
}

/// Found by fuzzing: an axis of no elements has no first and no last one.
#[test]
fn an_empty_axis_cannot_be_resized() {
    for scale in [2.0, f32::NAN, f32::INFINITY, -1.0, 0.0] {
        for axis in [0, 3] {
            let nodes = vec![
                Node::new("Mul", ["x", "one"], ["a"]),
                Node::new("Resize", ["a", "", "scales"], ["y"]).with("mode", "linear"),
            ];
            let initializers = vec![
                ("one", TensorData::from_f32(&[1], &[1.0])),
                ("scales", TensorData::from_f32(&[3], &[1.0, 1.0, scale])),
            ];
            draw(model(&[2, axis], &[2, axis], nodes, initializers).to_bytes().unwrap());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn changed_bytes_never_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = varied();
        for (place, value) in changes {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        draw(bytes);
    }

    #[test]
    fn files_that_are_cut_short_never_panic(length in any::<prop::sample::Index>()) {
        let mut bytes = varied();
        bytes.truncate(length.index(bytes.len()));
        draw(bytes);
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        draw(bytes);
    }

    #[test]
    fn extreme_settings_never_panic(
        which in 0..10usize,
        values in prop::collection::vec(
            prop_oneof![
                Just(i64::MAX), Just(i64::MIN), Just(-1), Just(0), Just(1 << 40), Just(1 << 62),
                -5..20i64,
            ],
            1..7,
        ),
    ) {
        let mut model = Model::from_bytes(varied()).unwrap();
        let tensor = TensorData::from_i64(&[values.len()], &values);
        let names = ["pads", "starts", "ends", "axes", "repeats", "sizes", "shape"];
        if let Some(name) = names.get(which) {
            model.graph.initializers.insert((*name).to_owned(), tensor);
        } else {
            let node = &mut model.graph.nodes[which - names.len()];
            for name in ["pads", "strides", "dilations", "kernel_shape"] {
                *node = node.clone().with(name, values.clone());
            }
        }
        draw(model.to_bytes().unwrap());
    }
}
