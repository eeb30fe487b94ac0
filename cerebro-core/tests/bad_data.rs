//! Bad input to `prepare` and to loading: each error says what is wrong, where, and what to do.
#![cfg(feature = "data")]

use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::Arc;

use arrow_array::types::{Float32Type, Int64Type};
use arrow_array::{
    ArrayRef, Float32Array, Float64Array, Int64Array, ListArray, RecordBatch, StringArray,
    UInt64Array,
};
use cerebro_core::PartitionId;
use cerebro_core::data::{
    DataError, Dataset, ElementType, Normalization, ParquetDataset, Prepare, Scope, Source,
    TensorColumns, Validation,
};
use parquet::arrow::ArrowWriter;
use xxhash_rust::xxh3::xxh3_64;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A source file of one column `x`.
    fn parquet(&self, column: ArrayRef) -> Source {
        self.table(vec![("x", column)])
    }

    fn table(&self, columns: Vec<(&str, ArrayRef)>) -> Source {
        write(&self.at("source.parquet"), columns);
        Source::parquet(self.at("source.parquet"))
    }

    fn text(&self, name: &str, content: &str) -> PathBuf {
        fs::write(self.at(name), content).unwrap();
        self.at(name)
    }

    /// Prepares `x` and gives the error.
    fn error(&self, source: Source, x: TensorColumns) -> DataError {
        Prepare::new(source).tensor(x).run(self.at("out")).unwrap_err()
    }

    /// Prepares a data set of one partition, then puts another table in its place, as if someone
    /// else had written the folder; loads it.
    fn load_other(&self, rows: usize, columns: Vec<(&str, ArrayRef)>) -> DataError {
        let good: ArrayRef = Arc::new(Float32Array::from(vec![0.5; rows]));
        let lists: Vec<_> = (0..rows).map(|_| Some(vec![Some(1); 2])).collect();
        let lists = ListArray::from_iter_primitive::<Int64Type, _, _>(lists);
        let source = self.table(vec![("x", good), ("list", Arc::new(lists))]);
        let prepare = Prepare::new(source).tensor(x()).tensor(TensorColumns::new("l", ["list"]));
        let dataset = prepare.run(self.at("out")).unwrap();
        self.replace(&dataset, columns);
        ParquetDataset::open(self.at("out")).unwrap().load(PartitionId(0)).unwrap_err()
    }

    fn replace(&self, dataset: &ParquetDataset, columns: Vec<(&str, ArrayRef)>) {
        let entry = &dataset.catalogue().partitions[0];
        let file = self.at("out").join(&entry.file);
        write(&file, columns);
        let checksum = format!("xxh3:{:016x}", xxh3_64(&fs::read(&file).unwrap()));
        self.edit_catalogue(&entry.checksum, &checksum);
    }

    fn edit_catalogue(&self, from: &str, to: &str) {
        let catalogue = self.at("out").join("dataset.json");
        let text = fs::read_to_string(&catalogue).unwrap();
        assert!(text.contains(from));
        fs::write(catalogue, text.replace(from, to)).unwrap();
    }
}

fn write(path: &PathBuf, columns: Vec<(&str, ArrayRef)>) {
    let batch = RecordBatch::try_from_iter_with_nullable(
        columns.into_iter().map(|(name, column)| (name, column, true)),
    )
    .unwrap();
    let mut writer =
        ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

fn x() -> TensorColumns {
    TensorColumns::new("x", ["x"])
}

fn floats(values: Vec<f32>) -> ArrayRef {
    Arc::new(Float32Array::from(values))
}

/// The message holds all of the words.
#[track_caller]
fn says(error: &DataError, words: &[&str]) {
    let message = error.to_string();
    for word in words {
        assert!(message.contains(word), "`{word}` is not in: {message}");
    }
}

#[test]
fn a_file_that_is_not_there() {
    let folder = Folder::new();
    let nowhere = folder.at("nowhere.parquet");
    let error = folder.error(Source::parquet(&nowhere), x());
    assert!(matches!(error, DataError::Store { .. }));
    says(&error, &["open", "nowhere.parquet", "check the path"]);
    let error = ParquetDataset::open(folder.at("no-set")).unwrap_err();
    says(&error, &["read", "no-set/dataset.json", "check the path"]);
    for source in [
        Source::csv(&nowhere),
        Source::libsvm(&nowhere),
        Source::npy([("x", &nowhere)]),
        Source::npz(&nowhere),
    ] {
        says(&folder.error(source, x()), &["nowhere.parquet", "check the path"]);
    }
}

#[test]
fn a_folder_without_data_files() {
    let folder = Folder::new();
    fs::create_dir(folder.at("empty")).unwrap();
    says(&folder.error(Source::parquet(folder.at("empty")), x()), &["empty", "no rows"]);
    says(&folder.error(Source::csv(folder.at("empty")), x()), &["empty"]);
}

#[test]
fn a_url_of_an_unknown_kind() {
    let folder = Folder::new();
    let error = folder.error(Source::parquet("gopher://host/x.parquet"), x());
    assert!(matches!(error, DataError::Location { .. }));
    says(&error, &["gopher://host/x.parquet", "`gopher` is none of file, s3"]);
    says(&ParquetDataset::open("file://host/x").unwrap_err(), &["file:///folder"]);
}

#[test]
fn a_source_cut_short_or_of_another_format() {
    let folder = Folder::new();
    folder.parquet(floats(vec![1.0; 1000]));
    let whole = fs::read(folder.at("source.parquet")).unwrap();
    for length in [0, 3, 11, whole.len() / 2, whole.len() - 1] {
        fs::write(folder.at("source.parquet"), &whole[..length]).unwrap();
        let error = folder.error(Source::parquet(folder.at("source.parquet")), x());
        assert!(matches!(error, DataError::Corrupt { .. }), "{error}");
        says(&error, &["source.parquet", "Parquet", "again"]);
    }
    let text = folder.text("words.npy", "no array at all");
    let error = folder.error(Source::npy([("x", text.clone())]), x());
    says(&error, &["words.npy", "NumPy"]);
    says(&folder.error(Source::npz(text), x()), &["words.npy", "NumPy"]);
}

#[test]
fn any_flipped_byte_of_a_partition_is_noticed() {
    let folder = Folder::new();
    let source = folder.parquet(floats((0..10).map(|i| i as f32).collect()));
    let dataset = Prepare::new(source).tensor(x()).run(folder.at("out")).unwrap();
    let file = folder.at("out").join(&dataset.catalogue().partitions[0].file);
    let good = fs::read(&file).unwrap();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        fs::write(&file, bad).unwrap();
        let error = dataset.load(PartitionId(0)).unwrap_err();
        assert!(matches!(error, DataError::Checksum { .. }), "byte {at}: {error}");
        assert!(dataset.verify().is_err());
    }
    fs::write(&file, &good[..good.len() - 1]).unwrap();
    let error = dataset.load(PartitionId(0)).unwrap_err();
    says(&error, &["train-00000", "checksum", "prepare the data set again"]);
    fs::remove_file(&file).unwrap();
    says(&dataset.load(PartitionId(0)).unwrap_err(), &["train-00000", "check the path"]);
}

#[test]
fn a_flipped_byte_of_a_source_is_an_error_or_a_value_but_no_panic() {
    let folder = Folder::new();
    folder.parquet(floats((0..10).map(|i| i as f32).collect()));
    let path = folder.at("source.parquet");
    let good = fs::read(&path).unwrap();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x11;
        fs::write(&path, bad).unwrap();
        // What the byte means decides whether this is an error; it must only not panic.
        let _ = Prepare::new(Source::parquet(&path)).tensor(x()).run(folder.at("out"));
    }
}

#[test]
fn a_damaged_catalogue() {
    let folder = Folder::new();
    let source = folder.parquet(floats(vec![1.0, 2.0]));
    let prepare =
        Prepare::new(source).tensor(x().normalize(Normalization::Standardize, Scope::Element));
    prepare.run(folder.at("out")).unwrap();
    let catalogue = folder.at("out").join("dataset.json");
    let good = fs::read_to_string(&catalogue).unwrap();
    for (from, to, words) in [
        ("{", "", "catalogue"),
        ("\"version\": 1", "\"version\": 2", "reads version 1"),
        ("\"rows\": 2", "\"rows\": 0", "has no rows"),
        ("\"f32\"", "\"i64\"", "normalisation"),
        ("\"rows\": 2", "\"rows\": 5000000000", "more than"),
    ] {
        folder.edit_catalogue(from, to);
        says(&ParquetDataset::open(folder.at("out")).unwrap_err(), &[words]);
        fs::write(&catalogue, &good).unwrap();
    }
    folder.edit_catalogue("\"rows\": 2", "\"rows\": 3");
    let dataset = ParquetDataset::open(folder.at("out")).unwrap();
    says(&dataset.load(PartitionId(0)).unwrap_err(), &["2 rows", "catalogue says 3"]);
    fs::write(&catalogue, "{").unwrap();
    prepare.run(folder.at("out")).expect("what cannot be read is prepared again");
    let error = prepare.run(folder.at("out")).unwrap().load(PartitionId(7)).unwrap_err();
    assert!(matches!(error, DataError::NoSuchPartition { partition: PartitionId(7) }));
}

#[test]
fn a_column_that_is_not_there() {
    let folder = Folder::new();
    let one = floats(vec![1.0, 2.0]);
    let source = folder.table(vec![("x", Arc::clone(&one)), ("y", one.clone())]);
    let error = folder.error(source.clone(), TensorColumns::new("x", ["x", "z"]));
    says(&error, &["source.parquet", "`z`", "it has x, y"]);
    let tensor = Prepare::new(source).tensor(x());
    let error = tensor.clone().stratify("class").run(folder.at("out")).unwrap_err();
    says(&error, &["`class`"]);
    let validation = Validation::Where { column: "test".to_owned(), equals: "true".to_owned() };
    says(&tensor.validation(validation).run(folder.at("out")).unwrap_err(), &["`test`"]);
    let error = folder.load_other(2, vec![("x", one)]);
    says(&error, &["train-00000", "no column `list`", "it has x"]);
}

#[test]
fn a_column_of_the_wrong_type() {
    let folder = Folder::new();
    let text: ArrayRef = Arc::new(StringArray::from(vec!["a", "b"]));
    let error = folder.error(folder.parquet(Arc::clone(&text)), x());
    assert!(matches!(error, DataError::WrongType { .. }));
    says(&error, &["`x`", "source.parquet", "Utf8", "a number"]);
    let halves = folder.parquet(floats(vec![0.5, 1.5]));
    let error = folder.error(halves, x().element(ElementType::I64));
    says(&error, &["`x`", "Float32", "an integer"]);

    let error = folder.load_other(2, vec![("x", text), ("list", floats(vec![0.0, 1.0]))]);
    assert!(matches!(error, DataError::WrongType { .. }), "{error}");
    says(&error, &["train-00000", "`x`", "BYTE_ARRAY", "float32"]);
    let error =
        folder.load_other(2, vec![("x", floats(vec![0.0; 2])), ("list", floats(vec![0.0; 2]))]);
    says(&error, &["`list`", "FLOAT", "int64"]);
}

fn lists(lengths: &[usize]) -> ArrayRef {
    let lists = lengths.iter().map(|&length| Some((0..length).map(|k| Some(k as f32))));
    Arc::new(ListArray::from_iter_primitive::<Float32Type, _, _>(lists))
}

#[test]
fn lists_of_unequal_lengths() {
    let folder = Folder::new();
    let error = folder.error(folder.parquet(lists(&[3, 3, 2, 3])), x());
    assert!(matches!(error, DataError::Ragged { found: 2, expected: 3, .. }));
    says(&error, &["`x`", "row 2", "source.parquet", "pad or cut"]);
    let error = folder.error(folder.parquet(lists(&[3, 0])), x().shape([3]));
    assert!(matches!(error, DataError::Ragged { found: 0, expected: 3, .. }));
    // The same total as four lists of two.
    for (lengths, row, found) in
        [([2, 1, 3, 2], "row 1", 1), ([2, 2, 2, 0], "row 3", 0), ([3, 2, 2, 1], "row 0", 3)]
    {
        let integers = lengths.iter().map(|&length| Some(vec![Some(1); length]));
        let integers = ListArray::from_iter_primitive::<Int64Type, _, _>(integers);
        let other = vec![("x", floats(vec![0.0; 4])), ("list", Arc::new(integers) as ArrayRef)];
        let error = folder.load_other(4, other);
        says(&error, &["`list`", row, &format!("{found} elements")]);
    }
}

#[test]
fn missing_values() {
    let folder = Folder::new();
    let gap: ArrayRef = Arc::new(Float64Array::from(vec![Some(1.0), None]));
    let error = folder.error(folder.parquet(gap.clone()), x());
    assert!(matches!(error, DataError::Missing { .. }));
    says(&error, &["`x`", "row 1", "source.parquet", "fill_missing"]);
    let inside = vec![Some(vec![Some(1.0), Some(2.0)]), Some(vec![Some(1.0), None])];
    let inside = ListArray::from_iter_primitive::<Float32Type, _, _>(inside);
    says(&folder.error(folder.parquet(Arc::new(inside)), x()), &["`x`", "row 1"]);
    let whole = vec![Some(vec![Some(1), Some(2)]), None];
    let whole: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(whole));
    says(&folder.error(folder.parquet(whole.clone()), x()), &["`x`", "row 1"]);
    let class: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), None]));
    let source = folder.table(vec![("x", floats(vec![1.0; 2])), ("class", class)]);
    let stratified = Prepare::new(source).tensor(x()).stratify("class");
    says(&stratified.run(folder.at("out")).unwrap_err(), &["`class`", "row 1"]);

    let good = floats(vec![0.0; 2]);
    says(&folder.load_other(2, vec![("x", good), ("list", whole)]), &["`list`", "row 1"]);
    let gap: ArrayRef = Arc::new(Float32Array::from(vec![Some(1.0), None]));
    says(&folder.load_other(2, vec![("x", gap), ("list", lists(&[2, 2]))]), &["`x`", "row 1"]);
}

#[test]
fn missing_values_can_be_filled() {
    let folder = Folder::new();
    let gaps: ArrayRef = Arc::new(Float64Array::from(vec![Some(1.0), None, Some(f64::NAN)]));
    let prepare = Prepare::new(folder.parquet(gaps)).tensor(x().fill_missing(0.25));
    let partition = prepare.run(folder.at("out")).unwrap().load(PartitionId(0)).unwrap();
    let mut values = [0.0; 3];
    let out = cerebro_core::data::TensorSliceMut::F32(&mut values);
    partition.gather(0, &[0, 1, 2], out).unwrap();
    values.sort_by(f32::total_cmp);
    assert_eq!(values, [0.25, 0.25, 1.0]);
}

#[test]
fn values_that_are_not_finite() {
    let folder = Folder::new();
    for (value, name) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf"), (f32::NEG_INFINITY, "-inf")] {
        let error = folder.error(folder.parquet(floats(vec![0.0, 1.0, value])), x());
        assert!(matches!(error, DataError::NotFinite { .. }));
        says(&error, &["`x`", name, "row 2", "source.parquet"]);
    }
    // Filling mends what is missing, not what is infinite.
    let error = folder.error(folder.parquet(floats(vec![f32::INFINITY])), x().fill_missing(0.0));
    says(&error, &["inf"]);
    let huge: ArrayRef = Arc::new(Float64Array::from(vec![1e300]));
    says(&folder.error(folder.parquet(huge), x()), &["`x`", "inf", "row 0"]);
}

#[test]
fn labels_out_of_range() {
    let folder = Folder::new();
    for label in [-1, 3, i64::MAX] {
        let source = folder.parquet(Arc::new(Int64Array::from(vec![0, 2, label])));
        let error = folder.error(source, x().classes(3));
        assert!(matches!(error, DataError::LabelOutOfRange { classes: 3, .. }));
        says(&error, &["`x`", &label.to_string(), "row 2", "0 to 2"]);
    }
    let error = folder.error(folder.parquet(floats(vec![0.0])), x().classes(3));
    says(&error, &["`x`", "integers"]);
}

#[test]
fn integers_beyond_64_bits() {
    let folder = Folder::new();
    let source = folder.parquet(Arc::new(UInt64Array::from(vec![1, u64::MAX])));
    let error = folder.error(source, x());
    assert!(matches!(error, DataError::NotANumber { .. }), "{error}");
    says(&error, &["`x`", "18446744073709551615", "64 bits"]);
}

#[test]
fn no_rows_and_too_few_rows() {
    let folder = Folder::new();
    let error = folder.error(folder.parquet(floats(Vec::new())), x());
    says(&error, &["source.parquet", "no rows"]);
    let prepare = Prepare::new(folder.parquet(floats(vec![0.0; 3]))).tensor(x());
    let error = prepare.clone().partitions(4).run(folder.at("out")).unwrap_err();
    says(&error, &["3 train rows", "4 partitions"]);
    let held_out = prepare.validation(Validation::Fraction(0.4));
    let error = held_out.clone().validation_partitions(2).run(folder.at("out")).unwrap_err();
    says(&error, &["1 validation rows", "2 partitions"]);
    assert_eq!(held_out.run(folder.at("out")).unwrap().partitions().len(), 2);
    assert_eq!(fs::read_dir(folder.at("out")).unwrap().count(), 3, "two partitions, a catalogue");
}

#[test]
fn a_value_that_holds_out_no_row() {
    let folder = Folder::new();
    let class: ArrayRef = Arc::new(StringArray::from(vec!["train", "test"]));
    let source = folder.table(vec![("x", floats(vec![1.0; 2])), ("part", class)]);
    let validation = Validation::Where { column: "part".to_owned(), equals: "tset".to_owned() };
    let error = Prepare::new(source).tensor(x()).validation(validation).run(folder.at("out"));
    says(&error.unwrap_err(), &["`tset`", "`part`", "no validation row"]);
}

#[test]
fn columns_and_shapes_that_do_not_fit() {
    let folder = Folder::new();
    let source = folder.table(vec![("x", lists(&[4, 4])), ("y", floats(vec![0.0; 2]))]);
    let y = || TensorColumns::new("y", ["y"]);
    for (tensors, words) in [
        (vec![x().shape([3, 2])], vec!["`x`", "4", "6"]),
        (vec![y().shape([2])], vec!["`y`", "1 elements", "[2]"]),
        (vec![TensorColumns::new("both", ["x", "y"])], vec!["`x`", "tensor of its own"]),
        (vec![y(), TensorColumns::new("z", ["y"])], vec!["`y`", "`z`", "one only"]),
        (vec![TensorColumns::all_except("none", ["x", "y"])], vec!["`none`", "no column"]),
    ] {
        let prepare = tensors.into_iter().fold(Prepare::new(source.clone()), Prepare::tensor);
        says(&prepare.run(folder.at("out")).unwrap_err(), &words);
    }
}

#[test]
fn text_where_numbers_are_needed() {
    let folder = Folder::new();
    let file = folder.text("table.csv", "id,x\n1,0.5\n2,n/a\n3,1\n");
    let error = folder.error(Source::csv(file), x());
    assert!(matches!(error, DataError::NotANumber { .. }));
    says(&error, &["`x`", "`n/a`", "line 3", "table.csv", "a number"]);
    let file = folder.text("table.svm", "1 1:2\n0 1:two\n");
    let error = folder.error(Source::libsvm(file), TensorColumns::new("x", ["features"]));
    says(&error, &["`two`", "line 2", "table.svm", "a number"]);
}

#[test]
fn text_files_of_another_form() {
    let folder = Folder::new();
    for (content, words) in [
        ("a,b\n1,2\n3\n", vec!["table.csv", "line 3", "1"]),
        ("x,x\n1,2\n", vec!["table.csv", "two columns `x`"]),
    ] {
        says(&folder.error(Source::csv(folder.text("table.csv", content)), x()), &words);
    }
    for (content, words) in [
        ("1 0:1\n", vec!["line 1", "index 0", "begin at 1"]),
        ("1 2:1 2:1\n", vec!["line 1", "index 2 follows 2"]),
        ("1 2\n", vec!["line 1", "`2`", "index:value"]),
        ("1 a:2\n", vec!["line 1", "`a`"]),
        ("1 99999999999:2\n", vec!["line 1", "99999999999"]),
    ] {
        let source = Source::libsvm(folder.text("table.svm", content));
        says(&folder.error(source, TensorColumns::new("x", ["features"])), &words);
    }
}

#[test]
fn files_of_one_table_with_other_columns() {
    let folder = Folder::new();
    fs::create_dir(folder.at("source")).unwrap();
    write(&folder.at("source/a.parquet"), vec![("x", floats(vec![1.0]))]);
    write(&folder.at("source/b.parquet"), vec![("x", Arc::new(Int64Array::from(vec![1])))]);
    let error = folder.error(Source::parquet(folder.at("source")), x());
    says(&error, &["b.parquet", "a.parquet", "`x` is Int64 there and Float32 before"]);
}

#[test]
fn a_folder_that_cannot_be_written() {
    let folder = Folder::new();
    let source = folder.parquet(floats(vec![1.0]));
    let file = folder.text("file", "in the way");
    let prepare = Prepare::new(source).tensor(x());
    let error = prepare.run(file.join("out")).unwrap_err();
    assert!(matches!(error, DataError::Store { .. }));
    says(&error, &["file/out", "could not"]);
}

#[test]
#[cfg(target_os = "linux")]
fn a_disk_that_is_full() {
    let folder = Folder::new();
    let disk = folder.at("disk");
    fs::create_dir(&disk).unwrap();
    let mount = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=64k", "none"])
        .arg(&disk)
        .output();
    if !mount.is_ok_and(|output| output.status.success()) {
        println!("skipped: mounting a small file system needs the rights to do so");
        return;
    }
    let values = (0..100_000u64).map(|i| i.wrapping_mul(0x9E37_79B9_7F4A_7C15) as i64);
    let source = folder.parquet(Arc::new(Int64Array::from_iter_values(values)));
    let result = Prepare::new(source).tensor(x()).run(disk.join("out"));
    let left = fs::read_dir(disk.join("out")).map(Iterator::count);
    let unmount = std::process::Command::new("umount").arg(&disk).status();
    assert!(unmount.is_ok_and(|status| status.success()));
    let error = result.unwrap_err();
    assert!(matches!(error, DataError::Store { .. }), "{error}");
    says(&error, &["write", "disk/out/train-00000", "free some space"]);
    assert_eq!(left.unwrap(), 0, "an unfinished file stayed behind");
}
