//! Delivers events: due endpoints are leased, and each is processed for a bounded time.
//!
//! Every process runs this. An endpoint is leased to one process at a time, and the outcome of an attempt is
//! recorded only under the lease. A process that lost its lease may have sent a message that the next one
//! sends again, with the same id.

use std::time::Duration;

use futures::future::join_all;

use tokio_util::sync::CancellationToken;

use super::{
    message::Message,
    open_secret,
    send::{EndpointAdvice, SendFailure, send_message},
};
use crate::{
    app::{App, Error, RoundReport},
    crypto::webhook_secret::WebhookSecret,
    db::{
        TenantTx, Viewer,
        audit_entries::{self, AuditAction, AuditEntry},
        event_stream::{self, EventBatch, EventFilter, StoredEvent, StreamSnapshot},
        events,
        webhook_deliveries::{self, Delivery},
        webhooks::{self, DeliveryProgress, StoredWebhook},
    },
    domain::{
        clock::Timestamp,
        event_position::EventPosition,
        webhook::{DeliveryState, WebhookState},
    },
};

pub use crate::db::webhooks::WebhookLease;

/// The number of endpoints that one round processes, concurrently.
const ENDPOINTS_PER_ROUND: usize = 16;
/// The number of endpoints of one tenant that all processes together deliver to at the same time.
const ENDPOINTS_PER_TENANT: i64 = 4;
/// The time after which an endpoint's lease is released, so that other endpoints are processed. An attempt
/// that is running is not interrupted.
const PROCESSING_TIME_MAX: chrono::Duration = chrono::Duration::seconds(20);
/// The number of events that one round sends to one endpoint.
const EVENTS_PER_ENDPOINT: i64 = 16;
/// The number of dead letters that one round sends again to one endpoint.
const REDELIVERIES_PER_ENDPOINT: i64 = 4;
/// The lease duration beyond the response timeout, in seconds. Every attempt renews the lease.
const LEASE_MARGIN_SECONDS: u64 = 30;
const EVENTS_DROPPED: &str = "undelivered events have been dropped: list the files again, then set the \
                              state to ACTIVE to continue with new events";
const ENDPOINT_GONE: &str = "the endpoint returned 410 Gone; delete the webhook, or fix the endpoint and set the \
                             state to ACTIVE to continue where it stopped";
/// The delay before an endpoint is processed again if this process cannot open its secret.
const UNREADABLE_SECRET_DELAY: Duration = Duration::from_secs(60);

/// Leases at most `count_max` due endpoints.
///
/// # Errors
/// Returns an error if the database is unavailable.
pub async fn claim_webhooks(app: &App, count_max: usize) -> Result<Vec<WebhookLease>, Error> {
    // The events of a copied database are delivered by its original.
    if !app.limits.webhooks.enabled || count_max == 0 || !app.owners.may_change_records() {
        return Ok(Vec::new());
    }
    let count_max = i64::try_from(count_max).unwrap_or(i64::MAX);
    let mut tx = app.db.system_tx().await?;
    let leases = webhooks::claim_due(&mut tx, lease_seconds(app), count_max, ENDPOINTS_PER_TENANT).await?;
    tx.commit().await?;
    Ok(leases)
}

/// Processes one round of due endpoints. Counts the messages that were delivered or became dead letters as
/// done, and the endpoints that were not processed as failed. For tests and for operators who do not want to
/// wait.
///
/// # Errors
/// Returns an error if the database is unavailable. Recorded outcomes remain; the other leases expire.
pub async fn deliver_webhooks(app: &App) -> Result<RoundReport, Error> {
    let (leases, never) = (claim_webhooks(app, ENDPOINTS_PER_ROUND).await?, CancellationToken::new());
    let outcomes = join_all(leases.iter().map(|lease| deliver_due_events(app, lease, &never))).await;
    let mut total = RoundReport::default();
    for (lease, outcome) in leases.iter().zip(outcomes) {
        match outcome {
            Ok(report) => total += report,
            Err(error) => {
                total.failed += 1;
                tracing::warn!(tenant = %lease.tenant, webhook = %lease.webhook, %error, "failed to deliver events");
            }
        }
    }
    Ok(total)
}

/// One endpoint and its lease.
struct Endpoint<'a> {
    app: &'a App,
    lease: &'a WebhookLease,
    /// Once cancelled, nothing more is sent.
    stop: &'a CancellationToken,
    /// The start of processing, by the clock of this process.
    begin_time: Timestamp,
    url: String,
    /// The snapshot that the events were read in.
    snapshot: &'a StreamSnapshot,
    secrets: Vec<WebhookSecret>,
    progress: DeliveryProgress,
    done: usize,
}

/// Sends due messages to one endpoint until none is left, its time is used up, or `stop` is cancelled. Counts
/// the messages that were delivered or became dead letters as done.
///
/// # Errors
/// Returns an error if the database is unavailable. Recorded outcomes remain; the lease expires.
pub async fn deliver_due_events(
    app: &App,
    lease: &WebhookLease,
    stop: &CancellationToken,
) -> Result<RoundReport, Error> {
    let mut tx = tenant_tx(app, lease).await?;
    let read = read_due(&mut tx, lease).await;
    let Some((stored, waiting, EventBatch { events, snapshot })) = tx.finish(read).await? else {
        return Ok(RoundReport::default());
    };
    let mut endpoint = Endpoint::new(app, lease, stop, &stored, &snapshot);
    if endpoint.secrets.is_empty() {
        // The cause is not the endpoint, so its state and position are unchanged.
        tracing::error!(
            tenant = %lease.tenant, webhook = %lease.webhook,
            "failed to open the secret of a webhook; set secrets.page_token_key to the key that sealed it, or rotate \
             the secret"
        );
        endpoint.progress.retry_delay = UNREADABLE_SECRET_DELAY;
        endpoint.release().await?;
        return Ok(endpoint.report());
    }
    if !snapshot.retains_time(stored.position_time) {
        return endpoint.disable(EVENTS_DROPPED).await;
    }
    for delivery in waiting {
        if !endpoint.has_time() {
            break;
        }
        if !endpoint.redeliver(&delivery).await? {
            return Ok(endpoint.report());
        }
    }
    let mut is_last = i64::try_from(events.len()).unwrap_or(i64::MAX) < EVENTS_PER_ENDPOINT;
    for event in &events {
        if !endpoint.has_time() {
            is_last = false;
            break;
        }
        if !endpoint.send_next(event).await? {
            return Ok(endpoint.report());
        }
    }
    if is_last {
        // No event is waiting, so the next failure is that of a later event, with a window of its own.
        endpoint.progress.first_failure_time = None;
        // Advance the time even if nothing was written, so that the cursor does not become too old.
        endpoint.advance_to(snapshot.position, snapshot.time)?;
    }
    endpoint.release().await?;
    Ok(endpoint.report())
}

/// The failed attempts to deliver an event.
struct Failure {
    attempts: i32,
    error: String,
}

type DueWork = (StoredWebhook, Vec<Delivery>, EventBatch);

/// Reads the endpoint, its pending redeliveries and its next events. Returns `None` if the lease was lost.
/// Finds a position again by time if it belongs to an incarnation of the database that ended before the upgrade to
/// this version, and has no epoch.
async fn read_due(tx: &mut TenantTx, lease: &WebhookLease) -> Result<Option<DueWork>, Error> {
    let stored = webhooks::get(tx, lease.webhook).await?;
    let Some(mut stored) = stored.filter(|stored| stored.lease_epoch == lease.epoch) else { return Ok(None) };
    let waiting = webhook_deliveries::list_pending(tx, lease.webhook, REDELIVERIES_PER_ENDPOINT).await?;
    let selection = EventFilter { kinds: stored.webhook.kinds.clone(), file: None };
    let mut batch = event_stream::read(tx, stored.webhook.position, &selection, EVENTS_PER_ENDPOINT).await?;
    let snapshot = &batch.snapshot;
    let has_epoch =
        snapshot.incarnation_of(stored.webhook.position.epoch) == Some(stored.incarnation.as_str());
    if !has_epoch && snapshot.retains_time(stored.position_time) {
        stored.webhook.position = event_stream::find_position_at(tx, stored.position_time, snapshot).await?;
        stored.incarnation = find_incarnation(snapshot, stored.webhook.position)?.to_owned();
        if !webhooks::set_incarnation(tx, lease, stored.webhook.position, &stored.incarnation).await? {
            return Ok(None);
        }
        tracing::info!(tenant = %lease.tenant, webhook = %lease.webhook, "repositioned webhook of a former incarnation of the database");
        batch = event_stream::read(tx, stored.webhook.position, &selection, EVENTS_PER_ENDPOINT).await?;
    }
    Ok(Some((stored, waiting, batch)))
}

/// Returns the incarnation of the database in the epoch of a stored position.
fn find_incarnation(snapshot: &StreamSnapshot, position: EventPosition) -> Result<&str, Error> {
    snapshot
        .incarnation_of(position.epoch)
        .ok_or_else(|| Error::internal(format!("epoch {} of a position has not begun", position.epoch)))
}

async fn tenant_tx(app: &App, lease: &WebhookLease) -> Result<TenantTx, Error> {
    Ok(app.db.tenant_tx(lease.tenant, &Viewer::system()).await?)
}

impl<'a> Endpoint<'a> {
    fn new(
        app: &'a App,
        lease: &'a WebhookLease,
        stop: &'a CancellationToken,
        stored: &StoredWebhook,
        snapshot: &'a StreamSnapshot,
    ) -> Self {
        let now = snapshot.time;
        let begin_time = app.clock.now();
        let webhook = &stored.webhook;
        let open = |sealed: &String| open_secret(app, lease.tenant, webhook.id, sealed).ok();
        let former = stored.former_sealed_secret.as_ref();
        let former = former.filter(|_| stored.former_secret_expire_time.is_some_and(|until| now < until));
        // Without the current secret nothing is signed, even if the former one can be opened.
        let secrets = match open(&stored.sealed_secret) {
            Some(own) => std::iter::once(own).chain(former.and_then(open)).collect(),
            None => Vec::new(),
        };
        let progress = DeliveryProgress {
            position: webhook.position,
            incarnation: stored.incarnation.clone(),
            position_time: stored.position_time,
            state: webhook.state,
            state_reason: webhook.state_reason.clone(),
            failed_attempts: webhook.failed_attempts,
            last_error: webhook.last_error.clone(),
            first_failure_time: find_window_start(app, stored, now),
            retry_delay: Duration::ZERO,
            lease_seconds: Some(lease_seconds(app)),
        };
        let url = webhook.url.clone();
        Self { app, lease, stop, begin_time, url, snapshot, secrets, progress, done: 0 }
    }

    fn report(&self) -> RoundReport {
        RoundReport { done: self.done, ..RoundReport::default() }
    }

    fn has_time(&self) -> bool {
        !self.stop.is_cancelled() && self.app.clock.now() - self.begin_time < PROCESSING_TIME_MAX
    }

    async fn send(&self, event: &StoredEvent) -> Result<Result<(), SendFailure>, Error> {
        let (tenant, now) = (self.lease.tenant, self.app.clock.now());
        let incarnation = find_incarnation(self.snapshot, event.position)?;
        let message = Message::new(event, tenant, incarnation, &self.secrets, now)?;
        Ok(send_message(&self.app.limits.webhooks, &self.url, &message, now).await)
    }

    /// Sends the next event. Returns whether another may follow.
    async fn send_next(&mut self, event: &StoredEvent) -> Result<bool, Error> {
        let outcome = self.send(event).await?;
        let now = self.snapshot.time;
        let progress = &mut self.progress;
        let Err(SendFailure { error, advice }) = outcome else {
            progress.failed_attempts = 0;
            progress.last_error.clear();
            progress.first_failure_time = None;
            return self.advance_past(event, None).await;
        };
        progress.failed_attempts += 1;
        progress.last_error = error;
        let since = *progress.first_failure_time.get_or_insert(now);
        if advice == EndpointAdvice::Gone {
            return self.disable(ENDPOINT_GONE).await.map(|_| false);
        }
        if now - since >= disable_after(self.app) {
            let reason = format!(
                "deliveries have failed since {}; fix the endpoint, then set the state to ACTIVE to continue where it stopped",
                since.to_rfc3339()
            );
            return self.disable(&reason).await.map(|_| false);
        }
        let failed = u32::try_from(progress.failed_attempts).unwrap_or(u32::MAX);
        if failed >= self.app.limits.webhooks.attempts_max {
            let dead = Failure { attempts: progress.failed_attempts, error: progress.last_error.clone() };
            progress.failed_attempts = 0;
            return self.advance_past(event, Some(dead)).await;
        }
        self.wait(self.retry_delay(failed), advice).await
    }

    /// Releases the lease and delays the next attempt, by the pause or by the longer time that the endpoint
    /// requested. Returns `false`: nothing more may be sent now.
    async fn wait(&mut self, pause: Duration, advice: EndpointAdvice) -> Result<bool, Error> {
        self.progress.retry_delay = match advice {
            EndpointAdvice::RetryAfter(asked) => pause.max(asked),
            EndpointAdvice::None | EndpointAdvice::Gone => pause,
        };
        self.release().await?;
        Ok(false)
    }

    /// Advances past an event that was delivered or became a dead letter. Returns whether the lease is
    /// still held.
    async fn advance_past(&mut self, event: &StoredEvent, dead: Option<Failure>) -> Result<bool, Error> {
        self.advance_to(event.position, event.create_time)?;
        let mut tx = tenant_tx(self.app, self.lease).await?;
        let written = async {
            let has_lease = webhooks::record_progress(&mut tx, self.lease, &self.progress).await?;
            if let Some(Failure { attempts, error }) = dead.filter(|_| has_lease) {
                webhook_deliveries::insert_dead_letter(&mut tx, self.lease.webhook, event, attempts, &error)
                    .await?;
            }
            Ok::<_, Error>(has_lease)
        }
        .await;
        let has_lease = tx.finish(written).await?;
        self.done += usize::from(has_lease);
        Ok(has_lease)
    }

    /// Sets the position up to which events were delivered or became dead letters.
    fn advance_to(&mut self, position: EventPosition, time: Timestamp) -> Result<(), Error> {
        let progress = &mut self.progress;
        progress.incarnation = find_incarnation(self.snapshot, position)?.to_owned();
        (progress.position, progress.position_time) = (position, time);
        Ok(())
    }

    /// Sends a dead letter again. If that fails, it stays a dead letter. Returns whether the lease is still
    /// held.
    async fn redeliver(&mut self, delivery: &Delivery) -> Result<bool, Error> {
        let outcome = self.send(&delivery.event).await?;
        let (state, error, advice) = match outcome {
            Ok(()) => (DeliveryState::Delivered, String::new(), EndpointAdvice::None),
            Err(SendFailure { error, advice }) => (DeliveryState::Dead, error, advice),
        };
        let mut tx = tenant_tx(self.app, self.lease).await?;
        let written = async {
            let has_lease = webhooks::record_progress(&mut tx, self.lease, &self.progress).await?;
            if has_lease {
                let (webhook, position) = (self.lease.webhook, delivery.event.position);
                webhook_deliveries::set_state(&mut tx, webhook, position, state, Some(&error)).await?;
            }
            Ok::<_, Error>(has_lease)
        }
        .await;
        let has_lease = tx.finish(written).await?;
        self.done += usize::from(has_lease);
        match advice {
            EndpointAdvice::None => Ok(has_lease),
            EndpointAdvice::Gone => self.disable(ENDPOINT_GONE).await.map(|_| false),
            EndpointAdvice::RetryAfter(_) => self.wait(Duration::ZERO, advice).await,
        }
    }

    /// Disables the endpoint until an admin activates it again, and records that in the audit log and as an event.
    async fn disable(&mut self, reason: &str) -> Result<RoundReport, Error> {
        let WebhookLease { tenant, webhook, .. } = *self.lease;
        self.progress.state = WebhookState::Disabled;
        self.progress.state_reason = reason.to_owned();
        self.progress.lease_seconds = None;
        let details = serde_json::json!({ "webhook_id": webhook, "reason": reason });
        let entry = AuditEntry::system(AuditAction::WebhookDisable, details);
        let mut tx = tenant_tx(self.app, self.lease).await?;
        let written = async {
            if webhooks::record_progress(&mut tx, self.lease, &self.progress).await? {
                audit_entries::insert(&mut tx, &[entry]).await?;
                events::insert_webhook_disabled(&mut tx, webhook).await?;
            }
            Ok::<_, Error>(())
        }
        .await;
        tx.finish(written).await?;
        tracing::warn!(%tenant, %webhook, reason, "disabled webhook");
        Ok(self.report())
    }

    /// Records the progress and releases the lease.
    async fn release(&mut self) -> Result<(), Error> {
        self.progress.lease_seconds = None;
        let mut tx = tenant_tx(self.app, self.lease).await?;
        let written = webhooks::record_progress(&mut tx, self.lease, &self.progress).await;
        tx.finish(written).await?;
        Ok(())
    }

    /// Returns a random delay between half of the backoff and all of it, so that endpoints of one receiver
    /// are not retried in step.
    fn retry_delay(&self, failed: u32) -> Duration {
        // The last bits of a UUIDv7 are random; the first ones are the time.
        let [.., a, b, c, d] = self.app.ids.uuid().into_bytes();
        let share = f64::from(u32::from_be_bytes([a, b, c, d])) / f64::from(u32::MAX);
        self.app.limits.webhooks.backoff_after(failed).mul_f64(0.5 + share / 2.0)
    }
}

/// Returns the start of the time in which deliveries have failed without a pause, or `None` if it starts with the
/// next failure.
///
/// It starts with the first failure of the next event. If the event before it became a dead letter while this one
/// was waiting, the endpoint has been failing all along, and the time starts with the failures of that event. If
/// nothing was attempted in the meantime, nothing is known about the endpoint since.
fn find_window_start(app: &App, stored: &StoredWebhook, now: Timestamp) -> Option<Timestamp> {
    let config = &app.limits.webhooks;
    let pause_max = config.backoff_max_seconds.max(config.retry_after_max_seconds);
    let pause_max = chrono::Duration::seconds(i64::try_from(pause_max).unwrap_or(i64::from(u32::MAX)));
    let is_failing = stored.webhook.failed_attempts > 0;
    let is_continuous = now - stored.webhook.next_attempt_time <= pause_max;
    stored.first_failure_time.filter(|_| is_failing || is_continuous)
}

fn lease_seconds(app: &App) -> u32 {
    let seconds = app.limits.webhooks.timeout_seconds.saturating_add(LEASE_MARGIN_SECONDS);
    u32::try_from(seconds).unwrap_or(u32::MAX)
}

fn disable_after(app: &App) -> chrono::Duration {
    let hours = i64::try_from(app.limits.webhooks.disable_after_hours).unwrap_or(i64::from(u32::MAX));
    chrono::Duration::hours(hours)
}
