//! Long operations check again whether the caller may perform them, where they take effect: a version of a file
//! that was hidden since, a stored response, URLs, parts, downloads in progress.

use futures::{SinkExt, channel::mpsc};
use strongroom::{
    config::Config,
    db::Viewer,
    domain::ids::TenantId,
    proto::v1::{
        CopyFileRequest, DownloadFileRequest, DownloadFileResponse, File, TransferOwnershipRequest,
        UpdateFileRequest, UploadFileRequest, UploadFileResponse, UploadSpec, Visibility,
        download_file_response::Message,
    },
    worker,
};
use tonic::{Code, Status};

use crate::harness::{
    Caller, PART, Service, Setup, chunk, file_id, finish, pattern, reason, service_test, service_test_in,
    service_test_with, spec, spec_message,
};

/// A tenant whose members may change each other's files.
const TEAM: &str = "team";
const REQUEST_ID: &str = "0198c0de-0000-7000-8000-0000000000a1";

fn with_team(config: &mut Config) {
    config.tenants.presets.insert(TEAM.to_owned(), "workspace".to_owned());
}

fn olga(s: &Service) -> Caller {
    s.member("olga", TEAM, "member", &[])
}

fn mark(s: &Service) -> Caller {
    s.member("mark", TEAM, "member", &["9b"])
}

fn version_spec(id: &str, size: usize) -> UploadSpec {
    UploadSpec { file_id: id.to_owned(), size_bytes: Some(size as i64), ..UploadSpec::default() }
}

/// Hides a file from everyone but its owner and the admins.
async fn hide(owner: &Caller, id: &str) {
    let file = File { id: id.to_owned(), visibility: Visibility::Owner.into(), ..File::default() };
    owner.update(file, &["visibility"]).await.unwrap();
}

async fn forbid_members_to_write(s: &Service) {
    let policy = "UPDATE tenants SET policy = policy || jsonb_build_object('write', 'owner_and_admins')";
    s.superuser.execute(policy).await;
}

fn assert_hidden(status: &Status) {
    assert_eq!((status.code(), reason(status).as_str()), (Code::NotFound, "NOT_FOUND"), "{status:?}");
}

fn assert_denied(status: &Status) {
    assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
}

/// An `UploadFile` stream of a caller that a test writes to step by step.
struct OpenStream {
    messages: mpsc::Sender<UploadFileRequest>,
    response: tokio::task::JoinHandle<Result<UploadFileResponse, Status>>,
}

impl OpenStream {
    fn open(caller: &Caller) -> Self {
        let (messages, receiver) = mpsc::channel(0);
        let mut files = caller.files.clone();
        let response =
            tokio::spawn(async move { files.upload_file(receiver).await.map(tonic::Response::into_inner) });
        Self { messages, response }
    }

    async fn send(&mut self, message: UploadFileRequest) {
        self.messages.send(message).await.unwrap();
    }

    /// Starts a version of a file and waits until it holds a reservation: the service then has admitted it.
    async fn start_version(s: &Service, caller: &Caller, id: &str, data: &[u8]) -> Self {
        let mut stream = Self::open(caller);
        let size_bytes = Some(2 * data.len() as i64);
        stream.send(spec_message(UploadSpec { size_bytes, ..version_spec(id, 0) })).await;
        for (n, bytes) in data.chunks(40_000).enumerate() {
            stream.send(chunk(n * 40_000, bytes)).await;
        }
        s.wait_until("the upload has a reservation", || async {
            let open = "SELECT count(*) FROM uploads WHERE state = {upload_state.open}";
            s.superuser.query_number(open).await == 1
        })
        .await;
        stream
    }

    async fn finish(mut self, data: &[u8]) -> Result<UploadFileResponse, Status> {
        let from = data.len();
        for (n, bytes) in data.chunks(40_000).enumerate() {
            self.send(chunk(from + n * 40_000, bytes)).await;
        }
        self.send(finish(2 * data.len())).await;
        drop(self.messages);
        self.response.await.unwrap()
    }
}

#[test]
fn hidden_file_gets_no_version_at_the_commit() {
    service_test_with(with_team, |s| async move {
        let data = pattern(2 * PART);
        let id = file_id(&olga(&s).upload(spec("plan.txt"), b"one").await.unwrap());
        let stream = OpenStream::start_version(&s, &mark(&s), &id, &data).await;
        hide(&olga(&s), &id).await;
        assert_hidden(&stream.finish(&data).await.unwrap_err());
        assert_eq!(olga(&s).read(&id).await.unwrap(), b"one"[..]);
    });
}

#[test]
fn file_granted_to_a_group_gets_its_version() {
    service_test_with(with_team, |s| async move {
        let data = pattern(2 * PART);
        let id = file_id(&olga(&s).upload(spec("plan.txt"), b"one").await.unwrap());
        let stream = OpenStream::start_version(&s, &mark(&s), &id, &data).await;
        s.superuser
            .execute(&format!(
                "INSERT INTO file_readers (tenant_id, principal, file_id, create_time, name, size_bytes)
                 SELECT tenant_id, 'group:9b', id, create_time, name, size_bytes FROM files WHERE id = '{id}'"
            ))
            .await;
        hide(&olga(&s), &id).await;
        assert_eq!(stream.finish(&data).await.unwrap().file.unwrap().version, 2);
        s.superuser.execute("DELETE FROM file_readers").await;
    });
}

#[test]
fn version_needs_the_write_rule_of_its_commit() {
    service_test_with(with_team, |s| async move {
        let data = pattern(2 * PART);
        let id = file_id(&olga(&s).upload(spec("plan.txt"), b"one").await.unwrap());
        let stream = OpenStream::start_version(&s, &mark(&s), &id, &data).await;
        forbid_members_to_write(&s).await;
        assert_denied(&stream.finish(&data).await.unwrap_err());
        let denied = format!("SELECT count(*) FROM audit_entries WHERE file_id = '{id}' AND NOT is_allowed");
        assert_eq!(s.superuser.query_number(&denied).await, 1);
        assert_eq!(olga(&s).read(&id).await.unwrap(), b"one"[..]);
    });
}

#[test]
fn upload_of_hidden_file_cannot_be_taken_over() {
    service_test_with(with_team, |s| async move {
        let (owner, other, data) = (olga(&s), mark(&s), pattern(2 * PART + 7));
        let id = file_id(&owner.upload(spec("plan.txt"), b"one").await.unwrap());
        let mut uploads = Vec::new();
        for _ in 0..3 {
            let upload = other.create_upload(version_spec(&id, data.len())).await.unwrap();
            other.resume_upload(&upload.id, &data[..PART], 0, false).await.unwrap_err();
            uploads.push(upload.id);
        }
        hide(&owner, &id).await;
        assert_hidden(&other.resume_upload(&uploads[0], &data, PART, true).await.unwrap_err());
        assert_hidden(&other.upload_part(&uploads[1], PART, &data[PART..2 * PART]).await.unwrap_err());
        assert_hidden(&other.complete_upload(&uploads[2], data.len()).await.unwrap_err());

        assert_eq!(owner.read(&id).await.unwrap(), b"one"[..]);
        let open = "SELECT count(*) FROM uploads";
        assert_eq!(s.superuser.query_number(open).await, 0, "they can never become versions");
    });
}

#[test]
fn upload_under_a_changed_write_rule_cannot_be_taken_over() {
    service_test_with(with_team, |s| async move {
        let data = pattern(2 * PART + 7);
        let id = file_id(&olga(&s).upload(spec("plan.txt"), b"one").await.unwrap());
        let upload = mark(&s).create_upload(version_spec(&id, data.len())).await.unwrap();
        forbid_members_to_write(&s).await;
        // The process that has cached the former policy refuses at the commit, another one at the beginning.
        let replica = s.start_replica(|_| {}).await;
        assert_denied(&mark(&replica).upload_part(&upload.id, 0, &data[..PART]).await.unwrap_err());
        let denied = format!("SELECT count(*) FROM audit_entries WHERE file_id = '{id}' AND NOT is_allowed");
        assert_eq!(s.superuser.query_number(&denied).await, 1);
        let upload = mark(&s).create_upload(version_spec(&id, data.len())).await.unwrap();
        assert_denied(&mark(&s).resume_upload(&upload.id, &data, 0, true).await.unwrap_err());
        assert_eq!(s.superuser.query_number(&denied).await, 2);
        assert_eq!(olga(&s).read(&id).await.unwrap(), b"one"[..]);
        replica.stop().await;
    });
}

fn direct_team_test<Fut: Future<Output = ()>>(test: impl FnOnce(Service) -> Fut) {
    let arrange = |setup: &mut Setup| {
        setup.has_urls = true;
        setup.config.uploads.direct_put_max_bytes = PART as u64;
        with_team(&mut setup.config);
    };
    service_test_in(None, arrange, test);
}

#[test]
fn direct_upload_of_hidden_file_cannot_be_completed() {
    direct_team_test(|s| async move {
        let (owner, other) = (olga(&s), mark(&s));
        for size in [1_000, 2 * PART + 7] {
            let id = file_id(&owner.upload(spec("plan.txt"), b"one").await.unwrap());
            let direct = other.create_direct_upload(version_spec(&id, size)).await.unwrap();
            let sent = s.put_parts(&direct, &pattern(size)).await;
            hide(&owner, &id).await;
            assert_hidden(&other.get_upload_urls(&direct.id).await.unwrap_err());
            assert_hidden(&other.complete_direct_upload(&direct.id, &sent).await.unwrap_err());
            assert_eq!(owner.read(&id).await.unwrap(), b"one"[..]);
        }
    });
}

#[test]
fn verified_version_of_hidden_file_is_not_current() {
    direct_team_test(|s| async move {
        let (owner, other) = (olga(&s), mark(&s));
        for (is_hidden, version) in [(false, 2), (true, 1)] {
            let id = file_id(&owner.upload(spec("plan.txt"), b"one").await.unwrap());
            let direct = other.create_direct_upload(version_spec(&id, 1_000)).await.unwrap();
            let sent = s.put_parts(&direct, &pattern(1_000)).await;
            other.complete_direct_upload(&direct.id, &sent).await.unwrap();
            if is_hidden {
                hide(&owner, &id).await;
                assert_hidden(&other.complete_direct_upload(&direct.id, &sent).await.unwrap_err());
            }
            assert_eq!(worker::run_due_jobs(&s.app).await.done, 1);
            assert_eq!(owner.get(&id).await.unwrap().version, version);
        }
    });
}

#[test]
fn stored_response_of_hidden_file_is_not_returned() {
    service_test_with(with_team, |s| async move {
        let (owner, other) = (olga(&s), mark(&s));
        let id = file_id(&owner.upload(spec("plan.txt"), b"one").await.unwrap());
        let request_id = REQUEST_ID.to_owned();
        let version = UploadSpec { request_id: request_id.clone(), ..version_spec(&id, 3) };
        let with_digest = UploadSpec { sha256: Some(crate::harness::sha256(b"two")), ..version.clone() };
        other.upload(version.clone(), b"two").await.unwrap();
        let rename = UpdateFileRequest {
            file: Some(File { id: id.clone(), name: "new.txt".to_owned(), ..File::default() }),
            update_mask: Some(prost_types::FieldMask { paths: vec!["name".to_owned()] }),
            request_id: REQUEST_ID.replace("a1", "a2"),
            ..UpdateFileRequest::default()
        };
        other.files.clone().update_file(rename.clone()).await.unwrap();
        let resumable = other.create_upload(version_spec(&id, 3)).await.unwrap();
        other.resume_upload(&resumable.id, b"new", 0, true).await.unwrap();
        other.resume_upload(&resumable.id, b"new", 0, true).await.unwrap();
        let created = UploadSpec { request_id: REQUEST_ID.replace("a1", "a3"), ..version_spec(&id, 3) };
        let open = other.create_upload(created.clone()).await.unwrap();
        let copy = CopyFileRequest {
            file_id: id.clone(),
            request_id: REQUEST_ID.replace("a1", "a4"),
            ..CopyFileRequest::default()
        };
        let copied = other.copy(copy.clone()).await.unwrap();
        other.upload(version.clone(), b"two").await.unwrap();

        hide(&owner, &id).await;
        assert_hidden(&other.upload(version, b"two").await.unwrap_err());
        assert_hidden(&other.upload(with_digest, b"two").await.unwrap_err());
        assert_hidden(&other.files.clone().update_file(rename).await.unwrap_err());
        assert_hidden(&other.resume_upload(&resumable.id, b"new", 0, true).await.unwrap_err());
        assert_hidden(&other.create_upload(created).await.unwrap_err());
        assert_eq!(other.copy(copy).await.unwrap().id, copied.id, "the copy belongs to its creator");
        other.cancel_upload(&open.id).await.unwrap();
    });
}

#[test]
fn stored_response_of_transferred_file_is_not_returned() {
    service_test(|s| async move {
        let hidden = UploadSpec {
            visibility: Visibility::Owner.into(),
            size_bytes: Some(5),
            request_id: REQUEST_ID.to_owned(),
            ..spec("plan.txt")
        };
        s.alice().upload(hidden.clone(), b"bytes").await.unwrap();
        let transfer = TransferOwnershipRequest {
            from_user_id: "alice".to_owned(),
            to_user_id: "bob".to_owned(),
            ..TransferOwnershipRequest::default()
        };
        s.ada().files.clone().transfer_ownership(transfer).await.unwrap();
        // Without a digest, the commit finds the response.
        assert_hidden(&s.alice().upload(hidden.clone(), b"bytes").await.unwrap_err());
        let with_digest = UploadSpec { sha256: Some(crate::harness::sha256(b"bytes")), ..hidden };
        assert_hidden(&s.alice().upload(with_digest, b"bytes").await.unwrap_err());
    });
}

fn with_rechecks(config: &mut Config) {
    with_team(config);
    config.tenants.stream_recheck_milliseconds = 1;
    (config.downloads.chunk_size_bytes, config.downloads.chunks_in_flight_max) = (262_144, 1);
}

/// Uploads a file that the buffers of the transport cannot hold, and starts its download.
async fn start_download(owner: &Caller, reader: &Caller) -> (String, tonic::Streaming<DownloadFileResponse>) {
    let id = file_id(&owner.upload(spec("film.bin"), &pattern(24 << 20)).await.unwrap());
    let request = DownloadFileRequest { file_id: id.clone(), ..DownloadFileRequest::default() };
    let mut stream = reader.files.clone().download_file(request).await.unwrap().into_inner();
    let header = stream.message().await.unwrap().unwrap().message;
    assert!(matches!(header, Some(Message::Header(_))));
    stream.message().await.unwrap().unwrap();
    (id, stream)
}

async fn wait_for_end(mut stream: tonic::Streaming<DownloadFileResponse>) -> Status {
    loop {
        match stream.message().await {
            Ok(message) => assert!(message.is_some(), "the download continued to its end"),
            Err(ended) => return ended,
        }
    }
}

#[test]
fn download_ends_when_its_file_is_hidden() {
    service_test_with(with_rechecks, |s| async move {
        let owner = olga(&s);
        let (id, stream) = start_download(&owner, &mark(&s)).await;
        hide(&owner, &id).await;
        assert_hidden(&wait_for_end(stream).await);
    });
}

#[test]
fn reader_cannot_delay_the_check_of_its_download() {
    service_test_with(with_rechecks, |s| async move {
        let owner = olga(&s);
        let (id, stream) = start_download(&owner, &mark(&s)).await;
        // As many slow calls do, these hold all connections that the reader may have.
        let tenant: TenantId = owner.tenant_id().await.parse().unwrap();
        let reader: Viewer = serde_json::from_value(
            serde_json::json!({ "user_id": "mark", "audience_min": 3, "principals": [] }),
        )
        .unwrap();
        let db = s.app.db();
        let held = s.hold_connections(|| db.pool_status(), || db.tenant_tx(tenant, &reader)).await;
        hide(&owner, &id).await;
        assert_hidden(&wait_for_end(stream).await);
        drop(held);
    });
}
