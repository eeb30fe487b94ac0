//! Positions of tokens as rotations (Su et al. 2021, "`RoFormer`", section 3.2.2).

use super::{Composition, Operator};
use crate::autodiff::Forward;
use crate::graph::{Attributes, Value};

pub(super) const OPERATORS: &[Operator] = &[Operator::composed("RotaryEmbedding", ROTATED)];

/// Each pair of numbers of a head turned by an angle of the token's: `(c a - s b, s a + c b)`. The
/// pairs are of both halves of a head, or of neighbours; what is beyond `rotary_embedding_dim` stays.
const ROTATED: Composition = |forward, node| {
    let x = node.required(0)?;
    let dims = forward.graph.dims(x).to_vec();
    let count = |name: &str| usize::try_from(node.attributes.int(name, 0)).unwrap_or(0);
    // The axis of heads comes before that of tokens, or after it if heads are side by side.
    let (head_axis, apart) = match *dims.as_slice() {
        [_, _, _, _] => (1, dims.clone()),
        [batch, tokens, width] => {
            let heads = count("num_heads");
            if heads == 0 || width % heads != 0 {
                return Err(format!("{dims:?} cannot be cut into {heads} heads"));
            }
            (2, vec![batch, tokens, heads, width / heads])
        }
        _ => return Err(format!("{dims:?} should be three or four axes")),
    };
    let size = apart[3];
    let turned = Some(count("rotary_embedding_dim")).filter(|&of| of != 0).unwrap_or(size);
    if turned > size || turned % 2 != 0 {
        return Err(format!("{turned} of {size} numbers cannot be turned in pairs"));
    }
    let half = turned / 2;

    let x = forward.reshape(x, &apart)?;
    let mut angles = Vec::new();
    for cache in [node.required(1)?, node.required(2)?] {
        angles.push(of_tokens(forward, cache, node.input(3), half, head_axis)?);
    }
    let (cosine, sine) = (angles[0], angles[1]);
    let is_interleaved = node.attributes.flag("interleaved");
    let [first, second] = if is_interleaved {
        [(0, turned, 2), (1, turned, 2)]
    } else {
        [(0, half, 1), (half, turned, 1)]
    };
    let (a, b) = (part(forward, x, first)?, part(forward, x, second)?);
    let mut product = |x, y| forward.binary("Mul", x, y);
    let (ca, sb, sa, cb) =
        (product(cosine, a)?, product(sine, b)?, product(sine, a)?, product(cosine, b)?);
    let mut pair = [forward.binary("Sub", ca, sb)?, forward.binary("Add", sa, cb)?];
    if is_interleaved {
        let column = [&apart[..3], &[half, 1]].concat();
        for half in &mut pair {
            *half = forward.reshape(*half, &column)?;
        }
    }
    let last = || Attributes::none().with("axis", -1);
    let mut y = forward.apply("Concat", &pair.map(Some), last())?;
    if is_interleaved {
        y = forward.reshape(y, &[&apart[..3], &[turned]].concat())?;
    }
    if turned < size {
        let rest = part(forward, x, (turned, size, 1))?;
        y = forward.apply("Concat", &[Some(y), Some(rest)], last())?;
    }
    Ok(vec![forward.reshape(y, &dims)?])
};

/// What `cache` holds for each token, `half` numbers, the same for all heads: of the rows at `places`,
/// if these are given.
fn of_tokens(
    forward: &mut Forward<'_>,
    cache: Value,
    places: Option<Value>,
    half: usize,
    head_axis: usize,
) -> Result<Value, String> {
    let rows = match places {
        Some(_) => {
            let rows = Attributes::none().with("axis", 0);
            forward.apply("Gather", &[Some(cache), places], rows)?
        }
        None => cache,
    };
    let &[batch, tokens, width] = forward.graph.dims(rows) else {
        return Err(format!("angles {:?} should be three axes", forward.graph.dims(rows)));
    };
    if width != half {
        return Err(format!("{width} angles of a token should be {half}"));
    }
    let mut dims = vec![batch, tokens, half];
    dims.insert(head_axis, 1);
    forward.reshape(rows, &dims)
}

/// `x` from `start` to before `end` in steps, along its last axis.
fn part(
    forward: &mut Forward<'_>,
    x: Value,
    (start, end, step): (usize, usize, usize),
) -> Result<Value, String> {
    let bounds = [start, end].map(|at| Some(forward.graph.sizes(&[at])));
    let (axis, step) = (forward.graph.ints(&[-1]), forward.graph.sizes(&[step]));
    let inputs = [Some(x), bounds[0], bounds[1], Some(axis), Some(step)];
    forward.apply("Slice", &inputs, Attributes::none())
}
