//! Convolutions that see one pixel at a time: products of matrices of an image as it lies.
//!
//! An image is a matrix of channels by pixels. Its convolution is that of the weights, a matrix of
//! filters by channels, with it, so that nothing need be laid out.

use std::ops::Range;

use super::product::{Finish, Matrix, Onto, Product};

/// Filters and channels of the weights, pixels of an image.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pointwise {
    pub(super) filters: usize,
    pub(super) channels: usize,
    pub(super) area: usize,
}

impl Pointwise {
    /// The images `x`, one after the other, convolved, with a bias for each filter.
    pub(super) fn forward(&self, x: &[f32], w: &[f32], bias: &[f32], y: &mut [f32]) {
        let weights = [self.filters, self.channels];
        self.for_images(x, self.channels, y, self.filters, |x, y| {
            product((w, weights, false), (x, [self.channels, self.area], false), Onto::Zeros, y);
        });
        if bias.iter().any(|bias| *bias != 0.0) {
            for (plane, bias) in y.chunks_exact_mut(self.area.max(1)).zip(bias.iter().cycle()) {
                for y in plane {
                    *y += bias;
                }
            }
        }
    }

    /// The gradient by the images.
    pub(super) fn back(&self, dy: &[f32], w: &[f32], dx: &mut [f32]) {
        let weights = [self.filters, self.channels];
        self.for_images(dy, self.filters, dx, self.channels, |dy, dx| {
            product((w, weights, true), (dy, [self.filters, self.area], false), Onto::Zeros, dx);
        });
    }

    /// Adds the gradient by the weights that `images` give to `dw`.
    pub(super) fn add_by_weights(
        &self,
        images: Range<usize>,
        dy: &[f32],
        x: &[f32],
        dw: &mut [f32],
    ) {
        for image in images {
            let of = |planes: usize| image * planes * self.area..(image + 1) * planes * self.area;
            let dy = (&dy[of(self.filters)], [self.filters, self.area], false);
            product(dy, (&x[of(self.channels)], [self.channels, self.area], true), Onto::Held, dw);
        }
    }

    fn for_images(
        &self,
        from: &[f32],
        from_planes: usize,
        to: &mut [f32],
        to_planes: usize,
        each: impl Fn(&[f32], &mut [f32]),
    ) {
        let from = from.chunks_exact((from_planes * self.area).max(1));
        from.zip(to.chunks_exact_mut((to_planes * self.area).max(1)))
            .for_each(|(from, to)| each(from, to));
    }
}

/// Multiplies two matrices, of which the elements, rows and columns are given and whether they are
/// transposed.
fn product(
    (a, a_size, a_turned): (&[f32], [usize; 2], bool),
    (b, b_size, b_turned): (&[f32], [usize; 2], bool),
    onto: Onto,
    c: &mut [f32],
) {
    let matrix = |elements, size, turned| {
        Matrix::new(elements, size, turned).expect("the caller cut them to their sizes")
    };
    let (a, b) = (matrix(a, a_size, a_turned), matrix(b, b_size, b_turned));
    Product { a, b, bias: &[], finish: Finish::None }.write_alone(onto, c);
}
