//! A client of the service that chooses one of the running processes for each attempt, and repeats calls that fail
//! because a process was killed.

use std::{collections::BTreeMap, future::Future, sync::Arc};

use strongroom::{
    client::{Client, ClientError, ClientOptions, Code, Rejection, RetryPolicy},
    proto::v1::ErrorReason,
};

use super::{contents::Random, fleet::Fleet, journal::Journal};
use crate::server::Site;

/// The organization of all callers.
const ORGANIZATION: &str = "acme";
/// The number of connections that a caller keeps. Each start of a service has another address.
const CONNECTIONS_MAX: usize = 8;

/// The result of a call that was repeated until there was a response.
pub(super) enum Outcome<T> {
    Done(T),
    Refused(Box<Rejection>),
    /// A process was killed during the call, and the caller did not repeat it.
    Abandoned,
}

impl<T> Outcome<T> {
    /// Returns the response, or `None` if the call was abandoned.
    ///
    /// # Panics
    /// Panics if the service refused the call.
    pub(super) fn or_abandoned(self, what: &str) -> Option<T> {
        match self {
            Self::Done(response) => Some(response),
            Self::Abandoned => None,
            Self::Refused(rejection) => panic!("{what} was refused: {} {rejection}", rejection.reason_name),
        }
    }
}

pub(super) struct Caller {
    user: String,
    site: Arc<Site>,
    fleet: Arc<Fleet>,
    pub(super) journal: Arc<Journal>,
    pub(super) random: Random,
    connections: BTreeMap<String, Client>,
    /// Whether calls are abandoned at their first failure.
    pub(super) is_abandoning: bool,
}

impl Caller {
    pub(super) fn new(
        user: &str,
        site: &Arc<Site>,
        fleet: &Arc<Fleet>,
        journal: &Arc<Journal>,
        random: Random,
    ) -> Self {
        Self {
            user: user.to_owned(),
            site: site.clone(),
            fleet: fleet.clone(),
            journal: journal.clone(),
            random,
            connections: BTreeMap::new(),
            is_abandoning: false,
        }
    }

    /// Returns a connection to a running service, which may be killed at any time.
    pub(super) async fn client(&mut self) -> Client {
        loop {
            let address = self.fleet.wait_for_service(self.random.next()).await;
            if let Some(client) = self.connections.get(&address) {
                return client.clone();
            }
            let token = self.site.identity.token(&self.user, ORGANIZATION, "admin");
            // The caller repeats calls itself, with another service.
            let retry = RetryPolicy { attempts_max: 1, ..RetryPolicy::default() };
            let options = ClientOptions { retry, ..ClientOptions::new(address.clone(), token) };
            match Client::connect(options).await {
                Ok(client) => {
                    if self.connections.len() >= CONNECTIONS_MAX {
                        self.connections.clear();
                    }
                    self.connections.insert(address, client);
                }
                Err(error) => {
                    self.note_failure("connect", &error);
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    /// Calls until the service answers, unless the caller abandons its calls.
    pub(super) async fn repeat<T, F, Fut>(&mut self, what: &str, call: F) -> Outcome<T>
    where
        F: Fn(Client) -> Fut,
        Fut: Future<Output = Result<T, ClientError>>,
    {
        loop {
            let client = self.client().await;
            match call(client).await {
                Ok(response) => return Outcome::Done(response),
                Err(ClientError::Rejected(rejection)) if !is_temporary_rejection(&rejection) => {
                    return Outcome::Refused(rejection);
                }
                Err(error) => self.note_failure(what, &error),
            }
            if self.is_abandoning {
                self.journal.count_abandoned();
                return Outcome::Abandoned;
            }
            tokio::task::yield_now().await;
        }
    }

    /// Counts a failure that a kill can cause.
    ///
    /// # Panics
    /// Panics if a kill cannot cause it.
    pub(super) fn note_failure(&self, what: &str, error: &ClientError) {
        match error {
            ClientError::Transport { .. } => self.journal.count_repeat("connection broken"),
            ClientError::Rejected(rejection) if is_temporary_rejection(rejection) => {
                self.journal.count_repeat(&rejection.reason_name);
            }
            error => panic!("{what} failed: {error:?}"),
        }
    }
}

/// Returns whether a rejection only says that another attempt can succeed.
fn is_temporary_rejection(rejection: &Rejection) -> bool {
    matches!(rejection.code, Code::Unavailable | Code::DeadlineExceeded)
        || matches!(
            rejection.reason,
            ErrorReason::Overloaded
                | ErrorReason::RequestInProgress
                | ErrorReason::UploadStalled
                | ErrorReason::UploadNotFinished
                | ErrorReason::UploadFenced
                | ErrorReason::UploadOffsetGap
        )
}
