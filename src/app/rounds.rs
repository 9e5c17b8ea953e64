//! Runs rounds of background work: lists a page of due items, processes one after the other, and reports the
//! result.
//!
//! Work on a store has a circuit breaker (`storage::GuardedStores`): a round ends early when the breaker opens.
//!
//! A failing item must not block the others: its error is logged and counted, and it is retried when the
//! rounds have processed all other items (see `rotation`). A round ends early only if the database or its store
//! is unreachable, because every further item would wait for it too.
//!
//! A round may be cancelled at any await, by a deadline or a shutdown. Nothing is lost: a transaction that is
//! dropped is rolled back, and every item stays due until the transaction that completes it, which deletes its row
//! after its bytes.

use super::{App, Error, owner::StoreRefusal, rotation::Rotation};
use crate::{
    db::blobs::TenantBlob,
    domain::{
        ids::{FileId, TenantId, UploadId},
        object_key::ObjectKey,
    },
    storage::ObjectStorage,
};

/// The result of one or more rounds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RoundReport {
    /// The number of completed items.
    pub done: usize,
    /// The number of failed items. Their errors are logged, and they are retried later.
    pub failed: usize,
    /// Whether more items may be due, so that the work should continue at once.
    pub has_more: bool,
}

impl std::ops::AddAssign for RoundReport {
    fn add_assign(&mut self, other: Self) {
        self.done += other.done;
        self.failed += other.failed;
        self.has_more |= other.has_more;
    }
}

/// The outcome of an item that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ItemOutcome {
    /// The item made progress, and counts as done.
    Done,
    /// A job that processes the item was enqueued. The job counts when it is done.
    Enqueued,
    /// The item is no longer due, or it waits for other work.
    Skipped,
}

impl ItemOutcome {
    /// Returns `Done` if something was done, and `Skipped` otherwise.
    pub(super) fn from_done(is_done: bool) -> Self {
        if is_done { Self::Done } else { Self::Skipped }
    }
}

/// The fields that identify an item in the log.
#[derive(Debug, Clone, Copy)]
pub(super) struct ItemFields<'a> {
    pub(super) tenant: TenantId,
    pub(super) file: Option<FileId>,
    pub(super) upload: Option<UploadId>,
    /// The key of the object.
    pub(super) key: Option<&'a ObjectKey>,
}

impl ItemFields<'_> {
    /// Identifies an item by its tenant only.
    pub(super) fn new(tenant: TenantId) -> Self {
        Self { tenant, file: None, upload: None, key: None }
    }
}

impl<'a> ItemFields<'a> {
    /// Identifies a blob.
    pub(super) fn of_blob(owned: &'a TenantBlob) -> Self {
        Self { key: Some(&owned.blob.key), ..ItemFields::new(owned.tenant) }
    }
}

/// The store that a round works on.
#[derive(Debug, Clone, Copy)]
pub(super) struct RoundStore<'a> {
    pub(super) provider: &'a str,
    /// Whether its circuit breaker has opened, so that further items would fail too.
    pub(super) is_blocked: bool,
}

impl<'a> RoundStore<'a> {
    pub(super) fn of(app: &App, store: &'a dyn ObjectStorage) -> Option<Self> {
        let provider = store.provider();
        Some(Self { provider, is_blocked: app.background_stores.rejects_calls(provider) })
    }
}

/// Returns the provider that the list of a round depends on, or an empty string.
fn provider_of<W: DueItems>(work: &W) -> &str {
    work.round_store().map_or("", |store| store.provider)
}

/// A list of due items, and how to process one of them.
pub(super) trait DueItems: Sync {
    type Item: Send + Sync;
    /// The position of an item in the list.
    type Position: Clone + Send + Sync;

    /// The processing of one item, as a bare verb phrase for the log, such as `delete blob`.
    const ACTION: &'static str;
    /// The number of items in a full page.
    const PAGE_ITEMS: usize;
    /// Whether the work on a store does nothing useful while deletions are disabled or wait.
    const NEEDS_DELETIONS: bool = true;
    /// The number of items that are processed together, in [`Self::process_batch`].
    const BATCH_ITEMS: usize = 1;

    /// Returns the store whose items are listed, or `None` if the list does not depend on a store.
    fn round_store(&self) -> Option<RoundStore<'_>> {
        None
    }

    /// Returns the first items after a position, or from the start, in the order of their positions.
    fn list_page(
        &self,
        after: Option<Self::Position>,
        limit: i64,
    ) -> impl Future<Output = Result<Vec<Self::Item>, Error>> + Send;

    fn position(item: &Self::Item) -> Self::Position;

    fn fields<'a>(&self, item: &'a Self::Item) -> ItemFields<'a>;

    /// Processes one item, which may have changed since it was listed.
    fn process(&self, item: &Self::Item) -> impl Future<Output = Result<ItemOutcome, Error>> + Send;

    /// Processes a batch, and returns the outcome of each item in their order.
    #[allow(clippy::manual_async_fn, reason = "an async fn would not promise that it is Send")]
    fn process_batch(
        &self,
        items: &[Self::Item],
    ) -> impl Future<Output = Vec<Result<ItemOutcome, Error>>> + Send {
        async move {
            let mut outcomes = Vec::with_capacity(items.len());
            for item in items {
                outcomes.push(self.process(item).await);
            }
            outcomes
        }
    }
}

/// Processes the next page of the items.
///
/// A round that finds nothing after its position starts over. The items of a round that was cancelled are
/// therefore processed by the next one, so that a store that hangs cannot look like one without work.
///
/// More may be due if an item was done, or if the page was full and no item failed. If items failed and none
/// was done, the next round waits for its tick. So does one after a round that started over.
///
/// # Errors
/// Returns an error if the items cannot be listed, or `DatabaseUnavailable` if the database becomes
/// unreachable. Completed items are not rolled back; the next round continues after the item that was being
/// processed.
pub(super) async fn run_round<W: DueItems>(
    work: &W,
    rotation: &Rotation<W::Position>,
) -> Result<RoundReport, Error> {
    let is_continued = rotation.position(provider_of(work)).is_some();
    let mut page = process_page(work, rotation).await?;
    let starts_over = is_continued && page.is_empty;
    if starts_over {
        page = process_page(work, rotation).await?;
    }
    let has_more = page.done > 0 || (!page.is_last && page.failed == 0 && !starts_over);
    Ok(RoundReport { done: page.done, failed: page.failed, has_more })
}

/// Runs a round for each store. Each has its own position, so that an unreachable store does not block the
/// others.
///
/// # Errors
/// Returns the errors of [`run_round`].
pub(super) async fn run_round_in_each_store<'a, W: DueItems>(
    app: &'a App,
    rotation: &Rotation<W::Position>,
    work_in: impl Fn(&'a dyn ObjectStorage) -> W,
) -> Result<RoundReport, Error> {
    let mut total = RoundReport::default();
    for store in app.background_stores.iter() {
        total += run_round_in_store(app, store.provider(), rotation, &work_in).await?;
    }
    Ok(total)
}

/// Whether work that deletes objects may run on a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OwnerCheck {
    MayRun,
    /// Deletions are disabled or wait.
    Waits,
    NotOwned,
}

/// Checks the owner of a store before a round of work that deletes objects.
async fn check_owner(app: &App, provider: &str, needs_deletions: bool) -> OwnerCheck {
    match app.owners.check_before_deletions(provider).await {
        Ok(Some(StoreRefusal::NotOwner(not_owner))) => {
            tracing::warn!(provider, error = %not_owner, "skipped a round of deletions");
            OwnerCheck::NotOwned
        }
        Ok(Some(refusal)) if needs_deletions => {
            tracing::debug!(provider, %refusal, "skipped a round of deletions");
            OwnerCheck::Waits
        }
        Ok(_) => OwnerCheck::MayRun,
        // Each deletion checks the owner again, and fails if that is not possible.
        Err(error) => {
            tracing::warn!(provider, %error, "failed to check the owner of a store");
            OwnerCheck::MayRun
        }
    }
}

/// Runs a round for one store. Does nothing while the circuit breaker of the store is open.
///
/// # Errors
/// Returns the errors of [`run_round`], and `ProviderUnknown` if the provider is not configured.
pub(super) async fn run_round_in_store<'a, W: DueItems>(
    app: &'a App,
    provider: &str,
    rotation: &Rotation<W::Position>,
    work_in: impl Fn(&'a dyn ObjectStorage) -> W,
) -> Result<RoundReport, Error> {
    let store = app.background_stores.get(provider)?;
    if app.background_stores.rejects_calls(provider) {
        tracing::debug!(provider, "skipped a round, because the circuit breaker of the store is open");
        return Ok(RoundReport::default());
    }
    match check_owner(app, provider, W::NEEDS_DELETIONS).await {
        OwnerCheck::MayRun => run_round(&work_in(store.as_ref()), rotation).await,
        OwnerCheck::Waits => Ok(RoundReport::default()),
        OwnerCheck::NotOwned => Ok(RoundReport { failed: 1, ..RoundReport::default() }),
    }
}

/// Processes all items once, page by page. Stops early after a page in which `done_max` is reached, and sets
/// `has_more` only then.
///
/// # Errors
/// Returns the errors of [`run_round`].
pub(super) async fn run_pass<W: DueItems>(work: &W, done_max: usize) -> Result<RoundReport, Error> {
    let rotation = Rotation::default();
    let mut total = RoundReport::default();
    loop {
        let page = process_page(work, &rotation).await?;
        total += RoundReport { done: page.done, failed: page.failed, has_more: false };
        if page.is_last {
            return Ok(total);
        }
        if total.done >= done_max {
            return Ok(RoundReport { has_more: true, ..total });
        }
    }
}

/// The result of one page.
struct ProcessedPage {
    done: usize,
    failed: usize,
    is_empty: bool,
    is_last: bool,
}

async fn process_page<W: DueItems>(
    work: &W,
    rotation: &Rotation<W::Position>,
) -> Result<ProcessedPage, Error> {
    let key = provider_of(work);
    let limit = i64::try_from(W::PAGE_ITEMS).unwrap_or(i64::MAX);
    let items = work.list_page(rotation.position(key), limit).await?;
    let (is_empty, is_last) = (items.is_empty(), items.len() < W::PAGE_ITEMS);
    let mut page = ProcessedPage { done: 0, failed: 0, is_empty, is_last };
    for batch in items.chunks(W::BATCH_ITEMS) {
        // Before the batch is processed: if it ends the round, by a panic for example, the next round continues
        // after it.
        rotation.advance(key, batch.last().map(W::position));
        // Boxed: the futures of items are large, and the future of a round would contain them.
        let outcomes = Box::pin(work.process_batch(batch)).await;
        for (item, outcome) in batch.iter().zip(outcomes) {
            match outcome {
                Ok(ItemOutcome::Done) => page.done += 1,
                Ok(ItemOutcome::Enqueued | ItemOutcome::Skipped) => {}
                Err(Error::DatabaseUnavailable(error)) if error.is_outage() => {
                    return Err(Error::DatabaseUnavailable(error));
                }
                Err(error) => {
                    log_failure(work, item, &error);
                    page.failed += 1;
                }
            }
        }
        if work.round_store().is_some_and(|store| store.is_blocked) {
            page.is_last = false;
            break;
        }
    }
    if page.is_last {
        rotation.advance(key, None);
    }
    Ok(page)
}

fn log_failure<W: DueItems>(work: &W, item: &W::Item, error: &Error) {
    let ItemFields { tenant, file, upload, key } = work.fields(item);
    tracing::warn!(
        %tenant,
        provider = work.round_store().map(|store| store.provider),
        file = file.map(display),
        upload = upload.map(display),
        key = key.map(display),
        %error,
        cause = std::error::Error::source(error).map(display),
        "failed to {}",
        W::ACTION
    );
}

#[cfg(test)]
mod tests;
