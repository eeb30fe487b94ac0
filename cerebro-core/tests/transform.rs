//! `Transform`: a model's output, written beside the rows of a data set.
#![cfg(feature = "data")]

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Int64Type};
use arrow_array::{ArrayRef, Float32Array, Int64Array, RecordBatch, StringArray};
use cerebro_core::data::{
    Dataset, ElementType, Normalization, ParquetDataset, Partition, Prepare, Scope, Source, Tensor,
    TensorColumns, TensorSpec, Transform, Validation,
};
use cerebro_core::{Cancellation, Metrics, Model, ModelError, Pass, Seed, State};
use ndarray::{ArrayD, Axis};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReader;

/// Gives x and its square.
struct Square {
    missing_rows: usize,
}

impl Model for Square {
    fn initialize(&mut self, _: Seed) -> Result<(), ModelError> {
        Ok(())
    }

    fn restore(&mut self, _: &State) -> Result<(), ModelError> {
        Ok(())
    }

    fn state(&mut self) -> Result<State, ModelError> {
        Ok(State::new(Vec::new()))
    }

    fn train(&mut self, _: &dyn Partition, _: &Pass<'_>) -> Result<Metrics, ModelError> {
        Err(ModelError::Unsupported("train"))
    }

    fn evaluate(&mut self, _: &dyn Partition, _: &Pass<'_>) -> Result<Metrics, ModelError> {
        Err(ModelError::Unsupported("evaluate"))
    }

    fn predict(
        &mut self,
        partition: &dyn Partition,
        pass: &Pass<'_>,
    ) -> Result<Tensor, ModelError> {
        let mut rows = Vec::new();
        for batch in pass.batches(partition, 7) {
            let batch = batch?;
            rows.extend(batch.f32("x")?.iter().flat_map(|&x| [x, x * x]));
            pass.advance(batch.rows())?;
        }
        rows.truncate(2 * (partition.rows() - self.missing_rows));
        let shape = vec![rows.len() / 2, 2];
        Ok(ArrayD::from_shape_vec(shape, rows).unwrap().into())
    }
}

/// 10,000 rows, more than are copied at a time: x from 0 to 1 by its normalisation, an id, a name.
fn dataset(folder: &tempfile::TempDir) -> ParquetDataset {
    let ids = 0..10_000i64;
    let x = Float32Array::from_iter_values(ids.clone().map(|id| id as f32));
    let names = StringArray::from_iter_values(ids.clone().map(|id| format!("row-{id}")));
    let columns: [(&str, ArrayRef); 3] = [
        ("x", Arc::new(x)),
        ("id", Arc::new(Int64Array::from_iter_values(ids))),
        ("name", Arc::new(names)),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let path = folder.path().join("source.parquet");
    let mut writer =
        ArrowWriter::try_new(File::create(&path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let x = TensorColumns::new("x", ["x"]).normalize(Normalization::MinMax, Scope::Tensor);
    Prepare::new(Source::parquet(path))
        .tensor(x)
        .validation(Validation::Fraction(0.2))
        .run(folder.path().join("prepared"))
        .unwrap()
}

fn batches(path: PathBuf) -> Vec<RecordBatch> {
    let reader = ParquetRecordBatchReader::try_new(File::open(path).unwrap(), 1000).unwrap();
    reader.map(Result::unwrap).collect()
}

#[test]
fn each_row_gets_its_output_and_keeps_its_columns() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = dataset(&folder);
    let out = folder.path().join("predicted");
    let transform = Transform::new(&dataset, "powers");
    let predicted = transform.run(&mut Square { missing_rows: 0 }, &out).unwrap();
    let scaling = dataset.catalogue().tensors[0].normalization.clone().unwrap();
    let mut rows = 0;
    for entry in &predicted.catalogue().partitions {
        for batch in batches(out.join(&entry.file)) {
            let ids = batch.column_by_name("id").unwrap().as_primitive::<Int64Type>();
            let names = batch.column_by_name("name").unwrap().as_string::<i32>();
            let x = batch.column_by_name("x").unwrap().as_primitive::<Float32Type>();
            let powers = batch.column_by_name("powers").unwrap().as_fixed_size_list();
            let powers = powers.values().as_primitive::<Float32Type>().values();
            for (at, &id) in ids.values().iter().enumerate() {
                let scaled = (id as f32 - scaling.shift[0]) * scaling.scale[0];
                assert_eq!(x.value(at), id as f32, "columns keep their values as they were");
                assert_eq!(powers[2 * at..2 * at + 2], [scaled, scaled * scaled]);
                assert_eq!(names.value(at), format!("row-{id}"));
                rows += 1;
            }
        }
    }
    assert_eq!(rows, 10_000);
}

#[test]
fn what_is_written_is_a_data_set_with_one_tensor_more() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = dataset(&folder);
    let out = folder.path().join("predicted");
    Transform::new(&dataset, "powers").run(&mut Square { missing_rows: 0 }, &out).unwrap();
    let opened = ParquetDataset::open(&out).unwrap();
    opened.verify().unwrap();
    assert_eq!(opened.tensors()[0], dataset.tensors()[0]);
    assert_eq!(opened.tensors()[1], TensorSpec::new("powers", ElementType::F32, [2]));
    for info in opened.partitions() {
        let partition = opened.load(info.id).unwrap();
        let order = (0..partition.rows() as u32).collect();
        let mut batches = cerebro_core::data::Batches::new(&*partition, order, 1 << 20);
        let batch = batches.next().unwrap().unwrap();
        assert_eq!(&batch.f32("powers").unwrap().index_axis(Axis(1), 0), batch.f32("x").unwrap());
    }
    // The data set that was read is untouched.
    dataset.verify().unwrap();
}

#[test]
fn outputs_that_cannot_be_added_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = dataset(&folder);
    let run = |column: &str, missing_rows, to: &str| {
        let model = &mut Square { missing_rows };
        Transform::new(&dataset, column).run(model, folder.path().join(to)).unwrap_err().to_string()
    };
    assert!(run("x", 0, "out").contains("tensor of that name"));
    assert!(run("name", 0, "out").contains("column `name` already"));
    assert!(run("y", 1, "out").contains("7999 rows for the 8000 of partition-0"));
    assert!(run("y", 0, "prepared/../prepared").contains("choose another"));
    assert!(ParquetDataset::open(folder.path().join("out")).is_err());
    dataset.verify().unwrap();
}

#[test]
fn cancelling_leaves_no_data_set() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = dataset(&folder);
    let cancellation = Cancellation::new();
    cancellation.cancel();
    let transform = Transform::new(&dataset, "y").cancellation(&cancellation);
    let error = transform.run(&mut Square { missing_rows: 0 }, folder.path().join("out"));
    assert!(matches!(error.unwrap_err(), ModelError::Cancelled));
    assert!(ParquetDataset::open(folder.path().join("out")).is_err());
}
