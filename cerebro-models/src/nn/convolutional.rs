//! Networks of convolutions: for images and for series.

use super::Network;
use super::layers::{Bias, Convolution, Layers, REST};
use crate::init::Initializer;
use crate::onnx::DataType;

/// LeNet-5 (`LeCun` et al. 1998, "Gradient-based learning applied to document recognition"), with
/// rectifiers and max-pooling as it is used today.
///
/// `image` is channels, height and width, at least 12 by 12. Input `input` of shape
/// `[rows, channels, height, width]`, output `output` of shape `[rows, outputs]`.
///
/// ```
/// use cerebro_models::nn;
/// let digits = nn::lenet([1, 28, 28], 10);
/// assert_eq!(digits.model.graph.initializers["fc1.weight"].dims(), [120, 16 * 5 * 5]);
/// ```
pub fn lenet(image: [usize; 3], outputs: usize) -> Network {
    let [channels, height, width] = image;
    let mut layers = Layers::new("lenet");
    let input = layers.input("input", DataType::Float32, &image);
    let filters = |channels, padding| Convolution {
        channels,
        kernel: &[5, 5],
        stride: 1,
        padding,
        bias: Bias::With,
    };
    let value = layers.convolution("conv1", &input, filters((channels, 6), 2));
    let value = layers.relu(&value);
    let value = layers.max_pool("pool1", &value, 2, (2, 2, 0));
    let value = layers.convolution("conv2", &value, filters((6, 16), 0));
    let value = layers.relu(&value);
    let value = layers.max_pool("pool2", &value, 2, (2, 2, 0));
    let after = |size: usize| (size / 2).saturating_sub(4) / 2;
    let flat = 16 * after(height) * after(width);
    let value = layers.reshape("flat", &value, &[REST, flat as i64]);
    let value = layers.linear("fc1", &value, (flat, 120));
    let value = layers.relu(&value);
    let value = layers.linear("fc2", &value, (120, 84));
    let value = layers.relu(&value);
    let value = layers.linear("fc3", &value, (84, outputs));
    layers.finish(&value, &[outputs], "output")
}

/// A network for series: for each of `widths` a convolution over 5 steps to that many channels, a
/// rectifier and max-pooling by 2; then the mean over time and a linear layer.
///
/// `series` is channels and length. Input `input` of shape `[rows, channels, length]`, output
/// `output` of shape `[rows, outputs]`.
///
/// ```
/// use cerebro_models::nn;
/// let activity = nn::conv1d([9, 128], &[32, 64], 6);
/// assert_eq!(activity.model.graph.initializers["conv2.weight"].dims(), [64, 32, 5]);
/// ```
pub fn conv1d(series: [usize; 2], widths: &[usize], outputs: usize) -> Network {
    let mut layers = Layers::new("conv1d");
    let mut value = layers.input("input", DataType::Float32, &series);
    let mut channels = series[0];
    for (index, &width) in widths.iter().enumerate() {
        let block = Convolution {
            channels: (channels, width),
            kernel: &[5],
            stride: 1,
            padding: 2,
            bias: Bias::With,
        };
        value = layers.convolution(&format!("conv{}", index + 1), &value, block);
        value = layers.relu(&value);
        value = layers.max_pool(&format!("pool{}", index + 1), &value, 1, (2, 2, 0));
        channels = width;
    }
    let value = layers.mean("mean", &value, &[2]);
    let value = layers.linear("last", &value, (channels, outputs));
    layers.finish(&value, &[outputs], "output")
}

/// How deep a [`resnet`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Depth {
    /// Two blocks in each of four stages.
    Eighteen,
    /// 3, 4, 6 and 3 blocks in the four stages.
    ThirtyFour,
}

/// A residual network (He et al. 2016, "Deep residual learning for image recognition").
///
/// `width` is the number of channels of the first stage, 64 in the paper; each later stage has
/// twice as many. Images of less than 64 pixels in height get the first layer for small images
/// (3 x 3, stride 1, no pooling), larger ones that of the paper (7 x 7, stride 2, pooling).
///
/// `image` is channels, height and width. Input `input` of shape `[rows, channels, height,
/// width]`, output `output` of shape `[rows, outputs]`.
///
/// ```
/// use cerebro_models::nn::{self, Depth};
/// let network = nn::resnet(Depth::Eighteen, 64, [3, 224, 224], 1000);
/// let weights = network.model.graph.initializers.iter();
/// let trained = weights.filter(|(name, _)| !name.contains("running"));
/// // As many parameters as torchvision's resnet18.
/// assert_eq!(trained.map(|(_, weight)| weight.elements()).sum::<usize>(), 11_689_512);
/// ```
pub fn resnet(depth: Depth, width: usize, image: [usize; 3], outputs: usize) -> Network {
    let mut residual = Residual { layers: Layers::new("resnet") };
    let input = residual.layers.input("input", DataType::Float32, &image);
    let small = image[1] < 64;
    let (kernel, stride) = if small { (3, 1) } else { (7, 2) };
    let value = residual.normalized("stem", &input, (image[0], width), (kernel, stride));
    let mut value = residual.layers.relu(&value);
    if !small {
        value = residual.layers.max_pool("stem.pool", &value, 2, (3, 2, 1));
    }
    let blocks = match depth {
        Depth::Eighteen => [2, 2, 2, 2],
        Depth::ThirtyFour => [3, 4, 6, 3],
    };
    let mut channels = width;
    for (stage, &count) in blocks.iter().enumerate() {
        let wider = width << stage;
        for block in 0..count {
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            let name = format!("stage{}.block{}", stage + 1, block + 1);
            value = residual.block(&name, &value, (channels, wider), stride);
            channels = wider;
        }
    }
    let mut layers = residual.layers;
    let value = layers.mean("mean", &value, &[2, 3]);
    let value = layers.linear("last", &value, (channels, outputs));
    layers.finish(&value, &[outputs], "output")
}

struct Residual {
    layers: Layers,
}

impl Residual {
    /// A convolution without bias, and batch normalization.
    fn normalized(
        &mut self,
        name: &str,
        input: &str,
        channels: (usize, usize),
        (kernel, stride): (usize, usize),
    ) -> String {
        let name = format!("{name}.conv");
        let sizes = [kernel, kernel];
        let of = Convolution {
            channels,
            kernel: &sizes,
            stride,
            padding: kernel / 2,
            bias: Bias::Without,
        };
        let value = self.layers.convolution(&name, input, of);
        // `kaiming_normal_(mode="fan_out")`, as the paper's authors and torchvision have it.
        let fan_out = (channels.1 * kernel * kernel).max(1) as f64;
        let deviation = (2.0 / fan_out).sqrt();
        self.layers.initialize(&format!("{name}.weight"), Initializer::Normal { deviation });
        self.layers.batch_norm(&format!("{name}.norm"), &value, channels.1)
    }

    /// Two convolutions, around which the input is added.
    fn block(
        &mut self,
        name: &str,
        input: &str,
        (inputs, outputs): (usize, usize),
        stride: usize,
    ) -> String {
        let first = self.normalized(&format!("{name}.1"), input, (inputs, outputs), (3, stride));
        let first = self.layers.relu(&first);
        let second = self.normalized(&format!("{name}.2"), &first, (outputs, outputs), (3, 1));
        let around = if stride == 1 && inputs == outputs {
            input.to_owned()
        } else {
            self.normalized(&format!("{name}.around"), input, (inputs, outputs), (1, stride))
        };
        let sum = self.layers.add(&format!("{name}.sum"), &second, &around);
        self.layers.relu(&sum)
    }
}
