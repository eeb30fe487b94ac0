//! [`Document`]: a TOML file that says where it is wrong, by line and column.

use std::fmt;
use std::ops::Range;

use cerebro_core::{Config, Value};
use thiserror::Error;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// What is wrong with a file, and where.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub struct Fault {
    /// The file.
    pub file: String,
    /// The line, counted from 1.
    pub line: usize,
    /// The column in characters, counted from 1.
    pub column: usize,
    /// What is wrong, and what to do.
    pub message: String,
    /// The line's text.
    text: String,
    /// How many characters of it are wrong.
    width: usize,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, column, message, text, width } = self;
        let margin = line.to_string().len();
        writeln!(f, "{file}:{line}:{column}: {message}")?;
        writeln!(f, "{:margin$} |", "")?;
        writeln!(f, "{line} | {text}")?;
        write!(f, "{:margin$} | {:before$}{:^>width$}", "", "", "", before = column - 1)
    }
}

/// What is wrong with what was asked for, other than the text of a file.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{0}")]
pub struct Misuse(pub String);

/// A TOML file's name and text.
#[derive(Clone, Copy, Debug)]
pub struct Document<'t> {
    file: &'t str,
    text: &'t str,
}

impl<'t> Document<'t> {
    /// The file `file`, which holds `text`.
    pub fn new(file: &'t str, text: &'t str) -> Self {
        Self { file, text }
    }

    /// The tables of the file.
    pub fn parse(&self) -> Result<Spanned<DeTable<'t>>, Fault> {
        DeTable::parse(self.text)
            .map_err(|error| self.fault(error.span().unwrap_or(0..0), error.message()))
    }

    /// The fault that `message` says of the bytes `span`.
    fn fault(&self, span: Range<usize>, message: impl Into<String>) -> Fault {
        let start = self.text.floor_char_boundary(span.start);
        let before = &self.text[..start];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let rest = &self.text[line_start..];
        let text = rest.split('\n').next().unwrap_or_default().trim_end_matches('\r');
        let column = self.text[line_start..start].chars().count() + 1;
        let end = self.text.floor_char_boundary(span.end.max(start));
        let end = end.min(line_start + text.len());
        let width = self.text.get(start..end).map_or(1, |wrong| wrong.chars().count()).max(1);
        Fault {
            file: self.file.to_owned(),
            line: before.matches('\n').count() + 1,
            column,
            message: message.into(),
            text: text.to_owned(),
            width,
        }
    }
}

/// A table that is being read.
#[derive(Clone, Debug)]
pub struct Table<'d> {
    document: Document<'d>,
    /// What leads to it: `search.over`; empty for the file itself.
    path: String,
    span: Range<usize>,
    entries: &'d DeTable<'d>,
}

/// A value that is being read.
#[derive(Clone, Debug)]
pub struct Item<'d> {
    document: Document<'d>,
    path: String,
    span: Range<usize>,
    value: &'d DeValue<'d>,
}

impl<'d> Table<'d> {
    /// The file as a table.
    pub fn root(document: Document<'d>, entries: &'d DeTable<'d>) -> Self {
        Self { document, path: String::new(), span: 0..0, entries }
    }

    /// Refuses keys that are not among `known`.
    pub fn only(&self, known: &[&str]) -> Result<(), Fault> {
        match self.entries.keys().find(|key| !known.contains(&key.get_ref().as_ref())) {
            None => Ok(()),
            Some(key) => Err(self.unknown(key.get_ref(), key.span(), known)),
        }
    }

    /// The fault that `key`, one of this table's, is not among `known`.
    pub fn unknown_key(&self, key: &str, known: &[&str]) -> Fault {
        let found = self.entries.keys().find(|found| found.get_ref() == key);
        self.unknown(key, found.map_or(self.span.clone(), Spanned::span), known)
    }

    fn unknown(&self, key: &str, span: Range<usize>, known: &[&str]) -> Fault {
        let table = match self.path.as_str() {
            "" => String::new(),
            path => format!(" in `{path}`"),
        };
        let message = format!("unknown key `{key}`{table}; {}", suggestion(key, known));
        self.document.fault(span, message)
    }

    /// The entries in their order.
    pub fn entries(&self) -> impl Iterator<Item = (&'d str, Item<'d>)> {
        self.entries
            .iter()
            .map(|(key, value)| (key.get_ref().as_ref(), self.item(key.get_ref(), value)))
    }

    fn item(&self, key: &str, value: &'d Spanned<DeValue<'d>>) -> Item<'d> {
        let path = match self.path.as_str() {
            "" => key.to_owned(),
            path => format!("{path}.{key}"),
        };
        Item { document: self.document, path, span: value.span(), value: value.get_ref() }
    }

    /// The value of `key`, if it is there.
    pub fn get(&self, key: &str) -> Option<Item<'d>> {
        self.entries.get(key).map(|value| self.item(key, value))
    }

    /// The value of `key`, or a fault that it is missing, where it should be `expected`.
    pub fn item_needed(&self, key: &str, expected: &str) -> Result<Item<'d>, Fault> {
        self.get(key).ok_or_else(|| {
            let table = match self.path.as_str() {
                "" => "the file".to_owned(),
                path => format!("`{path}`"),
            };
            self.fault(format!("{table} has no `{key}`; it needs one: {expected}"))
        })
    }

    /// The value of `key`, which has to be there.
    pub fn needed<T: FromItem>(&self, key: &str) -> Result<T, Fault> {
        self.item_needed(key, T::EXPECTED).and_then(|item| item.read())
    }

    /// The value of `key`, if it is there.
    pub fn optional<T: FromItem>(&self, key: &str) -> Result<Option<T>, Fault> {
        self.get(key).map(|item| item.read()).transpose()
    }

    /// The number `key`, if it is there, which is not to be 0.
    pub fn positive<T: FromItem + Default + PartialEq>(
        &self,
        key: &str,
    ) -> Result<Option<T>, Fault> {
        let Some(item) = self.get(key) else { return Ok(None) };
        let number: T = item.read()?;
        if number == T::default() {
            return Err(item.fault(format!("`{}` is 0, but at least 1 is needed", item.path)));
        }
        Ok(Some(number))
    }

    /// The table `key`, if it is there.
    pub fn table(&self, key: &str) -> Result<Option<Table<'d>>, Fault> {
        self.get(key).map(|item| item.table()).transpose()
    }

    /// The fault that `message` says of this table.
    pub fn fault(&self, message: impl Into<String>) -> Fault {
        self.document.fault(self.span.clone(), message)
    }

    /// The fault that `message` says of the value of `key`, or of the table if there is none.
    pub fn fault_at(&self, key: &str, message: impl Into<String>) -> Fault {
        match self.get(key) {
            Some(item) => item.fault(message),
            None => self.fault(message),
        }
    }
}

impl<'d> Item<'d> {
    /// The value as a `T`.
    pub fn read<T: FromItem>(&self) -> Result<T, Fault> {
        T::from_item(self)
    }

    /// The value as a table.
    pub fn table(&self) -> Result<Table<'d>, Fault> {
        match self.value {
            DeValue::Table(entries) => Ok(Table {
                document: self.document,
                path: self.path.clone(),
                span: self.span.clone(),
                entries,
            }),
            _ => Err(self.expected("a table")),
        }
    }

    /// The elements of a list.
    pub fn list(&self) -> Option<Vec<Item<'d>>> {
        let DeValue::Array(values) = self.value else { return None };
        let item = |(index, value): (usize, &'d Spanned<DeValue<'d>>)| Item {
            document: self.document,
            path: format!("{}[{index}]", self.path),
            span: value.span(),
            value: value.get_ref(),
        };
        Some(values.iter().enumerate().map(item).collect())
    }

    /// The value as a text, if it is one.
    pub fn text(&self) -> Option<&'d str> {
        match self.value {
            DeValue::String(text) => Some(text.as_ref()),
            _ => None,
        }
    }

    /// The choice that the text names, with the nearest one in the message if it names none.
    pub fn choice<T: Clone>(&self, what: &str, choices: &[(&str, T)]) -> Result<T, Fault> {
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        let Some(text) = self.text() else {
            return Err(self.expected(&format!("the name of a {what}: {}", quoted(&names))));
        };
        let found = choices.iter().find(|(name, _)| *name == text);
        found.map(|(_, choice)| choice.clone()).ok_or_else(|| {
            self.fault(format!("unknown {what} `{text}`; {}", suggestion(text, &names)))
        })
    }

    /// The value in JSON.
    pub fn json(&self) -> Result<serde_json::Value, Fault> {
        Ok(match self.value {
            DeValue::String(text) => text.as_ref().into(),
            DeValue::Boolean(value) => (*value).into(),
            DeValue::Integer(_) => self.read::<i64>()?.into(),
            DeValue::Float(_) => {
                let number = serde_json::Number::from_f64(self.read()?);
                number.map(Into::into).ok_or_else(|| self.expected("a finite number"))?
            }
            DeValue::Datetime(_) => return Err(self.expected("a number, a text or a table")),
            DeValue::Array(_) => {
                let items = self.list().unwrap_or_default();
                items.iter().map(Item::json).collect::<Result<Vec<_>, _>>()?.into()
            }
            DeValue::Table(_) => {
                let entries = self.table()?;
                let entries = entries.entries();
                let entries = entries.map(|(key, item)| Ok((key.to_owned(), item.json()?)));
                serde_json::Value::Object(entries.collect::<Result<_, _>>()?)
            }
        })
    }

    /// The fault that `message` says of this value.
    pub fn fault(&self, message: impl Into<String>) -> Fault {
        self.document.fault(self.span.clone(), message)
    }

    /// The fault that this value is not `expected`.
    pub fn expected(&self, expected: &str) -> Fault {
        let kind = match self.value {
            DeValue::String(_) => "a text",
            DeValue::Integer(_) => "a whole number",
            DeValue::Float(_) => "a number with a fraction",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        self.fault(format!("`{}` is {kind}, but {expected} is needed", self.path))
    }
}

/// What values are read as.
pub trait FromItem: Sized {
    /// What is needed, for a message.
    const EXPECTED: &'static str;

    /// Reads a value.
    fn from_item(item: &Item<'_>) -> Result<Self, Fault>;
}

impl FromItem for String {
    const EXPECTED: &'static str = "a text";

    fn from_item(item: &Item<'_>) -> Result<Self, Fault> {
        item.text().map(str::to_owned).ok_or_else(|| item.expected(Self::EXPECTED))
    }
}

impl FromItem for bool {
    const EXPECTED: &'static str = "true or false";

    fn from_item(item: &Item<'_>) -> Result<Self, Fault> {
        item.value.as_bool().ok_or_else(|| item.expected(Self::EXPECTED))
    }
}

impl FromItem for i64 {
    const EXPECTED: &'static str = "a whole number";

    fn from_item(item: &Item<'_>) -> Result<Self, Fault> {
        let DeValue::Integer(integer) = item.value else {
            return Err(item.expected(Self::EXPECTED));
        };
        i64::from_str_radix(integer.as_str(), integer.radix())
            .map_err(|_| item.fault(format!("`{}` is too large", item.path)))
    }
}

macro_rules! counts {
    ($($type:ty),*) => {$(
        impl FromItem for $type {
            const EXPECTED: &'static str = "a whole number of at least 0";

            fn from_item(item: &Item<'_>) -> Result<Self, Fault> {
                if !item.value.is_integer() {
                    return Err(item.expected(Self::EXPECTED));
                }
                let number: i64 = item.read()?;
                <$type>::try_from(number).map_err(|_| {
                    let most = <$type>::MAX;
                    item.fault(format!(
                        "`{}` is {number}, but a whole number from 0 to {most} is needed", item.path
                    ))
                })
            }
        }
    )*};
}

counts!(u32, u64, usize);

impl FromItem for f64 {
    const EXPECTED: &'static str = "a number";

    fn from_item(item: &Item<'_>) -> Result<Self, Fault> {
        match item.value {
            DeValue::Float(float) => {
                float.as_str().parse().map_err(|_| item.expected(Self::EXPECTED))
            }
            DeValue::Integer(_) => item.read::<i64>().map(|number| number as f64),
            _ => Err(item.expected(Self::EXPECTED)),
        }
    }
}

impl<T: FromItem> FromItem for Vec<T> {
    const EXPECTED: &'static str = "a list";

    fn from_item(item: &Item<'_>) -> Result<Self, Fault> {
        let items = item.list().ok_or_else(|| item.expected(Self::EXPECTED))?;
        items.iter().map(Item::read).collect()
    }
}

impl FromItem for Value {
    const EXPECTED: &'static str = "a value of a hyperparameter";

    fn from_item(item: &Item<'_>) -> Result<Self, Fault> {
        match item.value {
            DeValue::String(text) => Ok(text.as_ref().into()),
            DeValue::Integer(_) => item.read::<i64>().map(Into::into),
            DeValue::Float(_) => item.read::<f64>().map(Into::into),
            DeValue::Boolean(value) => Ok((*value).into()),
            DeValue::Array(_) => item.read::<Vec<Value>>().map(Value::List),
            DeValue::Datetime(_) | DeValue::Table(_) => {
                Err(item.expected("a number, a text, true, false, or a list of such"))
            }
        }
    }
}

impl FromItem for Config {
    const EXPECTED: &'static str = "a table of hyperparameters";

    fn from_item(item: &Item<'_>) -> Result<Self, Fault> {
        let table = item.table()?;
        let entries = table.entries();
        let values = entries.map(|(name, item)| Ok((name.to_owned(), item.read::<Value>()?)));
        Ok(values.collect::<Result<Vec<_>, Fault>>()?.into_iter().collect())
    }
}

/// What to write in place of `wrong`: the nearest of `known`, or all of them.
pub fn suggestion(wrong: &str, known: &[&str]) -> String {
    let nearest = known
        .iter()
        .map(|name| (strsim::damerau_levenshtein(wrong, name), *name))
        .min()
        .filter(|(distance, name)| *distance <= (wrong.len().max(name.len()) / 3).max(1));
    match nearest {
        Some((_, name)) => format!("did you mean `{name}`? Known are {}", quoted(known)),
        None => format!("known are {}", quoted(known)),
    }
}

fn quoted(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
