//! Uploads whose response is known before the client has sent everything.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use futures::{SinkExt, StreamExt, channel::mpsc, stream};
use strongroom::proto::v1::UploadSpec;

use crate::{
    harness::{
        WAIT_MAX, pattern, resume_messages, service_test, service_test_with, sha256, spec, spec_message,
        upload_messages,
    },
    upload_retries::spec_with_id,
};

const ID: &str = "0198c0de-1111-7000-8000-000000000002";

#[test]
fn small_retry_with_digest_needs_only_its_spec() {
    service_test(|s| async move {
        let alice = s.alice();
        let data = b"bytes";
        let small = UploadSpec { size_bytes: Some(5), ..spec_with_id("a", ID, Some(sha256(data))) };
        // The quota is cached after this.
        let first = alice.upload(small.clone(), data).await.unwrap();
        // The stream stays open: nothing follows the spec.
        let (mut sender, stream) = mpsc::channel(1);
        sender.send(spec_message(small)).await.unwrap();
        let mut files = alice.files.clone();
        let again = tokio::time::timeout(WAIT_MAX, files.upload_file(stream));
        assert_eq!(again.await.expect("no response to the spec").unwrap().into_inner(), first);
    });
}

#[test]
fn early_success_reads_remaining_messages_of_client() {
    let narrow = |config: &mut strongroom::config::Config| {
        config.server.http2.stream_window_bytes = 65_535;
        config.server.http2.connection_window_bytes = 65_535;
    };
    service_test_with(narrow, |s| async move {
        let alice = s.alice();
        let data = pattern(512 << 10);
        let large = spec_with_id("a", ID, Some(sha256(&data)));
        let first = alice.upload(large.clone(), &data).await.unwrap();
        let upload = alice.create_upload(spec("b")).await.unwrap();
        let resumed = alice.send_messages(resume_messages(&upload.id, &data, 0, true)).await.unwrap();
        let retries = [
            (upload_messages(large, &data, 40_000), first),
            (resume_messages(&upload.id, &data, 0, true), resumed),
        ];
        for (messages, response) in retries {
            let (count, sent) = (messages.len(), Arc::new(AtomicUsize::new(0)));
            let counter = Arc::clone(&sent);
            let messages = stream::iter(messages).inspect(move |_| {
                counter.fetch_add(1, Ordering::SeqCst);
            });
            let again = alice.files.clone().upload_file(messages).await.unwrap().into_inner();
            assert_eq!(again.file, response.file);
            assert_eq!(sent.load(Ordering::SeqCst), count, "the client could send everything");
        }
    });
}
