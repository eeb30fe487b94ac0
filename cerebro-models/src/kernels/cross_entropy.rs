//! Classification: the cross-entropy of logits with its gradient, and how many rows are right.
//!
//! For the few classes of most networks the dozen standard operators cost more to start than to
//! compute.

use ort::operator::{ComputeContext, Kernel, KernelContext};
use ort::value::TensorElementType::{self, Float32, Int64};
use ort::value::ValueRef;

use super::node::{Fused, dims, input, output, refused};

/// Inputs: logits, whose last axis is that of the classes, the classes of the rows. Outputs: the
/// gradient of the mean loss by the logits, the sum of the losses, of shape `[1]`. A label that is
/// no class counts as a loss of zero that has a gradient, as a row of zeros in place of a one-hot
/// one gives it.
pub(crate) const CROSS_ENTROPY: &str = "ai.cerebro.CrossEntropy";

/// Inputs: logits, the classes of the rows. Output: the number of rows whose class has the first
/// of the largest logits, of shape `[1]`.
pub(crate) const HITS: &str = "ai.cerebro.Hits";

/// More logits than this are better served by operators that several threads share.
pub(crate) const MOST_LOGITS: usize = 1 << 14;

/// Rows of logits with their labels.
struct Rows<'v> {
    shape: &'v [i64],
    logits: &'v [f32],
    labels: &'v [i64],
    classes: usize,
}

impl<'v> Rows<'v> {
    fn of(name: &str, x: &'v ValueRef<'_>, y: &'v ValueRef<'_>) -> ort::Result<Self> {
        let (shape, logits) = x.try_extract_tensor::<f32>()?;
        let (_, labels) = y.try_extract_tensor::<i64>()?;
        let classes = dims(shape).last().copied().unwrap_or(0);
        if classes == 0 || labels.len() * classes != logits.len() {
            return Err(refused(name, format!("{} labels for {shape:?}", labels.len())));
        }
        Ok(Self { shape, logits, labels, classes })
    }

    fn each(&self) -> impl Iterator<Item = (&[f32], Option<usize>)> {
        let labels = self.labels.iter().map(|&label| usize::try_from(label).ok());
        let labels = labels.map(|label| label.filter(|&label| label < self.classes));
        self.logits.chunks_exact(self.classes).zip(labels)
    }
}

pub(super) struct CrossEntropy;

impl Fused for CrossEntropy {
    const NAME: &'static str = CROSS_ENTROPY;
    const INPUTS: &'static [TensorElementType] = &[Float32, Int64];
    const OUTPUTS: &'static [TensorElementType] = &[Float32; 2];

    fn new(_: &KernelContext<'_>) -> ort::Result<Self> {
        Ok(Self)
    }
}

impl Kernel for CrossEntropy {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let name = Self::NAME;
        let (x, y) = (input(context, name, 0)?, input(context, name, 1)?);
        let rows = Rows::of(name, &x, &y)?;
        let mut gradient = output(context, name, 0, &dims(rows.shape))?;
        let mut sum = output(context, name, 1, &[1])?;
        let (_, gradient) = gradient.try_extract_tensor_mut::<f32>()?;
        let (_, sum) = sum.try_extract_tensor_mut::<f32>()?;
        sum[0] = cross_entropy(&rows, gradient);
        Ok(())
    }
}

/// With the probabilities `p = exp(x) / sum exp(x)`, the loss of a row is `-log p[label]` and its
/// gradient `(p - onehot) / rows`.
fn cross_entropy(rows: &Rows<'_>, gradient: &mut [f32]) -> f32 {
    let count = rows.labels.len() as f32;
    let mut total = 0.0;
    for ((logits, label), gradient) in rows.each().zip(gradient.chunks_exact_mut(rows.classes)) {
        // What is not a number stays so: it wins every comparison here.
        let larger = |most: f32, &x: &f32| if x <= most { most } else { x };
        let most = logits.iter().fold(f32::NEG_INFINITY, larger);
        let mut sum = 0.0;
        for (power, logit) in gradient.iter_mut().zip(logits) {
            *power = (logit - most).exp();
            sum += *power;
        }
        if let Some(label) = label {
            total += sum.ln() - (logits[label] - most);
        }
        for power in gradient.iter_mut() {
            *power = *power / sum / count;
        }
        if let Some(label) = label {
            gradient[label] -= 1.0 / count;
        }
    }
    total
}

pub(super) struct Hits;

impl Fused for Hits {
    const NAME: &'static str = HITS;
    const INPUTS: &'static [TensorElementType] = &[Float32, Int64];
    const OUTPUTS: &'static [TensorElementType] = &[Float32];

    fn new(_: &KernelContext<'_>) -> ort::Result<Self> {
        Ok(Self)
    }
}

impl Kernel for Hits {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let name = Self::NAME;
        let (x, y) = (input(context, name, 0)?, input(context, name, 1)?);
        let rows = Rows::of(name, &x, &y)?;
        let mut hits = output(context, name, 0, &[1])?;
        let (_, hits) = hits.try_extract_tensor_mut::<f32>()?;
        hits[0] = count_hits(&rows) as f32;
        Ok(())
    }
}

fn count_hits(rows: &Rows<'_>) -> usize {
    let is_hit = |(logits, label): &(&[f32], Option<usize>)| {
        label.is_some_and(|label| {
            let (before, rest) = logits.split_at(label);
            let own = rest[0];
            before.iter().all(|&other| other < own) && rest.iter().all(|&other| other <= own)
        })
    };
    rows.each().filter(is_hit).count()
}

#[cfg(test)]
mod tests {
    use super::{Rows, count_hits, cross_entropy};

    fn rows<'v>(logits: &'v [f32], labels: &'v [i64]) -> Rows<'v> {
        Rows { shape: &[], logits, labels, classes: 3 }
    }

    #[test]
    fn large_logits_do_not_overflow_and_labels_that_are_no_class_cost_nothing() {
        let mut gradient = [0.0; 9];
        let logits = [1000.0, 1000.0, -1000.0, 0.0, 0.0, 0.0, 1.0, 2.0, 3.0];
        let sum = cross_entropy(&rows(&logits, &[0, -1, 7]), &mut gradient);
        assert!((sum - 2.0_f32.ln()).abs() < 1e-6);
        let expected = [-0.5, 0.5, 0.0, 1.0 / 3.0, 1.0 / 3.0, 1.0 / 3.0];
        for (gradient, expected) in gradient.iter().zip(expected) {
            assert!((gradient * 3.0 - expected).abs() < 1e-6, "{gradient} {expected}");
        }
        assert!((gradient[6..].iter().sum::<f32>() * 3.0 - 1.0).abs() < 1e-6);
    }

    #[test]
    fn a_logit_that_is_not_a_number_makes_the_loss_so() {
        for at in 0..3 {
            let mut logits = [1.0, 2.0, 3.0];
            logits[at] = f32::NAN;
            assert!(cross_entropy(&rows(&logits, &[1]), &mut [0.0; 3]).is_nan());
        }
    }

    #[test]
    fn the_first_of_equal_logits_is_the_prediction() {
        let logits = [2.0, 2.0, 1.0, 2.0, 2.0, 1.0, 0.0, 1.0, 3.0];
        assert_eq!(count_hits(&rows(&logits, &[0, 1, 2])), 2);
        assert_eq!(count_hits(&rows(&logits, &[1, 0, -100])), 1);
    }
}
