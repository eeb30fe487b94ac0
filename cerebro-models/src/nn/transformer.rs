//! Transformers: for sequences of tokens and for images.

use super::Network;
use super::layers::{Bias, Convolution, Layers, REST};
use crate::init::Initializer;
use crate::onnx::{Attribute, DataType};

/// The size of a transformer's encoder (Vaswani et al. 2017, "Attention is all you need").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Encoder {
    /// The features of each position; a multiple of `heads`.
    pub width: usize,
    /// The attention heads of each layer.
    pub heads: usize,
    /// The layers.
    pub layers: usize,
    /// The features between the two linear layers of a layer; 4 times the width in the paper.
    pub feed_forward: usize,
}

/// A transformer encoder over tokens with learned positions, its outputs averaged over the
/// positions, and a linear layer. Normalization comes after each sum, as in the paper.
///
/// Input `tokens`, whole numbers below `vocabulary` of shape `[rows, length]`; output `output` of
/// shape `[rows, outputs]`.
///
/// ```
/// use cerebro_models::nn::{self, Encoder};
/// let size = Encoder { width: 64, heads: 4, layers: 2, feed_forward: 256 };
/// let network = nn::transformer_encoder(10_000, 128, size, 2);
/// assert_eq!(network.model.graph.initializers["embedding.weight"].dims(), [10_000, 64]);
/// ```
pub fn transformer_encoder(
    vocabulary: usize,
    length: usize,
    size: Encoder,
    outputs: usize,
) -> Network {
    let mut layers = Layers::new("transformer_encoder");
    let tokens = layers.input("tokens", DataType::Int64, &[length]);
    let embedded = layers.embedding("embedding", &tokens, (vocabulary, size.width));
    let value = add_positions(&mut layers, &embedded, length, size.width);
    let value = encode(&mut layers, value, length, size);
    let value = layers.mean("mean", &value, &[1]);
    let value = layers.linear("last", &value, (size.width, outputs));
    layers.finish(&value, &[outputs], "output")
}

/// A vision transformer (Dosovitskiy et al. 2021, "An image is worth 16x16 words"): patches of
/// `patch` by `patch` pixels are the positions of an encoder. Its outputs are averaged over the
/// positions, which does as well as the paper's class token (appendix D.3 there).
///
/// `image` is channels, height and width, the latter two multiples of `patch`. Input `input` of
/// shape `[rows, channels, height, width]`, output `output` of shape `[rows, outputs]`.
///
/// ```
/// use cerebro_models::nn::{self, Encoder};
/// let size = Encoder { width: 48, heads: 4, layers: 2, feed_forward: 96 };
/// let network = nn::vit([3, 32, 32], 8, size, 10);
/// assert_eq!(network.model.graph.initializers["positions"].dims(), [16, 48]);
/// ```
pub fn vit(image: [usize; 3], patch: usize, size: Encoder, outputs: usize) -> Network {
    let mut layers = Layers::new("vit");
    let input = layers.input("input", DataType::Float32, &image);
    let patches = Convolution {
        channels: (image[0], size.width),
        kernel: &[patch, patch],
        stride: patch,
        padding: 0,
        bias: Bias::With,
    };
    let value = layers.convolution("patches", &input, patches);
    let positions = (image[1] / patch.max(1)) * (image[2] / patch.max(1));
    let dims = [REST, size.width as i64, positions as i64];
    let value = layers.reshape("patches.flat", &value, &dims);
    let value = layers.transpose("patches.rows", &value, &[0, 2, 1]);
    let value = add_positions(&mut layers, &value, positions, size.width);
    let value = encode(&mut layers, value, positions, size);
    let value = layers.mean("mean", &value, &[1]);
    let value = layers.linear("last", &value, (size.width, outputs));
    layers.finish(&value, &[outputs], "output")
}

fn add_positions(layers: &mut Layers, value: &str, positions: usize, width: usize) -> String {
    let initializer = Initializer::Normal { deviation: 0.02 };
    let learned = layers.weight("positions", &[positions, width], initializer);
    layers.add("positioned", value, &learned)
}

/// The encoder's layers, on `[rows, positions, width]`.
fn encode(layers: &mut Layers, input: String, positions: usize, size: Encoder) -> String {
    let (tall, deep) = ([REST, size.width as i64], [REST, positions as i64, size.width as i64]);
    let mut value = input;
    for layer in 1..=size.layers {
        let name = format!("layer{layer}");
        let attended = attend(layers, &format!("{name}.attention"), &value, positions, size);
        let sum = layers.add(&format!("{name}.sum1"), &value, &attended);
        let first = layers.layer_norm(&format!("{name}.norm1"), &sum, size.width);
        let rows = layers.reshape(&format!("{name}.rows"), &first, &tall);
        let sizes = (size.width, size.feed_forward);
        let between = layers.linear(&format!("{name}.linear1"), &rows, sizes);
        let between = layers.relu(&between);
        let sizes = (size.feed_forward, size.width);
        let after = layers.linear(&format!("{name}.linear2"), &between, sizes);
        let after = layers.reshape(&format!("{name}.positions"), &after, &deep);
        let sum = layers.add(&format!("{name}.sum2"), &first, &after);
        value = layers.layer_norm(&format!("{name}.norm2"), &sum, size.width);
    }
    value
}

/// Multi-head attention of the positions to each other.
fn attend(layers: &mut Layers, name: &str, input: &str, positions: usize, size: Encoder) -> String {
    let head = size.width / size.heads.max(1);
    let rows = layers.reshape(&format!("{name}.rows"), input, &[REST, size.width as i64]);
    let mut project = |part: &str, order: &[i64]| {
        let name = format!("{name}.{part}");
        let sizes = (size.width, size.width);
        // PyTorch draws the three projections as one matrix of three times the outputs.
        let bound = (6.0 / (4 * size.width) as f64).sqrt();
        let weight = Some(Initializer::Uniform { bound });
        let value = layers.linear_with(&name, &rows, sizes, weight, Initializer::Constant(0.0));
        let dims = [REST, positions as i64, size.heads as i64, head as i64];
        let value = layers.reshape(&format!("{name}.heads"), &value, &dims);
        layers.transpose(&format!("{name}.turned"), &value, order)
    };
    let query = project("query", &[0, 2, 1, 3]);
    let key = project("key", &[0, 2, 3, 1]);
    let value = project("value", &[0, 2, 1, 3]);
    let query = layers.scale(&format!("{name}.scaled"), &query, 1.0 / (head as f64).sqrt());
    let scores = layers.node("MatMul", &[&query, &key], &format!("{name}.scores"), []);
    let axis = [("axis", Attribute::Int(-1))];
    let shares = layers.node("Softmax", &[&scores], &format!("{name}.shares"), axis);
    let mixed = layers.node("MatMul", &[&shares, &value], &format!("{name}.mixed"), []);
    let mixed = layers.transpose(&format!("{name}.joined"), &mixed, &[0, 2, 1, 3]);
    let mixed = layers.reshape(&format!("{name}.tall"), &mixed, &[REST, size.width as i64]);
    let sizes = (size.width, size.width);
    let bias = Initializer::Constant(0.0);
    let output = layers.linear_with(&format!("{name}.output"), &mixed, sizes, None, bias);
    let dims = [REST, positions as i64, size.width as i64];
    layers.reshape(&format!("{name}.positions"), &output, &dims)
}
