//! Delivers: endpoints that are due are claimed, and each is served for a bounded time.
//!
//! Every replica runs it. An endpoint is leased to one at a time, and what an attempt came to is written only under that
//! lease; whoever lost it in between may have sent a message that the next one sends again, under the same id.

use std::time::Duration;

use futures::future::join_all;

use tokio_util::sync::CancellationToken;

use super::{message::Message, open_secret, send::send};
use crate::{
    app::{App, Error, files::watch::kept},
    crypto::webhook_secret::WebhookSecret,
    db::{
        TenantTx, Viewer,
        event_stream::{self, Batch, Selection, StoredEvent},
        webhook_deliveries::{self, Delivery},
        webhooks::{self, Progress, StoredWebhook},
    },
    domain::{
        clock::Timestamp,
        webhook::{DeliveryState, WebhookState},
    },
};

pub use crate::db::webhooks::Lease;

/// How many endpoints one round serves, all at the same time.
const ENDPOINTS_PER_ROUND: usize = 16;
/// How many endpoints of one tenant are served at the same time, by all replicas together.
const ENDPOINTS_PER_TENANT: i64 = 4;
/// After so long an endpoint is given back, so that others have its place; one attempt more may go over that.
const SERVE_MAX: chrono::Duration = chrono::Duration::seconds(20);
/// How many events of one endpoint one round sends.
const EVENTS_PER_ENDPOINT: i64 = 16;
/// How many dead letters of one endpoint one round sends again.
const REDELIVERIES_PER_ENDPOINT: i64 = 4;
/// Besides the time that one answer may take, how long an endpoint is ours, in seconds. Every attempt prolongs it.
const LEASE_MARGIN_SECONDS: u64 = 30;
const DROPPED: &str = "events that were due here are no longer kept: list the files again, then \
                       set the state to ACTIVE to go on from now";
/// How long an endpoint rests whose secret this process cannot open.
const UNREADABLE_REST: Duration = Duration::from_secs(60);

/// Takes due endpoints for so many free places.
///
/// # Errors
/// When the database does not answer.
pub async fn claim(app: &App, places: usize) -> Result<Vec<Lease>, Error> {
    if !app.limits.webhooks.enabled || places == 0 {
        return Ok(Vec::new());
    }
    let places = i64::try_from(places).unwrap_or(i64::MAX);
    let mut tx = app.db.system_tx().await?;
    let leases = webhooks::claim_due(&mut tx, lease_seconds(app), (places, ENDPOINTS_PER_TENANT)).await?;
    tx.commit().await?;
    Ok(leases)
}

/// One round of due endpoints, now; answers how many messages were delivered or given up. For tests, and for whoever wants it
/// done at once.
///
/// # Errors
/// When the database does not answer. What was written before stays; the lease of the rest runs out.
pub async fn deliver(app: &App) -> Result<usize, Error> {
    let (leases, never) = (claim(app, ENDPOINTS_PER_ROUND).await?, CancellationToken::new());
    let served = join_all(leases.iter().map(|lease| serve(app, lease, &never))).await;
    let mut done = 0;
    for (lease, outcome) in leases.iter().zip(served) {
        match outcome {
            Ok(count) => done += count,
            Err(error) => tracing::warn!(tenant = %lease.tenant, webhook = %lease.webhook, %error, "deliver"),
        }
    }
    Ok(done)
}

/// One endpoint under its lease.
struct Endpoint<'a> {
    app: &'a App,
    lease: &'a Lease,
    /// Told to stop, nothing more is sent.
    stop: &'a CancellationToken,
    /// By this process's clock.
    begin_time: Timestamp,
    url: String,
    /// The history that its messages name.
    incarnation: String,
    secrets: Vec<WebhookSecret>,
    progress: Progress,
    /// By the database's clock, when the round began.
    now: Timestamp,
    done: usize,
}

/// Sends what is due at one endpoint, until that is all, its time is over or `stop` is cancelled; answers how many messages were
/// delivered or given up.
///
/// # Errors
/// When the database does not answer. What was written before stays, and the lease runs out.
pub async fn serve(app: &App, lease: &Lease, stop: &CancellationToken) -> Result<usize, Error> {
    let mut tx = tenant_tx(app, lease).await?;
    let read = read(app, &mut tx, lease).await;
    let Some((stored, waiting, Batch { events, safe })) = tx.finish(read).await? else { return Ok(0) };
    let mut endpoint = Endpoint::new((app, lease, stop), &stored, safe.time);
    if endpoint.secrets.is_empty() {
        // The fault is ours and not the endpoint's: its state and its place stay as they are.
        tracing::error!(
            tenant = %lease.tenant, webhook = %lease.webhook,
            "the secret of a webhook cannot be opened: set secrets.page_token_key to the key that it was sealed with, or have \
             the secret rotated"
        );
        endpoint.progress.rest = UNREADABLE_REST;
        endpoint.give_back().await?;
        return Ok(endpoint.done);
    }
    if !safe.keeps_all_behind(stored.position_time, kept(app)) {
        return endpoint.disable(DROPPED).await;
    }
    for delivery in waiting {
        if !endpoint.has_time() {
            break;
        }
        if !endpoint.send_again(&delivery).await? {
            return Ok(endpoint.done);
        }
    }
    let mut is_last = i64::try_from(events.len()).unwrap_or(i64::MAX) < EVENTS_PER_ENDPOINT;
    for event in &events {
        if !endpoint.has_time() {
            is_last = false;
            break;
        }
        if !endpoint.send_next(event).await? {
            return Ok(endpoint.done);
        }
    }
    // Also where nothing at all was written meanwhile: time passes all the same.
    if is_last && safe.position >= endpoint.progress.position {
        (endpoint.progress.position, endpoint.progress.position_time) = (safe.position, safe.time);
    }
    endpoint.give_back().await?;
    Ok(endpoint.done)
}

type Due = (StoredWebhook, Vec<Delivery>, Batch);

/// What an endpoint is due; nothing where it is ours no longer. After a failover or a restore of the database its place is found
/// again by time.
async fn read(app: &App, tx: &mut TenantTx, lease: &Lease) -> Result<Option<Due>, Error> {
    let stored = webhooks::get(tx, lease.webhook).await?;
    let Some(mut stored) = stored.filter(|stored| stored.lease_epoch == lease.epoch) else { return Ok(None) };
    let waiting = webhook_deliveries::list_waiting(tx, lease.webhook, REDELIVERIES_PER_ENDPOINT).await?;
    let selection = Selection { kinds: stored.webhook.kinds.clone(), file: None };
    let mut batch = event_stream::read(tx, stored.webhook.position, &selection, EVENTS_PER_ENDPOINT).await?;
    let safe = &batch.safe;
    if safe.incarnation != stored.incarnation && safe.keeps_all_behind(stored.position_time, kept(app)) {
        stored.webhook.position = event_stream::place_at(tx, stored.position_time, safe).await?;
        stored.incarnation.clone_from(&safe.incarnation);
        if !webhooks::move_to(tx, lease, stored.webhook.position, &stored.incarnation).await? {
            return Ok(None);
        }
        tracing::info!(tenant = %lease.tenant, webhook = %lease.webhook, "found its place in another history of the database");
        batch = event_stream::read(tx, stored.webhook.position, &selection, EVENTS_PER_ENDPOINT).await?;
    }
    Ok(Some((stored, waiting, batch)))
}

async fn tenant_tx(app: &App, lease: &Lease) -> Result<TenantTx, Error> {
    Ok(app.db.tenant_tx(lease.tenant, &Viewer::system()).await?)
}

impl<'a> Endpoint<'a> {
    fn new(
        (app, lease, stop): (&'a App, &'a Lease, &'a CancellationToken),
        stored: &StoredWebhook,
        now: Timestamp,
    ) -> Self {
        let begin_time = app.clock.now();
        let webhook = &stored.webhook;
        let open = |sealed: &String| open_secret(app, lease.tenant, webhook.id, sealed).ok();
        let former = stored.former_sealed_secret.as_ref();
        let former = former.filter(|_| stored.former_secret_expire_time.is_some_and(|until| now < until));
        // Without its own secret nothing is signed, whatever the one before says.
        let secrets = match open(&stored.sealed_secret) {
            Some(own) => std::iter::once(own).chain(former.and_then(open)).collect(),
            None => Vec::new(),
        };
        let progress = Progress {
            position: webhook.position,
            position_time: stored.position_time,
            state: webhook.state,
            state_reason: webhook.state_reason.clone(),
            failed_attempts: webhook.failed_attempts,
            last_error: webhook.last_error.clone(),
            first_failure_time: stored.first_failure_time,
            rest: Duration::ZERO,
            lease_seconds: Some(lease_seconds(app)),
        };
        let (url, incarnation) = (webhook.url.clone(), stored.incarnation.clone());
        Self { app, lease, stop, begin_time, url, incarnation, secrets, progress, now, done: 0 }
    }

    fn has_time(&self) -> bool {
        !self.stop.is_cancelled() && self.app.clock.now() - self.begin_time < SERVE_MAX
    }

    async fn send(&self, event: &StoredEvent) -> Result<Result<(), String>, Error> {
        let whose = (self.lease.tenant, self.incarnation.as_str());
        let message = Message::of(event, whose, &self.secrets, self.app.clock.now())?;
        Ok(send(&self.app.limits.webhooks, &self.url, &message).await)
    }

    /// Sends the next event in order; whether another may follow.
    async fn send_next(&mut self, event: &StoredEvent) -> Result<bool, Error> {
        let outcome = self.send(event).await?;
        let now = self.now;
        let progress = &mut self.progress;
        let Err(error) = outcome else {
            progress.failed_attempts = 0;
            progress.last_error.clear();
            progress.first_failure_time = None;
            return self.pass(event, None).await;
        };
        progress.failed_attempts += 1;
        progress.last_error = error;
        let since = *progress.first_failure_time.get_or_insert(now);
        if now - since >= disable_after(self.app) {
            let why = format!(
                "nothing was delivered since {}; mend the endpoint, then set the state to ACTIVE: it goes on where it stood",
                since.to_rfc3339()
            );
            return self.disable(&why).await.map(|_| false);
        }
        let failed = u32::try_from(progress.failed_attempts).unwrap_or(u32::MAX);
        if failed >= self.app.limits.webhooks.attempts_max {
            let dead = (progress.failed_attempts, progress.last_error.clone());
            progress.failed_attempts = 0;
            return self.pass(event, Some(dead)).await;
        }
        self.progress.rest = self.pause(failed);
        self.give_back().await?;
        Ok(false)
    }

    /// Goes past an event that was delivered or given up; whether the endpoint is still ours.
    async fn pass(&mut self, event: &StoredEvent, dead: Option<(i32, String)>) -> Result<bool, Error> {
        (self.progress.position, self.progress.position_time) = (event.position, event.create_time);
        let mut tx = tenant_tx(self.app, self.lease).await?;
        let written = async {
            let is_ours = webhooks::record(&mut tx, self.lease, &self.progress).await?;
            if let Some((attempts, error)) = dead.filter(|_| is_ours) {
                webhook_deliveries::insert_dead(&mut tx, self.lease.webhook, event, (attempts, &error))
                    .await?;
            }
            Ok::<_, Error>(is_ours)
        }
        .await;
        let is_ours = tx.finish(written).await?;
        self.done += usize::from(is_ours);
        Ok(is_ours)
    }

    /// Sends a dead letter once more; whether the endpoint is still ours. One that fails is dead again.
    async fn send_again(&mut self, delivery: &Delivery) -> Result<bool, Error> {
        let outcome = self.send(&delivery.event).await?;
        let state = if outcome.is_ok() { DeliveryState::Delivered } else { DeliveryState::Dead };
        let error = outcome.err().unwrap_or_default();
        let mut tx = tenant_tx(self.app, self.lease).await?;
        let written = async {
            let is_ours = webhooks::record(&mut tx, self.lease, &self.progress).await?;
            if is_ours {
                let at = (self.lease.webhook, delivery.event.position);
                webhook_deliveries::set_state(&mut tx, at, state, Some(&error)).await?;
            }
            Ok::<_, Error>(is_ours)
        }
        .await;
        let is_ours = tx.finish(written).await?;
        self.done += usize::from(is_ours);
        Ok(is_ours)
    }

    /// Gives the endpoint up until an admin sets it active again.
    async fn disable(&mut self, why: &str) -> Result<usize, Error> {
        self.progress.state = WebhookState::Disabled;
        self.progress.state_reason = why.to_owned();
        self.give_back().await?;
        Ok(self.done)
    }

    /// Writes down how things stand, and lets the next one in.
    async fn give_back(&mut self) -> Result<(), Error> {
        self.progress.lease_seconds = None;
        let mut tx = tenant_tx(self.app, self.lease).await?;
        let written = webhooks::record(&mut tx, self.lease, &self.progress).await;
        tx.finish(written).await?;
        Ok(())
    }

    /// Between half of the backoff and all of it, so that endpoints of one receiver do not come back in step.
    fn pause(&self, failed: u32) -> Duration {
        // The last bits of an id are random; its first ones tell the time.
        let [.., a, b, c, d] = self.app.ids.uuid().into_bytes();
        let share = f64::from(u32::from_be_bytes([a, b, c, d])) / f64::from(u32::MAX);
        self.app.limits.webhooks.backoff(failed).mul_f64(0.5 + share / 2.0)
    }
}

fn lease_seconds(app: &App) -> u32 {
    let seconds = app.limits.webhooks.timeout_seconds.saturating_add(LEASE_MARGIN_SECONDS);
    u32::try_from(seconds).unwrap_or(u32::MAX)
}

fn disable_after(app: &App) -> chrono::Duration {
    let hours = i64::try_from(app.limits.webhooks.disable_after_hours).unwrap_or(i64::from(u32::MAX));
    chrono::Duration::hours(hours)
}
