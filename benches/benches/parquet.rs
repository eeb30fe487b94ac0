//! How fast do Parquet files become mini-batches?
//!
//! A partition of 80,000 rows x 100 `float32`, as one list column and as 100 scalar columns, beside
//! what the `parquet` crate takes to decode the same file to Arrow arrays, and beside a copy of as
//! many bytes in memory. Throughput counts the bytes of the tensor. Files are in the page cache.

use std::fs::File;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::{ArrayRef, FixedSizeListArray, Float32Array, RecordBatch};
use arrow_schema::{DataType, Field};
use cerebro_core::data::{
    Dataset, ParquetDataset, Partition, Prepare, Source, TensorColumns, TensorSliceMut,
};
use cerebro_core::{PartitionId, Seed};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

const ROWS: usize = 80_000;
const COLUMNS: usize = 100;
const BATCH_ROWS: usize = 256;

/// Numbers without a pattern that an encoding could use.
fn numbers(seed: u64, count: usize) -> Vec<f32> {
    let mut rng = Seed(seed).rng();
    (0..count).map(|_| rng.normal() as f32).collect()
}

fn prepared(folder: &Path, name: &str, columns: Vec<(String, ArrayRef)>) -> ParquetDataset {
    let names: Vec<String> = columns.iter().map(|(name, _)| name.clone()).collect();
    let batch = RecordBatch::try_from_iter(columns).expect("columns of equal length");
    let path = folder.join(format!("{name}.parquet"));
    let file = File::create(&path).expect("a temporary folder can be written");
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).expect("a plain schema");
    writer.write(&batch).and_then(|()| writer.close()).expect("a temporary file can be written");
    Prepare::new(Source::parquet(path))
        .tensor(TensorColumns::new("x", names))
        .run(folder.join(name))
        .expect("the source is good")
}

fn list_column() -> Vec<(String, ArrayRef)> {
    let item = Arc::new(Field::new("item", DataType::Float32, false));
    let values = Arc::new(Float32Array::from(numbers(1, ROWS * COLUMNS)));
    let lists = FixedSizeListArray::new(item, COLUMNS as i32, values, None);
    vec![("x".to_owned(), Arc::new(lists))]
}

fn scalar_columns() -> Vec<(String, ArrayRef)> {
    let column = |number: usize| {
        let values = Float32Array::from(numbers(number as u64, ROWS));
        (format!("x{number}"), Arc::new(values) as ArrayRef)
    };
    (0..COLUMNS).map(column).collect()
}

/// The file of the data set's only partition.
fn file(dataset: &ParquetDataset, folder: &Path, name: &str) -> PathBuf {
    folder.join(name).join(&dataset.catalogue().partitions[0].file)
}

/// Gathers all rows in a random order, a batch at a time.
fn visit(partition: &dyn Partition, order: &[u32], batch: &mut [f32]) {
    for rows in order.chunks(BATCH_ROWS) {
        let out = &mut batch[..rows.len() * COLUMNS];
        partition.gather(0, rows, TensorSliceMut::F32(out)).expect("the rows are there");
        black_box(&out[0]);
    }
}

fn parquet_to_batches(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path();
    let mut group = criterion.benchmark_group("parquet to batches");
    group.throughput(Throughput::Bytes((ROWS * COLUMNS * size_of::<f32>()) as u64));
    group.sample_size(20);
    let order = Seed(3).permutation(ROWS);
    let mut batch = vec![0.0; BATCH_ROWS * COLUMNS];

    for (name, columns) in [("list", list_column()), ("scalars", scalar_columns())] {
        let dataset = prepared(folder, name, columns);
        let path = file(&dataset, folder, name);
        group.bench_function(format!("{name}/load and visit once"), |bencher| {
            bencher.iter(|| {
                let partition = dataset.load(PartitionId(0)).expect("the file is good");
                visit(&*partition, &order, &mut batch);
            });
        });
        group.bench_function(format!("{name}/load"), |bencher| {
            bencher.iter(|| dataset.load(PartitionId(0)).expect("the file is good"));
        });
        group.bench_function(format!("{name}/parquet crate to Arrow"), |bencher| {
            bencher.iter(|| {
                let file = File::open(&path).expect("the file is there");
                let builder = ParquetRecordBatchReaderBuilder::try_new(file).expect("a footer");
                let reader = builder.with_batch_size(8192).build().expect("a reader");
                reader.for_each(|batch| drop(black_box(batch.expect("the file is good"))));
            });
        });
        let partition = dataset.load(PartitionId(0)).expect("the file is good");
        group.bench_function(format!("{name}/visit once"), |bencher| {
            bencher.iter(|| visit(&*partition, &order, &mut batch));
        });
    }
    let source = numbers(2, ROWS * COLUMNS);
    group.bench_function("memory copy", |bencher| bencher.iter(|| black_box(source.clone())));
    group.finish();
}

criterion_group!(benches, parquet_to_batches);
criterion_main!(benches);
