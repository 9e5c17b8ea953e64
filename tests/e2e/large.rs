//! Files far larger than any buffer.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use strongroom::{
    domain::digest::Hasher,
    proto::v1::{DownloadFileRequest, UploadSpec},
};
use tokio::io::{AsyncRead, ReadBuf};

use crate::server::Site;

const GIBIBYTE: u64 = 1 << 30;
/// What the process may hold while one file of a gibibyte passes through: far below the file, and below the bound that the
/// service prints at start.
const RESIDENT_BYTES_MAX: u64 = 320 << 20;

/// Bytes that never repeat in a way that a shifted or doubled part would hide.
struct Pattern {
    left: u64,
    state: u64,
}

impl Pattern {
    fn new(length: u64) -> Self {
        Self { left: length, state: 0x9E37_79B9_7F4A_7C15 }
    }
}

impl AsyncRead for Pattern {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let wanted = usize::try_from(self.left.min(buffer.remaining() as u64)).unwrap();
        let mut written = 0;
        while written < wanted {
            self.state =
                self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let word = self.state.to_le_bytes();
            let count = word.len().min(wanted - written);
            buffer.put_slice(&word[..count]);
            written += count;
        }
        self.left -= wanted as u64;
        Poll::Ready(Ok(()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gibibyte_goes_up_and_down_with_equal_digests_and_bounded_memory() {
    let site = Site::new("large").await;
    let server = site.serve().await;
    let client = site.client(&server, "alice").await;

    // Of unknown size, so that the reservation grows while the bytes arrive.
    let spec = UploadSpec { name: "large.bin".into(), ..UploadSpec::default() };
    let uploaded = client.upload(spec, Pattern::new(GIBIBYTE), |_| {}).await.unwrap();
    let file = uploaded.file.unwrap();
    assert_eq!(file.size_bytes, i64::try_from(GIBIBYTE).unwrap());

    let request = DownloadFileRequest { file_id: file.id.clone(), ..DownloadFileRequest::default() };
    let mut download = client.download(request).await.unwrap();
    let mut hasher = Hasher::default();
    while let Some(chunk) = download.next_chunk().await.unwrap() {
        hasher.update(&chunk);
    }
    assert_eq!(hasher.finish().as_bytes().as_slice(), file.sha256.as_ref());

    let peak = server.peak_resident_bytes();
    assert!(peak < RESIDENT_BYTES_MAX, "the service held {} MiB", peak >> 20);
    server.kill().await;
    site.close().await;
}
