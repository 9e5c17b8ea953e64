//! Retention of audit entries: whole monthly partitions are dropped, and new ones have the same protection.

use chrono::Duration;
use strongroom::domain::clock::Clock as _;

use crate::harness::{Service, file_id, service_test, spec};

async fn count_audit_entries(s: &Service) -> i64 {
    s.superuser.query_number("SELECT count(*) FROM audit_entries").await
}

#[test]
fn audit_entries_are_dropped_after_their_retention() {
    service_test(|s| async move {
        let id = file_id(&s.alice().upload(spec("a"), b"bytes").await.unwrap());
        let first_month = s.clock.now().format("audit_entries_%Y%m01").to_string();
        let exists = format!("SELECT count(*) FROM pg_class WHERE relname = '{first_month}'");
        assert_eq!(s.superuser.query_number(&exists).await, 1);
        let written = count_audit_entries(&s).await;
        assert!(written > 0);

        // The retention is 2,555 days, and a partition ends up to 31 days after its first entry.
        s.clock.advance(Duration::days(2_554));
        strongroom::worker::run_round(&s.app).await;
        assert!(count_audit_entries(&s).await >= written, "the retention has not ended");
        s.clock.advance(Duration::days(33));
        strongroom::worker::run_round(&s.app).await;
        assert_eq!(s.superuser.query_number(&exists).await, 0, "the first partition is dropped");

        s.alice().purge(&id).await.unwrap();
        assert!(count_audit_entries(&s).await > 0, "new entries are written");
        let unprotected = "SELECT count(*) FROM pg_class AS c JOIN pg_inherits AS i ON i.inhrelid = c.oid
            WHERE i.inhparent = 'audit_entries'::regclass AND NOT (c.relrowsecurity AND c.relforcerowsecurity)";
        assert_eq!(s.superuser.query_number(unprotected).await, 0);
    });
}
