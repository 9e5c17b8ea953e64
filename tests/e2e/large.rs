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
/// The memory limit while a 1 GiB file is transferred: far below the size of the file, and below the memory
/// bound that the server logs at start.
const RESIDENT_BYTES_MAX: u64 = 320 << 20;

/// Pseudo-random bytes without repetition, so that a shifted or duplicated part changes the digest.
struct RandomBytes {
    remaining: u64,
    state: u64,
}

impl RandomBytes {
    fn new(length: u64) -> Self {
        Self { remaining: length, state: 0x9E37_79B9_7F4A_7C15 }
    }
}

impl AsyncRead for RandomBytes {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let length = usize::try_from(self.remaining.min(buffer.remaining() as u64)).unwrap();
        let mut written = 0;
        while written < length {
            self.state =
                self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let word = self.state.to_le_bytes();
            let count = word.len().min(length - written);
            buffer.put_slice(&word[..count]);
            written += count;
        }
        self.remaining -= length as u64;
        Poll::Ready(Ok(()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn gibibyte_file_round_trips_with_bounded_memory() {
    let site = Site::new("large").await;
    let server = site.start_server().await;
    let client = site.client(&server, "alice").await;

    // The size is not declared, so the reservation grows while the bytes arrive.
    let spec = UploadSpec { name: "large.bin".into(), ..UploadSpec::default() };
    let uploaded = client.upload_reader(spec, RandomBytes::new(GIBIBYTE), |_| {}).await.unwrap();
    let file = uploaded.file.unwrap();
    assert_eq!(file.size_bytes, i64::try_from(GIBIBYTE).unwrap());

    let request = DownloadFileRequest { file_id: file.id.clone(), ..DownloadFileRequest::default() };
    let mut download = client.open_download(request).await.unwrap();
    let mut hasher = Hasher::default();
    while let Some(chunk) = download.next_chunk().await.unwrap() {
        hasher.update(&chunk);
    }
    assert_eq!(hasher.finish().as_bytes().as_slice(), file.sha256.as_ref());

    let peak = server.peak_resident_bytes();
    assert!(peak < RESIDENT_BYTES_MAX, "the server used {} MiB", peak >> 20);
    server.kill().await;
    site.close().await;
}
