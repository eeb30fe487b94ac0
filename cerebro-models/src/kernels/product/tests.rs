//! Products against their definition.

use cerebro_core::Seed;

use super::{Finish, Matrix, Onto, Product, vector};

fn random(name: &str, length: usize) -> Vec<f32> {
    let mut rng = Seed(3).derive(name, &[]).rng();
    (0..length).map(|_| rng.normal() as f32).collect()
}

#[allow(clippy::unnecessary_wraps, reason = "what shares work between threads may fail")]
fn one_by_one(count: usize, _: usize, each: &(dyn Fn(usize) + Sync + Send)) -> ort::Result<()> {
    (0..count).for_each(each);
    Ok(())
}

#[allow(clippy::unnecessary_wraps, reason = "what shares work between threads may fail")]
fn backwards(count: usize, _: usize, each: &(dyn Fn(usize) + Sync + Send)) -> ort::Result<()> {
    (0..count).rev().for_each(each);
    Ok(())
}

fn element(matrix: &Matrix<'_>, row: usize, column: usize) -> f64 {
    let [down, across] = matrix.strides();
    f64::from(matrix.elements[row * down + column * across])
}

fn expected(product: &Product<'_>) -> Vec<f64> {
    let ([rows, inner], columns) = (product.a.size(), product.b.size()[1]);
    let mut result = Vec::new();
    for row in 0..rows {
        for column in 0..columns {
            let terms =
                (0..inner).map(|at| element(&product.a, row, at) * element(&product.b, at, column));
            let bias = product.bias.get(column).map_or(0.0, |bias| f64::from(*bias));
            let sum = bias + terms.sum::<f64>();
            result.push(match product.finish {
                Finish::Rectified => sum.max(0.0),
                Finish::Masked(mask) if mask[row * columns + column] == 0.0 => 0.0,
                Finish::Scaled(by) => sum * f64::from(by[row * columns + column]),
                Finish::None | Finish::Masked(_) => sum,
            });
        }
    }
    result
}

/// Less than a tile, whole tiles, what is left of tiles, and more than is summed at once.
const SIZES: [[usize; 3]; 12] = [
    [1, 1, 1],
    [3, 5, 2],
    [6, 16, 8],
    [7, 17, 9],
    [64, 10, 25],
    [13, 33, 64],
    [200, 20, 3],
    [5, 40, 1100],
    [20, 24, 1030],
    [9, 16, 0],
    [0, 4, 4],
    [97, 70, 31],
];

#[test]
fn products_are_those_of_the_definition_however_matrices_lie_and_are_finished() {
    for [rows, columns, inner] in SIZES {
        let (a, b) = (random("a", rows * inner), random("b", inner * columns));
        let bias = random("bias", columns);
        let mask: Vec<f32> = random("mask", rows * columns).iter().map(|v| v.max(0.0)).collect();
        for (a_turned, b_turned) in [(false, false), (false, true), (true, false), (true, true)] {
            let a_size = if a_turned { [inner, rows] } else { [rows, inner] };
            let b_size = if b_turned { [columns, inner] } else { [inner, columns] };
            let scaled = Finish::Scaled(&mask);
            for finish in [Finish::None, Finish::Rectified, Finish::Masked(&mask), scaled] {
                for bias in [&bias[..], &[]] {
                    let product = Product {
                        a: Matrix::new(&a, a_size, a_turned).unwrap(),
                        b: Matrix::new(&b, b_size, b_turned).unwrap(),
                        bias,
                        finish,
                    };
                    let mut c = vec![f32::NAN; rows * columns];
                    product.write_with(Onto::Zeros, &mut c, one_by_one).unwrap();
                    for (at, (c, expected)) in c.iter().zip(expected(&product)).enumerate() {
                        let tolerance = 1e-5 * (1.0 + inner as f64).sqrt() * (1.0 + expected.abs());
                        assert!(
                            (f64::from(*c) - expected).abs() <= tolerance,
                            "{rows} {columns} {inner} {a_turned} {b_turned} at {at}: {c} {expected}"
                        );
                    }
                    let mut other = vec![f32::NAN; rows * columns];
                    product.write_with(Onto::Zeros, &mut other, backwards).unwrap();
                    assert_eq!(c, other, "the order of the parts changes no bit");
                    if bias.is_empty() && matches!(finish, Finish::None) {
                        product.write_alone(Onto::Held, &mut other);
                        for (twice, once) in other.iter().zip(&c) {
                            let tolerance = 1e-5 * (inner as f32).sqrt() * (1.0 + once.abs());
                            assert!((twice - 2.0 * once).abs() <= tolerance, "{twice} {once}");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn what_is_not_a_number_stays_so_through_a_rectifier() {
    let (a, b) = ([f32::NAN], [1.0]);
    let [a, b] = [&a, &b].map(|matrix| Matrix::new(matrix, [1, 1], false).unwrap());
    let mut c = [0.0];
    let product = Product { a, b, bias: &[], finish: Finish::Rectified };
    product.write_with(Onto::Zeros, &mut c, one_by_one).unwrap();
    assert!(c[0].is_nan());
}

#[test]
fn parts_that_do_not_fit_are_found() {
    let elements = [0.0; 6];
    let matrix = |size, turned| Matrix::new(&elements, size, turned).unwrap();
    assert!(Matrix::new(&elements, [4, 2], false).is_none());
    let product = |a, b, bias| Product { a, b, bias, finish: Finish::None };
    let (wide, tall) = (matrix([2, 3], false), matrix([3, 2], false));
    assert!(product(wide, tall, &[]).fits(4));
    assert!(!product(wide, tall, &[]).fits(6));
    assert!(!product(wide, wide, &[]).fits(6));
    assert!(product(wide, matrix([2, 3], true), &elements[..2]).fits(4));
    assert!(!product(wide, tall, &elements[..3]).fits(4));
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
#[test]
fn the_processor_is_told_as_linux_tells_it() {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap();
    let has = |field: &str, value: &str| {
        let mut lines = info.lines().filter_map(|line| line.split_once(':'));
        lines.any(|(name, of)| name.trim() == field && of.split_whitespace().any(|v| v == value))
    };
    let zen4 =
        has("vendor_id", "AuthenticAMD") && has("cpu family", "25") && has("flags", "avx512f");
    assert_eq!(vector::is_zen4(), zen4);
}
