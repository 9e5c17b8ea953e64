//! Why a process of the service does not start, or does not run on.

use super::providers::OpenError;
use crate::{
    db::{DbError, RoleError},
    domain::policy::UnknownPreset,
};

/// Why the service does not start.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each variant wraps what its name says")]
pub enum StartError {
    #[error(transparent)]
    Database(#[from] DbError),
    #[error(transparent)]
    Role(#[from] RoleError),
    #[error(transparent)]
    Storage(#[from] OpenError),
    #[error("tenants.preset: {0}")]
    Preset(#[from] UnknownPreset),
    #[error("read the keys of auth.issuers: {0}")]
    Auth(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error(
        "refusing to start: the preset `{0}` demands a scan and this server has no scanner; \
         set scanning.accept_unscanned = true to accept files that nothing scanned"
    )]
    ScanRequired(String),
    #[error("secrets.page_token_key must be 32 bytes in base64")]
    PageTokenKey,
    #[error("listen: {0}")]
    Listen(#[from] std::io::Error),
    #[error("serve: {0}")]
    Serve(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("work: {0}")]
    Work(#[source] Box<dyn std::error::Error + Send + Sync>),
}
