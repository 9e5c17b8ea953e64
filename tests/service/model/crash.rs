//! A server that dies in the middle of a call. What it was told is then done whole or not at all, and asking again with the
//! same request id does it exactly once.

use std::{collections::BTreeSet, time::Duration};

use strongroom::proto::v1::UploadState;
use tokio::time::timeout;
use tonic::Status;
use tonic_types::StatusExt as _;

use super::{
    books::{Adrift, Who},
    calls::{Answer, Call},
    check,
    instance::Instance,
    run::Run,
};
use crate::harness::reason;

/// How long a client waits for an answer, and the test for a server.
const DEADLINE: Duration = Duration::from_secs(30);

impl Run<'_> {
    /// Dies after some round trips, and another server takes its place.
    pub(super) async fn crash(&mut self, t: usize) {
        let (who, call) = self.draw(t);
        let (request_id, patience) = (self.dice.uuid(), self.dice.below(60));
        self.note(format!("tenant {t}, {}: the server dies during {call:?} {request_id}", who.user));
        self.tally.count("crash", false);
        let caller = check::caller(&self.working.service, &self.tenants[t], &who);
        let (asked, id) = (call.clone(), request_id.clone());
        let mut asked = tokio::spawn(async move { asked.perform(&caller, id).await });
        for _ in 0..patience {
            self.s.owner.ping().await;
        }
        self.working.crash(self.s).await;
        // Not every client hears that its server is dead; each has a deadline.
        let outcome = match timeout(DEADLINE, &mut asked).await {
            Ok(ended) => ended.unwrap(),
            Err(_) => {
                asked.abort();
                Err(Status::deadline_exceeded("no answer from a dead server"))
            }
        };
        let started = timeout(DEADLINE, Instance::start(self.s)).await;
        self.working = started.expect("a server starts");
        self.find_adrift(t).await;
        if outcome.is_ok() {
            self.tally.count("crash after the answer", false);
            return self.judge(t, &who, &call, outcome, &request_id).await;
        }
        self.assert_whole_or_nothing(t, &call).await;
        if let Call::Send { .. } = call {
            self.go_on(t, &who, &call).await;
        } else if is_told(&outcome) {
            return self.judge(t, &who, &call, outcome, &request_id).await;
        } else {
            self.tally.count("crash before the answer", false);
            let again = self.perform(t, &who, &call, &request_id).await;
            self.judge(t, &who, &call, again, &request_id).await;
        }
        check::books(self.s, &self.working.service, &self.tenants[t]).await;
        check::names(&self.working.service, &self.tenants[t]).await;
    }

    /// Reservations of streams that died; nobody goes on with them, and they are given back when their lease runs out.
    async fn find_adrift(&mut self, t: usize) {
        let rows = "SELECT reserved_bytes, is_version, extract(epoch FROM lease_expire_time)::bigint
            FROM uploads WHERE tenant_id = $1::text::uuid AND state = 1 AND spec IS NULL";
        let rows = self.s.owner.rows(rows, &[&self.tenant_id(t).await]).await;
        let adrift = |row: &tokio_postgres::Row| Adrift {
            bytes: row.get(0),
            files: i64::from(!row.get::<_, bool>(1)),
            until: row.get(2),
        };
        let found: Vec<Adrift> = rows.iter().map(adrift).collect();
        let before = self.tenants[t].adrift.len();
        assert!(found.len() <= before + 1, "one call left {found:?}, after {before} there were");
        self.tenants[t].adrift = found;
    }

    async fn tenant_id(&self, t: usize) -> String {
        let caller = check::caller(&self.working.service, &self.tenants[t], &super::draw::PEOPLE[2]);
        caller.tenant_id().await
    }

    /// At most one file is there that was not, with the bytes that were sent; at most the one that was to go is gone.
    async fn assert_whole_or_nothing(&self, t: usize, call: &Call) {
        let rows = "SELECT id::text FROM files WHERE tenant_id = $1::text::uuid";
        let rows = self.s.owner.rows(rows, &[&self.tenant_id(t).await]).await;
        let now: BTreeSet<String> = rows.iter().map(|row| row.get(0)).collect();
        let before: BTreeSet<String> = self.tenants[t].files.keys().cloned().collect();
        let new: Vec<&String> = now.difference(&before).collect();
        let gone: Vec<&String> = before.difference(&now).collect();
        let content = match call {
            Call::Upload { content, .. } | Call::Send { content, is_finished: true, .. } => Some(*content),
            Call::Copy { file, version, .. } => self.tenants[t].files.get(file).and_then(|source| {
                let version = if *version == 0 { source.current } else { *version };
                source.versions.get(&version).copied()
            }),
            _ => None,
        };
        match (new.as_slice(), content) {
            ([], _) => {}
            ([id], Some(content)) => {
                let caller = check::caller(&self.working.service, &self.tenants[t], &super::draw::PEOPLE[2]);
                assert!(caller.read(id).await.unwrap() == content.bytes(), "half a file: {id}");
            }
            (new, _) => panic!("files that nobody asked for: {new:?}"),
        }
        match (gone.as_slice(), call) {
            ([], _) => {}
            ([gone], Call::Purge { file }) => assert_eq!(*gone, file),
            (gone, _) => panic!("files that are gone: {gone:?}"),
        }
    }

    /// An upload whose stream died is a file, which finishing again answers, or can be gone on with.
    async fn go_on(&mut self, t: usize, who: &Who, call: &Call) {
        let Call::Send { upload, content, .. } = call else { return };
        let now = self.now();
        let Some(before) = self.tenants[t].open(upload, now) else { return };
        let owner = super::draw::PEOPLE.iter().find(|person| person.user == before.owner).unwrap().clone();
        let caller = check::caller(&self.working.service, &self.tenants[t], &owner);
        let told = caller.upload_at(upload).await.unwrap();
        if told.state() != UploadState::Committed {
            return self.adopt(t, &owner, call).await;
        }
        assert_eq!(who, &owner, "somebody else finished it");
        let (upload, content, len) = (upload.clone(), *content, content.len);
        let again = Call::Send { upload, content, from: len, upto: len, is_finished: true };
        let answer: Answer = self.perform(t, &owner, &again, "").await.unwrap();
        self.tenants[t].apply(&owner, &again, &answer, now);
    }
}

/// Whether the service itself refused, before it died.
fn is_told(outcome: &Result<Answer, Status>) -> bool {
    let Err(status) = outcome else { return true };
    status.get_error_details().error_info().is_some() && reason(status) != "SHUTTING_DOWN"
}
