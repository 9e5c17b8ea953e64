//! Computes the SHA-256 of an upload while its bytes are received.
//!
//! Hashing costs more than all other work per byte, so one stream would be as fast as one core can hash. A
//! chunk is therefore hashed on another thread while the next one is received, one chunk at a time, which is
//! a third faster on two cores. The number of such chunks is limited to half the number of cores, because
//! many concurrent uploads use all cores anyway and the handover has a cost.

use std::sync::Arc;

use bytes::Bytes;
use tokio::{sync::Semaphore, task::JoinHandle};

use crate::{
    app::Error,
    domain::digest::{Digest, Hasher},
};

/// Smaller chunks are hashed faster than another thread wakes up.
const PARALLEL_BYTES_MIN: usize = 256 * 1024;

/// The maximum number of chunks hashed in the background. Each holds up to 2 MiB outside the byte budget; the
/// base of the memory limit includes them.
const PARALLEL_CHUNKS_MAX: usize = 8;

/// Limits the number of chunks hashed in the background. Cheap to clone.
#[derive(Debug, Clone)]
pub(in crate::app) struct HashingLimiter(Arc<Semaphore>);

impl HashingLimiter {
    pub(in crate::app) fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self(Arc::new(Semaphore::new((cores / 2).min(PARALLEL_CHUNKS_MAX))))
    }
}

/// The digest of the bytes received so far.
pub(super) struct StreamHasher {
    hashing: HashingLimiter,
    state: State,
}

enum State {
    Idle(Box<Hasher>),
    Running(JoinHandle<Box<Hasher>>),
    /// Hashing was cancelled in the middle of a chunk. Every later call returns an error.
    Lost,
}

impl StreamHasher {
    pub(super) fn new(hashing: &HashingLimiter) -> Self {
        Self::resume(hashing, Hasher::default())
    }

    /// Continues after bytes that were hashed before.
    pub(super) fn resume(hashing: &HashingLimiter, hasher: Hasher) -> Self {
        Self { hashing: hashing.clone(), state: State::Idle(Box::new(hasher)) }
    }

    /// Returns the state needed to continue after the bytes received so far.
    pub(super) async fn save_state(&mut self) -> Result<Vec<u8>, Error> {
        let hasher = self.hasher().await?;
        let state = hasher.state();
        self.state = State::Idle(hasher);
        Ok(state)
    }

    /// Adds the next bytes once the previous chunk is hashed.
    pub(super) async fn update(&mut self, data: &Bytes) -> Result<(), Error> {
        let mut hasher = self.hasher().await?;
        let permit = match data.len() >= PARALLEL_BYTES_MIN {
            true => Arc::clone(&self.hashing.0).try_acquire_owned().ok(),
            false => None,
        };
        self.state = match permit {
            Some(permit) => {
                let data = data.clone();
                State::Running(tokio::task::spawn_blocking(move || {
                    hasher.update(&data);
                    drop(permit);
                    hasher
                }))
            }
            None => {
                hasher.update(data);
                State::Idle(hasher)
            }
        };
        Ok(())
    }

    /// Returns the digest of the bytes received so far.
    pub(super) async fn digest(&mut self) -> Result<Digest, Error> {
        let hasher = self.hasher().await?;
        let digest = (*hasher).clone().finish();
        self.state = State::Idle(hasher);
        Ok(digest)
    }

    /// Returns the digest of all bytes.
    pub(super) async fn finish(mut self) -> Result<Digest, Error> {
        Ok(self.hasher().await?.finish())
    }

    async fn hasher(&mut self) -> Result<Box<Hasher>, Error> {
        match std::mem::replace(&mut self.state, State::Lost) {
            State::Idle(hasher) => Ok(hasher),
            State::Running(hashing) => hashing.await.map_err(Error::internal),
            State::Lost => Err(Error::internal("digest of upload was lost")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hashing(permits: usize) -> HashingLimiter {
        HashingLimiter(Arc::new(Semaphore::new(permits)))
    }

    #[tokio::test]
    async fn background_hashing_yields_the_same_digest() {
        let chunk: Vec<u8> = (0..PARALLEL_BYTES_MIN).map(|at| u8::try_from(at % 251).unwrap()).collect();
        let chunk = Bytes::from(chunk);
        let pieces = [chunk.clone(), chunk.slice(..100), chunk.clone(), chunk.slice(7..)];
        for permits in [0, 1] {
            let mut hasher = StreamHasher::new(&hashing(permits));
            for piece in &pieces {
                hasher.update(piece).await.unwrap();
            }
            assert_eq!(hasher.finish().await.unwrap(), Digest::compute(&pieces.concat()));
        }
    }

    #[tokio::test]
    async fn hashes_large_chunk_in_background_if_core_is_free() {
        let hashing = hashing(1);
        let permit = Arc::clone(&hashing.0).acquire_owned().await.unwrap();
        let mut hasher = StreamHasher::new(&hashing);
        let chunk = Bytes::from(vec![7; PARALLEL_BYTES_MIN]);
        hasher.update(&chunk).await.unwrap();
        assert!(matches!(hasher.state, State::Idle(_)));
        drop(permit);
        hasher.update(&chunk[..PARALLEL_BYTES_MIN - 1].to_vec().into()).await.unwrap();
        assert!(matches!(hasher.state, State::Idle(_)), "not worth it");
        hasher.update(&chunk).await.unwrap();
        assert!(matches!(hasher.state, State::Running(_)));
        hasher.finish().await.unwrap();
        assert_eq!(hashing.0.available_permits(), 1, "the core is free again");
    }
}
