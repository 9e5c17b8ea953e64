//! The suspension of a tenant ends its running streams, on every server.

use bytes::Bytes;
use futures::{SinkExt, channel::mpsc};
use http_body::Frame;
use http_body_util::StreamBody;
use strongroom::{
    config::Config,
    db::Viewer,
    domain::ids::TenantId,
    proto::v1::{DownloadFileRequest, UploadSpec, WatchFilesRequest},
};
use tonic::{Code, Status, body::Body};
use tower::Service as _;

use crate::harness::{
    PART, Service, WAIT_MAX, chunk, file_id, pattern, reason, service_test_with, spec, spec_message,
};

fn with_short_interval(config: &mut Config) {
    config.tenants.stream_recheck_milliseconds = 1;
    // The poller of events would end watches too.
    config.watches.poll_interval_max_milliseconds = 60_000;
    (config.downloads.chunk_size_bytes, config.downloads.chunks_in_flight_max) = (262_144, 1);
    // Limits that would end an idle stream for another reason.
    config.uploads.idle_timeout_seconds = 600;
}

fn assert_suspended(ended: &Status) {
    assert_eq!((ended.code(), reason(ended).as_str()), (Code::FailedPrecondition, "TENANT_SUSPENDED"));
}

/// Suspends acme through one replica while another runs the stream.
async fn suspend(s: &Service) {
    let tenant = s.superuser.query_texts("SELECT id::text FROM tenants WHERE external_id = 'acme'").await;
    s.operator().suspend_tenant(&tenant[0]).await.unwrap();
}

#[test]
fn suspension_ends_uploads_of_other_replicas() {
    service_test_with(with_short_interval, |s| async move {
        s.alice().tenant_id().await;
        let replica = s.start_replica(|_| {}).await;
        let (mut messages, receiver) = mpsc::channel(0);
        let mut files = replica.alice().files;
        let response = tokio::spawn(async move { files.upload_file(receiver).await });
        let upload = UploadSpec { size_bytes: Some(4 * PART as i64), ..spec("a.bin") };
        messages.send(spec_message(upload)).await.unwrap();
        messages.send(chunk(0, &pattern(PART))).await.unwrap();
        suspend(&s).await;
        // The stream stays open: only the service can end it.
        let ended = tokio::time::timeout(WAIT_MAX, response).await.unwrap().unwrap().unwrap_err();
        assert_suspended(&ended);
        drop(messages);
        replica.stop().await;
    });
}

#[test]
fn suspension_ends_parts_of_other_replicas() {
    service_test_with(with_short_interval, |s| async move {
        s.alice().tenant_id().await;
        let replica = s.start_replica(|_| {}).await;
        // The beginning of a message of 256 bytes, which stays incomplete.
        let beginning = Bytes::from_static(&[0, 0, 0, 1, 0, 10]);
        let (mut frames, receiver) = mpsc::channel(1);
        frames.send(Ok::<_, Status>(Frame::data(beginning))).await.unwrap();
        let request = http::Request::post("/strongroom.v1.UploadService/UploadPart")
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("authorization", format!("Bearer {}", replica.alice().token))
            .body(Body::new(StreamBody::new(receiver)))
            .unwrap();
        let mut channel = replica.channel.clone();
        std::future::poll_fn(|context| channel.poll_ready(context)).await.unwrap();
        let response = tokio::spawn(async move { channel.call(request).await.unwrap() });
        s.wait_until("the part is being received", || async {
            replica.read_metric("strongroom_shares_in_use{resource=\"requests\"}") > 0
        })
        .await;
        suspend(&s).await;
        let ended = tokio::time::timeout(WAIT_MAX, response).await.unwrap().unwrap();
        assert_suspended(&Status::from_header_map(ended.headers()).unwrap());
        drop(frames);
        replica.stop().await;
    });
}

#[test]
fn suspension_ends_upload_that_created_the_tenant() {
    service_test_with(with_short_interval, |s| async move {
        let (mut messages, receiver) = mpsc::channel(0);
        let mut files = s.alice().files;
        let response = tokio::spawn(async move { files.upload_file(receiver).await });
        let upload = UploadSpec { size_bytes: Some(4 * PART as i64), ..spec("a.bin") };
        messages.send(spec_message(upload)).await.unwrap();
        messages.send(chunk(0, &pattern(PART))).await.unwrap();
        s.wait_until("the upload has created its tenant", || async {
            s.superuser.query_number("SELECT count(*) FROM tenants WHERE external_id = 'acme'").await > 0
        })
        .await;
        suspend(&s).await;
        let ended = tokio::time::timeout(WAIT_MAX, response).await.unwrap().unwrap().unwrap_err();
        assert_suspended(&ended);
        drop(messages);
    });
}

#[test]
fn suspension_ends_downloads_of_other_replicas() {
    service_test_with(with_short_interval, |s| async move {
        let id = file_id(&s.alice().upload(spec("film.bin"), &pattern(24 << 20)).await.unwrap());
        let replica = s.start_replica(|_| {}).await;
        let request = DownloadFileRequest { file_id: id, ..DownloadFileRequest::default() };
        let mut stream = replica.alice().files.clone().download_file(request).await.unwrap().into_inner();
        stream.message().await.unwrap().unwrap();
        suspend(&s).await;
        let ended = loop {
            match stream.message().await {
                Ok(message) => assert!(message.is_some(), "the download continued to its end"),
                Err(ended) => break ended,
            }
        };
        assert_suspended(&ended);
        replica.stop().await;
    });
}

#[test]
fn suspension_ends_watches_of_other_replicas() {
    service_test_with(with_short_interval, |s| async move {
        let replica = s.start_replica(|_| {}).await;
        let mut events = replica.alice().events;
        let mut stream = events.watch_files(WatchFilesRequest::default()).await.unwrap().into_inner();
        stream.message().await.unwrap().unwrap();
        suspend(&s).await;
        let ended = async {
            loop {
                match stream.message().await {
                    Ok(message) => assert!(message.is_some()),
                    Err(ended) => return ended,
                }
            }
        };
        assert_suspended(&tokio::time::timeout(WAIT_MAX, ended).await.unwrap());
        replica.stop().await;
    });
}

#[test]
fn suspension_ends_imports_of_other_replicas() {
    service_test_with(with_short_interval, |s| async move {
        s.alice().tenant_id().await;
        let replica = s.start_replica(|_| {}).await;
        let (items, mut reports) = replica.ada().start_import("legacy").await;
        suspend(&s).await;
        let ended = tokio::time::timeout(WAIT_MAX, reports.message()).await.unwrap().unwrap_err();
        assert_suspended(&ended);
        drop(items);
        replica.stop().await;
    });
}

#[test]
fn tenants_cannot_delay_a_suspension() {
    service_test_with(with_short_interval, |s| async move {
        let mut events = s.alice().events;
        let mut stream = events.watch_files(WatchFilesRequest::default()).await.unwrap().into_inner();
        stream.message().await.unwrap().unwrap();
        // As slow calls do, these hold all connections that tenants may have.
        let (db, viewer, mut held) = (s.app.db(), Viewer::system(), Vec::new());
        for caller in [s.alice(), s.mallory()] {
            let tenant: TenantId = caller.tenant_id().await.parse().unwrap();
            held.extend(s.hold_connections(|| db.pool_status(), || db.tenant_tx(tenant, &viewer)).await);
        }
        suspend(&s).await;
        let ended = async {
            loop {
                match stream.message().await {
                    Ok(message) => assert!(message.is_some()),
                    Err(ended) => return ended,
                }
            }
        };
        assert_suspended(&tokio::time::timeout(WAIT_MAX, ended).await.unwrap());
        drop(held);
    });
}
