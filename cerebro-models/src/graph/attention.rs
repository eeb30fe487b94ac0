//! Finds attention where it is written out: values multiplied by the softmax of the products of queries
//! and keys.

use std::collections::HashSet;

use super::builder::{Builder, Node, Value};
use super::call::Attributes;
use super::strided::{Reach, Strided};
use crate::kernels::{View, cover};
use crate::onnx::DataType;

/// What one node may compute.
#[derive(Debug)]
pub(crate) struct Attention {
    /// The tensors with queries, keys and values, and the mask.
    pub(crate) inputs: Vec<Option<Value>>,
    pub(crate) attributes: Attributes,
    /// The order of the axes of the node's result that is that of the written form, and the shape that
    /// it has then.
    pub(crate) order: Vec<usize>,
    pub(crate) dims: Vec<usize>,
}

/// The scores before their softmax: products of queries and turned keys.
struct Scores {
    query: Value,
    turned_key: Value,
    scale: f64,
    mask: Option<Value>,
}

impl Builder {
    /// What the product of `shares` and `value` computes, if that is attention in 32-bit floats.
    pub(crate) fn as_attention(&self, shares: Value, value: Value) -> Option<Attention> {
        if !self.dialect().is_fused() {
            return None;
        }
        let rank = self.dims(shares).len();
        let scores = self.scores(shares)?;
        let all = [scores.query, scores.turned_key, value];
        let batch = self.dims(shares).split_at_checked(rank.checked_sub(2)?)?.0;
        let is_like = |&input: &Value| {
            let of = self.value_type(input);
            of.data_type == DataType::Float32
                && of.dims.len() == rank
                && of.dims[..rank - 2] == *batch
                && of.elements() > 0
        };
        if !all.iter().all(is_like) {
            return None;
        }
        self.packed(&scores, value).or_else(|| self.apart(&scores, value))
    }

    /// What `masked` is, if it is scores with zeros added where a key is to be seen and minus infinity
    /// elsewhere: the scores, and which keys are to be seen.
    pub(crate) fn as_masked(&self, masked: Value) -> Option<(Value, Value)> {
        let is_all = |value: Option<Value>, number: f64| {
            let constant = value.and_then(|value| self.constant_of(value));
            constant.is_some_and(|tensor| tensor.to_f64s().iter().all(|&found| found == number))
        };
        let seen_in = |addend: Value| {
            let Node { op, inputs, .. } = self.maker(addend)?;
            let is_mask =
                op == "Where" && is_all(inputs[1], 0.0) && is_all(inputs[2], f64::NEG_INFINITY);
            inputs[0].filter(|_| is_mask)
        };
        let Node { op, inputs, .. } = self.maker(masked)?;
        let &[Some(a), Some(b)] = inputs.as_slice() else { return None };
        let of_a = || seen_in(a).map(|seen| (b, seen));
        let found = seen_in(b).map(|seen| (a, seen)).or_else(of_a);
        found.filter(|_| op == "Add")
    }

    /// Whether `masked` is scores and a constant that lets each row see something.
    pub(crate) fn is_seen(&self, masked: Value) -> bool {
        let Some(Node { op, inputs, .. }) = self.maker(masked) else { return false };
        let shows = |addend: &Value| {
            let Some(tensor) = self.constant_of(*addend) else { return false };
            let width = tensor.dims().last().copied().unwrap_or(1).max(1);
            let is_seen = |number: &f64| *number > f64::NEG_INFINITY;
            tensor.to_f64s().chunks(width).all(|row| row.iter().any(is_seen))
        };
        op == "Add" && inputs.iter().flatten().any(shows)
    }

    /// What `guarded` is, if it is rows of `shares` or zeros in their place: which are rows, and `shares`.
    pub(crate) fn as_guarded(&self, guarded: Value) -> Option<(Value, Value)> {
        let Node { op, inputs, .. } = self.maker(guarded)?;
        let &[Some(which), Some(shares), Some(zero)] = inputs.as_slice() else { return None };
        let zeros = self.constant_of(zero)?.to_f64s();
        let is_it = op == "Where"
            && zeros.iter().all(|&zero| zero == 0.0)
            && self.dims(which).last() == Some(&1)
            && self.dims(shares) == self.dims(guarded);
        is_it.then_some((which, shares))
    }

    /// The scores whose softmax is `shares`.
    fn scores(&self, shares: Value) -> Option<Scores> {
        let softmax = self.maker(shares)?;
        let (axis, rank) = (softmax.attributes.int("axis", -1), self.dims(shares).len() as i64);
        if softmax.op != "Softmax" || (axis != -1 && axis != rank - 1) {
            return None;
        }
        let mut node = self.maker(softmax.inputs[0]?)?;
        let mut mask = None;
        if let ("Add", &[Some(a), Some(b)]) = (node.op.as_str(), node.inputs.as_slice()) {
            let is_mask = |&(scores, mask): &(Value, Value)| {
                self.dims(scores) == self.dims(shares) && self.is_fixed(mask)
            };
            let (scores, addend) = [(a, b), (b, a)].into_iter().find(is_mask)?;
            mask = Some(addend);
            node = self.maker(scores)?;
        }
        let mut scale = 1.0;
        while let Some((base, factor)) = self.scaled_by(node) {
            scale *= factor;
            node = self.maker(base)?;
        }
        let &[Some(query), Some(turned_key)] = node.inputs.as_slice() else { return None };
        (node.op == "MatMul").then_some(Scores { query, turned_key, scale, mask })
    }

    /// Whether `value` has no gradient that anything needs: it comes of constants and whole numbers.
    fn is_fixed(&self, value: Value) -> bool {
        let (mut seen, mut open) = (HashSet::new(), vec![value]);
        while let Some(value) = open.pop() {
            let is_given = self.constant_of(value).is_some() || !self.data_type(value).is_float();
            if is_given || !seen.insert(value) {
                continue;
            }
            let Some(node) = self.maker(value) else { return false };
            open.extend(node.inputs.iter().flatten());
        }
        true
    }

    /// Attention with each operand read from the tensor that it was cut out of.
    fn packed(&self, scores: &Scores, value: Value) -> Option<Attention> {
        let of = [scores.query, scores.turned_key, value];
        let found = of.map(|value| self.strided(value, Reach::Part));
        let [query, key, values] = &found;
        let groups = match [query.base, key.base, values.base] {
            [a, b, c] if a == b && b == c => [0, 0, 0],
            [a, b, c] if b == c && a != b => [0, 1, 1],
            [a, b, c] if a != b && b != c && a != c => [0, 1, 2],
            _ => return None,
        };
        self.attention(scores, found, groups)
    }

    /// Attention with operands that were moved about but not cut out.
    fn apart(&self, scores: &Scores, value: Value) -> Option<Attention> {
        let of = [scores.query, scores.turned_key, value];
        let found = of.map(|value| self.strided(value, Reach::Whole));
        self.attention(scores, found, [0, 1, 2])
    }

    fn attention(
        &self,
        scores: &Scores,
        [query, mut turned_key, values]: [Strided; 3],
        groups: [i64; 3],
    ) -> Option<Attention> {
        let rank = query.axes.len();
        turned_key.axes.swap(rank - 2, rank - 1);
        let views = [view(&query)?, view(&turned_key)?, view(&values)?];
        for group in 0..=groups[2] {
            let within: Vec<usize> = (0..3).filter(|&part| groups[part] == group).collect();
            let base = [query.base, turned_key.base, values.base][within[0]];
            let parts: Vec<&View> = within.iter().map(|&part| &views[part]).collect();
            if !cover(&parts, self.value_type(base).elements()) {
                return None;
            }
        }
        if values.scale != 1.0 {
            return None;
        }
        let [of_query, of_key, of_value] = &views;
        // The result lies as queries do, so that what splits heads and what joins them cancel out.
        let mut sizes: Vec<(usize, usize)> = of_query.heads.clone();
        sizes.push(of_query.rows);
        let mut places: Vec<usize> = (0..sizes.len()).collect();
        places.sort_by_key(|&axis| std::cmp::Reverse(sizes[axis].1));
        let mut shape: Vec<usize> = places.iter().map(|&axis| sizes[axis].0).collect();
        shape.push(of_value.width);
        let steps: Vec<usize> =
            (0..places.len()).map(|at| shape[at + 1..].iter().product()).collect();
        let step_of =
            |axis: usize| places.iter().position(|&place| place == axis).map_or(0, |at| steps[at]);
        let (queries, heads) = (of_query.rows.0, of_query.heads.len());
        let mixed = View {
            offset: 0,
            rows: (queries, step_of(heads)),
            width: of_value.width,
            heads: (0..heads).map(|axis| (sizes[axis].0, step_of(axis))).collect(),
        };
        let mut order: Vec<usize> = (0..places.len())
            .map(|axis| places.iter().position(|&place| place == axis))
            .collect::<Option<_>>()?;
        order.push(places.len());
        let mut dims = self.dims(scores.query).to_vec();
        dims[rank - 1] = of_value.width;
        let scale = scores.scale * query.scale * turned_key.scale;
        let ints = |values: &[usize]| values.iter().map(|&v| v as i64).collect::<Vec<_>>();
        let mut attributes = Attributes::none()
            .with("query", of_query.to_ints())
            .with("key", of_key.to_ints())
            .with("value", of_value.to_ints())
            .with("mixed", mixed.to_ints())
            .with("groups", groups.to_vec())
            .with("shape", ints(&shape))
            .with("scale", scale as f32);
        let mut inputs = vec![Some(query.base), Some(turned_key.base), Some(values.base)];
        if let Some(mask) = scores.mask {
            let mut scored = dims.clone();
            scored[rank - 1] = of_key.rows.0;
            attributes = attributes.with("mask", self.mask(mask, &scored)?.to_ints());
            inputs.push(Some(mask));
        }
        Some(Attention { inputs, attributes, order, dims })
    }

    /// Where the mask of each head lies that is broadcast to scores of the shape `scored`.
    fn mask(&self, mask: Value, scored: &[usize]) -> Option<View> {
        let rank = scored.len();
        let dims = self.dims(mask);
        let missing = rank.checked_sub(dims.len())?;
        let mut steps = vec![0; rank];
        let mut step = 1;
        for (axis, &dim) in dims.iter().enumerate().rev() {
            steps[missing + axis] = if dim == 1 { 0 } else { step };
            step *= dim;
        }
        let is_whole =
            dims.last() == Some(&scored[rank - 1]) && self.data_type(mask) == DataType::Float32;
        is_whole.then(|| View {
            offset: 0,
            rows: (scored[rank - 2], steps[rank - 2]),
            width: scored[rank - 1],
            heads: (0..rank - 2).map(|axis| (scored[axis], steps[axis])).collect(),
        })
    }
}

/// The rows of matrices, if their elements follow each other.
fn view(strided: &Strided) -> Option<View> {
    let rank = strided.axes.len();
    let (rows, (width, step)) = (strided.axis(rank - 2)?, strided.axis(rank - 1)?);
    let heads = strided.axes[..rank - 2].iter().flatten().copied().collect();
    (width == 1 || step == 1).then_some(View { offset: strided.offset, rows, width, heads })
}
