//! Fair shares: each test holds as much of a resource as one caller, one tenant or one unauthenticated client
//! can get, and checks that the others are served.

use strongroom::{
    app::{
        integrity::sweep::{SweepOptions, sweep_stores},
        refusals::write_refusals,
    },
    proto::v1::{DownloadFileRequest, ListWebhooksRequest},
};
use tokio::task::JoinHandle;
use tonic::{
    Code, Status,
    body::Body,
    transport::{Channel, Endpoint},
};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_types::StatusExt;
use tower::Service as _;

use crate::{
    harness::{
        Caller, PART, Service, WAIT_MAX, file_id, pattern, reason, service_test, service_test_with, spec,
        spec_message,
    },
    stalled_calls::{CHECK, CHUNK_BYTES, DOWNLOAD, UPLOAD, frame, stalled_request, whole_frame},
};

/// A connection of an attacker, so that its flow-control window is not that of the others.
pub(crate) async fn connect(s: &Service) -> Channel {
    Endpoint::from_shared(s.address.clone()).unwrap().connect().await.unwrap()
}

/// Sends some bytes of a call and then nothing. Returns the response when there is one.
pub(crate) fn stall(
    channel: &Channel,
    caller: Option<&Caller>,
    path: &str,
    sent: Vec<u8>,
) -> JoinHandle<http::Response<Body>> {
    let request = stalled_request(caller.map(|caller| caller.token.as_str()), path, sent);
    let mut channel = channel.clone();
    tokio::spawn(async move {
        std::future::poll_fn(|context| channel.poll_ready(context)).await.unwrap();
        channel.call(request).await.unwrap()
    })
}

pub(crate) fn in_use(s: &Service, resource: &str) -> u64 {
    s.read_metric(&format!("strongroom_shares_in_use{{resource=\"{resource}\"}}"))
}

pub(crate) fn assert_overloaded(error: &Status, resource: &str) {
    assert_eq!((error.code(), reason(error)), (Code::ResourceExhausted, "OVERLOADED".to_owned()));
    assert_eq!(error.get_details_error_info().unwrap().metadata["resource"], resource);
    assert!(error.get_details_retry_info().is_some());
}

/// Checks that a caller can upload, list and download.
pub(crate) async fn assert_served(caller: &Caller) {
    let data = pattern(300_000);
    let id = file_id(&caller.upload(spec("report.txt"), &data).await.unwrap());
    assert!(!caller.list(Default::default()).await.unwrap().files.is_empty());
    assert!(caller.read(&id).await.unwrap() == data);
}

#[test]
fn stalled_downloads_leave_room_for_others() {
    service_test_with(
        |config| config.downloads.streams_max = 16,
        |s| async move {
            let mallory = s.mallory();
            let id = file_id(&mallory.upload(spec("large.bin"), &pattern(9 << 20)).await.unwrap());
            let request = whole_frame(&DownloadFileRequest { file_id: id, ..Default::default() });
            let channel = connect(&s).await;
            let (mut stalled, mut refused) = (Vec::new(), 0);
            for _ in 0..32 {
                let response = stall(&channel, Some(&mallory), DOWNLOAD, request.clone()).await.unwrap();
                match Status::from_header_map(response.headers()) {
                    Some(status) => {
                        assert_overloaded(&status, "downloads");
                        refused += 1;
                    }
                    None => stalled.push(response),
                }
            }
            assert!(stalled.len() < 16 && refused > 0, "{} downloads", stalled.len());
            assert_served(&s.gus()).await;
            assert_served(&s.alice()).await;
        },
    );
}

#[test]
fn stalled_downloads_end_and_release_their_requests() {
    service_test_with(
        |config| config.downloads.idle_timeout_seconds = 1,
        |s| async move {
            let mallory = s.mallory();
            let id = file_id(&mallory.upload(spec("large.bin"), &pattern(9 << 20)).await.unwrap());
            let request = whole_frame(&DownloadFileRequest { file_id: id, ..Default::default() });
            let channel = connect(&s).await;
            let mut stalled = Vec::new();
            for _ in 0..4 {
                stalled.push(stall(&channel, Some(&mallory), DOWNLOAD, request.clone()).await.unwrap());
            }
            s.wait_until("the calls count in no limit, although their client is still connected", || async {
                in_use(&s, "requests") + in_use(&s, "downloads") + in_use(&s, "storage_downloads") == 0
            })
            .await;
            assert!(in_use(&s, "responses") > 0, "the transport still has their last messages");
            drop(stalled);
            s.wait_until("the transport drops the messages", || async { in_use(&s, "responses") == 0 }).await;
            assert_served(&mallory).await;
        },
    );
}

#[test]
fn small_download_counts_until_its_client_has_room() {
    service_test(|s| async move {
        let mallory = s.mallory();
        // The store returns it as one piece, of which the client has room for a part.
        let data = pattern(40_000);
        let id = file_id(&mallory.upload(spec("small.bin"), &data).await.unwrap());
        let request = whole_frame(&DownloadFileRequest { file_id: id, ..Default::default() });
        let endpoint = Endpoint::from_shared(s.address.clone()).unwrap();
        let channel = endpoint.initial_stream_window_size(8_192).connect().await.unwrap();
        let unread = stall(&channel, Some(&mallory), DOWNLOAD, request).await.unwrap();
        s.wait_until("the last chunk is with the transport", || async {
            s.read_metric("strongroom_downloaded_bytes_total") >= data.len() as u64
                && in_use(&s, "downloads") == 0
        })
        .await;
        for _ in 0..100 {
            s.superuser.ping().await;
            assert!(in_use(&s, "requests") > 0, "its bytes are in the memory of the server");
        }
        drop(unread);
        s.wait_until("the request has ended", || async { in_use(&s, "requests") == 0 }).await;
    });
}

#[test]
fn slow_writes_of_a_tenant_leave_turns_to_others() {
    service_test_with(
        |config| config.storage.concurrency_max = 8,
        |s| async move {
            let gus = s.gus();
            s.faults.hold_writes(&gus.tenant_id().await);
            let held: Vec<_> = (0..20)
                .map(|number| {
                    let mallory = s.mallory();
                    tokio::spawn(async move { mallory.upload(spec(&format!("{number}")), b"x").await })
                })
                .collect();
            s.wait_until("the share of the caller is used up", || async {
                s.read_metric("strongroom_shares_waiting{resource=\"storage\"}") > 0
            })
            .await;
            assert_eq!(in_use(&s, "storage"), 6, "all but one for other tenants and one for colleagues");
            for other in [s.alice(), s.maria()] {
                assert_served(&other).await;
            }
            assert_eq!(sweep_stores(&s.app, SweepOptions::from_config(&s.app)).await.unwrap().len(), 1);
            s.faults.release_writes();
            for upload in held {
                upload.await.unwrap().unwrap();
            }
            s.wait_until("all turns are free", || async { in_use(&s, "storage") == 0 }).await;
        },
    );
}

#[test]
fn part_message_holds_no_space_while_it_is_stored() {
    service_test(|s| async move {
        let alice = s.alice();
        let data = pattern(2 * PART);
        let upload = alice.create_upload(spec("parts.bin")).await.unwrap();
        s.faults.hold_writes(&alice.tenant_id().await);
        let (sender, part) = (s.alice(), data[..PART].to_vec());
        let id = upload.id.clone();
        let stored = tokio::spawn(async move { sender.upload_part(&id, 0, &part).await });
        s.wait_until("the part is being stored", || async { s.faults.waiting_writes() == 1 }).await;
        assert_eq!(in_use(&s, "storage"), 1);
        assert_eq!(in_use(&s, "decoded_messages"), 0, "the buffers of uploads count its bytes");
        assert!(in_use(&s, "upload_buffers") >= PART as u64);
        s.faults.release_writes();
        assert_eq!(stored.await.unwrap().unwrap().persisted_size_bytes, PART as i64);
        alice.cancel_upload(&upload.id).await.unwrap();
    });
}

#[test]
fn silent_uploads_cannot_stop_the_operator() {
    service_test_with(
        |config| {
            (config.server.requests_max, config.server.operator_requests_reserved) = (32, 4);
            config.uploads.first_message_seconds = 600;
        },
        |s| async move {
            let globex = s.mallory().tenant_id().await;
            let channel = connect(&s).await;
            let silent = |caller: &Caller| stall(&channel, Some(caller), UPLOAD, Vec::new());
            let mallory = s.mallory();
            let mut streams: Vec<_> = (0..60).map(|_| silent(&mallory)).collect();
            s.wait_until("the share of the caller is used up", || async {
                s.read_metric("strongroom_shares_refusals_total") > 0
            })
            .await;
            for caller in [s.gus(), s.alice()] {
                assert_served(&caller).await;
            }
            // Now callers of many tenants use up all units that members may have.
            for number in 0.. {
                assert!(number < 5_000, "{} requests", in_use(&s, "requests"));
                if let Err(error) = s.alice().quota().await
                    && in_use(&s, "requests") == 28
                {
                    assert_overloaded(&error, "requests");
                    break;
                }
                let crew = format!("crew-{}", number % 14);
                streams.push(silent(&s.member("eve", &crew, "member", &[])));
            }
            s.operator().suspend_tenant(&globex).await.unwrap();
            s.operator().resume_tenant(&globex).await.unwrap();
            streams.iter().for_each(|stream| stream.abort());
        },
    );
}

#[test]
fn silent_upload_ends_at_the_time_for_its_first_message() {
    service_test_with(
        |config| config.uploads.first_message_seconds = 1,
        |s| async move {
            let channel = connect(&s).await;
            let alice = s.alice();
            let stalled = stall(&channel, Some(&alice), UPLOAD, Vec::new());
            let response = tokio::time::timeout(WAIT_MAX, stalled).await.unwrap().unwrap();
            let status = Status::from_header_map(response.headers()).unwrap();
            assert_eq!(reason(&status), "UPLOAD_STALLED");
        },
    );
}

#[test]
fn chunk_headers_do_not_refuse_uploads_of_others() {
    service_test_with(
        |config| config.uploads.decode_permits = 16,
        |s| async move {
            // These are the first calls of both tenants: colleagues have shares before their tenant exists.
            let mallory = s.mallory();
            let channel = connect(&s).await;
            let half_a_chunk = [whole_frame(&spec_message(spec("a"))), frame(CHUNK_BYTES, b"12345")].concat();
            let stalled: Vec<_> =
                (0..64).map(|_| stall(&channel, Some(&mallory), UPLOAD, half_a_chunk.clone())).collect();
            s.wait_until("the room of the caller is used up", || async {
                s.read_metric("strongroom_shares_waiting{resource=\"messages\"}") > 0
            })
            .await;
            for other in [s.gus(), s.alice()] {
                let data = pattern(CHUNK_BYTES as usize);
                let messages = crate::harness::upload_messages(spec("b"), &data, data.len());
                other.send_messages(messages).await.unwrap();
            }
            stalled.iter().for_each(|stream| stream.abort());
        },
    );
}

#[test]
fn anonymous_calls_take_nothing_from_others() {
    service_test_with(
        |config| {
            config.server.anonymous_requests_max = 16;
            config.uploads.decode_permits = 1;
        },
        |s| async move {
            let channel = connect(&s).await;
            let announced = stall(&channel, None, CHECK, frame(64 << 10, b"")).await.unwrap();
            let status = Status::from_header_map(announced.headers()).unwrap();
            assert_eq!(reason(&status), "MESSAGE_TOO_LARGE");
            assert_eq!(status.get_details_error_info().unwrap().metadata["limit_bytes"], "1024");

            let silent: Vec<_> = (0..100).map(|_| stall(&channel, None, CHECK, frame(1_000, b""))).collect();
            // All have arrived if no more than their places are left.
            s.wait_until("the places are taken", || async {
                silent.iter().filter(|call| !call.is_finished()).count() <= 16
            })
            .await;
            let mut health = HealthClient::new(s.channel.clone());
            for _ in 0..20 {
                health.check(HealthCheckRequest::default()).await.unwrap();
            }
            assert_eq!((in_use(&s, "messages"), in_use(&s, "requests")), (0, 0));
            assert_served(&s.alice()).await;
            silent.iter().for_each(|call| call.abort());
        },
    );
}

#[test]
fn refusals_above_the_rate_are_audited_together() {
    service_test_with(
        |config| {
            config.rate_limits.caller_refusals_per_second = 1;
            config.rate_limits.burst_seconds = 5;
        },
        |s| async move {
            let (mallory, denied) = (s.mallory(), "SELECT count(*) FROM audit_entries WHERE NOT is_allowed");
            // Her tenant must exist: without one there is no audit log.
            mallory.quota().await.unwrap();
            let mut limited = 0;
            for _ in 0..200 {
                let error =
                    mallory.webhooks.clone().list_webhooks(ListWebhooksRequest::default()).await.unwrap_err();
                match error.code() {
                    Code::PermissionDenied => assert_eq!(reason(&error), "NOT_ALLOWED"),
                    _ => {
                        assert_eq!(reason(&error), "RATE_LIMITED");
                        let metadata = error.get_details_error_info().unwrap().metadata;
                        assert_eq!((&*metadata["scope"], &*metadata["event"]), ("caller", "refusals"));
                        assert!(error.get_details_retry_info().is_some());
                        limited += 1;
                    }
                }
            }
            let alone = 200 - limited;
            assert!(limited > 100, "{limited}");
            assert_eq!(s.superuser.query_number(denied).await, alone);
            // Its calls that are allowed are served.
            mallory.quota().await.unwrap();

            write_refusals(&s.app).await;
            assert_eq!(s.superuser.query_number(denied).await, alone + 1, "one entry for all others");
            let counted = "SELECT sum((details->>'count')::bigint)::bigint FROM audit_entries
                WHERE NOT is_allowed AND actor_id = 'mallory'";
            assert_eq!(s.superuser.query_number(counted).await, limited);
        },
    );
}

#[test]
fn requests_are_limited_per_caller() {
    service_test_with(
        |config| {
            config.rate_limits.caller_requests_per_second = 1;
            config.rate_limits.burst_seconds = 5;
        },
        |s| async move {
            let mut limited = None;
            for _ in 0..100 {
                limited = s.mallory().quota().await.err().or(limited);
            }
            let limited = limited.expect("none of 100 requests was refused");
            assert_eq!(
                (limited.code(), reason(&limited)),
                (Code::ResourceExhausted, "RATE_LIMITED".to_owned())
            );
            assert!(limited.get_details_retry_info().is_some());
            assert!(s.gus().quota().await.is_ok(), "a colleague has its own rate");
        },
    );
}

#[test]
fn one_caller_can_hold_all_watches_of_its_tenant_only() {
    service_test(|s| async move {
        let mut watchers = Vec::new();
        let refused = loop {
            assert!(watchers.len() < 100, "no watch was refused");
            match s.alice().watch_files_after("").await {
                Ok(watcher) => watchers.push(watcher),
                Err(error) => break error,
            }
        };
        assert_eq!(
            (refused.code(), reason(&refused).as_str()),
            (Code::FailedPrecondition, "WATCHES_EXHAUSTED")
        );
        assert_eq!(watchers.len(), 64);
        s.gus().watch_files().await;
    });
}

#[test]
fn flood_of_one_tenant_does_not_take_all_connections() {
    service_test_with(
        // One of them is reserved.
        |config| config.database.pool_size_max = 5,
        |s| async move {
            // Each commit holds its connection until the lock is free.
            let globex = s.gus().tenant_id().await;
            let locking = s.database.connect_as_superuser().await;
            locking
                .execute(&format!("BEGIN; SELECT FROM quotas WHERE tenant_id = '{globex}' FOR UPDATE"))
                .await;
            let blocked: Vec<_> = (0..20)
                .map(|number| {
                    let gus = s.gus();
                    tokio::spawn(async move { gus.upload(spec(&format!("{number}")), b"x").await })
                })
                .collect();
            s.wait_until("the share of the tenant is used up", || async {
                s.app.db().pool_status().in_use >= 3
            })
            .await;
            assert_served(&s.alice()).await;
            locking.execute("COMMIT").await;
            for upload in blocked {
                upload.await.unwrap().unwrap();
            }
        },
    );
}
