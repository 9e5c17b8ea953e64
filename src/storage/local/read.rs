//! Downloads: pieces of a file, the next one being read while the caller has this one.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    ops::Range,
    sync::Arc,
};

use bytes::Bytes;
use futures::{StreamExt, future::BoxFuture, stream};
use tokio::task::JoinHandle;

use super::{
    super::{ByteStream, StorageError, StorageErrorKind, check_range},
    blocking,
    disk::{self, Disk, failed},
};
use crate::domain::object_key::ObjectKey;

/// Large enough that a hop to a blocking thread is nothing beside it, small enough to stay in a core's cache.
const READ_SIZE_BYTES: u64 = 512 * 1024;
const OPERATION: &str = "get object";

/// The first piece is read in the same hop that opens the file: small files take one.
pub(super) async fn get(
    disk: Arc<Disk>,
    key: ObjectKey,
    range: Range<u64>,
) -> Result<ByteStream, StorageError> {
    let (first, rest) = blocking(OPERATION, move || {
        let at = |error: io::Error| failed(error, OPERATION).with_key(&key);
        let mut file = File::open(disk.object_path(&key)).map_err(at)?;
        let size_bytes = disk::info(&key, &file.metadata().map_err(at)?, OPERATION)?.size_bytes;
        check_range(&range, size_bytes, OPERATION).map_err(|error| error.with_key(&key))?;
        file.seek(SeekFrom::Start(range.start)).map_err(at)?;
        let mut reader = Reader { file, key, remaining_bytes: range.end - range.start };
        Ok((reader.read()?, reader))
    })
    .await?;
    let first = stream::iter((!first.is_empty()).then_some(Ok(first)));
    Ok(first.chain(stream::try_unfold(ReadAhead::start(rest), ReadAhead::next)).boxed())
}

struct Reader {
    file: File,
    key: ObjectKey,
    remaining_bytes: u64,
}

impl Reader {
    /// Blocks. Empty at the end.
    fn read(&mut self) -> Result<Bytes, StorageError> {
        let wanted = self.remaining_bytes.min(READ_SIZE_BYTES);
        let mut piece = Vec::with_capacity(usize::try_from(wanted).unwrap_or_default());
        let read = (&self.file).take(wanted).read_to_end(&mut piece);
        let got = read.map_err(|error| failed(error, OPERATION).with_key(&self.key))? as u64;
        if got < wanted {
            let error = StorageError::new(StorageErrorKind::Damaged, OPERATION).with_key(&self.key);
            return Err(error.with_source("the file is shorter than it was"));
        }
        self.remaining_bytes -= got;
        Ok(piece.into())
    }
}

type Piece = Result<(Bytes, Reader), StorageError>;

struct ReadAhead(Option<JoinHandle<Piece>>);

impl ReadAhead {
    /// Nothing is left to do when nothing remains.
    fn start(mut reader: Reader) -> Self {
        Self(
            (reader.remaining_bytes > 0)
                .then(|| tokio::task::spawn_blocking(move || Ok((reader.read()?, reader)))),
        )
    }

    fn next(self) -> BoxFuture<'static, Result<Option<(Bytes, Self)>, StorageError>> {
        Box::pin(async move {
            let Some(task) = self.0 else { return Ok(None) };
            let panicked = |error| StorageError::new(StorageErrorKind::Other, OPERATION).with_source(error);
            let (piece, rest) = task.await.map_err(panicked)??;
            Ok(Some((piece, Self::start(rest))))
        })
    }
}
