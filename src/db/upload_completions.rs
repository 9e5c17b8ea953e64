//! Completions of direct uploads: what the client named, with which a repeated completion is compared.

use std::collections::BTreeMap;

use diesel::{ExpressionMethods as _, QueryDsl as _};
use serde::{Deserialize, Serialize};

use super::{
    DbError, DbErrorKind, TenantTx,
    schema::uploads,
    sql::{OfTenant as _, query},
    uploads::{UploadLease, held_upload},
};
use crate::domain::{digest::Digest, ids::UploadId};

/// What the client named when it completed a direct upload.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadCompletion {
    /// The digest of the content, if the client named one then or when it created the upload.
    pub sha256: Option<Digest>,
    /// The digests of the etags, by part number. Digests, because clients choose the length of an etag.
    pub etags: BTreeMap<u32, Digest>,
}

/// Records the completion of an open upload. Returns false if the lease was lost.
pub async fn record(
    tx: &mut TenantTx,
    lease: UploadLease,
    completion: &UploadCompletion,
) -> Result<bool, DbError> {
    const OPERATION: &str = "record upload completion";
    let completion = serde_json::to_value(completion)
        .map_err(|error| DbError::new(DbErrorKind::Other, OPERATION, error))?;
    let update = diesel::update(held_upload!(tx, lease)).set(uploads::completion.eq(completion));
    Ok(query(OPERATION, update).execute(tx.connection()?).await? == 1)
}

/// Returns the recorded completion of an upload, if there is one.
pub async fn get(tx: &mut TenantTx, id: UploadId) -> Result<Option<UploadCompletion>, DbError> {
    const OPERATION: &str = "read upload completion";
    let completion = uploads::table.of(tx.tenant()).filter(uploads::id.eq(id)).select(uploads::completion);
    let stored: Option<Option<serde_json::Value>> =
        query(OPERATION, completion).first(tx.connection()?).await?;
    let read = |stored| serde_json::from_value(stored).map_err(|_| DbError::corrupt(OPERATION, "completion"));
    stored.flatten().map(read).transpose()
}
