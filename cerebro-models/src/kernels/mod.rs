//! Operators of Cerebro's own, run by ONNX Runtime on the processor.
//!
//! Each one computes what a handful of standard operators compute, in fewer passes over memory. The
//! standard form is what every other device runs and what tests compare with; graphs in the [fused
//! dialect](crate::graph::Dialect) have these instead. Operations are in one order whatever the
//! number of threads, and none is contracted but where a product is added in so many words.

#[cfg(test)]
mod tests;

/// Calls a function with the widest vectors that this processor has.
///
/// `fastest!(name(argument: Type, ...))` compiles the inlined function a second time for AVX2. The
/// bits are the same either way: every element goes through the same operations, and none of them
/// is contracted.
macro_rules! fastest {
    ($name:ident $(::<$generic:ident: $bound:path>)? ($($argument:ident: $type:ty),* $(,)?)) => {{
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2")]
        fn with_avx2 $(<$generic: $bound>)? ($($argument: $type),*) {
            $name($($argument),*);
        }

        #[cfg(target_arch = "x86_64")]
        let has_avx2 = std::arch::is_x86_feature_detected!("avx2");
        #[cfg(not(target_arch = "x86_64"))]
        let has_avx2 = false;
        if has_avx2 {
            // SAFETY: the processor has AVX2.
            #[cfg(target_arch = "x86_64")]
            unsafe {
                with_avx2($($argument),*);
            }
        } else {
            $name($($argument),*);
        }
    }};
}

/// The same for functions that add products: `contracted!(name(argument: Type, ...))` calls
/// `name::<Kind>(...)` for the fastest kind of [`Arithmetic`](exponential::Arithmetic) that this
/// processor has. Bits are those of the kind.
macro_rules! contracted {
    ($name:ident($($argument:ident: $type:ty),* $(,)?)) => {{
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma")]
        fn at_once($($argument: $type),*) {
            $name::<$crate::kernels::exponential::AtOnce>($($argument),*);
        }

        #[cfg(target_arch = "x86_64")]
        let has_both = std::arch::is_x86_feature_detected!("avx2")
            && std::arch::is_x86_feature_detected!("fma");
        #[cfg(not(target_arch = "x86_64"))]
        let has_both = false;
        if has_both {
            // SAFETY: the processor has both.
            #[cfg(target_arch = "x86_64")]
            unsafe {
                at_once($($argument),*);
            }
        } else {
            $name::<$crate::kernels::exponential::Apart>($($argument),*);
        }
    }};
}

#[macro_use]
mod vector;

mod attention;
mod convolution;
mod correlation;
mod cross_entropy;
mod depthwise;
mod embedding;
mod exponential;
mod gelu;
mod linear;
mod lookup;
mod mask;
mod node;
mod normalization;
mod pointwise;
mod pool;
mod product;
mod recurrence;
mod silu;
mod softmax;
mod sum;
mod update;

use ort::operator::OperatorDomain;

pub(crate) use attention::{ATTENTION, ATTENTION_GRADIENT, View, cover};
pub(crate) use convolution::{CONV, CONV_INPUT_GRADIENT, CONV_WEIGHT_GRADIENT};
pub(crate) use cross_entropy::{CROSS_ENTROPY, HITS, MOST_LOGITS};
pub(crate) use depthwise::{DEPTHWISE, DEPTHWISE_INPUT_GRADIENT, DEPTHWISE_WEIGHT_GRADIENT};
pub(crate) use embedding::EMBEDDING_GRADIENT;
pub(crate) use gelu::GELU;
pub(crate) use linear::{LINEAR, LINEAR_INPUT_GRADIENT, LINEAR_WEIGHT_GRADIENT, PRODUCT};
pub(crate) use lookup::{LOOKUPS, LOOKUPS_GRADIENT};
pub(crate) use mask::RELU_GRADIENT;
pub(crate) use normalization::{
    BATCH_NORM, BATCH_NORM_GRADIENT, LAYER_NORM_GRADIENT, RECTIFIED, SMOOTH,
};
pub(crate) use pool::{MAX_POOL_GRADIENT, MOST_AXES};
pub(crate) use product::products_pay;
pub(crate) use recurrence::{GRU, GRU_GRADIENT, LSTM, LSTM_GRADIENT, RNN, RNN_GRADIENT};
pub(crate) use silu::{SILU, SILU_GRADIENT};
pub(crate) use softmax::SOFTMAX_GRADIENT;
pub(crate) use update::{
    ADAGRAD, ADAM, LAMB, LION, MOMENTUM, SGD, is_update, of_product, renewed_input, rmsprop,
};

/// The domain of the operators, with which their names in graphs begin.
pub(crate) const DOMAIN: &str = "ai.cerebro";

/// The operators, to be registered with one session.
pub(crate) fn domain() -> ort::Result<OperatorDomain> {
    let domain = update::add_to(OperatorDomain::new(DOMAIN)?)?;
    let domain = node::add::<attention::Attention>(domain)?;
    let domain = node::add::<attention::AttentionGradient>(domain)?;
    let domain = node::add::<convolution::Conv>(domain)?;
    let domain = node::add::<convolution::ConvInputGradient>(domain)?;
    let domain = node::add::<convolution::ConvWeightGradient>(domain)?;
    let domain = node::add::<cross_entropy::CrossEntropy>(domain)?;
    let domain = node::add::<cross_entropy::Hits>(domain)?;
    let domain = node::add::<depthwise::Depthwise>(domain)?;
    let domain = node::add::<depthwise::DepthwiseInputGradient>(domain)?;
    let domain = node::add::<depthwise::DepthwiseWeightGradient>(domain)?;
    let domain = node::add::<embedding::EmbeddingGradient>(domain)?;
    let domain = node::add::<gelu::Gelu>(domain)?;
    let domain = node::add::<linear::Plain>(domain)?;
    let domain = node::add::<linear::Linear>(domain)?;
    let domain = node::add::<linear::LinearInputGradient>(domain)?;
    let domain = node::add::<linear::LinearWeightGradient>(domain)?;
    let domain = domain.add(lookup::Lookups)?.add(lookup::LookupsGradient)?;
    let domain = node::add::<mask::ReluGradient>(domain)?;
    let domain = node::add::<normalization::BatchNorm>(domain)?;
    let domain = node::add::<normalization::BatchNormGradient>(domain)?;
    let domain = node::add::<normalization::LayerNormGradient>(domain)?;
    let domain = node::add::<pool::MaxPoolGradient>(domain)?;
    let domain = recurrence::add::<recurrence::Gru>(domain)?;
    let domain = recurrence::add::<recurrence::Lstm>(domain)?;
    let domain = recurrence::add::<recurrence::Plain>(domain)?;
    let domain = node::add::<silu::Silu>(domain)?;
    let domain = node::add::<silu::SiluGradient>(domain)?;
    node::add::<softmax::SoftmaxGradient>(domain)
}

/// The name of the operator `name` within the domain.
fn in_domain(name: &'static str) -> &'static str {
    name.rsplit_once('.').map_or(name, |(_, name)| name)
}
