//! What the operators of this domain have in common: how ONNX Runtime sees them, and how they
//! share work between its threads.

use std::marker::PhantomData;
use std::ops::Range;

use ort::operator::{
    ComputeContext, Kernel, KernelContext, Operator, OperatorDomain, OperatorInput, OperatorOutput,
};
use ort::value::{TensorElementType, ValueRef, ValueRefMut};

use super::in_domain;

/// An operator whose inputs and outputs are of known types.
pub(super) trait Fused: Kernel + Sized + 'static {
    /// Its name, with the domain.
    const NAME: &'static str;
    const INPUTS: &'static [TensorElementType];
    const OUTPUTS: &'static [TensorElementType];
    /// How many of the last inputs, and of the last outputs, a node may leave out.
    const OPTIONAL_INPUTS: usize = 0;
    const OPTIONAL_OUTPUTS: usize = 0;
    /// Inputs whose memory an output of the same shape may take.
    const IN_PLACE: &'static [(u32, u32)] = &[];

    /// The kernel of one node.
    fn new(node: &KernelContext<'_>) -> ort::Result<Self>;
}

/// Adds an operator to the domain.
pub(super) fn add<F: Fused>(domain: OperatorDomain) -> ort::Result<OperatorDomain> {
    domain.add(Node::<F>(PhantomData))
}

struct Node<F>(PhantomData<fn() -> F>);

impl<F: Fused> Operator for Node<F> {
    type Kernel<'attr> = F;

    const INPLACES: &[(u32, u32)] = F::IN_PLACE;

    fn name(&self) -> &str {
        in_domain(F::NAME)
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        let (required, optional) = F::INPUTS.split_at(F::INPUTS.len() - F::OPTIONAL_INPUTS);
        let required = required.iter().map(|element| OperatorInput::required(*element));
        required.chain(optional.iter().map(|element| OperatorInput::optional(*element)))
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        let (required, optional) = F::OUTPUTS.split_at(F::OUTPUTS.len() - F::OPTIONAL_OUTPUTS);
        let required = required.iter().map(|element| OperatorOutput::required(*element));
        required.chain(optional.iter().map(|element| OperatorOutput::optional(*element)))
    }

    fn create_kernel(&self, node: &KernelContext<'_>) -> ort::Result<F> {
        F::new(node)
    }
}

/// An error of the operator `name`.
pub(super) fn refused(name: &str, what: impl std::fmt::Display) -> ort::Error {
    ort::Error::new(format!("{name}: {what}"))
}

/// Input number `index`.
pub(super) fn input<'c>(
    context: &'c ComputeContext,
    name: &str,
    index: usize,
) -> ort::Result<ValueRef<'c>> {
    context.input(index)?.ok_or_else(|| refused(name, format!("input {index} is missing")))
}

/// Output number `index`, of the shape `dims`.
pub(super) fn output<'c>(
    context: &'c ComputeContext,
    name: &str,
    index: usize,
    dims: &[usize],
) -> ort::Result<ValueRefMut<'c>> {
    let dims: Vec<i64> = dims.iter().map(|&dim| dim as i64).collect();
    let output = context.output(index, dims)?;
    output.ok_or_else(|| refused(name, format!("output {index} is missing")))
}

/// The list of sizes `name` among a node's attributes.
pub(super) fn sizes(node: &KernelContext<'_>, of: &str, name: &str) -> ort::Result<Vec<usize>> {
    let values = node.get::<Vec<i64>>(name);
    let values = values.ok_or_else(|| refused(of, format!("attribute `{name}` is missing")))?;
    let sizes = values.iter().map(|&value| usize::try_from(value)).collect::<Result<_, _>>();
    sizes.map_err(|_| refused(of, format!("attribute `{name}` is {values:?}")))
}

/// The size `name` among a node's attributes.
pub(super) fn size(node: &KernelContext<'_>, of: &str, name: &str) -> ort::Result<usize> {
    let value = node.get::<i64>(name).and_then(|value| usize::try_from(value).ok());
    value.ok_or_else(|| refused(of, format!("attribute `{name}` is missing or negative")))
}

/// A tensor's shape as sizes.
pub(super) fn dims(shape: &[i64]) -> Vec<usize> {
    shape.iter().map(|&dim| usize::try_from(dim).unwrap_or(0)).collect()
}

/// Elements that are written from several threads at once, each its own part.
pub(super) struct Parts<'a, T> {
    first: *mut T,
    length: usize,
    elements: PhantomData<&'a mut [T]>,
}

// SAFETY: parts are handed out by `part` only, whose callers promise that no two overlap.
unsafe impl<T: Send> Sync for Parts<'_, T> {}
// SAFETY: it is the exclusive borrow that it was made of.
unsafe impl<T: Send> Send for Parts<'_, T> {}

impl<'a, T> Parts<'a, T> {
    pub(super) fn of(elements: &'a mut [T]) -> Self {
        Self { first: elements.as_mut_ptr(), length: elements.len(), elements: PhantomData }
    }

    /// Where the elements begin, for those who write single ones. What is written at the same time
    /// must not overlap.
    pub(super) fn first(&self) -> *mut T {
        self.first
    }

    /// The elements of `range`, cut to what there is.
    ///
    /// # Safety
    ///
    /// No other part that is in use at the same time may overlap with `range`.
    #[allow(clippy::mut_from_ref, reason = "callers promise that parts do not overlap")]
    pub(super) unsafe fn part(&self, range: Range<usize>) -> &mut [T] {
        let start = range.start.min(self.length);
        let end = range.end.clamp(start, self.length);
        // SAFETY: the range lies within the borrowed elements, and the caller promises that no
        // other part overlaps with it.
        unsafe { std::slice::from_raw_parts_mut(self.first.add(start), end - start) }
    }
}

/// Less work than this, in elements read or written, is not worth another thread.
const LEAST_SHARED: usize = 1 << 15;

/// Calls `each` for every number below `count`, from several threads if there are some and the
/// work, of `elements` elements altogether, is worth it. What is computed must not depend on which
/// thread calls.
pub(super) fn for_each(
    context: &ComputeContext,
    count: usize,
    elements: usize,
    each: impl Fn(usize) + Sync + Send,
) -> ort::Result<()> {
    if count < 2 || elements < LEAST_SHARED {
        (0..count).for_each(each);
        return Ok(());
    }
    context.par_for(count, 0, each)
}

/// Elements of a piece, where each is computed by itself.
pub(super) const PIECE: usize = 1 << 14;

/// Calls `each` for the places of every piece of `size` elements among `length`, of which the last one
/// may be shorter, as [`for_each`] does for work of `elements` elements.
pub(super) fn for_each_piece(
    context: &ComputeContext,
    length: usize,
    size: usize,
    elements: usize,
    each: impl Fn(Range<usize>) + Sync + Send,
) -> ort::Result<()> {
    for_each(context, length.div_ceil(size), elements, |piece| {
        each(piece * size..length.min((piece + 1) * size));
    })
}

/// The gradient of an operator that treats each element by itself: `each` makes a piece of it of what
/// comes back through the output, and of another input of that shape. An element costs as much as
/// `work` elements that are copied.
pub(super) fn back_by_elements(
    context: &ComputeContext,
    name: &str,
    work: usize,
    each: impl Fn(&[f32], &[f32], &mut [f32]) + Sync + Send,
) -> ort::Result<()> {
    let (dy, other) = (input(context, name, 0)?, input(context, name, 1)?);
    let (shape, dy) = dy.try_extract_tensor::<f32>()?;
    let (_, other) = other.try_extract_tensor::<f32>()?;
    if other.len() != dy.len() {
        return Err(refused(name, "its inputs differ in size"));
    }
    let mut dx = output(context, name, 0, &dims(shape))?;
    let dx = Parts::of(dx.try_extract_tensor_mut::<f32>()?.1);
    for_each_piece(context, dy.len(), PIECE, work * dy.len(), |range| {
        // SAFETY: each piece is another part.
        let dx = unsafe { dx.part(range.clone()) };
        each(&dy[range.clone()], &other[range], dx);
    })
}
