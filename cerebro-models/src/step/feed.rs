//! [`Feed`]: how the tensors of a partition become the inputs of a graph.

use cerebro_core::ModelError;
use cerebro_core::data::{ElementType, Partition, TensorSliceMut, TensorSpec};

use super::{Buffer, StepError};
use crate::training::DataInput;

/// Which tensor of a partition feeds which input of a graph, and what is checked on the way.
#[derive(Debug)]
pub(crate) struct Feed<'p> {
    partition: &'p dyn Partition,
    columns: Vec<Column<'p>>,
}

#[derive(Debug)]
struct Column<'p> {
    tensor: usize,
    spec: &'p TensorSpec,
    /// Rows are gathered as integers here and then become floats.
    integers: Option<Vec<i64>>,
    labels: Option<Labels>,
}

/// What the integers of a classification's target may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Labels {
    /// The number of classes: labels count from 0.
    pub(crate) classes: usize,
    /// A label that counts for nothing.
    pub(crate) ignored: Option<i64>,
}

impl Labels {
    /// An error if the data set's tensor `spec` is known to have labels beyond these.
    pub(crate) fn check(self, spec: &TensorSpec) -> Result<(), StepError> {
        let Some(found) = spec.classes else { return Ok(()) };
        let last = found.saturating_sub(1);
        let ignored = self.ignored.is_some_and(|label| label as u64 == last);
        let counted = found.saturating_sub(u64::from(ignored));
        if counted <= self.classes as u64 {
            return Ok(());
        }
        Err(StepError::Classes { tensor: spec.name.clone(), found, classes: self.classes })
    }
}

impl<'p> Feed<'p> {
    /// Feeds each of `inputs` with the tensor named beside it; one that holds class labels comes
    /// with what they may be.
    pub(crate) fn new(
        partition: &'p dyn Partition,
        inputs: &[(&DataInput, &str, Option<Labels>)],
    ) -> Result<Self, ModelError> {
        let column = |&(input, name, labels): &(&DataInput, &str, Option<Labels>)| {
            let tensor = partition.tensor_index(name)?;
            let spec = &partition.tensors()[tensor];
            check_shape(input, spec)?;
            let integers = match (spec.element, input.element) {
                (found, expected) if found == expected => None,
                (ElementType::I64, ElementType::F32) => Some(Vec::new()),
                (found, expected) => {
                    let (input, tensor) = (input.name.clone(), spec.name.clone());
                    return Err(StepError::Element { input, expected, tensor, found }.into());
                }
            };
            Ok(Column { tensor, spec, integers, labels })
        };
        let columns = inputs.iter().map(column).collect::<Result<_, ModelError>>()?;
        Ok(Self { partition, columns })
    }

    /// Copies `rows` into `buffers`, one per input.
    pub(crate) fn gather(
        &mut self,
        rows: &[u32],
        buffers: &mut [Buffer],
    ) -> Result<(), ModelError> {
        for (column, buffer) in self.columns.iter_mut().zip(buffers) {
            match (&mut column.integers, column.spec.element) {
                (None, ElementType::F32) => {
                    let out = TensorSliceMut::F32(buffer.slice_mut());
                    self.partition.gather(column.tensor, rows, out)?;
                }
                (None, _) => {
                    let out = buffer.slice_mut();
                    self.partition.gather(column.tensor, rows, TensorSliceMut::I64(out))?;
                    if let Some(labels) = column.labels {
                        check_labels(labels, column.spec, rows, out)?;
                    }
                }
                (Some(integers), _) => {
                    let out = buffer.slice_mut::<f32>();
                    integers.resize(out.len(), 0);
                    let gathered = TensorSliceMut::I64(integers);
                    self.partition.gather(column.tensor, rows, gathered)?;
                    out.iter_mut().zip(integers).for_each(|(out, value)| *out = *value as f32);
                }
            }
        }
        Ok(())
    }

    /// The first value among all rows that is no number: why a loss may be none.
    pub(crate) fn not_finite(&self) -> Result<Option<StepError>, ModelError> {
        for column in self.columns.iter().filter(|c| c.spec.element == ElementType::F32) {
            let mut values = vec![0.0_f32; column.spec.row_len()];
            for row in 0..self.partition.rows() as u32 {
                self.partition.gather(column.tensor, &[row], TensorSliceMut::F32(&mut values))?;
                if let Some(&value) = values.iter().find(|value| !value.is_finite()) {
                    let tensor = column.spec.name.clone();
                    return Ok(Some(StepError::NotFinite { tensor, row, value }));
                }
            }
        }
        Ok(None)
    }
}

/// Rows fit if they have the same elements in the same order: axes of size 1 do not matter.
fn check_shape(input: &DataInput, spec: &TensorSpec) -> Result<(), StepError> {
    let expected = input.dims.get(1..).unwrap_or_default();
    let longer =
        |dims: &[usize]| -> Vec<usize> { dims.iter().copied().filter(|&dim| dim != 1).collect() };
    if longer(expected) == longer(&spec.shape) {
        return Ok(());
    }
    Err(StepError::RowShape {
        input: input.name.clone(),
        expected: expected.to_vec(),
        tensor: spec.name.clone(),
        found: spec.shape.clone(),
    })
}

fn check_labels(
    labels: Labels,
    spec: &TensorSpec,
    rows: &[u32],
    values: &[i64],
) -> Result<(), StepError> {
    let is_class = |label: &i64| (0..labels.classes as i64).contains(label);
    let is_wrong = |label: &i64| !is_class(label) && labels.ignored != Some(*label);
    let Some(at) = values.iter().position(is_wrong) else { return Ok(()) };
    Err(StepError::Label {
        tensor: spec.name.clone(),
        row: rows[at / spec.row_len().max(1)],
        label: values[at],
        classes: labels.classes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_has_as_many_classes_as_the_model_but_for_a_label_that_does_not_count() {
        let spec = |classes| TensorSpec {
            classes,
            ..TensorSpec::new("label", ElementType::I64, Vec::new())
        };
        let labels = |ignored| Labels { classes: 10, ignored };
        for fits in [None, Some(0), Some(10)] {
            labels(None).check(&spec(fits)).unwrap();
            labels(Some(0)).check(&spec(fits)).unwrap();
        }
        labels(Some(10)).check(&spec(Some(11))).unwrap();
        for ignored in [None, Some(3), Some(-100)] {
            let error = labels(ignored).check(&spec(Some(11))).unwrap_err().to_string();
            assert!(error.contains("11 classes") && error.contains("tells 10 apart"), "{error}");
        }
    }
}
