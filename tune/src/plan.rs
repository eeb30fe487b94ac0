//! [`Plan`]: an experiment as a TOML file says it, checked before anything runs.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cerebro_core::data::{Location, ParquetDataset};
use cerebro_core::experiment::{Experiment, ExperimentBuilder, Retention};
use cerebro_core::schedule::Policy;
use cerebro_core::{Search, Seed, Space};
use cerebro_models::Trainer;

use super::backend::{self, Place};
use super::document::{Document, Fault, Misuse, Table};
use super::search::Setting;
use super::{data, model, search, space};

/// An experiment that is ready to run but for its observers.
#[derive(Debug)]
pub struct Plan {
    /// Its name.
    pub name: String,
    /// Everything but observers and store.
    pub experiment: ExperimentBuilder,
    /// The model, to export the best trial.
    pub trainer: Arc<Trainer>,
    /// The space.
    pub space: Space,
    /// Where units run.
    pub place: Place,
    /// Where the experiment is kept, if it is.
    pub store: Option<Location>,
    /// What is written, and where.
    pub output: Output,
}

/// What is written besides the store.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "each is a key of the file")]
pub struct Output {
    /// The folder of all that follows.
    pub folder: PathBuf,
    /// `report.html`.
    pub report: bool,
    /// `events.jsonl`.
    pub events: bool,
    /// A log per trial, in `logs`.
    pub trial_logs: bool,
    /// Event files in `tensorboard`.
    pub tensorboard: bool,
    /// The URL of an MLflow server, and the experiment there.
    pub mlflow: Option<(String, String)>,
    /// The best model.
    pub export: bool,
    /// Rows of the leaderboard.
    pub leaderboard: usize,
}

impl Plan {
    /// Reads the file `path`. Data are opened, or prepared, and the model is tried on Configs of
    /// the space.
    pub fn read(path: &Path) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| Misuse(format!("cannot read {}: {error}", path.display())))?;
        let folder = path.parent().unwrap_or(Path::new(""));
        Ok(Self::parse(&path.display().to_string(), &text, folder)?)
    }

    /// The plan that `text` of the file `file` describes; relative paths are beneath `folder`.
    pub fn parse(file: &str, text: &str, folder: &Path) -> Result<Self, Fault> {
        let document = Document::new(file, text);
        let entries = document.parse()?;
        let root = Table::root(document, entries.get_ref());
        root.only(&[
            "name",
            "seed",
            "epochs",
            "objective",
            "policy",
            "concurrent_trials",
            "keep_models",
            "data",
            "model",
            "space",
            "search",
            "stop",
            "backend",
            "store",
            "output",
        ])?;
        let stem = Path::new(file)
            .file_stem()
            .map_or_else(|| "experiment".to_owned(), |stem| stem.to_string_lossy().into_owned());
        let name = root.optional("name")?.unwrap_or_else(|| stem.clone());
        let seed = Seed(root.optional("seed")?.unwrap_or(0));
        let epochs: u32 = root.needed("epochs")?;
        if epochs == 0 {
            return Err(root.fault_at("epochs", "0 epochs train nothing; give at least 1"));
        }
        let part = |key: &str, expected| root.item_needed(key, expected)?.table();
        let model_table = part("model", "a table with the network and the loss")?;
        let space_table = part("space", "a table of hyperparameters with their domains")?;
        let search_table = part("search", "a table with the kind of the search")?;
        let data_table = part("data", "a table with the URL of the data set")?;

        let trainer = model::read(&model_table, folder)?;
        let objective = model::objective(&root, &model_table)?;
        let space = space::read(&space_table)?;
        let setting = Setting { space: &space, seed, epochs };
        let (search, wall) = searched(&root, &search_table, setting)?;
        let place = backend::read(root.table("backend")?.as_ref(), folder)?;
        let (store, lease, retention) = store(&root, folder)?;
        let output = output(&root, folder, &stem)?;
        let policy = policy(&root)?;
        model::check(&trainer, &space, &space_table)?;
        let dataset: ParquetDataset = data::open(&data_table, folder, seed)?;
        model::check_tensors(&model_table, &dataset)?;
        model::check_data(&trainer, &space, &model_table, &dataset)?;

        let trainer = Arc::new(trainer);
        let mut experiment = Experiment::builder()
            .name(name.clone())
            .dataset(dataset)
            .shared_model(Arc::clone(&trainer) as _)
            .search(search)
            .objective(objective)
            .epochs(epochs)
            .seed(seed.0)
            .policy(policy);
        if let Some(trials) = root.positive("concurrent_trials")? {
            experiment = experiment.concurrent_trials(trials);
        }
        if let Some(trials) = root.optional("keep_models")? {
            if trials == 0 && output.export {
                let message = "with 0 no model is left to export at the end; give at least 1, or \
                               `export = false` in [output]";
                return Err(root.fault_at("keep_models", message));
            }
            experiment = experiment.keep_models(trials);
        }
        if let Some(retention) = retention {
            experiment = experiment.retention(retention);
        }
        if let Some(lease) = lease {
            experiment = experiment.lease_expiry(lease);
        }
        if let Some(wall) = wall {
            experiment = experiment.wall_time(wall);
        }
        Ok(Self { name, experiment, trainer, space, place, store, output })
    }
}

fn searched(
    root: &Table<'_>,
    table: &Table<'_>,
    setting: Setting<'_>,
) -> Result<(Box<dyn Search>, Option<Duration>), Fault> {
    let search = search::read(table, setting)?;
    let Some(table) = root.table("stop")? else { return Ok((search, None)) };
    let (search, wall) = search::stop(&table, search)?;
    Ok((search, wall.map(Duration::from_secs_f64)))
}

fn policy(root: &Table<'_>) -> Result<Policy, Fault> {
    let policies = [
        ("longest_remaining_first", Policy::LongestRemainingFirst),
        ("seeded", Policy::Seeded),
        ("random", Policy::Random),
    ];
    match root.get("policy") {
        Some(item) => item.choice("policy", &policies),
        None => Ok(Policy::default()),
    }
}

type Stored = (Option<Location>, Option<Duration>, Option<Retention>);

fn store(root: &Table<'_>, folder: &Path) -> Result<Stored, Fault> {
    let Some(table) = root.table("store")? else { return Ok((None, None, None)) };
    table.only(&["url", "lease_seconds", "retention"])?;
    let url = table.item_needed("url", "a folder or the URL of a place in an object store")?;
    let lease = backend::seconds(&table, "lease_seconds")?;
    let retention = table.table("retention")?.map(|table| retention(&table)).transpose()?;
    Ok((Some(data::location(&url, folder)?), lease, retention))
}

fn retention(table: &Table<'_>) -> Result<Retention, Fault> {
    table.only(&["last", "best", "every"])?;
    let mut retention = Retention::new();
    if let Some(last) = table.positive("last")? {
        retention = retention.last(last);
    }
    if let Some(best) = table.positive("best")? {
        retention = retention.best(best);
    }
    if let Some(every) = table.positive("every")? {
        retention = retention.every(every);
    }
    Ok(retention)
}

fn output(root: &Table<'_>, folder: &Path, stem: &str) -> Result<Output, Fault> {
    let table = root.table("output")?;
    let table = table.as_ref();
    if let Some(table) = table {
        table.only(&[
            "folder",
            "report",
            "events",
            "trial_logs",
            "tensorboard",
            "mlflow",
            "export",
            "leaderboard",
        ])?;
    }
    let written = |key: &str, default: bool| {
        table.map_or(Ok(None), |table| table.optional(key)).map(|value| value.unwrap_or(default))
    };
    let place = table.map_or(Ok(None), |table| table.optional::<String>("folder"))?;
    let rows = table.map_or(Ok(None), |table| table.optional("leaderboard"))?;
    let mlflow = match table.map_or(Ok(None), |table| table.table("mlflow"))? {
        None => None,
        Some(table) => {
            table.only(&["url", "experiment"])?;
            let experiment = table.optional("experiment")?.unwrap_or_else(|| stem.to_owned());
            Some((table.needed("url")?, experiment))
        }
    };
    Ok(Output {
        mlflow,
        folder: folder.join(place.unwrap_or_else(|| format!("runs/{stem}"))),
        report: written("report", true)?,
        events: written("events", true)?,
        trial_logs: written("trial_logs", true)?,
        tensorboard: written("tensorboard", false)?,
        export: written("export", true)?,
        leaderboard: rows.unwrap_or(10),
    })
}
