//! Merges the configuration layers and records which source set each key.
//!
//! `default.toml` contains every key, so it is also the schema: each source is compared with it key by key
//! before deserialization. This finds all unknown keys and wrong types at once, without quoting values.

use std::{collections::BTreeMap, fs, path::PathBuf};

use toml::{Table, Value};

use super::{
    DEFAULT_TOML,
    error::{ConfigError, Origin, Problem},
    schema::{self, Layer, NamedTables},
};

/// The prefix of the environment variables, in lower case.
const VARIABLE_PREFIX: &str = "strongroom_";

/// Tables whose keys are chosen by the operator. A later layer replaces the whole table, so that default
/// entries can be removed.
const FREE_MAPS: [&str; 3] = ["auth.roles", "tenants.presets", "storage.providers.*.tags"];

/// The sources of a configuration in addition to the compiled-in defaults.
#[derive(Debug, Clone)]
pub struct ConfigSources<E> {
    /// A TOML file with the keys that differ from the defaults.
    pub file: Option<PathBuf>,
    /// Environment variables as names and values. Variables that do not start with `STRONGROOM_`, or have no
    /// `__` in their name, are ignored.
    pub env: E,
}

impl ConfigSources<std::vec::IntoIter<(String, String)>> {
    /// Creates the sources from a file and the environment of this process. Variables that are not UTF-8 are
    /// ignored.
    pub fn from_process(file: Option<PathBuf>) -> Self {
        let utf8 = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        let env: Vec<_> = std::env::vars_os().filter_map(utf8).collect();
        Self { file, env: env.into_iter() }
    }
}

impl<E: Iterator<Item = (String, String)>> ConfigSources<E> {
    /// Merges the file and the environment into the defaults.
    pub(super) fn merge(self) -> Result<Merged, ConfigError> {
        let mut defaults = parse(DEFAULT_TOML, PathBuf::from("default.toml"))?;
        let file = self.file.map(read_file).transpose()?;
        let mut variables: Vec<_> =
            self.env.filter_map(|(name, raw)| Some((parse_variable_name(&name)?, name, raw))).collect();
        variables.sort();
        let file_layer = file.iter().cloned().map(|(table, origin)| Layer { table, origin });
        let variable_layers = variables.iter().map(|(path, name, raw)| Layer::from_variable(path, name, raw));
        let layers: Vec<_> = file_layer.chain(variable_layers).collect();
        let mut problems = Vec::new();
        let rejected = NamedTables::ALL
            .map(|kind| (kind, schema::insert_named_tables(kind, &mut defaults, &layers, &mut problems)));
        let mut overlay =
            Overlay { merged: Merged { table: defaults.clone(), origins: BTreeMap::new() }, problems };
        if let Some((table, origin)) = file {
            let table = rejected
                .iter()
                .fold(table, |table, (kind, names)| schema::remove_rejected(*kind, table, names));
            overlay.merge_table(&defaults, &[], table, &origin);
        }
        let is_rejected = |path: &[String]| match path {
            [section, named, name, ..] => {
                let is_of = |kind: &NamedTables| kind.path() == [section.as_str(), named.as_str()];
                rejected.iter().any(|(kind, names)| is_of(kind) && names.contains(name))
            }
            _ => false,
        };
        for (path, name, raw) in variables.into_iter().filter(|(path, ..)| !is_rejected(path)) {
            overlay.merge_variable(&defaults, &path, name, &raw);
        }
        if overlay.problems.is_empty() {
            Ok(overlay.merged)
        } else {
            Err(ConfigError::Invalid(overlay.problems))
        }
    }
}

/// The merged configuration.
#[derive(Debug)]
pub(super) struct Merged {
    table: Table,
    origins: BTreeMap<String, Origin>,
}

impl Merged {
    /// Removes and returns a section. Returns an empty table for a missing section; deserialization then
    /// reports the missing keys.
    pub(super) fn take_section(&mut self, name: &str) -> Value {
        self.table.remove(name).unwrap_or_else(|| Value::Table(Table::new()))
    }

    /// Removes and returns the tables of this kind by name.
    pub(super) fn take_named(&mut self, kind: NamedTables) -> Vec<(String, Table)> {
        let [section, named] = kind.path();
        let section = self.table.get_mut(section).and_then(Value::as_table_mut);
        let named = section.and_then(|section| section.remove(named));
        let Some(Value::Table(named)) = named else { return Vec::new() };
        let tables = named.into_iter().filter_map(|(name, value)| match value {
            Value::Table(table) => Some((name, table)),
            _ => None,
        });
        tables.collect()
    }

    /// Returns the source that set this key, one of its parents, or a key inside it. Returns `None` for a
    /// default.
    pub(super) fn origin(&self, key: &str) -> Option<Origin> {
        let related = |set: &str| {
            let inside = |inner: &str, outer: &str| {
                inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
            };
            inside(key, set) || inside(set, key)
        };
        self.origins.iter().find(|(set, _)| related(set)).map(|(_, origin)| origin.clone())
    }

    /// Creates a problem from the error of a section's deserializer, whose last line contains the path: "in
    /// `a.b`".
    pub(super) fn problem(&self, section: &str, error: &toml::de::Error) -> Problem {
        let text = error.to_string();
        let path = text.lines().last().and_then(|line| line.strip_prefix("in `")?.strip_suffix('`'));
        let key = path.map_or_else(|| section.to_owned(), |path| format!("{section}.{path}"));
        Problem { origin: self.origin(&key), message: format!("is invalid: {}", error.message()), key }
    }
}

struct Overlay {
    merged: Merged,
    problems: Vec<Problem>,
}

impl Overlay {
    fn add_problem(&mut self, path: &[&str], message: impl Into<String>, origin: &Origin) {
        let origin = Some(origin.clone());
        self.problems.push(Problem { key: path.join("."), message: message.into(), origin });
    }

    /// Merges `table` into the configuration at `path`. `reference` is the same table of the defaults.
    fn merge_table(&mut self, reference: &Table, path: &[&str], table: Table, origin: &Origin) {
        for (key, value) in table {
            let path = [path, &[key.as_str()]].concat();
            match reference.get(&key) {
                None => self.add_unknown_key(reference, &path, origin),
                Some(default) => self.merge_value(default, &path, value, origin),
            }
        }
    }

    fn merge_value(&mut self, default: &Value, path: &[&str], value: Value, origin: &Origin) {
        let value = match (default, value) {
            (Value::Table(reference), Value::Table(table)) if !is_free_map(path) => {
                return self.merge_table(reference, path, table, origin);
            }
            // Accept an integer for a float: 1 means 1.0.
            #[allow(
                clippy::cast_precision_loss,
                reason = "a ratio as an integer is 0 or 1; other values are rejected"
            )]
            (Value::Float(_), Value::Integer(whole)) => Value::Float(whole as f64),
            (_, value) => value,
        };
        if !value.same_type(default) {
            let (expected, found) = (default.type_str(), value.type_str());
            return self.add_problem(path, format!("must be of type {expected}, not {found}"), origin);
        }
        let Some((last, parents)) = path.split_last() else { return };
        let mut target = &mut self.merged.table;
        for parent in parents {
            // The defaults contain every table on a valid path, so the next table always exists.
            let Some(Value::Table(next)) = target.get_mut(*parent) else { return };
            target = next;
        }
        target.insert((*last).to_owned(), value);
        self.merged.origins.insert(path.join("."), origin.clone());
    }

    /// Sets one key from an environment variable. The type of the default determines how the text is parsed.
    fn merge_variable(&mut self, defaults: &Table, path: &[String], name: String, raw: &str) {
        let origin = Origin::Variable(name);
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        let mut reference = defaults;
        for (depth, key) in path.iter().enumerate() {
            let here = &path[..=depth];
            let Some(default) = reference.get(*key).filter(|_| !is_free_map(&path[..depth])) else {
                return self.add_unknown_key(reference, here, &origin);
            };
            match default {
                Value::Table(next) if depth + 1 < path.len() => reference = next,
                _ if depth + 1 < path.len() => {
                    return self.add_unknown_key(&Table::new(), &path[..depth + 2], &origin);
                }
                default => return self.merge_text(default, &path, raw, &origin),
            }
        }
    }

    fn merge_text(&mut self, default: &Value, path: &[&str], raw: &str, origin: &Origin) {
        if matches!(self.merged.origins.get(&path.join(".")), Some(Origin::Variable(_))) {
            return self.add_problem(path, "is set by two variables whose names differ only in case", origin);
        }
        if default.is_str() {
            return self.merge_value(default, path, Value::from(raw), origin);
        }
        match raw.trim().parse::<Value>() {
            Ok(value) => self.merge_value(default, path, value, origin),
            Err(_) => {
                self.add_problem(
                    path,
                    format!("must be a TOML value of type {}", default.type_str()),
                    origin,
                );
            }
        }
    }

    fn add_unknown_key(&mut self, reference: &Table, path: &[&str], origin: &Origin) {
        let (_, parents) = path.split_last().unwrap_or((&"", &[]));
        let message = if is_free_map(parents) {
            format!("cannot be set individually: set all of `{}` as a TOML table", parents.join("."))
        } else if reference.is_empty() {
            "is not a known key".to_owned()
        } else {
            let known: Vec<&str> = reference.keys().map(String::as_str).collect();
            format!("is not a known key; known keys are {}", known.join(", "))
        };
        self.add_problem(path, message, origin);
    }
}

fn is_free_map(path: &[&str]) -> bool {
    let is_it = |map: &str| {
        let names = map.split('.');
        names.clone().count() == path.len() && names.zip(path).all(|(name, key)| name == "*" || name == *key)
    };
    FREE_MAPS.into_iter().any(is_it)
}

/// Returns the key path of a variable, or `None` if the variable does not belong to the configuration.
fn parse_variable_name(variable: &str) -> Option<Vec<String>> {
    let variable = variable.to_lowercase();
    let path = variable.strip_prefix(VARIABLE_PREFIX)?;
    path.contains("__").then(|| path.split("__").map(str::to_owned).collect())
}

fn read_file(path: PathBuf) -> Result<(Table, Origin), ConfigError> {
    let text =
        fs::read_to_string(&path).map_err(|source| ConfigError::Read { path: path.clone(), source })?;
    Ok((parse(&text, path.clone())?, Origin::File(path)))
}

fn parse(text: &str, path: PathBuf) -> Result<Table, ConfigError> {
    text.parse().map_err(|error: toml::de::Error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        ConfigError::Parse {
            path,
            line: before.matches('\n').count() + 1,
            message: error.message().to_owned(),
        }
    })
}
