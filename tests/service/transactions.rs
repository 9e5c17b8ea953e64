//! A transaction that is dropped at any point leaves a clean connection and no lock, and nothing of it counts.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use strongroom::{
    config::Config,
    db::{
        Database, DbError, TransactionId, TransactionOutcome, Viewer,
        quotas::{self, QuotaDelta},
    },
    domain::ids::TenantId,
};

use crate::harness::{Service, database_options, service_test};

/// Drops what it drives when that is asked for the nth time.
struct DropAt<F> {
    inner: Option<Pin<Box<F>>>,
    polls_left: usize,
}

impl<F: Future> Future for DropAt<F> {
    /// Nothing where it was dropped.
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if self.polls_left == 0 {
            self.inner = None;
            return Poll::Ready(None);
        }
        self.polls_left -= 1;
        let Some(inner) = &mut self.inner else { return Poll::Ready(None) };
        inner.as_mut().poll(context).map(Some)
    }
}

/// A pool of one connection for each role.
fn narrow(s: &Service) -> Database {
    let mut options = database_options(&Config::defaults().unwrap(), &s.database);
    (options.pool_size_max, options.system_pool_size_max) = (1, 1);
    Database::open(&options).unwrap()
}

/// Locks the quota row, changes it, reads it, and takes it all back.
async fn change(db: &Database, tenant: TenantId) -> Result<(), DbError> {
    let mut tx = db.tenant_tx(tenant, &Viewer::system()).await?;
    quotas::get_for_update(&mut tx).await?;
    quotas::apply_delta(&mut tx, QuotaDelta::for_added_file(1)).await?;
    quotas::get(&mut tx).await?;
    tx.rollback().await
}

#[test]
fn a_transaction_that_is_dropped_at_any_await_leaves_no_trace() {
    service_test(|s| async move {
        let acme: TenantId = s.alice().tenant_id().await.parse().unwrap();
        let globex: TenantId = s.mallory().tenant_id().await.parse().unwrap();
        let db = narrow(&s);
        // So that the first connection is there and the next awaits are those of a warm one, too.
        change(&db, acme).await.unwrap();
        // How many awaits a change has depends on how fast the server answers; each place is tried a few times.
        let mut cuts = 0;
        for polls in (1..=12).cycle().take(60) {
            let dropped = DropAt { inner: Some(Box::pin(change(&db, acme))), polls_left: polls }.await;
            let mut tx = db.tenant_tx(globex, &Viewer::system()).await.unwrap();
            assert_eq!(quotas::get(&mut tx).await.unwrap().tenant_id, globex, "after {polls} polls");
            tx.commit().await.unwrap();
            // Waits only as long as the server takes to notice that the connection is gone.
            s.owner.run("SET lock_timeout = '10s'; BEGIN; SELECT FROM quotas FOR UPDATE; COMMIT").await;
            let used = s.owner.number("SELECT sum(used_bytes + file_count) FROM quotas").await;
            assert_eq!(used, 0, "after {polls} polls");
            match dropped {
                Some(outcome) => outcome.unwrap(),
                None => cuts += 1,
            }
        }
        assert!(cuts > 5, "{cuts} were cut");
    });
}

#[test]
fn a_dropped_transaction_lets_go_of_its_locks_also_when_nobody_uses_its_pool_again() {
    service_test(|s| async move {
        let acme: TenantId = s.alice().tenant_id().await.parse().unwrap();
        let (one, other) = (narrow(&s), narrow(&s));
        let mut tx = one.tenant_tx(acme, &Viewer::system()).await.unwrap();
        quotas::get_for_update(&mut tx).await.unwrap();
        drop(tx);
        // Fails by its statement timeout where the lock lingers.
        change(&other, acme).await.unwrap();
    });
}

#[test]
fn what_became_of_a_transaction_can_be_asked_by_its_id() {
    service_test(|s| async move {
        let acme: TenantId = s.alice().tenant_id().await.parse().unwrap();
        let db = Database::open(&database_options(&Config::defaults().unwrap(), &s.database)).unwrap();
        let ask = async |id: &TransactionId| {
            let mut tx = db.system_tx().await.unwrap();
            let outcome = tx.transaction_outcome(id).await.unwrap();
            tx.commit().await.unwrap();
            outcome
        };
        let mut kept = db.tenant_tx(acme, &Viewer::system()).await.unwrap();
        let kept_id = kept.id().await.unwrap();
        let mut undone = db.tenant_tx(acme, &Viewer::system()).await.unwrap();
        let undone_id = undone.id().await.unwrap();
        assert_eq!(ask(&kept_id).await, TransactionOutcome::InProgress);
        kept.commit().await.unwrap();
        undone.rollback().await.unwrap();
        assert_eq!(
            (ask(&kept_id).await, ask(&undone_id).await),
            (TransactionOutcome::Committed, TransactionOutcome::Aborted)
        );
    });
}

#[test]
fn a_transaction_across_tenants_that_is_dropped_leaves_no_context_behind() {
    service_test(|s| async move {
        s.alice().tenant_id().await;
        let db = narrow(&s);
        for polls in 1..12 {
            let work = async {
                let tx = db.system_tx().await?;
                tx.commit().await
            };
            let _: Option<Result<(), DbError>> =
                DropAt { inner: Some(Box::pin(work)), polls_left: polls }.await;
            db.ping().await.unwrap();
        }
    });
}

#[test]
fn who_waits_too_long_for_a_connection_is_told_so() {
    service_test(|s| async move {
        let tenant: TenantId = s.alice().tenant_id().await.parse().unwrap();
        let mut options = database_options(&Config::defaults().unwrap(), &s.database);
        options.pool_size_max = 1;
        // Long enough to connect on a busy machine.
        options.acquire_timeout = std::time::Duration::from_secs(2);
        let db = Database::open(&options).unwrap();
        let held = db.tenant_tx(tenant, &Viewer::system()).await.unwrap();
        assert!(db.tenant_tx(tenant, &Viewer::system()).await.is_err());
        held.commit().await.unwrap();
        db.tenant_tx(tenant, &Viewer::system()).await.unwrap().commit().await.unwrap();
    });
}
