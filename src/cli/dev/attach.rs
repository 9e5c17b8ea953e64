//! Maintenance commands on the data of a running `strongroom dev`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::Args;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};

use super::{DEV_JSON, DevArgs, DevStorage, bucket, configure_local_storage, postgres, postgres::Postgres};
use crate::{
    cli::{Failure, load_config},
    config::{Config, provider::ProviderConfig},
};

/// Selects the data of a `strongroom dev` instead of the configured database and store.
#[derive(Debug, Args)]
pub(in crate::cli) struct DevDirectory {
    /// Use the database and the objects of `strongroom dev --data-dir DIR`, which must be running.
    #[arg(long, value_name = "DIR")]
    dev: Option<PathBuf>,
}

/// What a maintenance command needs of the `dev`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Need {
    Database,
    DatabaseAndObjects,
}

/// How to reach the data, as `dev.json` contains it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Attachment {
    url: String,
    system_url: String,
    storage: DevStorage,
    bucket: bucket::BucketArgs,
}

/// The part of `dev.json` that a maintenance command needs.
#[derive(Deserialize)]
struct DevServer {
    maintenance: Attachment,
}

impl Attachment {
    pub(super) fn new(args: &DevArgs, postgres: &Postgres) -> Self {
        let url = |login| postgres.url(login).expose_secret().to_owned();
        Self {
            url: url(postgres::APP_LOGIN),
            system_url: url(postgres::SYSTEM_LOGIN),
            storage: args.storage,
            bucket: args.bucket.clone(),
        }
    }
}

impl DevDirectory {
    /// Loads the configuration, and replaces the database and the store by those of the `dev`, if one is named.
    ///
    /// # Errors
    /// Fails if the `dev` is not running, or keeps its objects in memory and the command needs them.
    pub(in crate::cli) fn load_config(&self, file: Option<PathBuf>, need: Need) -> Result<Config, Failure> {
        let mut config = load_config(file)?;
        let Some(directory) = &self.dev else { return Ok(config) };
        let attachment = read_attachment(directory)?;
        if attachment.storage == DevStorage::Memory && need == Need::DatabaseAndObjects {
            return Err("this `strongroom dev` keeps objects in its memory, which no other process can read; start it \
                        without `--storage memory`"
                .into());
        }
        config.database.url = Some(SecretString::from(attachment.url));
        config.database.system_url = Some(SecretString::from(attachment.system_url));
        config.database.tls_ca_file = None;
        configure_local_storage(&mut config, &directory.canonicalize()?);
        match attachment.storage {
            DevStorage::Local => {}
            DevStorage::Memory => config.storage.set_primary_provider("memory", ProviderConfig::Memory),
            DevStorage::S3 => attachment.bucket.configure(&mut config)?,
        }
        Ok(config)
    }
}

fn read_attachment(directory: &Path) -> Result<Attachment, Failure> {
    let path = directory.join(DEV_JSON);
    let text = fs::read_to_string(&path).map_err(|error| {
        format!(
            "failed to read {} ({error}); start the server with `strongroom dev --data-dir {}`",
            path.display(),
            directory.display()
        )
    })?;
    let server: DevServer = serde_json::from_str(&text).map_err(|error| {
        format!("{} was not written by this version of `strongroom dev`: {error}", path.display())
    })?;
    Ok(server.maintenance)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(json: &str, need: Need) -> Result<Config, Failure> {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(DEV_JSON), json).unwrap();
        DevDirectory { dev: Some(directory.path().to_owned()) }.load_config(None, need)
    }

    fn json(storage: &str) -> String {
        format!(
            r#"{{"maintenance": {{"url": "postgres://a@%2Ftmp/x", "system_url": "postgres://b@%2Ftmp/x",
                "storage": "{storage}", "bucket": {{"s3_bucket": "files"}}}}}}"#
        )
    }

    #[test]
    fn dev_directory_replaces_database_and_store() {
        let config = load(&json("local"), Need::DatabaseAndObjects).unwrap();
        assert_eq!(config.database.url.unwrap().expose_secret(), "postgres://a@%2Ftmp/x");
        assert_eq!(config.storage.provider, "local");
        let config = load(&json("s3"), Need::DatabaseAndObjects).unwrap();
        assert_eq!(config.storage.provider, "s3");
    }

    #[test]
    fn objects_in_memory_are_refused() {
        load(&json("memory"), Need::Database).unwrap();
        let error = load(&json("memory"), Need::DatabaseAndObjects).unwrap_err().to_string();
        assert!(error.contains("--storage memory"), "{error}");
    }

    #[test]
    fn stopped_dev_is_reported_with_its_command() {
        let directory = tempfile::tempdir().unwrap();
        let stopped = DevDirectory { dev: Some(directory.path().to_owned()) };
        let error = stopped.load_config(None, Need::Database).unwrap_err().to_string();
        assert!(error.contains("strongroom dev --data-dir"), "{error}");
    }
}
