//! Server crashes during a call. The call must take effect completely or not at all, and exactly once
//! after a retry with the same request id.

use std::{collections::BTreeSet, time::Duration};

use strongroom::proto::v1::UploadState;
use tokio::time::timeout;
use tonic::Status;
use tonic_types::StatusExt as _;

use super::{
    calls::{Call, Response},
    check,
    expected::{OrphanedReservation, Person},
    instance::Instance,
    sequence::Sequence,
};
use crate::harness::{WAIT_MAX, reason};

/// The timeout for responses.
const DEADLINE: Duration = Duration::from_secs(30);

impl Sequence<'_> {
    /// Crashes the server during a call, after a random number of round trips, and starts another one.
    pub(super) async fn crash_server(&mut self, t: usize) {
        let (person, call) = self.draw_call(t);
        let (request_id, round_trips) = (self.rng.uuid(), self.rng.below(60));
        self.log_step(format!(
            "tenant {t}, {}: the server crashes during {call:?} {request_id}",
            person.user
        ));
        self.tally.count("crash", false);
        let caller = check::caller_for(&self.server.service, &self.tenants[t], &person);
        let (sent_call, id) = (call.clone(), request_id.clone());
        let mut task = tokio::spawn(async move { sent_call.perform(&caller, id).await });
        for _ in 0..round_trips {
            self.s.superuser.ping().await;
        }
        self.server.crash(self.s).await;
        // A client does not always notice that its server crashed, so it needs a deadline.
        let outcome = match timeout(DEADLINE, &mut task).await {
            Ok(joined) => joined.unwrap(),
            Err(_) => {
                task.abort();
                Err(Status::deadline_exceeded("the server crashed"))
            }
        };
        let started = timeout(WAIT_MAX, Instance::start(self.s)).await;
        self.server = started.expect("the new server did not start");
        self.record_orphaned_reservations(t).await;
        if outcome.is_ok() {
            self.tally.count("crash after response", false);
            return self.check_outcome(t, &person, &call, outcome, &request_id).await;
        }
        self.assert_all_or_nothing(t, &call).await;
        if let Call::SendBytes { .. } = call {
            self.resume_after_crash(t, &person, &call).await;
        } else if is_refused_by_service(&outcome) {
            return self.check_outcome(t, &person, &call, outcome, &request_id).await;
        } else {
            self.tally.count("crash before response", false);
            let retried = self.perform_call(t, &person, &call, &request_id).await;
            self.check_outcome(t, &person, &call, retried, &request_id).await;
        }
        check::assert_quota(self.s, &self.server.service, &self.tenants[t]).await;
        check::assert_names(&self.server.service, &self.tenants[t]).await;
    }

    /// Adds the reservations of crashed streams to the model. No client can resume them; they are released
    /// when their lease expires.
    async fn record_orphaned_reservations(&mut self, t: usize) {
        let rows = "SELECT reserved_bytes, is_version, extract(epoch FROM lease_expire_time)::bigint
            FROM uploads WHERE tenant_id = $1::text::uuid AND state = {upload_state.open} AND spec IS NULL";
        let rows = self.s.superuser.query_rows(rows, &[&self.tenant_id(t).await]).await;
        let from_row = |row: &tokio_postgres::Row| OrphanedReservation {
            bytes: row.get(0),
            files: i64::from(!row.get::<_, bool>(1)),
            lease_expire_time: row.get(2),
        };
        let found: Vec<OrphanedReservation> = rows.iter().map(from_row).collect();
        let before = self.tenants[t].orphaned_reservations.len();
        assert!(found.len() <= before + 1, "one call added more than one reservation to {before}: {found:?}");
        self.tenants[t].orphaned_reservations = found;
    }

    async fn tenant_id(&self, t: usize) -> String {
        let caller = check::caller_for(&self.server.service, &self.tenants[t], &super::draw::PEOPLE[2]);
        caller.tenant_id().await
    }

    /// Asserts that the call created at most one file, which contains every byte sent, and removed at most
    /// the file that it was meant to purge.
    async fn assert_all_or_nothing(&self, t: usize, call: &Call) {
        let rows = "SELECT id::text FROM files WHERE tenant_id = $1::text::uuid";
        let rows = self.s.superuser.query_rows(rows, &[&self.tenant_id(t).await]).await;
        let now: BTreeSet<String> = rows.iter().map(|row| row.get(0)).collect();
        let before: BTreeSet<String> = self.tenants[t].files.keys().cloned().collect();
        let new: Vec<&String> = now.difference(&before).collect();
        let removed: Vec<&String> = before.difference(&now).collect();
        let content = match call {
            Call::Upload { content, .. } | Call::SendBytes { content, is_finished: true, .. } => {
                Some(*content)
            }
            Call::Copy { file, version, .. } => self.tenants[t].files.get(file).and_then(|source| {
                let version = if *version == 0 { source.current } else { *version };
                source.versions.get(&version).copied()
            }),
            _ => None,
        };
        match (new.as_slice(), content) {
            ([], _) => {}
            ([id], Some(content)) => {
                let caller =
                    check::caller_for(&self.server.service, &self.tenants[t], &super::draw::PEOPLE[2]);
                assert!(caller.read(id).await.unwrap() == content.bytes(), "partial file: {id}");
            }
            (new, _) => panic!("unexpected files: {new:?}"),
        }
        match (removed.as_slice(), call) {
            ([], _) => {}
            ([removed], Call::Purge { file }) => assert_eq!(*removed, file),
            (removed, _) => panic!("files removed unexpectedly: {removed:?}"),
        }
    }

    /// Asserts that an upload whose stream crashed either became a file, which a retry of the finish returns,
    /// or can be resumed.
    async fn resume_after_crash(&mut self, t: usize, person: &Person, call: &Call) {
        let Call::SendBytes { upload, content, .. } = call else { return };
        let now = self.now();
        let Some(before) = self.tenants[t].open_upload(upload, now) else { return };
        let owner = super::draw::PEOPLE.iter().find(|person| person.user == before.owner).unwrap().clone();
        let caller = check::caller_for(&self.server.service, &self.tenants[t], &owner);
        let upload_status = caller.get_upload(upload).await.unwrap();
        if upload_status.state() != UploadState::Committed {
            return self.record_upload_state(t, &owner, call).await;
        }
        assert_eq!(person, &owner, "another person finished the upload");
        let (upload, content, len) = (upload.clone(), *content, content.len);
        let finish = Call::SendBytes { upload, content, from: len, to: len, is_finished: true };
        let response: Response = self.perform_call(t, &owner, &finish, "").await.unwrap();
        self.tenants[t].apply(&owner, &finish, &response, now);
    }
}

/// Returns whether the service itself reported an error before the crash.
fn is_refused_by_service(outcome: &Result<Response, Status>) -> bool {
    let Err(status) = outcome else { return true };
    status.get_error_details().error_info().is_some() && reason(status) != "SHUTTING_DOWN"
}
