//! The schema of the configuration: the keys of `default.toml`, and for every table that the operator names
//! (a storage provider, an import source) the keys of its adapter.

use std::collections::{BTreeMap, BTreeSet};

use toml::{Table, Value};

use super::{
    DEFAULT_TOML,
    error::{Origin, Problem},
};

/// A kind of table that the operator names. The `adapter` of each table determines its keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum NamedTables {
    Providers,
    Sources,
}

impl NamedTables {
    pub(super) const ALL: [Self; 2] = [Self::Providers, Self::Sources];

    /// Returns the path of these tables: a section, and a table in it.
    pub(super) const fn path(self) -> [&'static str; 2] {
        match self {
            Self::Providers => ["storage", "providers"],
            Self::Sources => ["imports", "sources"],
        }
    }

    /// Returns the full key of the table with this name.
    pub(super) fn key(self, name: &str) -> String {
        let [section, table] = self.path();
        format!("{section}.{table}.{name}")
    }

    /// Returns the keys and defaults of every adapter.
    fn adapters(self, defaults: &Table) -> BTreeMap<&'static str, Table> {
        // An adapter without keys of its own.
        let bare = |adapter: &str| Some(Table::from_iter([("adapter".to_owned(), Value::from(adapter))]));
        let known = match self {
            Self::Providers => vec![
                ("local", self.tables_in(defaults).get("local").and_then(Value::as_table).cloned()),
                ("memory", bare("memory")),
                ("discard", bare("discard")),
                ("s3", Example::S3_PROVIDER.keys()),
            ],
            Self::Sources => vec![
                ("directory", Example::DIRECTORY_SOURCE.keys()),
                ("s3", Example::S3_SOURCE.keys()),
                ("url", Example::URL_SOURCE.keys()),
            ],
        };
        known.into_iter().filter_map(|(adapter, keys)| Some((adapter, keys?))).collect()
    }

    /// Returns the tables of this kind in a configuration layer, by name.
    fn tables_in(self, table: &Table) -> Table {
        let [section, named] = self.path();
        let found = table.get(section).and_then(|section| section.get(named)).and_then(Value::as_table);
        found.cloned().unwrap_or_default()
    }

    fn tables_in_mut(self, table: &mut Table) -> Option<&mut Table> {
        let [section, named] = self.path();
        table.get_mut(section)?.get_mut(named)?.as_table_mut()
    }
}

/// An example table in `default.toml` that documents an adapter. It is a comment, because the defaults
/// contain no such table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Example {
    kind: NamedTables,
    name: &'static str,
}

impl Example {
    pub(super) const S3_PROVIDER: Self = Self { kind: NamedTables::Providers, name: "bucket" };
    pub(super) const DIRECTORY_SOURCE: Self = Self { kind: NamedTables::Sources, name: "disk" };
    pub(super) const S3_SOURCE: Self = Self { kind: NamedTables::Sources, name: "bucket" };
    pub(super) const URL_SOURCE: Self = Self { kind: NamedTables::Sources, name: "web" };
    #[cfg(test)]
    pub(super) const ALL: [Self; 4] =
        [Self::S3_PROVIDER, Self::DIRECTORY_SOURCE, Self::S3_SOURCE, Self::URL_SOURCE];

    /// Returns the full key of the example table.
    pub(super) fn key(self) -> String {
        self.kind.key(self.name)
    }

    /// Returns the text of the comment as TOML.
    pub(super) fn text(self) -> String {
        let header = format!("[{}]", self.key());
        DEFAULT_TOML
            .lines()
            .filter_map(|line| line.strip_prefix("#   "))
            .skip_while(|line| *line != header)
            .take_while(|line| *line == header || !line.starts_with('['))
            .map(|line| format!("{line}\n"))
            .collect()
    }

    /// Returns the keys and defaults of the adapter.
    pub(super) fn keys(self) -> Option<Table> {
        let table: Table = self.text().parse().ok()?;
        self.kind.tables_in(&table).get(self.name).and_then(Value::as_table).cloned()
    }
}

/// A configuration layer: a file, or one environment variable.
pub(super) struct Layer {
    pub(super) table: Table,
    pub(super) origin: Origin,
}

impl Layer {
    /// Creates the table that an environment variable represents.
    pub(super) fn from_variable(path: &[String], name: &str, raw: &str) -> Self {
        // A table is written as TOML; a single key is taken as text.
        let leaf = if path.len() > 3 { None } else { raw.trim().parse::<Value>().ok() };
        let nest = |inner: Value, key: &String| Value::Table(Table::from_iter([(key.clone(), inner)]));
        let value = path.iter().rev().fold(leaf.unwrap_or_else(|| Value::from(raw)), nest);
        let table = if let Value::Table(table) = value { table } else { Table::new() };
        Self { table, origin: Origin::Variable(name.to_owned()) }
    }
}

/// Adds to the defaults, for every table of this kind in a layer, the keys of its adapter. Later layers
/// override earlier ones. A table without a known adapter is a problem, and its name is returned, because its
/// other keys cannot be checked.
pub(super) fn insert_named_tables(
    kind: NamedTables,
    defaults: &mut Table,
    layers: &[Layer],
    problems: &mut Vec<Problem>,
) -> BTreeSet<String> {
    let adapters = kind.adapters(defaults);
    let mut found: BTreeMap<String, (Option<String>, &Origin)> = BTreeMap::new();
    for layer in layers {
        for (name, table) in kind.tables_in(&layer.table) {
            let entry = found.entry(name).or_insert((None, &layer.origin));
            if let Some(adapter) = table.get("adapter") {
                *entry = (Some(adapter.as_str().unwrap_or_default().to_owned()), &layer.origin);
            }
        }
    }
    let mut rejected = BTreeSet::new();
    let Some(named) = kind.tables_in_mut(defaults) else { return rejected };
    for (name, (adapter, origin)) in found {
        let keys = adapter.as_ref().map(|adapter| adapters.get(adapter.as_str()));
        match keys {
            Some(Some(keys)) => {
                named.insert(name, Value::Table(keys.clone()));
            }
            // A default table keeps its adapter.
            None if named.contains_key(&name) => {}
            _ => {
                let known: Vec<&str> = adapters.keys().copied().collect();
                let found =
                    adapter.map_or_else(|| "but is not set".to_owned(), |adapter| format!("not `{adapter}`"));
                problems.push(Problem {
                    key: format!("{}.adapter", kind.key(&name)),
                    message: format!("must be one of {}, {found}", known.join(", ")),
                    origin: Some(origin.clone()),
                });
                rejected.insert(name);
            }
        }
    }
    rejected
}

/// Removes the tables that were rejected.
pub(super) fn remove_rejected(kind: NamedTables, mut table: Table, rejected: &BTreeSet<String>) -> Table {
    if let Some(named) = kind.tables_in_mut(&mut table) {
        named.retain(|name, _| !rejected.contains(name));
    }
    table
}
