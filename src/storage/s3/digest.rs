//! The digests that let the store verify a body. At most one of the two is sent.

use aws_lc_rs::digest::{Context, SHA256};
use base64::{Engine, prelude::BASE64_STANDARD};

use super::super::Payload;

/// The number of bytes hashed before yielding to other tasks: about half a millisecond.
const YIELD_SIZE_BYTES: usize = 1024 * 1024;

/// Computes the SHA-256 for the signature.
pub(super) async fn sha256(body: &Payload) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    let mut since_yield_bytes = 0;
    for chunk in body.chunks() {
        for piece in chunk.chunks(YIELD_SIZE_BYTES) {
            context.update(piece);
            since_yield_bytes += piece.len();
            if since_yield_bytes >= YIELD_SIZE_BYTES {
                since_yield_bytes = 0;
                tokio::task::yield_now().await;
            }
        }
    }
    let mut digest = [0; 32];
    digest.copy_from_slice(context.finish().as_ref());
    digest
}

/// Computes the value of the `x-amz-checksum-crc64nvme` header.
pub(super) fn crc64_nvme(body: &Payload) -> String {
    BASE64_STANDARD.encode(body.crc64nvme().to_be_bytes())
}
