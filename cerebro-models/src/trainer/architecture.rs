//! [`Architecture`]: where the network of a Config comes from.

use std::fmt;

use cerebro_core::{Config, ConfigError};

use crate::nn::{Network, NetworkSpec};

/// Where the network of a Config comes from.
///
/// ```
/// use cerebro_core::Config;
/// use cerebro_models::nn::{self, NetworkSpec};
/// use cerebro_models::Architecture;
///
/// // One network for every trial: built here, or read from an ONNX file.
/// let fixed = Architecture::from(nn::mlp(64, &[128], 10));
///
/// // One that hyperparameters decide, by their names.
/// let declared = Architecture::from(NetworkSpec::Mlp {
///     inputs: 64.into(),
///     hidden: "hidden".into(),
///     outputs: 10.into(),
/// });
///
/// // The same as a function of one's own; the hyperparameters are named, so that misspelt names
/// // are refused. A function cannot go to another process: workers there need the other two.
/// let searched = Architecture::new(["hidden"], |config: &Config| {
///     Ok(nn::mlp(64, &config.sizes("hidden")?, 10))
/// });
/// ```
pub struct Architecture {
    hyperparameters: Vec<String>,
    source: Source,
}

/// What makes the network of a Config.
pub(super) enum Source {
    /// The same network for all.
    Fixed(Box<Network>),
    /// A builder of [`nn`](crate::nn), by name.
    Declared(NetworkSpec),
    /// A function of the program.
    Function(Box<NetworkOf>),
}

type NetworkOf = dyn Fn(&Config) -> Result<Network, ConfigError> + Send + Sync;

impl Architecture {
    /// The network that `network` makes of the named hyperparameters; it sees no others.
    pub fn new<N: Into<String>>(
        hyperparameters: impl IntoIterator<Item = N>,
        network: impl Fn(&Config) -> Result<Network, ConfigError> + Send + Sync + 'static,
    ) -> Self {
        let hyperparameters = hyperparameters.into_iter().map(Into::into).collect();
        Self { hyperparameters, source: Source::Function(Box::new(network)) }
    }

    /// The names of the hyperparameters that decide the network.
    pub fn hyperparameters(&self) -> &[String] {
        &self.hyperparameters
    }

    pub(super) fn source(&self) -> &Source {
        &self.source
    }

    /// The network of `config`, which has the architecture's hyperparameters and no others.
    pub(super) fn network(&self, config: &Config) -> Result<Network, ConfigError> {
        match &self.source {
            Source::Fixed(network) => Ok(network.as_ref().clone()),
            Source::Declared(spec) => spec.build(config),
            Source::Function(network) => network(config),
        }
    }
}

impl<N: Into<Network>> From<N> for Architecture {
    fn from(network: N) -> Self {
        let source = Source::Fixed(Box::new(network.into()));
        Self { hyperparameters: Vec::new(), source }
    }
}

impl From<NetworkSpec> for Architecture {
    fn from(spec: NetworkSpec) -> Self {
        Self { hyperparameters: spec.hyperparameters(), source: Source::Declared(spec) }
    }
}

impl fmt::Debug for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Architecture")
            .field("hyperparameters", &self.hyperparameters)
            .finish_non_exhaustive()
    }
}
