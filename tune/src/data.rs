//! `[data]`: a prepared data set, or a source and how it is prepared.

use std::path::Path;

use cerebro_core::Seed;
use cerebro_core::data::{
    Compression, CsvFormat, DataError, Location, Normalization, ParquetDataset, Prepare, Scope,
    Source, TensorColumns, Validation,
};

use super::document::{Fault, Item, Table};

/// Opens the data set that `table` names, made by `prepare` before if there is such a table.
pub fn open(table: &Table<'_>, folder: &Path, seed: Seed) -> Result<ParquetDataset, Fault> {
    table.only(&["url", "prepare"])?;
    let url = table.item_needed("url", "the folder or the URL of a prepared data set")?;
    let location = location(&url, folder)?;
    let Some(prepare) = table.table("prepare")? else {
        return ParquetDataset::open(location).map_err(|error| {
            url.fault(format!("{error}; `data.prepare` makes a data set of raw files"))
        });
    };
    let request = request(&prepare, folder, seed)?;
    request
        .run(location)
        .map_err(|error| prepare.fault(format!("cannot prepare the data: {error}")))
}

/// A URL as it is, a path beneath `folder`.
pub fn location(item: &Item<'_>, folder: &Path) -> Result<Location, Fault> {
    let text: String = item.read()?;
    let is_url = text.contains("://");
    let location = if is_url { Location::from(text) } else { Location::from(folder.join(text)) };
    match location.check() {
        Ok(()) => Ok(location),
        Err(DataError::Location { location, reason }) => {
            let advice = if reason.contains("feature") {
                ": build it with `--features cerebro-tune/aws`, `gcp`, `azure` or `http`"
            } else {
                ""
            };
            Err(item.fault(format!("`{location}` names no place: {reason}{advice}")))
        }
        Err(error) => Err(item.fault(error.to_string())),
    }
}

fn request(table: &Table<'_>, folder: &Path, seed: Seed) -> Result<Prepare, Fault> {
    table.only(&[
        "source",
        "tensors",
        "partitions",
        "validation",
        "validation_partitions",
        "stratify",
        "seed",
        "compression",
        "memory_bytes",
    ])?;
    let source = table.item_needed("source", "{ parquet = \"FILE\" }, { csv = \"FILE\" }, ...")?;
    let tensors = table.item_needed("tensors", "a table of tensors by name")?.table()?;
    let mut prepare = Prepare::new(read_source(&source, folder)?);
    for (name, item) in tensors.entries() {
        prepare = prepare.tensor(tensor(name, &item)?);
    }
    prepare = prepare.seed(table.optional("seed")?.map_or(seed, Seed));
    if let Some(partitions) = table.optional("partitions")? {
        prepare = prepare.partitions(partitions);
    }
    let validation = table.item_needed(
        "validation",
        "a share of the rows, such as 0.2, or { column = \"split\", equals = \"test\" }",
    )?;
    prepare = prepare.validation(held_out(&validation)?);
    if let Some(partitions) = table.optional("validation_partitions")? {
        prepare = prepare.validation_partitions(partitions);
    }
    if let Some(column) = table.optional::<String>("stratify")? {
        prepare = prepare.stratify(column);
    }
    if let Some(item) = table.get("compression") {
        let kinds =
            [("none", Compression::None), ("lz4", Compression::Lz4), ("zstd", Compression::Zstd)];
        prepare = prepare.compression(item.choice("compression", &kinds)?);
    }
    if let Some(bytes) = table.optional("memory_bytes")? {
        prepare = prepare.memory(bytes);
    }
    Ok(prepare)
}

fn held_out(item: &Item<'_>) -> Result<Validation, Fault> {
    if let Ok(table) = item.table() {
        table.only(&["column", "equals"])?;
        return Ok(Validation::Where {
            column: table.needed("column")?,
            equals: table.needed("equals")?,
        });
    }
    let share: f64 = item.read()?;
    if share > 0.0 && share < 1.0 {
        Ok(Validation::Fraction(share))
    } else {
        Err(item
            .fault(format!("{share} is no share of the rows: give more than 0 and less than 1")))
    }
}

fn read_source(item: &Item<'_>, folder: &Path) -> Result<Source, Fault> {
    let table = item.table()?;
    let kinds = ["parquet", "csv", "libsvm", "npy", "npz"];
    let given: Vec<&str> = kinds.into_iter().filter(|kind| table.get(kind).is_some()).collect();
    let all: Vec<&str> = kinds.into_iter().chain(["separator", "names"]).collect();
    table.only(&all)?;
    let [kind] = given[..] else {
        return Err(item.fault(format!("a source is one of {}", kinds.join(", "))));
    };
    if kind != "csv" {
        table.only(&kinds)?;
    }
    if kind == "npy" {
        let files = table.item_needed("npy", "a table of files by column")?.table()?;
        let files = files.entries();
        let files = files.map(|(column, file)| Ok((column.to_owned(), location(&file, folder)?)));
        return Ok(Source::npy(files.collect::<Result<Vec<_>, Fault>>()?));
    }
    let place = location(&table.item_needed(kind, "a path or a URL")?, folder)?;
    Ok(match kind {
        "parquet" => Source::parquet(place),
        "libsvm" => Source::libsvm(place),
        "npz" => Source::npz(place),
        _ => Source::csv_with(place, csv_format(&table)?),
    })
}

fn csv_format(table: &Table<'_>) -> Result<CsvFormat, Fault> {
    let mut format = CsvFormat::default();
    if let Some(item) = table.get("separator") {
        let separator: String = item.read()?;
        let [byte] = separator.as_bytes() else {
            return Err(
                item.fault(format!("`{separator}` is no separator: give one ASCII character"))
            );
        };
        format = format.separator(*byte);
    }
    if let Some(names) = table.optional::<Vec<String>>("names")? {
        format = format.names(names);
    }
    Ok(format)
}

fn tensor(name: &str, item: &Item<'_>) -> Result<TensorColumns, Fault> {
    let table = item.table()?;
    table.only(&[
        "columns",
        "all_except",
        "shape",
        "classes",
        "normalize",
        "scope",
        "fill_missing",
        "float",
    ])?;
    let columns = match (table.get("columns"), table.get("all_except")) {
        (Some(columns), None) => TensorColumns::new(name, columns.read::<Vec<String>>()?),
        (None, Some(columns)) => TensorColumns::all_except(name, columns.read::<Vec<String>>()?),
        _ => {
            let message = format!("the tensor `{name}` has either `columns` or `all_except`");
            return Err(item.fault(message));
        }
    };
    let mut columns = columns;
    if let Some(shape) = table.optional::<Vec<usize>>("shape")? {
        columns = columns.shape(shape);
    }
    if let Some(classes) = table.optional("classes")? {
        columns = columns.classes(classes);
    }
    if let Some(item) = table.get("normalize") {
        let kinds =
            [("standardize", Normalization::Standardize), ("min_max", Normalization::MinMax)];
        let kind = item.choice("normalisation", &kinds)?;
        let scopes = [("element", Scope::Element), ("tensor", Scope::Tensor)];
        let scope = match table.get("scope") {
            Some(item) => item.choice("scope", &scopes)?,
            None => Scope::Element,
        };
        columns = columns.normalize(kind, scope);
    } else if let Some(item) = table.get("scope") {
        return Err(item.fault("`scope` says of what `normalize` takes statistics: give both"));
    }
    if let Some(value) = table.optional("fill_missing")? {
        columns = columns.fill_missing(value);
    }
    if table.optional("float")?.unwrap_or(false) {
        columns = columns.element(cerebro_core::data::ElementType::F32);
    }
    Ok(columns)
}
