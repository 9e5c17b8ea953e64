//! Limits of connections: idle ones make room, those without credentials are closed, and no tenant takes all of them.

use std::time::Duration;

use strongroom::proto::v1::{DownloadFileRequest, GetQuotaRequest};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tonic::Status;

use crate::{
    fairness::{assert_overloaded, assert_served, connect, stall},
    harness::{file_id, pattern, service_test_with, spec},
    stalled_calls::{DOWNLOAD, whole_frame},
};

#[test]
fn idle_connections_make_room_for_new_clients() {
    service_test_with(
        |config| (config.server.connections_max, config.server.connections_per_address_max) = (16, 16),
        |s| async move {
            // The connection of the test has an authenticated request.
            s.alice().quota().await.unwrap();
            let mut idle = Vec::new();
            for _ in 0..64 {
                idle.push(TcpStream::connect(s.address.strip_prefix("http://").unwrap()).await.unwrap());
            }
            let client = s.alice().connect_client().await;
            assert!(client.get_quota(GetQuotaRequest::default()).await.is_ok());
            s.alice().quota().await.unwrap();
            assert!(
                s.read_metric("strongroom_connections_closed_total{port=\"grpc\",reason=\"room\"}") >= 48
            );
        },
    );
}

#[test]
fn busy_connections_of_one_tenant_leave_room_for_others() {
    service_test_with(
        |config| {
            (config.server.connections_max, config.server.connections_per_address_max) = (24, 24);
            config.server.operator_connections_reserved = 4;
        },
        |s| async move {
            // The tenant of alice holds the connection of the test.
            assert_served(&s.alice()).await;
            let mallory = s.mallory();
            let id = file_id(&mallory.upload(spec("large.bin"), &pattern(9 << 20)).await.unwrap());
            let request = whole_frame(&DownloadFileRequest { file_id: id, ..Default::default() });
            let (mut stalled, mut refused) = (Vec::new(), Vec::new());
            for _ in 0..18 {
                let channel = connect(&s).await;
                let response = stall(&channel, Some(&mallory), DOWNLOAD, request.clone()).await.unwrap();
                match Status::from_header_map(response.headers()) {
                    Some(status) => {
                        assert_overloaded(&status, "connections");
                        refused.push(channel);
                    }
                    None => stalled.push((channel, response)),
                }
            }
            // One caller gets three quarters of the share of its tenant.
            assert_eq!((stalled.len(), refused.len()), (12, 6));
            let metric = "strongroom_connections_closed_total{port=\"grpc\",reason=\"share\"}";
            assert_eq!(s.read_metric(metric), 6);
            let acme = s.alice().tenant_id().await;
            for caller in [s.gus(), s.alice(), s.operator()] {
                let client = caller.connect_client().await;
                let request = match caller.identity.organization {
                    Some(_) => GetQuotaRequest::default(),
                    None => GetQuotaRequest { tenant_id: acme.clone() },
                };
                assert!(client.get_quota(request).await.is_ok());
            }
            // A connection that was refused serves when another one has ended.
            drop(stalled.pop());
            let channel = refused.pop().unwrap();
            s.wait_until("the refused connection serves", || async {
                let response = stall(&channel, Some(&mallory), DOWNLOAD, request.clone()).await.unwrap();
                Status::from_header_map(response.headers()).is_none()
            })
            .await;
        },
    );
}

#[test]
fn connection_without_credentials_is_closed() {
    service_test_with(
        |config| config.server.unauthenticated_seconds = 1,
        |s| async move {
            let mut stranger = TcpStream::connect(s.address.strip_prefix("http://").unwrap()).await.unwrap();
            stranger.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
            let mut received = Vec::new();
            // Much earlier than a silent connection is.
            let closed = tokio::time::timeout(Duration::from_secs(20), stranger.read_to_end(&mut received));
            // Either the end of the stream or a reset.
            let _closed = closed.await.expect("the connection is still open");
        },
    );
}
