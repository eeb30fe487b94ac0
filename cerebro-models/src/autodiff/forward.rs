//! [`Forward`]: emits the nodes of a forward pass and notes them on a tape.

use std::collections::HashMap;

use crate::error::GraphError;
use crate::graph::{Attributes, Builder, Type, Value};
use crate::onnx::DataType;
use crate::operators::{self, Kind, Node};
use crate::training::SEED;

/// How operators that differ between training and inference behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Mode {
    /// Batch statistics, dropout.
    Training,
    /// Running statistics, no dropout.
    Inference,
}

/// What was emitted, in order.
pub(crate) type Tape = Vec<Record>;

/// A node of the forward pass, as its gradient rule will see it.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) op: String,
    /// The name of the model's node that it came from.
    pub(crate) place: String,
    pub(crate) inputs: Vec<Option<Value>>,
    pub(crate) outputs: Vec<Value>,
    pub(crate) saved: Vec<Value>,
    pub(crate) attributes: Attributes,
}

/// A forward pass in the making.
#[derive(Debug)]
pub(crate) struct Forward<'g> {
    /// Where nodes are emitted. What is emitted here directly has no gradient.
    pub(crate) graph: &'g mut Builder,
    pub(crate) mode: Mode,
    pub(crate) tape: Tape,
    place: String,
    /// The newest value of each running statistic.
    statistics: HashMap<Value, Value>,
    seed: Option<Value>,
    draws: u64,
}

impl<'g> Forward<'g> {
    pub(crate) fn new(graph: &'g mut Builder, mode: Mode) -> Self {
        Self {
            graph,
            mode,
            tape: Tape::new(),
            place: String::new(),
            statistics: HashMap::new(),
            seed: None,
            draws: 0,
        }
    }

    /// Nodes applied from now on come from the model's node `place`.
    pub(crate) fn set_place(&mut self, place: &str) {
        place.clone_into(&mut self.place);
        self.graph.set_place(place);
    }

    /// Applies an operator with one output.
    pub(crate) fn apply(
        &mut self,
        op: &str,
        inputs: &[Option<Value>],
        attributes: Attributes,
    ) -> Result<Value, String> {
        let outputs = self.apply_with_outputs(op, inputs, attributes, 1)?;
        outputs.first().copied().ok_or_else(|| format!("{op} gave no output"))
    }

    /// Applies an operator of two inputs, without attributes.
    pub(crate) fn binary(&mut self, op: &str, a: Value, b: Value) -> Result<Value, String> {
        self.apply(op, &[Some(a), Some(b)], Attributes::none())
    }

    /// The elements of `x` in the shape `dims`.
    pub(crate) fn reshape(&mut self, x: Value, dims: &[usize]) -> Result<Value, String> {
        let sizes = self.graph.sizes(dims);
        self.binary("Reshape", x, sizes)
    }

    /// Applies an operator.
    pub(crate) fn apply_with_outputs(
        &mut self,
        op: &str,
        inputs: &[Option<Value>],
        attributes: Attributes,
        outputs: usize,
    ) -> Result<Vec<Value>, String> {
        let operator = operators::find(op).ok_or_else(|| format!("operator {op} is unknown"))?;
        let node = Node { inputs, attributes: &attributes, outputs };
        if let Some(values) = operators::in_one_node(self, op, &node) {
            return values;
        }
        let (outputs, saved) = match operator.kind {
            Kind::Composed(compose) | Kind::Made(compose) => {
                let outputs = compose(self, &node)?;
                return self.graph.take_error().map_or(Ok(outputs), Err);
            }
            Kind::Lowered(lower, _) => {
                let lowered = lower(self, &node)?;
                (lowered.outputs, lowered.saved)
            }
            Kind::Rule(_) | Kind::Flat | Kind::Opaque => {
                let outputs = self.graph.emit(op, inputs, attributes.clone(), outputs);
                (outputs, Vec::new())
            }
        };
        if let Some(reason) = self.graph.take_error() {
            return Err(reason);
        }
        self.tape.push(Record {
            op: op.to_owned(),
            place: self.place.clone(),
            inputs: inputs.to_vec(),
            outputs: outputs.clone(),
            saved,
            attributes,
        });
        Ok(outputs)
    }

    /// The value of a running statistic before this node: another node may have updated it.
    pub(crate) fn statistic(&self, value: Value) -> Value {
        self.statistics.get(&value).copied().unwrap_or(value)
    }

    /// Declares `value` a running statistic, which training updates.
    pub(crate) fn declare_statistic(&mut self, value: Value) {
        self.statistics.insert(value, value);
    }

    /// Whether `value` is a running statistic.
    pub(crate) fn is_statistic(&self, value: Value) -> bool {
        self.statistics.contains_key(&value)
    }

    /// Notes the new value of a running statistic.
    pub(crate) fn update_statistic(&mut self, value: Value, new: Value) {
        self.statistics.insert(value, new);
    }

    /// The seed of this step's random numbers, always the same one at inference, and the number of
    /// the stream to draw from, another one at each call.
    pub(crate) fn random_stream(&mut self) -> (Value, u64) {
        self.draws += 1;
        let graph = &mut *self.graph;
        let seed = match self.mode {
            Mode::Training => {
                *self.seed.get_or_insert_with(|| graph.input(SEED, Type::new(DataType::Int64, [1])))
            }
            Mode::Inference => graph.ints(&[0]),
        };
        (seed, self.draws)
    }

    /// Whether random numbers were drawn.
    pub(crate) fn is_random(&self) -> bool {
        self.seed.is_some()
    }

    /// The error of a node of operator `op` at the current place.
    pub(crate) fn refused(&self, op: &str, reason: String) -> GraphError {
        GraphError::Refused { op: op.to_owned(), node: self.place.clone(), reason }
    }
}
