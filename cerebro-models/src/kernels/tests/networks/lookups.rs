//! Rows of several tables side by side.

use super::*;
use crate::kernels::{EMBEDDING_GRADIENT, LOOKUPS, LOOKUPS_GRADIENT};

/// Tables by the whole parts of the input's columns, beside a linear layer of the input.
fn network(rows: usize, tables: &[(usize, usize)]) -> Small {
    let columns = tables.len() + 1;
    let mut s = Small::new(&[rows, columns]);
    let integers = [("to", Attribute::Int(7))];
    let numbers = s.of("Cast", &["x"], &integers, &[rows, columns]);
    let weight = s.weight(&[columns, 5], 0.0);
    let plain = s.of("MatMul", &["x", &weight], &[], &[rows, 5]);
    let mut parts = Vec::new();
    for (column, &(height, width)) in tables.iter().enumerate() {
        let table = s.weight(&[height, width], 0.0);
        let index = s.constant(TensorData::from_i64(&[], &[column as i64]));
        let axis = [("axis", Attribute::Int(1))];
        let picked = s.of("Gather", &[&numbers, &index], &axis, &[rows]);
        parts.push(s.of("Gather", &[&table, &picked], &[], &[rows, width]));
    }
    parts.insert(1, plain);
    let wide = 5 + tables.iter().map(|(_, width)| width).sum::<usize>();
    let names: Vec<&str> = parts.iter().map(String::as_str).collect();
    s.of("Concat", &names, &[("axis", Attribute::Int(-1))], &[rows, wide]);
    let weight = s.weight(&[wide, 2], 0.0);
    s.node("MatMul", &[weight], &[], &[rows, 2])
}

#[test]
fn rows_of_several_tables_train_as_the_standard_operators_do() {
    // Whole parts of normal numbers, the negative ones count from the end.
    for (rows, tables) in
        [(6, &[(9, 4), (7, 1)][..]), (1, &[(8, 3), (8, 5), (12, 2)]), (700, &[(9, 33), (500, 50)])]
    {
        let network = || network(rows, tables);
        agree(&format!("{rows} {tables:?}"), &[LOOKUPS, LOOKUPS_GRADIENT], network);
        let nodes = operators(network, Dialect::Fused);
        for absent in ["Gather", "Slice", in_domain(EMBEDDING_GRADIENT)] {
            assert!(!nodes.iter().any(|op| op == absent), "{absent} in {nodes:?}");
        }
    }
}

#[test]
fn a_table_alone_stays_a_node_of_its_own() {
    agree("alone", &["Gather", EMBEDDING_GRADIENT], || network(6, &[(9, 4)]));
}
