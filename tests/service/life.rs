//! The service goes: what runs ends well, what is new is sent elsewhere.

use futures::{SinkExt, channel::mpsc};
use strongroom::proto::v1::UploadSpec;
use tonic::Code;

use crate::{
    harness::{PART, file_id, reason, service_test, service_test_with, spec, upload_messages},
    upload::pattern,
};

#[test]
fn an_upload_in_flight_completes_while_the_service_drains() {
    service_test(|s| async move {
        let alice = s.alice();
        let data = pattern(4 * PART);
        let told = UploadSpec { size_bytes: Some(data.len() as i64), ..spec("in flight") };
        let mut messages = upload_messages(told, &data, PART);
        let rest = messages.split_off(3);
        let (mut sender, stream) = mpsc::channel(1);
        let mut files = alice.files.clone();
        let running = tokio::spawn(async move { files.upload_file(stream).await });
        for message in messages {
            sender.send(message).await.unwrap();
        }
        s.until("the reservation", || async { s.book(&alice).await.reserved_bytes > 0 }).await;

        s.begin_shutdown();
        s.until("health says so", || async { !s.health.state().is_ready() && s.health.state().draining })
            .await;
        for message in rest {
            sender.send(message).await.unwrap();
        }
        drop(sender);
        let answer = running.await.unwrap().unwrap().into_inner();
        s.stopped().await;
        let rows = s
            .owner
            .rows("SELECT size_bytes FROM files WHERE id = $1::text::uuid", &[&file_id(&answer)])
            .await;
        assert_eq!(rows[0].get::<_, i64>(0), data.len() as i64);
    });
}

#[test]
fn after_the_drain_nobody_is_served() {
    service_test(|s| async move {
        s.alice().upload(spec("a"), b"x").await.unwrap();
        s.stopped().await;
        let refused = s.alice().upload(spec("b"), b"x").await.unwrap_err();
        assert_ne!(refused.code(), Code::Ok);
        assert_eq!(s.owner.number("SELECT count(*) FROM files").await, 1);
    });
}

#[test]
fn upload_that_outlives_the_drain_ends_with_shutting_down() {
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
            s.until("the reservation", || async {
                s.owner.number("SELECT sum(reserved_bytes) FROM quotas").await > 0
            })
            .await;
            s.stopped().await;
            let status = running.await.unwrap().unwrap_err();
            let ended = (status.code(), reason(&status));
            assert_eq!(ended, (Code::Unavailable, "SHUTTING_DOWN".to_owned()), "{status:?}");
            s.assert_nothing_is_left().await;
        },
    );
}
