//! [`TensorColumns`]: which columns of a table become which tensor.

use serde::{Deserialize, Serialize};

use super::ElementType;

/// A tensor of a data set, described by the columns that it is made of.
///
/// Several scalar columns are stacked to a matrix `[rows, columns]`, one scalar column is a vector
/// `[rows]`, and one `list` or `fixed_size_list` column gives each row's elements in the shape that
/// [`shape`](Self::shape) says. Integers and booleans become `int64`, floats `float32`; integers
/// become floats where floats stand beside them, where the tensor is normalised, and where
/// [`element`](Self::element) says so.
///
/// ```
/// use cerebro_core::data::{Normalization, Scope, TensorColumns};
/// let image = TensorColumns::new("image", ["pixels"])
///     .shape([1, 8, 8])
///     .normalize(Normalization::MinMax, Scope::Tensor);
/// let label = TensorColumns::new("label", ["digit"]).classes(10);
/// let features = TensorColumns::all_except("x", ["digit", "id"]);
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TensorColumns {
    pub(super) name: String,
    pub(super) columns: Selection,
    pub(super) shape: Option<Vec<usize>>,
    pub(super) element: Option<ElementType>,
    pub(super) classes: Option<u64>,
    pub(super) normalization: Option<(Normalization, Scope)>,
    pub(super) fill_missing: Option<f64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Selection {
    These(Vec<String>),
    AllExcept(Vec<String>),
}

impl TensorColumns {
    /// The tensor `name`, made of `columns` in this order.
    pub fn new<C: Into<String>>(
        name: impl Into<String>,
        columns: impl IntoIterator<Item = C>,
    ) -> Self {
        Self::select(name, Selection::These(columns.into_iter().map(Into::into).collect()))
    }

    /// The tensor `name`, made of all the source's columns but `columns`, in the source's order.
    pub fn all_except<C: Into<String>>(
        name: impl Into<String>,
        columns: impl IntoIterator<Item = C>,
    ) -> Self {
        Self::select(name, Selection::AllExcept(columns.into_iter().map(Into::into).collect()))
    }

    fn select(name: impl Into<String>, columns: Selection) -> Self {
        Self {
            name: name.into(),
            columns,
            shape: None,
            element: None,
            classes: None,
            normalization: None,
            fill_missing: None,
        }
    }

    /// The shape of one row; its sizes multiply to the number of columns or of list elements.
    ///
    /// Without it, one scalar column gives `[]`, several give `[columns]`, a list gives
    /// `[elements]`, and an array of NumPy keeps its own shape.
    pub fn shape(mut self, shape: impl Into<Vec<usize>>) -> Self {
        self.shape = Some(shape.into());
        self
    }

    /// The type of the elements, where it is not the one that the columns' types imply: integers
    /// as floats. (Floats never become integers: that would lose what they say.)
    pub fn element(mut self, element: ElementType) -> Self {
        self.element = Some(element);
        self
    }

    /// Says that the elements are class labels `0..classes`; any other is an error.
    pub fn classes(mut self, classes: u64) -> Self {
        self.classes = Some(classes);
        self
    }

    /// Scales the tensor by statistics of the training partitions, which the catalogue keeps.
    ///
    /// The files hold the values as they were; they are scaled as they are loaded.
    pub fn normalize(mut self, normalization: Normalization, scope: Scope) -> Self {
        self.normalization = Some((normalization, scope));
        self
    }

    /// Puts `value` where a value is missing (null, or NaN), which is an error otherwise.
    pub fn fill_missing(mut self, value: f64) -> Self {
        self.fill_missing = Some(value);
        self
    }
}

/// How a tensor is scaled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Normalization {
    /// To mean 0 and standard deviation 1 over the training rows: (x - mean) / deviation, with the
    /// population's deviation (the sum of squares divided by the number of rows). What does not vary
    /// becomes 0.
    Standardize,
    /// To the range 0 to 1 over the training rows: (x - minimum) / (maximum - minimum). What does
    /// not vary becomes 0; rows outside of the training rows' range fall outside of 0 to 1.
    MinMax,
}

/// What has statistics of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Scope {
    /// Each element of a row: right for tables, whose columns have units of their own.
    Element,
    /// The tensor as a whole: right for images and signals, whose elements share one unit.
    Tensor,
}
