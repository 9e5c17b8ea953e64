//! What `strongroom fsck` says of bytes that are not what their row tells. That it is silent about all others is checked at
//! the end of every test.

use crate::harness::{PART, pattern, service_test, spec};

#[test]
fn a_digest_and_a_checksum_that_are_not_of_the_bytes_are_found() {
    service_test(|s| async move {
        s.alice().upload(spec("a"), &pattern(3 * PART)).await.unwrap();
        for (column, wrong, told) in
            [("sha256", "sha256('x')", "SHA-256"), ("crc64nvme", "'12345678'", "CRC-64")]
        {
            let was = s.owner.texts(&format!("SELECT {column}::text FROM blobs")).await;
            s.owner.run(&format!("UPDATE blobs SET {column} = {wrong}")).await;
            let report = s.fsck().await;
            assert_eq!(report.violations.len(), 1, "{report:?}");
            assert!(report.violations[0].what.contains(told), "{report:?}");
            s.owner.run(&format!("UPDATE blobs SET {column} = '{}'", was[0])).await;
        }
    });
}
