//! Shutdown of the server: running calls complete, new calls are refused.

use futures::{SinkExt, channel::mpsc};
use strongroom::proto::v1::UploadSpec;
use tonic::Code;

use crate::{
    harness::{PART, file_id, reason, service_test, service_test_with, spec, upload_messages},
    upload::pattern,
};

#[test]
fn upload_in_flight_completes_during_drain() {
    service_test(|s| async move {
        let alice = s.alice();
        let data = pattern(4 * PART);
        let spec = UploadSpec { size_bytes: Some(data.len() as i64), ..spec("in flight") };
        let mut messages = upload_messages(spec, &data, PART);
        let rest = messages.split_off(3);
        let (mut sender, stream) = mpsc::channel(1);
        let mut files = alice.files.clone();
        let running = tokio::spawn(async move { files.upload_file(stream).await });
        for message in messages {
            sender.send(message).await.unwrap();
        }
        s.wait_until("the reservation", || async { s.quota_row(&alice).await.reserved_bytes > 0 }).await;

        s.begin_shutdown();
        s.wait_until("health reports draining", || async {
            !s.health.state().is_ready() && s.health.state().is_draining
        })
        .await;
        for message in rest {
            sender.send(message).await.unwrap();
        }
        drop(sender);
        let response = running.await.unwrap().unwrap().into_inner();
        s.stop().await;
        let rows = s
            .superuser
            .query_rows("SELECT size_bytes FROM files WHERE id = $1::text::uuid", &[&file_id(&response)])
            .await;
        assert_eq!(rows[0].get::<_, i64>(0), data.len() as i64);
    });
}

#[test]
fn call_is_in_progress_until_its_stream_ends() {
    service_test(|s| async move {
        let watch = s.alice().watch_files().await;
        assert!(!s.app.is_idle(), "the server waits for it when it stops");
        drop(watch);
        s.wait_until("the watch ends", || async { s.app.is_idle() }).await;
    });
}

#[test]
fn calls_fail_after_drain() {
    service_test(|s| async move {
        s.alice().upload(spec("a"), b"x").await.unwrap();
        s.stop().await;
        let error = s.alice().upload(spec("b"), b"x").await.unwrap_err();
        assert_ne!(error.code(), Code::Ok);
        assert_eq!(s.superuser.query_number("SELECT count(*) FROM files").await, 1);
    });
}

#[test]
fn upload_cut_by_drain_timeout_ends_with_shutting_down() {
    service_test_with(
        |config| config.server.drain_seconds = 0,
        |s| async move {
            let alice = s.alice();
            let mut messages = upload_messages(spec("slow"), &pattern(4 * PART), PART);
            messages.truncate(4);
            let (mut sender, stream) = mpsc::channel(1);
            let mut files = alice.files.clone();
            let running = tokio::spawn(async move { files.upload_file(stream).await });
            for message in messages {
                sender.send(message).await.unwrap();
            }
            s.wait_until("the reservation", || async {
                s.superuser.query_number("SELECT sum(reserved_bytes) FROM quotas").await > 0
            })
            .await;
            s.stop().await;
            let status = running.await.unwrap().unwrap_err();
            let outcome = (status.code(), reason(&status));
            assert_eq!(outcome, (Code::Unavailable, "SHUTTING_DOWN".to_owned()), "{status:?}");
            s.assert_nothing_is_left().await;
        },
    );
}
