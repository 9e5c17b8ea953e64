//! Lays the sources over one another, and remembers who set what.
//!
//! `default.toml` holds every key, so it is also the schema: a source is compared with it key by key before
//! anything is deserialised. That finds all unknown keys and wrong types in one go, without ever quoting a
//! value.

use std::{collections::BTreeMap, fs, path::PathBuf};

use toml::{Table, Value};

use super::{
    DEFAULT_TOML,
    error::{ConfigError, Origin, Problem},
    schema::{self, Mention, Named},
};

/// What the names of our environment variables begin with, compared in lower case.
const VARIABLE_PREFIX: &str = "strongroom_";

/// Maps whose keys are the operator's own. A later source replaces them as a whole, so that a default entry
/// can also be taken away.
const FREE_MAPS: [&str; 3] = ["auth.roles", "tenants.presets", "storage.providers.*.tags"];

/// Where a configuration comes from, beside the compiled-in defaults.
#[derive(Debug, Clone)]
pub struct Sources<E> {
    /// A TOML file that holds what differs from the defaults.
    pub file: Option<PathBuf>,
    /// Environment variables, names and values. Those that do not begin with `STRONGROOM_`, or have no `__`
    /// in their name, belong to someone else and are left alone.
    pub env: E,
}

impl Sources<std::vec::IntoIter<(String, String)>> {
    /// A file and the environment of this process. Variables that are not UTF-8 are not ours and are passed
    /// over.
    pub fn of_process(file: Option<PathBuf>) -> Self {
        let utf8 = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        let env: Vec<_> = std::env::vars_os().filter_map(utf8).collect();
        Self { file, env: env.into_iter() }
    }
}

impl<E: Iterator<Item = (String, String)>> Sources<E> {
    /// Lays file and environment over the defaults.
    pub(super) fn merge(self) -> Result<Merged, ConfigError> {
        let mut defaults = parse(DEFAULT_TOML, PathBuf::from("default.toml"))?;
        let file = self.file.map(read).transpose()?;
        let mut variables: Vec<_> =
            self.env.filter_map(|(name, raw)| Some((path_of(&name)?, name, raw))).collect();
        variables.sort();
        let of_file = file.iter().cloned().map(|(table, origin)| Mention { table, origin });
        let of_variables = variables.iter().map(|(path, name, raw)| Mention::variable(path, name, raw));
        let mentions: Vec<_> = of_file.chain(of_variables).collect();
        let mut problems = Vec::new();
        let refused =
            Named::ALL.map(|kind| (kind, schema::add_named(kind, &mut defaults, &mentions, &mut problems)));
        let mut overlay =
            Overlay { merged: Merged { table: defaults.clone(), origins: BTreeMap::new() }, problems };
        if let Some((table, origin)) = file {
            let table =
                refused.iter().fold(table, |table, (kind, names)| schema::without(*kind, table, names));
            overlay.table(&defaults, &[], table, &origin);
        }
        let is_refused = |path: &[String]| match path {
            [section, named, name, ..] => {
                let is_of = |kind: &Named| kind.path() == [section.as_str(), named.as_str()];
                refused.iter().any(|(kind, names)| is_of(kind) && names.contains(name))
            }
            _ => false,
        };
        for (path, name, raw) in variables.into_iter().filter(|(path, ..)| !is_refused(path)) {
            overlay.variable(&defaults, &path, name, &raw);
        }
        if overlay.problems.is_empty() {
            Ok(overlay.merged)
        } else {
            Err(ConfigError::Refused(overlay.problems))
        }
    }
}

/// All sources in one table.
#[derive(Debug)]
pub(super) struct Merged {
    table: Table,
    origins: BTreeMap<String, Origin>,
}

impl Merged {
    /// Takes a section out. One that is missing is empty, and is then refused for its missing keys.
    pub(super) fn take_section(&mut self, name: &str) -> Value {
        self.table.remove(name).unwrap_or_else(|| Value::Table(Table::new()))
    }

    /// Takes the tables of this kind out, by name.
    pub(super) fn take_named(&mut self, kind: Named) -> Vec<(String, Table)> {
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

    /// Who set this key, or something around or inside it; none when it is a default.
    pub(super) fn origin(&self, key: &str) -> Option<Origin> {
        let related = |set: &str| {
            let inside = |inner: &str, outer: &str| {
                inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
            };
            inside(key, set) || inside(set, key)
        };
        self.origins.iter().find(|(set, _)| related(set)).map(|(_, origin)| origin.clone())
    }

    /// What a section's deserialiser refused. Its error names the path as a last line: "in `a.b`".
    pub(super) fn problem(&self, section: &str, error: &toml::de::Error) -> Problem {
        let text = error.to_string();
        let path = text.lines().last().and_then(|line| line.strip_prefix("in `")?.strip_suffix('`'));
        let key = path.map_or_else(|| section.to_owned(), |path| format!("{section}.{path}"));
        Problem { origin: self.origin(&key), message: format!("is refused: {}", error.message()), key }
    }
}

struct Overlay {
    merged: Merged,
    problems: Vec<Problem>,
}

impl Overlay {
    fn refuse(&mut self, path: &[&str], message: impl Into<String>, origin: &Origin) {
        let origin = Some(origin.clone());
        self.problems.push(Problem { key: path.join("."), message: message.into(), origin });
    }

    /// Lays `table` over what stands at `path`; `reference` is the same table of the defaults.
    fn table(&mut self, reference: &Table, path: &[&str], table: Table, origin: &Origin) {
        for (key, value) in table {
            let path = [path, &[key.as_str()]].concat();
            match reference.get(&key) {
                None => self.unknown(reference, &path, origin),
                Some(default) => self.value(default, &path, value, origin),
            }
        }
    }

    fn value(&mut self, default: &Value, path: &[&str], value: Value, origin: &Origin) {
        let value = match (default, value) {
            (Value::Table(reference), Value::Table(table)) if !is_free_map(path) => {
                return self.table(reference, path, table, origin);
            }
            // Whoever writes 1 for 1.0 means it.
            #[allow(
                clippy::cast_precision_loss,
                reason = "a ratio as an integer is 0 or 1; anything else is refused"
            )]
            (Value::Float(_), Value::Integer(whole)) => Value::Float(whole as f64),
            (_, value) => value,
        };
        if !value.same_type(default) {
            let (expected, found) = (default.type_str(), value.type_str());
            return self.refuse(path, format!("must be of type {expected}, not {found}"), origin);
        }
        let Some((last, parents)) = path.split_last() else { return };
        let mut target = &mut self.merged.table;
        for parent in parents {
            // The defaults hold every table that a path can go through, so there is always a next one.
            let Some(Value::Table(next)) = target.get_mut(*parent) else { return };
            target = next;
        }
        target.insert((*last).to_owned(), value);
        self.merged.origins.insert(path.join("."), origin.clone());
    }

    /// Sets one key from a variable. The type of the default says how the text is read.
    fn variable(&mut self, defaults: &Table, path: &[String], name: String, raw: &str) {
        let origin = Origin::Variable(name);
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        let mut reference = defaults;
        for (depth, key) in path.iter().enumerate() {
            let here = &path[..=depth];
            let Some(default) = reference.get(*key).filter(|_| !is_free_map(&path[..depth])) else {
                return self.unknown(reference, here, &origin);
            };
            match default {
                Value::Table(next) if depth + 1 < path.len() => reference = next,
                _ if depth + 1 < path.len() => {
                    return self.unknown(&Table::new(), &path[..depth + 2], &origin);
                }
                default => return self.text(default, &path, raw, &origin),
            }
        }
    }

    fn text(&mut self, default: &Value, path: &[&str], raw: &str, origin: &Origin) {
        if matches!(self.merged.origins.get(&path.join(".")), Some(Origin::Variable(_))) {
            return self.refuse(
                path,
                "is set by two variables that differ only in upper and lower case",
                origin,
            );
        }
        if default.is_str() {
            return self.value(default, path, Value::from(raw), origin);
        }
        match raw.trim().parse::<Value>() {
            Ok(value) => self.value(default, path, value, origin),
            Err(_) => {
                self.refuse(path, format!("must be a TOML value of type {}", default.type_str()), origin);
            }
        }
    }

    fn unknown(&mut self, reference: &Table, path: &[&str], origin: &Origin) {
        let (_, parents) = path.split_last().unwrap_or((&"", &[]));
        let message = if is_free_map(parents) {
            format!("cannot be set alone: give all of `{}` as a TOML table", parents.join("."))
        } else if reference.is_empty() {
            "is no key".to_owned()
        } else {
            let known: Vec<&str> = reference.keys().map(String::as_str).collect();
            format!("is no key; known here are {}", known.join(", "))
        };
        self.refuse(path, message, origin);
    }
}

fn is_free_map(path: &[&str]) -> bool {
    let is_it = |map: &str| {
        let names = map.split('.');
        names.clone().count() == path.len() && names.zip(path).all(|(name, key)| name == "*" || name == *key)
    };
    FREE_MAPS.into_iter().any(is_it)
}

/// The key that a variable sets; none when it is not one of ours.
fn path_of(variable: &str) -> Option<Vec<String>> {
    let variable = variable.to_lowercase();
    let path = variable.strip_prefix(VARIABLE_PREFIX)?;
    path.contains("__").then(|| path.split("__").map(str::to_owned).collect())
}

fn read(path: PathBuf) -> Result<(Table, Origin), ConfigError> {
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
