//! Scrubbing: background work reads every object once in a period, and compares it with its record: its size, SHA-256
//! and CRC-64. The originals of blobs and their copies are read alike.
//!
//! # Which objects are read
//!
//! A *pass* of a provider reads the objects that were last verified before its start, the oldest first
//! (`domain/scrub.rs`). Its state is in the database, so it survives restarts, and all processes share it: a process
//! *claims* the next few objects, and the rate limits all processes together. No object is read twice at a time, and a
//! process that crashes delays only the objects that it has claimed.
//!
//! # Fairness
//!
//! The reads use the stores of background work: they have the share of one tenant, and obey the circuit breakers. A
//! process reads one object of a provider at a time.
//!
//! # Damage
//!
//! Damage is confirmed by a second read (`damage.rs`). The versions of a damaged original change to ERROR, and are
//! repaired from the copy if there is one (`app/storage/repair.rs`). A damaged copy is replaced by a new copy of the
//! original (`app/storage/replicate.rs`). The failure of a store is not damage: the object is read again later.

mod count_left;
mod counts;
mod foreground;
mod pace;

use chrono::Duration;
use futures::StreamExt as _;
use tokio::time::Instant;

pub use self::foreground::{ScrubOptions, ScrubProgress, ScrubReport, scrub_provider};
use self::{count_left::count_left_if_due, counts::ScrubCounts, pace::ReadPace};
use super::{
    block_record::correct_block_checksums,
    damage::{
        CheckedSuspicion, ComparedObject, DamageRecorder, ObjectComparison, RecordedSuspicion, Suspicion,
        check_suspicion,
    },
};
use crate::{
    app::{
        App, Error, RoundReport,
        blob_work::{delay, new_claim_id, release, renew, work_on_claimed},
        rounds::{DueItems, ItemFields, ItemOutcome, RoundStore, run_round_in_store},
        storage::relocation::{READERS_HOURS, deletion_delay_hours},
    },
    db::{
        SystemTx,
        blob_claims::{self, BlobClaim},
        blob_replicas::{self, Replica},
        scrubs::{self, DueScrub, ScrubPass},
    },
    domain::{block_checksums::BlockChecksums, clock::Timestamp},
    storage::{ObjectStorage, ObjectStorageExt as _, Progress, StorageError, StorageErrorKind},
    telemetry::metrics::ScrubOutcome,
};

/// The most bytes that a process claims at a time, unless one object has more.
const CLAIMED_BYTES_MAX: u64 = 64 << 20;

/// The time in which the largest object is read, in seconds. An object that takes longer at the rate is read faster,
/// because a read that is interrupted begins again.
const READ_SECONDS_MAX: u64 = 12 * 60 * 60;

/// Reads the next objects of a store, if the rate and the window allow it.
///
/// # Errors
/// Returns `DatabaseUnavailable` if the database is unreachable, and `ProviderUnknown` if the provider is not
/// configured.
pub async fn scrub_due_objects_in(
    app: &App,
    provider: &str,
    progress: &Progress,
) -> Result<RoundReport, Error> {
    if !app.limits.scrub.enabled {
        return Ok(RoundReport::default());
    }
    let store = progress.watch(app.background_stores.get(provider)?);
    let rotation = &app.rotations.scrubbed_objects;
    let due = |_| DueScrubs::new(app, store.as_ref(), progress, true);
    run_round_in_store(app, provider, rotation, due).await
}

/// The objects of one store that a pass must read.
struct DueScrubs<'a> {
    app: &'a App,
    store: &'a dyn ObjectStorage,
    progress: &'a Progress,
    /// Whether the rate and the window apply.
    is_scheduled: bool,
    /// The start of the only pass whose objects are read; `None` for those of each pass.
    only_pass: Option<Timestamp>,
    counts: ScrubCounts,
}

/// A claimed object, and the rate at which it is read.
pub(in crate::app) struct ClaimedScrub {
    due: DueScrub,
    claim: BlobClaim,
    claimed: Instant,
    /// `None` if it is read without pauses.
    bytes_per_second: Option<u64>,
}

/// The result of reading an object.
enum Inspection {
    /// The object is intact, with the checksums of its blocks if it has several.
    Intact(Option<BlockChecksums>),
    /// The object differs from its record.
    Suspect(Suspicion),
}

impl DueItems for DueScrubs<'_> {
    type Item = ClaimedScrub;
    type Position = ();

    const ACTION: &'static str = "scrub object";
    const PAGE_ITEMS: usize = 100;
    // A copy of the database does not scrub; a missing confirmation of the owner delays only deletions.
    const NEEDS_DELETIONS: bool = false;

    fn round_store(&self) -> Option<RoundStore<'_>> {
        RoundStore::of(self.app, self.store)
    }

    /// Claims the next objects. The claims replace the position.
    async fn list_page(&self, _after: Option<()>, limit: i64) -> Result<Vec<ClaimedScrub>, Error> {
        if !self.may_begin().await? {
            return Ok(Vec::new());
        }
        count_left_if_due(self.app, self.store.provider()).await?;
        let mut tx = self.app.db.system_tx().await?;
        let claimed = self.claim_next(&mut tx, limit).await?;
        tx.commit().await?;
        Ok(claimed)
    }

    fn position(_item: &ClaimedScrub) {}

    fn fields<'a>(&self, item: &'a ClaimedScrub) -> ItemFields<'a> {
        ItemFields { key: Some(&item.due.object.key), ..ItemFields::new(item.due.tenant) }
    }

    async fn process(&self, item: &ClaimedScrub) -> Result<ItemOutcome, Error> {
        if !self.is_still_claimed(item).await? {
            return Ok(ItemOutcome::Skipped);
        }
        let scrubbed = work_on_claimed(self.app, item.claim, self.progress, self.scrub(item)).await;
        if scrubbed.is_err() {
            self.count(ScrubOutcome::Failed);
        }
        scrubbed
    }
}

impl<'a> DueScrubs<'a> {
    fn new(app: &'a App, store: &'a dyn ObjectStorage, progress: &'a Progress, is_scheduled: bool) -> Self {
        Self { app, store, progress, is_scheduled, only_pass: None, counts: ScrubCounts::default() }
    }

    fn count(&self, outcome: ScrubOutcome) {
        self.counts.add(outcome);
        // Damage is counted where it is recorded.
        if outcome != ScrubOutcome::Damaged {
            self.app.metrics.count_scrubbed(self.store.provider(), outcome);
        }
    }

    /// Returns whether objects may be counted and read now. Outside the window, there is no work for the store and the
    /// database.
    async fn may_begin(&self) -> Result<bool, Error> {
        if !self.is_scheduled || self.app.limits.scrub.schedule().window.is_none() {
            return Ok(true);
        }
        let mut tx = self.app.db.system_tx().await?;
        let pass = scrubs::lock_pass(&mut tx, self.store.provider()).await?;
        tx.commit().await?;
        Ok(!self.is_outside_window(&pass))
    }

    fn is_outside_window(&self, pass: &ScrubPass) -> bool {
        let schedule = self.app.limits.scrub.schedule();
        self.is_scheduled && !schedule.is_open(pass.now)
    }

    /// Returns whether an object that waited for its turn is still claimed. Renews its claim.
    async fn is_still_claimed(&self, item: &ClaimedScrub) -> Result<bool, Error> {
        let scrub = &self.app.limits.scrub;
        if item.claimed.elapsed() < scrub.claim_renewal_interval() {
            return Ok(true);
        }
        renew(self.app, item.claim, scrub.claim_seconds).await
    }

    /// Claims the next objects of the pass, as many as the rate allows. Ends a pass that is complete, and starts the
    /// next one when it is time. The lock on the pass makes processes claim one after the other.
    async fn claim_next(&self, tx: &mut SystemTx, limit: i64) -> Result<Vec<ClaimedScrub>, Error> {
        let provider = self.store.provider();
        let schedule = self.app.limits.scrub.schedule();
        let pass = scrubs::lock_pass(tx, provider).await?;
        let is_other_pass = self.only_pass.is_some_and(|only| only != pass.start_time);
        let waits = self.is_scheduled && pass.ready_time > pass.now;
        if is_other_pass || waits || self.is_outside_window(&pass) {
            return Ok(Vec::new());
        }
        let rate = schedule.rate(pass.left_bytes, pass.start_time, pass.now).max(1);
        let mut due = scrubs::list_due(tx, provider, pass.start_time, limit).await?;
        if due.is_empty() {
            self.end_pass(tx, &pass).await?;
            return Ok(Vec::new());
        }
        due.truncate(count_claimable(due.iter().map(DueScrub::cost_bytes), self.claimed_bytes_max(rate)));
        let claimed = self.claim(tx, due).await?;
        let cost_bytes: u64 = claimed.iter().map(|(due, _)| due.cost_bytes()).sum();
        let ready_time =
            if self.is_scheduled { self.next_ready_time(&pass, cost_bytes, rate) } else { pass.ready_time };
        let left_bytes = pass.left_bytes.saturating_sub(cost_bytes);
        scrubs::record_claimed(tx, provider, left_bytes, ready_time).await?;
        Ok(claimed.into_iter().map(|(due, claim)| self.with_rate(due, claim, rate)).collect())
    }

    /// Claims those of the objects that no other process has claimed.
    async fn claim(
        &self,
        tx: &mut SystemTx,
        due: Vec<DueScrub>,
    ) -> Result<Vec<(DueScrub, BlobClaim)>, Error> {
        let (id, seconds) = (new_claim_id(self.app), self.app.limits.scrub.claim_seconds);
        let mut claims = Vec::new();
        for is_replica in [false, true] {
            let blobs: Vec<_> = due.iter().filter(|due| due.is_replica == is_replica).collect();
            if let Some(first) = blobs.first() {
                let ids: Vec<_> = blobs.iter().map(|due| (due.tenant, due.object.id)).collect();
                claims.extend(blob_claims::claim(tx, first.work(), &ids, id, seconds).await?);
            }
        }
        let with_claim = |due: DueScrub| {
            let (tenant, blob, work) = (due.tenant, due.object.id, due.work());
            let claim = BlobClaim { tenant, blob, work, id };
            claims.contains(&claim).then_some((due, claim))
        };
        Ok(due.into_iter().filter_map(with_claim).collect())
    }

    /// Returns the bytes that are claimed at a time: those of one interval between ticks, or of one object.
    fn claimed_bytes_max(&self, rate: u64) -> u64 {
        match self.is_scheduled {
            true => rate.saturating_mul(self.app.limits.worker.tick_seconds).min(CLAIMED_BYTES_MAX),
            false => CLAIMED_BYTES_MAX,
        }
    }

    /// Returns when the next bytes may be claimed. The bytes of the last interval between ticks that were not claimed
    /// in it may still be.
    fn next_ready_time(&self, pass: &ScrubPass, cost_bytes: u64, rate: u64) -> Timestamp {
        let seconds = |seconds: u64| Duration::seconds(i64::try_from(seconds).unwrap_or(i64::MAX / 1_000));
        let micros = u128::from(cost_bytes) * 1_000_000 / u128::from(rate);
        let reading = Duration::microseconds(i64::try_from(micros).unwrap_or(i64::MAX));
        let earliest = pass.now - seconds(self.app.limits.worker.tick_seconds);
        pass.ready_time.max(earliest).checked_add_signed(reading).unwrap_or(Timestamp::MAX_UTC)
    }

    fn with_rate(&self, due: DueScrub, claim: BlobClaim, rate: u64) -> ClaimedScrub {
        let bytes_per_second = self.is_scheduled.then(|| read_rate(due.object.size_bytes, rate));
        ClaimedScrub { due, claim, claimed: Instant::now(), bytes_per_second }
    }

    /// Records the end of a pass if all of its objects are verified, and starts the next one if it is time. An object
    /// that cannot be read does not delay the next pass. A command that reads one pass does not start another one, which
    /// it would read completely.
    async fn end_pass(&self, tx: &mut SystemTx, pass: &ScrubPass) -> Result<(), Error> {
        let provider = self.store.provider();
        scrubs::record_oldest(tx, provider).await?;
        if !scrubs::has_due(tx, provider, pass.start_time).await? && scrubs::end_pass(tx, provider).await? {
            tracing::info!(provider, start_time = %pass.start_time, "completed a pass over all objects");
        }
        if self.only_pass.is_some() {
            return Ok(());
        }
        if pass.now >= pass.start_time + self.app.limits.scrub.schedule().pass_interval() {
            scrubs::start_pass(tx, provider).await?;
        }
        Ok(())
    }

    async fn scrub(&self, item: &ClaimedScrub) -> Result<ItemOutcome, Error> {
        let suspicion = match self.inspect(item).await? {
            Inspection::Intact(block_checksums) => return self.record_verified(item, block_checksums).await,
            Inspection::Suspect(suspicion) => suspicion,
        };
        let outcome = match item.due.is_replica {
            true => self.record_damaged_replica(item, suspicion).await?,
            false => self.record_damaged_original(item, suspicion).await?,
        };
        self.count(outcome);
        if outcome == ScrubOutcome::Unconfirmed {
            let due = &item.due;
            tracing::warn!(
                tenant = %due.tenant, key = %due.object.key, ?suspicion,
                "read a suspect object twice with different results; it is read again later"
            );
            delay(self.app, item.claim).await?;
            return Ok(ItemOutcome::Skipped);
        }
        Ok(ItemOutcome::from_done(outcome == ScrubOutcome::Damaged))
    }

    async fn record_damaged_original(
        &self,
        item: &ClaimedScrub,
        suspicion: Suspicion,
    ) -> Result<ScrubOutcome, Error> {
        let (due, claim) = (&item.due, Some(item.claim));
        let recorder = DamageRecorder::of(self.app);
        match recorder.check_and_mark(self.store, due.tenant, &due.object, suspicion, claim).await? {
            RecordedSuspicion::Damaged { version_count } => {
                release(self.app, item.claim).await?;
                Ok(if version_count > 0 { ScrubOutcome::Damaged } else { ScrubOutcome::Superseded })
            }
            // The object is read again, which also compares the checksums of its blocks.
            RecordedSuspicion::Intact(_) | RecordedSuspicion::Unproven => Ok(ScrubOutcome::Unconfirmed),
        }
    }

    /// Removes a damaged copy. Its object is kept as long as that of a purged file.
    async fn record_damaged_replica(
        &self,
        item: &ClaimedScrub,
        suspicion: Suspicion,
    ) -> Result<ScrubOutcome, Error> {
        let (tenant, object) = (item.due.tenant, &item.due.object);
        let checked = check_suspicion(self.store, object, suspicion).await?;
        let CheckedSuspicion::Confirmed(reason) = checked else { return Ok(ScrubOutcome::Unconfirmed) };
        let replica = Replica { provider: object.provider.clone(), key: object.key.clone() };
        let hours = deletion_delay_hours(self.app).max(READERS_HOURS);
        let mut tx = self.app.db.system_tx().await?;
        let is_removed = blob_replicas::remove(&mut tx, tenant, object.id, &replica, hours).await?;
        // Another process has a newer result if the claim is lost.
        if !blob_claims::finish(&mut tx, item.claim).await? {
            return Ok(ScrubOutcome::Superseded);
        }
        tx.commit().await?;
        if !is_removed {
            return Ok(ScrubOutcome::Superseded);
        }
        DamageRecorder::of(self.app).raise_alert(&object.provider);
        tracing::error!(
            %tenant, provider = object.provider, key = %object.key, %reason,
            "found missing or damaged copy of a blob, and removed it; the blob is copied again"
        );
        Ok(ScrubOutcome::Damaged)
    }

    /// Reads an object and compares it with its record.
    async fn inspect(&self, item: &ClaimedScrub) -> Result<Inspection, Error> {
        let blob = &item.due.object;
        match self.store.find_object(&blob.key).await? {
            Some(info) if info.size_bytes == blob.size_bytes => {}
            _ => return Ok(Inspection::Suspect(Suspicion::Length)),
        }
        match self.compare(item).await {
            Ok(Some(ComparedObject { is_intact: Some(true), block_checksums })) => {
                Ok(Inspection::Intact(block_checksums))
            }
            // A read that ended early proves nothing, but it is no verification either.
            Ok(_) => Ok(Inspection::Suspect(Suspicion::Checksum)),
            Err(error) => match error.kind {
                StorageErrorKind::NotFound => Ok(Inspection::Suspect(Suspicion::Length)),
                StorageErrorKind::InvalidInput | StorageErrorKind::Damaged => {
                    Ok(Inspection::Suspect(Suspicion::Checksum))
                }
                _ => Err(error.into()),
            },
        }
    }

    /// Returns `None` if the record has no hashes.
    async fn compare(&self, item: &ClaimedScrub) -> Result<Option<ComparedObject>, StorageError> {
        let blob = &item.due.object;
        let Some(mut comparison) = ObjectComparison::with_record(blob) else { return Ok(None) };
        let mut pace = item.bytes_per_second.map(ReadPace::start);
        let mut bytes = self.store.get(&blob.key, 0..blob.size_bytes).await?;
        while let Some(chunk) = bytes.next().await {
            let chunk = chunk?;
            comparison.consume(&chunk);
            self.counts.add_bytes(chunk.len() as u64);
            self.app.metrics.add_scrubbed_bytes(self.store.provider(), chunk.len() as u64);
            if let Some(pace) = &mut pace {
                pace.wait_after(chunk.len()).await;
            }
        }
        Ok(Some(comparison.finish()))
    }

    /// Records that an object is intact, and compares the checksums of its blocks with those of the blob. A copy has the
    /// same bytes.
    async fn record_verified(
        &self,
        item: &ClaimedScrub,
        block_checksums: Option<BlockChecksums>,
    ) -> Result<ItemOutcome, Error> {
        let due = &item.due;
        // A blob of one block has no checksums, and its row would never be read.
        if let Some(found) = &block_checksums {
            let recorder = DamageRecorder::of(self.app);
            correct_block_checksums(recorder, due.tenant, &due.object, Some(found)).await?;
        }
        let mut tx = self.app.db.system_tx().await?;
        scrubs::record_verified(&mut tx, due).await?;
        // Another process has a newer result if the claim is lost.
        if !blob_claims::finish(&mut tx, item.claim).await? {
            self.count(ScrubOutcome::Superseded);
            return Ok(ItemOutcome::Skipped);
        }
        tx.commit().await?;
        self.count(ScrubOutcome::Verified);
        Ok(ItemOutcome::Done)
    }
}

/// Returns how many of the objects are claimed together: at least one, and not more than the bytes allow.
fn count_claimable(costs_bytes: impl Iterator<Item = u64>, bytes_max: u64) -> usize {
    let costs = costs_bytes.scan(0_u64, |total, cost_bytes| {
        *total = total.saturating_add(cost_bytes);
        Some(*total)
    });
    costs.take_while(|total| *total <= bytes_max).count().max(1)
}

/// Returns the bytes of an object to read in a second: the rate, or more, so that the read ends in time.
fn read_rate(size_bytes: u64, rate: u64) -> u64 {
    let needed = size_bytes / READ_SECONDS_MAX;
    rate.max(needed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn object_that_is_larger_than_the_rate_is_claimed() {
        for (costs_bytes, expected) in [(vec![10, 10, 10], 2), (vec![20], 1), (vec![21, 1], 1)] {
            assert_eq!(count_claimable(costs_bytes.iter().copied(), 20), expected, "{costs_bytes:?}");
        }
    }

    #[test]
    fn read_of_any_object_ends_in_time() {
        assert_eq!(read_rate(1_000, 50), 50);
        let size_bytes = 1 << 50;
        assert_eq!(size_bytes / read_rate(size_bytes, 50), READ_SECONDS_MAX);
    }
}
