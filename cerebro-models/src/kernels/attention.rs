//! Attention: values mixed by the softmax of the products of queries and keys, head by head, and its
//! gradient. Scores are nowhere in memory but in a thread's own, block by block.
//!
//! Queries, keys and values are read where they lie within tensors of any layout, and gradients are
//! written so. Attributes of both: `query`, `key`, `value`, `mixed` and `mask`, where they lie (a
//! [`View`]); `groups`, which of them lie in one tensor; `scale`, what products are multiplied by.

mod head;
#[cfg(test)]
mod tests;
mod view;

use ort::operator::{ComputeContext, Kernel, KernelContext};
use ort::value::TensorElementType::{self, Float32};
use ort::value::ValueRef;

use self::head::{Head, Operands, Rows, Target};
use super::node::{Fused, Parts, dims, for_each, input, output, refused, sizes};

pub(crate) use self::view::{View, cover};

/// Inputs: the tensors with queries, keys and values, which may be the same one, and perhaps a mask,
/// which is added to the scores. Outputs: the mixed values, of the shape in attribute `shape`; of each
/// query's scores the largest and one over the sum of their exponentials.
pub(crate) const ATTENTION: &str = "ai.cerebro.Attention";

/// Inputs: the gradient by the mixed values; both outputs; the inputs. Outputs: the gradients by the
/// tensors with queries, keys and values, each tensor once.
pub(crate) const ATTENTION_GRADIENT: &str = "ai.cerebro.AttentionGradient";

/// What the attributes of a node say.
struct Layout {
    query: View,
    key: View,
    value: View,
    mixed: View,
    mask: Option<View>,
    /// For queries, keys and values, which gradient is that of their tensor.
    groups: [usize; 3],
    scale: f32,
    /// Where the matrix of each head begins: of queries, keys, values, results and masks.
    starts: Vec<[usize; 5]>,
}

impl Layout {
    fn of(node: &KernelContext<'_>, name: &str) -> ort::Result<Self> {
        let view = |attribute| View::read(node, name, attribute);
        let [query, key, value, mixed] =
            [view("query")?, view("key")?, view("value")?, view("mixed")?];
        let mask = node.get::<Vec<i64>>("mask").map(|_| view("mask")).transpose()?;
        let groups = sizes(node, name, "groups")?;
        let scale = node.get::<f32>("scale");
        let (&[a @ 0, b @ 0..=1, c @ 0..=2], Some(scale)) = (groups.as_slice(), scale) else {
            return Err(refused(name, format!("`groups` is {groups:?}, `scale` {scale:?}")));
        };
        let fits = query.width == key.width
            && key.rows.0 == value.rows.0
            && mixed.rows.0 == query.rows.0
            && mixed.width == value.width
            && [&key, &value, &mixed].iter().all(|view| view.count() == query.count())
            && mask.as_ref().is_none_or(|mask| {
                mask.count() == query.count()
                    && mask.width == key.rows.0
                    && mask.rows.0 == query.rows.0
            });
        if !fits || query.width == 0 || value.width == 0 {
            return Err(refused(name, "its views do not fit together"));
        }
        let of_mask = mask.as_ref().map_or_else(|| vec![0; query.count()], View::starts);
        let [q, k, v, m] = [&query, &key, &value, &mixed].map(View::starts);
        let starts = (0..q.len()).map(|at| [q[at], k[at], v[at], m[at], of_mask[at]]).collect();
        Ok(Self { query, key, value, mixed, mask, groups: [a, b, c], scale, starts })
    }

    /// About how many elements that are copied take as long as `products` products of a head's.
    fn work(&self, products: usize) -> usize {
        let of_head = self.query.rows.0 * self.key.rows.0 * self.query.width.div_ceil(32);
        products * self.starts.len() * of_head
    }

    /// The tensor of a value that must reach as far as `view`.
    fn tensor<'v>(
        name: &str,
        value: &'v ValueRef<'_>,
        view: &View,
    ) -> ort::Result<(Vec<usize>, &'v [f32])> {
        let (shape, elements) = value.try_extract_tensor::<f32>()?;
        if view.end().is_none_or(|end| end > elements.len()) {
            return Err(refused(name, format!("an input {shape:?} is smaller than {view:?}")));
        }
        Ok((dims(shape), elements))
    }
}

/// The tensors that both operators read.
struct Inputs<'c> {
    tensors: [ValueRef<'c>; 3],
    mask: Option<ValueRef<'c>>,
}

impl<'c> Inputs<'c> {
    /// From input number `first` on.
    fn of(
        context: &'c ComputeContext,
        name: &str,
        first: usize,
        layout: &Layout,
    ) -> ort::Result<Self> {
        let [query, key, value] = [0, 1, 2].map(|index| input(context, name, first + index));
        let mask = layout.mask.is_some().then(|| input(context, name, first + 3)).transpose()?;
        Ok(Self { tensors: [query?, key?, value?], mask })
    }
}

/// What is read for each head.
struct Job<'a> {
    layout: &'a Layout,
    tensors: [&'a [f32]; 3],
    mask: Option<&'a [f32]>,
}

impl<'a> Job<'a> {
    fn of(name: &str, layout: &'a Layout, inputs: &'a Inputs<'_>) -> ort::Result<Self> {
        let Layout { query, key, value, .. } = layout;
        let [q, k, v] = &inputs.tensors;
        let tensors = [
            Layout::tensor(name, q, query)?.1,
            Layout::tensor(name, k, key)?.1,
            Layout::tensor(name, v, value)?.1,
        ];
        let mask = match (&inputs.mask, &layout.mask) {
            (Some(mask), Some(view)) => Some(Layout::tensor(name, mask, view)?.1),
            _ => None,
        };
        Ok(Self { layout, tensors, mask })
    }

    fn head(&self, number: usize) -> (Head<'a>, Operands<'a>) {
        let Layout { query, key, value, mask, scale, .. } = self.layout;
        let [q, k, v, _, of_mask] = self.layout.starts[number];
        let rows = |elements, start, view: &View| Rows { elements, start, step: view.rows.1 };
        let mask =
            self.mask.zip(mask.as_ref()).map(|(elements, view)| rows(elements, of_mask, view));
        let head = Head {
            queries: query.rows.0,
            keys: key.rows.0,
            width: query.width,
            value_width: value.width,
            scale: *scale,
            mask,
        };
        let [queries, keys, values] = self.tensors;
        let operands = Operands {
            query: rows(queries, q, query),
            key: rows(keys, k, key),
            value: rows(values, v, value),
        };
        (head, operands)
    }
}

pub(super) struct Attention {
    layout: Layout,
    shape: Vec<usize>,
}

impl Fused for Attention {
    const NAME: &'static str = ATTENTION;
    const INPUTS: &'static [TensorElementType] = &[Float32; 4];
    const OUTPUTS: &'static [TensorElementType] = &[Float32; 2];
    const OPTIONAL_INPUTS: usize = 1;

    fn new(node: &KernelContext<'_>) -> ort::Result<Self> {
        let shape = sizes(node, Self::NAME, "shape")?;
        Ok(Self { layout: Layout::of(node, Self::NAME)?, shape })
    }
}

impl Kernel for Attention {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let (name, layout) = (Self::NAME, &self.layout);
        let inputs = Inputs::of(context, name, 0, layout)?;
        let job = Job::of(name, layout, &inputs)?;
        let mut mixed = output(context, name, 0, &self.shape)?;
        let (_, mixed) = mixed.try_extract_tensor_mut::<f32>()?;
        let queries = layout.query.rows.0;
        let mut statistics = output(context, name, 1, &[layout.starts.len(), queries, 2])?;
        let (_, statistics) = statistics.try_extract_tensor_mut::<f32>()?;
        if !cover(&[&layout.mixed], mixed.len()) {
            return Err(refused(name, format!("a result of {:?} does not fit", self.shape)));
        }
        let (mixed, statistics) = (&Parts::of(mixed), Parts::of(statistics));
        for_each(context, layout.starts.len(), layout.work(2), |number| {
            let (head, operands) = job.head(number);
            let start = layout.starts[number][3];
            let mixed = Target { elements: mixed, start, step: layout.mixed.rows.1 };
            // SAFETY: each number has results and statistics of its own.
            unsafe {
                let statistics = statistics.part(2 * number * queries..2 * (number + 1) * queries);
                head.forward(operands, mixed, statistics);
            }
        })
    }
}

pub(super) struct AttentionGradient {
    layout: Layout,
}

impl Fused for AttentionGradient {
    const NAME: &'static str = ATTENTION_GRADIENT;
    const INPUTS: &'static [TensorElementType] = &[Float32; 7];
    const OUTPUTS: &'static [TensorElementType] = &[Float32; 3];
    const OPTIONAL_INPUTS: usize = 1;
    const OPTIONAL_OUTPUTS: usize = 2;

    fn new(node: &KernelContext<'_>) -> ort::Result<Self> {
        Layout::of(node, Self::NAME).map(|layout| Self { layout })
    }
}

impl Kernel for AttentionGradient {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let (name, layout) = (Self::NAME, &self.layout);
        let [gradient, mixed] = [input(context, name, 0)?, input(context, name, 1)?];
        let (_, gradient) = Layout::tensor(name, &gradient, &layout.mixed)?;
        let (_, mixed) = Layout::tensor(name, &mixed, &layout.mixed)?;
        let statistics = input(context, name, 2)?;
        let (shape, statistics) = statistics.try_extract_tensor::<f32>()?;
        let of_head = 2 * layout.query.rows.0;
        if statistics.len() != layout.starts.len() * of_head {
            return Err(refused(name, format!("statistics {shape:?} do not fit its views")));
        }
        let inputs = Inputs::of(context, name, 3, layout)?;
        let job = Job::of(name, layout, &inputs)?;
        let views = [&layout.query, &layout.key, &layout.value];
        let mut outputs = Vec::new();
        for group in 0..=layout.groups[2] {
            let within: Vec<usize> = (0..3).filter(|&part| layout.groups[part] == group).collect();
            let &[first, ..] = within.as_slice() else {
                return Err(refused(name, format!("`groups` is {:?}", layout.groups)));
            };
            let (shape, elements) = inputs.tensors[first].try_extract_tensor::<f32>()?;
            let views: Vec<&View> = within.iter().map(|&part| views[part]).collect();
            if !cover(&views, elements.len()) {
                return Err(refused(name, format!("{views:?} do not cover {shape:?}")));
            }
            outputs.push(output(context, name, group, &dims(shape))?);
        }
        let mut gradients = Vec::new();
        for output in &mut outputs {
            gradients.push(Parts::of(output.try_extract_tensor_mut::<f32>()?.1));
        }
        for_each(context, layout.starts.len(), layout.work(5), |number| {
            let (head, operands) = job.head(number);
            let starts = layout.starts[number];
            let [gradient, mixed] = [gradient, mixed].map(|elements| Rows {
                elements,
                start: starts[3],
                step: layout.mixed.rows.1,
            });
            let target = |part: usize| Target {
                elements: &gradients[layout.groups[part]],
                start: starts[part],
                step: views[part].rows.1,
            };
            let statistics = &statistics[number * of_head..(number + 1) * of_head];
            // SAFETY: each number has gradients of its own, since the views cover each element once.
            unsafe {
                let targets = [0, 1, 2].map(target);
                head.backward(operands, [gradient, mixed], statistics, targets);
            }
        })
    }
}
