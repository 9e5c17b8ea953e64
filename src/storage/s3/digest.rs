//! What goes along with the bytes so that the store can tell whether they arrived: never more than one of both.

use aws_lc_rs::digest::{Context, SHA256};
use base64::{Engine, prelude::BASE64_STANDARD};

use super::super::Payload;

/// How much is hashed before other tasks of this thread get a turn: about half a millisecond.
const TURN_SIZE_BYTES: usize = 1024 * 1024;

/// For the signature.
pub(super) async fn sha256(body: &Payload) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    let mut since_turn = 0;
    for chunk in body.chunks() {
        for piece in chunk.chunks(TURN_SIZE_BYTES) {
            context.update(piece);
            since_turn += piece.len();
            if since_turn >= TURN_SIZE_BYTES {
                since_turn = 0;
                tokio::task::yield_now().await;
            }
        }
    }
    let mut digest = [0; 32];
    digest.copy_from_slice(context.finish().as_ref());
    digest
}

/// As `x-amz-checksum-crc64nvme` wants it.
pub(super) fn crc64_nvme(body: &Payload) -> String {
    BASE64_STANDARD.encode(body.crc64nvme().to_be_bytes())
}
