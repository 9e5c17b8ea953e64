//! PostgreSQL that is restarted, that is cut off in the middle of a commit, and whose connections are all busy.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use futures::future::join_all;
use strongroom::{
    config::Config,
    proto::v1::{UploadFileResponse, UploadSpec},
};
use tokio::sync::{Semaphore, watch};
use tonic::{Code, Status};
use tonic_types::StatusExt;
use url::Url;

use crate::{
    harness::{
        Caller, PART, Service, file_id, pattern, reason, server, service_test_in, service_test_with, sha256,
        spec,
    },
    own_postgres::OwnPostgres,
    proxy::{Fault, Protocol, Proxy, Upstream},
};

const REQUEST_ID: &str = "018f4e5a-7c1b-7d2e-8f3a-4b5c6d7e8f90";

/// A small file, written in one piece, and one of several parts.
const SIZES: [usize; 2] = [10, 3 * PART];

/// The two ways from the service to its database.
pub(crate) struct Doors {
    pub(crate) requests: Proxy,
    pub(crate) system: Proxy,
}

impl Doors {
    fn open(server: &Url) -> Self {
        let directory = PathBuf::from(server.host_str().unwrap().replace("%2F", "/"));
        let socket = Upstream::Unix(directory.join(".s.PGSQL.5432"));
        Self {
            requests: Proxy::start(Protocol::Postgres, socket.clone()),
            system: Proxy::start(Protocol::Postgres, socket),
        }
    }
}

/// Runs a test against a service whose connections to the database pass through proxies.
pub(crate) fn behind_doors<F, Fut>(configure: impl FnOnce(&mut Config), test: F)
where
    F: FnOnce(Service, Arc<OnceLock<Doors>>) -> Fut,
    Fut: Future<Output = ()>,
{
    let doors = Arc::new(OnceLock::new());
    let (opened, for_test) = (doors.clone(), doors.clone());
    service_test_in(
        None,
        |site| {
            configure(&mut site.config);
            let doors = opened.get_or_init(|| Doors::open(&server()));
            site.database_doors = Some([doors.requests.address(), doors.system.address()]);
        },
        |s| test(s, for_test),
    );
    drop(doors);
}

pub(crate) fn is_commit(message: &str) -> bool {
    message == "Q COMMIT"
}

/// That an answer says: not now, come again.
pub(crate) fn assert_come_again(status: &Status) {
    let got = (status.code(), reason(status));
    assert_eq!(got, (Code::Unavailable, "DATABASE_UNAVAILABLE".to_owned()), "{status:?}");
    assert!(status.get_error_details().retry_info().is_some(), "{status:?}");
}

/// Waits until what failed was cleaned up, and counts the files.
async fn files_at_rest(s: &Service) -> i64 {
    s.until("clean up", || async {
        let reserved = "SELECT sum(reserved_bytes + reserved_file_count) FROM quotas";
        let files = s.owner.number("SELECT count(*) FROM files").await;
        s.owner.number(reserved).await == 0
            && s.store.list("", None, 100).await.unwrap().objects.len() as i64 == files
            && s.store.list_multiparts("", None, 10).await.unwrap().multiparts.is_empty()
    })
    .await;
    s.owner.number("SELECT count(*) FROM files").await
}

/// Uploads once in peace, to see how often an upload commits. The last time makes the file visible.
async fn commits_of_an_upload(alice: &Caller, doors: &Doors, size: usize) -> usize {
    let seen = doors.requests.count(is_commit);
    alice.upload(spec("in peace"), &pattern(size)).await.unwrap();
    doors.requests.heal();
    seen.times()
}

#[test]
fn a_connection_cut_right_after_commit_was_sent_is_answered_by_what_became_of_it() {
    behind_doors(
        |_| {},
        |s, doors| async move {
            let (alice, doors) = (s.alice(), doors.get().unwrap());
            alice.quota().await.unwrap();
            for size in SIZES {
                let commits = commits_of_an_upload(&alice, doors, size).await;
                assert!(commits >= 1, "{commits}");
                for (nth, had_worked) in (0..commits).flat_map(|nth| [(nth, true), (nth, false)]) {
                    let before = files_at_rest(&s).await;
                    let fault = if had_worked { Fault::LoseAnswer } else { Fault::Cut { after_bytes: 0 } };
                    let seen = doors.requests.strike(nth..nth + 1, fault, is_commit);
                    let answer = alice.upload(spec("cut"), &pattern(size)).await;
                    assert!(seen.times() > nth, "the commit was struck");
                    doors.requests.heal();
                    let makes_the_file = nth + 1 == commits;
                    assert_eq!(answer.is_ok(), had_worked && makes_the_file, "commit {nth} of {size} bytes");
                    match &answer {
                        Ok(answer) => {
                            assert_eq!(alice.read(&file_id(answer)).await.unwrap(), pattern(size));
                        }
                        Err(status) => assert_come_again(status),
                    }
                    assert_eq!(files_at_rest(&s).await - before, i64::from(answer.is_ok()));
                }
            }
        },
    );
}

/// Uploads, loses the answer to the commit that makes the file visible, and nobody can be asked about it.
async fn upload_into_the_unknown(
    s: &Service,
    doors: &Doors,
    fault: Fault,
    size: usize,
) -> Result<UploadFileResponse, Status> {
    let alice = s.alice();
    alice.quota().await.unwrap();
    let commits = commits_of_an_upload(&alice, doors, size).await;
    doors.requests.strike(commits - 1..commits, fault, is_commit);
    doors.system.go_down().await;
    let told = UploadSpec { request_id: REQUEST_ID.to_owned(), ..spec("unknown") };
    let answer = alice.upload(told, &pattern(size)).await;
    doors.requests.heal();
    doors.system.come_up();
    answer
}

/// The outcome is unknown, and a retry with the same request id is safe.
fn assert_unknown(answer: Result<UploadFileResponse, Status>) {
    let status = answer.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Unavailable, "DATABASE_UNAVAILABLE"));
    assert!(status.message().contains("not known"), "{status:?}");
    assert!(status.get_error_details().retry_info().is_some());
}

#[test]
fn a_commit_that_worked_and_that_nobody_can_tell_of_keeps_its_file_and_a_retry_finds_it() {
    behind_doors(
        |_| {},
        |s, doors| async move {
            let size = 10;
            assert_unknown(upload_into_the_unknown(&s, doors.get().unwrap(), Fault::LoseAnswer, size).await);
            assert_eq!(files_at_rest(&s).await, 2);
            let told = UploadSpec { request_id: REQUEST_ID.to_owned(), ..spec("unknown") };
            let again = s.alice().upload(told, &pattern(size)).await.unwrap();
            assert_eq!(s.alice().read(&file_id(&again)).await.unwrap(), pattern(size));
            assert_eq!(files_at_rest(&s).await, 2);
        },
    );
}

#[test]
fn a_commit_that_did_not_work_and_that_nobody_can_tell_of_is_given_up_with_its_lease() {
    behind_doors(
        |_| {},
        |s, doors| async move {
            let (size, cut) = (3 * PART, Fault::Cut { after_bytes: 0 });
            assert_unknown(upload_into_the_unknown(&s, doors.get().unwrap(), cut, size).await);
            // The bytes are kept until it is sure that nothing became of them.
            assert_eq!(s.store.list("", None, 10).await.unwrap().objects.len(), 2);
            let told = UploadSpec { request_id: REQUEST_ID.to_owned(), ..spec("unknown") };
            s.alice().upload(told, &pattern(size)).await.unwrap();
            s.clock.advance(chrono::Duration::hours(25));
            strongroom::worker::round(&s.app).await;
            assert_eq!(files_at_rest(&s).await, 2);
        },
    );
}

#[test]
fn when_all_connections_are_busy_callers_are_told_to_come_again_and_nobody_is_stuck() {
    let narrow = |config: &mut Config| {
        (config.database.pool_size_max, config.database.acquire_timeout_seconds) = (2, 1);
    };
    behind_doors(narrow, |s, doors| async move {
        let (alice, doors) = (s.alice(), doors.get().unwrap());
        alice.quota().await.unwrap();
        let gate = Arc::new(Semaphore::new(0));
        let held =
            doors.requests.strike(0..2, Fault::Hold(gate.clone()), |message| message.starts_with("Q BEGIN"));
        let busy: Vec<_> = (0..2)
            .map(|_| {
                let alice = alice.clone();
                tokio::spawn(async move { alice.quota().await })
            })
            .collect();
        s.until("both connections are busy", || async { held.times() == 2 }).await;
        let (upload, quota) = tokio::join!(alice.upload(spec("a"), b"bytes"), alice.quota());
        assert_come_again(&upload.unwrap_err());
        assert_come_again(&quota.unwrap_err());
        gate.add_permits(2);
        for answer in join_all(busy).await {
            answer.unwrap().unwrap();
        }
        alice.upload(spec("a"), b"bytes").await.unwrap();
        assert_eq!(files_at_rest(&s).await, 1);
    });
}

#[test]
fn one_connection_is_enough_for_everybody_because_nobody_waits_for_a_second_one() {
    let narrow =
        |config: &mut Config| (config.database.pool_size_max, config.database.system_pool_size_max) = (1, 1);
    service_test_with(narrow, |s| async move {
        let work = (0..16).map(|n| {
            let caller = if n % 2 == 0 { s.alice() } else { s.mallory() };
            async move {
                let size = SIZES[n / 2 % 2];
                let told = UploadSpec { request_id: format!("{}{n:02}", &REQUEST_ID[..34]), ..spec("a") };
                let id = file_id(&caller.upload(told, &pattern(size)).await.unwrap());
                assert_eq!(caller.read(&id).await.unwrap(), pattern(size));
                caller.delete(&id).await.unwrap();
            }
        });
        // A wait for a second connection would end by its time limit, with an error.
        join_all(work).await;
    });
}

/// What uploads were acknowledged, while others go on.
struct Acknowledged {
    files: Mutex<Vec<(String, usize)>>,
    count: watch::Sender<usize>,
}

impl Acknowledged {
    /// Uploads until it is told to stop. Whatever fails must fail cleanly.
    async fn upload(&self, s: &Service, until: usize) {
        for size in SIZES.iter().copied().cycle() {
            if *self.count.borrow() >= until {
                return;
            }
            match s.alice().upload(spec("a"), &pattern(size)).await {
                Ok(answer) => {
                    self.files.lock().unwrap().push((file_id(&answer), size));
                    self.count.send_modify(|count| *count += 1);
                }
                Err(status) => {
                    // These uploads have no request id, so an unknown outcome is no reason to retry.
                    let got = (status.code(), reason(&status));
                    let unavailable = (Code::Unavailable, "DATABASE_UNAVAILABLE".to_owned());
                    let unknown = (Code::Aborted, "OUTCOME_UNKNOWN".to_owned());
                    assert!(got == unavailable || got == unknown, "{status:?}");
                }
            }
        }
    }

    async fn reach(&self, count: usize) {
        let mut counted = self.count.subscribe();
        let reached = counted.wait_for(|counted| *counted >= count);
        tokio::time::timeout(Duration::from_secs(60), reached).await.expect("uploads go on").unwrap();
    }
}

#[test]
fn postgres_restarted_during_uploads_loses_nothing_acknowledged_and_the_service_goes_on() {
    const BETWEEN: usize = 12;
    let postgres = Arc::new(OwnPostgres::start());
    let restarted = postgres.clone();
    service_test_in(
        Some(postgres.url()),
        |_| {},
        |s| async move {
            s.alice().quota().await.unwrap();
            let acknowledged = Acknowledged { files: Mutex::default(), count: watch::Sender::new(0) };
            let uploads = join_all((0..6).map(|_| acknowledged.upload(&s, 3 * BETWEEN)));
            let restarts = async {
                for (round, mode) in ["fast", "immediate"].into_iter().enumerate() {
                    acknowledged.reach((round + 1) * BETWEEN).await;
                    let postgres = restarted.clone();
                    tokio::task::spawn_blocking(move || postgres.restart(mode)).await.unwrap();
                }
            };
            tokio::join!(uploads, restarts);
            // What could not be given up while nobody could be asked is given up when its lease ends.
            s.clock.advance(chrono::Duration::hours(25));
            strongroom::worker::round(&s.app).await;
            let files = acknowledged.files.into_inner().unwrap();
            for (id, size) in &files {
                let read = s.alice().read(id).await.unwrap();
                assert_eq!(sha256(&read), sha256(&pattern(*size)), "{id}");
            }
            // An upload whose answer was unknown may be there as well; what is there is whole, as the books say.
            assert!(files_at_rest(&s).await >= files.len() as i64);
        },
    );
}
