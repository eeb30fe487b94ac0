//! `[model]`: the network, what it minimises, what is measured, and the tensors that feed it.

use std::path::Path;

use cerebro_core::data::Dataset;
use cerebro_core::{Config, ConfigError, ModelBuilder, ModelError, Objective, Seed, Space};
use cerebro_models::loss::Loss;
use cerebro_models::metric::Metric;
use cerebro_models::nn::NetworkSpec;
use cerebro_models::onnx::Model;
use cerebro_models::training::ParameterGroup;
use cerebro_models::{Architecture, Pretrained, Trainer};

use super::document::{Fault, Item, Table, suggestion};
use super::tagged;

/// So many Configs of the space are tried on the model before anything runs.
const SAMPLES: u64 = 32;

/// Reads the model. Files are beneath `folder`.
pub fn read(table: &Table<'_>, folder: &Path) -> Result<Trainer, Fault> {
    table.only(&[
        "network",
        "pretrained",
        "loss",
        "metrics",
        "input",
        "bind",
        "target",
        "output",
        "freeze",
        "groups",
        "defaults",
    ])?;
    let network =
        table.item_needed("network", "{ builder = \"mlp\", ... } or { onnx = \"FILE\" }")?;
    let loss = table.item_needed("loss", "the name of a loss, such as \"cross_entropy\"")?;
    let defaults = [Loss::cross_entropy(), Loss::binary_cross_entropy_with_logits()];
    let loss = tagged::read(&loss, "kind", "loss", &defaults)?;
    let mut trainer = Trainer::new(architecture(&network, folder)?, loss);
    for metric in metrics(table)? {
        trainer = trainer.metric(metric);
    }
    if let Some(tensor) = table.optional::<String>("input")? {
        trainer = trainer.input(tensor);
    }
    if let Some(bind) = table.table("bind")? {
        for (input, tensor) in bind.entries() {
            trainer = trainer.bind(input, tensor.read::<String>()?);
        }
    }
    if let Some(tensor) = table.optional::<String>("target")? {
        trainer = trainer.target(tensor);
    }
    if let Some(output) = table.optional::<String>("output")? {
        trainer = trainer.output(output);
    }
    if let Some(item) = table.get("pretrained") {
        trainer = trainer.pretrained(pretrained(&item, folder)?);
    }
    for pattern in table.optional::<Vec<String>>("freeze")?.unwrap_or_default() {
        trainer = trainer.freeze(pattern);
    }
    for group in table.get("groups").map_or(Ok(Vec::new()), |item| groups(&item))? {
        trainer = trainer.group(group);
    }
    if let Some(defaults) = table.optional::<Config>("defaults")? {
        for (name, value) in defaults.iter() {
            trainer = trainer.default(name, value.clone());
        }
    }
    Ok(trainer)
}

fn architecture(item: &Item<'_>, folder: &Path) -> Result<Architecture, Fault> {
    if let Ok(table) = item.table()
        && let Some(file) = table.get("onnx")
    {
        table.only(&["onnx"])?;
        let path = folder.join(file.read::<String>()?);
        let model = Model::from_file(&path).map_err(|error| file.fault(error.to_string()))?;
        return Ok(Architecture::from(model));
    }
    let spec: NetworkSpec = tagged::read(item, "builder", "network", &[])?;
    Ok(Architecture::from(spec))
}

fn pretrained(item: &Item<'_>, folder: &Path) -> Result<Pretrained, Fault> {
    let table = item.table()?;
    table.only(&["file", "strip_prefix", "except"])?;
    let file = table.item_needed("file", "the path of a .safetensors or .onnx file")?;
    let path = folder.join(file.read::<String>()?);
    let weights = Pretrained::from_file(path).map_err(|error| file.fault(error.to_string()))?;
    let weights = match table.optional::<String>("strip_prefix")? {
        Some(prefix) => weights.strip_prefix(&prefix),
        None => weights,
    };
    let excepted = table.optional::<Vec<String>>("except")?.unwrap_or_default();
    Ok(excepted.into_iter().fold(weights, Pretrained::except))
}

fn metrics(table: &Table<'_>) -> Result<Vec<Metric>, Fault> {
    let Some(item) = table.get("metrics") else { return Ok(Vec::new()) };
    let items = item.list().ok_or_else(|| item.expected("a list of metrics"))?;
    items.iter().map(|item| tagged::read(item, "kind", "metric", &[])).collect()
}

fn groups(item: &Item<'_>) -> Result<Vec<ParameterGroup>, Fault> {
    let items = item.list().ok_or_else(|| item.expected("a list of tables"))?;
    let group = |item: &Item<'_>| {
        let table = item.table()?;
        table.only(&["pattern", "learning_rate", "weight_decay"])?;
        Ok(ParameterGroup {
            pattern: table.needed("pattern")?,
            learning_rate: table.optional("learning_rate")?.unwrap_or(1.0),
            weight_decay: table.optional("weight_decay")?.unwrap_or(1.0),
        })
    };
    items.iter().map(group).collect()
}

/// Reads `objective = { maximize = "accuracy" }`. The model has to report the metric.
pub fn objective(root: &Table<'_>, model: &Table<'_>) -> Result<Objective, Fault> {
    let expected = "{ minimize = \"loss\" } or { maximize = \"accuracy\" }";
    let item = root.item_needed("objective", expected)?;
    let table = item.table().map_err(|_| item.expected(expected))?;
    table.only(&["minimize", "maximize"])?;
    let (metric, objective) = match (table.get("minimize"), table.get("maximize")) {
        (Some(metric), None) => (metric.clone(), Objective::minimize(metric.read::<String>()?)),
        (None, Some(metric)) => (metric.clone(), Objective::maximize(metric.read::<String>()?)),
        _ => return Err(item.fault(format!("an objective has one direction: {expected}"))),
    };
    let reported: Vec<String> = ["loss".to_owned()]
        .into_iter()
        .chain(metrics(model)?.into_iter().map(Metric::name))
        .collect();
    if reported.contains(&objective.metric) {
        return Ok(objective);
    }
    let known: Vec<&str> = reported.iter().map(String::as_str).collect();
    Err(metric.fault(format!(
        "the model reports no metric `{0}`; {1}. Add it to `model.metrics` to have it reported",
        objective.metric,
        suggestion(&objective.metric, &known)
    )))
}

/// Tries Configs of the space on the model, so that one that does not fit it is told before
/// anything runs.
pub fn check(trainer: &Trainer, space: &Space, table: &Table<'_>) -> Result<(), Fault> {
    for sample in 0..SAMPLES {
        let config = space.sample(Seed(0).derive("tune.check", &[sample]));
        let Err(error) = trainer.check(&config) else { continue };
        let (key, reason) = match &error {
            ModelError::Config(ConfigError::Unknown { name, known }) => {
                let known: Vec<&str> = known.iter().map(String::as_str).collect();
                let nearest = suggestion(name, &known);
                (name.as_str(), format!("unknown hyperparameter `{name}`; {nearest}"))
            }
            ModelError::Config(ConfigError::Invalid { name, .. }) => {
                (name.as_str(), error.to_string())
            }
            _ => ("", error.to_string()),
        };
        let message = format!("the model refuses a Config of this space ({config}): {reason}");
        return Err(table.fault_at(key, message));
    }
    Ok(())
}

/// Refuses a network that the data set's tensors cannot feed.
pub fn check_data(
    trainer: &Trainer,
    space: &Space,
    table: &Table<'_>,
    dataset: &dyn Dataset,
) -> Result<(), Fault> {
    let config = space.sample(Seed(0).derive("tune.check", &[0]));
    trainer.check_data(&config, dataset.tensors()).map_err(|error| {
        table.fault_at("network", format!("the network does not fit the data: {error}"))
    })
}

/// Refuses the name of a tensor that the data set does not have.
pub fn check_tensors(table: &Table<'_>, dataset: &dyn Dataset) -> Result<(), Fault> {
    let known: Vec<&str> = dataset.tensors().iter().map(|spec| spec.name.as_str()).collect();
    let mut named = Vec::new();
    named.extend(table.get("input"));
    named.extend(table.get("target"));
    if let Some(bind) = table.table("bind")? {
        named.extend(bind.entries().map(|(_, item)| item));
    }
    for item in named {
        let name: String = item.read()?;
        if !known.contains(&name.as_str()) {
            let message =
                format!("the data set has no tensor `{name}`; {}", suggestion(&name, &known));
            return Err(item.fault(message));
        }
    }
    if table.get("target").is_none() && !known.contains(&"target") {
        return Err(table.fault(format!(
            "the data set has no tensor `target`, which the loss compares with unless \
             `model.target` names another; {}",
            suggestion("target", &known)
        )));
    }
    Ok(())
}
