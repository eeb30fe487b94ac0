//! [`Prepare`]: a source becomes a data set of partitions.

mod assign;
mod convert;
mod resolve;
mod source;
mod statistics;
mod write;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow_array::{Array, RecordBatch};
use arrow_schema::{Field, Schema, SchemaRef};
use serde::Serialize;
use xxhash_rust::xxh3::xxh3_64;

use self::assign::{Assignment, Division, HeldOut};
use self::convert::{Conversion, as_text};
use self::resolve::{Resolved, find, resolve};
use self::source::{Chunk, Table};
use self::statistics::{Moments, scaling};
use self::write::{Layout, PartitionFile};
use super::catalogue::{self, Catalogue};
use super::location::Location;
use super::{DataError, Normalization, ParquetDataset, Scaling, Scope, TensorColumns, TensorEntry};
use crate::id::{PartitionId, Split};
use crate::seed::Seed;

pub(super) use self::write::{failed, properties};
pub use source::{CsvFormat, Source};

/// Prepares a data set: checks a source's rows, deals them out to partitions in a random order, and
/// writes the partitions as Parquet files beside a catalogue.
///
/// ```no_run
/// use cerebro_core::Seed;
/// use cerebro_core::data::{Normalization, Prepare, Scope, Source, TensorColumns, Validation};
/// let dataset = Prepare::new(Source::parquet("examples/data/digits.parquet"))
///     .tensor(TensorColumns::new("x", ["pixels"]).normalize(Normalization::MinMax, Scope::Tensor))
///     .tensor(TensorColumns::new("y", ["label"]).classes(10))
///     .partitions(4)
///     .validation(Validation::Fraction(0.2))
///     .stratify("label")
///     .seed(Seed(7))
///     .run("runs/digits")?;
/// # Ok::<(), cerebro_core::data::DataError>(())
/// ```
///
/// # What is written
///
/// All columns of the source. Those of tensors are stored as the tensors have them (`float32` or
/// `int64`, lists of fixed length, nothing missing), the others as they are. A row is in one
/// partition; partitions of a split differ by one row at most. Files appear whole or not at all,
/// and the catalogue last.
///
/// # Once is enough
///
/// When the folder holds a data set that the same request made of the same files (their sizes and
/// times of change), it is opened as it is. Another request replaces the data set: new files are
/// written beside the old, the catalogue is exchanged, and the old files are deleted.
///
/// # Memory
///
/// A source may be larger than memory. It is read through once to count rows and to see the columns
/// by which rows are stratified or held out (Parquet and NumPy know their number of rows: they are
/// only read if there is such a column), and once more to write. Held in memory are: 10 bytes for
/// each row of the source (14 when stratified); the rows that wait to be written, at most
/// [`memory`](Self::memory) bytes; a few thousand rows being read; 256 KiB for each file being
/// written (8 MiB for each object of a remote store).
///
/// Rows wait in windows as long as the memory allows, and a partition's rows are shuffled within
/// each window; if memory does not hold all rows, the windows keep the order of the source. Which
/// partition a row is in is random in any case, and training visits a partition in an order of its
/// own.
#[derive(Clone, Debug)]
pub struct Prepare {
    source: Source,
    options: Options,
}

/// All that decides what is written, besides the source.
#[derive(Clone, Debug, Serialize)]
struct Options {
    tensors: Vec<TensorColumns>,
    scalings: BTreeMap<String, Scaling>,
    partitions: u32,
    validation: Validation,
    validation_partitions: Option<u32>,
    stratify: Option<String>,
    compression: Compression,
    memory: usize,
    seed: Seed,
}

/// Which rows are held out for validation.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub enum Validation {
    /// None.
    Nothing,
    /// A random part of the rows, more than 0 and less than 1.
    Fraction(f64),
    /// The rows in which a column has a value. Values are compared as text: `true`, `1`, `test`.
    Where {
        /// The column.
        column: String,
        /// Its value in rows for validation.
        equals: String,
    },
}

/// How pages of the files are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub enum Compression {
    /// Not at all: quickest to read from a disk. Values that repeat take little room anyhow.
    #[default]
    None,
    /// LZ4: a little smaller, and nearly as quick.
    Lz4,
    /// Zstandard: smallest, for slow networks.
    Zstd,
}

impl From<Compression> for parquet::basic::Compression {
    fn from(compression: Compression) -> Self {
        match compression {
            Compression::None => Self::UNCOMPRESSED,
            Compression::Lz4 => Self::LZ4_RAW,
            Compression::Zstd => Self::ZSTD(parquet::basic::ZstdLevel::default()),
        }
    }
}

impl Prepare {
    /// Prepares data from `source`. Unless told otherwise: one partition, no validation, seed 0, no
    /// compression, 512 MiB of memory.
    pub fn new(source: Source) -> Self {
        let options = Options {
            tensors: Vec::new(),
            scalings: BTreeMap::new(),
            partitions: 1,
            validation: Validation::Nothing,
            validation_partitions: None,
            stratify: None,
            compression: Compression::default(),
            memory: 512 << 20,
            seed: Seed(0),
        };
        Self { source, options }
    }

    /// Adds a tensor.
    pub fn tensor(mut self, tensor: TensorColumns) -> Self {
        self.options.tensors.push(tensor);
        self
    }

    /// Adds the tensors of another data set, scaled by *its* statistics: so that a model sees new
    /// rows as it saw those that it was trained on.
    pub fn tensors_of(mut self, dataset: &ParquetDataset) -> Self {
        for entry in &dataset.catalogue().tensors {
            let mut tensor = TensorColumns::new(&entry.spec.name, entry.columns.clone())
                .shape(entry.spec.shape.clone())
                .element(entry.spec.element);
            tensor.classes = entry.spec.classes;
            tensor.fill_missing = entry.fill_missing;
            self.options.tensors.push(tensor);
            if let Some(scaling) = &entry.normalization {
                self.options.scalings.insert(entry.spec.name.clone(), scaling.clone());
            }
        }
        self
    }

    /// The number of training partitions.
    pub fn partitions(mut self, partitions: u32) -> Self {
        self.options.partitions = partitions;
        self
    }

    /// Which rows are held out for validation.
    pub fn validation(mut self, validation: Validation) -> Self {
        self.options.validation = validation;
        self
    }

    /// The number of validation partitions, if not as many as for training.
    pub fn validation_partitions(mut self, partitions: u32) -> Self {
        self.options.validation_partitions = Some(partitions);
        self
    }

    /// Gives every partition its share of each value of `column`, to within one row.
    pub fn stratify(mut self, column: impl Into<String>) -> Self {
        self.options.stratify = Some(column.into());
        self
    }

    /// The seed of the shuffle: the same seed, source and options give the same files.
    pub fn seed(mut self, seed: Seed) -> Self {
        self.options.seed = seed;
        self
    }

    /// How the files are compressed.
    pub fn compression(mut self, compression: Compression) -> Self {
        self.options.compression = compression;
        self
    }

    /// The bytes that rows may take while they wait to be written.
    pub fn memory(mut self, bytes: usize) -> Self {
        self.options.memory = bytes;
        self
    }

    /// Writes the data set to `folder`, or opens the one that is there if the same request made it.
    pub fn run(&self, folder: impl Into<Location>) -> Result<ParquetDataset, DataError> {
        self.options.check()?;
        let folder = folder.into().resolve()?;
        let request = self.request()?;
        if folder.join(catalogue::FILE).stat()?.is_some()
            && let Ok(catalogue) = Catalogue::read(&folder)
            && catalogue.request == request
            && all_there(&folder, &catalogue)?
        {
            return Ok(ParquetDataset::with_catalogue(folder, catalogue));
        }
        let catalogue = self.write(&folder, request)?;
        catalogue.publish(&folder)?;
        Ok(ParquetDataset::with_catalogue(folder, catalogue))
    }

    /// A digest of the source's files and of the options.
    fn request(&self) -> Result<String, DataError> {
        let asked = (env!("CARGO_PKG_VERSION"), self.source.identity()?, &self.options);
        let text = serde_json::to_vec(&asked)
            .map_err(|error| DataError::Request(format!("options cannot be written: {error}")))?;
        Ok(format!("xxh3:{:016x}", xxh3_64(&text)))
    }

    fn write(&self, folder: &Location, request: String) -> Result<Catalogue, DataError> {
        let source = self.source.to_string();
        let table = self.source.table()?;
        let rows = table.rows();
        if rows == 0 {
            return Err(DataError::NoRows { location: source });
        }
        if u32::try_from(rows).is_err() {
            return Err(DataError::Request(format!(
                "`{source}` has {rows} rows, more than the 4,294,967,295 that can be shuffled at once; prepare it in parts"
            )));
        }
        let plan = self.options.plan(&source, &*table)?;
        let assignment = self.options.assign(&source, &*table)?;
        let mut writing = Writing::new(&self.options, plan, assignment, folder, &request);
        let all: Vec<usize> = (0..table.schema().fields().len()).collect();
        for chunk in table.scan(&all)? {
            writing.add(&chunk?)?;
        }
        let (tensors, partitions) = writing.finish(rows, &source)?;
        Ok(Catalogue::new(request, tensors, partitions))
    }
}

/// Whether the files that a catalogue names are there, in their sizes.
fn all_there(folder: &Location, catalogue: &Catalogue) -> Result<bool, DataError> {
    for entry in &catalogue.partitions {
        let stat = folder.join(&entry.file).stat()?;
        if stat.is_none_or(|stat| stat.bytes != entry.file_bytes) {
            return Ok(false);
        }
    }
    Ok(true)
}

impl Options {
    fn check(&self) -> Result<(), DataError> {
        let wrong = |what: &str| Err(DataError::Request(what.to_owned()));
        if self.tensors.is_empty() {
            return wrong("it has no tensor; add some with `tensor`");
        }
        if self.partitions == 0 || self.validation_partitions == Some(0) {
            return wrong("there must be at least 1 partition");
        }
        for (at, tensor) in self.tensors.iter().enumerate() {
            if self.tensors[..at].iter().any(|other| other.name == tensor.name) {
                let name = &tensor.name;
                return Err(DataError::Request(format!("two tensors are called `{name}`")));
            }
        }
        match &self.validation {
            Validation::Fraction(fraction) if !(*fraction > 0.0 && *fraction < 1.0) => {
                Err(DataError::Request(format!(
                    "the fraction of validation rows is {fraction}, but must lie between 0 and 1"
                )))
            }
            Validation::Nothing if self.validation_partitions.is_some() => {
                wrong("it asks for validation partitions, but holds out no rows for them")
            }
            _ => Ok(()),
        }
    }

    fn plan(&self, source: &str, table: &dyn Table) -> Result<Plan, DataError> {
        let schema = table.schema();
        let mut conversions: BTreeMap<usize, (usize, Conversion)> = BTreeMap::new();
        let mut tensors = Vec::new();
        for (number, tensor) in self.tensors.iter().enumerate() {
            let Resolved { mut entry, conversions: found } = resolve(source, table, tensor)?;
            for (column, conversion) in found {
                if let Some((other, _)) = conversions.insert(column, (number, conversion)) {
                    return Err(DataError::Request(format!(
                        "column `{}` is in the tensors `{}` and `{}`, but can be in one only",
                        schema.field(column).name(),
                        self.tensors[other].name,
                        tensor.name
                    )));
                }
            }
            entry.normalization = self.scalings.get(&tensor.name).cloned();
            let statistics = tensor.normalization.map(|(kind, scope)| Statistics {
                kind,
                scope,
                moments: vec![Moments::default(); entry.spec.row_len()],
            });
            tensors.push(PlannedTensor { entry, statistics });
        }
        let fields = schema.fields().iter().enumerate().map(|(column, field)| {
            let converted = conversions.get(&column).map(|(_, conversion)| conversion.field());
            converted.map_or_else(|| Arc::clone(field), Arc::new)
        });
        let schema = Arc::new(Schema::new(fields.collect::<Vec<Arc<Field>>>()));
        Ok(Plan { tensors, conversions, schema })
    }

    /// Decides which row goes where, reading the columns that matter for that.
    fn assign(&self, source: &str, table: &dyn Table) -> Result<Assignment, DataError> {
        let by_value = match &self.validation {
            Validation::Where { column, equals } => Some((column, equals)),
            _ => None,
        };
        let named = |name: &String| find(source, table.schema(), name);
        let strata_column = self.stratify.as_ref().map(named).transpose()?;
        let held_out_column = by_value.map(|(column, _)| named(column)).transpose()?;
        let mut columns: Vec<usize> = strata_column.into_iter().chain(held_out_column).collect();
        columns.dedup();

        let mut strata = Strata::default();
        let mut held_out = Vec::new();
        if !columns.is_empty() {
            for chunk in table.scan(&columns)? {
                let chunk = chunk?;
                if strata_column.is_some() {
                    strata.add(&chunk, 0)?;
                }
                if let Some((_, equals)) = by_value {
                    let text = as_text(&chunk, columns.len() - 1)?;
                    held_out.extend((0..text.len()).map(|row| text.value(row) == equals));
                }
            }
        }
        if let Some((column, equals)) = by_value
            && !held_out.contains(&true)
        {
            return Err(DataError::Request(format!(
                "no row of `{source}` has `{equals}` in column `{column}`, so there would be no validation row"
            )));
        }
        let division = Division {
            rows: table.rows() as usize,
            strata: strata_column.is_some().then_some(&strata.of_rows[..]),
            held_out: match &self.validation {
                Validation::Nothing => HeldOut::Nothing,
                Validation::Fraction(fraction) => HeldOut::Fraction(*fraction),
                Validation::Where { .. } => HeldOut::Rows(&held_out),
            },
            train_partitions: self.partitions,
            validation_partitions: self.validation_partitions,
            seed: self.seed,
        };
        division.assign()
    }
}

/// Numbers for the values of a column, in the order in which they appear.
#[derive(Default)]
struct Strata {
    numbers: HashMap<String, u32>,
    of_rows: Vec<u32>,
}

impl Strata {
    fn add(&mut self, chunk: &Chunk, column: usize) -> Result<(), DataError> {
        let text = as_text(chunk, column)?;
        for row in 0..text.len() {
            let value = text.value(row);
            let next = self.numbers.len() as u32;
            let number = match self.numbers.get(value) {
                Some(&number) => number,
                None => *self.numbers.entry(value.to_owned()).or_insert(next),
            };
            self.of_rows.push(number);
        }
        Ok(())
    }
}

/// What becomes of each column.
struct Plan {
    tensors: Vec<PlannedTensor>,
    /// By column: the number of the tensor that it is in, and how it is converted.
    conversions: BTreeMap<usize, (usize, Conversion)>,
    schema: SchemaRef,
}

struct PlannedTensor {
    entry: TensorEntry,
    statistics: Option<Statistics>,
}

struct Statistics {
    kind: Normalization,
    scope: Scope,
    moments: Vec<Moments>,
}

/// The pass over the source that writes the partitions.
struct Writing<'a> {
    options: &'a Options,
    plan: Plan,
    assignment: Assignment,
    folder: &'a Location,
    tag: &'a str,
    files: Vec<PartitionFile>,
    row: usize,
}

impl<'a> Writing<'a> {
    fn new(
        options: &'a Options,
        plan: Plan,
        assignment: Assignment,
        folder: &'a Location,
        request: &'a str,
    ) -> Self {
        let digits = request.rsplit(':').next().unwrap_or_default();
        let tag = digits.get(..8).unwrap_or(digits);
        Self { options, plan, assignment, folder, tag, files: Vec::new(), row: 0 }
    }

    fn add(&mut self, chunk: &Chunk) -> Result<(), DataError> {
        let rows = chunk.batch.num_rows();
        let Some(partitions) = self.assignment.partition_of.get(self.row..self.row + rows) else {
            return Err(changed(&chunk.file));
        };
        let partitions = partitions.to_vec();
        self.row += rows;
        let batch = self.convert(chunk, &partitions)?;
        if self.files.is_empty() && rows > 0 {
            self.files = self.create(&batch)?;
        }
        let mut rows_of = vec![Vec::new(); self.files.len()];
        for (row, &partition) in partitions.iter().enumerate() {
            rows_of[partition as usize].push(row as u32);
        }
        for (file, rows) in self.files.iter_mut().zip(rows_of) {
            file.add(&batch, rows)?;
        }
        Ok(())
    }

    /// Brings tensors' columns into their stored form, and takes the training rows' statistics.
    fn convert(&mut self, chunk: &Chunk, partitions: &[u32]) -> Result<RecordBatch, DataError> {
        let train = self.assignment.train_partitions;
        let mut arrays = chunk.batch.columns().to_vec();
        for (&column, (tensor, conversion)) in &self.plan.conversions {
            arrays[column] = conversion.apply(chunk, column)?;
            let Some(statistics) = &mut self.plan.tensors[*tensor].statistics else { continue };
            let (width, position) = (conversion.width(), conversion.position);
            let moments = &mut statistics.moments[position..position + width];
            let values = conversion.converted_floats(&arrays[column]).chunks_exact(width);
            for (row, _) in values.zip(partitions).filter(|(_, partition)| **partition < train) {
                moments.iter_mut().zip(row).for_each(|(moments, &value)| moments.push(value));
            }
        }
        RecordBatch::try_new(Arc::clone(&self.plan.schema), arrays).map_err(|error| {
            DataError::Corrupt {
                file: chunk.file.to_string(),
                format: "table",
                reason: error.to_string(),
            }
        })
    }

    fn create(&self, sample: &RecordBatch) -> Result<Vec<PartitionFile>, DataError> {
        let train = self.assignment.train_partitions;
        let partitions = train + self.assignment.validation_partitions;
        let columns = sample.columns().iter();
        let sizes = columns.map(|column| column.to_data().get_slice_memory_size().unwrap_or(0));
        let row_bytes = sizes.sum::<usize>().div_ceil(sample.num_rows().max(1));
        // While a window is put into order, its rows are there three times.
        let of_each = self.options.memory / (partitions as usize + 2);
        let layout = Layout {
            folder: self.folder,
            schema: Arc::clone(&self.plan.schema),
            properties: properties(self.options.compression, sample),
            window_rows: (of_each / row_bytes.max(1)).max(1),
            tag: self.tag,
            seed: self.options.seed,
        };
        let split = |id| if id < train { Split::Train } else { Split::Validation };
        let create = |id| PartitionFile::create(&layout, PartitionId(id), split(id));
        (0..partitions).map(create).collect()
    }

    fn finish(
        self,
        rows: u64,
        source: &str,
    ) -> Result<(Vec<TensorEntry>, Vec<super::PartitionEntry>), DataError> {
        if self.row as u64 != rows {
            return Err(changed(source));
        }
        let entries =
            self.plan.tensors.into_iter().map(|PlannedTensor { mut entry, statistics }| {
                if let Some(Statistics { kind, scope, moments }) = statistics {
                    entry.normalization = Some(scaling(&moments, kind, scope));
                }
                entry
            });
        let entries = entries.collect();
        let files = self.files.into_iter().map(PartitionFile::finish);
        Ok((entries, files.collect::<Result<_, _>>()?))
    }
}

fn changed(file: &str) -> DataError {
    DataError::Corrupt {
        file: file.to_owned(),
        format: "table",
        reason: "its number of rows changed while it was read".to_owned(),
    }
}
