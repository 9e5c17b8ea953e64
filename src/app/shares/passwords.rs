//! Hashes passwords of shares outside of the async runtime. Limits the concurrent calls, because each takes 19 MiB of
//! memory and a core for tens of milliseconds.

use std::{sync::Arc, time::Duration};

use secrecy::SecretString;

use crate::{
    admission::{Holder, ShareLimits, ShareStatus, Shares},
    app::{Error, Workload},
    crypto::share_password::{self, SharePasswordError},
    domain::{digest::Digest, ids::RequestId},
};

/// The most concurrent calls of this process.
const PARALLEL_MAX: usize = 8;
/// How long a call waits for its turn.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// Hashes passwords. Its callers share the concurrent calls fairly.
#[derive(Debug, Clone)]
pub struct PasswordHashing(Arc<Shares>);

/// A hashed password.
#[derive(Debug, Clone)]
pub(super) struct HashedPassword {
    /// The hash in the PHC string format, with a random salt.
    pub(super) stored: String,
    /// Identifies the password in the payload of a request with an id. See `share_password::fingerprint_password`.
    pub(super) fingerprint: Option<Digest>,
}

impl PasswordHashing {
    pub(in crate::app) fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self(Shares::new(ShareLimits::slots(cores.clamp(2, PARALLEL_MAX))))
    }

    /// Returns the use of the concurrent calls.
    pub(in crate::app) fn status(&self) -> ShareStatus {
        self.0.status()
    }

    /// Hashes a password whose length was checked.
    ///
    /// # Errors
    /// Returns `Overloaded` if too many passwords are hashed at once.
    pub(super) async fn hash(
        &self,
        holder: Holder,
        password: SecretString,
        request_id: Option<RequestId>,
    ) -> Result<HashedPassword, Error> {
        self.run(holder, move || {
            let fingerprint = request_id
                .map(|id| share_password::fingerprint_password(&password, id.as_uuid().as_bytes()))
                .transpose()?;
            Ok(HashedPassword { stored: share_password::hash_password(&password)?, fingerprint })
        })
        .await
    }

    /// Returns whether a password is the one of a stored hash.
    ///
    /// # Errors
    /// Returns `Overloaded` if too many passwords are hashed at once.
    pub async fn verify(
        &self,
        holder: Holder,
        password: SecretString,
        stored: String,
    ) -> Result<bool, Error> {
        self.run(holder, move || share_password::verify_password(&password, &stored)).await
    }

    async fn run<T: Send + 'static>(
        &self,
        holder: Holder,
        work: impl FnOnce() -> Result<T, SharePasswordError> + Send + 'static,
    ) -> Result<T, Error> {
        let overloaded = |_| Error::Overloaded(Workload::Passwords);
        let slot = self.0.acquire(holder, 1, WAIT_MAX).await.map_err(overloaded)?;
        let hashed = tokio::task::spawn_blocking(move || {
            // The work continues after a cancellation, and so holds its slot until it ends.
            let _slot = slot;
            work()
        });
        hashed.await.map_err(Error::internal)?.map_err(Error::internal)
    }
}
