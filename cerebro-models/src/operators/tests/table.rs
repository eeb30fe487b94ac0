use super::super::*;

#[test]
fn no_operator_is_in_the_table_twice() {
    assert_eq!(TABLE.len(), operators().count());
}

/// The page is written from the table: after a change, run the tests with `CEREBRO_WRITE_DOCS=1`.
#[test]
fn the_page_of_operators_is_that_of_the_table() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operators.md");
    let page = page();
    if std::env::var_os("CEREBRO_WRITE_DOCS").is_some() {
        std::fs::create_dir_all(concat!(env!("CARGO_MANIFEST_DIR"), "/docs")).unwrap();
        std::fs::write(path, &page).unwrap();
    }
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert!(written == page, "docs/operators.md is out of date: set CEREBRO_WRITE_DOCS=1");
}
