//! A request whose headers are too large does not end the connection, which a proxy shares between callers.

use strongroom::proto::v1::GetServiceInfoRequest;
use tonic::{Code, Request};

use crate::harness::{reason, service_test, spec};

/// The size of the headers. A proxy in front of the service accepts 60 KiB (Envoy) or more.
const HEADER_BYTES: usize = 80 * 1024;

#[test]
fn large_headers_leave_other_streams_of_the_connection() {
    service_test(|s| async move {
        // All callers of a test share one connection.
        let mut watcher = s.alice().watch_files().await;
        for _ in 0..10 {
            let mut request = Request::new(GetServiceInfoRequest {});
            request.metadata_mut().insert("x-padding", "x".repeat(HEADER_BYTES).parse().unwrap());
            let refused = s.bob().service_info.clone().get_service_info(request).await.unwrap_err();
            assert_eq!(
                (refused.code(), reason(&refused).as_str()),
                (Code::ResourceExhausted, "MESSAGE_TOO_LARGE")
            );
        }
        s.alice().upload(spec("a"), b"a").await.unwrap();
        watcher.next_event().await;
    });
}
