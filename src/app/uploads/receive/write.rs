//! Writes one part to the store. A part of an upload that can be resumed is also recorded, so that whoever goes on, wherever,
//! knows of it.

use std::sync::Arc;

use super::budget::Room;
use crate::{
    app::{
        App, Error,
        uploads::{
            open::{OpenUpload, lease_seconds},
            target::of_parts,
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

/// A part that is in the store.
pub(super) struct WrittenPart {
    pub(super) receipt: PartReceipt,
    pub(super) crc64nvme: Crc64,
}

/// What is known of the bytes up to the end of a part, for whoever goes on behind it.
pub(super) struct Mark {
    /// The state of the digest.
    pub(super) sha256_state: Vec<u8>,
    /// What the first bytes were recognised as; it counts with the first part.
    pub(super) sniffed_mime_type: Option<String>,
}

/// A part to write. It holds what it needs by itself: the stream that it came from may have ended.
pub(super) struct PartWrite {
    app: Arc<App>,
    tenant: TenantId,
    lease: UploadLease,
    store: Arc<dyn ObjectStorage>,
    key: ObjectKey,
    multipart: MultipartId,
    number: u32,
    mark: Option<Mark>,
}

impl PartWrite {
    /// Part `number` of an upload; with a mark it is recorded.
    pub(super) fn of(
        app: &Arc<App>,
        tenant: TenantId,
        open: &OpenUpload,
        number: u32,
        mark: Option<Mark>,
    ) -> Self {
        Self {
            app: Arc::clone(app),
            tenant,
            lease: open.lease(),
            store: Arc::clone(&open.target().store),
            key: open.target().key.clone(),
            multipart: open.multipart().clone(),
            number,
            mark,
        }
    }

    /// Writes it, gives its room back, and records it.
    pub(super) async fn run(self, body: Payload, room: Room) -> Result<WrittenPart, Error> {
        let receipt = self.store.put_part(&self.key, &self.multipart, self.number, body.clone()).await;
        let crc64nvme = body.crc64nvme();
        drop((body, room));
        let receipt = match receipt {
            Err(error) if error.kind == StorageErrorKind::NotFound && self.mark.is_some() => {
                return Err(self.why_gone().await?);
            }
            receipt => receipt.map_err(of_parts)?,
        };
        let written = WrittenPart { receipt, crc64nvme };
        if let Some(mark) = &self.mark {
            self.record(mark, &written).await?;
        }
        Ok(written)
    }

    /// Why the unfinished object of an upload that can be gone on with is gone: it was put together before, and the commit
    /// behind that failed; or the upload is not ours any more.
    async fn why_gone(&self) -> Result<Error, Error> {
        let mut tx = self.app.db.tenant_tx(self.tenant, &Viewer::system()).await?;
        let renewed = uploads::grow(&mut tx, self.lease, 0, lease_seconds(&self.app)).await;
        if !tx.finish(renewed).await? {
            return Ok(Error::UploadFenced);
        }
        let whole = self.store.head(&self.key).await.map_err(of_parts)?;
        Ok(Error::UploadEnds { size_bytes: whole.size_bytes })
    }

    async fn record(&self, mark: &Mark, written: &WrittenPart) -> Result<(), Error> {
        let PartReceipt { number, size_bytes, etag } = written.receipt.clone();
        let sha256_state = mark.sha256_state.clone();
        let part = StoredPart { number, size_bytes, etag, crc64nvme: written.crc64nvme, sha256_state };
        let mut tx = self.app.db.tenant_tx(self.tenant, &Viewer::system()).await?;
        let sniffed = mark.sniffed_mime_type.as_deref();
        let lease_seconds = lease_seconds(&self.app);
        let recorded = upload_parts::record(&mut tx, self.lease, &part, sniffed, lease_seconds).await;
        match tx.finish(recorded).await? {
            true => Ok(()),
            false => Err(Error::UploadFenced),
        }
    }
}
