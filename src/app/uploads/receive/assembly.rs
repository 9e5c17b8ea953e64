//! Assembles a part that is larger than a buffer. Each buffer becomes a fragment: a part of a second multipart upload
//! under a key of its own. The store then copies the object of the fragments into the part, and the object is deleted.
//! So a part of any size takes no more memory than a small one, and a failed request is repeated with its fragment
//! only.
//!
//! No row refers to the fragments. If the process ends in the meantime, the sweeper deletes them.

use std::sync::Arc;

use super::part::{PartWrite, WrittenPart};
use crate::{
    app::{
        App, Error,
        owner::delete::{Deletion, delete_from_store},
        uploads::{commit::delete_object, open::multipart::OpenMultipart},
    },
    domain::{checksum::Crc64, ids::BlobId, object_label::fragment_metadata},
    storage::{PartLayout, PartReceipt, PutOptions},
};

/// A part that is being assembled. Dropping it deletes its fragments.
pub(super) struct Assembly {
    app: Arc<App>,
    /// The upload that the part belongs to.
    upload: OpenMultipart,
    /// The number of the part.
    number: u32,
    /// The multipart upload of the fragments.
    fragments: OpenMultipart,
    next_fragment: u32,
    written: Vec<WrittenPart>,
}

impl Assembly {
    /// Starts to assemble a part.
    pub(super) async fn start(app: &Arc<App>, upload: OpenMultipart, number: u32) -> Result<Self, Error> {
        let mut target = upload.target.clone();
        target.blob_id = BlobId::from_uuid(app.ids.uuid());
        target.key = target
            .key
            .with_new_blob(app.clock.now().date_naive(), target.blob_id)
            .map_err(Error::internal)?;
        // The object must never be readopted as a file.
        target.options = PutOptions { equal_parts: None, metadata: fragment_metadata(), ..target.options };
        let part_size_bytes = upload.layout.part_size_bytes();
        let id = target.store.start_multipart(&target.key, part_size_bytes, &target.options).await?;
        let layout = PartLayout::equal(part_size_bytes);
        let fragments = OpenMultipart { target, id, layout, ..upload.clone() };
        Ok(Self { app: Arc::clone(app), upload, number, fragments, next_fragment: 1, written: Vec::new() })
    }

    /// Returns the write of the next fragment.
    pub(super) fn next_write(&mut self, app: &Arc<App>) -> PartWrite {
        let fragment = self.next_fragment;
        self.next_fragment += 1;
        PartWrite::new(app, self.fragments.clone(), fragment, None)
    }

    /// Returns the number of fragments so far.
    pub(super) fn fragment_count(&self) -> u64 {
        u64::from(self.next_fragment) - 1
    }

    /// Adds a fragment that was written.
    pub(super) fn add_written(&mut self, written: WrittenPart) {
        self.written.push(written);
    }

    /// Creates the part from all fragments, which were written.
    pub(super) async fn finish(mut self) -> Result<WrittenPart, Error> {
        self.written.sort_by_key(|fragment| fragment.receipt.number);
        let crc64nvme = self.written.iter().fold(Crc64::compute(&[]), |crc, fragment| {
            crc.combine(fragment.crc64nvme, fragment.receipt.size_bytes)
        });
        let receipts: Vec<PartReceipt> =
            self.written.iter().map(|fragment| fragment.receipt.clone()).collect();
        let OpenMultipart { target, id, .. } = &self.fragments;
        let store = &target.store;
        let whole = match store.complete_multipart(&target.key, id, &receipts, Some(crc64nvme)).await {
            Ok(whole) => whole,
            Err(error) => return Err(self.fragments.convert_error(&self.app, error).await),
        };
        let upload = &self.upload;
        match store.copy_part(&upload.target.key, &upload.id, self.number, &whole).await {
            Ok(receipt) => Ok(WrittenPart { receipt, crc64nvme }),
            Err(error) => Err(upload.convert_error(&self.app, error).await),
        }
    }
}

impl Drop for Assembly {
    fn drop(&mut self) {
        let target = self.fragments.target.clone();
        let id = self.fragments.id.clone();
        self.app.tasks.spawn(async move {
            let deletion = Deletion::Multipart(&target.key, &id);
            if let Err(error) = delete_from_store(target.store.as_ref(), deletion).await {
                tracing::warn!(key = %target.key, %error, "failed to abort the upload of fragments");
            }
            delete_object(&target).await;
        });
    }
}
