//! The files of `migrations/`, which `build.rs` embeds.

use std::collections::BTreeMap;

use diesel::{
    connection::BoxableConnection,
    migration::{Migration, MigrationMetadata, MigrationName, MigrationSource, MigrationVersion, Result},
    pg::Pg,
};

use super::template::{TemplateError, render};
use crate::domain::digest::Digest;

include!(concat!(env!("OUT_DIR"), "/migrations.rs"));

/// The revision of the functions in `migrations/functions/`. Each change of a function increments it, so that
/// an older version of the service recognizes a newer database.
pub(super) const FUNCTIONS_REVISION: u32 = 3;

/// The files of a migration.
pub(super) struct EmbeddedMigration {
    /// The name of its directory.
    pub(super) name: &'static str,
    up: &'static str,
    down: &'static str,
}

/// The file of a function.
pub(super) struct EmbeddedFunction {
    /// The name of the function in the schema `app`, and of its file.
    pub(super) name: &'static str,
    text: &'static str,
}

impl EmbeddedFunction {
    /// Returns the SQL that creates or replaces the function and grants the permission to execute it.
    pub(super) fn render(&self) -> std::result::Result<String, TemplateError> {
        render(&format!("functions/{}.sql", self.name), self.text, |_| None)
    }

    /// Returns the comment that marks a function that was created from this SQL.
    pub(super) fn comment(sql: &str) -> String {
        format!("sha256 {}", Digest::compute(sql.as_bytes()))
    }
}

/// Returns the SQL that creates or replaces all functions, and marks each with a digest of its SQL.
pub(super) fn render_functions() -> std::result::Result<String, TemplateError> {
    let mut batch = String::new();
    for function in FUNCTIONS {
        let sql = function.render()?;
        let comment = EmbeddedFunction::comment(&sql);
        batch.push_str(&format!("{sql}\nCOMMENT ON ROUTINE app.{} IS '{comment}';\n", function.name));
    }
    Ok(batch)
}

impl EmbeddedMigration {
    /// Returns the migration with its placeholders replaced. `functions` are the texts that it can include.
    pub(super) fn render(
        &self,
        functions: &BTreeMap<&str, String>,
    ) -> std::result::Result<RenderedMigration, TemplateError> {
        Ok(RenderedMigration {
            name: Name(self.name),
            up: render(&format!("{}/up.sql", self.name), self.up, |name| functions.get(name).cloned())?,
            down: render(&format!("{}/down.sql", self.name), self.down, |_| None)?,
        })
    }

    /// Returns the timestamp in its name.
    pub(super) fn version(&self) -> &'static str {
        version_in(self.name)
    }
}

/// Returns the timestamp in the name of a migration.
fn version_in(name: &'static str) -> &'static str {
    name.split('_').next().unwrap_or(name)
}

/// A migration that can be executed.
pub(super) struct RenderedMigration {
    name: Name,
    up: String,
    down: String,
}

#[derive(Debug, thiserror::Error)]
#[error("migration {name}: {source}")]
struct MigrationError {
    name: &'static str,
    source: diesel::result::Error,
}

impl RenderedMigration {
    fn execute(&self, connection: &mut dyn BoxableConnection<Pg>, sql: &str) -> Result<()> {
        let executed = connection.batch_execute(sql);
        executed.map_err(|source| MigrationError { name: self.name.0, source }.into())
    }
}

impl Migration<Pg> for RenderedMigration {
    fn run(&self, connection: &mut dyn BoxableConnection<Pg>) -> Result<()> {
        self.execute(connection, &self.up)
    }

    fn revert(&self, connection: &mut dyn BoxableConnection<Pg>) -> Result<()> {
        self.execute(connection, &self.down)
    }

    fn metadata(&self) -> &dyn MigrationMetadata {
        &InTransaction
    }

    fn name(&self) -> &dyn MigrationName {
        &self.name
    }
}

/// Each migration runs in a transaction, which is the default.
struct InTransaction;

impl MigrationMetadata for InTransaction {}

struct Name(&'static str);

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl MigrationName for Name {
    fn version(&self) -> MigrationVersion<'_> {
        version_in(self.0).into()
    }
}

/// All migrations, as the source that diesel reads.
pub(super) struct Migrations;

impl MigrationSource<Pg> for Migrations {
    fn migrations(&self) -> Result<Vec<Box<dyn Migration<Pg>>>> {
        let functions = functions_by_name()?;
        let rendered = MIGRATIONS.iter().map(|migration| Ok(Box::new(migration.render(&functions)?) as _));
        rendered.collect()
    }
}

/// Returns the SQL of each function, without the newline at its end.
fn functions_by_name() -> std::result::Result<BTreeMap<&'static str, String>, TemplateError> {
    FUNCTIONS.iter().map(|function| Ok((function.name, function.render()?.trim_end().to_owned()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_files_render() {
        let functions = functions_by_name().unwrap();
        for migration in MIGRATIONS {
            migration.render(&functions).unwrap();
        }
        for (name, text) in functions {
            assert!(text.contains(&format!(" app.{name}(")), "{name}");
        }
    }
}
