//! `prepare`: from tables in files to partitions of tensors.
#![cfg(feature = "data")]

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::types::Float32Type;
use arrow_array::{
    ArrayRef, BooleanArray, Float64Array, Int32Array, Int64Array, ListArray, RecordBatch,
    StringArray, UInt8Array,
};
use cerebro_core::data::{
    Batch, Batches, Compression, CsvFormat, DataError, Dataset, ElementType, Location,
    Normalization, ParquetDataset, Prepare, Scope, Source, TensorColumns, TensorSpec, Validation,
};
use cerebro_core::{PartitionId, Seed, Split};
use npyz::WriterBuilder;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReader;

/// A folder with a table of 100 rows: an id, features, a list, a class, a mark of rows held out.
struct Folder {
    folder: tempfile::TempDir,
    table: PathBuf,
}

impl Folder {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let table = folder.path().join("table.parquet");
        let ids = 0..100i64;
        let list = |id: i64| Some((0..3).map(move |k| Some((id + k) as f32)));
        let lists = ListArray::from_iter_primitive::<Float32Type, _, _>(ids.clone().map(list));
        let a = ids.clone().map(|id| id as f64 / 2.0);
        let names = ids.clone().map(|id| format!("row-{id}"));
        write(
            &table,
            vec![
                ("id", Arc::new(Int64Array::from_iter_values(ids.clone()))),
                ("a", Arc::new(Float64Array::from_iter_values(a))),
                ("b", Arc::new(Int32Array::from_iter_values(ids.clone().map(|id| -id as i32)))),
                ("list", Arc::new(lists)),
                (
                    "class",
                    Arc::new(UInt8Array::from_iter_values(ids.clone().map(|id| id as u8 % 5))),
                ),
                ("test", Arc::new(ids.map(|id| Some(id % 4 == 0)).collect::<BooleanArray>())),
                ("name", Arc::new(StringArray::from_iter_values(names))),
            ],
        );
        Self { folder, table }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Prepares all columns of the table.
    fn prepare(&self) -> Prepare {
        Prepare::new(Source::parquet(&self.table))
            .tensor(TensorColumns::new("x", ["a", "b"]))
            .tensor(TensorColumns::new("id", ["id"]))
            .tensor(TensorColumns::new("list", ["list"]).shape([3, 1]))
            .tensor(TensorColumns::new("class", ["class"]).classes(5))
            .seed(Seed(11))
    }
}

fn write(path: &Path, columns: Vec<(&str, ArrayRef)>) {
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let file = File::create(path).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

fn held_out_by_test() -> Validation {
    Validation::Where { column: "test".to_owned(), equals: "true".to_owned() }
}

/// A partition as one batch, in its own order.
fn whole(dataset: &ParquetDataset, id: PartitionId) -> Batch {
    let partition = dataset.load(id).unwrap();
    let info = dataset.partitions().iter().find(|info| info.id == id).unwrap();
    assert_eq!(
        (partition.rows() as u64, partition.bytes() as u64),
        (info.rows, info.bytes),
        "the catalogue says what is loaded"
    );
    let order = (0..partition.rows() as u32).collect();
    Batches::new(&*partition, order, partition.rows()).next().unwrap().unwrap()
}

fn batches(dataset: &ParquetDataset, split: Split) -> Vec<Batch> {
    let infos = dataset.partitions().iter().filter(|info| info.split == split);
    infos.map(|info| whole(dataset, info.id)).collect()
}

fn floats(dataset: &ParquetDataset, split: Split, tensor: &str) -> Vec<Vec<f32>> {
    let mut rows = Vec::new();
    for batch in batches(dataset, split) {
        let array = batch.f32(tensor).unwrap();
        rows.extend(array.outer_iter().map(|row| row.iter().copied().collect::<Vec<_>>()));
    }
    rows
}

fn integers(dataset: &ParquetDataset, split: Split, tensor: &str) -> Vec<i64> {
    let batches = batches(dataset, split);
    batches.iter().flat_map(|batch| batch.i64(tensor).unwrap().iter().copied()).collect()
}

#[test]
fn every_row_is_in_one_partition_and_keeps_its_values() {
    let folder = Folder::new();
    let prepare = folder.prepare().partitions(3).validation(Validation::Fraction(0.2));
    let dataset = prepare.validation_partitions(2).run(folder.at("out")).unwrap();

    let rows: Vec<_> = dataset.partitions().iter().map(|info| (info.split, info.rows)).collect();
    let (train, validation) = (Split::Train, Split::Validation);
    assert_eq!(rows, [(train, 27), (train, 27), (train, 26), (validation, 10), (validation, 10)]);
    assert_eq!(
        dataset.tensors(),
        [
            TensorSpec::new("x", ElementType::F32, [2]),
            TensorSpec::new("id", ElementType::I64, []),
            TensorSpec::new("list", ElementType::F32, [3, 1]),
            TensorSpec { classes: Some(5), ..TensorSpec::new("class", ElementType::I64, []) },
        ]
    );
    let mut seen = BTreeSet::new();
    for split in [train, validation] {
        let ids = integers(&dataset, split, "id");
        let x = floats(&dataset, split, "x");
        let lists = floats(&dataset, split, "list");
        let classes = integers(&dataset, split, "class");
        for (at, &id) in ids.iter().enumerate() {
            assert!(seen.insert(id), "row {id} is there twice");
            assert_eq!(x[at], [id as f32 / 2.0, -id as f32]);
            assert_eq!(lists[at], [id as f32, id as f32 + 1.0, id as f32 + 2.0]);
            assert_eq!(classes[at], id % 5);
        }
        assert!(ids.windows(2).any(|pair| pair[0] > pair[1]), "the rows were not shuffled");
    }
    assert_eq!(seen.len(), 100);
    let opened = ParquetDataset::open(folder.at("out")).unwrap();
    opened.verify().unwrap();
    assert_eq!(opened.catalogue(), dataset.catalogue());
}

#[test]
fn little_memory_makes_more_row_groups_of_the_same_partitions() {
    let folder = Folder::new();
    let partitions = |memory, name: &str| {
        let prepare = folder.prepare().partitions(2).memory(memory);
        let dataset = prepare.run(folder.at(name)).unwrap();
        let batches = batches(&dataset, Split::Train);
        let ids = |batch: &Batch| batch.i64("id").unwrap().iter().copied().collect::<Vec<_>>();
        batches.iter().map(ids).collect::<Vec<_>>()
    };
    let (plenty, little) = (partitions(1 << 30, "plenty"), partitions(4000, "little"));
    assert_ne!(plenty, little);
    let sets = |partitions: Vec<Vec<i64>>| {
        partitions.into_iter().map(BTreeSet::from_iter).collect::<Vec<_>>()
    };
    assert_eq!(sets(plenty), sets(little));
}

#[test]
fn a_column_holds_rows_out_and_another_stratifies() {
    let folder = Folder::new();
    let prepare = folder.prepare().partitions(3).validation(held_out_by_test());
    let dataset = prepare.validation_partitions(1).stratify("class").run(folder.at("out")).unwrap();
    let held_out = BTreeSet::from_iter(integers(&dataset, Split::Validation, "id"));
    assert_eq!(held_out, (0..100).step_by(4).collect());
    for batch in batches(&dataset, Split::Train) {
        let classes = batch.i64("class").unwrap();
        for class in 0..5 {
            let count = classes.iter().filter(|&&other| other == class).count();
            assert_eq!(count, 5, "rows of class {class} in a partition of 25");
        }
    }
}

#[test]
fn the_same_request_reuses_what_is_there_and_another_replaces_it() {
    let folder = Folder::new();
    let out = folder.at("out");
    let names = |dataset: &ParquetDataset| -> BTreeSet<String> {
        dataset.catalogue().partitions.iter().map(|entry| entry.file.clone()).collect()
    };
    let files = || -> BTreeSet<_> {
        let entries = fs::read_dir(&out).unwrap().map(Result::unwrap);
        let named = |entry: fs::DirEntry| {
            let modified = entry.metadata().unwrap().modified().unwrap();
            (entry.file_name().into_string().unwrap(), modified)
        };
        entries.map(named).collect()
    };
    let run = |seed| folder.prepare().partitions(2).seed(Seed(seed)).run(&out).unwrap();
    let first = run(11);
    let before = files();
    assert_eq!(run(11).catalogue(), first.catalogue());
    assert_eq!(files(), before, "files were written again");

    let other = run(12);
    assert!(names(&other).is_disjoint(&names(&first)));
    let mut expected = names(&other);
    expected.insert("dataset.json".to_owned());
    let left: BTreeSet<String> = files().into_iter().map(|file| file.0).collect();
    assert_eq!(left, expected, "the files of the first data set are deleted");

    fs::remove_file(out.join(names(&other).first().unwrap())).unwrap();
    run(12).verify().expect("a file that was lost is made again");
}

#[test]
fn the_same_request_writes_the_same_bytes() {
    let folder = Folder::new();
    let run = |name: &str| folder.prepare().partitions(2).run(folder.at(name)).unwrap();
    assert_eq!(run("one").catalogue(), run("two").catalogue());
}

#[test]
fn statistics_are_those_of_the_training_rows_alone() {
    let folder = Folder::new();
    let x = TensorColumns::new("x", ["a", "b"]);
    let list = TensorColumns::new("list", ["list"]);
    let dataset = Prepare::new(Source::parquet(&folder.table))
        .tensor(x.normalize(Normalization::Standardize, Scope::Element))
        .tensor(list.normalize(Normalization::MinMax, Scope::Tensor))
        .partitions(3)
        .validation(held_out_by_test())
        .run(folder.at("out"))
        .unwrap();
    let train = floats(&dataset, Split::Train, "x");
    for column in 0..2 {
        let values: Vec<f64> = train.iter().map(|row| f64::from(row[column])).collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let square = values.iter().map(|value| value * value).sum::<f64>() / values.len() as f64;
        assert!(mean.abs() < 1e-6 && (square - 1.0).abs() < 1e-5, "{mean} {square}");
    }
    // Row 0 is held out, and its list begins below those of the training rows.
    let range = |dataset: &ParquetDataset, split| {
        let values = floats(dataset, split, "list").concat();
        (
            values.iter().copied().reduce(f32::min).unwrap(),
            values.into_iter().reduce(f32::max).unwrap(),
        )
    };
    assert_eq!(range(&dataset, Split::Train), (0.0, 1.0));
    assert_eq!(range(&dataset, Split::Validation).0, -1.0 / 100.0);

    let new = Prepare::new(Source::parquet(&folder.table)).tensors_of(&dataset);
    let new = new.run(folder.at("new")).unwrap();
    assert_eq!(new.catalogue().tensors, dataset.catalogue().tensors);
    assert_eq!(range(&new, Split::Train), (-1.0 / 100.0, 1.0), "scaled by the old statistics");
}

#[test]
fn other_processes_find_a_data_set_by_its_url_and_know_its_rows_by_their_checksums() {
    let folder = Folder::new();
    let prepare = |name: &str, normalization| {
        let a = TensorColumns::new("a", ["a"]).normalize(normalization, Scope::Tensor);
        let request = Prepare::new(Source::parquet(&folder.table)).tensor(a).partitions(2);
        request.seed(Seed(1)).run(folder.at(name)).unwrap()
    };
    let dataset = prepare("with a space", Normalization::MinMax);
    let found = ParquetDataset::open(dataset.url().unwrap()).unwrap();
    assert_eq!(found.catalogue(), dataset.catalogue());
    let id = PartitionId(0);
    assert_eq!(found.checksum(id), dataset.checksum(id));
    // The files are the same, and what is loaded from them is not.
    let scaled = prepare("other", Normalization::Standardize);
    let file = |dataset: &ParquetDataset| dataset.catalogue().partitions[0].checksum.clone();
    assert_eq!(file(&dataset), file(&scaled));
    assert_ne!(dataset.checksum(id), scaled.checksum(id));
}

#[test]
fn compressed_files_hold_the_same_rows() {
    let folder = Folder::new();
    let run = |compression, name: &str| {
        let dataset = folder.prepare().compression(compression).run(folder.at(name)).unwrap();
        floats(&dataset, Split::Train, "list")
    };
    let plain = run(Compression::None, "none");
    assert_eq!(run(Compression::Lz4, "lz4"), plain);
    assert_eq!(run(Compression::Zstd, "zstd"), plain);
}

#[test]
fn the_files_of_a_folder_are_one_table() {
    let folder = Folder::new();
    let source = folder.at("source");
    fs::create_dir(&source).unwrap();
    for (name, ids) in [("b.parquet", 10..25), ("a.parquet", 0..10)] {
        write(&source.join(name), vec![("id", Arc::new(Int64Array::from_iter_values(ids)))]);
    }
    let prepare = Prepare::new(Source::parquet(&source)).tensor(TensorColumns::new("id", ["id"]));
    let dataset = prepare.partitions(4).run(folder.at("out")).unwrap();
    let ids = BTreeSet::from_iter(integers(&dataset, Split::Train, "id"));
    assert_eq!(ids, (0..25).collect());
}

/// Rows as (integer tensor, float tensor), in the order of the integers.
fn sorted(dataset: &ParquetDataset, integer: &str, float: &str) -> Vec<(i64, Vec<f32>)> {
    let integers = integers(dataset, Split::Train, integer);
    let mut rows: Vec<_> = integers.into_iter().zip(floats(dataset, Split::Train, float)).collect();
    rows.sort_by_key(|row| row.0);
    rows
}

#[test]
fn csv_columns_have_the_type_that_all_their_values_have() {
    let folder = Folder::new();
    let file = folder.at("table.csv");
    fs::write(&file, "id,height,kind,seen\n1,1.5,red,true\n2,2,blue,false\n3,,red,true\n").unwrap();
    let dataset = Prepare::new(Source::csv(&file))
        .tensor(TensorColumns::new("x", ["height", "seen"]).fill_missing(-1.0))
        .tensor(TensorColumns::new("id", ["id"]))
        .stratify("kind")
        .run(folder.at("out"))
        .unwrap();
    let expected = [(1, vec![1.5, 1.0]), (2, vec![2.0, 0.0]), (3, vec![-1.0, 1.0])];
    assert_eq!(sorted(&dataset, "id", "x"), expected);
}

#[test]
fn csv_files_may_have_other_separators_and_no_header() {
    let folder = Folder::new();
    let file = folder.at("table.csv");
    fs::write(&file, "1;2\n3;4\n").unwrap();
    let format = CsvFormat::default().separator(b';').names(["a", "b"]);
    let dataset = Prepare::new(Source::csv_with(&file, format))
        .tensor(TensorColumns::all_except("rest", ["b"]))
        .tensor(TensorColumns::new("b", ["b"]).element(ElementType::F32))
        .run(folder.at("out"))
        .unwrap();
    assert_eq!(sorted(&dataset, "rest", "b"), [(1, vec![2.0]), (3, vec![4.0])]);
}

#[test]
fn libsvm_rows_become_dense() {
    let folder = Folder::new();
    let file = folder.at("table.svm");
    fs::write(&file, "# two rows\n1 1:0.5 4:2 # the first\n\n-1 2:3e-1\n").unwrap();
    let dataset = Prepare::new(Source::libsvm(&file))
        .tensor(TensorColumns::new("x", ["features"]))
        .tensor(TensorColumns::new("y", ["label"]))
        .run(folder.at("out"))
        .unwrap();
    let expected = [(-1, vec![0.0, 0.3, 0.0, 0.0]), (1, vec![0.5, 0.0, 0.0, 2.0])];
    assert_eq!(sorted(&dataset, "y", "x"), expected);
}

fn npy<T: npyz::AutoSerialize + Copy>(path: &Path, shape: &[u64], values: &[T]) {
    let options = npyz::WriteOptions::new().default_dtype().shape(shape);
    let mut writer = options.writer(File::create(path).unwrap()).begin_nd().unwrap();
    writer.extend(values.iter().copied()).unwrap();
    writer.finish().unwrap();
}

fn add_npz<T: npyz::AutoSerialize>(
    archive: &mut npyz::npz::NpzWriter<std::io::BufWriter<File>>,
    name: &str,
    shape: &[u64],
    values: impl Iterator<Item = T>,
) {
    let member = archive.array::<T>(name, npyz::zip::write::FileOptions::default()).unwrap();
    let mut writer = member.default_dtype().shape(shape).begin_nd().unwrap();
    writer.extend(values).unwrap();
    writer.finish().unwrap();
}

#[test]
fn numpy_arrays_keep_the_shape_of_their_rows() {
    let folder = Folder::new();
    let images: Vec<u8> = (0..48).collect();
    let labels = [7i16, 8, 9, 10];
    npy(&folder.at("images.npy"), &[4, 3, 4], &images);
    npy(&folder.at("labels.npy"), &[4], &labels);
    let mut archive = npyz::npz::NpzWriter::create(folder.at("both.npz")).unwrap();
    add_npz(&mut archive, "images", &[4, 3, 4], images.iter().map(|&value| f64::from(value)));
    add_npz(&mut archive, "labels", &[4], labels.iter().map(|&value| i64::from(value)));
    drop(archive);

    let files = [("images", folder.at("images.npy")), ("labels", folder.at("labels.npy"))];
    for (number, source) in
        [Source::npy(files), Source::npz(folder.at("both.npz"))].into_iter().enumerate()
    {
        let dataset = Prepare::new(source)
            .tensor(TensorColumns::new("x", ["images"]).element(ElementType::F32))
            .tensor(TensorColumns::new("y", ["labels"]))
            .partitions(2)
            .run(folder.at(&format!("out-{number}")))
            .unwrap();
        assert_eq!(dataset.tensors()[0].shape, [3, 4]);
        let image = |at: u8| (at * 12..at * 12 + 12).map(f32::from).collect::<Vec<_>>();
        let expected = [(7, image(0)), (8, image(1)), (9, image(2)), (10, image(3))];
        assert_eq!(sorted(&dataset, "y", "x"), expected);
    }
}

#[test]
fn an_object_store_serves_as_well_as_a_folder() {
    let folder = Folder::new();
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let there = |path: &str| Location::in_store(Arc::clone(&store), path);
    let run = |to: Location| folder.prepare().partitions(2).run(to).unwrap();
    let (local, remote) = (run(folder.at("out").into()), run(there("sets/one")));
    assert_eq!(remote.catalogue(), local.catalogue());
    let opened = ParquetDataset::open(there("sets/one")).unwrap();
    opened.verify().unwrap();
    assert_eq!(floats(&opened, Split::Train, "x"), floats(&local, Split::Train, "x"));
    assert_eq!(run(there("sets/one")).catalogue(), local.catalogue(), "the second run reuses it");

    let file = there("sets/one").join(&remote.catalogue().partitions[0].file);
    let again = Prepare::new(Source::parquet(file)).tensor(TensorColumns::new("id", ["id"]));
    assert_eq!(again.run(there("sets/two")).unwrap().partitions()[0].rows, 50);
}

#[test]
fn large_files_go_to_an_object_store_in_parts() {
    let folder = Folder::new();
    let values = (0..3_000_000u64).map(|i| (i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as f64);
    let column: ArrayRef = Arc::new(Float64Array::from_iter_values(values));
    write(&folder.at("large.parquet"), vec![("x", column)]);
    let prepare = Prepare::new(Source::parquet(folder.at("large.parquet")))
        .tensor(TensorColumns::new("x", ["x"]));
    let remote = Location::in_store(Arc::new(InMemory::new()), "large");
    let remote = prepare.run(remote).unwrap();
    let local = prepare.run(folder.at("out")).unwrap();
    assert!(local.catalogue().partitions[0].file_bytes > 9 << 20, "or one part is enough");
    assert_eq!(remote.catalogue(), local.catalogue());
    remote.verify().unwrap();
}

#[test]
fn data_sets_can_be_used_from_within_an_async_runtime() {
    let folder = Folder::new();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let location = Location::in_store(Arc::new(InMemory::new()), "set");
        let dataset = folder.prepare().run(location).unwrap();
        assert_eq!(dataset.load(PartitionId(0)).unwrap().rows(), 100);
    });
}

#[test]
fn columns_of_no_tensor_are_kept_as_they_are() {
    let folder = Folder::new();
    let dataset = folder.prepare().run(folder.at("out")).unwrap();
    let written = File::open(folder.at("out").join(&dataset.catalogue().partitions[0].file));
    let batch = ParquetRecordBatchReader::try_new(written.unwrap(), 1000).unwrap().next();
    let batch = batch.unwrap().unwrap();
    let column = |name| batch.column_by_name(name).unwrap().as_any();
    let ids = column("id").downcast_ref::<Int64Array>().unwrap();
    let names = column("name").downcast_ref::<StringArray>().unwrap();
    for (id, name) in ids.values().iter().zip(names) {
        assert_eq!(name.unwrap(), format!("row-{id}"));
    }
}

#[test]
fn contradictory_requests_are_refused_before_anything_is_read() {
    let new = || Prepare::new(Source::parquet("/nowhere/at/all.parquet"));
    let x = || TensorColumns::new("x", ["x"]);
    for (prepare, words) in [
        (new(), "no tensor"),
        (new().tensor(x()).tensor(x()), "two tensors"),
        (new().tensor(x()).partitions(0), "at least 1 partition"),
        (new().tensor(x()).validation(Validation::Fraction(1.0)), "between 0 and 1"),
        (new().tensor(x()).validation(Validation::Fraction(f64::NAN)), "between 0 and 1"),
        (new().tensor(x()).validation_partitions(2), "holds out no rows"),
    ] {
        match prepare.run("/nowhere/out").unwrap_err() {
            DataError::Request(reason) => assert!(reason.contains(words), "{reason}"),
            other => panic!("{other}"),
        }
    }
}

#[test]
fn the_digits_of_the_examples_become_partitions() {
    let folder = Folder::new();
    let digits = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/data/digits.parquet");
    let pixels = TensorColumns::new("x", ["pixels"]);
    let dataset = Prepare::new(Source::parquet(digits))
        .tensor(pixels.normalize(Normalization::MinMax, Scope::Tensor))
        .tensor(TensorColumns::new("y", ["label"]).classes(10))
        .partitions(4)
        .validation(Validation::Fraction(0.2))
        .validation_partitions(2)
        .stratify("label")
        .run(folder.at("out"))
        .unwrap();
    let rows: Vec<u64> = dataset.partitions().iter().map(|info| info.rows).collect();
    assert_eq!(rows, [360, 360, 359, 359, 180, 179]);
    let scaling = dataset.catalogue().tensors[0].normalization.as_ref().unwrap();
    assert_eq!((&scaling.shift[..], &scaling.scale[..]), (&[0.0][..], &[1.0 / 16.0][..]));
    let ink: f32 = floats(&dataset, Split::Train, "x").concat().iter().sum();
    let ink = ink + floats(&dataset, Split::Validation, "x").concat().iter().sum::<f32>();
    assert_eq!(ink * 16.0, 561_718.0, "the sum over load_digits().data");
}
