//! Writes one part to the store. A part of a resumable upload is also recorded, so that any replica can
//! resume after it.

use std::sync::Arc;

use super::budget::BytePermit;
use crate::{
    app::{
        App, Error,
        uploads::UploadError,
        uploads::{
            open::{OpenUpload, lease_seconds},
            target::map_multipart_error,
        },
    },
    db::{
        Viewer,
        upload_parts::{self, StoredPart},
        uploads::{self, UploadLease},
    },
    domain::{checksum::Crc64, ids::TenantId, object_key::ObjectKey},
    storage::{MultipartId, ObjectStorage, PartReceipt, Payload, StorageErrorKind},
};

/// A part in the store.
pub(super) struct WrittenPart {
    pub(super) receipt: PartReceipt,
    pub(super) crc64nvme: Crc64,
}

/// The state needed to resume after a part.
pub(super) struct PartCheckpoint {
    /// The intermediate state of the digest.
    pub(super) sha256_state: Vec<u8>,
    /// The type detected from the first bytes. Only recorded with the first part.
    pub(super) sniffed_mime_type: Option<String>,
}

/// A part to write. It owns everything it needs, because its stream may have ended.
pub(super) struct PartWrite {
    app: Arc<App>,
    tenant: TenantId,
    lease: UploadLease,
    store: Arc<dyn ObjectStorage>,
    key: ObjectKey,
    multipart: MultipartId,
    number: u32,
    checkpoint: Option<PartCheckpoint>,
}

impl PartWrite {
    /// Creates the write of part `number` of an upload. A part with a checkpoint is recorded.
    pub(super) fn new(
        app: &Arc<App>,
        tenant: TenantId,
        open: &OpenUpload,
        number: u32,
        checkpoint: Option<PartCheckpoint>,
    ) -> Self {
        Self {
            app: Arc::clone(app),
            tenant,
            lease: open.lease(),
            store: Arc::clone(&open.target().store),
            key: open.target().key.clone(),
            multipart: open.multipart().clone(),
            number,
            checkpoint,
        }
    }

    /// Writes the part, releases its permit, and records it.
    pub(super) async fn write_and_record(
        self,
        body: Payload,
        permit: BytePermit,
    ) -> Result<WrittenPart, Error> {
        let receipt = self.store.put_part(&self.key, &self.multipart, self.number, body.clone()).await;
        let crc64nvme = body.crc64nvme();
        drop((body, permit));
        let receipt = match receipt {
            Err(error) if error.kind == StorageErrorKind::NotFound && self.checkpoint.is_some() => {
                return Err(self.missing_multipart_error().await?);
            }
            receipt => receipt.map_err(map_multipart_error)?,
        };
        let written = WrittenPart { receipt, crc64nvme };
        if let Some(checkpoint) = &self.checkpoint {
            self.record_part(checkpoint, &written).await?;
        }
        Ok(written)
    }

    /// Returns the error for a multipart upload that does not exist: either it was completed and the commit
    /// that follows failed, or another writer took over.
    async fn missing_multipart_error(&self) -> Result<Error, Error> {
        let mut tx = self.app.db.tenant_tx(self.tenant, &Viewer::system()).await?;
        let renewed = uploads::renew_lease(&mut tx, self.lease, lease_seconds(&self.app)).await;
        if !tx.finish(renewed).await? {
            return Ok(UploadError::Fenced.into());
        }
        let whole = self.store.head(&self.key).await.map_err(map_multipart_error)?;
        Ok(UploadError::HasAllBytes { size_bytes: whole.size_bytes }.into())
    }

    async fn record_part(&self, checkpoint: &PartCheckpoint, written: &WrittenPart) -> Result<(), Error> {
        let PartReceipt { number, size_bytes, etag } = written.receipt.clone();
        let sha256_state = checkpoint.sha256_state.clone();
        let part = StoredPart { number, size_bytes, etag, crc64nvme: written.crc64nvme, sha256_state };
        let mut tx = self.app.db.tenant_tx(self.tenant, &Viewer::system()).await?;
        let sniffed = checkpoint.sniffed_mime_type.as_deref();
        let lease_seconds = lease_seconds(&self.app);
        let recorded = upload_parts::record(&mut tx, self.lease, &part, sniffed, lease_seconds).await;
        match tx.finish(recorded).await? {
            true => Ok(()),
            false => Err(UploadError::Fenced.into()),
        }
    }
}
