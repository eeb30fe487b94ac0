//! What PyTorch's exporter says about where the tensors of a file come from.

use std::collections::HashSet;

use crate::onnx::{Graph, Model, TensorData};

/// Under which the exporter of `torch.export` programs writes their signature.
pub(super) const GRAPH_SIGNATURE: &str = "pkg.torch.export.ExportedProgram.graph_signature";

/// The parameters and the buffers of the program that a file was made of: names of initializers,
/// unless the exporter's optimizer has replaced these.
#[derive(Clone, Debug, Default)]
pub(super) struct Signature {
    parameters: HashSet<String>,
    buffers: HashSet<String>,
}

impl Signature {
    /// The signature that `model` comes with, if there is one.
    pub(super) fn of(model: &Model) -> Option<Self> {
        let text = model.metadata.get(GRAPH_SIGNATURE)?;
        let mut signature = Self::default();
        // Lines such as `p_fc_weight: PARAMETER target='fc.weight'`.
        for line in text.lines().take_while(|line| line.trim() != "# outputs") {
            let Some((_, about)) = line.split_once(": ") else { continue };
            let target = about.split_once("target='").and_then(|(_, rest)| rest.split_once('\''));
            let Some((target, _)) = target else { continue };
            match about.split_whitespace().next() {
                Some("PARAMETER") => signature.parameters.insert(target.to_owned()),
                Some("BUFFER" | "CONSTANT_TENSOR") => signature.buffers.insert(target.to_owned()),
                _ => false,
            };
        }
        (!signature.parameters.is_empty()).then_some(signature)
    }

    /// Whether the initializer `name` of `graph` is one of the program's parameters. Those of
    /// neither kind are constants of the computation, or what the exporter's optimizer made of
    /// parameters that are not there any more: transposed weights.
    pub(super) fn is_parameter(&self, graph: &Graph, name: &str, tensor: &TensorData) -> bool {
        if self.parameters.contains(name) || self.buffers.contains(name) {
            return self.parameters.contains(name);
        }
        let is_gone = |parameter: &String| !graph.initializers.contains_key(parameter);
        tensor.elements() > 1 && self.parameters.iter().any(is_gone)
    }

    /// The batch normalizations whose running statistics are not in `graph` any more.
    fn merged_normalizations(&self, graph: &Graph) -> usize {
        let is_gone = |buffer: &&String| {
            buffer.ends_with("running_mean") && !graph.initializers.contains_key(*buffer)
        };
        self.buffers.iter().filter(is_gone).count()
    }
}

/// How many batch normalizations an exporter has merged into the convolutions before them, as far
/// as `graph` or its signature tells: PyTorch's older exporter, which writes none, calls the new
/// weights `onnx::Conv_` and a number.
pub(super) fn merged_normalizations(graph: &Graph, signature: Option<&Signature>) -> usize {
    if let Some(signature) = signature {
        return signature.merged_normalizations(graph);
    }
    let initializers = graph.initializers.iter();
    let is_merged = |name: &str, tensor: &TensorData| {
        name.starts_with("onnx::Conv_") && tensor.dims().len() > 2
    };
    initializers.filter(|(name, tensor)| is_merged(name, tensor)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(model: &Model) -> usize {
        merged_normalizations(&model.graph, Signature::of(model).as_ref())
    }

    fn with_weights(names: &[&str]) -> Model {
        let mut model = Model::new(Graph::default(), 17);
        for name in names {
            let tensor = TensorData::from_f32(&[1, 1, 1], &[1.0]);
            model.graph.initializers.insert((*name).to_owned(), tensor);
        }
        model
    }

    #[test]
    fn merged_batch_normalizations_are_counted() {
        // The older exporter.
        assert_eq!(merged(&with_weights(&["conv.weight", "bn.weight"])), 0);
        assert_eq!(merged(&with_weights(&["onnx::Conv_24", "onnx::Conv_27"])), 2);
        // The newer one.
        let signature = "# inputs\np: PARAMETER target='conv.weight'\n\
            b: BUFFER target='bn.running_mean' persistent=True\n\n# outputs\n";
        for (names, expected) in
            [(["conv.weight", "bn.running_mean"], 0), (["conv.weight", "b"], 1)]
        {
            let mut model = with_weights(&names);
            model.metadata.insert(GRAPH_SIGNATURE.to_owned(), signature.to_owned());
            assert_eq!(merged(&model), expected);
        }
    }
}
