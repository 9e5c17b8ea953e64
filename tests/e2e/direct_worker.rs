//! A worker is killed while it verifies a direct upload.

use strongroom::{
    domain::digest::Digest,
    proto::v1::{FileState, GetQuotaRequest},
};

use crate::{
    direct::{
        PUT_MAX, complete_upload, create_direct_site, create_direct_upload, download, get_file, png_bytes,
        send_parts, wait_until_verified,
    },
    garage::Garage,
    gate::Gate,
    server::Server,
    worker::{Worker, connect_database, query_number, wait_until},
};

/// The number of bytes of the upload that the first worker can read before it is killed.
const READ_BYTES: usize = 1 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn killed_verification_is_completed_by_another_worker() {
    let garage = Garage::start().await;
    let site = create_direct_site("direct_killed", &garage).await;
    let server = Server::start(site.command(&["serve"])).await;
    let (alice, database) = (site.client(&server, "alice").await, connect_database(&site).await);
    let bytes = png_bytes(2 * PUT_MAX + 7);
    let direct = create_direct_upload(&alice, "picture", bytes.len(), Some(Digest::compute(&bytes))).await;
    let sent = send_parts(&direct, &bytes).await;
    let id = complete_upload(&alice, &direct, &sent).await.unwrap().file.unwrap().id;

    // The first worker reads through a gate that lets only a part of the bytes through.
    let gate = Gate::for_responses_of(&garage.url()).await;
    gate.let_through(READ_BYTES);
    let mut command = site.command(&["worker"]);
    command.env("STRONGROOM_STORAGE__PROVIDERS__BUCKET__ENDPOINT", &gate.url);
    let first = Worker::start_command(command).await;
    wait_until("the worker has read a part", || async { gate.passed_bytes() > READ_BYTES as u64 / 2 }).await;
    let second = Worker::start(&site).await;
    // Heartbeats extend the lease of the first worker, although the second one polls for jobs.
    let lease =
        "SELECT extract(epoch FROM lease_expire_time) * 1000 FROM jobs WHERE state = {job_state.running}";
    let lease_start = query_number(&database, lease).await;
    wait_until("a heartbeat extends the lease", || async {
        query_number(&database, lease).await > lease_start
    })
    .await;
    assert_eq!(
        query_number(&database, "SELECT attempts FROM jobs WHERE state = {job_state.running}").await,
        1
    );
    assert_eq!(get_file(&alice, &id).await.state(), FileState::Processing);
    download(&alice, &id).await.unwrap_err();

    first.kill().await;
    let file = wait_until_verified(&alice, &id).await;
    assert_eq!(
        (file.state(), file.sha256.as_ref()),
        (FileState::Available, &Digest::compute(&bytes).as_bytes()[..])
    );
    assert!(download(&alice, &id).await.unwrap() == bytes);
    wait_until("the job is done", || async {
        query_number(&database, "SELECT count(*) FROM jobs").await == 0
    })
    .await;
    assert_eq!(query_number(&database, "SELECT attempts FROM finished_jobs").await, 2);
    for row in [
        "events WHERE kind = {event_kind.file_verified}",
        "audit_entries WHERE action = {audit_action.file_verify}",
        "blobs",
    ] {
        assert_eq!(query_number(&database, &format!("SELECT count(*) FROM {row}")).await, 1, "{row}");
    }
    let quota = alice.get_quota(GetQuotaRequest::default()).await.unwrap().quota.unwrap();
    let size = i64::try_from(bytes.len()).unwrap();
    assert_eq!((quota.used_bytes, quota.reserved_bytes, quota.file_count), (size, 0, 1));
    second.stop().await;
    server.kill().await;
    site.close().await;
}
