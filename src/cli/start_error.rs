//! Errors that prevent a server or worker from starting, or that stop it.

use super::providers::OpenError;
use crate::{
    admission::shared_rates::RedisUrlError,
    db::{DbError, DurabilityError, PoolerError, RoleError, SchemaError},
    domain::policy::UnknownPreset,
};

/// The error with which a server or worker process ends.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Database(#[from] DbError),
    #[error(transparent)]
    Pooler(#[from] PoolerError),
    #[error(transparent)]
    Role(#[from] RoleError),
    #[error(transparent)]
    Durability(#[from] DurabilityError),
    #[error(transparent)]
    Schema(#[from] SchemaError),
    #[error(transparent)]
    Storage(#[from] OpenError),
    #[error(transparent)]
    RedisUrl(#[from] RedisUrlError),
    #[error("tenants.preset: {0}")]
    Preset(#[from] UnknownPreset),
    #[error("failed to load the keys of auth.issuers: {0}")]
    Auth(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error(
        "refusing to start: preset `{0}` requires virus scans, and this version has no scanner; \
         set scanning.accept_unscanned = true to accept unscanned files"
    )]
    ScanRequired(String),
    #[error("secrets.page_token_key is not 32 bytes in base64; generate one with `openssl rand -base64 32`")]
    PageTokenKey,
    #[error("failed to serve the HTTP port for probes and metrics: {0}")]
    Listen(#[from] std::io::Error),
    #[error("failed to serve: {0}")]
    Serve(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("background work failed: {0}")]
    Work(#[source] Box<dyn std::error::Error + Send + Sync>),
}
