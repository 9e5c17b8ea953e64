//! Opens the configured storage providers, and the buckets that imports read from.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    config::{
        ImportsConfig, StorageConfig,
        import_source::SourceLocation,
        provider::{self, ProviderConfig, S3Config},
    },
    domain::clock::{Clock, IdSource},
    storage::{
        self, AdapterOptions, Encryption, InitOptions, ObjectStorage, PayloadSigning, S3Credentials,
        S3Options, SourceBucket, StorageError, StorageOptions, StoreLimits, Stores,
    },
};

/// A storage provider or an import source could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("failed to open {key}: {source}")]
pub struct OpenError {
    key: String,
    source: StorageError,
}

impl OpenError {
    fn for_provider(name: &str) -> impl FnOnce(StorageError) -> Self {
        let key = format!("storage.providers.{name}");
        move |source| Self { key, source }
    }
}

/// Opens every configured provider.
pub(super) fn open_stores(
    config: &StorageConfig,
    clock: &Arc<dyn Clock>,
    ids: &Arc<dyn IdSource>,
) -> Result<Stores, OpenError> {
    open_stores_with(config, clock, ids, |store| store)
}

/// Opens every configured provider and wraps its store with `wrap`.
pub(super) fn open_stores_with(
    config: &StorageConfig,
    clock: &Arc<dyn Clock>,
    ids: &Arc<dyn IdSource>,
    wrap: impl Fn(Arc<dyn ObjectStorage>) -> Arc<dyn ObjectStorage>,
) -> Result<Stores, OpenError> {
    let mut stores = Vec::new();
    for (name, provider) in &config.providers {
        let Some(adapter) = adapter_options(provider) else { continue };
        let opened =
            storage::open(&storage_options(config, name, adapter), Arc::clone(clock), Arc::clone(ids));
        stores.push(wrap(opened.map_err(OpenError::for_provider(name))?));
    }
    let limits = StoreLimits { operations_max: config.concurrency_max, downloads_max: config.downloads_max };
    Stores::new(stores, &config.provider, limits).map_err(OpenError::for_provider(&config.provider))
}

/// Opens the import sources that are buckets. Requests to them are retried as often as requests to storage
/// providers.
///
/// # Errors
/// Returns an error that names the source if its settings are invalid.
pub fn open_import_buckets(
    imports: &ImportsConfig,
    storage: &StorageConfig,
    ids: &Arc<dyn IdSource>,
) -> Result<BTreeMap<String, SourceBucket>, OpenError> {
    let mut buckets = BTreeMap::new();
    for (name, source) in &imports.sources {
        let SourceLocation::Bucket(place) = &source.location else { continue };
        let options = storage_options(storage, name, AdapterOptions::S3(Box::new(s3_options(&place.s3))));
        let opened = SourceBucket::open(&options, &place.prefix, Arc::clone(ids));
        let key = format!("imports.sources.{name}");
        buckets.insert(name.clone(), opened.map_err(|source| OpenError { key, source })?);
    }
    Ok(buckets)
}

/// Returns the options for initializing a provider.
pub(super) fn init_options(config: &StorageConfig, name: &str) -> InitOptions {
    let abort_incomplete_after_days = match config.providers.get(name) {
        Some(ProviderConfig::S3(s3)) => Some(s3.abandoned_multipart_days),
        _ => None,
    };
    InitOptions { abort_incomplete_after_days }
}

fn storage_options(config: &StorageConfig, name: &str, adapter: AdapterOptions) -> StorageOptions {
    StorageOptions {
        provider: name.to_owned(),
        adapter,
        retry_attempts_max: config.retry_attempts_max,
        retry_backoff_base: config.retry_backoff_base(),
        retry_backoff_max: config.retry_backoff_max(),
    }
}

/// Returns `None` for a local provider without a root directory, such as the one in the defaults.
fn adapter_options(provider: &ProviderConfig) -> Option<AdapterOptions> {
    Some(match provider {
        ProviderConfig::Local(local) => AdapterOptions::Local { root: local.root.clone()? },
        ProviderConfig::Memory => AdapterOptions::Memory,
        ProviderConfig::Discard => AdapterOptions::Discard,
        ProviderConfig::S3(s3) => AdapterOptions::S3(Box::new(s3_options(s3))),
    })
}

fn s3_options(s3: &S3Config) -> S3Options {
    let credentials = match (&s3.access_key_id, &s3.secret_access_key) {
        (Some(id), Some(secret)) => S3Credentials::Static {
            access_key_id: id.clone(),
            secret_access_key: secret.clone(),
            session_token: s3.session_token.clone(),
        },
        _ => S3Credentials::Environment,
    };
    S3Options {
        endpoint: s3.endpoint.as_ref().map(|url| url.as_str().trim_end_matches('/').to_owned()),
        region: s3.region.clone(),
        bucket: s3.bucket.clone(),
        bucket_per_tenant: s3.bucket_per_tenant,
        abandoned_multipart_days: Some(s3.abandoned_multipart_days),
        virtual_hosted_style: s3.virtual_hosted_style,
        credentials,
        payload_signing: match s3.payload_signing {
            provider::PayloadSigning::Auto => PayloadSigning::Auto,
            provider::PayloadSigning::Always => PayloadSigning::Always,
            provider::PayloadSigning::Never => PayloadSigning::Never,
        },
        encryption: match s3.encryption {
            provider::Encryption::None => Encryption::None,
            provider::Encryption::Aes256 => Encryption::Aes256,
            provider::Encryption::Kms => {
                Encryption::Kms { key_id: s3.kms_key_id.clone().unwrap_or_default() }
            }
        },
        storage_class: s3.storage_class.clone(),
        archive_storage_class: s3.archive_storage_class.clone(),
        tags: s3.tags.clone().into_iter().collect(),
        conditional_writes: s3.conditional_writes,
        allow_http: s3.allow_http,
        request_timeout: s3.request_timeout(),
        connect_timeout: s3.connect_timeout(),
        ca_file: s3.ca_file.clone(),
    }
}
