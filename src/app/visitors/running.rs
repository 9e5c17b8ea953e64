//! Downloads of visitors in progress: whether they may continue, and what they have sent.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use async_trait::async_trait;
use futures::{Stream, StreamExt as _, stream::BoxStream};

use super::{find::find_share, grant::Grant, payment::Payer};
use crate::{
    app::{
        App, Error, Resource,
        files::{DownloadPiece, verified_stream::ReadPermission},
    },
    db::{
        TenantTx, Viewer,
        share_grants::{self, GrantUse, UseKind},
        share_visits::{self, RunningVisit, ShareKey},
        versions,
    },
    domain::{
        clock::Timestamp,
        file::ContentState,
        ids::{FileId, TenantId},
    },
};

/// The maximum interval at which a download checks whether its share is still open. A visitor can receive bytes for
/// this time after the share was closed, and those that are already on their way.
const RECHECK_INTERVAL_MAX: Duration = Duration::from_millis(250);

pub(super) fn recheck_interval(app: &App) -> Duration {
    app.limits.tenants.stream_recheck_interval().min(RECHECK_INTERVAL_MAX)
}

/// The permission of a visitor to read a version.
pub(super) struct VisitorPermission {
    pub(super) app: Arc<App>,
    pub(super) tenant: TenantId,
    pub(super) visit: RunningVisit,
    /// The expiry of the share when the download started.
    pub(super) expire_time: Option<Timestamp>,
}

impl VisitorPermission {
    async fn is_open(&self) -> Result<bool, Error> {
        // Not of the visitors' share, so that other visitors cannot delay the check.
        let mut tx = self.app.db.check_tx(self.tenant, &Viewer::system()).await?;
        let checked = self.is_open_in_tx(&mut tx).await;
        tx.finish(checked).await
    }

    async fn is_open_in_tx(&self, tx: &mut TenantTx) -> Result<bool, Error> {
        let visit = &self.visit;
        if share_visits::is_unchanged(tx, visit).await? {
            return Ok(true);
        }
        // The policy or the category may have changed in a way that still allows the download.
        let Some(found) = find_share(tx, ShareKey::Id(visit.share)).await? else { return Ok(false) };
        let version = versions::get(tx, visit.file, visit.version).await?;
        Ok(found.stored.secret_revision == visit.secret_revision
            && found.stopped_reason().is_none()
            && version.is_some_and(|version| version.content_state == ContentState::Available))
    }
}

#[async_trait]
impl ReadPermission for VisitorPermission {
    async fn check(&self) -> Result<(), Error> {
        // While the database is unavailable, the download continues, but not longer than the share.
        let has_expired = || self.expire_time.is_some_and(|end| end <= self.app.clock.now());
        match self.is_open().await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Error::NotFound(Resource::Share)),
            Err(Error::DatabaseUnavailable(_)) if has_expired() => Err(Error::NotFound(Resource::Share)),
            Err(error) => Err(error),
        }
    }

    fn file(&self) -> FileId {
        self.visit.file
    }
}

/// A counted use of a grant. When it is dropped, the reserved bytes that were not sent are released; if none was sent,
/// the use is not counted any more, and its price is refunded.
pub(super) struct CountedUse {
    app: Arc<App>,
    grant: Grant,
    used: GrantUse,
    kind: UseKind,
    payer: Payer,
    sent_bytes: i64,
}

impl CountedUse {
    pub(super) fn new(app: &Arc<App>, grant: Grant, used: GrantUse, kind: UseKind, payer: Payer) -> Self {
        Self { app: Arc::clone(app), grant, used, kind, payer, sent_bytes: 0 }
    }

    /// Returns the stream, whose bytes count as sent when they are taken from it.
    pub(super) fn count_bytes(
        self,
        bytes: BoxStream<'static, Result<DownloadPiece, Error>>,
    ) -> BoxStream<'static, Result<DownloadPiece, Error>> {
        CountedBytes { bytes, counted: self }.boxed()
    }
}

impl Drop for CountedUse {
    fn drop(&mut self) {
        let (app, holder, used, kind) = (Arc::clone(&self.app), self.grant.holder(), self.used, self.kind);
        let (tenant, sent, payer) = (self.grant.tenant, self.sent_bytes, self.payer.clone());
        if sent >= used.bytes {
            return;
        }
        let settle = async move {
            let settled = async {
                let mut tx = app.db.visitor_tx(tenant, holder).await?;
                let settled = match sent {
                    0 => undo(&mut tx, &used, kind, &payer).await,
                    sent => {
                        share_grants::release(&mut tx, used.id, used.bytes - sent).await.map_err(Error::from)
                    }
                };
                tx.finish(settled).await
            };
            // The grant serves fewer bytes than it could, and the use stays counted.
            if let Err(error) = settled.await {
                tracing::warn!(share = %used.share, %error, "failed to release the rest of a share grant");
            }
        };
        // It continues although its request has ended.
        drop(self.app.tasks.spawn(settle));
    }
}

/// Undoes a use that sent no byte, and refunds its price if the grant is not counted any more.
async fn undo(tx: &mut TenantTx, used: &GrantUse, kind: UseKind, payer: &Payer) -> Result<(), Error> {
    let paid_credits = share_grants::undo(tx, used, kind).await?;
    payer.refund(tx, used.id, paid_credits).await
}

struct CountedBytes {
    bytes: BoxStream<'static, Result<DownloadPiece, Error>>,
    counted: CountedUse,
}

impl Stream for CountedBytes {
    type Item = Result<DownloadPiece, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let polled = self.bytes.poll_next_unpin(context);
        match &polled {
            Poll::Ready(Some(Ok(piece))) => {
                let length = i64::try_from(piece.data.len()).unwrap_or(i64::MAX);
                self.counted.sent_bytes = self.counted.sent_bytes.saturating_add(length);
            }
            // An empty range is complete without a byte.
            Poll::Ready(None) => self.counted.sent_bytes = self.counted.sent_bytes.max(1),
            _ => {}
        }
        polled
    }
}
