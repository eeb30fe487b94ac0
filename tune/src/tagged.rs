//! Values that are described by a kind and its settings, read by their own serde description.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::document::{Fault, Item, Table, suggestion};

/// Reads a `T` whose serde tag is `tag`: a text that names the kind, or a table with the kind and
/// settings. `defaults` give settings to kinds that have some which may be left out.
pub fn read<T>(item: &Item<'_>, tag: &str, what: &str, defaults: &[T]) -> Result<T, Fault>
where
    T: Serialize + DeserializeOwned,
{
    let given = match item.text() {
        Some(kind) => Map::from_iter([(tag.to_owned(), kind.into())]),
        None => match item.json()? {
            Value::Object(given) => given,
            _ => return Err(item.expected(&format!("the name of a {what}, or a table"))),
        },
    };
    let table = item.table().ok();
    let Some(kind) = given.get(tag).and_then(Value::as_str) else {
        return Err(item.fault(format!("this {what} has no `{tag}`: a text that says which it is")));
    };

    let mut whole = Map::new();
    for default in defaults.iter().filter_map(object) {
        if default.get(tag).and_then(Value::as_str) == Some(kind) {
            whole = default;
        }
    }
    whole.extend(given.clone());
    let read: T = serde_json::from_value(Value::Object(whole.clone())).map_err(|error| {
        explain::<T>(item, table.as_ref(), &whole, (tag, what), &error.to_string())
    })?;

    // Serde passes over what it does not know; but then it is not written either.
    let written = object(&read).unwrap_or_default();
    let known: Vec<&str> = written.keys().map(String::as_str).collect();
    match (given.keys().find(|key| !written.contains_key(*key)), table) {
        (Some(key), Some(table)) => Err(table.unknown_key(key, &known)),
        _ => Ok(read),
    }
}

fn object<T: Serialize>(value: &T) -> Option<Map<String, Value>> {
    match serde_json::to_value(value) {
        Ok(Value::Object(object)) => Some(object),
        _ => None,
    }
}

/// What serde says, at the key that it says it of.
fn explain<T: DeserializeOwned>(
    item: &Item<'_>,
    table: Option<&Table<'_>>,
    whole: &Map<String, Value>,
    (tag, what): (&str, &str),
    message: &str,
) -> Fault {
    if let Some((is_key, wrong, known)) = unexpected(message) {
        let known: Vec<&str> = known.iter().map(String::as_str).collect();
        if let Some(table) = table.filter(|_| is_key) {
            return table.unknown_key(&wrong, &known);
        }
        let message = format!("unknown {what} `{wrong}`; {}", suggestion(&wrong, &known));
        return match table {
            Some(table) => table.fault_at(tag, message),
            None => item.fault(message),
        };
    }
    let shown = |item: &Item<'_>| match message.split_once(", expected ") {
        Some((found, expected)) if found.starts_with("invalid type") => {
            item.expected(in_toml(expected))
        }
        _ => item.fault(format!("this {what} cannot be read: {message}")),
    };
    let Some(table) = table.filter(|_| message.starts_with("invalid")) else {
        return shown(item);
    };
    // Without the key that serde stumbles over, it says something else.
    let is_guilty = |key: &str| {
        let mut rest = whole.clone();
        rest.remove(key);
        let error = serde_json::from_value::<T>(Value::Object(rest)).err();
        error.is_none_or(|error| error.to_string() != message)
    };
    match table.entries().find(|(key, _)| *key != tag && is_guilty(key)) {
        Some((_, item)) => shown(&item),
        None => shown(item),
    }
}

/// What serde expects, in this program's words.
fn in_toml(expected: &str) -> &str {
    match expected {
        "f32" | "f64" => "a number",
        "i64" | "u32" | "u64" | "usize" => "a whole number",
        "a sequence" => "a list",
        "a string" => "a text",
        "a boolean" => "true or false",
        other => other,
    }
}

/// What serde did not expect, whether it is a key, and the names that it knows.
fn unexpected(message: &str) -> Option<(bool, String, Vec<String>)> {
    let is_key = message.starts_with("unknown field `");
    if !is_key && !message.starts_with("unknown variant `") {
        return None;
    }
    let mut names = message.split('`').skip(1).step_by(2).map(str::to_owned);
    let wrong = names.next()?;
    Some((is_key, wrong, names.collect()))
}
