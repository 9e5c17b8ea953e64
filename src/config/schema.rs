//! Which keys there are: those of `default.toml`, and for every table that an operator names (a provider, a source of imports),
//! those of its adapter.

use std::collections::{BTreeMap, BTreeSet};

use toml::{Table, Value};

use super::{
    DEFAULT_TOML,
    error::{Origin, Problem},
};

/// Tables that operators name. The `adapter` of each says which keys it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Named {
    /// `[storage.providers.<name>]`
    Providers,
    /// `[imports.sources.<name>]`
    Sources,
}

impl Named {
    pub(super) const ALL: [Self; 2] = [Self::Providers, Self::Sources];

    /// Where they stand: a section, and a table in it.
    pub(super) const fn path(self) -> [&'static str; 2] {
        match self {
            Self::Providers => ["storage", "providers"],
            Self::Sources => ["imports", "sources"],
        }
    }

    /// The key of one of them.
    pub(super) fn key(self, name: &str) -> String {
        let [section, table] = self.path();
        format!("{section}.{table}.{name}")
    }

    /// The keys and defaults of every adapter.
    fn adapters(self, defaults: &Table) -> BTreeMap<&'static str, Table> {
        // An adapter without keys of its own.
        let bare = |adapter: &str| Some(Table::from_iter([("adapter".to_owned(), Value::from(adapter))]));
        let known = match self {
            Self::Providers => vec![
                ("local", self.of(defaults).get("local").and_then(Value::as_table).cloned()),
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

    /// Those of a source of configuration, by name.
    fn of(self, table: &Table) -> Table {
        let [section, named] = self.path();
        let found = table.get(section).and_then(|section| section.get(named)).and_then(Value::as_table);
        found.cloned().unwrap_or_default()
    }

    fn of_mut(self, table: &mut Table) -> Option<&mut Table> {
        let [section, named] = self.path();
        table.get_mut(section)?.get_mut(named)?.as_table_mut()
    }
}

/// An example in `default.toml` that is the reference of an adapter: a comment, because the defaults have no such table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Example {
    kind: Named,
    name: &'static str,
}

impl Example {
    pub(super) const S3_PROVIDER: Self = Self { kind: Named::Providers, name: "bucket" };
    pub(super) const DIRECTORY_SOURCE: Self = Self { kind: Named::Sources, name: "disk" };
    pub(super) const S3_SOURCE: Self = Self { kind: Named::Sources, name: "bucket" };
    pub(super) const URL_SOURCE: Self = Self { kind: Named::Sources, name: "web" };
    #[cfg(test)]
    pub(super) const ALL: [Self; 4] =
        [Self::S3_PROVIDER, Self::DIRECTORY_SOURCE, Self::S3_SOURCE, Self::URL_SOURCE];

    /// Its key.
    pub(super) fn key(self) -> String {
        self.kind.key(self.name)
    }

    /// The comment, as TOML.
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

    /// The keys and defaults of the adapter.
    pub(super) fn keys(self) -> Option<Table> {
        let table: Table = self.text().parse().ok()?;
        self.kind.of(&table).get(self.name).and_then(Value::as_table).cloned()
    }
}

/// What a source says, as far as tables that operators name are concerned.
pub(super) struct Mention {
    pub(super) table: Table,
    pub(super) origin: Origin,
}

impl Mention {
    /// A variable, as the table that it stands for.
    pub(super) fn variable(path: &[String], name: &str, raw: &str) -> Self {
        // A table is written as TOML; a single key is looked at as text.
        let leaf = if path.len() > 3 { None } else { raw.trim().parse::<Value>().ok() };
        let nest = |inner: Value, key: &String| Value::Table(Table::from_iter([(key.clone(), inner)]));
        let value = path.iter().rev().fold(leaf.unwrap_or_else(|| Value::from(raw)), nest);
        let table = if let Value::Table(table) = value { table } else { Table::new() };
        Self { table, origin: Origin::Variable(name.to_owned()) }
    }
}

/// Gives every table of this kind that is mentioned the keys of its adapter. What has no adapter that we know is a problem, and
/// is named in the answer: nothing more can be said about its keys. Later mentions win.
pub(super) fn add_named(
    kind: Named,
    defaults: &mut Table,
    mentions: &[Mention],
    problems: &mut Vec<Problem>,
) -> BTreeSet<String> {
    let adapters = kind.adapters(defaults);
    let mut found: BTreeMap<String, (Option<String>, &Origin)> = BTreeMap::new();
    for mention in mentions {
        for (name, table) in kind.of(&mention.table) {
            let entry = found.entry(name).or_insert((None, &mention.origin));
            if let Some(adapter) = table.get("adapter") {
                *entry = (Some(adapter.as_str().unwrap_or_default().to_owned()), &mention.origin);
            }
        }
    }
    let mut refused = BTreeSet::new();
    let Some(named) = kind.of_mut(defaults) else { return refused };
    for (name, (adapter, origin)) in found {
        let known = adapter.map(|adapter| adapters.get(adapter.as_str()));
        match known {
            Some(Some(keys)) => {
                named.insert(name, Value::Table(keys.clone()));
            }
            // One of the defaults keeps its adapter.
            None if named.contains_key(&name) => {}
            _ => {
                let known: Vec<&str> = adapters.keys().copied().collect();
                problems.push(Problem {
                    key: format!("{}.adapter", kind.key(&name)),
                    message: format!("must be one of {}", known.join(", ")),
                    origin: Some(origin.clone()),
                });
                refused.insert(name);
            }
        }
    }
    refused
}

/// Takes the tables out that nothing can be said about.
pub(super) fn without(kind: Named, mut table: Table, refused: &BTreeSet<String>) -> Table {
    if let Some(named) = kind.of_mut(&mut table) {
        named.retain(|name, _| !refused.contains(name));
    }
    table
}
