use super::super::*;

#[test]
fn no_operator_is_in_the_table_twice() {
    assert_eq!(TABLE.len(), operators().count());
}
