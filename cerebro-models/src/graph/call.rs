//! [`Call`]: an operator with its inputs and attributes, about to be emitted.

use std::collections::BTreeMap;

use super::builder::{Builder, LARGEST, Type, Value};
use super::values::normalize_axis;
use crate::onnx::{Attribute, DataType, TensorData};

/// The attributes of a node, by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Attributes(pub BTreeMap<String, Attribute>);

impl Attributes {
    /// No attributes.
    pub fn none() -> Self {
        Self::default()
    }

    /// These attributes and one more.
    pub fn with(mut self, name: &str, value: impl Into<Attribute>) -> Self {
        self.0.insert(name.to_owned(), value.into());
        self
    }

    /// These attributes and one more, if there is a value.
    pub fn with_some(self, name: &str, value: Option<Attribute>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// These attributes without one.
    pub fn without(mut self, name: &str) -> Self {
        self.0.remove(name);
        self
    }

    /// The attribute `name`.
    pub fn get(&self, name: &str) -> Option<&Attribute> {
        self.0.get(name)
    }

    /// The integer `name`, or `default` if there is none.
    pub fn int(&self, name: &str, default: i64) -> i64 {
        if let Some(Attribute::Int(value)) = self.0.get(name) { *value } else { default }
    }

    /// Whether the integer `name` is there and not 0.
    pub fn flag(&self, name: &str) -> bool {
        self.int(name, 0) != 0
    }

    /// The number `name`, or `default` if there is none. The nearest decimal of the 32-bit float
    /// is taken: an exporter that wrote 0.1 meant 0.1.
    pub fn float(&self, name: &str, default: f64) -> f64 {
        match self.0.get(name) {
            Some(Attribute::Float(value)) => {
                value.to_string().parse().unwrap_or_else(|_| f64::from(*value))
            }
            _ => default,
        }
    }

    /// The list of integers `name`, if there is one.
    pub fn ints(&self, name: &str) -> Option<&[i64]> {
        if let Some(Attribute::Ints(values)) = self.0.get(name) { Some(values) } else { None }
    }

    /// The text `name`, or `default` if there is none.
    pub fn text<'a>(&'a self, name: &str, default: &'a str) -> &'a str {
        if let Some(Attribute::String(value)) = self.0.get(name) { value } else { default }
    }

    /// The list of texts `name`, if there is one.
    pub fn texts(&self, name: &str) -> Option<&[String]> {
        if let Some(Attribute::Strings(values)) = self.0.get(name) { Some(values) } else { None }
    }

    /// The tensor `name`, if there is one.
    pub fn tensor(&self, name: &str) -> Option<&TensorData> {
        if let Some(Attribute::Tensor(value)) = self.0.get(name) { Some(value) } else { None }
    }
}

/// An operator's inputs and attributes, with what is known about them.
///
/// Errors are sentences about the node; who asked adds the operator and the node's name.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// Where the inputs are values.
    pub(crate) graph: &'a Builder,
    /// The inputs; `None` where an optional one is left out.
    pub inputs: &'a [Option<Value>],
    /// The attributes.
    pub attributes: &'a Attributes,
    /// How many outputs are wanted.
    pub outputs: usize,
}

impl<'a> Call<'a> {
    /// Input number `index`, if it was given.
    pub fn input(&self, index: usize) -> Option<Value> {
        self.inputs.get(index).copied().flatten()
    }

    /// Input number `index`, which must have been given.
    pub fn required(&self, index: usize) -> Result<Value, String> {
        self.input(index).ok_or_else(|| format!("input {index} is missing"))
    }

    /// The type of input number `index`.
    pub fn value_type(&self, index: usize) -> Result<&'a Type, String> {
        Ok(self.graph.value_type(self.required(index)?))
    }

    /// The shape of input number `index`.
    pub fn dims(&self, index: usize) -> Result<&'a [usize], String> {
        Ok(&self.value_type(index)?.dims)
    }

    /// The element type of input number `index`.
    pub fn data_type(&self, index: usize) -> Result<DataType, String> {
        Ok(self.value_type(index)?.data_type)
    }

    /// The value of input number `index`, which must be a constant.
    pub fn constant(&self, index: usize) -> Result<&'a TensorData, String> {
        self.graph.constant_of(self.required(index)?).ok_or_else(|| {
            format!("input {index} depends on the data, and the graph's shapes would with it")
        })
    }

    /// The integers in input number `index`, which must be a constant.
    pub fn ints(&self, index: usize) -> Result<Vec<i64>, String> {
        let constant = self.constant(index)?;
        constant.to_i64s().ok_or_else(|| format!("input {index} should be integers"))
    }

    /// The sizes in input number `index`, which must be a constant.
    pub fn sizes(&self, index: usize) -> Result<Vec<usize>, String> {
        let values = self.ints(index)?;
        let size = |&value: &i64| usize::try_from(value).ok().filter(|&size| size <= LARGEST);
        let sizes: Option<Vec<usize>> = values.iter().map(size).collect();
        sizes.ok_or_else(|| format!("input {index} is {values:?}, and should be sizes"))
    }

    /// The axes in input number `index`, made non-negative for a tensor of `rank` axes; `None` if
    /// the input was not given.
    pub fn axes(&self, index: usize, rank: usize) -> Result<Option<Vec<usize>>, String> {
        if self.input(index).is_none() {
            return Ok(None);
        }
        let axes = self.ints(index)?;
        axes.into_iter().map(|axis| normalize_axis(axis, rank)).collect::<Result<_, _>>().map(Some)
    }

    /// The axis in attribute `name`, made non-negative for a tensor of `rank` axes.
    pub fn axis(&self, name: &str, default: i64, rank: usize) -> Result<usize, String> {
        normalize_axis(self.attributes.int(name, default), rank)
    }
}
