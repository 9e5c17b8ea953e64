//! A worker that is killed while it reads a direct upload.

use strongroom::{
    domain::digest::Digest,
    proto::v1::{FileState, GetQuotaRequest},
};

use crate::{
    direct::{PUT_MAX, complete, create, file, png, read, send, site, verified},
    garage::Garage,
    gate::Gate,
    server::Server,
    worker::{Worker, number, sql, until},
};

/// How much of the upload the first worker gets to read.
const READ: usize = 1 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_killed_while_it_verifies_leaves_it_to_another_and_the_file_is_verified_once() {
    let garage = Garage::start().await;
    let site = site("direct_killed", &garage).await;
    let server = Server::start(site.command(&["serve"])).await;
    let (alice, watch) = (site.client(&server, "alice").await, sql(&site).await);
    let bytes = png(2 * PUT_MAX + 7);
    let direct = create(&alice, "picture", bytes.len(), Some(Digest::of(&bytes))).await;
    let sent = send(&direct, &bytes).await;
    let id = complete(&alice, &direct, &sent).await.unwrap().file.unwrap().id;

    // It reads through a door that lets a part of the bytes through, and no more.
    let gate = Gate::before_answers_of(&garage.url()).await;
    gate.let_through(READ);
    let mut command = site.command(&["worker"]);
    command.env("STRONGROOM_STORAGE__PROVIDERS__BUCKET__ENDPOINT", &gate.url);
    let first = Worker::run(command).await;
    until("it is in the middle", || async { gate.passed_bytes() > READ as u64 / 2 }).await;
    let second = Worker::start(&site).await;
    // A heartbeat keeps it with the first one, though the second one looks for work.
    let lease = "SELECT extract(epoch FROM lease_expire_time) * 1000 FROM jobs WHERE state = 2";
    let begun = number(&watch, lease).await;
    until("a heartbeat comes", || async { number(&watch, lease).await > begun }).await;
    assert_eq!(number(&watch, "SELECT attempts FROM jobs WHERE state = 2").await, 1);
    assert_eq!(file(&alice, &id).await.state(), FileState::Processing);
    read(&alice, &id).await.unwrap_err();

    first.kill().await;
    let file = verified(&alice, &id).await;
    assert_eq!(
        (file.state(), file.sha256.as_ref()),
        (FileState::Available, &Digest::of(&bytes).as_bytes()[..])
    );
    assert!(read(&alice, &id).await.unwrap() == bytes);
    until("the job is done", || async { number(&watch, "SELECT count(*) FROM jobs").await == 0 }).await;
    assert_eq!(number(&watch, "SELECT attempts FROM finished_jobs").await, 2);
    for once in ["events WHERE kind = 70", "audit_entries WHERE action = 70", "blobs"] {
        assert_eq!(number(&watch, &format!("SELECT count(*) FROM {once}")).await, 1, "{once}");
    }
    let quota = alice.get_quota(GetQuotaRequest::default()).await.unwrap().quota.unwrap();
    let size = i64::try_from(bytes.len()).unwrap();
    assert_eq!((quota.used_bytes, quota.reserved_bytes, quota.file_count), (size, 0, 1));
    second.stop().await;
    server.kill().await;
    site.close().await;
}
