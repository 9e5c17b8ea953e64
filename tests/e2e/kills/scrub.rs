//! Scrubbing, and a second provider with a copy of each blob, while processes are killed.

use super::Run;
use crate::worker::connect_database;

/// The blobs that have no copy and must have one, with their versions and claims.
const UNCOPIED: &str = "
    (SELECT b.*, (SELECT jsonb_agg(to_jsonb(c)) FROM blob_claims AS c
                  WHERE (c.tenant_id, c.blob_id) = (b.tenant_id, b.id)) AS claims,
            (SELECT jsonb_agg(to_jsonb(v)) FROM versions AS v
             WHERE (v.tenant_id, v.blob_id) = (b.tenant_id, b.id)) AS versions
     FROM blobs AS b
     WHERE replica_key IS NULL AND sha256 IS NOT NULL AND delete_after IS NULL) AS uncopied";

/// Lets the workers read every blob and every copy again, during the kills that follow.
const AGE_VERIFICATIONS: &str = "
    UPDATE blobs SET last_verified_time = now() - interval '2 days';
    UPDATE blobs SET replica_verified_time = now() - interval '2 days' WHERE replica_key IS NOT NULL;";

/// Returns the settings that switch scrubbing and copies on. The copies are in a directory.
pub(super) fn settings() -> Vec<(&'static str, String)> {
    [
        ("STRONGROOM_STORAGE__REPLICA_PROVIDER", "local"),
        ("STRONGROOM_SCRUB__PERIOD_DAYS", "1"),
        ("STRONGROOM_SCRUB__BYTES_PER_SECOND", "104857600"),
        ("STRONGROOM_SCRUB__CLAIM_SECONDS", "30"),
    ]
    .map(|(name, value)| (name, value.to_owned()))
    .to_vec()
}

impl Run {
    /// Waits until every blob has a copy, and reads all blobs and copies.
    pub(super) async fn scrub(&self) {
        let sql = connect_database(&self.site).await;
        self.wait_until_no_row(&sql, "every blob has a copy", UNCOPIED).await;
        let (code, report) = self.site.run_json(&["scrub", "--now", "--json"]).await;
        if code != Some(0) {
            self.journal.report_lost(format!("scrub: {report}"));
        }
        sql.batch_execute(AGE_VERIFICATIONS).await.unwrap();
    }
}
