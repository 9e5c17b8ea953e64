//! The grants of visitors: sealed, so that a visitor can neither read nor forge them, and nothing is stored before the
//! first use.

use chrono::Duration;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{find::FoundShare, visitors_of};
use crate::{
    admission::Holder,
    app::{App, Error},
    domain::{
        clock::Timestamp,
        ids::{ShareId, TenantId},
    },
};

/// How long a grant can be used to start or resume its download.
const LIFETIME: Duration = Duration::hours(1);

/// Distinguishes grants from other values that are sealed with the same key.
const PURPOSE: &[u8] = b"share grant";

/// The maximum length of a sealed grant.
const LENGTH_MAX: usize = 1_024;

/// The permission to download the file of a share once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Grant {
    pub(super) tenant: TenantId,
    pub(super) share: ShareId,
    /// The secret of the share that the visitor has presented. The grant ends when it changes.
    pub(super) secret_revision: i64,
    pub(super) id: Uuid,
    pub(super) expire_time: Timestamp,
}

impl Grant {
    pub(super) fn new(app: &App, found: &FoundShare) -> Self {
        Self {
            tenant: found.tenant,
            share: found.stored.share.id,
            secret_revision: found.stored.secret_revision,
            id: app.ids.uuid(),
            expire_time: found.now + LIFETIME,
        }
    }

    /// Returns the text that the visitor gets.
    pub(super) fn seal(&self, app: &App) -> Result<String, Error> {
        let grant = serde_json::to_vec(self).map_err(Error::internal)?;
        app.page_tokens.seal(PURPOSE, &grant).map_err(Error::internal)
    }

    /// Opens a grant, which may have expired. Returns `None` if this service did not seal it.
    pub(super) fn open(app: &App, text: &str) -> Option<Self> {
        if text.len() > LENGTH_MAX {
            return None;
        }
        serde_json::from_slice(&app.page_tokens.open(PURPOSE, text).ok()?).ok()
    }

    pub(super) fn holder(&self) -> Holder {
        visitors_of(self.tenant, self.share)
    }
}
