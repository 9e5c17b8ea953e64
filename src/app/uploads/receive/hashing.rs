//! The SHA-256 of an upload, as its bytes go by.
//!
//! It costs more than everything else that happens to a byte, so one stream is as fast as one core can hash. A chunk is
//! therefore hashed on a thread beside while the next one is received, one chunk at a time: a third more on two cores. For
//! at most half as many chunks at once as there are cores, since many uploads keep all of them busy by themselves, and
//! handing over costs something.

use std::sync::Arc;

use bytes::Bytes;
use tokio::{sync::Semaphore, task::JoinHandle};

use crate::{
    app::Error,
    domain::digest::{Digest, Hasher},
};

/// Smaller chunks are hashed before another thread has woken up.
const BESIDE_BYTES_MIN: usize = 256 * 1024;

/// Each keeps a chunk, of at most 2 MiB, that no budget counts; all of them have room in the memory bound's base.
const BESIDE_MAX: usize = 8;

/// How many chunks may be hashed beside their streams at the same time. Cheap to clone.
#[derive(Debug, Clone)]
pub(in crate::app) struct Hashing(Arc<Semaphore>);

impl Hashing {
    pub(in crate::app) fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self(Arc::new(Semaphore::new((cores / 2).min(BESIDE_MAX))))
    }
}

/// The digest of all bytes so far.
pub(super) struct StreamHasher {
    hashing: Hashing,
    state: State,
}

enum State {
    Here(Box<Hasher>),
    Beside(JoinHandle<Box<Hasher>>),
    /// A chunk was given up on half way; only an error comes after it.
    Lost,
}

impl StreamHasher {
    pub(super) fn new(hashing: &Hashing) -> Self {
        Self::resumed(hashing, Hasher::default())
    }

    /// Goes on behind bytes that were hashed before.
    pub(super) fn resumed(hashing: &Hashing, hasher: Hasher) -> Self {
        Self { hashing: hashing.clone(), state: State::Here(Box::new(hasher)) }
    }

    /// All that there is to know for going on behind the bytes taken so far.
    pub(super) async fn put_down(&mut self) -> Result<Vec<u8>, Error> {
        let hasher = self.hasher().await?;
        let state = hasher.state();
        self.state = State::Here(hasher);
        Ok(state)
    }

    /// Takes the next bytes, once those before have been hashed.
    pub(super) async fn update(&mut self, data: &Bytes) -> Result<(), Error> {
        let mut hasher = self.hasher().await?;
        let beside = match data.len() >= BESIDE_BYTES_MIN {
            true => Arc::clone(&self.hashing.0).try_acquire_owned().ok(),
            false => None,
        };
        self.state = match beside {
            Some(permit) => {
                let data = data.clone();
                State::Beside(tokio::task::spawn_blocking(move || {
                    hasher.update(&data);
                    drop(permit);
                    hasher
                }))
            }
            None => {
                hasher.update(data);
                State::Here(hasher)
            }
        };
        Ok(())
    }

    /// The digest of the bytes taken so far.
    pub(super) async fn digest(&mut self) -> Result<Digest, Error> {
        let hasher = self.hasher().await?;
        let digest = (*hasher).clone().finish();
        self.state = State::Here(hasher);
        Ok(digest)
    }

    /// The digest of all bytes taken.
    pub(super) async fn finish(mut self) -> Result<Digest, Error> {
        Ok(self.hasher().await?.finish())
    }

    async fn hasher(&mut self) -> Result<Box<Hasher>, Error> {
        match std::mem::replace(&mut self.state, State::Lost) {
            State::Here(hasher) => Ok(hasher),
            State::Beside(hashing) => hashing.await.map_err(Error::internal),
            State::Lost => Err(Error::internal("the digest of an upload was lost")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hashing(permits: usize) -> Hashing {
        Hashing(Arc::new(Semaphore::new(permits)))
    }

    #[tokio::test]
    async fn bytes_have_one_digest_wherever_they_are_hashed() {
        let chunk: Vec<u8> = (0..BESIDE_BYTES_MIN).map(|at| u8::try_from(at % 251).unwrap()).collect();
        let chunk = Bytes::from(chunk);
        let pieces = [chunk.clone(), chunk.slice(..100), chunk.clone(), chunk.slice(7..)];
        for permits in [0, 1] {
            let mut hasher = StreamHasher::new(&hashing(permits));
            for piece in &pieces {
                hasher.update(piece).await.unwrap();
            }
            assert_eq!(hasher.finish().await.unwrap(), Digest::of(&pieces.concat()));
        }
    }

    #[tokio::test]
    async fn a_chunk_is_hashed_beside_where_a_core_is_free() {
        let hashing = hashing(1);
        let taken = Arc::clone(&hashing.0).acquire_owned().await.unwrap();
        let mut hasher = StreamHasher::new(&hashing);
        let chunk = Bytes::from(vec![7; BESIDE_BYTES_MIN]);
        hasher.update(&chunk).await.unwrap();
        assert!(matches!(hasher.state, State::Here(_)));
        drop(taken);
        hasher.update(&chunk[..BESIDE_BYTES_MIN - 1].to_vec().into()).await.unwrap();
        assert!(matches!(hasher.state, State::Here(_)), "not worth it");
        hasher.update(&chunk).await.unwrap();
        assert!(matches!(hasher.state, State::Beside(_)));
        hasher.finish().await.unwrap();
        assert_eq!(hashing.0.available_permits(), 1, "the core is free again");
    }
}
