//! The first calls of a tenant: the tenant exists when one of them has succeeded, and a refused call leaves none.

use std::collections::BTreeSet;

use futures::{SinkExt, channel::mpsc};
use strongroom::{
    app::tenants::settle::settle_first_calls,
    domain::clock::Clock,
    grpc::auth::access::{Access, TABLE},
    proto::{
        admin::v1::{ListTenantsRequest, export_tenant_response::Record},
        v1::{CreateUploadRequest, GetFileRequest, ListFilesRequest, UploadSpec},
    },
};
use tonic::{Code, Status};

use crate::{
    harness::{
        Caller, PART, Service, chunk, file_id, finish, pattern, reason, service_test, service_test_with,
        sha256, spec, spec_message, upload_messages,
    },
    issuers::send_bytes,
    resume::LiveStream,
    tenants::new_tenant,
};

/// A method whose stream does not end by itself.
const WATCH: &str = "/strongroom.v1.EventService/WatchFiles";

/// Sends one message with these bytes, and returns the status of the call.
async fn send_message(s: &Service, caller: &Caller, path: &str, message: &[u8]) -> Status {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    send_bytes(s, caller, path, &[&[0], length.as_slice(), message].concat()).await
}

/// Counts the rows of tenants, also of provisional ones.
async fn count_rows(s: &Service, organization: &str) -> i64 {
    let rows = format!("SELECT count(*) FROM tenants WHERE external_id = '{organization}'");
    s.superuser.query_number(&rows).await
}

/// Lists the organizations whose tenants exist.
async fn existing(s: &Service) -> Vec<String> {
    let listed = s.operator().tenants.clone().list_tenants(ListTenantsRequest::default()).await.unwrap();
    listed.into_inner().tenants.into_iter().map(|tenant| tenant.external_id).collect()
}

async fn wait_until_idle(s: &Service) {
    s.wait_until("background work ends", || async { s.app.is_idle() }).await;
}

/// Waits until a first call of acme has joined its provisional tenant.
async fn wait_until_joined(s: &Service) {
    let joined = "SELECT count(*) FROM tenants WHERE external_id = 'acme' AND provisional_time IS NOT NULL";
    s.wait_until("the first call has a tenant", || async { s.superuser.query_number(joined).await == 1 })
        .await;
}

#[test]
fn refused_call_of_any_method_creates_no_tenant() {
    service_test(|s| async move {
        let named_after = |path: &str| path.trim_start_matches('/').replace(['/', '.'], "-");
        // A message without a field, and one whose first field is the id of a file that does not exist.
        let unknown_id = [&[0x0A, 36][..], uuid::Uuid::from_u128(7).to_string().as_bytes()].concat();
        let (mut refused, mut codes) = (0, BTreeSet::new());
        for (path, access) in TABLE {
            if matches!(access, Access::Anonymous | Access::Visitor | Access::Operator) || *path == WATCH {
                continue;
            }
            for (suffix, message) in [("empty", &[][..]), ("unknown", &unknown_id[..])] {
                let organization = format!("{}-{suffix}", named_after(path));
                let admin = s.member("ada", &organization, "admin", &[]);
                let status = send_message(&s, &admin, path, message).await;
                wait_until_idle(&s).await;
                let expected = i64::from(status.code() == Code::Ok);
                assert_eq!(count_rows(&s, &organization).await, expected, "{path} {suffix}: {status:?}");
                refused += 1 - expected;
                codes.insert(format!("{:?}", status.code()));
            }
        }
        assert!(refused > 40, "{refused}");
        assert!(codes.contains("InvalidArgument") && codes.contains("NotFound"), "{codes:?}");
        let leftovers = "SELECT count(*) FROM quotas AS q WHERE NOT EXISTS (
            SELECT FROM tenants AS t WHERE t.id = q.tenant_id)";
        assert_eq!(s.superuser.query_number(leftovers).await, 0);
    });
}

#[test]
fn successful_first_call_creates_one_tenant() {
    service_test(|s| async move {
        let created = "SELECT count(*) FROM audit_entries WHERE action = {audit_action.tenant_create}";
        s.alice().upload(spec("a.txt"), b"a").await.unwrap();
        assert_eq!(existing(&s).await, ["acme"]);
        s.mallory().list(ListFilesRequest::default()).await.unwrap();
        assert_eq!(existing(&s).await.len(), 2);
        let mut watch = s.pupil().watch_files().await;
        assert_eq!(existing(&s).await.len(), 3);
        s.pupil().upload(spec("b.txt"), b"b").await.unwrap();
        watch.next_event().await;
        assert_eq!(s.superuser.query_number(created).await, 3);
        assert_eq!(s.superuser.query_number("SELECT count(*) FROM tenants").await, 3);
    });
}

#[test]
fn creation_is_the_first_entry_of_the_audit_log() {
    service_test(|s| async move {
        let mut upload = LiveStream::open(&s);
        upload.send(vec![spec_message(spec("a.txt")), chunk(0, b"a")]).await;
        wait_until_joined(&s).await;
        s.clock.advance(chrono::Duration::seconds(5));
        upload.send(vec![finish(1)]).await;
        upload.finish().await.unwrap();
        s.clock.advance(chrono::Duration::seconds(5));
        let records = s.operator().export_tenant(&s.alice().tenant_id().await).await.unwrap();
        let actions: Vec<_> = records
            .into_iter()
            .filter_map(
                |record| if let Record::AuditEntry(entry) = record { Some(entry.action) } else { None },
            )
            .collect();
        assert_eq!(actions[..2], ["tenant_create", "file_upload"]);
        let at_creation = "SELECT count(*) FROM audit_entries AS a
            JOIN tenants AS t ON t.id = a.tenant_id AND t.create_time = a.create_time";
        assert_eq!(s.superuser.query_number(at_creation).await, 1);
    });
}

#[test]
fn tenant_is_cached_after_its_first_call() {
    service_test(|s| async move {
        let (reader, operating) = (s.start_replica(|_| {}).await, s.start_replica(|_| {}).await);
        // The first call of the tenant in one process, and the first lookup in another.
        let acme = s.alice().tenant_id().await;
        reader.alice().quota().await.unwrap();
        operating.operator().suspend_tenant(&acme).await.unwrap();
        for (process, name) in [(&s, "creator"), (&reader, "reader")] {
            let served = process.alice().quota().await;
            assert!(served.is_ok(), "the {name} reads the tenant again: {served:?}");
        }
        s.clock.advance(chrono::Duration::seconds(10));
        for process in [&s, &reader] {
            assert_eq!(reason(&process.alice().quota().await.unwrap_err()), "TENANT_SUSPENDED");
        }
        reader.stop().await;
        operating.stop().await;
    });
}

#[test]
fn refused_uploads_leave_no_tenant() {
    service_test(|s| async move {
        let alice = s.alice();
        let request_id = uuid::Uuid::from_u128(7).to_string();
        let with_id = || UploadSpec { request_id: request_id.clone(), ..spec("large.bin") };
        let data = pattern(5 * PART);
        // Refused before a byte is received.
        let huge = UploadSpec { size_bytes: Some(1 << 50), ..with_id() };
        assert!(alice.upload(huge.clone(), b"x").await.is_err());
        let upload = CreateUploadRequest { spec: Some(huge), direct: false };
        assert!(alice.uploads.clone().create_upload(upload).await.is_err());
        let nameless = alice.upload(UploadSpec::default(), b"x").await.unwrap_err();
        assert_eq!(nameless.code(), Code::InvalidArgument);
        assert_eq!(count_rows(&s, "acme").await, 0);

        // Refused after parts were stored, and after all bytes of a small file were received.
        let declared = UploadSpec { sha256: Some(sha256(b"other")), ..with_id() };
        for data in [&data[..], b"small"] {
            let messages = upload_messages(declared.clone(), data, 40_000);
            let refused = alice.send_messages(messages).await.unwrap_err();
            assert_eq!(reason(&refused), "CHECKSUM_MISMATCH");
        }
        // Not finished.
        let open = vec![spec_message(with_id()), chunk(0, &data[..40_000])];
        assert_eq!(reason(&alice.send_messages(open).await.unwrap_err()), "UPLOAD_NOT_FINISHED");
        wait_until_idle(&s).await;
        assert_eq!(existing(&s).await, [""; 0]);
        for table in ["quotas", "uploads"] {
            assert_eq!(s.superuser.query_number(&format!("SELECT count(*) FROM {table}")).await, 0);
        }

        // The same request can succeed later.
        let id = file_id(&alice.upload(with_id(), &data).await.unwrap());
        assert_eq!(alice.read(&id).await.unwrap(), data);
        assert_eq!(existing(&s).await, ["acme"]);
        // The rows of removed tenants remain until sweeps have seen the store.
        assert!(count_rows(&s, "acme").await > 1);
        s.clock.advance(chrono::Duration::days(91));
        assert!(settle_first_calls(&s.app).await.unwrap().done > 0);
        assert_eq!(count_rows(&s, "acme").await, 1);
    });
}

#[test]
fn refused_call_keeps_the_tenant_of_an_upload_in_progress() {
    service_test(|s| async move {
        let replica = s.start_replica(|_| {}).await;
        let data = pattern(4 * PART);
        let mut upload = LiveStream::open(&s);
        upload.send(vec![spec_message(spec("a.bin")), chunk(0, &data[..40_000])]).await;
        wait_until_joined(&s).await;
        // Operators do not see it.
        assert_eq!(existing(&s).await, [""; 0]);
        let unknown = GetFileRequest { file_id: uuid::Uuid::from_u128(7).to_string() };
        for caller in [s.bob(), replica.bob()] {
            let refused = caller.files.clone().get_file(unknown.clone()).await.unwrap_err();
            assert_eq!(refused.code(), Code::NotFound);
            wait_until_joined(&s).await;
        }
        upload
            .send(data.chunks(40_000).enumerate().skip(1).map(|(n, data)| chunk(n * 40_000, data)).collect())
            .await;
        upload.send(vec![finish(data.len())]).await;
        let id = file_id(&upload.finish().await.unwrap());
        assert_eq!(replica.bob().read(&id).await.unwrap(), data);
        assert_eq!((existing(&s).await.len(), count_rows(&s, "acme").await), (1, 1));
        replica.stop().await;
    });
}

#[test]
fn first_calls_of_one_tenant_succeed_together() {
    service_test(|s| async move {
        let replica = s.start_replica(|_| {}).await;
        let unknown = || GetFileRequest { file_id: uuid::Uuid::from_u128(7).to_string() };
        let calls = (0..40).map(|n| {
            let caller = if n % 2 == 0 { s.alice() } else { replica.bob() };
            async move {
                match n % 4 {
                    0 | 1 => {
                        assert!(caller.files.clone().get_file(unknown()).await.is_err());
                        None
                    }
                    _ => Some(file_id(&caller.upload(spec("a.txt"), b"a").await.unwrap())),
                }
            }
        });
        let uploaded: Vec<_> = futures::future::join_all(calls).await.into_iter().flatten().collect();
        assert_eq!(uploaded.len(), 20);
        for id in &uploaded {
            s.alice().get(id).await.unwrap();
        }
        assert_eq!(existing(&s).await, ["acme"]);
        assert_eq!(s.superuser.query_number("SELECT count(DISTINCT tenant_id) FROM files").await, 1);
        replica.stop().await;
    });
}

#[test]
fn cancelled_upload_leaves_no_tenant() {
    service_test(|s| async move {
        let data = pattern(4 * PART);
        let (mut messages, receiver) = mpsc::channel(0);
        let mut files = s.alice().files;
        let call = tokio::spawn(async move { files.upload_file(receiver).await });
        messages.send(spec_message(spec("a.bin"))).await.unwrap();
        for (n, data) in data.chunks(40_000).enumerate() {
            messages.send(chunk(n * 40_000, data)).await.unwrap();
        }
        wait_until_joined(&s).await;
        call.abort();
        drop(messages);
        let open = "SELECT count(*) FROM tenants WHERE state <> {tenant_state.deleted}";
        s.wait_until("the tenant is removed", || async { s.superuser.query_number(open).await == 0 }).await;
        assert_eq!(existing(&s).await, [""; 0]);
    });
}

#[test]
fn tenant_that_an_operator_creates_meanwhile_exists() {
    service_test(|s| async move {
        let mut upload = LiveStream::open(&s);
        upload.send(vec![spec_message(spec("a.bin")), chunk(0, b"x")]).await;
        wait_until_joined(&s).await;
        let taken = s.operator().create_tenant(new_tenant("acme")).await.unwrap_err();
        assert_eq!(taken.code(), Code::AlreadyExists);
        assert_eq!(existing(&s).await, ["acme"]);
        drop(upload.finish().await.unwrap_err());
        wait_until_idle(&s).await;
        assert_eq!(existing(&s).await, ["acme"]);
    });
}

#[test]
fn first_calls_of_a_crashed_process_are_settled() {
    service_test(|s| async move {
        let (empty, used) = (s.alice(), s.mallory());
        empty.quota().await.unwrap();
        used.upload(spec("a.txt"), b"a").await.unwrap();
        s.head().set_limit_bytes(1 << 20).await;
        // As processes leave them that crash before they confirm them.
        let now = s.clock.now().to_rfc3339();
        let lost = format!("UPDATE tenants SET provisional_time = '{now}', first_call_count = 2");
        s.superuser.execute(&lost).await;
        assert_eq!(settle_first_calls(&s.app).await.unwrap().done, 0, "the calls may be in progress");
        s.clock.advance(chrono::Duration::hours(26));
        assert_eq!(settle_first_calls(&s.app).await.unwrap().done, 3);
        let mut names = existing(&s).await;
        names.sort_unstable();
        assert_eq!(names, ["globex", "school"]);
        assert_eq!(s.mallory().list_names(ListFilesRequest::default()).await, ["a.txt"]);
        s.alice().quota().await.unwrap();
        assert_eq!(existing(&s).await.len(), 3);
    });
}

#[test]
fn refused_first_calls_use_up_no_creation() {
    service_test_with(
        |config| config.tenants.creations_per_minute_max = 1,
        |s| async move {
            let unknown = GetFileRequest { file_id: uuid::Uuid::from_u128(7).to_string() };
            for _ in 0..5 {
                let refused = s.alice().files.clone().get_file(unknown.clone()).await.unwrap_err();
                assert_eq!(refused.code(), Code::NotFound);
            }
            s.alice().quota().await.unwrap();
            let exhausted = s.mallory().quota().await.unwrap_err();
            assert_eq!(reason(&exhausted), "TENANT_CREATIONS_EXHAUSTED");
            assert_eq!(existing(&s).await, ["acme"]);
        },
    );
}
