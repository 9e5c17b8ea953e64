//! Downloads. The next piece is read while the caller processes the current one.

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
    super::{ByteStream, StorageError, StorageErrorKind, object::check_range},
    blocking::run_blocking,
    disk::{self, Disk, map_io_error},
};
use crate::domain::object_key::ObjectKey;

/// Large enough to make the cost of a thread hop negligible, small enough for a core's cache.
const READ_SIZE_BYTES: u64 = 512 * 1024;
const OPERATION: &str = "get object";

/// Opens the file and reads its first piece in one blocking task, so that a small file needs only one.
pub(super) async fn get(
    disk: Arc<Disk>,
    key: ObjectKey,
    range: Range<u64>,
) -> Result<ByteStream, StorageError> {
    let (first, rest) = run_blocking(OPERATION, move || {
        let at = |error: io::Error| map_io_error(error, OPERATION).with_key(&key);
        let mut file = File::open(disk.object_path(&key)).map_err(at)?;
        let size_bytes = disk::object_info(&key, &file.metadata().map_err(at)?, OPERATION)?.size_bytes;
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
    /// Reads the next piece, or returns an empty one at the end. Blocks the thread.
    fn read(&mut self) -> Result<Bytes, StorageError> {
        let wanted = self.remaining_bytes.min(READ_SIZE_BYTES);
        let mut piece = Vec::with_capacity(usize::try_from(wanted).unwrap_or_default());
        let read = (&self.file).take(wanted).read_to_end(&mut piece);
        let read_bytes = read.map_err(|error| map_io_error(error, OPERATION).with_key(&self.key))? as u64;
        if read_bytes < wanted {
            let error = StorageError::new(StorageErrorKind::Damaged, OPERATION).with_key(&self.key);
            return Err(error.with_source("file was truncated while it was read"));
        }
        self.remaining_bytes -= read_bytes;
        Ok(piece.into())
    }
}

type Piece = Result<(Bytes, Reader), StorageError>;

struct ReadAhead(Option<JoinHandle<Piece>>);

impl ReadAhead {
    /// Starts to read the next piece, unless nothing remains.
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
