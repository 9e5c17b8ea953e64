//! A checkpoint: nothing is in progress, and everything that was acknowledged is verified.

use std::{collections::BTreeMap, pin::pin, sync::Mutex};

use futures::{StreamExt, TryStreamExt, stream};
use serde_json::Value;
use strongroom::{
    client::Client,
    db::migrate::replace_state_names,
    proto::v1::{DownloadFileRequest, File, FileState, GetQuotaRequest, ListFilesRequest},
};
use tokio::sync::RwLockWriteGuard;
use tokio_postgres::Client as Sql;

use super::{
    Run,
    contents::Content,
    ledger::{Entry, Ledger},
    within,
};
use crate::{
    database::{APP_LOGIN, SYSTEM_LOGIN},
    server::connect,
    worker::{connect_database, is_reached, query_json, query_number, wait_until},
};

/// The number of versions that are read back at the same time.
const READS: usize = 4;

/// Ends the leases of the processes that were killed, which would expire by themselves after up to half a minute. What
/// their copies left in the stores would be deleted after a day.
const EXPIRE_LEASES: &str = "
    UPDATE jobs SET lease_expire_time = now() WHERE state = {job_state.running};
    UPDATE webhooks SET lease_expire_time = now(), next_attempt_time = now();
    UPDATE uploads SET lease_expire_time = now() WHERE state = {upload_state.open};
    UPDATE blob_claims SET expire_time = now();
    UPDATE stray_objects SET delete_after = now();";

impl Run {
    /// Waits for the end of all operations, and verifies everything. The clients are paused while the returned guard
    /// is held.
    pub(super) async fn verify(&self) -> RwLockWriteGuard<'_, ()> {
        let paused = within("all clients finish their operation", self.gate.write()).await;
        self.fleet.wait_until_ready().await;
        // Afterwards no process holds a request or a job. The next ones must take over from the rows alone.
        self.fleet.stop_processes().await;
        self.prepare_stopped().await;
        self.fleet.start_processes().await;
        self.wait_for_background_work().await;

        let address = self.fleet.wait_for_service(0).await;
        let client = connect(&address, self.site.identity.token("ada", "acme", "admin")).await;
        let found = list_files(&client).await;
        self.ledger.lock().settle(&found);
        self.compare_files(&found);
        self.read_back(&client).await;
        self.compare_events().await;
        self.compare_quota(&client).await;
        self.run_fsck(&["--deep"]).await;
        // A damaged blob gets no copy.
        self.journal.stop_at_findings(&self.plan);
        self.scrub().await;
        let crash_recoveries = self.postgres.count_crash_recoveries();
        self.journal.add(|totals| {
            totals.checkpoints += 1;
            totals.crash_recoveries = crash_recoveries;
        });
        self.journal.print_progress();
        self.journal.stop_at_findings(&self.plan);
        paused
    }

    /// Waits until no session of the stopped processes is left, ends their leases, and allows deletions, which wait
    /// after the database server was restarted.
    pub(super) async fn prepare_stopped(&self) {
        let sql = connect_database(&self.site).await;
        let sessions = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE usename IN ('{APP_LOGIN}', '{SYSTEM_LOGIN}')"
        );
        wait_until("no session is left", || async { query_number(&sql, &sessions).await == 0 }).await;
        sql.batch_execute(&replace_state_names(EXPIRE_LEASES).unwrap()).await.unwrap();
        let (code, adopted) = self.site.run_json(&["storage", "adopt", "--yes", "--json"]).await;
        assert_eq!(code, Some(0), "{adopted}");
    }

    /// Waits until no job, no open upload and no due blob is left.
    async fn wait_for_background_work(&self) {
        let sql = connect_database(&self.site).await;
        for (what, rows) in [
            ("all jobs are done", "jobs"),
            ("the abandoned uploads have expired", "uploads WHERE state = {upload_state.open}"),
            ("no version is being verified", "versions WHERE content_state = {content_state.processing}"),
            ("no blob is due for deletion", "blobs WHERE delete_after <= now()"),
            ("no stray object is due for deletion", "stray_objects WHERE delete_after <= now()"),
        ] {
            self.wait_until_no_row(&sql, what, rows).await;
        }
    }

    /// Waits until a table or subquery has no rows. If that does not happen, panics with the rows that are left, the
    /// last warnings of the processes and the findings: one of them says why.
    pub(super) async fn wait_until_no_row(&self, sql: &Sql, what: &str, rows: &str) {
        let query = format!("SELECT count(*) FROM {rows}");
        if !is_reached(|| async { query_number(sql, &query).await == 0 }).await {
            let (seed, left) = (self.plan.seed, query_json(sql, rows).await);
            panic!("seed {seed}: timed out waiting until {what}: {left}\n{}", self.journal.explain());
        }
    }

    /// Compares the files of the service with the ledger, after its doubts are settled.
    fn compare_files(&self, found: &BTreeMap<String, File>) {
        let rows = self.ledger.lock();
        for (name, entry) in &rows.files {
            match found.get(name) {
                None => {
                    self.journal.report_lost(format!("{name} was acknowledged and does not exist: {entry:?}"))
                }
                Some(file) if !is_as_expected(file, entry) => {
                    self.journal.report_lost(format!("{name} is {file:?}; expected: {entry:?}"));
                }
                Some(_) => {}
            }
        }
        for (name, file) in found.iter().filter(|(name, _)| !rows.files.contains_key(*name)) {
            self.journal.report_lost(format!("{name} was purged or never uploaded, and exists: {file:?}"));
        }
        self.journal.add(|totals| totals.verified_absences += rows.purged.len() as u64);
    }

    /// Downloads every version of every file that can be read.
    async fn read_back(&self, client: &Client) {
        let versions = list_versions(&self.ledger);
        let reads = stream::iter(versions).map(|(request, content)| async move {
            let what = format!("file {} version {}", request.file_id, request.version);
            // The client compares the bytes with this digest.
            match client.download_to(request, &mut tokio::io::sink(), |_| {}).await {
                Ok(header) if header.sha256[..] == content.digest.as_bytes()[..] => {
                    self.journal.add(|totals| {
                        totals.verified_versions += 1;
                        totals.verified_bytes += content.size as u64;
                    });
                }
                Ok(header) => {
                    self.journal.report_lost(format!("{what} is {header:?}; expected: {content:?}"))
                }
                Err(error) => self.journal.report_lost(format!("{what}: {error:?}")),
            }
        });
        reads.buffer_unordered(READS).collect::<()>().await;
    }

    /// Compares the events in the database with those that the watch and the endpoint have received, and with the
    /// changes of each file.
    async fn compare_events(&self) {
        let sql = connect_database(&self.site).await;
        let events = usize::try_from(query_number(&sql, "SELECT count(*) FROM events").await).unwrap();
        for (who, heard) in [("watch", &self.watched), ("endpoint", &self.delivered)] {
            wait_until(&format!("the {who} has received all events"), || async {
                tokio::task::yield_now().await;
                heard.count() >= events
            })
            .await;
        }
        if self.watched.count() != events || self.watched.positions() != self.delivered.positions() {
            self.journal
                .report_other("the database, the watch and the endpoint have different events".to_owned());
        }
        let watched = self.watched.kinds_by_file();
        let rows = self.ledger.lock();
        let expected = rows.expected_events();
        for (id, kinds) in &expected {
            if watched.get(*id).map(Vec::as_slice) != Some(*kinds) {
                let finding = format!("file {id}: watched {:?}; expected {kinds:?}", watched.get(*id));
                self.journal.report_other(finding);
            }
        }
        for (id, kinds) in watched.iter().filter(|(id, _)| !expected.contains_key(id.as_str())) {
            self.journal.report_other(format!("file {id} is unknown and has the events {kinds:?}"));
        }
        self.journal.add(|totals| totals.events = events as u64);
    }

    /// Compares the quota with the sum of the ledger.
    async fn compare_quota(&self, client: &Client) {
        let quota = client.get_quota(GetQuotaRequest::default()).await.unwrap().quota.unwrap();
        let (bytes, files) = {
            let rows = self.ledger.lock();
            let bytes: i64 = rows.files.values().map(Entry::total_bytes).sum();
            (bytes, i64::try_from(rows.files.len()).unwrap())
        };
        let counted = (quota.used_bytes, quota.file_count, quota.reserved_bytes, quota.reserved_file_count);
        if counted != (bytes, files, 0, 0) {
            self.journal
                .report_drift(format!("the quota is {counted:?}; expected: {bytes} bytes, {files} files"));
        }
    }

    pub(super) async fn run_fsck(&self, arguments: &[&str]) {
        let (is_clean, report) = self.site.run_fsck(arguments).await;
        let violations = report["violations"].as_array().unwrap();
        for violation in violations {
            match violation["invariant"].as_str() {
                Some("quotas") => self.journal.report_drift(violation.to_string()),
                Some("stored_bytes") => self.journal.report_lost(violation.to_string()),
                _ => self.journal.report_other(violation.to_string()),
            }
        }
        if is_clean != violations.is_empty() || report["blobs"] != report["hashed_blobs"] {
            self.journal.report_other(format!("fsck: {report}"));
        }
    }

    /// Sweeps until nothing is left. The services are stopped, so no object belongs to an upload in progress and a
    /// grace period of one second is enough. After many kills, most objects may belong to no file. Without the last
    /// option, a sweep would suppose that another database uses the store.
    pub(super) async fn sweep_until_clean(&self) {
        let arguments =
            ["sweep", "--json", "--grace-seconds", "1", "--service-is-stopped", "--trust-database"];
        let last = Mutex::new(Value::Null);
        let is_clean = is_reached(|| async {
            let (code, reports) = self.site.run_json(&arguments).await;
            assert_eq!(code, Some(0), "{reports:#}");
            let is_clean = reports.as_array().unwrap().iter().all(is_swept);
            *last.lock().unwrap() = reports;
            is_clean
        });
        assert!(is_clean.await, "timed out waiting until the stores are clean: {last:#?}");
    }
}

/// Returns whether a sweep did nothing and left nothing to do.
fn is_swept(report: &Value) -> bool {
    let counts = [
        "/found/count",
        "/deleted/count",
        "/waiting/count",
        "/expired_uploads",
        "/skipped_young",
        "/open_uploads",
        "/listed_multiparts",
        "/skipped_foreign",
    ];
    counts.into_iter().all(|place| report.pointer(place).and_then(Value::as_u64) == Some(0))
}

/// Returns all files of the tenant by name, including those in the trash.
async fn list_files(client: &Client) -> BTreeMap<String, File> {
    let request = ListFilesRequest { page_size: 1000, show_deleted: true, ..ListFilesRequest::default() };
    let mut files = pin!(client.list_all_files(request));
    let mut found = BTreeMap::new();
    while let Some(file) = files.try_next().await.unwrap() {
        if let Some(other) = found.insert(file.name.clone(), file) {
            panic!("an operation took effect twice, or a file is listed twice: {other:?}");
        }
    }
    found
}

fn is_as_expected(file: &File, entry: &Entry) -> bool {
    let state = if entry.is_trashed { FileState::Deleted } else { FileState::Available };
    let content = entry.content();
    (file.id.as_str(), file.state(), file.size_bytes) == (entry.id.as_str(), state, content.size_bytes())
        && usize::try_from(file.version) == Ok(entry.versions.len())
        && file.sha256[..] == content.digest.as_bytes()[..]
}

/// Returns a download of every version of every file outside the trash, with its expected content.
fn list_versions(ledger: &Ledger) -> Vec<(DownloadFileRequest, Content)> {
    let rows = ledger.lock();
    let readable = rows.files.values().filter(|entry| !entry.is_trashed);
    readable
        .flat_map(|entry| {
            (1..).zip(&entry.versions).map(|(version, content)| {
                let request = DownloadFileRequest {
                    file_id: entry.id.clone(),
                    version,
                    ..DownloadFileRequest::default()
                };
                (request, content.clone())
            })
        })
        .collect()
}
