//! `[space]`: the hyperparameters and their domains.

use cerebro_core::space::{Domain, SpaceBuilder, SpaceError};
use cerebro_core::{Space, Value};

use super::document::{Fault, FromItem, Item, Table};

const DOMAINS: [&str; 7] =
    ["choice", "uniform", "quniform", "loguniform", "qloguniform", "int", "value"];

/// Reads the space, in which the order of the hyperparameters is that of the file.
pub fn read(table: &Table<'_>) -> Result<Space, Fault> {
    let mut space = Space::builder();
    for (name, item) in table.entries() {
        space = parameter(space, name, &item)?;
    }
    space.build().map_err(|error| {
        let message = error.to_string();
        match culprit(&error) {
            Some(name) => table.fault_at(name, message),
            None => table.fault(message),
        }
    })
}

/// The hyperparameter whose declaration is at fault.
fn culprit(error: &SpaceError) -> Option<&str> {
    match error {
        SpaceError::Duplicate { name }
        | SpaceError::Domain { name, .. }
        | SpaceError::UnknownParent { name, .. }
        | SpaceError::Condition { name, .. } => Some(name),
        _ => None,
    }
}

fn parameter(space: SpaceBuilder, name: &str, item: &Item<'_>) -> Result<SpaceBuilder, Fault> {
    let Ok(table) = item.table() else {
        return Err(item.expected(
            "a table such as { loguniform = [1e-4, 1e-1] }, or { value = 3 } for what is the same \
             in every trial,",
        ));
    };
    let keys: Vec<&str> = DOMAINS.into_iter().chain(["when", "points", "step"]).collect();
    table.only(&keys)?;
    let given: Vec<&str> =
        DOMAINS.into_iter().filter(|domain| table.get(domain).is_some()).collect();
    let [kind] = given[..] else {
        let found = if given.is_empty() { "none".to_owned() } else { given.join(" and ") };
        return Err(item.fault(format!(
            "`{name}` has {found} of the domains {}; it needs exactly one",
            DOMAINS.join(", ")
        )));
    };
    let mut space = space.parameter(name, domain(kind, &table)?);
    if let Some(points) = table.optional("points")? {
        space = space.points(points);
    }
    // All conditions must hold: `when = { optimizer = "sgd", layers = [2, 3] }`.
    if let Some(conditions) = table.table("when")? {
        for (parent, item) in conditions.entries() {
            let values: Vec<Value> =
                if item.list().is_some() { item.read()? } else { vec![item.read()?] };
            space = space.when(parent, values);
        }
    }
    Ok(space)
}

fn domain(kind: &str, table: &Table<'_>) -> Result<Domain, Fault> {
    let item = table.item_needed(kind, "its bounds")?;
    if !kind.starts_with('q')
        && let Some(step) = table.get("step")
    {
        return Err(step.fault("`step` goes with `quniform` and `qloguniform` only"));
    }
    Ok(match kind {
        "choice" => Domain::Choice(item.read()?),
        "value" => Domain::Choice(vec![item.read::<Value>()?]),
        "int" => {
            let [min, max] = bounds(&item)?;
            Domain::Int { min, max }
        }
        _ => {
            let [min, max] = bounds::<f64>(&item)?;
            match kind {
                "uniform" => Domain::Uniform { min, max },
                "loguniform" => Domain::LogUniform { min, max },
                "quniform" => Domain::QUniform { min, max, quantum: table.needed("step")? },
                _ => Domain::QLogUniform { min, max, quantum: table.needed("step")? },
            }
        }
    })
}

fn bounds<T: FromItem>(item: &Item<'_>) -> Result<[T; 2], Fault> {
    let bounds: Vec<T> = item.read()?;
    let count = bounds.len();
    bounds.try_into().map_err(|_| {
        item.fault(format!(
            "these are {count} numbers, but two are needed: the lowest and the highest"
        ))
    })
}
