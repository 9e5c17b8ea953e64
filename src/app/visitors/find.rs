//! Finds the share of a visitor, and decides whether it is open.

use super::visitors_of;
use crate::{
    admission::Holder,
    app::Error,
    db::{
        TenantTx, files,
        share_visits::{self, ShareKey},
        shares::{self, StoredShare},
        tenants,
    },
    domain::{
        caller::TenantState,
        clock::Timestamp,
        file::File,
        ids::{ShareId, TenantId},
        policy::Policy,
        share::{ShareState, is_live},
    },
};

/// A share with its file, which may be closed.
#[derive(Debug)]
pub(super) struct FoundShare {
    pub(super) tenant: TenantId,
    pub(super) now: Timestamp,
    pub(super) tenant_state: Option<TenantState>,
    /// The price of a download; 0 if it is free.
    pub(super) download_credits: i64,
    pub(super) stored: StoredShare,
    pub(super) file: File,
    pub(super) policy: Policy,
    pub(super) policy_revision: i64,
}

/// Finds a share, which may be closed.
pub(super) async fn find_share(tx: &mut TenantTx, key: ShareKey) -> Result<Option<FoundShare>, Error> {
    let visited = share_visits::find(tx, key).await?;
    let no_share = ShareId::from_uuid(uuid::Uuid::nil());
    let stored = shares::get(tx, visited.share.unwrap_or(no_share)).await?;
    let Some(stored) = stored else { return Ok(None) };
    let Some(file) = files::get(tx, stored.share.file).await? else { return Ok(None) };
    let policy = tenants::get_policy(tx).await?;
    Ok(Some(FoundShare {
        tenant: tx.tenant(),
        now: visited.now,
        tenant_state: visited.tenant_state,
        download_credits: visited.download_credits,
        stored,
        file: file.file,
        policy: policy.policy,
        policy_revision: policy.revision,
    }))
}

impl FoundShare {
    pub(super) fn holder(&self) -> Holder {
        visitors_of(self.tenant, self.stored.share.id)
    }

    /// Returns why the share serves no new visitor, for the log. `None` if it does.
    pub(super) fn closed_reason(&self) -> Option<&'static str> {
        match self.stored.share.state(self.now) {
            ShareState::Exhausted => Some("share is exhausted"),
            _ => self.stopped_reason(),
        }
    }

    /// Returns why the share serves no bytes, for the log. An exhausted share still serves the grants that it has
    /// counted.
    pub(super) fn stopped_reason(&self) -> Option<&'static str> {
        let share = &self.stored.share;
        if self.tenant_state != Some(TenantState::Active) {
            return Some("tenant is not active");
        }
        match share.state(self.now) {
            ShareState::Revoked => Some("share is revoked"),
            ShareState::Expired => Some("share has expired"),
            _ if !share.share_type.is_link() => Some("share is not a link"),
            _ if !is_live(share, &self.file, &self.policy, self.now) => Some("file is not available"),
            _ => None,
        }
    }
}
