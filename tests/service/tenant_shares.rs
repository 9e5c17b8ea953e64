//! The share of a whole tenant: its callers together hold as much of a resource as they can get, and a caller of
//! another tenant is served. `fairness.rs` tests the share of one caller.

use http::Response;
use strongroom::{
    db::Viewer,
    domain::ids::TenantId,
    proto::v1::{DownloadFileRequest, ListWebhooksRequest, UploadSpec, Visibility},
};
use tokio::task::JoinHandle;
use tonic::{Code, Status, body::Body, transport::Channel};
use tonic_types::StatusExt;
use uuid::Uuid;

use crate::{
    fairness::{assert_overloaded, assert_served, connect, in_use, stall},
    harness::{Caller, Service, Watcher, file_id, pattern, reason, service_test_with, spec},
    stalled_calls::{DOWNLOAD, UPLOAD, whole_frame},
};

/// Returns ten members of globex.
fn crew(s: &Service) -> Vec<Caller> {
    (0..10).map(|number| s.member(&format!("crew-{number}"), "globex", "member", &[])).collect()
}

/// Opens four silent uploads of each caller, and waits until all of them are admitted or refused.
async fn open_silent_uploads(
    s: &Service,
    channel: &Channel,
    callers: &[Caller],
    resource: &str,
) -> Vec<JoinHandle<Response<Body>>> {
    let mut streams = Vec::new();
    for caller in callers {
        streams.extend((0..4).map(|_| stall(channel, Some(caller), UPLOAD, Vec::new())));
    }
    let count_refused = || streams.iter().filter(|stream| stream.is_finished()).count();
    s.wait_until("all uploads are admitted or refused", || async {
        count_refused() + in_use(s, resource) as usize >= streams.len()
    })
    .await;
    assert!(count_refused() > 0, "the share is used up");
    streams
}

#[test]
fn requests_of_a_tenant_leave_room_for_other_tenants() {
    service_test_with(
        |config| {
            (config.server.requests_max, config.server.operator_requests_reserved) = (32, 4);
            config.uploads.first_message_seconds = 600;
        },
        |s| async move {
            s.mallory().quota().await.unwrap();
            let channel = connect(&s).await;
            let streams = open_silent_uploads(&s, &channel, &crew(&s), "requests").await;
            assert_served(&s.alice()).await;
            streams.iter().for_each(JoinHandle::abort);
        },
    );
}

#[test]
fn upload_streams_are_shared_by_callers_and_tenants() {
    service_test_with(
        |config| (config.uploads.streams_max, config.uploads.first_message_seconds) = (16, 600),
        |s| async move {
            s.mallory().quota().await.unwrap();
            let channel = connect(&s).await;
            let mut streams =
                open_silent_uploads(&s, &channel, &[(); 4].map(|()| s.mallory()), "uploads").await;
            for caller in [s.gus(), s.alice()] {
                assert_served(&caller).await;
            }
            streams.extend(open_silent_uploads(&s, &channel, &crew(&s), "uploads").await);
            assert_served(&s.alice()).await;
            streams.iter().for_each(JoinHandle::abort);
        },
    );
}

#[test]
fn downloads_of_a_tenant_leave_room_for_other_tenants() {
    service_test_with(
        |config| config.downloads.streams_max = 16,
        |s| async move {
            let shared = UploadSpec { visibility: Visibility::Organization.into(), ..spec("large.bin") };
            let id = file_id(&s.mallory().upload(shared, &pattern(9 << 20)).await.unwrap());
            let request = whole_frame(&DownloadFileRequest { file_id: id, ..Default::default() });
            let channel = connect(&s).await;
            let mut stalled = Vec::new();
            for caller in crew(&s) {
                let refused = loop {
                    let response = stall(&channel, Some(&caller), DOWNLOAD, request.clone()).await.unwrap();
                    match Status::from_header_map(response.headers()) {
                        Some(status) => break status,
                        None => stalled.push(response),
                    }
                };
                assert_overloaded(&refused, "downloads");
            }
            assert!(!stalled.is_empty());
            assert_served(&s.alice()).await;
        },
    );
}

/// Opens watches of a caller until one is refused because of its share.
async fn open_watches(caller: &Caller) -> Vec<Watcher> {
    let mut watchers = Vec::new();
    loop {
        match caller.watch_files_after("").await {
            Ok(watcher) => watchers.push(watcher),
            Err(refused) => {
                assert_overloaded(&refused, "watches");
                return watchers;
            }
        }
    }
}

#[test]
fn watches_are_shared_by_callers_and_tenants() {
    service_test_with(
        |config| config.watches.streams_max = 16,
        |s| async move {
            let mut watchers = open_watches(&s.mallory()).await;
            watchers.push(s.gus().watch_files().await);
            for caller in crew(&s) {
                watchers.extend(open_watches(&caller).await);
            }
            s.alice().watch_files().await;
        },
    );
}

fn viewer(user: &str) -> Viewer {
    serde_json::from_value(serde_json::json!({ "user_id": user, "audience_min": 3, "principals": [] }))
        .unwrap()
}

#[test]
fn connections_of_a_caller_leave_one_to_its_colleagues() {
    service_test_with(
        // Two of them are reserved.
        |config| config.database.pool_size_max = 16,
        |s| async move {
            let globex: TenantId = s.mallory().tenant_id().await.parse().unwrap();
            let (db, mallory) = (s.app.db(), viewer("mallory"));
            let held = s.hold_connections(|| db.pool_status(), || db.tenant_tx(globex, &mallory)).await;
            assert_eq!(
                held.len(),
                12,
                "idle connections are lent, except one to other tenants and one to colleagues"
            );
            assert!(db.tenant_tx(globex, &viewer("gus")).await.is_ok());
            drop(held);
        },
    );
}

#[test]
fn connections_of_many_tenants_leave_one_to_operators() {
    service_test_with(
        // Two of them are reserved.
        |config| config.database.pool_size_max = 9,
        |s| async move {
            let (db, mallory) = (s.app.db(), viewer("mallory"));
            let mut tenants = (1..).map(|number| TenantId::from_uuid(Uuid::from_u128(number)));
            let mut next = || tenants.next().unwrap();
            let held = s.hold_connections(|| db.pool_status(), || db.tenant_tx(next(), &mallory)).await;
            assert!(!held.is_empty());
            assert!(db.platform_tx(next(), &Viewer::system()).await.is_ok());
            drop(held);
        },
    );
}

#[test]
fn connections_of_a_tenant_leave_one_for_other_tenants() {
    service_test_with(
        // One of them is reserved.
        |config| config.database.pool_size_max = 5,
        |s| async move {
            let globex: TenantId = s.mallory().tenant_id().await.parse().unwrap();
            let (db, mut held) = (s.app.db(), Vec::new());
            for user in ["mallory", "gus", "crew-1"] {
                let user = viewer(user);
                held.extend(s.hold_connections(|| db.pool_status(), || db.tenant_tx(globex, &user)).await);
            }
            assert_served(&s.alice()).await;
            drop(held);
        },
    );
}

/// Asserts that the rate of the tenant refused a call.
fn assert_tenant_limited(refused: &Status, event: &str) {
    assert_eq!((refused.code(), reason(refused)), (Code::ResourceExhausted, "RATE_LIMITED".to_owned()));
    let metadata = refused.get_details_error_info().unwrap().metadata;
    assert_eq!((&*metadata["scope"], &*metadata["event"]), ("tenant", event));
    assert!(refused.get_details_retry_info().is_some());
}

#[test]
fn requests_are_limited_per_tenant() {
    service_test_with(
        |config| {
            let rates = &mut config.rate_limits;
            (rates.caller_requests_per_second, rates.tenant_requests_per_second) = (0, 1);
            rates.burst_seconds = 5;
        },
        |s| async move {
            let mut refused = Vec::new();
            for _ in 0..10 {
                for caller in crew(&s) {
                    refused.extend(caller.quota().await.err());
                }
            }
            assert_tenant_limited(refused.first().expect("none of 100 requests was refused"), "requests");
            s.alice().quota().await.unwrap();
        },
    );
}

#[test]
fn refusals_are_limited_per_tenant() {
    service_test_with(
        |config| {
            config.rate_limits.tenant_refusals_per_second = 1;
            config.rate_limits.burst_seconds = 5;
        },
        |s| async move {
            // Without a tenant there is no audit log, and nothing to limit.
            s.mallory().quota().await.unwrap();
            let mut limited = Vec::new();
            for _ in 0..10 {
                for caller in crew(&s) {
                    let call = caller.webhooks.clone().list_webhooks(ListWebhooksRequest::default()).await;
                    limited.extend(call.err().filter(|error| error.code() != Code::PermissionDenied));
                }
            }
            assert_tenant_limited(limited.first().expect("all of 100 refusals were audited"), "refusals");
            s.mallory().quota().await.unwrap();
        },
    );
}
