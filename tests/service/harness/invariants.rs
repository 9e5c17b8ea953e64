//! The invariants that must hold after every test, checked directly in the database and the stores.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use strongroom::{
    app::integrity::{
        fsck::{Fsck, FsckProgress, FsckReport},
        sample::SampleSize,
    },
    domain::clock::{Clock, SystemIds},
    storage::{ObjectStorage, Stores},
};

use super::{Service, UNLIMITED};

/// Selects each tenant whose quota row or usage counters differ from the sum of its versions.
const WRONG_QUOTAS: &str = "
    WITH charged AS (
        SELECT f.tenant_id, sum(v.size_bytes) AS bytes, count(DISTINCT f.id) AS files
        FROM files f
        JOIN versions v USING (tenant_id)
        JOIN tenants t ON t.id = f.tenant_id
        WHERE v.file_id = f.id
          AND (f.delete_time IS NULL OR (t.policy #>> '{trash,counts_against_quota}')::boolean)
        GROUP BY 1
    ), counted AS (
        SELECT tenant_id, sum(total_bytes) AS bytes, sum(file_count) AS files FROM usage_counters GROUP BY 1
    )
    SELECT format('tenant %s: quota %s/%s, usage %s/%s, files %s/%s, reserved %s/%s', q.tenant_id, q.used_bytes,
        q.file_count, counted.bytes, counted.files, charged.bytes, charged.files, q.reserved_bytes,
        q.reserved_file_count)
    FROM quotas q LEFT JOIN charged USING (tenant_id) LEFT JOIN counted USING (tenant_id)
    WHERE q.used_bytes <> coalesce(charged.bytes, 0) OR q.file_count <> coalesce(charged.files, 0)
       OR coalesce(counted.bytes, 0) <> coalesce(charged.bytes, 0)
       OR coalesce(counted.files, 0) <> coalesce(charged.files, 0)
       OR q.reserved_bytes <> 0 OR q.reserved_file_count <> 0";

/// Selects changes without an audit entry and versions without an event.
const UNRECORDED_CHANGES: &str = "
    SELECT format('version %s of %s', v.version, v.file_id) FROM versions v WHERE NOT EXISTS (
        SELECT FROM audit_entries a WHERE a.tenant_id = v.tenant_id AND a.file_id = v.file_id
          AND a.version = v.version AND a.action IN ({audit_action.file_upload},
              {audit_action.file_version_restore}) AND a.is_allowed)
    UNION ALL
    SELECT format('trash of %s', f.id) FROM files f WHERE f.delete_time IS NOT NULL AND NOT EXISTS (
        SELECT FROM audit_entries a WHERE a.tenant_id = f.tenant_id AND a.file_id = f.id
          AND a.action = {audit_action.file_delete} AND a.is_allowed)
    UNION ALL
    SELECT format('purge of %s', s.file_id) FROM tombstones s WHERE NOT EXISTS (
        SELECT FROM audit_entries a WHERE a.tenant_id = s.tenant_id AND a.file_id = s.file_id
          AND a.action = {audit_action.file_purge} AND a.is_allowed)
    UNION ALL
    SELECT format('event of %s', v.file_id) FROM versions v WHERE NOT EXISTS (
        SELECT FROM events e WHERE e.tenant_id = v.tenant_id AND e.file_id = v.file_id
          AND e.version = v.version)";

/// Selects events whose position is not later than that of the former revision of their file, and events with the
/// revision of another event or of no change. Rows that a test inserted by hand have no revision.
const MISORDERED_EVENTS: &str = "
    SELECT format('revision %s of %s', ordered.revision, ordered.file_id) FROM (
        SELECT e.file_id, e.revision, e.epoch, e.xid, e.n, lag(e.revision) OVER changes AS former_revision,
            lag(e.epoch) OVER changes AS former_epoch, lag(e.xid) OVER changes AS former_xid, lag(e.n) OVER changes AS former_n
        FROM events e WHERE e.revision > 0
        WINDOW changes AS (PARTITION BY e.tenant_id, e.file_id ORDER BY e.revision, e.epoch, e.xid, e.n)) AS ordered
    WHERE (ordered.epoch, ordered.xid, ordered.n) <= (ordered.former_epoch, ordered.former_xid, ordered.former_n)
       OR ordered.revision = ordered.former_revision
    UNION ALL
    SELECT format('revision %s of %s, which has revision %s', e.revision, e.file_id, f.revision)
    FROM events e JOIN files f ON f.tenant_id = e.tenant_id AND f.id = e.file_id WHERE e.revision > f.revision";

struct NoProgress;

impl FsckProgress for NoProgress {
    fn report_progress(&mut self, _: &FsckReport) {}
}

impl Service {
    /// Runs `strongroom fsck` without repairing.
    pub(crate) async fn run_fsck(&self) -> FsckReport {
        self.run_fsck_with(false).await
    }

    /// Runs `strongroom fsck`, which also marks lost versions if `is_repairing`.
    pub(crate) async fn run_fsck_with(&self, is_repairing: bool) -> FsckReport {
        self.run_fsck_in(self.stores.clone(), is_repairing).await
    }

    /// Runs `strongroom fsck --repair` in the primary store with its injected faults.
    pub(crate) async fn run_fsck_with_faults(&self) -> FsckReport {
        let store: Arc<dyn ObjectStorage> = self.faults.clone();
        let stores = Stores::new([store], self.store.provider(), UNLIMITED).unwrap();
        self.run_fsck_in(stores, true).await
    }

    async fn run_fsck_in(&self, stores: Stores, is_repairing: bool) -> FsckReport {
        let fsck = Fsck {
            db: self.db.clone(),
            stores,
            metrics: self.metrics.clone(),
            clock: self.clock.clone(),
            ids: Arc::new(SystemIds),
            grace: Duration::ZERO,
            key_prefix: "live".to_owned(),
            depth: SampleSize::Everything,
            is_repairing,
            audit_days: u32::try_from(self.app.limits().retention.audit_days).unwrap(),
        };
        fsck.check_all(&mut NoProgress).await.unwrap()
    }
}

pub(crate) async fn check_invariants(s: &Service) {
    assert_eq!(
        s.superuser.query_texts(WRONG_QUOTAS).await,
        [""; 0],
        "usage is the sum of charged versions, nothing is reserved"
    );
    // A test that advances the clock may have let the events of its first changes expire.
    let event_days = i64::try_from(s.app.limits().retention.event_days).unwrap();
    let oldest = s.clock.now() - chrono::Duration::days(event_days);
    let unrecorded = format!("{UNRECORDED_CHANGES} AND v.create_time > '{}'", oldest.to_rfc3339());
    assert_eq!(
        s.superuser.query_texts(&unrecorded).await,
        [""; 0],
        "every change has an audit entry and an event"
    );
    assert_eq!(
        s.superuser.query_texts(MISORDERED_EVENTS).await,
        [""; 0],
        "the events of a file have the order of its revisions"
    );
    let open = "SELECT format('upload %s', id) FROM uploads WHERE state = {upload_state.open}";
    assert_eq!(s.superuser.query_texts(open).await, [""; 0], "no upload is open");
    if !s.may_fail_jobs.load(Ordering::Relaxed) {
        let failed = "SELECT format('%s: state %s, %s', kind, state, last_error) FROM jobs
                      WHERE state <> {job_state.ready} OR last_error <> ''";
        assert_eq!(s.superuser.query_texts(failed).await, [""; 0], "no job failed, and no worker holds one");
    }
    for store in s.stores.iter() {
        let multiparts = store.list_multiparts("", None, 10).await.unwrap().multiparts;
        assert!(multiparts.is_empty(), "no multipart upload is open: {multiparts:?}");
        assert_objects_have_rows(s, store.as_ref()).await;
    }

    let report = s.run_fsck().await;
    if !s.may_lose_objects.load(Ordering::Relaxed) {
        assert_eq!(report.violations, [], "fsck finds no violation");
    }
}

async fn assert_objects_have_rows(s: &Service, store: &dyn ObjectStorage) {
    let mut after = None;
    loop {
        let page = store.list("", after.as_ref(), 500).await.unwrap();
        for object in &page.objects {
            let key = object.key.to_string();
            let rows = "SELECT FROM blobs WHERE storage_key = $1 OR replica_key = $1
                UNION ALL SELECT FROM stray_objects WHERE storage_key = $1";
            assert_eq!(s.superuser.query_rows(rows, &[&key]).await.len(), 1, "object {key} has no row");
        }
        match page.objects.last() {
            Some(last) => after = Some(last.key.clone()),
            None => return,
        }
    }
}
