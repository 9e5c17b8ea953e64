//! `strongroom fsck` reports blobs whose bytes differ from their row. Every other test checks at its end that
//! fsck reports no violation.

use crate::harness::{PART, pattern, service_test, spec};

#[test]
fn fsck_reports_wrong_digest_and_wrong_checksum() {
    service_test(|s| async move {
        s.alice().upload(spec("a"), &pattern(3 * PART)).await.unwrap();
        for (column, wrong, name) in
            [("sha256", "sha256('x')", "SHA-256"), ("crc64nvme", "'12345678'", "CRC-64")]
        {
            let original = s.superuser.query_texts(&format!("SELECT {column}::text FROM blobs")).await;
            s.superuser.execute(&format!("UPDATE blobs SET {column} = {wrong}")).await;
            let report = s.run_fsck().await;
            assert_eq!(report.violations.len(), 1, "{report:?}");
            assert!(report.violations[0].problem.contains(name), "{report:?}");
            s.superuser.execute(&format!("UPDATE blobs SET {column} = '{}'", original[0])).await;
        }
    });
}
