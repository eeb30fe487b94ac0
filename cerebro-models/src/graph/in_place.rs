//! Variables whose new values may be written where the old ones are.

use std::collections::{HashMap, HashSet};

use crate::kernels::{self, renewed_input};
use crate::onnx::{Graph, Node};

/// Says of each of `variables`, an input and the output that is its new value, whether the output may
/// lie in the memory of the input; where something else has to run before an update for that, the
/// graph is changed so that it does.
///
/// Nodes run when what they read is there, and in no other order that one could rely on. So it has to
/// be an update that writes the output, which reads an element before it writes it, and every other
/// node that reads the input has to be one that the update depends on. An update that does not, such as
/// one that runs beside the gradient of its layer's input, gets the reader's result as a last input, which
/// it ignores.
pub(crate) fn write_in_place(graph: &mut Graph, variables: &[(&str, &str)]) -> Vec<bool> {
    let waits = Places::of(graph).waits(variables);
    wait(graph, &waits);
    let places = Places::of(graph);
    let is_ready = |&(input, output): &(&str, &str)| {
        places.update(input, output).is_some_and(|update| places.missing(input, update).is_empty())
    };
    variables.iter().map(is_ready).collect()
}

/// Where values are made and read, by the places of nodes.
struct Places<'g> {
    nodes: &'g [Node],
    makers: HashMap<&'g str, usize>,
    readers: HashMap<&'g str, Vec<usize>>,
}

impl<'g> Places<'g> {
    fn of(graph: &'g Graph) -> Self {
        let nodes = &graph.nodes;
        let (mut makers, mut readers) = (HashMap::new(), HashMap::<_, Vec<_>>::new());
        for (place, node) in nodes.iter().enumerate() {
            makers.extend(node.outputs.iter().map(|output| (output.as_str(), place)));
            for input in &node.inputs {
                readers.entry(input.as_str()).or_default().push(place);
            }
        }
        Self { nodes, makers, readers }
    }

    fn readers(&self, value: &str) -> &[usize] {
        self.readers.get(value).map_or(&[], Vec::as_slice)
    }

    /// The update that writes the value `output` and may write it where `input` is.
    fn update(&self, input: &str, output: &str) -> Option<usize> {
        let &update = self.makers.get(output)?;
        let node = &self.nodes[update];
        let number = node.outputs.iter().position(|own| own == output)?;
        let renewed = renewed_input(&name(node), number)?;
        let mut inputs = node.inputs.iter().enumerate().filter(|(_, own)| *own == input);
        (inputs.next()?.0 == renewed && inputs.next().is_none()).then_some(update)
    }

    /// The nodes that read the memory of the variable `input` and need not have run when `update` begins.
    fn missing(&self, input: &str, update: usize) -> Vec<usize> {
        let mut others = HashSet::new();
        let mut values = vec![input];
        while let Some(value) = values.pop() {
            for &reader in self.readers(value) {
                // What the others give may be the memory that they read, or be computed where it is read.
                if reader != update && others.insert(reader) && !gives_memory(&self.nodes[reader]) {
                    values.extend(self.nodes[reader].outputs.iter().map(String::as_str));
                }
            }
        }
        let Some(&first) = others.iter().min() else { return Vec::new() };
        let mut before = HashSet::new();
        let mut later = vec![update];
        while let Some(place) = later.pop() {
            let makers =
                self.nodes[place].inputs.iter().filter_map(|input| self.makers.get(input.as_str()));
            later.extend(makers.copied().filter(|&maker| maker >= first && before.insert(maker)));
        }
        others.difference(&before).copied().collect()
    }

    /// Which updates have to wait for which node.
    fn waits(&self, variables: &[(&str, &str)]) -> HashMap<usize, usize> {
        let mut waits = HashMap::new();
        for &(input, output) in variables {
            let Some(update) = self.update(input, output) else { continue };
            let Some(&last) = self.missing(input, update).iter().max() else { continue };
            let node = &self.nodes[last];
            // What an update gives besides new values of variables, the gradient of a bias, is read later.
            let mut next =
                self.nodes[update].outputs.iter().flat_map(|output| self.readers(output));
            if gives_memory(node) && !is_update(node) && next.all(|&reader| reader > last) {
                let latest = waits.entry(update).or_insert(last);
                *latest = last.max(*latest);
            }
        }
        waits
    }
}

/// Lets updates come after the nodes that they wait for.
fn wait(graph: &mut Graph, waits: &HashMap<usize, usize>) {
    let mut places: Vec<(usize, usize)> = (0..graph.nodes.len()).map(|place| (place, 0)).collect();
    for (&update, &last) in waits {
        let result = graph.nodes[last].outputs[0].clone();
        graph.nodes[update].inputs.push(result);
        places[update] = (update.max(last), update + 1);
    }
    let mut nodes: Vec<_> = places.into_iter().zip(std::mem::take(&mut graph.nodes)).collect();
    nodes.sort_by_key(|(place, _)| *place);
    graph.nodes = nodes.into_iter().map(|(_, node)| node).collect();
}

fn is_own(node: &Node) -> bool {
    node.domain == kernels::DOMAIN
}

fn is_update(node: &Node) -> bool {
    renewed_input(&name(node), 0).is_some()
}

/// The operator's name, as kernels have it.
fn name(node: &Node) -> String {
    format!("{}.{}", node.domain, node.op)
}

/// Whether the results of `node` are floats in memory of their own, whatever ONNX Runtime makes of it.
fn gives_memory(node: &Node) -> bool {
    is_own(node)
        || matches!(node.op.as_str(), "MatMul" | "Gemm" | "Conv" | "ConvTranspose" | "Gather")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A graph of nodes such as `Sgd(rate, w, g) -> w2`, those named `Sgd` of Cerebro's own domain.
    fn graph(nodes: &[&str]) -> Graph {
        let names = |list: &str| -> Vec<String> {
            list.split(',').map(|name| name.trim().to_owned()).collect()
        };
        let node = |text: &&str| {
            let (call, outputs) = text.split_once("->").unwrap();
            let (op, inputs) = call.trim().strip_suffix(')').unwrap().split_once('(').unwrap();
            let domain = if op == "Sgd" { kernels::DOMAIN } else { "" };
            Node {
                op: op.to_owned(),
                domain: domain.to_owned(),
                inputs: names(inputs),
                outputs: names(outputs),
                ..Node::default()
            }
        };
        Graph { nodes: nodes.iter().map(node).collect(), ..Graph::default() }
    }

    const W: &[(&str, &str)] = &[("w", "w2")];

    #[test]
    fn an_update_that_depends_on_all_readers_writes_in_place() {
        let nodes = ["MatMul(x, w) -> y", "Gradient(y) -> g", "Sgd(rate, w, g) -> w2"];
        let mut one = graph(&nodes);
        assert_eq!(write_in_place(&mut one, W), [true]);
        assert_eq!(one, graph(&nodes), "nothing has to wait");
    }

    #[test]
    fn an_update_waits_for_readers_that_it_does_not_depend_on() {
        let mut one = graph(&[
            "MatMul(x, w) -> y",
            "Gradient(y) -> g",
            "Sgd(rate, w, g) -> w2",
            "Transpose(w) -> t",
            "MatMul(g, t) -> dx",
            "Other(dx) -> z",
        ]);
        assert_eq!(write_in_place(&mut one, W), [true]);
        let expected = graph(&[
            "MatMul(x, w) -> y",
            "Gradient(y) -> g",
            "Transpose(w) -> t",
            "MatMul(g, t) -> dx",
            "Sgd(rate, w, g, dx) -> w2",
            "Other(dx) -> z",
        ]);
        assert_eq!(one, expected);
    }

    #[test]
    fn nothing_is_written_where_something_may_still_be_read() {
        let of = |nodes: &[&str], variables: &[(&str, &str)]| {
            let before = graph(nodes);
            let mut after = before.clone();
            let in_place = write_in_place(&mut after, variables);
            assert_eq!(after, before, "nothing is gained by waiting");
            in_place
        };
        // What reads a view may read the weight's memory.
        let views = ["Gradient(w) -> g", "Sgd(rate, w, g) -> w2", "Reshape(w) -> v", "Log(v) -> z"];
        assert_eq!(of(&views, W), [false]);
        // Two weights that are each other's gradient.
        let crossed = ["Sgd(rate, w, v) -> w2", "Sgd(rate, v, w) -> v2"];
        assert_eq!(of(&crossed, &[("w", "w2"), ("v", "v2")]), [false, false]);
        // A weight that is its own gradient, and one whose new value no update gives.
        assert_eq!(of(&["Sgd(rate, w, w) -> w2"], W), [false]);
        assert_eq!(of(&["Sub(w, g) -> w2"], W), [false]);
    }
}
