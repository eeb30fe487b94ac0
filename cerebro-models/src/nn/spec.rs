//! [`NetworkSpec`]: a network by the name of its builder, as data.

use std::fmt;

use cerebro_core::{Config, ConfigError};
use serde::de::{
    self, Deserialize, Deserializer, SeqAccess, Visitor, value::SeqAccessDeserializer,
};
use serde::{Deserialize as DeriveDeserialize, Serialize};

use super::{Depth, Encoder, Network};

/// A builder of [`nn`](super) by name, with its parameters: what a program says by calling
/// [`mlp`](super::mlp()), said as data, so that it can be in a file or go to another process.
///
/// Each size is a number, or the name of the hyperparameter that has it.
///
/// ```
/// use cerebro_core::Config;
/// use cerebro_models::nn::{self, NetworkSpec};
/// let spec: NetworkSpec = serde_json::from_str(
///     r#"{"builder": "mlp", "inputs": 64, "hidden": ["width", 32], "outputs": 10}"#,
/// )?;
/// assert_eq!(spec.hyperparameters(), ["width"]);
/// assert_eq!(spec.build(&Config::new().with("width", 128))?, nn::mlp(64, &[128, 32], 10));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, DeriveDeserialize)]
#[serde(tag = "builder", rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
#[allow(
    missing_docs,
    reason = "the fields are the parameters of the function that a variant names"
)]
pub enum NetworkSpec {
    /// [`mlp`](super::mlp()).
    Mlp { inputs: Size, hidden: Sizes, outputs: Size },
    /// [`lenet`](super::lenet).
    Lenet { image: [usize; 3], outputs: Size },
    /// [`conv1d`](super::conv1d).
    Conv1d { series: [usize; 2], widths: Sizes, outputs: Size },
    /// [`resnet`](super::resnet); `depth` is 18 or 34.
    Resnet { depth: Size, width: Size, image: [usize; 3], outputs: Size },
    /// [`lstm`](super::lstm()).
    Lstm { series: [usize; 2], hidden: Size, layers: Size, outputs: Size },
    /// [`tabular`](super::tabular()); a pair of `categories` is the number of categories and the
    /// width of their embedding.
    Tabular { categories: Vec<(Size, Size)>, continuous: usize, hidden: Sizes, outputs: Size },
    /// [`transformer_encoder`](super::transformer_encoder), with the fields of [`Encoder`].
    TransformerEncoder {
        vocabulary: Size,
        length: Size,
        width: Size,
        heads: Size,
        layers: Size,
        feed_forward: Size,
        outputs: Size,
    },
    /// [`vit`](super::vit), with the fields of [`Encoder`].
    Vit {
        image: [usize; 3],
        patch: Size,
        width: Size,
        heads: Size,
        layers: Size,
        feed_forward: Size,
        outputs: Size,
    },
}

/// A size of a [`NetworkSpec`]: a number of at least 1, or the name of the hyperparameter that has
/// it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(untagged)]
pub enum Size {
    /// The same in every trial.
    Fixed(usize),
    /// As the trial's Config has it.
    Hyperparameter(String),
}

/// Several sizes of a [`NetworkSpec`], such as those of hidden layers: a list, or the name of the
/// hyperparameter that has it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(untagged)]
pub enum Sizes {
    /// One by one.
    Each(Vec<Size>),
    /// As the trial's Config has them.
    Hyperparameter(String),
}

impl NetworkSpec {
    /// The names of the hyperparameters that decide the network, without repetition.
    pub fn hyperparameters(&self) -> Vec<String> {
        let mut names = Vec::new();
        let mut add = |name: &String| {
            if !names.contains(name) {
                names.push(name.clone());
            }
        };
        let (one, several) = self.sizes();
        let each = several.into_iter().flat_map(|sizes| match sizes {
            Sizes::Each(sizes) => sizes.iter().collect(),
            Sizes::Hyperparameter(name) => {
                add(name);
                Vec::new()
            }
        });
        let all: Vec<&Size> = each.chain(one).collect();
        for size in all {
            if let Size::Hyperparameter(name) = size {
                add(name);
            }
        }
        names
    }

    fn sizes(&self) -> (Vec<&Size>, Vec<&Sizes>) {
        match self {
            Self::Mlp { inputs, hidden, outputs } => (vec![inputs, outputs], vec![hidden]),
            Self::Lenet { image: _, outputs } => (vec![outputs], vec![]),
            Self::Conv1d { series: _, widths, outputs } => (vec![outputs], vec![widths]),
            Self::Resnet { depth, width, image: _, outputs } => {
                (vec![depth, width, outputs], vec![])
            }
            Self::Lstm { series: _, hidden, layers, outputs } => {
                (vec![hidden, layers, outputs], vec![])
            }
            Self::Tabular { categories, continuous: _, hidden, outputs } => {
                let pairs = categories.iter().flat_map(|(count, width)| [count, width]);
                (pairs.chain([outputs]).collect(), vec![hidden])
            }
            Self::TransformerEncoder {
                vocabulary,
                length,
                width,
                heads,
                layers,
                feed_forward,
                outputs,
            } => (vec![vocabulary, length, width, heads, layers, feed_forward, outputs], vec![]),
            Self::Vit { image: _, patch, width, heads, layers, feed_forward, outputs } => {
                (vec![patch, width, heads, layers, feed_forward, outputs], vec![])
            }
        }
    }

    /// The network of `config`. Sizes that the network cannot have are refused by name.
    pub fn build(&self, config: &Config) -> Result<Network, ConfigError> {
        let one = |parameter, size: &Size| size.of(config, parameter);
        match self {
            Self::Mlp { inputs, hidden, outputs } => Ok(super::mlp(
                one("inputs", inputs)?,
                &hidden.of(config, "hidden")?,
                one("outputs", outputs)?,
            )),
            Self::Lenet { image, outputs } => {
                at_least("image", image[1].min(image[2]), 12)?;
                Ok(super::lenet(*image, one("outputs", outputs)?))
            }
            Self::Conv1d { series, widths, outputs } => {
                let widths = widths.of(config, "widths")?;
                // Every block halves the length.
                at_least("series", series[1] >> widths.len().min(63), 1)?;
                Ok(super::conv1d(*series, &widths, one("outputs", outputs)?))
            }
            Self::Resnet { depth, width, image, outputs } => {
                let depth = match one("depth", depth)? {
                    18 => Depth::Eighteen,
                    34 => Depth::ThirtyFour,
                    other => return Err(invalid("depth", other, "no such depth", "18 or 34")),
                };
                Ok(super::resnet(depth, one("width", width)?, *image, one("outputs", outputs)?))
            }
            Self::Lstm { series, hidden, layers, outputs } => Ok(super::lstm(
                *series,
                one("hidden", hidden)?,
                one("layers", layers)?,
                one("outputs", outputs)?,
            )),
            Self::Tabular { categories, continuous, hidden, outputs } => {
                if categories.is_empty() && *continuous == 0 {
                    let expected = "some categories or continuous columns";
                    return Err(invalid("continuous", 0, "a network without inputs", expected));
                }
                let pairs = categories.iter().map(|(count, width)| {
                    Ok((one("categories", count)?, one("categories", width)?))
                });
                let pairs: Vec<(usize, usize)> = pairs.collect::<Result<_, ConfigError>>()?;
                let hidden = hidden.of(config, "hidden")?;
                Ok(super::tabular(&pairs, *continuous, &hidden, one("outputs", outputs)?))
            }
            Self::TransformerEncoder {
                vocabulary,
                length,
                width,
                heads,
                layers,
                feed_forward,
                outputs,
            } => {
                let size = encoder(config, [width, heads, layers, feed_forward])?;
                let (vocabulary, length) = (one("vocabulary", vocabulary)?, one("length", length)?);
                let outputs = one("outputs", outputs)?;
                Ok(super::transformer_encoder(vocabulary, length, size, outputs))
            }
            Self::Vit { image, patch, width, heads, layers, feed_forward, outputs } => {
                let size = encoder(config, [width, heads, layers, feed_forward])?;
                let patch = one("patch", patch)?;
                let divides = |side: usize| side > 0 && side.is_multiple_of(patch);
                if !divides(image[1]) || !divides(image[2]) {
                    let expected = format!(
                        "a divisor of the image's height {} and width {}",
                        image[1], image[2]
                    );
                    return Err(invalid("patch", patch, "not a divisor", &expected));
                }
                Ok(super::vit(*image, patch, size, one("outputs", outputs)?))
            }
        }
    }
}

fn encoder(config: &Config, sizes: [&Size; 4]) -> Result<Encoder, ConfigError> {
    let [width, heads, layers, feed_forward] = sizes;
    let size = Encoder {
        width: width.of(config, "width")?,
        heads: heads.of(config, "heads")?,
        layers: layers.of(config, "layers")?,
        feed_forward: feed_forward.of(config, "feed_forward")?,
    };
    if !size.width.is_multiple_of(size.heads) {
        let expected = format!("a divisor of the width, {}", size.width);
        return Err(invalid("heads", size.heads, "not a divisor", &expected));
    }
    Ok(size)
}

fn at_least(name: &str, found: usize, least: usize) -> Result<(), ConfigError> {
    if found >= least {
        return Ok(());
    }
    Err(invalid(name, found, "too small for this network", &format!("at least {least}")))
}

fn invalid(name: &str, value: usize, found: &'static str, expected: &str) -> ConfigError {
    let (name, value) = (name.to_owned(), value.to_string());
    ConfigError::Invalid { name, value, found, expected: expected.to_owned() }
}

impl Size {
    /// The size in `config`, as the builder's parameter `parameter`.
    fn of(&self, config: &Config, parameter: &str) -> Result<usize, ConfigError> {
        match self {
            Size::Fixed(0) => Err(invalid(parameter, 0, "too small", "at least 1")),
            Size::Fixed(size) => Ok(*size),
            Size::Hyperparameter(name) => config.size(name),
        }
    }
}

impl Sizes {
    fn of(&self, config: &Config, parameter: &str) -> Result<Vec<usize>, ConfigError> {
        match self {
            Sizes::Each(sizes) => sizes.iter().map(|size| size.of(config, parameter)).collect(),
            Sizes::Hyperparameter(name) => config.sizes(name),
        }
    }
}

impl From<usize> for Size {
    fn from(size: usize) -> Self {
        Size::Fixed(size)
    }
}

impl From<&str> for Size {
    fn from(hyperparameter: &str) -> Self {
        Size::Hyperparameter(hyperparameter.to_owned())
    }
}

impl From<&str> for Sizes {
    fn from(hyperparameter: &str) -> Self {
        Sizes::Hyperparameter(hyperparameter.to_owned())
    }
}

impl<S: Into<Size>> From<Vec<S>> for Sizes {
    fn from(sizes: Vec<S>) -> Self {
        Sizes::Each(sizes.into_iter().map(Into::into).collect())
    }
}

impl<S: Into<Size>, const N: usize> From<[S; N]> for Sizes {
    fn from(sizes: [S; N]) -> Self {
        Sizes::Each(sizes.into_iter().map(Into::into).collect())
    }
}

// By hand, because an untagged enum's errors say only that no variant fits.
impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;

        impl Visitor<'_> for Read {
            type Value = Size;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number of at least 1, or the name of a hyperparameter")
            }

            fn visit_u64<E: de::Error>(self, size: u64) -> Result<Size, E> {
                let refused = || E::invalid_value(de::Unexpected::Unsigned(size), &self);
                usize::try_from(size).map(Size::Fixed).map_err(|_| refused())
            }

            fn visit_i64<E: de::Error>(self, size: i64) -> Result<Size, E> {
                let refused = || E::invalid_value(de::Unexpected::Signed(size), &self);
                usize::try_from(size).map(Size::Fixed).map_err(|_| refused())
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<Size, E> {
                Ok(Size::from(name))
            }
        }

        deserializer.deserialize_any(Read)
    }
}

impl<'de> Deserialize<'de> for Sizes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;

        impl<'de> Visitor<'de> for Read {
            type Value = Sizes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of sizes, or the name of a hyperparameter")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, sizes: A) -> Result<Sizes, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(sizes)).map(Sizes::Each)
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<Sizes, E> {
                Ok(Sizes::from(name))
            }
        }

        deserializer.deserialize_any(Read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn;

    fn read(json: &str) -> NetworkSpec {
        let spec: NetworkSpec = serde_json::from_str(json).unwrap();
        let written = serde_json::to_string(&spec).unwrap();
        assert_eq!(serde_json::from_str::<NetworkSpec>(&written).unwrap(), spec);
        spec
    }

    #[test]
    fn every_builder_can_be_named() {
        let config = Config::new().with("n", 2).with("sizes", [8, 4]);
        let size = Encoder { width: 8, heads: 2, layers: 1, feed_forward: 16 };
        let cases = [
            (
                r#"{"builder": "mlp", "inputs": 4, "hidden": "sizes", "outputs": "n"}"#,
                nn::mlp(4, &[8, 4], 2),
            ),
            (
                r#"{"builder": "lenet", "image": [1, 28, 28], "outputs": 2}"#,
                nn::lenet([1, 28, 28], 2),
            ),
            (
                r#"{"builder": "conv1d", "series": [3, 32], "widths": ["n", 4], "outputs": 2}"#,
                nn::conv1d([3, 32], &[2, 4], 2),
            ),
            (
                r#"{"builder": "resnet", "depth": 18, "width": 4, "image": [3, 32, 32], "outputs": 2}"#,
                nn::resnet(Depth::Eighteen, 4, [3, 32, 32], 2),
            ),
            (
                r#"{"builder": "lstm", "series": [5, 3], "hidden": 4, "layers": "n", "outputs": 1}"#,
                nn::lstm([5, 3], 4, 2, 1),
            ),
            (
                r#"{"builder": "tabular", "categories": [[7, "n"]], "continuous": 3, "hidden": [4], "outputs": 1}"#,
                nn::tabular(&[(7, 2)], 3, &[4], 1),
            ),
            (
                r#"{"builder": "transformer_encoder", "vocabulary": 50, "length": 6, "width": 8,
                    "heads": "n", "layers": 1, "feed_forward": 16, "outputs": 2}"#,
                nn::transformer_encoder(50, 6, size, 2),
            ),
            (
                r#"{"builder": "vit", "image": [3, 8, 8], "patch": 4, "width": 8, "heads": "n",
                    "layers": 1, "feed_forward": 16, "outputs": 2}"#,
                nn::vit([3, 8, 8], 4, size, 2),
            ),
        ];
        for (json, expected) in cases {
            let spec = read(json);
            assert_eq!(spec.build(&config).unwrap(), expected, "{json}");
            for name in spec.hyperparameters() {
                assert!(config.get(&name).is_some(), "{name} of {json}");
            }
        }
    }

    #[test]
    fn a_size_that_the_network_cannot_have_is_refused_by_name() {
        let refused = |json: &str| read(json).build(&Config::new()).unwrap_err().to_string();
        let text = refused(
            r#"{"builder": "vit", "image": [3, 9, 8], "patch": 4, "width": 8, "heads": 2,
                "layers": 1, "feed_forward": 16, "outputs": 2}"#,
        );
        assert!(text.contains("`patch` = 4") && text.contains("height 9"), "{text}");
        let text = refused(
            r#"{"builder": "vit", "image": [3, 8, 8], "patch": 4, "width": 8, "heads": 3,
                "layers": 1, "feed_forward": 16, "outputs": 2}"#,
        );
        assert!(text.contains("`heads` = 3") && text.contains("divisor of the width, 8"), "{text}");
        let text = refused(r#"{"builder": "lenet", "image": [1, 28, 11], "outputs": 2}"#);
        assert!(text.contains("`image` = 11") && text.contains("at least 12"), "{text}");
        let text =
            refused(r#"{"builder": "conv1d", "series": [1, 3], "widths": [2, 2], "outputs": 2}"#);
        assert!(text.contains("`series`"), "{text}");
        let text = refused(
            r#"{"builder": "resnet", "depth": 50, "width": 4, "image": [3, 32, 32], "outputs": 2}"#,
        );
        assert!(text.contains("18 or 34"), "{text}");
        let text = refused(r#"{"builder": "mlp", "inputs": 4, "hidden": [0], "outputs": 2}"#);
        assert!(text.contains("`hidden` = 0") && text.contains("at least 1"), "{text}");
        let text = refused(r#"{"builder": "mlp", "inputs": 4, "hidden": "hidden", "outputs": 2}"#);
        assert!(text.contains("no hyperparameter `hidden`"), "{text}");
        let text = refused(
            r#"{"builder": "tabular", "categories": [], "continuous": 0, "hidden": [4], "outputs": 1}"#,
        );
        assert!(text.contains("without inputs"), "{text}");
    }

    #[test]
    fn what_is_no_size_is_refused_with_what_is_one() {
        let refused =
            |json: &str| serde_json::from_str::<NetworkSpec>(json).unwrap_err().to_string();
        let text = refused(r#"{"builder": "mlp", "inputs": -4, "hidden": [], "outputs": 2}"#);
        assert!(text.contains("-4") && text.contains("a whole number of at least 1"), "{text}");
        let text = refused(r#"{"builder": "mlp", "inputs": 4, "hidden": 8, "outputs": 2}"#);
        assert!(text.contains("a list of sizes"), "{text}");
        let text = refused(r#"{"builder": "mpl"}"#);
        assert!(text.contains("unknown variant `mpl`") && text.contains("`mlp`"), "{text}");
        let text = refused(r#"{"builder": "mlp", "inputs": 4, "hiden": [], "outputs": 2}"#);
        assert!(text.contains("hiden"), "{text}");
    }
}
