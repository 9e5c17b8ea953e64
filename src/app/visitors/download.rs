//! Serves bytes of a file to a visitor.
//!
//! The first use of a grant counts as a download, in the transaction that reserves the bytes and writes the access log,
//! before the first byte is sent. Later uses resume it. A use that fails before its first byte is not counted any more
//! (`running`).

use std::{ops::Range, sync::Arc};

use futures::stream::BoxStream;
use secrecy::{ExposeSecret as _, SecretString};

use super::{
    ShareVisitor, VisitorError,
    attempts::count_unknown_token,
    find::{FoundShare, find_share},
    grant::Grant,
    log,
    payment::Payer,
    running::{CountedUse, VisitorPermission, recheck_interval},
    start_lookup,
};
use crate::{
    admission::Holder,
    app::{
        App, Error, Resource,
        files::{
            DownloadPiece,
            block_stream::checksums_max,
            count_downloads::CountedFile,
            download::{complete_slice, first_slice},
            verified_stream::{OpenedRange, RangeToRead},
        },
    },
    db::{
        DbError, TenantTx,
        share_grants::{self, GrantLimits, GrantUse, ReservedGrant, UseKind},
        share_visits::{RunningVisit, ShareKey},
        versions::{self, ReadableVersion},
    },
    domain::{
        access_log::AccessAction,
        block_checksums::BlockSlice,
        byte_range::ByteRangeRequest,
        digest::Digest,
        file::{ContentState, File},
        permission::Permission,
    },
};

/// How often a grant may serve the size of its file.
const SIZES_PER_GRANT: u64 = 2;
/// The maximum number of requests of a grant. A player that seeks in a video needs some hundreds.
const USES_PER_GRANT_MAX: i32 = 1_000;

/// A request of a visitor.
#[derive(Debug)]
pub struct DownloadShareRequest {
    pub grant: SecretString,
    pub range: ByteRangeRequest,
    /// The version that the share must serve; 0 means any.
    pub if_version: i32,
}

/// An open download of a visitor.
pub struct ShareDownload {
    pub name: String,
    pub mime_type: String,
    pub version: i32,
    pub permission: Permission,
    /// The range of the bytes that `bytes` returns.
    pub range: Range<u64>,
    /// The size of the whole version.
    pub total_bytes: u64,
    /// The SHA-256 of the whole version.
    pub sha256: Digest,
    /// Exactly the bytes of the range, or an error.
    pub bytes: BoxStream<'static, Result<DownloadPiece, Error>>,
}

/// A use of a grant whose bytes are reserved.
struct StartedUse {
    found: FoundShare,
    version: ReadableVersion,
    slice: BlockSlice,
    range: Range<u64>,
    used: GrantUse,
    kind: UseKind,
    is_new: bool,
}

/// Why a use of a grant was refused.
enum Refusal {
    /// The reason is logged; the visitor gets the same error as for an unknown grant.
    Closed(Box<FoundShare>, &'static str),
    Failed(Error),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<DbError> for Refusal {
    fn from(error: DbError) -> Self {
        Self::Failed(error.into())
    }
}

/// A grant of this service whose visitor is admitted.
#[derive(Debug)]
pub struct AdmittedGrant(Grant);

impl AdmittedGrant {
    /// Returns the holder of what the download uses.
    pub fn holder(&self) -> Holder {
        self.0.holder()
    }
}

/// Opens a grant, and makes the request one of the visitors of its share.
///
/// # Errors
/// Returns `NotFound` if this service did not create the grant, `AttemptsExhausted`, `RateLimited` or `Overloaded`.
pub async fn admit_grant(
    app: &Arc<App>,
    visitor: &Arc<ShareVisitor>,
    request: &DownloadShareRequest,
) -> Result<AdmittedGrant, Error> {
    let Some(grant) = Grant::open(app, request.grant.expose_secret()) else {
        return Err(count_unknown_in_task(app, visitor).await.unwrap_or_else(|error| error));
    };
    visitor.admission.admit(grant.holder())?;
    app.rates.count_visitor(grant.share)?;
    Ok(AdmittedGrant(grant))
}

/// Counts an attempt, although the visitor may disconnect: an interrupted transaction costs its connection.
async fn count_unknown_in_task(app: &Arc<App>, visitor: &Arc<ShareVisitor>) -> Result<Error, Error> {
    let lookup = start_lookup(app).await?;
    let (counting, visitor) = (Arc::clone(app), Arc::clone(visitor));
    let counted = app.tasks.spawn(async move {
        let _lookup = lookup;
        count_unknown_token(&counting, &visitor).await
    });
    counted.await.map_err(Error::internal)
}

/// Opens a download with a grant.
///
/// # Errors
/// Returns `NotFound` alike for a grant that has expired, and for one whose share is closed or exhausted;
/// `GrantSpent`, `EtagMismatch`, `ReadOutOfRange`, `ObjectMissing` or `ObjectDamaged`.
pub async fn download_share(
    app: &Arc<App>,
    visitor: Arc<ShareVisitor>,
    AdmittedGrant(grant): AdmittedGrant,
    request: DownloadShareRequest,
) -> Result<ShareDownload, Error> {
    // A task, because a use that is counted must be dropped as one, also if the visitor disconnects during the commit.
    let starting = start_counted_use(Arc::clone(app), visitor, grant, request);
    let (started, counted) = app.tasks.spawn(starting).await.map_err(Error::internal)??;
    serve(app, started, counted).await
}

async fn start_counted_use(
    app: Arc<App>,
    visitor: Arc<ShareVisitor>,
    grant: Grant,
    request: DownloadShareRequest,
) -> Result<(StartedUse, CountedUse), Error> {
    let mut tx = app.db.visitor_tx(grant.tenant, grant.holder()).await?;
    let started = start_use(&app, &mut tx, &visitor, &grant, &request).await;
    match tx.finish(started).await {
        Ok(started) => {
            let payer = Payer::of(&started.found, started.version.stored.version);
            let counted = CountedUse::new(&app, grant, started.used, started.kind, payer);
            Ok((started, counted))
        }
        Err(Refusal::Failed(error)) => Err(error),
        Err(Refusal::Closed(found, reason)) => {
            let entry = log::entry(&visitor, &found, action(&found), Some(reason));
            log::write_denial(&app, &visitor, &found, entry).await?;
            Err(Error::NotFound(Resource::Share))
        }
    }
}

/// Reserves the bytes of a range, counts the grant if this is its first use, and logs the access.
async fn start_use(
    app: &App,
    tx: &mut TenantTx,
    visitor: &ShareVisitor,
    grant: &Grant,
    request: &DownloadShareRequest,
) -> Result<StartedUse, Refusal> {
    let found = find_share(tx, ShareKey::Id(grant.share)).await?;
    let found = found.ok_or(Error::NotFound(Resource::Share))?;
    if let Some(reason) = stopped_reason(grant, &found) {
        return Err(Refusal::Closed(Box::new(found), reason));
    }
    let number = found.stored.share.pinned_version.unwrap_or(found.file.version);
    if request.if_version != 0 && request.if_version != number {
        return Err(Error::EtagMismatch.into());
    }
    let checksums_max = checksums_max(app);
    let mut slice = first_slice(&request.range, checksums_max);
    let version = versions::get_readable(tx, found.file.id, number, slice).await?;
    let Some(mut version) = version.filter(|version| is_readable(&found.file, version)) else {
        return Err(Refusal::Closed(Box::new(found), "version is not available"));
    };
    complete_slice(tx, &request.range, checksums_max, &mut version, &mut slice).await?;
    let size_bytes = version.stored.blob.size_bytes;
    let range = request.range.resolve(size_bytes).map_err(|_| Error::ReadOutOfRange { size_bytes })?;
    // An empty range counts as one byte, so that a grant does not serve it without end.
    let length = i64::try_from((range.end - range.start).max(1)).unwrap_or(i64::MAX);
    let limits = GrantLimits {
        bytes_max: i64::try_from(size_bytes.max(1).saturating_mul(SIZES_PER_GRANT)).unwrap_or(i64::MAX),
        uses_max: USES_PER_GRANT_MAX,
    };
    let used = GrantUse { id: grant.id, share: grant.share, expire_time: grant.expire_time, bytes: length };
    let Some(reserved) = share_grants::reserve(tx, &used, limits).await? else {
        return Err(
            Error::from(VisitorError::GrantSpent { size_bytes, use_count_max: USES_PER_GRANT_MAX }).into()
        );
    };
    if !reserved.is_counted
        && let Some(reason) = count_use(tx, &found, grant, &used, reserved, number).await?
    {
        return Err(Refusal::Closed(Box::new(found), reason));
    }
    let (kind, is_new) = (use_kind(&found), !reserved.is_counted);
    let mut entry = log::entry(visitor, &found, action(&found), None);
    entry.version = Some(number);
    match is_new {
        true => log::write(tx, entry).await?,
        false => log::write_uncounted(tx, visitor, &found, entry).await?,
    }
    Ok(StartedUse { found, version, slice, range, used, kind, is_new })
}

/// Counts the first use of a grant, and deducts its price. Returns why the use is refused: nothing must be committed
/// then.
async fn count_use(
    tx: &mut TenantTx,
    found: &FoundShare,
    grant: &Grant,
    used: &GrantUse,
    reserved: ReservedGrant,
    version: i32,
) -> Result<Option<&'static str>, Error> {
    if !share_grants::count(tx, used, grant.secret_revision, use_kind(found)).await? {
        return Ok(Some("share is exhausted"));
    }
    // A grant that was uncounted without a refund does not pay again.
    let price = if reserved.paid_credits > 0 { 0 } else { found.download_credits };
    let has_paid = Payer::of(found, version).pay(tx, price, used.id).await?;
    Ok((!has_paid).then_some("sharer has too few credits"))
}

fn stopped_reason(grant: &Grant, found: &FoundShare) -> Option<&'static str> {
    if grant.secret_revision != found.stored.secret_revision {
        return Some("secret of the share has changed");
    }
    if found.now >= grant.expire_time {
        return Some("grant has expired");
    }
    found.stopped_reason()
}

fn is_readable(file: &File, version: &ReadableVersion) -> bool {
    version.stored.content_state == ContentState::Available
        && File { content_state: version.stored.content_state, ..file.clone() }.check_readable().is_ok()
}

fn use_kind(found: &FoundShare) -> UseKind {
    match found.stored.share.permission {
        Permission::View => UseKind::View,
        Permission::Download | Permission::Delete => UseKind::Download,
    }
}

fn action(found: &FoundShare) -> AccessAction {
    match use_kind(found) {
        UseKind::View => AccessAction::View,
        UseKind::Download => AccessAction::Download,
    }
}

/// Opens the object of a started use. If that fails, the use is not counted any more.
async fn serve(app: &Arc<App>, started: StartedUse, counted: CountedUse) -> Result<ShareDownload, Error> {
    let StartedUse { found, version, slice, range, kind, is_new, .. } = started;
    let (tenant, holder) = (found.tenant, found.holder());
    let visit = RunningVisit {
        share: found.stored.share.id,
        secret_revision: found.stored.secret_revision,
        file: found.file.id,
        version: version.stored.version,
        category: found.file.category.clone(),
        policy_revision: found.policy_revision,
    };
    let expire_time = found.stored.share.expire_time;
    let hashes = version.stored.blob.hashes;
    let hashes = hashes.ok_or_else(|| Error::internal("available version without hashes"))?;
    let (total_bytes, mime_type) = (version.stored.blob.size_bytes, version.stored.mime_type.clone());
    let read = RangeToRead { tenant, holder, version, slice, range: range.clone() };
    let opened = OpenedRange::open(app, read).await?;
    let file = CountedFile { tenant, file: found.file.id };
    app.download_counts.record_access(file, app.clock.now(), is_new && kind == UseKind::Download);
    let version = visit.version;
    let permission = VisitorPermission { app: Arc::clone(app), tenant, visit, expire_time };
    let bytes = counted.count_bytes(opened.into_stream(Box::new(permission), recheck_interval(app)));
    Ok(ShareDownload {
        name: found.file.name,
        mime_type,
        version,
        permission: found.stored.share.permission,
        range,
        total_bytes,
        sha256: hashes.sha256,
        bytes,
    })
}
