//! Which keys there are: those of `default.toml`, and for every provider that a source names, those of its adapter.

use std::collections::{BTreeMap, BTreeSet};

use toml::{Table, Value};

use super::{
    DEFAULT_TOML,
    error::{Origin, Problem},
};

/// The example in `default.toml` that is the reference of the adapter "s3": a comment, so that the defaults need no
/// bucket.
const S3_EXAMPLE: &str = "[storage.providers.bucket]";

/// What a source says, as far as providers are concerned.
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

/// The comment of `default.toml` that shows a provider with the adapter "s3", as TOML.
pub(super) fn s3_example() -> String {
    DEFAULT_TOML
        .lines()
        .filter_map(|line| line.strip_prefix("#   "))
        .skip_while(|line| *line != S3_EXAMPLE)
        .take_while(|line| *line == S3_EXAMPLE || !line.starts_with('['))
        .map(|line| format!("{line}\n"))
        .collect()
}

/// Gives every provider that is mentioned the keys of its adapter. What has no adapter that we know is a problem, and is
/// named in the answer: nothing more can be said about its keys. Later mentions win.
pub(super) fn add_providers(
    defaults: &mut Table,
    mentions: &[Mention],
    problems: &mut Vec<Problem>,
) -> BTreeSet<String> {
    let adapters = adapters(defaults);
    let Some(providers) = providers_mut(defaults) else { return BTreeSet::new() };
    let mut found: BTreeMap<&str, (Option<&str>, &Origin)> = BTreeMap::new();
    for mention in mentions {
        for (name, table) in providers_of(&mention.table) {
            let entry = found.entry(name).or_insert((None, &mention.origin));
            if let Some(adapter) = table.get("adapter") {
                *entry = (Some(adapter.as_str().unwrap_or_default()), &mention.origin);
            }
        }
    }
    let mut refused = BTreeSet::new();
    for (name, (adapter, origin)) in found {
        let known = adapter.map(|adapter| adapters.get(adapter));
        match known {
            Some(Some(keys)) => {
                providers.insert(name.to_owned(), Value::Table(keys.clone()));
            }
            // A provider of the defaults keeps its adapter.
            None if providers.contains_key(name) => {}
            _ => {
                let known: Vec<&str> = adapters.keys().copied().collect();
                problems.push(Problem {
                    key: format!("storage.providers.{name}.adapter"),
                    message: format!("must be one of {}", known.join(", ")),
                    origin: Some(origin.clone()),
                });
                refused.insert(name.to_owned());
            }
        }
    }
    refused
}

/// Takes the providers out that nothing can be said about.
pub(super) fn without(mut table: Table, refused: &BTreeSet<String>) -> Table {
    if let Some(providers) = providers_mut(&mut table) {
        providers.retain(|name, _| !refused.contains(name));
    }
    table
}

/// The keys and defaults of every adapter.
fn adapters(defaults: &Table) -> BTreeMap<&'static str, Table> {
    // An adapter without keys of its own.
    let bare = |adapter: &str| Some(Table::from_iter([("adapter".to_owned(), Value::from(adapter))]));
    [
        ("local", named(defaults, "local")),
        ("memory", bare("memory")),
        ("discard", bare("discard")),
        ("s3", s3_keys()),
    ]
    .into_iter()
    .filter_map(|(adapter, keys)| Some((adapter, keys?)))
    .collect()
}

/// The keys and defaults of the adapter "s3".
pub(super) fn s3_keys() -> Option<Table> {
    named(&s3_example().parse().ok()?, "bucket")
}

fn named(table: &Table, name: &str) -> Option<Table> {
    providers_of(table).find(|(key, _)| *key == name).and_then(|(_, value)| value.as_table().cloned())
}

fn providers_of(table: &Table) -> impl Iterator<Item = (&str, &Value)> {
    let providers =
        table.get("storage").and_then(|storage| storage.get("providers")).and_then(Value::as_table);
    providers.into_iter().flatten().map(|(name, value)| (name.as_str(), value))
}

pub(super) fn providers_mut(table: &mut Table) -> Option<&mut Table> {
    table.get_mut("storage")?.get_mut("providers")?.as_table_mut()
}
