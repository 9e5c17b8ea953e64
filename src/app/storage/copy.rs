//! Copies the bytes of a blob from one store to another, and compares them with what its row says on the way.

use bytes::Bytes;
use futures::StreamExt;

use crate::{
    app::Error,
    db::blobs::Blob,
    domain::{digest::Hasher, object_key::ObjectKey},
    storage::{ByteStream, MultipartId, ObjectStorage, PART_NUMBER_MAX, PartReceipt, Payload, PutOptions},
};

/// A blob on its way.
pub(super) struct Copy<'a> {
    pub(super) blob: &'a Blob,
    pub(super) from: &'a dyn ObjectStorage,
    pub(super) to: &'a dyn ObjectStorage,
    /// The new key: one that nobody has used.
    pub(super) key: &'a ObjectKey,
    pub(super) options: &'a PutOptions,
}

impl Copy<'_> {
    /// Makes the object, in one piece or in parts of about this size. It is there afterwards with the recorded size and
    /// SHA-256, or this fails.
    pub(super) async fn run(&self, part_size_bytes: u64) -> Result<(), Error> {
        let bytes = self.from.get(&self.blob.key, 0..self.blob.size_bytes).await?;
        let source = Source { bytes, rest: Bytes::new(), hasher: Hasher::default(), read_bytes: 0 };
        // A store takes no more parts than this; the largest objects have larger ones.
        let part_size_bytes = part_size_bytes.max(self.blob.size_bytes.div_ceil(u64::from(PART_NUMBER_MAX)));
        let written_bytes = if self.blob.size_bytes <= part_size_bytes {
            self.whole(source).await?
        } else {
            self.parts(source, part_size_bytes).await?
        };
        if written_bytes == self.blob.size_bytes { Ok(()) } else { Err(Error::ObjectDamaged) }
    }

    async fn whole(&self, mut source: Source) -> Result<u64, Error> {
        let body = source.read(self.blob.size_bytes).await?;
        source.compare(self.blob).await?;
        Ok(self.to.put(self.key, body, self.options).await?.size_bytes)
    }

    async fn parts(&self, source: Source, part_size_bytes: u64) -> Result<u64, Error> {
        let id = self.to.start_multipart(self.key, part_size_bytes, self.options).await?;
        let written = async {
            let receipts = self.put_parts(source, part_size_bytes, &id).await?;
            Ok(self.to.complete_multipart(self.key, &id, &receipts).await?.size_bytes)
        };
        let written = written.await;
        if written.is_err()
            && let Err(error) = self.to.abort_multipart(self.key, &id).await
        {
            // Whoever removes the copy finds it, because its row says that there may be one.
            tracing::warn!(key = %self.key, %error, "abort multipart upload");
        }
        written
    }

    /// The object comes to be only after the last byte was compared.
    async fn put_parts(
        &self,
        mut source: Source,
        part_size_bytes: u64,
        id: &MultipartId,
    ) -> Result<Vec<PartReceipt>, Error> {
        let mut receipts = Vec::new();
        for number in 1.. {
            let body = source.read(part_size_bytes).await?;
            if body.is_empty() {
                break;
            }
            receipts.push(self.to.put_part(self.key, id, number, body).await?);
        }
        source.compare(self.blob).await?;
        Ok(receipts)
    }
}

/// The bytes of the original, hashed as they are read.
struct Source {
    bytes: ByteStream,
    rest: Bytes,
    hasher: Hasher,
    read_bytes: u64,
}

impl Source {
    /// The next bytes: so many, or as many as there are.
    async fn read(&mut self, wanted_bytes: u64) -> Result<Payload, Error> {
        let (mut chunks, mut missing_bytes) = (Vec::new(), wanted_bytes);
        while missing_bytes > 0 {
            if self.rest.is_empty() {
                match self.bytes.next().await {
                    Some(piece) => self.rest = piece?,
                    None => break,
                }
                continue;
            }
            let taken = usize::try_from(missing_bytes).unwrap_or(usize::MAX).min(self.rest.len());
            let chunk = self.rest.split_to(taken);
            self.hasher.update(&chunk);
            missing_bytes -= chunk.len() as u64;
            chunks.push(chunk);
        }
        self.read_bytes += wanted_bytes - missing_bytes;
        Ok(chunks.into())
    }

    /// Whether what was read is what the row says, no byte more and no byte less.
    async fn compare(mut self, blob: &Blob) -> Result<(), Error> {
        let has_more = !self.rest.is_empty() || self.bytes.next().await.is_some();
        if has_more || self.read_bytes != blob.size_bytes || self.hasher.finish() != blob.sha256 {
            return Err(Error::ObjectDamaged);
        }
        Ok(())
    }
}
