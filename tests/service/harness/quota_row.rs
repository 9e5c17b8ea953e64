//! Quota rows, read directly from the database.

use super::{Caller, Service};

/// The row of one tenant in `quotas`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct QuotaRow {
    pub(crate) limit_bytes: i64,
    pub(crate) used_bytes: i64,
    pub(crate) reserved_bytes: i64,
    pub(crate) file_count: i64,
    pub(crate) reserved_file_count: i64,
    pub(crate) pending_deletion_bytes: i64,
}

impl Service {
    pub(crate) async fn quota_row(&self, caller: &Caller) -> QuotaRow {
        let sql = "SELECT limit_bytes, used_bytes, reserved_bytes, file_count, reserved_file_count,
                   pending_deletion_bytes
                   FROM quotas WHERE tenant_id = $1::text::uuid";
        let rows = self.superuser.query_rows(sql, &[&caller.tenant_id().await]).await;
        QuotaRow {
            limit_bytes: rows[0].get(0),
            used_bytes: rows[0].get(1),
            reserved_bytes: rows[0].get(2),
            file_count: rows[0].get(3),
            reserved_file_count: rows[0].get(4),
            pending_deletion_bytes: rows[0].get(5),
        }
    }

    /// Asserts that failed uploads left no record, no object, no reservation and no charge. Waits for the
    /// calls, which may be about to leave something, and for their clean-up. So no call may be in progress.
    #[track_caller]
    pub(crate) fn assert_nothing_is_left(&self) -> impl Future<Output = ()> {
        let location = std::panic::Location::caller();
        async move {
            self.wait_until(&format!("clean up ({location})"), || async {
                self.app.is_idle()
                    && self
                        .superuser
                        .query_number("SELECT sum(reserved_bytes + reserved_file_count) FROM quotas")
                        .await
                        == 0
                    && self.store.list("", None, 10).await.unwrap().objects.is_empty()
                    && self.store.list_multiparts("", None, 10).await.unwrap().multiparts.is_empty()
            })
            .await;
            for sql in [
                "SELECT count(*) FROM files",
                "SELECT count(*) FROM blobs",
                "SELECT count(*) FROM versions",
                "SELECT sum(used_bytes + file_count) FROM quotas",
                "SELECT sum(total_bytes + file_count) FROM usage_counters",
                "SELECT count(*) FROM uploads WHERE state = {upload_state.open}",
            ] {
                assert_eq!(self.superuser.query_number(sql).await, 0, "{sql} ({location})");
            }
        }
    }
}
