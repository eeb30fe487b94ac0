//! [`Transform`]: a model's output for every row of a data set, written beside the row.

use std::sync::Arc;

use arrow_array::{Array, ArrayRef, FixedSizeListArray, Float32Array, Int64Array, RecordBatch};
use arrow_schema::{ArrowError, Field, Schema};
use ndarray::{ArrayD, Axis};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::reader::ChunkReader;
use xxhash_rust::xxh3::xxh3_64;

use super::catalogue::{Catalogue, PartitionEntry, TensorEntry};
use super::decode::without_panic;
use super::location::Location;
use super::output::Output;
use super::parquet::VerifiedFile;
use super::prepare::{Compression, failed, properties};
use super::{DataError, Dataset, ParquetDataset, Partition, Tensor, TensorSpec};
use crate::cancel::Cancellation;
use crate::id::{TrialId, Unit};
use crate::model::{Model, ModelError, Pass};
use crate::seed::Seed;

/// Rows that are copied at a time.
const BATCH_ROWS: usize = 4096;

/// Inference over a data set: writes a copy of each partition, with all its columns and one more
/// that holds the model's output.
///
/// What is written is a data set again, in which the output is a tensor, so it can be scored, or
/// trained on. To see rows that were never prepared, prepare them with
/// [`Prepare::tensors_of`](super::Prepare::tensors_of) the data set that the model was trained on.
///
/// ```no_run
/// # fn example(model: &mut dyn cerebro_core::Model) -> Result<(), cerebro_core::ModelError> {
/// use cerebro_core::data::{ParquetDataset, Transform};
/// let dataset = ParquetDataset::open("runs/digits")?;
/// let predicted = Transform::new(&dataset, "logits").run(model, "runs/digits-predicted")?;
/// println!("{} partitions", predicted.catalogue().partitions.len());
/// # Ok(())
/// # }
/// ```
///
/// In memory at a time are one partition's tensors, the model's output for it, and a few thousand
/// rows of the others of its columns.
#[derive(Debug)]
pub struct Transform<'a> {
    dataset: &'a ParquetDataset,
    column: String,
    compression: Compression,
    cancellation: Cancellation,
}

impl<'a> Transform<'a> {
    /// Gives the output the name `column`.
    pub fn new(dataset: &'a ParquetDataset, column: impl Into<String>) -> Self {
        Self {
            dataset,
            column: column.into(),
            compression: Compression::default(),
            cancellation: Cancellation::new(),
        }
    }

    /// How the files are compressed.
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// Lets the caller stop the work; finished files stay, but no catalogue is written.
    pub fn cancellation(mut self, cancellation: &Cancellation) -> Self {
        self.cancellation = cancellation.clone();
        self
    }

    /// Runs the model, which has its State already, over all partitions.
    ///
    /// The folder must be another than the data set's own.
    pub fn run(
        &self,
        model: &mut dyn Model,
        folder: impl Into<Location>,
    ) -> Result<ParquetDataset, ModelError> {
        let folder = folder.into().resolve()?;
        let before = self.dataset.catalogue();
        if folder.is_same(self.dataset.folder()) {
            return Err(self.refused("its folder is the data set's own; choose another"));
        }
        if before.tensors.iter().any(|tensor| tensor.spec.name == self.column) {
            return Err(self.refused("the data set has a tensor of that name"));
        }
        let digest = xxh3_64(format!("{} {}", before.request, self.column).as_bytes());
        let mut output: Option<TensorSpec> = None;
        let mut partitions = Vec::new();
        for entry in &before.partitions {
            let partition = self.dataset.load(entry.id)?;
            let predicted = self.predict(model, entry, &*partition)?;
            drop(partition);
            let spec = predicted.spec(&self.column);
            let expected = output.get_or_insert_with(|| spec.clone());
            if *expected != spec {
                let reason = format!("it is {spec} for {}, but was {expected} before", entry.id);
                return Err(self.refused(&reason));
            }
            let file = format!("{}-{:05}-{digest:016x}.parquet", entry.split, entry.id.0);
            partitions.push(self.write(entry, &predicted, &folder.join(&file), file)?);
        }
        let output = output.map(|spec| TensorEntry {
            spec,
            columns: vec![self.column.clone()],
            fill_missing: None,
            normalization: None,
        });
        let tensors = before.tensors.iter().cloned().chain(output).collect();
        let catalogue = Catalogue::new(format!("xxh3:{digest:016x}"), tensors, partitions);
        catalogue.publish(&folder)?;
        Ok(ParquetDataset::with_catalogue(folder, catalogue))
    }

    fn predict(
        &self,
        model: &mut dyn Model,
        entry: &PartitionEntry,
        partition: &dyn Partition,
    ) -> Result<Tensor, ModelError> {
        let unit = Unit { trial: TrialId(0), epoch: 0, split: entry.split, partition: entry.id };
        let pass = Pass::new(unit, Seed(0), &self.cancellation, &|_| {});
        let predicted = model.predict(partition, &pass)?;
        if self.cancellation.is_cancelled() {
            return Err(ModelError::Cancelled);
        }
        if predicted.rows() != partition.rows() {
            let (found, rows) = (predicted.rows(), partition.rows());
            let reason = format!("it has {found} rows for the {rows} of {}", entry.id);
            return Err(self.refused(&reason));
        }
        Ok(predicted)
    }

    /// Writes the partition's columns and the output.
    fn write(
        &self,
        entry: &PartitionEntry,
        predicted: &Tensor,
        location: &Location,
        file: String,
    ) -> Result<PartitionEntry, ModelError> {
        let from = self.dataset.folder().join(&entry.file).to_string();
        let output = without_panic(&from, || match self.dataset.verified(entry)? {
            VerifiedFile::OnDisk(input) => self.copy(input, &from, predicted, location),
            VerifiedFile::InMemory(bytes) => self.copy(bytes, &from, predicted, location),
        })?;
        let written = output.finish()?;
        Ok(PartitionEntry {
            file,
            file_bytes: written.bytes,
            checksum: written.checksum,
            ..entry.clone()
        })
    }

    fn copy<R: ChunkReader + 'static>(
        &self,
        input: R,
        from: &str,
        predicted: &Tensor,
        location: &Location,
    ) -> Result<Output, DataError> {
        let corrupt = |reason: String| DataError::Corrupt {
            file: from.to_owned(),
            format: "Parquet",
            reason,
        };
        let damaged = |error: ArrowError| corrupt(error.to_string());
        let builder = ParquetRecordBatchReaderBuilder::try_new(input);
        let builder = builder.map_err(|error| corrupt(error.to_string()))?;
        if builder.schema().column_with_name(&self.column).is_some() {
            let reason = format!("`{from}` has a column `{}` already", self.column);
            return Err(DataError::Request(reason));
        }
        let reader = builder.with_batch_size(BATCH_ROWS).build();
        let reader = reader.map_err(|error| corrupt(error.to_string()))?;
        let mut destination = Some(Output::create(location)?);
        let mut writer: Option<ArrowWriter<Output>> = None;
        let mut row = 0;
        for batch in reader {
            let batch = batch.map_err(damaged)?;
            let batch = self.with_output(&batch, predicted, row).map_err(damaged)?;
            row += batch.num_rows();
            if let Some(destination) = destination.take() {
                let properties = properties(self.compression, &batch);
                let new = ArrowWriter::try_new(destination, batch.schema(), Some(properties));
                writer = Some(new.map_err(|error| failed(location, error))?);
            }
            if let Some(writer) = &mut writer {
                writer.write(&batch).map_err(|error| failed(location, error))?;
            }
        }
        let writer = writer.ok_or_else(|| corrupt("it has no rows".to_owned()))?;
        writer.into_inner().map_err(|error| failed(location, error))
    }

    fn with_output(
        &self,
        batch: &RecordBatch,
        predicted: &Tensor,
        row: usize,
    ) -> Result<RecordBatch, ArrowError> {
        let column = output_column(predicted, row, batch.num_rows())?;
        let field = Field::new(&self.column, column.data_type().clone(), false);
        let schema = batch.schema();
        let fields = schema.fields().iter().cloned().chain([Arc::new(field)]);
        let columns = batch.columns().iter().cloned().chain([column]);
        RecordBatch::try_new(Arc::new(Schema::new(fields.collect::<Vec<_>>())), columns.collect())
    }

    fn refused(&self, reason: &str) -> ModelError {
        DataError::Request(format!("output `{}` cannot be added: {reason}", self.column)).into()
    }
}

/// Rows of the output as a column: numbers, or lists where a row has a shape.
fn output_column(predicted: &Tensor, row: usize, rows: usize) -> Result<ArrayRef, ArrowError> {
    fn values<T: Copy>(array: &ArrayD<T>, row: usize, rows: usize) -> Vec<T> {
        array.slice_axis(Axis(0), (row..row + rows).into()).iter().copied().collect()
    }
    let row_len = predicted.shape().iter().skip(1).product::<usize>();
    let values: ArrayRef = match predicted {
        Tensor::F32(array) => Arc::new(Float32Array::from(values(array, row, rows))),
        Tensor::I64(array) => Arc::new(Int64Array::from(values(array, row, rows))),
    };
    if predicted.shape().len() == 1 {
        return Ok(values);
    }
    let item = Arc::new(Field::new("item", values.data_type().clone(), false));
    let length = i32::try_from(row_len)
        .map_err(|_| ArrowError::InvalidArgumentError(format!("a row has {row_len} elements")))?;
    Ok(Arc::new(FixedSizeListArray::try_new(item, length, values, None)?))
}
