//! What is learned of a file while its bytes go by: size, digest, type.

use bytes::Bytes;

use super::{
    hashing::{Hashing, StreamHasher},
    persisted::Persisted,
};
use crate::{
    app::Error,
    domain::{
        digest::Digest,
        media_type::{MediaKind, Settled, judged, settle},
        policy::{FileSizeLimits, TakenTypes},
        upload_spec::CheckedSpec,
    },
    media::sniff::{SNIFF_BYTES_MAX, sniff},
};

/// The bytes so far, without the bytes.
pub(in crate::app::uploads) struct Content {
    hasher: StreamHasher,
    received_bytes: u64,
    head: Vec<u8>,
    settled: Option<Settled>,
    name: String,
    declared_mime_type: String,
    declared_bytes: Option<u64>,
    declared_sha256: Option<Digest>,
    limits: FileSizeLimits,
    types: TakenTypes,
}

/// All that is known at the end.
pub(in crate::app::uploads) struct Measured {
    /// The size.
    pub(in crate::app::uploads) size_bytes: u64,
    /// The digest.
    pub(in crate::app::uploads) sha256: Digest,
    /// The type that counts.
    pub(in crate::app::uploads) mime_type: Settled,
    /// Its kind.
    pub(in crate::app::uploads) kind: MediaKind,
}

impl Content {
    /// A file of this spec that must keep these limits, and be of one of these types.
    pub(in crate::app::uploads) fn new(
        spec: &CheckedSpec,
        (limits, types): (FileSizeLimits, TakenTypes),
        hashing: &Hashing,
    ) -> Self {
        Self {
            hasher: StreamHasher::new(hashing),
            received_bytes: 0,
            head: Vec::new(),
            settled: None,
            name: spec.judged_name.clone(),
            declared_mime_type: spec.declared_mime_type.clone(),
            declared_bytes: spec.size_bytes,
            declared_sha256: spec.sha256,
            limits,
            types,
        }
    }

    /// Goes on behind bytes that are in the store; `sniffed` is what the first of them were recognised as, if there are any.
    pub(in crate::app::uploads) fn resumed(
        spec: &CheckedSpec,
        limits: (FileSizeLimits, TakenTypes),
        hashing: &Hashing,
        persisted: &Persisted,
        sniffed: Option<&str>,
    ) -> Result<Self, Error> {
        let received_bytes = persisted.size_bytes();
        let mut content = Self {
            hasher: StreamHasher::resumed(hashing, persisted.hasher()?),
            received_bytes,
            ..Self::new(spec, limits, hashing)
        };
        if received_bytes > 0 {
            content.settled = Some(content.settle(sniffed)?);
        }
        Ok(content)
    }

    /// Judges the first bytes now, however few there are: what is refused is not stored first.
    pub(super) fn judge(&mut self) -> Result<(), Error> {
        if self.settled.is_none() {
            self.settled = Some(self.settle(self.sniffed().as_deref())?);
        }
        self.check_size()
    }

    /// What the first bytes are recognised as.
    pub(super) fn sniffed(&self) -> Option<String> {
        sniff(&self.head)
    }

    /// The state of the digest behind the bytes taken so far.
    pub(super) async fn digest_state(&mut self) -> Result<Vec<u8>, Error> {
        self.hasher.put_down().await
    }

    /// The size that was said, if one was.
    pub(super) fn declared_bytes(&self) -> Option<u64> {
        self.declared_bytes
    }

    pub(super) fn received_bytes(&self) -> u64 {
        self.received_bytes
    }

    /// Takes the next bytes, unless they are more than declared or than a file of this kind may have.
    pub(super) async fn take(&mut self, data: &Bytes) -> Result<(), Error> {
        let received = self.received_bytes + data.len() as u64;
        if let Some(declared) = self.declared_bytes.filter(|declared| received > *declared) {
            return Err(Error::SizeMismatch { declared, received });
        }
        if self.settled.is_none() {
            let missing = SNIFF_BYTES_MAX - self.head.len();
            self.head.extend_from_slice(&data[..data.len().min(missing)]);
            if self.head.len() == SNIFF_BYTES_MAX {
                self.settled = Some(self.settle(self.sniffed().as_deref())?);
            }
        }
        self.received_bytes = received;
        self.check_size()?;
        self.hasher.update(data).await
    }

    /// Compares what was received with all that was said of it: with the spec, and with the finish message.
    pub(super) async fn check(&mut self, size_bytes: u64, sha256: Option<Digest>) -> Result<(), Error> {
        let received = self.received_bytes;
        for declared in [Some(size_bytes), self.declared_bytes].into_iter().flatten() {
            if declared != received {
                return Err(Error::SizeMismatch { declared, received });
            }
        }
        if sha256.is_none() && self.declared_sha256.is_none() {
            return Ok(());
        }
        let computed = self.hasher.digest().await?;
        match [sha256, self.declared_sha256].into_iter().flatten().all(|declared| declared == computed) {
            true => Ok(()),
            false => Err(Error::ChecksumMismatch { algorithm: "sha256" }),
        }
    }

    /// Closes the books.
    pub(super) async fn finish(mut self) -> Result<Measured, Error> {
        self.judge()?;
        let mime_type = self.settled.take().ok_or_else(|| Error::internal("a type that was not judged"))?;
        let kind = MediaKind::of(&mime_type.mime_type);
        let sha256 = self.hasher.finish().await?;
        Ok(Measured { size_bytes: self.received_bytes, sha256, mime_type, kind })
    }

    /// What the file is by its first bytes, if its category takes such files.
    fn settle(&self, sniffed: Option<&str>) -> Result<Settled, Error> {
        let settled = settle(&self.declared_mime_type, sniffed);
        self.types.check(&judged(&settled.mime_type, sniffed, &self.name))?;
        Ok(settled)
    }

    fn check_size(&self) -> Result<(), Error> {
        let kind = self.settled.as_ref().map(|settled| MediaKind::of(&settled.mime_type));
        check_size(self.received_bytes, kind, &self.limits)
    }
}

/// Whether a file of this kind may have so many bytes. While the kind is not known, the largest limit counts.
pub(in crate::app::uploads) fn check_size(
    bytes: u64,
    kind: Option<MediaKind>,
    limits: &FileSizeLimits,
) -> Result<(), Error> {
    let limit = kind.map_or_else(|| limits.largest(), |kind| limits.of(kind));
    if i64::try_from(bytes).is_ok_and(|bytes| bytes <= limit) {
        Ok(())
    } else {
        Err(Error::too_large(kind, bytes, limit))
    }
}
