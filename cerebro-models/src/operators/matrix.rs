//! Matrix products and determinants.

use super::{Composition, Gradients, Operator, Site};
use crate::graph::{Attributes, Builder, Call, Transposed, Type, Value, broadcast};
use crate::onnx::TensorData;

pub(super) const OPERATORS: &[Operator] = &[
    Operator::rule("Gemm", gemm_shape, gemm),
    Operator::rule("MatMul", matmul_shape, matmul),
    Operator::composed("Det", DETERMINANT),
];

/// The most rows of a matrix whose determinant is expanded: with each the number of minors doubles.
const MOST_ROWS: usize = 8;

fn gemm_shape(call: &Call<'_>) -> Result<Vec<Type>, String> {
    let (a, b) = (call.dims(0)?, call.dims(1)?);
    let (&[a0, a1], &[b0, b1]) = (a, b) else {
        return Err(format!("shapes {a:?} and {b:?} are not those of two matrices"));
    };
    let (rows, inner) = if call.attributes.flag("transA") { (a1, a0) } else { (a0, a1) };
    let (other, columns) = if call.attributes.flag("transB") { (b1, b0) } else { (b0, b1) };
    if inner != other {
        return Err(format!("matrices {a:?} and {b:?} do not fit: {inner} columns, {other} rows"));
    }
    let dims = vec![rows, columns];
    if call.input(2).is_some() && broadcast(&dims, call.dims(2)?)? != dims {
        return Err(format!("the addend {:?} does not broadcast to {dims:?}", call.dims(2)?));
    }
    Ok(vec![Type::new(call.data_type(0)?, dims)])
}

/// For `Y = alpha A' B' + beta C`, where `'` may transpose: `dA' = alpha dY B'^T`,
/// `dB' = alpha A'^T dY`, `dC = beta dY`.
fn gemm(g: &mut Builder, at: &Site<'_>) -> Gradients {
    let (a, b, dy) = (at.x(0), at.x(1), at.dy());
    let trans_a = Transposed::from(at.attributes.flag("transA"));
    let trans_b = Transposed::from(at.attributes.flag("transB"));
    let (plain, turned) = (Transposed::No, Transposed::Yes);
    let da = match trans_a {
        Transposed::No => g.gemm((dy, plain), (b, trans_b.flipped())),
        Transposed::Yes => g.gemm((b, trans_b), (dy, turned)),
    };
    let db = match trans_b {
        Transposed::No => g.gemm((a, trans_a.flipped()), (dy, plain)),
        Transposed::Yes => g.gemm((dy, turned), (a, trans_a)),
    };
    let alpha = at.attributes.float("alpha", 1.0);
    let mut gradients = vec![Some(g.scale(da, alpha)), Some(g.scale(db, alpha))];
    if let Some(c) = at.input(2) {
        let dims = g.dims(c).to_vec();
        let sum = g.sum_to(dy, &dims);
        gradients.push(Some(g.scale(sum, at.attributes.float("beta", 1.0))));
    }
    Ok(gradients)
}

fn matmul_shape(call: &Call<'_>) -> Result<Vec<Type>, String> {
    let (a, b) = (call.dims(0)?, call.dims(1)?);
    if a.is_empty() || b.is_empty() {
        return Err("a scalar cannot be multiplied as a matrix".to_owned());
    }
    let (a_dims, b_dims) = (as_matrix(a, Side::Left), as_matrix(b, Side::Right));
    let (a_batch, a_matrix) = a_dims.split_at(a_dims.len() - 2);
    let (b_batch, b_matrix) = b_dims.split_at(b_dims.len() - 2);
    if a_matrix[1] != b_matrix[0] {
        return Err(format!("matrices {a:?} and {b:?} do not fit"));
    }
    let mut dims = broadcast(a_batch, b_batch)?;
    dims.extend((a.len() > 1).then_some(a_matrix[0]));
    dims.extend((b.len() > 1).then_some(b_matrix[1]));
    Ok(vec![Type::new(call.data_type(0)?, dims)])
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Left,
    Right,
}

/// A vector on the left is a row, on the right a column, as in NumPy's `matmul`.
fn as_matrix(dims: &[usize], side: Side) -> Vec<usize> {
    match (dims, side) {
        (&[n], Side::Left) => vec![1, n],
        (&[n], Side::Right) => vec![n, 1],
        _ => dims.to_vec(),
    }
}

/// `dA = dY B^T` and `dB = A^T dY`, each summed over the axes along which it was broadcast.
fn matmul(g: &mut Builder, at: &Site<'_>) -> Gradients {
    let (a_dims, b_dims) = (g.dims(at.x(0)).to_vec(), g.dims(at.x(1)).to_vec());
    let (a_matrix, b_matrix) = (as_matrix(&a_dims, Side::Left), as_matrix(&b_dims, Side::Right));
    let (a, b) = (g.reshape(at.x(0), &a_matrix), g.reshape(at.x(1), &b_matrix));
    let (a_batch, a_last) = a_matrix.split_at(a_matrix.len() - 2);
    let (b_batch, b_last) = b_matrix.split_at(b_matrix.len() - 2);
    let mut y_matrix = broadcast(a_batch, b_batch)?;
    y_matrix.extend([a_last[0], b_last[1]]);
    let dy = g.reshape(at.dy(), &y_matrix);
    let (da, db) = if b_batch.is_empty() {
        shared_right_matrix(g, a, b, dy)
    } else {
        let (b_turned, a_turned) = (g.swap_last_two(b), g.swap_last_two(a));
        let (da, db) = (g.matmul(dy, b_turned), g.matmul(a_turned, dy));
        (g.sum_to(da, &a_matrix), g.sum_to(db, &b_matrix))
    };
    Ok(vec![Some(g.reshape(da, &a_dims)), Some(g.reshape(db, &b_dims))])
}

/// With one matrix on the right for a whole batch, as in a linear layer over a sequence, the batch
/// is one tall matrix: `dB` is then one product instead of a batch of them and a sum.
fn shared_right_matrix(g: &mut Builder, a: Value, b: Value, dy: Value) -> (Value, Value) {
    let a_dims = g.dims(a).to_vec();
    let (inner, columns) = (g.dims(b)[0], g.dims(b)[1]);
    let rows = a_dims[..a_dims.len() - 1].iter().product();
    let a_tall = g.reshape(a, &[rows, inner]);
    let dy_tall = g.reshape(dy, &[rows, columns]);
    let da = g.gemm((dy_tall, Transposed::No), (b, Transposed::Yes));
    let db = g.gemm((a_tall, Transposed::Yes), (dy_tall, Transposed::No));
    (g.reshape(da, &a_dims), db)
}

/// Laplace's expansion row by row: a minor of the first `k + 1` rows is a sum of elements of row `k` times
/// minors of the rows before it, each of which is computed once. The gradient is the adjugate matrix,
/// of singular matrices too.
const DETERMINANT: Composition = |forward, node| {
    let x = node.required(0)?;
    let dims = forward.graph.dims(x).to_vec();
    let (batch, rows) = match dims.as_slice() {
        [batch @ .., rows, columns] if rows == columns && *rows > 0 => (batch, *rows),
        _ => return Err(format!("{dims:?} is no square matrix")),
    };
    if rows > MOST_ROWS {
        return Err(format!("matrices {dims:?} have more than {MOST_ROWS} rows"));
    }
    let count: usize = batch.iter().product();
    let elements = forward.reshape(x, &[count, rows * rows])?;
    let along = || Attributes::none().with("axis", 1);
    // The columns of minors are sets of bits.
    let mut smaller: Vec<usize> = vec![0];
    let mut minors = None;
    for row in 0..rows {
        let larger = (0..1_usize << rows).filter(|set| set.count_ones() as usize == row + 1);
        let larger: Vec<usize> = larger.collect();
        let (mut factors, mut others, mut signs) = (Vec::new(), Vec::new(), Vec::new());
        for &set in &larger {
            let columns = (0..rows).filter(|column| set >> column & 1 == 1);
            for (number, column) in columns.enumerate() {
                factors.push((row * rows + column) as i64);
                let other = smaller.binary_search(&(set ^ 1 << column));
                others.push(other.map_err(|_| "a minor is missing")? as i64);
                signs.push(if (row + number) % 2 == 0 { 1.0 } else { -1.0 });
            }
        }
        let factors = forward.graph.ints(&factors);
        let mut terms = forward.apply("Gather", &[Some(elements), Some(factors)], along())?;
        if let Some(minors) = minors {
            let others = forward.graph.ints(&others);
            let others = forward.apply("Gather", &[Some(minors), Some(others)], along())?;
            terms = forward.binary("Mul", terms, others)?;
            let data_type = forward.graph.data_type(x);
            let signs = TensorData::from_f64(data_type, &[1, signs.len()], &signs);
            let signs = forward.graph.constant(signs);
            terms = forward.binary("Mul", terms, signs)?;
        }
        let terms = forward.reshape(terms, &[count, larger.len(), row + 1])?;
        let last = forward.graph.ints(&[2]);
        let drop = Attributes::none().with("keepdims", 0);
        minors = Some(forward.apply("ReduceSum", &[Some(terms), Some(last)], drop)?);
        smaller = larger;
    }
    let minors = minors.ok_or("a matrix has a row")?;
    Ok(vec![forward.reshape(minors, batch)?])
};
