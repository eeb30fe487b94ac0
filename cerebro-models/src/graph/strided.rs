//! Where the elements of a value lie within the value that they were taken from: through reshapes,
//! transposes and slices, which then need not be made.

use super::builder::{Builder, Node, Value};
use super::values::normalize_axis;

/// Elements within another value, as if that were flat.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Strided {
    /// What they lie in.
    pub(super) base: Value,
    pub(super) offset: usize,
    /// For each axis its factors, the outermost first: sizes, and how far apart elements lie.
    pub(super) axes: Vec<Vec<(usize, usize)>>,
    /// What the elements of the base are multiplied by.
    pub(super) scale: f64,
}

/// How far one may look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// To a value of the same elements.
    Whole,
    /// To a value that has others too.
    Part,
}

impl Strided {
    /// All elements of `value`.
    fn of(value: Value, dims: &[usize]) -> Self {
        let axes = dims.iter().zip(strides(dims)).map(|(&dim, stride)| vec![(dim, stride)]);
        Self { base: value, offset: 0, axes: axes.collect(), scale: 1.0 }
    }

    /// The only factor of `axis`, if there is not another one.
    pub(super) fn axis(&self, axis: usize) -> Option<(usize, usize)> {
        match self.axes[axis].as_slice() {
            [] => Some((1, 0)),
            &[factor] => Some(factor),
            _ => None,
        }
    }

    /// The same with the base's axes of the sizes `dims` lying `to` apart in `base`, from `offset` on.
    fn within(&self, dims: &[usize], base: Value, offset: usize, to: &[usize]) -> Option<Self> {
        if dims.contains(&0) {
            return None;
        }
        let from = strides(dims);
        // The largest index along each of the base's axes.
        let mut last: Vec<usize> =
            (0..dims.len()).map(|axis| self.offset / from[axis] % dims[axis].max(1)).collect();
        let offset = last.iter().zip(to).fold(offset, |offset, (index, to)| offset + index * to);
        let mut axes = Vec::new();
        for factors in &self.axes {
            let mut moved = Vec::new();
            for &(size, stride) in factors.iter().rev() {
                let (mut size, mut stride) = (size, stride);
                while size > 1 {
                    let axis = (0..dims.len())
                        .filter(|&axis| dims[axis] > 1)
                        .find(|&axis| from[axis] <= stride)?;
                    let step = stride / from[axis];
                    if !stride.is_multiple_of(from[axis]) || step >= dims[axis] {
                        return None;
                    }
                    // What goes beyond the axis goes on along the one around it.
                    let inner = if size * step <= dims[axis] { size } else { dims[axis] / step };
                    let divides = dims[axis].is_multiple_of(step) && size.is_multiple_of(inner);
                    if inner < size && !divides {
                        return None;
                    }
                    last[axis] += (inner - 1) * step;
                    moved.push((inner, step * to[axis]));
                    (size, stride) = (size / inner, from[axis] * dims[axis]);
                }
            }
            axes.push(merged(moved));
        }
        let stays = last.iter().zip(dims).all(|(&last, &dim)| last < dim);
        stays.then_some(Self { base, offset, axes, scale: self.scale })
    }
}

/// The factors of an axis, the innermost first: the outermost first, and with as few as there can be.
fn merged(factors: Vec<(usize, usize)>) -> Vec<(usize, usize)> {
    let mut merged: Vec<(usize, usize)> = Vec::new();
    for (size, stride) in factors {
        match merged.last_mut() {
            Some((inner, step)) if *inner * *step == stride => *inner *= size,
            _ => merged.push((size, stride)),
        }
    }
    merged.reverse();
    merged
}

/// How far apart elements lie along each axis.
fn strides(dims: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; dims.len()];
    for axis in (1..dims.len()).rev() {
        strides[axis - 1] = strides[axis] * dims[axis];
    }
    strides
}

impl Builder {
    /// Where the elements of `value` lie, as far back as can be said.
    pub(super) fn strided(&self, value: Value, reach: Reach) -> Strided {
        let mut found = Strided::of(value, self.dims(value));
        while let Some(further) = self.further(&found, reach) {
            found = further;
        }
        found
    }

    fn further(&self, found: &Strided, reach: Reach) -> Option<Strided> {
        let node = self.maker(found.base)?;
        let input = (*node.inputs.first()?)?;
        let dims = self.dims(found.base);
        let from = self.dims(input);
        let all = strides(from);
        match node.op.as_str() {
            "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" | "Identity" => {
                Some(Strided { base: input, ..found.clone() })
            }
            "Transpose" => {
                let along = |&axis: &i64| Some(all[normalize_axis(axis, all.len()).ok()?]);
                let to: Vec<usize> = match node.attributes.ints("perm") {
                    Some(order) => order.iter().map(along).collect::<Option<_>>()?,
                    None => all.iter().rev().copied().collect(),
                };
                found.within(dims, input, 0, &to)
            }
            "Mul" | "Div" => self.scaled(found, node),
            "Gather" if reach == Reach::Part => {
                let axis = normalize_axis(node.attributes.int("axis", 0), from.len()).ok()?;
                let indices = self.constant_of((*node.inputs.get(1)?)?)?;
                let &[index] = indices.to_i64s()?.as_slice() else { return None };
                let index = normalize_axis(index, from[axis]).ok()?;
                // A scalar index takes the axis away, a list of one leaves it.
                let mut to = all.clone();
                to.remove(axis);
                (0..indices.dims().len()).for_each(|_| to.insert(axis, all[axis]));
                found.within(dims, input, index * all[axis], &to)
            }
            "Split" if reach == Reach::Part => {
                let axis = normalize_axis(node.attributes.int("axis", 0), from.len()).ok()?;
                let which = node.outputs.iter().position(|output| *output == found.base)?;
                let before = node.outputs[..which].iter().map(|part| self.dims(*part)[axis]);
                found.within(dims, input, before.sum::<usize>() * all[axis], &all)
            }
            "Slice" if reach == Reach::Part => {
                let ints = |index: usize| {
                    self.constant_of(node.inputs.get(index).copied().flatten()?)?.to_i64s()
                };
                let starts = ints(1)?;
                let axes = ints(3).unwrap_or_else(|| (0..starts.len() as i64).collect());
                if node.inputs.len() > 4 && ints(4)?.iter().any(|&step| step != 1) {
                    return None;
                }
                let mut offset = 0;
                for (&axis, &start) in axes.iter().zip(&starts) {
                    let axis = normalize_axis(axis, from.len()).ok()?;
                    let start = if start < 0 { start + from[axis] as i64 } else { start };
                    offset += (start.max(0) as usize).min(from[axis]) * all[axis];
                }
                found.within(dims, input, offset, &all)
            }
            _ => None,
        }
    }

    /// Through a product with a constant or a quotient by one.
    fn scaled(&self, found: &Strided, node: &Node) -> Option<Strided> {
        let (base, factor) = self.scaled_by(node)?;
        Some(Strided { base, scale: found.scale * factor, ..found.clone() })
    }

    /// The value of which `node` gives a multiple, and the factor.
    pub(super) fn scaled_by(&self, node: &Node) -> Option<(Value, f64)> {
        let &[Some(a), Some(b)] = node.inputs.as_slice() else { return None };
        let single = |value: Value| match self.constant_of(value)?.to_f64s().as_slice() {
            &[factor] => Some(factor),
            _ => None,
        };
        let (base, factor) = match node.op.as_str() {
            "Mul" => single(b).map(|factor| (a, factor)).or_else(|| Some((b, single(a)?)))?,
            "Div" => (a, 1.0 / single(b)?),
            _ => return None,
        };
        (self.dims(base) == self.dims(node.outputs[0])).then_some((base, factor))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Attributes, Type};
    use crate::onnx::DataType;

    #[test]
    fn queries_are_found_in_the_product_that_they_were_cut_out_of() {
        let (length, rows, heads, width) = (5, 2, 3, 4);
        let wide = heads * width;
        let mut g = Builder::new();
        let all = g.input("all", Type::new(DataType::Float32, [length, rows, 3 * wide]));
        // As PyTorch's attention writes it.
        let parts = g.reshape(all, &[1, length, rows, 3, wide]);
        let parts = g.transpose(parts, &[3, 1, 2, 0, 4]);
        let parts = g.reshape(parts, &[3, length, rows, wide]);
        let index = g.constant(crate::onnx::TensorData::from_i64(&[], &[1]));
        let keys = g.op("Gather", &[parts, index], Attributes::none().with("axis", 0));
        let keys = g.reshape(keys, &[length, rows * heads, width]);
        let keys = g.transpose(keys, &[1, 0, 2]);
        let keys = g.reshape(keys, &[rows, heads, length, width]);
        let keys = g.scale(keys, 0.5);
        let row = rows * 3 * wide;
        let axes =
            [(rows, 3 * wide), (heads, width), (length, row), (width, 1)].map(|axis| vec![axis]);
        let expected = Strided { base: all, offset: wide, axes: axes.to_vec(), scale: 0.5 };
        assert_eq!(g.strided(keys, Reach::Part), expected);
        let whole = g.strided(keys, Reach::Whole);
        assert_eq!((g.dims(whole.base), whole.offset), (&[length, rows, wide][..], 0));
    }

    #[test]
    fn what_a_reshape_mixes_up_is_not_looked_through() {
        let mut g = Builder::new();
        let x = g.input("x", Type::new(DataType::Float32, [6, 4]));
        let turned = g.transpose(x, &[1, 0]);
        let mixed = g.reshape(turned, &[3, 8]);
        assert_eq!(g.strided(mixed, Reach::Part).base, turned);
        let fits = g.reshape(turned, &[2, 12]);
        let found = g.strided(fits, Reach::Part);
        assert_eq!((found.base, &found.axes[1]), (x, &vec![(2, 1), (6, 4)]));
    }

    #[test]
    fn slices_and_splits_are_parts() {
        let mut g = Builder::new();
        let x = g.input("x", Type::new(DataType::Float32, [6, 4]));
        let slice = g.slice(x, 0, 2, 5, 1);
        let found = g.strided(slice, Reach::Part);
        assert_eq!((found.base, found.offset, found.axis(0)), (x, 8, Some((3, 4))));
        assert_eq!(g.strided(slice, Reach::Whole).base, slice);
        let backwards = g.slice(x, 0, 5, 2, -1);
        assert_eq!(g.strided(backwards, Reach::Part).base, backwards);
        let sizes = g.ints(&[1, 3]);
        let split = g.emit("Split", &[Some(x), Some(sizes)], Attributes::none().with("axis", 1), 2);
        let found = g.strided(split[1], Reach::Part);
        assert_eq!((found.base, found.offset, found.axis(1)), (x, 1, Some((3, 1))));
    }
}
