//! Dropped transactions: at any await they are rolled back, release their locks and leave a clean connection. And the
//! order in which transactions get their connections.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use strongroom::{
    config::Config,
    db::{
        Database, DbError, DbErrorKind, TransactionId, TransactionOutcome, Viewer,
        quotas::{self, QuotaDelta},
    },
    domain::ids::TenantId,
};

use crate::harness::{Service, WAIT_MAX, database_options, service_test, service_test_with};

/// Polls a future a number of times, then drops it.
struct DropAfter<F> {
    inner: Option<Pin<Box<F>>>,
    polls_left: usize,
}

impl<F: Future> Future for DropAfter<F> {
    /// `None` if the future was dropped.
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

/// Opens a database with one connection for each role.
fn open_single_connection(s: &Service) -> Database {
    open_connections(s, 1)
}

/// Opens pools of this many connections. A busy machine reaches no other limit.
fn open_connections(s: &Service, count: usize) -> Database {
    let mut options = database_options(&Config::defaults().unwrap(), &s.database);
    (options.pool_size_max, options.system_pool_size_max) = (count, count);
    (options.acquire_timeout, options.statement_timeout) = (WAIT_MAX, WAIT_MAX);
    Database::open(&options).unwrap()
}

/// Locks, changes and reads the quota row, then rolls back.
async fn change_and_roll_back(db: &Database, tenant: TenantId) -> Result<(), DbError> {
    let mut tx = db.tenant_tx(tenant, &Viewer::system()).await?;
    quotas::get_for_update(&mut tx).await?;
    quotas::apply_delta(&mut tx, QuotaDelta::for_added_file(1), &[]).await?;
    quotas::get(&mut tx).await?;
    tx.rollback().await
}

#[test]
fn transaction_dropped_at_any_await_is_rolled_back() {
    service_test(|s| async move {
        let acme: TenantId = s.alice().tenant_id().await.parse().unwrap();
        let globex: TenantId = s.mallory().tenant_id().await.parse().unwrap();
        let db = open_single_connection(&s);
        // Opens the first connection, so that the following transactions also run on a warm one.
        change_and_roll_back(&db, acme).await.unwrap();
        // The number of polls depends on the speed of the database, so each number is tried several times.
        let mut dropped_count = 0;
        for polls in (1..=12).cycle().take(60) {
            let result =
                DropAfter { inner: Some(Box::pin(change_and_roll_back(&db, acme))), polls_left: polls }.await;
            let mut tx = db.tenant_tx(globex, &Viewer::system()).await.unwrap();
            assert_eq!(quotas::get(&mut tx).await.unwrap().tenant_id, globex, "after {polls} polls");
            tx.commit().await.unwrap();
            // Waits until the database notices that the connection is closed.
            s.superuser
                .execute("SET lock_timeout = '120s'; BEGIN; SELECT FROM quotas FOR UPDATE; COMMIT")
                .await;
            let used = s.superuser.query_number("SELECT sum(used_bytes + file_count) FROM quotas").await;
            assert_eq!(used, 0, "after {polls} polls");
            match result {
                Some(outcome) => outcome.unwrap(),
                None => dropped_count += 1,
            }
        }
        assert!(dropped_count > 5, "only {dropped_count} transactions were dropped");
    });
}

#[test]
fn dropped_transaction_releases_locks_in_idle_pool() {
    service_test(|s| async move {
        let acme: TenantId = s.alice().tenant_id().await.parse().unwrap();
        let (one, other) = (open_single_connection(&s), open_single_connection(&s));
        let mut tx = one.tenant_tx(acme, &Viewer::system()).await.unwrap();
        quotas::get_for_update(&mut tx).await.unwrap();
        drop(tx);
        // Fails with a statement timeout if the lock remains.
        change_and_roll_back(&other, acme).await.unwrap();
    });
}

#[test]
fn transaction_outcome_can_be_read_by_id() {
    service_test(|s| async move {
        let acme: TenantId = s.alice().tenant_id().await.parse().unwrap();
        let db = Database::open(&database_options(&Config::defaults().unwrap(), &s.database)).unwrap();
        let read_outcome = async |id: &TransactionId| {
            let mut tx = db.system_tx().await.unwrap();
            let outcome = tx.transaction_outcome(id).await.unwrap();
            tx.commit().await.unwrap();
            outcome
        };
        let mut committed = db.tenant_tx(acme, &Viewer::system()).await.unwrap();
        let committed_id = committed.id().await.unwrap();
        let mut aborted = db.tenant_tx(acme, &Viewer::system()).await.unwrap();
        let aborted_id = aborted.id().await.unwrap();
        assert_eq!(read_outcome(&committed_id).await, TransactionOutcome::InProgress);
        committed.commit().await.unwrap();
        aborted.rollback().await.unwrap();
        assert_eq!(
            (read_outcome(&committed_id).await, read_outcome(&aborted_id).await),
            (TransactionOutcome::Committed, TransactionOutcome::Aborted)
        );
    });
}

#[test]
fn dropped_system_transaction_leaves_no_context() {
    service_test(|s| async move {
        s.alice().tenant_id().await;
        let db = open_single_connection(&s);
        for polls in 1..12 {
            let work = async {
                let tx = db.system_tx().await?;
                tx.commit().await
            };
            let _: Option<Result<(), DbError>> =
                DropAfter { inner: Some(Box::pin(work)), polls_left: polls }.await;
            db.ping().await.unwrap();
        }
    });
}

#[test]
fn full_pool_returns_error_after_acquire_timeout() {
    service_test(|s| async move {
        let tenant: TenantId = s.alice().tenant_id().await.parse().unwrap();
        let mut options = database_options(&Config::defaults().unwrap(), &s.database);
        options.pool_size_max = 1;
        options.acquire_timeout = std::time::Duration::from_secs(1);
        let db = Database::open(&options).unwrap();
        // A busy machine may need more time to connect.
        let open = loop {
            match db.tenant_tx(tenant, &Viewer::system()).await {
                Ok(open) => break open,
                Err(error) => assert_eq!(error.kind, DbErrorKind::Unavailable, "{error}"),
            }
        };
        let refused = db.tenant_tx(tenant, &Viewer::system()).await.err().unwrap();
        assert_eq!(refused.kind, DbErrorKind::Exhausted);
        open.commit().await.unwrap();
        db.tenant_tx(tenant, &Viewer::system()).await.unwrap().commit().await.unwrap();
    });
}

#[test]
fn operator_gets_a_connection_before_background_work() {
    service_test(|s| async move {
        // The service holds both connections, so the operator is next, which holds none.
        let db = open_connections(&s, 2);
        let (held, other) = (db.system_tx().await.unwrap(), db.system_tx().await.unwrap());
        let mut background = Box::pin(db.system_tx());
        assert!(futures::poll!(&mut background).is_pending());
        let mut operator = Box::pin(db.operator_tx());
        assert!(futures::poll!(&mut operator).is_pending());
        held.commit().await.unwrap();
        let operator = operator.await.unwrap();
        assert!(futures::poll!(&mut background).is_pending(), "it waits longer than the operator");
        operator.commit().await.unwrap();
        background.await.unwrap().commit().await.unwrap();
        other.commit().await.unwrap();

        let tenant: TenantId = s.alice().tenant_id().await.parse().unwrap();
        let viewer = Viewer::system();
        let held = db.check_tx(tenant, &viewer).await.unwrap();
        let other = db.check_tx(tenant, &viewer).await.unwrap();
        let mut check = Box::pin(db.check_tx(tenant, &viewer));
        assert!(futures::poll!(&mut check).is_pending());
        let mut operator = Box::pin(db.platform_tx(tenant, &viewer));
        assert!(futures::poll!(&mut operator).is_pending());
        held.commit().await.unwrap();
        let operator = operator.await.unwrap();
        assert!(futures::poll!(&mut check).is_pending(), "it waits longer than the operator");
        operator.commit().await.unwrap();
        check.await.unwrap().commit().await.unwrap();
        other.commit().await.unwrap();
    });
}

/// Runs a test while all connections for work across tenants are in use. It gets the id of a tenant.
fn test_without_connections_across_tenants<Fut: Future<Output = ()>>(
    test: impl FnOnce(Service, String) -> Fut,
) {
    service_test_with(
        |config| config.database.system_pool_size_max = 2,
        |s| async move {
            let (acme, db) = (s.alice().tenant_id().await, s.app.db());
            let held = s.hold_connections(|| db.system_pool_status(), || db.operator_tx()).await;
            assert_eq!(held.len(), 2);
            test(s.clone(), acme).await;
            drop(held);
        },
    );
}

#[test]
fn suspension_takes_no_connection_across_tenants() {
    test_without_connections_across_tenants(|s, acme| async move {
        s.operator().suspend_tenant(&acme).await.unwrap();
        s.operator().resume_tenant(&acme).await.unwrap();
    });
}

#[test]
fn deletion_of_tenant_takes_no_connection_across_tenants() {
    test_without_connections_across_tenants(|s, acme| async move {
        for is_dry_run in [true, false] {
            s.operator().delete_tenant(&acme, is_dry_run).await.unwrap();
        }
    });
}
