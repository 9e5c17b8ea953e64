//! What stands in the books of one tenant, read past the service.

use super::{Caller, Service};

/// The quota row of a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Book {
    pub(crate) limit_bytes: i64,
    pub(crate) used_bytes: i64,
    pub(crate) reserved_bytes: i64,
    pub(crate) file_count: i64,
    pub(crate) reserved_file_count: i64,
}

impl Service {
    /// The books of a caller's tenant.
    pub(crate) async fn book(&self, caller: &Caller) -> Book {
        let sql =
            "SELECT limit_bytes, used_bytes, reserved_bytes, file_count, reserved_file_count FROM quotas
                   WHERE tenant_id = $1::text::uuid";
        let rows = self.owner.rows(sql, &[&caller.tenant_id().await]).await;
        Book {
            limit_bytes: rows[0].get(0),
            used_bytes: rows[0].get(1),
            reserved_bytes: rows[0].get(2),
            file_count: rows[0].get(3),
            reserved_file_count: rows[0].get(4),
        }
    }

    /// That nothing came of an upload: no record, no object, nothing reserved, nothing charged.
    #[track_caller]
    pub(crate) fn assert_nothing_is_left(&self) -> impl Future<Output = ()> {
        let place = std::panic::Location::caller();
        async move {
            self.until(&format!("clean up ({place})"), || async {
                self.owner.number("SELECT sum(reserved_bytes + reserved_file_count) FROM quotas").await == 0
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
                "SELECT count(*) FROM uploads WHERE state = 1",
            ] {
                assert_eq!(self.owner.number(sql).await, 0, "{sql} ({place})");
            }
        }
    }
}
