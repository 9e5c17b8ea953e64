//! Visitors of a share at two servers.

use std::io::Cursor;

use futures::future::join_all;
use secrecy::SecretString;
use strongroom::{
    client::{Client, ClientError},
    proto::v1::{
        CreateShareRequest, ErrorReason, GetShareRequest, ResolveShareRequest, Share, ShareState, UploadSpec,
    },
};
use tonic::Code;

use crate::server::{Site, WHOLE_MACHINE, connect};

/// The concurrent downloads. With `STRONGROOM_TEST_FULL=1` they are ten times as many.
const DOWNLOADS: usize = 100;
const DOWNLOADS_MAX: i64 = 10;

async fn create_link(owner: &Client) -> (String, String) {
    let spec = UploadSpec { name: "minutes.txt".to_owned(), ..UploadSpec::default() };
    let file = owner.upload_reader(spec, Cursor::new(b"minutes".to_vec()), |_| {}).await.unwrap().file;
    let share = Share { file_id: file.unwrap().id, max_downloads: DOWNLOADS_MAX, ..Share::default() };
    let request = CreateShareRequest { share: Some(share), ..CreateShareRequest::default() };
    let created = owner.create_share(request).await.unwrap();
    (created.share.unwrap().id, created.token)
}

/// Downloads with a grant, also while the servers are overloaded. Returns whether it was served.
async fn download(visitor: &Client, grant: &str) -> bool {
    loop {
        let mut bytes = Vec::new();
        match visitor.download_share_to(grant, &mut bytes, |_| {}).await {
            Ok(_) => {
                assert_eq!(bytes, b"minutes");
                return true;
            }
            Err(ClientError::Rejected(rejection)) if rejection.code == Code::NotFound => return false,
            // Overload says nothing about the share.
            Err(ClientError::Rejected(rejection)) if rejection.reason == ErrorReason::Overloaded => {
                tokio::task::yield_now().await;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_serve_exactly_the_maximum_of_downloads() {
    let _machine = WHOLE_MACHINE.lock().await;
    let count = if std::env::var("STRONGROOM_TEST_FULL").is_ok() { 10 * DOWNLOADS } else { DOWNLOADS };
    let site = Site::new("shares").await;
    let servers = [site.start_server().await, site.start_server().await];
    let owner = site.client(&servers[0], "alice").await;
    let (share_id, token) = create_link(&owner).await;
    let mut visitors = Vec::new();
    for server in &servers {
        visitors.push(connect(&server.grpc, SecretString::default()).await);
    }
    let mut grants = Vec::new();
    for n in 0..count {
        let request = ResolveShareRequest { token: token.clone(), password: String::new() };
        grants.push(visitors[n % 2].resolve_share(request).await.unwrap().grant);
    }
    let downloads = grants.iter().enumerate().map(|(n, grant)| download(&visitors[n % 2], grant));
    let served = join_all(downloads).await.into_iter().filter(|is_served| *is_served).count();
    assert_eq!(served, usize::try_from(DOWNLOADS_MAX).unwrap());
    let share = owner.get_share(GetShareRequest { share_id }).await.unwrap().share.unwrap();
    assert_eq!((share.download_count, share.state()), (DOWNLOADS_MAX, ShareState::Exhausted));
    for server in servers {
        server.kill().await;
    }
    site.close().await;
}
