//! What formulas are written with: one method per operator that gradient rules use.

use super::builder::{Builder, Type, Value};
use super::call::Attributes;
use crate::onnx::{Attribute, DataType, TensorData};

/// Sums over more rows than this are not products with a vector of ones, which is a constant of
/// the graph.
const LONGEST_VECTOR_OF_ONES: usize = 1 << 16;

/// The numbers of more classes than this are not a constant of the graph.
const MOST_CLASSES: usize = 1 << 26;

impl Builder {
    /// Emits a node with one output.
    pub fn op(&mut self, op: &str, inputs: &[Value], attributes: Attributes) -> Value {
        let inputs: Vec<Option<Value>> = inputs.iter().copied().map(Some).collect();
        self.emit(op, &inputs, attributes, 1).first().copied().unwrap_or(Value::REFUSED)
    }

    /// Emits a node with one input, one output and no attributes.
    pub fn unary(&mut self, op: &str, x: Value) -> Value {
        self.op(op, &[x], Attributes::none())
    }

    /// Emits a node with two inputs, one output and no attributes.
    pub fn binary(&mut self, op: &str, a: Value, b: Value) -> Value {
        self.op(op, &[a, b], Attributes::none())
    }

    /// The scalar `value`, of the element type of `like`.
    pub fn scalar(&mut self, value: f64, like: Value) -> Value {
        let data_type = self.data_type(like);
        self.constant(TensorData::from_f64(data_type, &[], &[value]))
    }

    /// A vector of 64-bit integers.
    pub fn ints(&mut self, values: &[i64]) -> Value {
        self.constant(TensorData::from_i64(&[values.len()], values))
    }

    /// Sizes, as a vector of 64-bit integers.
    pub fn sizes(&mut self, dims: &[usize]) -> Value {
        let dims: Vec<i64> = dims.iter().map(|&dim| dim as i64).collect();
        self.ints(&dims)
    }

    /// A tensor filled with `value`, as large as `like` and of its element type.
    pub fn filled(&mut self, value: f64, like: Value) -> Value {
        let Type { data_type, dims } = self.value_type(like).clone();
        self.fill(value, data_type, &dims)
    }

    /// A tensor filled with `value`.
    pub fn fill(&mut self, value: f64, data_type: DataType, dims: &[usize]) -> Value {
        let sizes = self.sizes(dims);
        let element = TensorData::from_f64(data_type, &[1], &[value]);
        self.op("ConstantOfShape", &[sizes], Attributes::none().with("value", element))
    }

    /// `a + b`, broadcast.
    pub fn add(&mut self, a: Value, b: Value) -> Value {
        self.binary("Add", a, b)
    }

    /// `a - b`, broadcast.
    pub fn sub(&mut self, a: Value, b: Value) -> Value {
        self.binary("Sub", a, b)
    }

    /// `a b`, element by element, broadcast.
    pub fn mul(&mut self, a: Value, b: Value) -> Value {
        self.binary("Mul", a, b)
    }

    /// `a / b`, broadcast.
    pub fn div(&mut self, a: Value, b: Value) -> Value {
        self.binary("Div", a, b)
    }

    /// `-x`.
    pub fn neg(&mut self, x: Value) -> Value {
        self.unary("Neg", x)
    }

    /// `x + constant`.
    pub fn add_scalar(&mut self, x: Value, constant: f64) -> Value {
        let constant = self.scalar(constant, x);
        self.add(x, constant)
    }

    /// `constant - x`.
    pub fn sub_from(&mut self, constant: f64, x: Value) -> Value {
        let constant = self.scalar(constant, x);
        self.sub(constant, x)
    }

    /// `constant x`; `x` itself when the constant is 1.
    pub fn scale(&mut self, x: Value, constant: f64) -> Value {
        if constant == 1.0 {
            return x;
        }
        let constant = self.scalar(constant, x);
        self.mul(x, constant)
    }

    /// The square of `x`.
    pub fn square(&mut self, x: Value) -> Value {
        self.mul(x, x)
    }

    /// `x` with elements of another type.
    pub fn cast(&mut self, x: Value, to: DataType) -> Value {
        if self.data_type(x) == to {
            return x;
        }
        self.op("Cast", &[x], Attributes::none().with("to", to.code()))
    }

    /// A boolean as 0 and 1 of the element type of `like`.
    pub fn indicator(&mut self, condition: Value, like: Value) -> Value {
        let data_type = self.data_type(like);
        self.cast(condition, data_type)
    }

    /// 1 where `a > b`, else 0, of the element type of `a`.
    pub fn greater(&mut self, a: Value, b: Value) -> Value {
        let condition = self.binary("Greater", a, b);
        self.indicator(condition, a)
    }

    /// 1 where `a < b`, else 0, of the element type of `a`.
    pub fn less(&mut self, a: Value, b: Value) -> Value {
        let condition = self.binary("Less", a, b);
        self.indicator(condition, a)
    }

    /// 1 where `a = b`, else 0, of the element type of `a`.
    pub fn equal(&mut self, a: Value, b: Value) -> Value {
        let condition = self.binary("Equal", a, b);
        self.indicator(condition, a)
    }

    /// `a` where `condition` holds, else `b`.
    pub fn select(&mut self, condition: Value, a: Value, b: Value) -> Value {
        self.op("Where", &[condition, a, b], Attributes::none())
    }

    /// 1 where the class along the new axis `axis` is the label, else 0, of the element type of
    /// `like`; a label that is no class gives zeros.
    pub fn one_hot(&mut self, labels: Value, classes: usize, axis: usize, like: Value) -> Value {
        let mut dims = vec![1; self.dims(labels).len() + 1];
        match dims.get_mut(axis) {
            Some(size) if classes <= MOST_CLASSES => *size = classes,
            _ => {
                let of = self.dims(labels);
                let reason = format!("{classes} classes along axis {axis} of labels {of:?}");
                return self.refuse(reason);
            }
        }
        let numbers: Vec<i64> = (0..classes as i64).collect();
        let numbers = self.constant(TensorData::from_i64(&dims, &numbers));
        let labels = self.cast(labels, DataType::Int64);
        let labels = self.unsqueeze(labels, &[axis]);
        let condition = self.binary("Equal", labels, numbers);
        self.indicator(condition, like)
    }

    /// `x` in another shape.
    pub fn reshape(&mut self, x: Value, dims: &[usize]) -> Value {
        if self.dims(x) == dims {
            return x;
        }
        let sizes = self.sizes(dims);
        // Without `allowzero` a size of 0 would mean: as it was.
        let attributes = if dims.contains(&0) {
            Attributes::none().with("allowzero", 1)
        } else {
            Attributes::none()
        };
        self.op("Reshape", &[x, sizes], attributes)
    }

    /// `x` with its axes in the order `order`.
    pub fn transpose(&mut self, x: Value, order: &[usize]) -> Value {
        if order.iter().enumerate().all(|(to, &from)| to == from) {
            return x;
        }
        let order: Vec<i64> = order.iter().map(|&axis| axis as i64).collect();
        self.op("Transpose", &[x], Attributes::none().with("perm", order))
    }

    /// `x` with its last two axes swapped.
    pub fn swap_last_two(&mut self, x: Value) -> Value {
        let rank = self.dims(x).len();
        let mut order: Vec<usize> = (0..rank).collect();
        if rank >= 2 {
            order.swap(rank - 2, rank - 1);
        }
        self.transpose(x, &order)
    }

    /// A reduction of `x` over `axes`, which stay with size 1.
    pub fn reduce(&mut self, op: &str, x: Value, axes: &[usize]) -> Value {
        if axes.is_empty() {
            return x;
        }
        let axes = self.sizes(axes);
        self.op(op, &[x, axes], Attributes::none().with("keepdims", 1))
    }

    /// The sum of `x` over `axes`, which stay with size 1.
    pub fn reduce_sum(&mut self, x: Value, axes: &[usize]) -> Value {
        self.reduce("ReduceSum", x, axes)
    }

    /// The sum of all elements, a scalar.
    pub fn total(&mut self, x: Value) -> Value {
        self.op("ReduceSum", &[x], Attributes::none().with("keepdims", 0))
    }

    /// What broadcasting does backwards: `x` summed to the shape `dims`, from which it came.
    pub fn sum_to(&mut self, x: Value, dims: &[usize]) -> Value {
        let from = self.dims(x).to_vec();
        if from == dims {
            return x;
        }
        let added = from.len().saturating_sub(dims.len());
        let axes: Vec<usize> = (0..from.len())
            .filter(|&axis| axis < added || (dims[axis - added] == 1 && from[axis] != 1))
            .collect();
        let leading = axes.iter().enumerate().all(|(index, &axis)| index == axis);
        let sum = if leading { self.sum_of_rows(x, axes.len()) } else { self.reduce_sum(x, &axes) };
        self.reshape(sum, dims)
    }

    /// The sum of `x` over its first `axes` axes.
    ///
    /// As a product with a vector of ones: ONNX Runtime's `ReduceSum` over leading axes walks down
    /// each column, which takes 56 us for 256 rows of 256 where the product takes 4 us.
    fn sum_of_rows(&mut self, x: Value, axes: usize) -> Value {
        let (rows, row) = self.dims(x).split_at(axes);
        let (rows, columns) = (rows.iter().product::<usize>(), row.iter().product::<usize>());
        let has_product = matches!(self.data_type(x), DataType::Float32 | DataType::Float64);
        if !has_product || columns < 2 || rows > LONGEST_VECTOR_OF_ONES {
            return self.reduce_sum(x, &(0..axes).collect::<Vec<_>>());
        }
        let table = self.reshape(x, &[rows, columns]);
        let ones = TensorData::from_f64(self.data_type(x), &[rows], &vec![1.0; rows]);
        let ones = self.constant(ones);
        self.matmul(ones, table)
    }

    /// `x` broadcast to the shape `dims`.
    pub fn expand(&mut self, x: Value, dims: &[usize]) -> Value {
        if self.dims(x) == dims {
            return x;
        }
        let sizes = self.sizes(dims);
        self.op("Expand", &[x, sizes], Attributes::none())
    }

    /// The matrix product, batched over leading axes.
    pub fn matmul(&mut self, a: Value, b: Value) -> Value {
        self.binary("MatMul", a, b)
    }

    /// The product of two matrices, each transposed first where said so.
    pub fn gemm(&mut self, a: (Value, Transposed), b: (Value, Transposed)) -> Value {
        let attributes = Attributes::none()
            .with("transA", i64::from(a.1 == Transposed::Yes))
            .with("transB", i64::from(b.1 == Transposed::Yes));
        self.op("Gemm", &[a.0, b.0], attributes)
    }

    /// The part of `x` from `start` to before `end` along `axis`, in steps of `step`.
    pub fn slice(&mut self, x: Value, axis: usize, start: i64, end: i64, step: i64) -> Value {
        let (axis, start) = (self.ints(&[axis as i64]), self.ints(&[start]));
        let (end, step) = (self.ints(&[end]), self.ints(&[step]));
        self.op("Slice", &[x, start, end, axis, step], Attributes::none())
    }

    /// `x` with zeros around it: `before[i]` and `after[i]` of them along axis `i`.
    pub fn pad(&mut self, x: Value, before: &[i64], after: &[i64]) -> Value {
        if before.iter().chain(after).all(|&size| size == 0) {
            return x;
        }
        let pads = self.ints(&[before, after].concat());
        self.op("Pad", &[x, pads], Attributes::none().with("mode", "constant"))
    }

    /// `parts`, one after the other along `axis`.
    pub fn concat(&mut self, parts: &[Value], axis: usize) -> Value {
        match parts {
            [only] => *only,
            _ => self.op("Concat", parts, Attributes::none().with("axis", axis as i64)),
        }
    }

    /// `x` with new axes of size 1 at the places `axes`.
    pub fn unsqueeze(&mut self, x: Value, axes: &[usize]) -> Value {
        let mut dims = self.dims(x).to_vec();
        for &axis in axes {
            dims.insert(axis.min(dims.len()), 1);
        }
        self.reshape(x, &dims)
    }

    /// The sum of some values of the same shape.
    pub fn sum(&mut self, values: &[Value]) -> Option<Value> {
        match values {
            [] => None,
            [only] => Some(*only),
            several => Some(self.side_by_side(several).unwrap_or_else(|| match several {
                [a, b] => self.add(*a, *b),
                many => self.op("Sum", many, Attributes::none()),
            })),
        }
    }

    /// The attribute that makes an operator work along `axis`.
    pub fn along(axis: usize) -> Attributes {
        Attributes::none().with("axis", Attribute::Int(axis as i64))
    }
}

/// Whether a matrix is transposed before it is multiplied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transposed {
    /// As it is.
    No,
    /// Transposed.
    Yes,
}

impl Transposed {
    /// The other one.
    pub fn flipped(self) -> Self {
        if self == Transposed::No { Transposed::Yes } else { Transposed::No }
    }
}

impl From<bool> for Transposed {
    fn from(transposed: bool) -> Self {
        if transposed { Transposed::Yes } else { Transposed::No }
    }
}
