use super::*;

#[test]
fn gemm_in_every_orientation() {
    for (trans_a, a) in [(0, [3, 4]), (1, [4, 3])] {
        for (trans_b, b) in [(0, [4, 2]), (1, [2, 4])] {
            let attributes = none().with("transA", trans_a).with("transB", trans_b);
            check("Gemm", &[x(&a), x(&b)], attributes.clone());
            for c in [&[3, 2][..], &[2], &[3, 1], &[1], &[]] {
                let attributes = attributes.clone().with("alpha", 0.5f32).with("beta", 2.0f32);
                check("Gemm", &[x(&a), x(&b), x(c)], attributes);
            }
        }
    }
    check("Gemm", &[x(&[1, 4]), x(&[4, 2]), x(&[2])], none());
}

#[test]
fn products_of_matrices_vectors_and_batches() {
    let shapes: &[(&[usize], &[usize])] = &[
        (&[3, 4], &[4, 2]),
        (&[2, 3, 4], &[4, 2]),
        (&[2, 3, 4], &[2, 4, 2]),
        (&[2, 1, 3, 4], &[5, 4, 2]),
        (&[3, 4], &[2, 4, 2]),
        (&[4], &[4]),
        (&[4], &[4, 2]),
        (&[3, 4], &[4]),
        (&[2, 3, 4], &[4]),
        (&[4], &[2, 4, 3]),
        (&[1, 1, 1], &[1, 1]),
    ];
    for (a, b) in shapes {
        check("MatMul", &[x(a), x(b)], none());
    }
}

#[test]
fn einsum_of_one_two_and_three_operands() {
    let cases: &[(&str, &[&[usize]])] = &[
        ("ij,jk->ik", &[&[2, 3], &[3, 4]]),
        ("ij,jk", &[&[2, 3], &[3, 4]]),
        ("bhqd,bhkd->bhqk", &[&[2, 1, 3, 2], &[2, 1, 2, 2]]),
        ("...ij,...jk->...ik", &[&[2, 2, 3], &[2, 3, 2]]),
        ("ij->ji", &[&[2, 3]]),
        ("ij->i", &[&[2, 3]]),
        ("ij->", &[&[2, 3]]),
        ("i,j->ij", &[&[2], &[3]]),
        ("ij,kj->ik", &[&[2, 3], &[2, 3]]),
        ("bi,ij,bj->b", &[&[2, 3], &[3, 2], &[2, 2]]),
        ("ij,k->i", &[&[2, 3], &[2]]),
    ];
    for (equation, shapes) in cases {
        let inputs: Vec<Input> = shapes.iter().map(|dims| x(dims)).collect();
        check("Einsum", &inputs, none().with("equation", *equation));
    }
}

#[test]
fn determinants_of_batches() {
    let shapes: &[&[usize]] =
        &[&[1, 1], &[2, 2], &[3, 3], &[2, 4, 4], &[2, 1, 3, 3], &[5, 5], &[7, 7]];
    for dims in shapes {
        check("Det", &[x(dims)], none());
    }
    // Singular: the third row is the sum of the others.
    let rows = vec![1.0, 2.0, -1.0, 0.5, 0.3, 2.0, 1.5, 2.3, 1.0];
    check("Det", &[Input::Given(vec![3, 3], rows)], none());
}

#[test]
fn determinants_of_large_matrices_are_refused() {
    let reason = refusal("Det", &[&[2, 9, 9]], vec![], none());
    assert!(reason.contains("more than 8 rows"), "{reason}");
    let reason = refusal("Det", &[&[2, 3]], vec![], none());
    assert!(reason.contains("no square matrix"), "{reason}");
}
